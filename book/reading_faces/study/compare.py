"""Comparisons of runs on the same images: two networks, their ensembles, merging, depth.

Three commands write what the chapters read, below the folder of results: `fer compare-all`
(`comparisons/networks.json`), `fer merging` (`comparisons/merging.json`) and `fer depth`
(`comparisons/depth.json`); `fer compare` prints one pair. What the files hold stands at the functions;
`reading_faces.study.verdicts` judges by them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fer_utils import results, runs
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import mcnemar, mean_intervals, metrics, paired_interval
from fer_utils.experiment import read_predictions
from fer_utils.files import sha256, write_json
from fer_utils.recipes import recipe_for
from fer_utils.training import Recipe, default_precision
from fer_utils.workspace import Workspace

PROBABILITIES = [f"p_{c}" for c in CLASSES]
FLIPPED = [f"flip_{c}" for c in CLASSES]
FOLDER = "comparisons"  # below the folder of results
NETWORKS = ("easynet", "facenet")  # the poster's two, the later one expected to be the better one
STEP = 0.05  # of the grid of ensemble weights
# What `depth` trains: its key, what it is called, the network and its options.
DEPTHS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("easynet-2", "EasyNet, 2 convolutions", "easynet", {"depth": 2}),
    ("easynet-3", "EasyNet, 3 convolutions", "easynet", {"depth": 3}),
    ("easynet-4", "EasyNet, 4 convolutions", "easynet", {"depth": 4}),
    ("mobilenet", "MobileNetV1, random start", "facenet",
     {"trunk": "mobilenet_v1", "pretrained": "none", "freeze": 0}),
)  # fmt: skip


def predictions(space: Workspace, run: str, split: str = "test") -> pd.DataFrame:
    """What `fer evaluate` kept of a run's answers on one split; no image is read again.

    Returns:
        One row an image, as `results.evaluate` describes.

    Raises:
        DataError: the run has not been evaluated on that split, or its answers are of other weights than
            its results file.
    """
    table = read_predictions(space.results, run, split)
    if table.attrs.get("checkpoint") != results.read(space.results / f"{run}.json")["checkpoint"]:
        raise DataError(
            "the predictions are not of the weights that its results file speaks of",
            file=space.results,
            remedy=f"run `fer evaluate {run}{' --test' if split == 'test' else ''}`",
        )
    return table


class Answers(NamedTuple):
    """What several runs answered to the same images.

    Attributes:
        labels: int (N,), 0–5.
        fresh: bool (N,), false where an exact copy stands in an earlier split.
        plain: float32 (R, N, 6), probabilities of each run.
        flip: the same with the mirror image averaged.
    """

    labels: np.ndarray
    fresh: np.ndarray
    plain: np.ndarray
    flip: np.ndarray

    def correct(self, variant: str) -> np.ndarray:
        """Bool (R, M), which images each run got right.

        Args:
            variant: ``"plain"``, ``"flip"``, or ``"deduplicated"`` for the plain answers to fresh images.
        """
        right = (self.flip if variant == "flip" else self.plain).argmax(2) == self.labels
        return right[:, self.fresh] if variant == "deduplicated" else right


def answers(space: Workspace, names: Sequence[str], split: str, source: str) -> Answers:
    """Collect the kept answers of several runs to the images of one source.

    Raises:
        DataError: a run has no predictions of that source, or the runs saw different images or labels.
    """
    tables = []
    for run in names:
        table = predictions(space, run, split)
        tables.append(table[table["source"] == source])
        if tables[-1].empty:
            others = ", ".join(sorted(table["source"].unique()))
            raise DataError(
                f"{run} was not scored on {split} images of {source}",
                file=results.predictions_path(space.results, run, split),
                remedy=f"ask for a source that it was scored on: {others}",
            )
        if any(tables[-1][key].tolist() != tables[0][key].tolist() for key in ("origin", "label")):
            raise DataError(
                f"{names[0]} and {run} were not scored on the same {split} images and labels of {source}",
                file=space.runs,
                remedy="evaluate both on the same merged set",
            )
    return Answers(
        tables[0]["label"].to_numpy(),
        ~tables[0]["seen_copy"].to_numpy(bool),
        np.stack([t[PROBABILITIES].to_numpy(np.float32) for t in tables]),
        np.stack([t[FLIPPED].to_numpy(np.float32) for t in tables]),
    )


def paired(
    space: Workspace,
    first: str,
    second: str,
    *,
    split: str = "test",
    source: str = "fer2013",
    variant: str = "plain",
) -> dict[str, Any]:
    """McNemar's test between two runs on the images of one source.

    Args:
        space: gives the runs.
        first: name of a run.
        second: name of another.
        split: whose answers to compare.
        source: whose images.
        variant: as for `Answers.correct`.

    Returns:
        `accuracy` of both, what `mcnemar` gives (`difference` is first − second), and the difference's
        `interval` (bootstrap 95 %).

    Raises:
        DataError: a run has no predictions, or the runs saw different images.
    """
    correct = answers(space, (first, second), split, source).correct(variant)
    return {"runs": [first, second]} | _pair(*correct)


def _pair(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    return {
        "images": len(first),
        "accuracy": [float(first.mean()), float(second.mean())],
        **mcnemar(first, second),
        "interval": list(paired_interval(first, second)),
    }


def merging(
    space: Workspace,
    *,
    network: str = "easynet",
    seeds: tuple[int, ...] = (0, 1, 2),
    alone: str = "fer2013",
    **train_options: Any,
) -> dict[str, Any]:
    """Does merging help? Train on one source alone and on all, with the same budget, and test on that source.

    Both trainings take the same number of steps, from the same seeds, and choose their epoch on the same
    validation images, those of the one source. On real data a finished run is kept, and one that was stopped
    goes on. Writes `comparisons/merging.json` below the results.

    Args:
        space: gives the merged set.
        network: what to train.
        seeds: one pair of runs each.
        alone: the source that is trained on alone, and tested on.
        **train_options: passed to `runs.train`.

    Returns:
        What is in the file: `sources`, `steps` of each training and, for each seed, what `paired` gives, with
        the merged run first.

    Raises:
        DataError: there is no other source to merge with, or a finished run of that name had other settings
            or learnt from another merged set.
    """
    faces = space.faces()
    sources = sorted(faces.index["source"].unique())
    if len(sources) < 2 or alone not in sources:
        raise DataError(
            f"the merged set holds {', '.join(sources)} only, so there is nothing to compare {alone} with",
            file=faces.path,
            remedy="put CK+ or JAFFE below FER_DATA as well and run `fer merge` again",
        )
    changes = dict(train_options.pop("recipe_changes", None) or {})
    model_options = train_options.pop("model_options", None) or {}
    batch = changes.get("batch_size") or runs.recipe_for(network, space.profile)[1].batch_size
    changes["batches"] = len(faces.split("train", alone)) // batch
    pairs = []
    for seed in seeds:
        names = [f"merging/{network}-{what}-seed{seed}" for what in ("all", alone)]
        for name, trained_on in zip(names, (None, [alone]), strict=True):
            trained(
                space, network, name, alone, seed=seed, recipe_changes=changes, model_options=model_options,
                test=True, sources=trained_on, validate_on=[alone], **train_options,
            )  # fmt: skip
        pairs.append({"seed": seed} | paired(space, *names, source=alone))
    recipe = results.read(space.results / f"{names[0]}.json")["recipe"]
    report = _about(space) | {
        "network": network,
        "alone": alone,
        "sources": {s: len(faces.split("train", s)) for s in sources},
        "steps": changes["batches"] * recipe["epochs"],
        "pairs": pairs,
        "difference": results.summarise(np.array([p["difference"] for p in pairs])),
    }
    _write(space, "merging", report)
    return report


def networks(
    space: Workspace,
    members: Mapping[str, Sequence[str] | None] | None = None,
    *,
    source: str = "fer2013",
    name: str = "networks",
) -> dict[str, Any]:
    """EasyNet against FaceNet, seed by seed and best against best, and their ensembles.

    Everything is computed from the answers that `fer evaluate --test` kept; no image is read. What is chosen
    (the best run of each network, the weights of the ensemble) is chosen on validation. Writes
    `comparisons/<name>.json` below the results.

    Args:
        space: gives runs and results.
        members: the runs of each network, by its name; none for those called `<network>-seed<n>`.
        source: whose images.
        name: of the file.

    Returns:
        What is in the file, beside date and revision. Variants are ``plain`` (the score we mean), ``flip``
        (mirror images averaged) and ``deduplicated`` (without copies of images of earlier splits):

        - `images`, by variant;
        - `runs`, by name: `network`, `seed`, `parameters`, `checkpoint`, accuracy on `validation` (plain) and
          on `test` by variant;
        - `best`, by network: the run that is best on validation;
        - `means`, by variant and network: mean `accuracy` over the seeds, its `interval` (images drawn anew,
          seeds as they are), `std` over seeds and `seeds`; under ``difference`` the later network minus the
          earlier one, with its `interval`;
        - `pairs`: what `paired` gives for each variant, the later network first; `what` says
          ``"best by validation"`` or ``"seed <n>"``;
        - `ensembles`: for variants plain and flip, `name`, `weights` by run, `validation` accuracy, `test`
          (what `metrics` gives) and `against`, the paired test against the best single network by validation.

    Raises:
        DataError: there are not two networks with results, or a run's answers are missing, stale or do not
            give the accuracy of its results file.
    """
    members = {
        n: [p.stem for p in sorted(space.results.glob(f"{n}-seed*.json"))] if names is None else names
        for n, names in (members or dict.fromkeys(NETWORKS)).items()
    }
    lacking = [network for network, names in members.items() if not names]
    if lacking or len(members) != 2:
        raise DataError(
            f"there are no results of {lacking[0]}" if lacking else f"{len(members)} networks, not two",
            file=space.results,
            remedy="train and evaluate at least one seed of each of two networks, with --test",
        )
    names = [run for runs_ in members.values() for run in runs_]
    seen = {split: answers(space, names, split, source) for split in ("validation", "test")}
    about = {run: results.read(space.results / f"{run}.json") for run in names}
    scored = {v: seen["test"].correct(v) for v in ("plain", "flip", "deduplicated")}
    listed = {}
    for i, run in enumerate(names):
        found = {v: float(right[i].mean()) for v, right in scored.items()}
        _check_traced(space, run, about[run], found["plain"], source)
        listed[run] = {
            "network": next(n for n, runs_ in members.items() if run in runs_),
            "seed": about[run]["recipe"]["seed"],
            "parameters": about[run]["model"]["parameters"],
            "checkpoint": about[run]["checkpoint"],
            "validation": float(seen["validation"].correct("plain")[i].mean()),
            "test": found,
        }
    rows = {n: [names.index(run) for run in runs_] for n, runs_ in members.items()}
    best = {n: max(runs_, key=lambda run: listed[run]["validation"]) for n, runs_ in members.items()}
    report = _about(space) | {
        "source": source,
        "images": {v: right.shape[1] for v, right in scored.items()},
        "runs": listed,
        "best": best,
        "means": {v: _means(right, rows) for v, right in scored.items()},
        "pairs": [
            {"what": what, "variant": v, "runs": list(pair)} | _pair(*(right[names.index(r)] for r in pair))
            for what, pair in _opponents(listed, members, best)
            for v, right in scored.items()
        ],
        "ensembles": [
            each for v in ("plain", "flip") for each in _ensembles(seen, names, rows, listed, best, v)
        ],
    }
    _write(space, name, report)
    return report


def _check_traced(space: Workspace, run: str, about: dict[str, Any], accuracy: float, source: str) -> None:
    """The answers must give the accuracy that the results file speaks of."""
    written = about.get("test", {}).get(source, {}).get("accuracy")
    if written is None or abs(written - accuracy) > 1e-9:
        raise DataError(
            "the results file and the answers that were kept do not give the same accuracy",
            file=space.results / f"{run}.json",
            remedy=f"run `fer evaluate {run} --test`",
        )


def _opponents(
    listed: dict[str, Any], members: Mapping[str, Sequence[str]], best: dict[str, str]
) -> Iterator[tuple[str, tuple[str, str]]]:
    """The best of both networks, then each seed that both have; the later network first."""
    earlier, later = members
    yield "best by validation", (best[later], best[earlier])
    for a, b in itertools.product(members[later], members[earlier]):
        if listed[a]["seed"] == listed[b]["seed"]:
            yield f"seed {listed[a]['seed']}", (a, b)


def _means(right: np.ndarray, rows: dict[str, list[int]]) -> dict[str, Any]:
    """Mean accuracies over seeds and their difference, with intervals from drawing images anew."""
    shares = [right[own].mean(0) for own in rows.values()]
    values = np.column_stack([*shares, shares[1] - shares[0]])
    spans = mean_intervals(values).tolist()
    found: dict[str, Any] = {}
    for (network, own), share, span in zip(rows.items(), shares, spans, strict=False):
        seeds = results.summarise(right[own].mean(1))
        std = seeds["std"] if len(own) > 1 else None
        found[network] = {"accuracy": float(share.mean()), "interval": span, "std": std, "seeds": len(own)}
    return found | {"difference": {"difference": float(values[:, 2].mean()), "interval": spans[2]}}


def simplex(parts: int, step: float = STEP) -> list[tuple[float, ...]]:
    """All weights of so many parts that are multiples of a step and sum to 1."""
    whole = round(1 / step)
    grid = itertools.product(range(whole + 1), repeat=parts)
    return [tuple(k / whole for k in ks) for ks in grid if sum(ks) == whole]


def _ensembles(
    seen: dict[str, Answers],
    names: list[str],
    rows: dict[str, list[int]],
    listed: dict[str, Any],
    best: dict[str, str],
    variant: str,
) -> Iterator[dict[str, Any]]:
    """The mean of each network's seeds, and of both networks with weights chosen on validation."""
    means = {
        split: np.stack([getattr(found, variant)[own].mean(0) for own in rows.values()])
        for split, found in seen.items()
    }
    labels = {split: found.labels for split, found in seen.items()}

    def accuracy(weights: Sequence[float]) -> float:
        return float(np.mean(np.tensordot(weights, means["validation"], 1).argmax(1) == labels["validation"]))

    # Of several that are equally good, the one nearest to equal weights.
    chosen = max(simplex(len(rows)), key=lambda w: (round(accuracy(w), 9), -np.ptp(w)))
    alone = {n: tuple(float(n == other) for other in rows) for n, own in rows.items() if len(own) > 1}
    single = max(best.values(), key=lambda run: listed[run]["validation"])
    theirs = seen["test"].correct(variant)[names.index(single)]
    for name, weights in (alone | {" and ".join(rows): chosen}).items():
        mixed = np.tensordot(weights, means["test"], 1)
        each = {
            names[i]: w / len(own) for w, own in zip(weights, rows.values(), strict=True) for i in own if w
        }
        yield {
            "name": name,
            "variant": variant,
            "weights": {run: round(w, 6) for run, w in each.items()},
            "validation": accuracy(weights),
            "test": metrics(labels["test"], mixed),
            "against": {"run": single} | _pair(mixed.argmax(1) == labels["test"], theirs),
        }


