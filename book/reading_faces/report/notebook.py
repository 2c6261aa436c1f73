"""What the chapters share: find the folders, show a figure, glue a number, tell what real data gave."""

from __future__ import annotations

import json
import textwrap
from ast import literal_eval
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import torch
from IPython.display import Image, display
from matplotlib.figure import Figure

from fer_utils import results
from fer_utils.datasets import read_sources
from fer_utils.emotions import CLASSES
from fer_utils.faces import Box, FaceDetector, face_image
from fer_utils.soft import CROSSED
from fer_utils.training import Recipe
from fer_utils.workspace import Profile, Workspace, project_root, workspace
from reading_faces.report import plots
from reading_faces.study.stats import mean_score

NOT_YET = "not run yet"
POSTER_NAMES = {"easynet": "EasyNet", "facenet": "FaceNet"}


def setup(profile: Profile) -> Workspace:
    """Open the workspace of a profile, set the figures' style and say what this run uses."""
    plots.use_style()
    pd.set_option("display.max_colwidth", None)
    space = workspace(profile)
    faces = {"demo": "drawn demo faces", "full": "real data below FER_DATA"}[profile]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor (no GPU found)"
    print(f"profile: {profile} ({faces})\ndevice: {device}")
    return space


def show(figure: Figure, name: str | None = None) -> None:
    """Display a figure in the place of the call.

    Args:
        figure: drawn once; pages that show it again show the very same picture.
        name: key under which another page of the book shows it too.
    """
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    image = Image(picture.getvalue(), format="png")
    display(image)
    if name:
        glue(name, image)


def glue(name: str, value: Any) -> None:
    """Store a value for the prose of the printed book, where ``{glue:text}`name` `` shows it.

    Args:
        name: the key, unique in the book.
        value: a string, a figure or a table. Outside the book (in Colab, say) nothing happens. A line may not
            end between a number and its per cent sign.
    """
    try:
        from myst_nb import glue as store
    except ImportError:
        return
    store(name, _Plain(value.replace(" %", "\u00a0%")) if isinstance(value, str) else value, display=False)


class _Plain(str):
    """A string that prints without quotation marks, unless it looks like something else to Python.

    myst-nb evaluates what is glued, so that `35,887` would come out as the pair (35, 887).
    """

    __slots__ = ()

    def __repr__(self) -> str:
        try:
            literal_eval(self)
        except (SyntaxError, ValueError):
            return str(self)
        return super().__repr__()


def percent(value: float, digits: int = 1) -> str:
    """A share as the prose writes it: 0.689 becomes ``68.9 %``."""
    return f"{100 * value:.{digits}f} %"


def interval(metrics: dict[str, Any]) -> str:
    """The interval of an accuracy, e.g. ``67.4 to 70.4 %``."""
    low, high = metrics["accuracy_interval"]
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def score(metrics: dict[str, Any]) -> str:
    """An accuracy with its interval, e.g. ``68.9 % (95 % interval 67.4 to 70.4 %)``."""
    return f"{percent(metrics['accuracy'])} (95 % interval {interval(metrics)})"


def say(text: str) -> None:
    """Print a text in lines that fit the page."""
    print(textwrap.fill(text, 84))


def detections(
    space: Workspace, per_source: int = 2
) -> tuple[list[np.ndarray], list[Box | None], list[np.ndarray]]:
    """Frames of the sources that are not cropped yet, the largest face's box in each, and the crop.

    Returns:
        Frames (uint8, H×W), boxes (none where no face was found) and crops (uint8, 64×64), as
        `plots.detection_examples` takes them.
    """
    detector, frames = FaceDetector(), []
    for source in read_sources(space.data):
        if not source.cropped:
            frames += [source.images[i] for i in np.linspace(0, len(source) - 1, per_source).astype(int)]
    boxes = [next(iter(detector.boxes(frame)), None) for frame in frames]
    return frames, boxes, [face_image(frame, detector)[0] for frame in frames]


