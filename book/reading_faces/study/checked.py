"""The checks of a merged set from a workspace to a file: what `fer check` calls, and what chapter 2 reads."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from fer_utils import models, results
from fer_utils.datasets.base import SPLITS
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.files import sha256
from fer_utils.recipes import recipe_for
from fer_utils.runs import change
from fer_utils.workspace import Workspace
from reading_faces.study import checks, side_by_side
from reading_faces.study.checks import Check, Proof, SourceMatrix
from reading_faces.study.describe import image_statistics, mean_faces

FORMAT = 1
FOLDER = "checks"  # below the folder of results
NETWORK = "emonet"
NAME = f"{NETWORK}-checks"
# Every twentieth of the images, so that the box and both whiskers of a box plot are among them.
LEVELS = np.linspace(0, 1, 21)

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_SHARES = {"type": "array", "items": _SHARE}
_COUNTS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 6, "maxItems": 6}
_FOUND = {"type": "object", "additionalProperties": {"type": "object"}}


def _each(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": value}


SCHEMA = results.fields(
    format={"const": FORMAT},
    name={"type": "string"},
    profile={"enum": ["demo", "full"]},
    date={"type": "string"},
    revision={"type": "string"},
    packages={"type": "object"},
    processor={"type": "string"},
    threads={"type": "integer", "minimum": 1},
    wall_seconds={"type": "number", "minimum": 0},
    model=results.fields(name={"const": NETWORK}, options={"type": "object"}, parameters={"type": "integer"}),
    recipe=results.fields(seed={"type": "integer"}, epochs={"type": "integer"}),
    steps={"type": "integer", "minimum": 0},
    data=results.fields(faceset={"type": "string"}, sources={"type": "object"}, splits={"type": "object"}),
    checks={
        "type": "array",
        "minItems": 4,
        "items": results.fields(
            name={"type": "string"},
            value={"type": "string"},
            threshold={"type": "string"},
            passed={"type": "boolean"},
        ),
    },
    matrix=results.fields(
        trained_on={"type": "array", "minItems": 1},
        tested_on={"type": "array", "minItems": 1},
        accuracy={"type": "array", "items": _SHARES},
        intervals={"type": "array", "items": {"type": "array", "items": _SHARES}},
        chance=_SHARES,
        confusions=_each(_each({"type": "array", "items": _COUNTS, "minItems": 6, "maxItems": 6})),
    ),
    sensitivity=_each(
        results.fields(named={"type": "integer"}, of={"type": "integer"}, missed={"type": "array"})
    ),
    swaps={
        "type": "array",
        "items": results.fields(
            source={"type": "string"},
            classes={"type": "array", "minItems": 2, "maxItems": 2},
            compared={"type": "boolean"},
            found=_FOUND,
            named={"type": ["boolean", "null"]},
            said={"type": "string"},
            home={"type": ["number", "null"]},
        ),
    },
    statistics=_each(
        _each(
            results.fields(
                images={"type": "integer"},
                quantiles={"type": "array", "minItems": len(LEVELS), "maxItems": len(LEVELS)},
            )
        )
    ),
    balance=_each(_each(_each({"type": "integer", "minimum": 0}))),
) | {"title": "file of checks", "command": "fer check"}


def run(
    space: Workspace,
    *,
    name: str = NAME,
    seed: int = 0,
    recipe_changes: dict[str, Any] | None = None,
    model_options: dict[str, Any] | None = None,
    steps: int = 320,
    swaps: Sequence[tuple[str, str, str]] = (),
    report: Callable[[Check | Proof], None] = lambda outcome: None,
) -> Path:
    """Run the checks of `reading_faces.study.checks` with EmoNet on a workspace's merged set, and write what they say.

    The file is `<results>/checks/<name>.json`, of the form of `SCHEMA`; it holds counts and quantiles, and no
    pixel. The test split stays closed, but for its number of images in each class.

    Args:
        space: gives the profile, the merged set and the folder of results.
        name: of the file.
        seed: of weights, order, augmentation, dropout and the shuffling of labels.
        recipe_changes: fields of EmoNet's recipe to change, as `fer_utils.runs.change` takes them. Learning
            by heart has a number of epochs of its own.
        model_options: options of EmoNet to change.
        steps: least number of steps of a network in the comparison of sources.
        swaps: (source, class, class) to exchange on purpose after the comparison; see `checks.prove`.
        report: called with each outcome as it comes.

    Returns:
        The path of the file.

    Raises:
        DataError: nothing merged, a source without training or validation images, or no faces of a source
            that is to be damaged.
        ValueError: an unknown recipe field, option or class.
    """
    start = time.perf_counter()
    faces = space.faces()
    options, recipe = recipe_for(NETWORK, space.profile)
    recipe = change(dataclasses.replace(recipe, seed=seed), recipe_changes or {})
    options = options | (model_options or {})
    try:
        model = models.build(NETWORK, **options)
    except (TypeError, RuntimeError) as error:  # what torch says of a word or a width that makes no layer
        raise ValueError(f"{NETWORK} cannot be built with {options}: {error}") from None
    checks.comparable(faces)  # like swaps: before hours of training
    for swap in swaps:
        checks.exchanged(faces, *swap)
    build = partial(models.build, NETWORK, **options)

    outcomes: list[Check] = []

    def note(outcome: Check) -> None:
        outcomes.append(outcome)
        report(outcome)

    note(side_by_side.lighting(image_statistics(faces)))
    note(side_by_side.framing(mean_faces(faces)[0]))
    note(side_by_side.classes(faces.counts()))
    note(checks.memorised(build, faces, recipe))
    note(checks.shuffled(build, faces, recipe))
    matrix = checks.source_matrix(build, faces, recipe, steps=steps)
    note(checks.above_chance(matrix))
    note(checks.same_codes(matrix))
    proofs = []
    for swap in swaps:
        proofs.append(checks.prove(build, faces, recipe, matrix, *swap, steps=steps))
        report(proofs[-1])

    result = _about(space, name, faces, model) | {
        "wall_seconds": round(time.perf_counter() - start, 1),
        "recipe": recipe.as_dict(),
        "steps": steps,
        "checks": [dataclasses.asdict(outcome) for outcome in outcomes],
        "matrix": _plain_matrix(matrix),
        "sensitivity": {
            source: {
                "named": sum(noticed.values()),
                "of": len(noticed),
                "missed": [list(pair) for pair, named in noticed.items() if not named],
            }
            for source, noticed in checks.sensitivity(matrix).items()
        },
        "swaps": [dataclasses.asdict(p) | {"named": p.named, "said": p.said} for p in proofs],
        "statistics": _quantiles(image_statistics(faces)),
        "balance": _balance(faces),
    }
    path = space.results / FOLDER / f"{name}.json"
    results.write(result, path, SCHEMA)
    return path


def read(path: Path) -> dict[str, Any]:
    """Read and validate a file of `run`.

    Raises:
        DataError: the file is missing, is not JSON, or lacks a field.
    """
    return results.read(path, SCHEMA)


def counts(result: dict[str, Any]) -> pd.DataFrame:
    """Images by class (rows) and by source and split (columns): `FaceSet.counts` without its total."""
    columns = {(s, split): n for s, splits in result["balance"].items() for split, n in splits.items()}
    return pd.DataFrame(columns).reindex(CLASSES).rename_axis(index="class", columns=["source", "split"])


def statistics(result: dict[str, Any]) -> pd.DataFrame:
    """Quantiles in the form of `describe.image_statistics`: columns `source`, `quantity`, `value`.

    Boxes and whiskers (5th and 95th percentile) that are drawn of them are those of the images themselves.
    """
    return pd.DataFrame(
        [
            {"source": source, "quantity": quantity, "value": value}
            for source, quantities in result["statistics"].items()
            for quantity, summary in quantities.items()
            for value in summary["quantiles"]
        ]
    )


def _about(space: Workspace, name: str, faces: FaceSet, model: nn.Module) -> dict[str, Any]:
    sizes = faces.index.groupby(["split", "source"], observed=True).size()
    return {
        "format": FORMAT,
        "name": name,
        "profile": space.profile,
        **results.stamp(),
        "packages": {p: version(p) for p in ("torch", "lightning", "numpy", "scipy", "scikit-learn")},
        "processor": results.processor(),
        "threads": torch.get_num_threads(),
        "model": {
            "name": NETWORK,
            "options": model.options,
            "parameters": sum(p.numel() for p in model.parameters()),
        },
        "data": {
            "faceset": sha256(faces.path / "manifest.json"),
            "sources": {s["name"]: s["checksums"] for s in faces.manifest["sources"]},
            "splits": {f"{split}/{source}": int(n) for (split, source), n in sizes.items()},
        },
    }


def _plain_matrix(matrix: SourceMatrix) -> dict[str, Any]:
    rows, columns = list(matrix.accuracy.index), list(matrix.accuracy.columns)
    return {
        "trained_on": rows,
        "tested_on": columns,
        "accuracy": matrix.accuracy.to_numpy().tolist(),
        "intervals": matrix.intervals.tolist(),
        "chance": matrix.chance.tolist(),
        "confusions": {r: {c: matrix.confusions[r, c].tolist() for c in columns} for r in rows},
    }


def _quantiles(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    summary: dict[str, dict[str, Any]] = {}
    for (source, quantity), values in table.groupby(["source", "quantity"], sort=False)["value"]:
        summary.setdefault(source, {})[quantity] = {
            "images": len(values),
            "quantiles": [round(float(v), 4) for v in np.quantile(values, LEVELS)],
        }
    return summary


def _balance(faces: FaceSet) -> dict[str, Any]:
    table = faces.counts().loc[list(CLASSES)]
    return {
        source: {
            split: {c: int(n) for c, n in table[source][split].items()}
            for split in SPLITS
            if split in table[source]
        }
        for source in dict.fromkeys(table.columns.get_level_values("source"))
    }