def depth(
    space: Workspace,
    *,
    seeds: Sequence[int] = (0,),
    epochs: int | None = None,
    source: str = "fer2013",
    model_options: Mapping[str, dict[str, Any]] | None = None,
    **train_options: Any,
) -> dict[str, Any]:
    """Does depth help? EasyNet with 2, 3 and 4 convolutions, and MobileNetV1 from a random start.

    All are trained by EasyNet's recipe, for the same number of epochs, and scored on validation; the test is
    not read. A run on real data that has finished is kept, and one that was stopped goes on. Writes
    `comparisons/depth.json` below the results.

    Args:
        space: gives the merged set.
        seeds: a run of each network for each.
        epochs: of every training; by default EasyNet's recipe's.
        source: whose validation images count.
        model_options: by key of `DEPTHS`, options of a network to change.
        **train_options: passed to `runs.train`; `recipe_changes` go to all networks alike.

    Returns:
        What is in the file, beside date and revision: `epochs`, `images` of validation; `runs`, each with
        `key`, `name` (in words), `run`, `seed`, `network`, `options`, `parameters`, `seconds` of training,
        `train_accuracy` of the last epoch and `validation` (what `metrics` gives); `differences` of mean
        accuracy between all pairs of networks, each with `first`, `second` (keys; first − second),
        `difference` and `interval` (images drawn anew, seeds as they are).

    Raises:
        DataError: finished runs of that name had other settings.
    """
    changes = _as_changes(space) | ({} if epochs is None else {"epochs": epochs})
    changes |= dict(train_options.pop("recipe_changes", None) or {})
    listed, names = [], {}
    for key, title, network, options in DEPTHS:
        options = options | dict((model_options or {}).get(key, {}))
        names[key] = [f"depth/{key}-seed{seed}" for seed in seeds]
        for seed, name in zip(seeds, names[key], strict=True):
            run = trained(space, network, name, source, seed=seed, recipe_changes=changes,
                          model_options=options, **train_options)  # fmt: skip
            listed.append({"key": key, "name": title, "network": network} | run)
    everything = answers(space, [n for own in names.values() for n in own], "validation", source)
    shares = everything.correct("plain").reshape(len(names), len(seeds), -1).mean(1)
    pairs = list(itertools.combinations(range(len(names)), 2))
    values = np.column_stack([shares[b] - shares[a] for a, b in pairs])
    keys = list(names)
    report = _about(space) | {
        "source": source,
        "split": "validation",
        "images": shares.shape[1],
        "epochs": changes["epochs"],
        "recipe": changes,
        "runs": listed,
        "differences": [
            {"first": keys[b], "second": keys[a], "difference": float(mean), "interval": span}
            for (a, b), mean, span in zip(pairs, values.mean(0), mean_intervals(values).tolist(), strict=True)
        ],
    }
    _write(space, "depth", report)
    return report


