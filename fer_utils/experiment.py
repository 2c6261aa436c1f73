"""An experiment from its name to its results file: what `fer train`, `fer evaluate` and the chapters call."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd

from fer_utils import calibrated as _calibrated
from fer_utils import runs as _runs
from fer_utils.augment import Augment
from fer_utils.emotions import CLASSES, DisgustRule
from fer_utils.errors import DataError
from fer_utils.files import write_table
from fer_utils.models import MODELS
from fer_utils.recipes import recipe_for
from fer_utils.training import TRAINER, Fit, Recipe
from fer_utils.votes import Votes, join, read_votes
from fer_utils.votes import soft_labels as _soft_labels
from fer_utils.workspace import Profile, Workspace, project_root, workspace

__all__ = [
    "Profile",
    "Result",
    "Workspace",
    "evaluate",
    "project_root",
    "read_predictions",
    "read_result",
    "recipe_for",
    "soft_labels",
    "train",
    "train_or_load",
    "vote_shares",
    "votes_on",
    "workspace",
    "write_predictions",
]

STEPS = 2**16 - 1  # from 0 to 1, in the square roots of stored probabilities


@dataclass(frozen=True)
class Result:
    """A results file: how a run was trained, and its scores by split and variant.

    Attributes:
        name: of the run, e.g. ``"easynet-seed0"``, as its file below the folder of results is called.
        model: `name`, `options`, `parameters`, `trained_parameters`.
        recipe: fields of `Recipe`, the seed among them.
        data: `faceset` (checksum), `sources`, `trained_on`, `splits` (images by ``split/source``).
        validation: scores (`fer_utils.evaluation.metrics`) by variant: ``fer2013``, ``fer2013+flip``, …
        test: the same of the test split; empty where it was not read.
    """

    name: str
    profile: str
    date: str
    model: dict[str, Any]
    recipe: dict[str, Any]
    data: dict[str, Any]
    revision: str
    packages: dict[str, str]
    processor: str
    training_seconds: float
    images_per_second: float
    checkpoint: str
    learning_curve: list[dict[str, float]]
    validation: dict[str, dict[str, Any]]
    test: dict[str, dict[str, Any]] = field(default_factory=dict)
    precision: str = "32-true"
    protocol: dict[str, Any] = field(default_factory=lambda: {"disgust": "drop", "other_splits": []})
    teachers: dict[str, Any] | None = None
    labels: dict[str, Any] | None = None
    calibrated: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values of all fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Result:
        """Make a result of plain values; keys that are no fields are left out.

        Raises:
            TypeError: a field is missing.
        """
        return cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values})


def read_result(path: Path) -> Result:
    """Read a results file.

    Raises:
        DataError: the file is missing, is not JSON, or lacks a field.
    """
    try:
        return Result.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError("there is no such results file", file=path, remedy="run `fer evaluate`") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"not a results file ({error})", file=path, remedy="write it again") from None


def _sorted_out(network: str, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    recipe, options = set(get_type_hints(Recipe)), set(inspect.signature(MODELS[network]).parameters)
    recipe |= {f"augment.{name}" for name in get_type_hints(Augment)}
    unknown = sorted(settings.keys() - recipe - options - set(TRAINER))
    if unknown:
        valid = ", ".join(sorted(recipe | options | set(TRAINER)))
        raise ValueError(f"{network} has no setting {unknown[0]!r}; it has {valid}")
    return {
        "recipe_changes": {k: v for k, v in settings.items() if k in recipe},
        "model_options": {k: v for k, v in settings.items() if k in options},
        **{k: v for k, v in settings.items() if k in TRAINER},
    }


def train(
    space: Workspace,
    network: str,
    *,
    seed: int = 0,
    name: str | None = None,
    resume: bool = False,
    verbose: bool = True,
    calibrated: bool = False,
    loss_weight: float | None = None,
    **settings: Any,
) -> Fit:
    """Train a network by its recipe and settings that differ from it; see the contract."""
    own = {k: settings.pop(k) for k in ("sources", "labels", "teachers") if k in settings}
    options = own | _sorted_out(network, settings)
    run = _runs.train(
        space, network, seed=seed, name=name, resume=resume, verbose=verbose, share=loss_weight, **options
    )
    return _calibrate(space, run) if calibrated else run


def train_or_load(space: Workspace, network: str, *, seed: int = 0, **options: Any) -> Fit:
    """`train`, but on real data a run that has finished is loaded."""
    calibrated, share = options.pop("calibrated", False), options.pop("loss_weight", None)
    own = {k: options.pop(k) for k in ("sources", "labels", "teachers", "name", "verbose") if k in options}
    options.pop("resume", None)
    changes = _sorted_out(network, options)
    run = _runs.train_or_load(space, network, seed=seed, share=share, **own, **changes)
    return _calibrate(space, run) if calibrated else run


def _calibrate(space: Workspace, run: Fit) -> Fit:
    folder = _calibrated.calibrate(space, run.folder.relative_to(space.runs).as_posix())
    return _runs._finished(folder, space.faces())


def evaluate(space: Workspace, name: str, *, test: bool = False) -> Result:
    """Score a run, write its results file `<results>/<name>.json`, and return it."""
    return read_result(_runs.evaluate(space, name, test=test))


def votes_on(index: pd.DataFrame, root: Path, disgust: DisgustRule = "drop") -> np.ndarray:
    """Join the votes of FER+ to some faces by their origin.

    Args:
        index: of the faces, with `source`, `origin` and `emotion`, as in `FaceSet.index`.
        root: folder below which FER2013 and FER+ are.
        disgust: ``"angry"`` counts votes for disgust as votes for anger, as the merge did with labels.

    Returns:
        int64 (N, 10), in the order of `fer_utils.datasets.ferplus.VOTES`; zeros where nobody voted.

    Raises:
        DataError: FER+ or FER2013 is missing or damaged, or is another one than was merged.
    """
    return join(index, read_votes(root)[0], disgust).counts


def vote_shares(counts: np.ndarray) -> np.ndarray:
    """Shares of the votes: float64 (N, 7), the six classes and the other words; zeros without votes."""
    return Votes(counts).shares


def soft_labels(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Distributions to train on: float32 (N, 6), the votes, and the label for votes outside the classes."""
    return _soft_labels(labels, Votes(counts))


