"""Is VGGFace2 a better start than ImageNet, or than none? Three starts on equal terms (chapters 4 and 6).

`fer pretraining` trains a FaceNet from each start, in three ways of using it, with the same head, input size,
recipe and number of epochs, and writes `comparisons/pretraining.json`, by which `reading_faces.study.verdicts` judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fer_utils import results, runs
from fer_utils.errors import DataError
from fer_utils.files import sha256
from fer_utils.recipes import recipe_for
from fer_utils.training import Recipe, default_precision
from fer_utils.workspace import Workspace
from reading_faces.report.notebook import NOT_YET, percent
from reading_faces.study.compare import FOLDER, trained
from reading_faces.study.stats import mean_score
from reading_faces.study.verdicts import WAYS

SIZE = 96  # pixels: what MobileNetV1 is used at in this book; ImageNet's trunk saw 224
VIEWS = 8  # of each training face that a frozen trunk computes; fewer in a training of fewer epochs
# What a trunk starts from: its name in a figure, and the options of FaceNet.
STARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "vggface2": ("VGGFace2 (MobileNetV1)", {"trunk": "mobilenet_v1", "pretrained": "vggface2"}),
    "imagenet": ("ImageNet (EfficientNet-Lite0)", {"trunk": "efficientnet_lite0", "pretrained": "imagenet"}),
    "none": ("random (MobileNetV1)", {"trunk": "mobilenet_v1", "pretrained": "none"}),
}
_HEAD = [4096, 1024]  # the poster's
HOW: dict[str, dict[str, Any]] = {
    "probe": {"freeze": 1.0, "head": []},
    "head": {"freeze": 1.0, "head": _HEAD},
    "all": {"freeze": 0, "head": _HEAD},
}
# What must be equal for all runs of a file; older files do not note the first.
TERMS = ("faceset", "profile", "source", "size", "precision", "recipe")
_METRICS = results.SCHEMA["properties"]["validation"]["additionalProperties"]
SCHEMA = {
    "title": "comparison of starts",
    "command": "fer pretraining",
    "type": "object",
    "required": ["format", "date", "revision", *TERMS[1:], "missing", "runs"],
    "properties": {
        "format": {"const": 1},
        "missing": {"type": "array", "items": {"type": "string"}},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "trunk", "pretrained", "how", "seed", "seconds", "validation"],
                "properties": {
                    "pretrained": {"enum": list(STARTS)},
                    "how": {"enum": list(HOW)},
                    "seed": {"type": "integer"},
                    "validation": _METRICS,
                    "test": _METRICS,
                },
            },
        },
    },
}


def compare(
    space: Workspace,
    *,
    how: Sequence[str] = tuple(HOW),
    seeds: Sequence[int] = (0, 1, 2),
    epochs: int | None = None,
    size: int = SIZE,
    test: bool = False,
    source: str = "fer2013",
    recipe_changes: Mapping[str, Any] | None = None,
    report: Callable[[dict[str, Any]], None] = lambda run: None,
    **train_options: Any,
) -> dict[str, Any]:
    """Train and score all starts in all ways, seed by seed, and write the file anew after each run.

    Trunks that stay as they are are computed once (`fer_utils.features`), in `VIEWS` views of each face. On
    real data a finished run is kept, and one that was stopped goes on. What the file holds of other ways and
    seeds with the same budget stays there, so that they can be run one after the other.

    Args:
        space: gives the merged set.
        how: ways of using a start, keys of `HOW`.
        seeds: a run of each start and way for each.
        epochs: of every training; by default FaceNet's recipe's.
        size: side in pixels to which images are enlarged, for all trunks alike.
        test: read the test split as well as validation, once for each finished run.
        source: whose images count.
        recipe_changes: as for `runs.train`, for all runs alike.
        report: is given each run's entry of the file as soon as it is there.
        **train_options: passed to `runs.train`.

    Returns:
        What is in the file, beside date and revision: `faceset` (checksum of the merged set), `source`,
        `size`, `precision`, `recipe` (without the seed), `missing` (names of the runs asked for that are not
        there yet) and `runs`, each with `name`, `trunk`, `pretrained`, `how` and what `compare.trained`
        gives.

    Raises:
        DataError: weights cannot be had, finished runs of that name had other settings, or the file holds
            runs on other terms.
        ValueError: an unknown way.
    """
    if unknown := sorted(set(how) - set(HOW)):
        raise ValueError(f"how is {unknown[0]!r}; it can be {', '.join(HOW)}")
    changes = dict(recipe_changes or {}) | ({} if epochs is None else {"epochs": epochs})
    recipe = runs.change(recipe_for("facenet", space.profile)[1], changes)
    views = 1 if recipe.augment is None else min(VIEWS, recipe.epochs)
    precision = train_options.get("precision") or default_precision()
    faceset = sha256(space.faces().path / "manifest.json")
    asked = (faceset, space.profile, source, size, precision, _without_seed(recipe))
    terms = dict(zip(TERMS, asked, strict=True))
    path = space.results / FOLDER / "pretraining.json"
    done = _earlier(path, terms)
    plan = [(seed, way, start) for seed in seeds for way in how for start in STARTS]
    names = [f"pretraining/{start}-{way}-seed{seed}" for seed, way, start in plan]
    written: dict[str, Any] = {}
    for (seed, way, start), name in zip(plan, names, strict=True):
        run = trained(
            space, "facenet", name, source, seed=seed, recipe_changes=changes,
            model_options={"input_size": size, "trunk_width": 1.0} | HOW[way] | STARTS[start][1],
            test=test, cached=views if HOW[way]["freeze"] else None, **train_options,
        )  # fmt: skip
        told = {option: run["options"][option] for option in ("trunk", "pretrained")}
        done[name] = {"name": name, "how": way} | told | run
        missing = [other for other in names if other not in done]
        written = {"format": 1} | results.stamp() | terms | {"missing": missing, "runs": list(done.values())}
        results.write(written, path, SCHEMA)
        report(done[name])
    return written


def _earlier(path: Path, terms: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Runs that the file holds already, by name."""
    if not path.exists():
        return {}
    found = results.read(path, SCHEMA)
    # A recipe from before a field was added had, in effect, that field's default.
    then = {key: found.get(key) for key in TERMS} | {
        "recipe": _without_seed(Recipe.from_dict(found["recipe"]))
    }
    changed = [key for key in TERMS if then[key] != terms[key]]
    if changed:
        raise DataError(
            f"it holds runs on other terms ({', '.join(changed)} changed)",
            file=path,
            remedy="ask for the same settings, or move the file and the folders of its runs away",
        )
    return {run["name"]: run for run in found["runs"]}