def trained(
    space: Workspace,
    network: str,
    name: str,
    source: str,
    *,
    seed: int,
    recipe_changes: dict[str, Any],
    model_options: dict[str, Any],
    test: bool = False,
    **train_options: Any,
) -> dict[str, Any]:
    """One run of a comparison: trained and scored, or, on real data, loaded if it has finished.

    Args:
        space: gives the merged set.
        network: what to train.
        name: of the run.
        source: whose images count.
        seed: of the training.
        recipe_changes: as for `runs.train`.
        model_options: as for `runs.train`.
        test: read the test split as well as validation.
        **train_options: passed to `runs.train`.

    Returns:
        `run` (its name), `seed`, `options`, `parameters`, `seconds` of training, `cached` (what the frozen
        part took), `train_accuracy` of the last epoch, and what `metrics` gives for `validation` and, where
        it was read, `test`.

    Raises:
        DataError: the source has no images to judge by, or a finished run of that name had another recipe,
            precision or network.
    """
    for split in ("validation", "test")[: 1 + test]:
        if not len(space.faces().split(split, source)):
            raise DataError(
                f"there are no {split} images of {source} to compare networks on",
                file=space.faceset,
                remedy=f"put {source} with its {split} images below FER_DATA and run `fer merge`",
            )
    runs.train_or_load(
        space, network, seed=seed, name=name, recipe_changes=recipe_changes, model_options=model_options,
        **train_options,
    )  # fmt: skip
    result = _scored(space, name, test)
    options, recipe = recipe_for(network, space.profile)
    asked = runs.change(dataclasses.replace(recipe, seed=seed), recipe_changes).as_dict()
    asked |= options | model_options
    asked["precision"] = train_options.get("precision") or default_precision()
    # A recipe from before a field was added had, in effect, that field's default.
    found = (
        Recipe.from_dict(result["recipe"]).as_dict()
        | {"depth": 3, "batch_norm": True, "activation": "relu"}
        | result["model"]["options"]
    )
    found["precision"] = result["precision"]
    about = json.loads((space.runs / name / "run.json").read_text(encoding="utf-8"))
    for key in ("sources", "validate_on"):
        asked[key], found[key] = train_options.get(key), about.get(key)
    differing = {k: v for k, v in asked.items() if found.get(k, v) != v}
    if differing:
        raise DataError(
            "this run has other settings than the comparison asks for: "
            + "; ".join(f"{k} is {found[k]}, not {v}" for k, v in differing.items()),
            file=space.runs / name,
            remedy="remove the folder, or ask for the same settings",
        )
    scores = {split: result[split][source] for split in ("validation", "test") if split in result}
    return {
        "run": name,
        "seed": seed,
        "options": result["model"]["options"],
        "parameters": result["model"]["parameters"],
        "seconds": result["training_seconds"],
        "cached": result.get("cached"),
        "train_accuracy": result["learning_curve"][-1]["train_accuracy"],
    } | scores


def _scored(space: Workspace, name: str, test: bool) -> dict[str, Any]:
    """A run's results; those of these very weights and faces are not made again."""
    path = space.results / f"{name}.json"
    if path.exists():
        found = results.read(path)
        known = found["checkpoint"], found["data"]["faceset"]
        now = sha256(space.runs / name / "model.safetensors"), sha256(space.faceset / "manifest.json")
        kept = results.predictions_path(space.results, name, "test" if test else "validation").exists()
        if known == now and kept and ("test" in found or not test):
            return found
    return results.read(runs.evaluate(space, name, test=test))


def _as_changes(space: Workspace) -> dict[str, Any]:
    """EasyNet's recipe as changes to that of any other network."""
    recipe = recipe_for("easynet", space.profile)[1].as_dict()
    augment = recipe.pop("augment")
    del recipe["seed"]
    return recipe | (
        {"augment": None} if augment is None else {f"augment.{k}": v for k, v in augment.items()}
    )


def _about(space: Workspace) -> dict[str, Any]:
    return results.stamp() | {"profile": space.profile}


def _write(space: Workspace, name: str, report: dict[str, Any]) -> None:
    write_json(space.results / FOLDER / f"{name}.json", report)