def scores_table(scores: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """The variants of one split's scores side by side."""
    rows = {
        name: {
            "images": s["images"],
            "accuracy": percent(s["accuracy"]),
            "95 % interval": interval(s),
            "macro-F1": f"{s['macro_f1']:.3f}",
        }
        for name, s in scores.items()
    }
    return pd.DataFrame(rows).T.rename_axis("measured on")


def full_data() -> dict[str, Any] | None:
    """The manifest of the real merged set as `fer merge` left it for the book, or none."""
    return full_report(results.DATA)


def benchmark_facts() -> dict[str, str]:
    """What `tests/benchmarks` measured, for the prose, by glue name."""
    names = ("reading-size", "reading-seconds", "reading-times", "augment-share", "augment-kornia")
    folder = workspace("full").results / "benchmarks"
    paths = folder / "reading.json", folder / "augmentation.json"
    if not all(path.exists() for path in paths):
        return {name: NOT_YET for name in names}
    reading, augmentation = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    ours, _, whole = reading["medians"].values()
    steps = augmentation["median_milliseconds"]
    values = (
        f"{reading['megabytes']} MB",
        f"{ours['wall_seconds']:.1f} s",
        f"{whole['wall_seconds'] / ours['wall_seconds']:.1f} times",
        percent(augmentation["share"]),
        f"{steps['kornia'] / steps['augment']:.1f} times",
    )
    return dict(zip(names, values, strict=True))


def throughput_facts() -> dict[str, str]:
    """Images a second that EasyNet trains on, and on what machine, for the prose, by glue name."""
    names = {
        "easynet-rate": "48 px, 32-96-192, bf16-mixed",
        "easynet-rate-single": "48 px, 32-96-192, 32-true",
        "easynet-rate-64": "64 px, 32-96-192, bf16-mixed",
    }
    measured = full_report("benchmarks/throughput.json")
    rates = measured["images_per_second"] if measured else {}
    machine = f"{measured['threads']} threads of an {measured['processor']}" if measured else NOT_YET
    return {key: f"{rates[name]:.0f}" if name in rates else NOT_YET for key, name in names.items()} | {
        "throughput-machine": machine
    }


def caching_table(report: dict[str, Any] | None) -> pd.DataFrame:
    """What `tests/benchmarks/caching.py` measured, one row a case."""
    rows = [
        {
            "trained": _trained(c),
            "images a batch": c["batch"],
            "seconds an epoch": f"{np.median(c['epoch_seconds']['uncached']):.1f}",
            "with the cache": f"{np.median(c['epoch_seconds']['cached']):.1f}",
            "times as fast": "{:.2f} ({:.2f} to {:.2f})".format(c["speedup"], *c["speedup_range"]),
            "possible": f"{c['bound']:.2f}",
            "reached": percent(c["share_of_bound"], 0),
            "accuracy": percent(c["validation_accuracy"]["uncached"]),
            "accuracy with the cache": percent(c["validation_accuracy"]["cached"]),
            "p (McNemar)": f"{c['mcnemar']['p']:.2f}",
        }
        for c in (report["cases"] if report else [])
    ]
    return pd.DataFrame(rows or [{"trained": NOT_YET, "": ""}]).set_index("trained")


def _trained(case: dict[str, Any]) -> str:
    """Which part of FaceNet a case of the caching benchmark trains."""
    heads = {"head only": "the poster's head alone", "linear head": "a linear head alone"}
    return heads.get(case["case"], f"above {case['last_frozen']}")


def caching_facts(report: dict[str, Any] | None) -> dict[str, str]:
    """How the caching benchmark was made and what it says beside its table, for the prose, by glue name."""
    names = ("caching-how", "caching-size", "caching-views", "caching-heads", "caching-share",
             "caching-differ")  # fmt: skip
    if report is None:
        return dict.fromkeys(names, NOT_YET)
    cases, most = report["cases"], max(c["frozen_layers"] for c in report["cases"])
    largest = max(cases, key=lambda c: c["cache"]["bytes"])["cache"]
    count = "all images" if report["images"] == "all" else f"up to {report['images']:,} images of each split"
    values = (
        f"{count}, {report['epochs']} epochs of each kind in turn, {report['threads']} threads, "
        f"{report['processor']}",
        f"{largest['bytes'] / 1e9:.1f} GB",
        str(largest["views"]),
        listed(f"{c['speedup']:.1f} times with {_case(c)} ({'reached' if c['speedup'] >= 15 else 'missed'})"
               for c in cases if c["frozen_layers"] == most),
        listed(percent(c["share_of_bound"], 0) for c in cases if c["frozen_layers"] < most),
        listed(_differs(c) for c in cases if c["mcnemar"]["p"] < 0.05) or "nowhere",
    )  # fmt: skip
    return dict(zip(names, values, strict=True))


def _differs(case: dict[str, Any]) -> str:
    """A case whose two networks differ, in words."""
    plain, cached = (percent(case["validation_accuracy"][kind]) for kind in ("uncached", "cached"))
    return (
        f"with {_case(case)}, where {plain} are right without the cache and {cached} with it "
        f"(p = {case['mcnemar']['p']:.2f})"
    )


def _case(case: dict[str, Any]) -> str:
    """A case of the caching benchmark in words that tell it from the others."""
    part = _trained(case).removesuffix(" alone").replace("above ", "all above ")
    return f"{part} and {case['batch']} images a batch"


def listed(parts: Iterable[str]) -> str:
    """Parts of a sentence: a, b and c."""
    *first, last = [*parts] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def full_results(pattern: str) -> list[dict[str, Any]]:
    """Results of the full profile by the book's protocol whose names match; empty before the full run."""
    return results.by_protocol(results.read_all(workspace("full").results, pattern))


def data_table(manifest: dict[str, Any]) -> pd.DataFrame:
    """What became of the images of each source: read, dropped and why, kept by split."""
    columns = {}
    for source in manifest["sources"]:
        dropped = {f"dropped: {reason}": n for reason, n in sorted(source["dropped"].items())}
        kept = {f"kept: {split}": n for split, n in source["kept"].items()}
        columns[source["name"]] = {"read": source["read"], **dropped, **kept}
    table = pd.DataFrame(columns).fillna(0).astype(int)
    # Sources drop for different reasons, so their rows have to be brought together again.
    order = sorted(table.index, key=lambda row: ("read", "drop", "kept").index(row[:4]))
    return table.loc[order].rename_axis("images")


def layers(table: pd.DataFrame) -> pd.DataFrame:
    """A layer table in the form in which it is read: shapes, thousands, and what training does to a layer."""
    status = np.where(table["trained"], "yes", np.where(table["parameters"] > 0, "frozen", "–"))
    return table.assign(
        output=[" × ".join(map(str, shape)) for shape in table["output"]],
        parameters=[f"{n:,}" for n in table["parameters"]],
        trained=status,
    ).set_index("layer")


def cropping_table(manifest: dict[str, Any]) -> pd.DataFrame:
    """How the faces of each source were cropped, as counts."""
    columns = {
        s["name"]: {
            k.replace("_", " "): v if isinstance(v, int) else len(v) for k, v in s["cropping"].items()
        }
        for s in manifest["sources"]
    }
    return pd.DataFrame(columns).rename_axis("images")


def class_table(manifest: dict[str, Any]) -> pd.DataFrame:
    """Real images by class and by source and split, of the form of `FaceSet.counts`."""
    columns = {(s["name"], split): n for s in manifest["sources"] for split, n in s["classes"].items()}
    return pd.DataFrame(columns).reindex(CLASSES)


def data_facts(manifest: dict[str, Any] | None) -> dict[str, str]:
    """Numbers about the real merged set for the prose of chapter 1 and of the data card, by glue name."""
    names = ("read", "six", "leaked", "train", "validation", "test", "seen", "conflicts", "constant",
             "disgust", "imbalance", "rarest", "sources")  # fmt: skip
    if manifest is None:
        return {f"data-{name}": NOT_YET for name in names}
    sources = manifest["sources"]
    kept = {split: sum(s["kept"][split] for s in sources) for split in sources[0]["kept"]}
    training = class_table(manifest).xs("train", axis=1, level=1).sum(axis=1)
    numbers = (
        sum(s["read"] for s in sources),
        manifest["six_classes"],
        manifest["duplicates"]["taken_out_of_training"],
        *kept.values(),
        sum(s["copies_of_earlier_splits"]["test"] for s in sources),
        manifest["duplicates"]["groups_with_conflicting_labels"],
        manifest["constant_images"],
        sum(s["dropped"].get("disgust", 0) for s in sources),
    )
    values = (
        *(f"{n:,}" for n in numbers),
        f"{training['happy'] / training.min():.1f}",
        str(training.idxmin()),
        ", ".join(s["name"] for s in sources),
    )
    return {f"data-{name}": value for name, value in zip(names, values, strict=True)}


def held_out(result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The split that a result may be judged by, in words, and its scores: the test if it has been read."""
    if "test" in result:
        return "PrivateTest", result["test"]["fer2013"]
    return "PublicTest (validation)", result["validation"]["fer2013"]


def results_table(found: list[dict[str, Any]], options: Sequence[str] = ()) -> pd.DataFrame:
    """Real-data results, one row a run: accuracy with 95 % interval on both splits, and revision.

    Args:
        found: the results; empty before the full run.
        options: options to show too, which all these networks have.
    """
    rows = []
    for result in found:
        held = {split: result[split]["fer2013"] for split in ("validation", "test") if split in result}
        told = {split: f"{percent(s['accuracy'])} ({interval(s)})" for split, s in held.items()}
        rows.append(
            {
                "run": result["name"],
                "learnt from": _learnt_from(result),
                **{name: _short(result["model"]["options"][name]) for name in options},
                "epochs": len(result["learning_curve"]),
                "PublicTest (validation)": told["validation"],
                "PrivateTest (test)": told.get("test", "not read"),
                "macro-F1": f"{held['test']['macro_f1']:.3f}" if "test" in held else "",
                "revision": _revision(result),
            }
        )
    return pd.DataFrame(rows or [{"run": NOT_YET, "": ""}]).set_index("run")


def _revision(result: dict[str, Any]) -> str:
    """The revision as `git log --oneline` tells it, and whether the tree had changes beside it."""
    revision, changed, _ = result["revision"].partition("+")
    return f"{revision[:7]} +changes" if changed else revision[:7]


def _learnt_from(result: dict[str, Any]) -> str:
    """What a run learnt from, in a few words."""
    teachers, kind = result.get("teachers"), (result.get("labels") or {"kind": "own"})["kind"]
    found = {"own": ["labels"], "ferplus": ["votes"], "both": ["labels", "votes"]}[kind]
    found += [_teachers(teachers)] if teachers else []
    return ", ".join(found) + ("; calibrated" if result.get("calibrated") else "")


def _teachers(teachers: dict[str, Any]) -> str:
    """How many, and whether they are cross-validations, which have not seen what they answered to."""
    names = list(teachers["checkpoints"])
    crossed = all(name.startswith(CROSSED) for name in names)
    return f"{len(names)} {'cross-fitted ' if crossed else ''}teacher{'s' if len(names) > 1 else ''}"


def merging_table(report: dict[str, Any] | None) -> pd.DataFrame:
    """What `compare.merging` found, one row a seed.

    Args:
        report: none before a run on real data of more than one source.
    """
    if report is None:
        return pd.DataFrame([{"seed": f"{NOT_YET}: it takes real data of more than one source"}]).set_index(
            "seed"
        )
    rows = [
        {
            "seed": pair["seed"],
            "all sources": percent(pair["accuracy"][0]),
            f"{report['alone']} alone": percent(pair["accuracy"][1]),
            "difference": f"{100 * pair['difference']:+.1f} points",
            "right only with all": pair["only_a"],
            f"right only with {report['alone']}": pair["only_b"],
            "p (McNemar)": "< 0.001" if pair["p"] < 0.001 else f"{pair['p']:.3f}",
        }
        for pair in report["pairs"]
    ]
    return pd.DataFrame(rows).set_index("seed")


def merging_reading(report: dict[str, Any]) -> str:
    """A sentence that reads what `compare.merging` found."""
    spread, small = report["difference"], sum(pair["p"] < 0.05 for pair in report["pairs"])
    error = spread["std"] / spread["seeds"] ** 0.5 if spread["seeds"] > 1 else float("nan")
    return (
        f"On average over {spread['seeds']} seeds, merging changes the accuracy on {report['alone']} by "
        f"{100 * spread['mean']:+.1f} points (standard error {100 * error:.1f}); the test tells the two "
        f"networks apart at the 5 % level with {small} of {len(report['pairs'])} seeds."
    )


def full_report(name: str) -> dict[str, Any] | None:
    """A report on real data below `book/results`, e.g. ``"comparisons/merging.json"``, or none."""
    path = workspace("full").results / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def search_table(found: list[dict[str, Any]], base: str) -> pd.DataFrame:
    """Runs of a search on validation, best first: what each changed against one of them, and what it gave.

    Args:
        found: the results of the search.
        base: name of the run that the others are compared with.
    """
    settings = {r["name"]: _settings(r) for r in found}
    if base not in settings:
        return pd.DataFrame([{"run": NOT_YET, "": ""}]).set_index("run")
    rows = []
    for result in sorted(found, key=lambda r: -r["validation"]["fer2013"]["accuracy"]):
        own, there = settings[result["name"]], settings[base]
        changed = [f"{k} {_short(own.get(k))}" for k in sorted(own) if own.get(k) != there.get(k)]
        scores, kept = result["validation"]["fer2013"], best_epoch(result)
        rows.append(
            {
                "run": result["name"].split("/")[-1],
                "changed": ", ".join(changed) or "nothing: the others are compared with this one",
                "epochs": len(result["learning_curve"]),
                "accuracy, PublicTest": percent(scores["accuracy"]),
                "95 % interval": interval(scores),
                "training accuracy": percent(curve(result).loc[kept - 1, "train_accuracy"]),
                "images a second": f"{result['images_per_second']:.0f}",
            }
        )
    return pd.DataFrame(rows).set_index("run")


def _settings(result: dict[str, Any]) -> dict[str, Any]:
    """Everything that a run can be told, flat; what a run does not say, it has at its default."""
    recipe = Recipe.from_dict(result["recipe"]).as_dict()
    del recipe["seed"]
    augment = recipe.pop("augment") or {"augment": "none"}
    teachers, labels = result.get("teachers"), result.get("labels")
    return {
        **result["model"]["options"],
        **recipe,
        **augment,
        "precision": result.get("precision", "32-true"),
        "taught by": _teachers(teachers) if teachers else "nobody",
        "votes": "none" if labels is None else _VOTES[labels["kind"]].format(labels["share"]),
    }


_VOTES = {"ferplus": "in the label's place, share {:g}", "both": "as a second question, weight {:g}"}


def hours_table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """How long the real runs took and where; a calibrated one is another's training."""
    rows = [
        {
            "run": r["name"],
            "epochs": len(r["learning_curve"]),
            "hours": f"{r['training_seconds'] / 3600:.1f}",
            "images a second": f"{r['images_per_second']:.0f}",
            "processor": r["processor"],
        }
        for r in found
        if not r.get("calibrated")
    ]
    return pd.DataFrame(rows or [{"run": NOT_YET, "": ""}]).set_index("run")


def score_facts(network: str, found: list[dict[str, Any]]) -> dict[str, str]:
    """Numbers and sentences about a network's real runs for the prose, by glue name.

    Args:
        network: prefix of the names, e.g. ``"easynet"``.
        found: results of its seeds; empty before the full run.
    """
    names = (
        "split",
        "seeds",
        "mean",
        "best",
        "flip",
        "crops",
        "dedup",
        "reading",
        "easiest",
        "hardest",
        "trained",
        "chance",
        "gap",
    )
    if not found:
        return {f"{network}-{name}": NOT_YET for name in names}
    top = best(found)
    split, scores = held_out(top)
    part = top["test" if "test" in top else "validation"]
    mean = mean_score([held_out(result)[1] for result in found])
    low, high = (f"{100 * mean[end]:.1f}" for end in ("low", "high"))
    history, epoch = curve(top), best_epoch(top)
    row = history.set_index("epoch").loc[epoch]
    recall = {name: value for name, value in scores["recall"].items() if value is not None}
    model = top["model"]
    values = (
        f"{split}, six classes, a single model and no test-time averaging",
        "with one seed" if len(found) == 1 else f"over {len(found)} seeds",
        score(scores)
        if len(found) == 1
        else f"{percent(mean['accuracy'])} (95 % interval for images and seeds {low} to {high} %; standard "
        f"deviation over seeds {100 * mean['std']:.1f} points)",
        score(scores),
        score(part["fer2013+flip"]),
        score(part["fer2013+ten-crop"]) if "fer2013+ten-crop" in part else NOT_YET,
        score(part["fer2013-deduplicated"]) if "fer2013-deduplicated" in part else "the same",
        f"Epoch {epoch} of {len(history)} was kept: {percent(row['train_accuracy'])} of the training images "
        "were right (augmented, with dropout), and of the validation images "
        f"{_judged(top, row['val_accuracy'])}.",
        max(recall, key=lambda name: recall[name]),
        min(recall, key=lambda name: recall[name]),
        f"{model['trained_parameters']:,} of {model['parameters']:,} parameters",
        percent(max(map(sum, scores["confusion"])) / scores["images"]),
        _gap(network, mean["accuracy"]),
    )
    return {f"{network}-{name}": value for name, value in zip(names, values, strict=True)}


def calibrated_facts(network: str, found: list[dict[str, Any]]) -> dict[str, str]:
    """What `fer calibrate` brought on validation, and which classes it raised and lowered, by glue name.

    Args:
        network: prefix of the names.
        found: results of calibrated runs; empty before the full run.
    """
    fits = [result["calibrated"] for result in found]
    if not fits:
        return dict.fromkeys((f"{network}-crossed", f"{network}-raised", f"{network}-lowered"), NOT_YET)
    before, after = (
        percent(float(np.mean([fit["accuracy"][when] for fit in fits])))
        for when in ("before", "after, cross-validated")
    )
    biases = np.array([fit["biases"] for fit in fits])
    moved = [np.array(CLASSES)[(sign * biases > 0).all(0)] for sign in (1, -1)]
    raised, lowered = (listed(names) or "none" for names in moved)
    return {
        f"{network}-crossed": f"from {before} to {after}",
        f"{network}-raised": raised,
        f"{network}-lowered": lowered,
    }


def _judged(result: dict[str, Any], seen: float) -> str:
    """Validation accuracy as training saw it, in single precision if that was another, and calibrated."""
    scored = percent(result["validation"]["fer2013"]["accuracy"])
    precision, fitted = result.get("precision", "32-true"), result.get("calibrated")
    if precision == "32-true" and not fitted:
        return percent(seen)
    single = percent(fitted["accuracy"]["before"]) if fitted else scored
    told = f"{percent(seen)} in half precision, {single} in single precision"
    return f"{told}, and {scored} after calibration" if fitted else told


def _gap(network: str, accuracy: float) -> str:
    """How far an accuracy is from the poster's, in words."""
    poster = POSTER_NAMES.get(network.partition("-")[0])
    reported = anchors().set_index("system")["accuracy"].get(f"{poster}, the poster")
    if reported is None:
        return "not reported by the poster"
    points = 100 * (accuracy - reported)
    return f"{abs(points):.1f} points {'above' if points >= 0 else 'below'} the poster's figure"


def glue_facts(facts: dict[str, str]) -> None:
    """Glue several values by their names, and print them for those who read the notebook without the book."""
    for name, value in facts.items():
        glue(name, value)
        print(f"{name}: {value}")


def reported(system: str) -> str:
    """What is reported of a system in `book/anchors.csv`, in per cent."""
    return percent(anchors().set_index("system").loc[system, "accuracy"])


def poster(network: str) -> float:
    """The accuracy that the poster reports for a network, 0–1."""
    return float(anchors().set_index("system").loc[f"{network}, the poster", "accuracy"])


def anchors() -> pd.DataFrame:
    """Others' figures with their protocols and sources."""
    return pd.read_csv(project_root() / "book" / "anchors.csv")


def against_poster(found: list[dict[str, Any]], *networks: str) -> pd.DataFrame:
    """Our runs beside others' figures (`book/anchors.csv`), as `plots.intervals` takes them.

    Args:
        found: our results.
        *networks: those of ours that the others' figures are to be compared with.
    """
    known = anchors()
    known = known[known["network"].isin(networks) & ~known["system"].str.contains("the poster")]
    others = [
        {"name": a.system, "value": a.accuracy, "low": float("nan"), "high": float("nan"), "group": "other",
         "note": a.protocol}
        for a in known.itertuples()
    ]  # fmt: skip
    own = []
    for result in found:
        split, scores = held_out(result)
        low, high = scores["accuracy_interval"]
        own.append({"name": result["name"], "value": scores["accuracy"], "low": low, "high": high,
                    "group": "own", "note": f"{split}, 6 classes"})  # fmt: skip
    return pd.DataFrame([*own, *others])


def show_real(found: list[dict[str, Any]], draw: Callable[[dict[str, Any]], Figure]) -> None:
    """Show a figure about real data, or say that the full run has not been made yet.

    Args:
        found: results; of several, the one that is best on validation is drawn.
        draw: makes the figure.
    """
    if found:
        show(draw(best(found) if len(found) > 1 else found[0]))
    else:
        print(NOT_YET)


def best(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The result whose validation accuracy on FER2013 is highest."""
    return max(found, key=lambda result: result["validation"]["fer2013"]["accuracy"])


def best_alone(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The result that is best on validation, as a list of one; empty before the full run."""
    return [best(found)] if found else []


def best_name(found: list[dict[str, Any]]) -> str:
    """Name of the result that is best on validation, for the prose."""
    return best(found)["name"] if found else NOT_YET


def curve_figure(result: dict[str, Any]) -> Figure:
    """Learning curve of a result."""
    return plots.learning_curves(curve(result), best_epoch=best_epoch(result))


def confusion_figure(result: dict[str, Any]) -> Figure:
    """Confusion matrix of a result on the split that it may be judged by."""
    split, scores = held_out(result)
    return plots.confusion_matrices({f"{result['name']} on {split}": scores["confusion"]})


def curve(result: dict[str, Any]) -> pd.DataFrame:
    """Learning curve of a result, one row an epoch."""
    return pd.DataFrame(result["learning_curve"])


def recall_figure(result: dict[str, Any]) -> Figure:
    """Recall by class of a result beside that of the EasyNet that is best on validation."""
    recalls = {}
    for each in (*best_alone(full_results("easynet-*.json")), result):
        _, scores = held_out(each)
        recalls[each["name"]] = {
            name: None if value is None else (value, *scores["recall_interval"][name])
            for name, value in scores["recall"].items()
        }
    return plots.recall_intervals(recalls)


def best_epoch(result: dict[str, Any]) -> int:
    """The epoch whose weights were kept."""
    history = curve(result)
    return int(history.loc[history["val_accuracy"].idxmax(), "epoch"])


def _nearest(curve: pd.Series, share: float) -> float:
    """Value of a curve at the index that is nearest to a share."""
    return float(curve.iloc[int(np.abs(curve.index.to_numpy() - share).argmin())])


def _short(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value
