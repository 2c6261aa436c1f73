"""Paired comparisons of runs that saw the same test images, and the question whether merging helps."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from fer_utils import results, runs
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import mcnemar
from fer_utils.files import write_aside
from fer_utils.workspace import Workspace

PROBABILITIES = [f"p_{c}" for c in CLASSES]
FLIPPED = [f"flip_{c}" for c in CLASSES]


def predictions(space: Workspace, run: str, split: str = "test") -> pd.DataFrame:
    """What `fer evaluate` kept of a run's answers on one split; no image is read again.

    Returns:
        One row an image, as `results.evaluate` describes.

    Raises:
        DataError: the run has not been evaluated on that split here, or its answers are of older weights.
    """
    path = space.runs / run / f"predictions-{split}.parquet"
    remedy = f"run `fer evaluate {run}{' --test' if split == 'test' else ''}`"
    if not path.exists():
        raise DataError(f"there are no {split} predictions of this run", file=path, remedy=remedy)
    if path.stat().st_mtime < (space.runs / run / "model.safetensors").stat().st_mtime:
        raise DataError("the predictions are older than the run's weights", file=path, remedy=remedy)
    return pd.read_parquet(path)


def paired(
    space: Workspace, first: str, second: str, *, split: str = "test", source: str = "fer2013"
) -> dict[str, Any]:
    """McNemar's test between two runs on the images of one source.

    Returns:
        `accuracy` of both, and what `mcnemar` gives (`difference` is first − second).

    Raises:
        DataError: a run has no predictions, or the runs saw different images.
    """
    correct, seen = [], []
    for run in (first, second):
        table = predictions(space, run, split)
        table = table[table["source"] == source]
        seen.append(table["origin"].tolist())
        correct.append(table[PROBABILITIES].to_numpy().argmax(1) == table["label"].to_numpy())
    if seen[0] != seen[1] or not seen[0]:
        raise DataError(
            f"{first} and {second} were not scored on the same {split} images of {source}",
            file=space.runs,
            remedy="evaluate both on the same merged set",
        )
    accuracy = [float(c.mean()) for c in correct]
    return {"runs": [first, second], "images": len(seen[0]), "accuracy": accuracy} | mcnemar(*correct)


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
    validation images, those of the one source. Writes `comparisons/merging.json` below the results.

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
        DataError: there is no other source to merge with.
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
    batch = changes.get("batch_size") or runs.recipe_for(network, space.profile)[1].batch_size
    changes["batches"] = len(faces.split("train", alone)) // batch
    pairs = []
    for seed in seeds:
        names = [f"merging/{network}-{what}-seed{seed}" for what in ("all", alone)]
        for name, trained_on in zip(names, (None, [alone]), strict=True):
            options = {"seed": seed, "name": name, "sources": trained_on, "validate_on": [alone]}
            runs.train(space, network, recipe_changes=changes, **options, **train_options)
            runs.evaluate(space, name, test=True)
        pairs.append({"seed": seed} | paired(space, *names, source=alone))
    recipe = results.read(space.results / f"{names[0]}.json")["recipe"]
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "revision": results.revision(),
        "profile": space.profile,
        "network": network,
        "alone": alone,
        "sources": {s: len(faces.split("train", s)) for s in sources},
        "steps": changes["batches"] * recipe["epochs"],
        "pairs": pairs,
        "difference": results.summarise(np.array([p["difference"] for p in pairs])),
    }
    path = space.results / "comparisons" / "merging.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, json.dumps(report, indent=1) + "\n")
    return report