def _without_seed(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in recipe.as_dict().items() if name != "seed"}


def accuracies(
    written: Mapping[str, Any], split: str = "validation"
) -> dict[str, dict[str, tuple[float, float, float] | None]]:
    """Mean accuracies over the seeds with 95 % intervals, as `plots.share_intervals` takes them.

    Args:
        written: what `compare` gives, or its file holds.
        split: ``"validation"``, or ``"test"`` if all runs were scored on it.

    Returns:
        By start and way, in words: accuracy and the ends of its interval, which covers images and seeds
        (`seeds.mean_score`), or none where no run is there.
    """
    found: dict[str, dict[str, tuple[float, float, float] | None]] = {}
    for start, (title, _) in STARTS.items():
        for way in HOW:
            scores = [r[split] for r in written["runs"] if (r["pretrained"], r["how"]) == (start, way)]
            mean = mean_score(scores) if scores else None
            value = None if mean is None else (mean["accuracy"], mean["low"], mean["high"])
            found.setdefault(title, {})[WAYS[way]] = value
    return found


def told(written: Mapping[str, Any] | None) -> dict[str, str]:
    """On what terms the starts were compared, for the prose, by glue name."""
    if written is None:
        return dict.fromkeys(("starts-terms", "starts-scratch", "starts-chance"), NOT_YET)
    recipe = written["recipe"]
    seeds = [f"{len({r['seed'] for r in written['runs'] if r['how'] == way})} for {WAYS[way]}" for way in HOW]
    budget = f"{written['size']} pixels, {recipe['epochs']} epochs, learning rate {recipe['lr']:g}"
    scratch = [r["validation"] for r in written["runs"] if (r["pretrained"], r["how"]) == ("none", "all")]
    judged = written["runs"][0]["validation"]
    return {
        "starts-terms": f"{budget}; seeds: {', '.join(seeds)}",
        "starts-scratch": percent(mean_score(scratch)["accuracy"]) if scratch else NOT_YET,
        "starts-chance": percent(max(map(sum, judged["confusion"])) / judged["images"]),
    }