def fingerprint(index: pd.DataFrame) -> str:
    """SHA-256 of the hashes of some images in their order: what a set of images is known by."""
    return hashlib.sha256("".join(index["hash"]).encode()).hexdigest()


def write_predictions(
    results: Path, name: str, split: str, index: pd.DataFrame, checkpoint: str, **variants: np.ndarray
) -> None:
    """Keep what a run predicted, in 16 bits, in `predictions/<name>-<split>.npz`.

    Square roots are rounded, since averages over runs have near ties that half precision would turn.

    The columns that the images have in common for all runs are kept once, in `predictions/<split>.parquet`.

    Args:
        results: folder of results.
        name: of the run.
        split: of the images; for ``"train"`` (teachers) no columns of the images are kept.
        index: of the images, as in `FaceSet.index`, with `hash`.
        checkpoint: SHA-256 of the weights.
        **variants: `p` and, or, `flip`: float (N, 6), 0–1.
    """
    kept = {}
    for variant, probabilities in variants.items():
        best = probabilities.argmax(1)
        roots = np.round(np.sqrt(probabilities) * STEPS).astype(np.uint16)
        # Rounding may make a tie of the two highest: the higher one stays the higher.
        rows = np.flatnonzero(roots.argmax(1) != best)
        roots[rows, best[rows]] += 1
        kept[variant] = np.ascontiguousarray(roots.T)
    folder, images = results / "predictions", fingerprint(index)
    path = folder / f"{name}-{split}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        np.savez_compressed(aside, checkpoint=checkpoint, images=images, **kept)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    if split != "train":
        table = index.drop(columns="hash").reset_index(drop=True)
        table.attrs = {"images": images}
        write_table(folder / f"{split}.parquet", table)


def read_predictions(results: Path, name: str, split: str) -> pd.DataFrame:
    """Read what a run predicted: one row an image.

    Returns:
        Its columns in `FaceSet.index` but `hash` (none for ``"train"``), and float32 ``p_<class>`` and
        ``flip_<class>``; `attrs` hold `checkpoint` and `images` (`fingerprint`).

    Raises:
        DataError: nothing is kept, or on other images than those of the set evaluated last.
    """
    path = results / "predictions" / f"{name}-{split}.npz"
    if (before := path.with_suffix(".parquet")).is_file():  # the form before
        return pd.read_parquet(before)
    remedy = f"run `fer evaluate {name}`" + (" --test" if split == "test" else "")
    if not path.is_file():
        raise DataError("no predictions are kept", file=path, remedy=remedy)
    with np.load(path) as file:
        attrs = {name: str(file[name]) for name in ("checkpoint", "images")}
        columns = {
            f"{variant}_{c}": np.square(file[variant][i] / np.float32(STEPS))
            for variant in ("p", "flip")
            if variant in file
            for i, c in enumerate(CLASSES)
        }
    table = pd.DataFrame(columns)
    if split != "train":
        images = pd.read_parquet(results / "predictions" / f"{split}.parquet")
        if images.attrs["images"] != attrs["images"]:
            raise DataError("the predictions are on images of another merged set", file=path, remedy=remedy)
        table = pd.concat([images, table], axis=1)
    table.attrs = attrs
    return table
