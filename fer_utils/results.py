"""The results file: the one place that a real-data figure in the book comes from.

A run writes it; `evaluate` fills in the scores; the chapters read it. Its fields follow point 4 of the
evaluation protocol: configuration, seed, source checksums, split sizes, code revision, package versions,
processor, wall time, validation and test metrics, confusion matrix and learning curve.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
from torch import nn

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import metrics, predict
from fer_utils.files import sha256, write_json

FORMAT = 1
DATA = "data/merged.json"  # below the folder of results: the manifest of the real merged set

_METRICS = {
    "type": "object",
    "required": ["images", "accuracy", "accuracy_interval", "macro_f1", "recall", "confusion"],
    "properties": {
        "images": {"type": "integer", "minimum": 1},
        "accuracy": {"type": "number", "minimum": 0, "maximum": 1},
        "accuracy_interval": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
        "confusion": {"type": "array", "minItems": 6, "maxItems": 6},
    },
}
SCHEMA = {
    "title": "results file",
    "command": "fer evaluate",
    "type": "object",
    "required": [
        "format",
        "name",
        "profile",
        "date",
        "model",
        "recipe",
        "data",
        "revision",
        "packages",
        "processor",
        "training_seconds",
        "images_per_second",
        "checkpoint",
        "learning_curve",
        "validation",
    ],
    "properties": {
        "format": {"const": FORMAT},
        "name": {"type": "string"},
        "profile": {"enum": ["demo", "full"]},
        "date": {"type": "string"},
        "model": {"type": "object", "required": ["name", "options", "parameters"]},
        "recipe": {"type": "object", "required": ["seed", "epochs", "batch_size", "lr"]},
        "data": {"type": "object", "required": ["faceset", "sources", "splits"]},
        "learning_curve": {"type": "array", "minItems": 1},
        "validation": {"type": "object", "additionalProperties": _METRICS},
        "test": {"type": "object", "additionalProperties": _METRICS},
    },
}


def fields(**properties: Any) -> dict[str, Any]:
    """JSON schema of an object that has at least these fields."""
    return {"type": "object", "required": list(properties), "properties": properties}


def validate(result: dict[str, Any], file: Path | None = None, schema: dict[str, Any] = SCHEMA) -> None:
    """Check a result against a schema.

    Args:
        result: what was read, or is to be written.
        file: where, for the error.
        schema: a JSON schema that knows its ``format``; ``title`` and ``command`` say for the error what the
            file should be and what writes it.

    Raises:
        DataError: a field is missing or has the wrong form.
    """
    try:
        jsonschema.validate(result, schema)
    except jsonschema.ValidationError as error:
        raise DataError(
            f"this is no {schema['title']} of format {schema['properties']['format']['const']}: "
            f"{error.json_path}: {error.message[:200]}",
            file=file,
            remedy=_anew(schema),
        ) from None


def _anew(schema: dict[str, Any]) -> str:
    return f"delete it and write it again with `{schema['command']}`"


def write(result: dict[str, Any], path: Path, schema: dict[str, Any] = SCHEMA) -> None:
    """Validate and write a result, whole or not at all."""
    # Tuples become lists on the way to JSON, and the schema is about JSON.
    validate(json.loads(json.dumps(result)), path, schema)
    write_json(path, result)


def write_benchmark(name: str, values: dict[str, Any], folder: Path) -> None:
    """Write what a benchmark measured, with date, revision and processor, to `benchmarks/<name>.json`.

    Args:
        name: of the benchmark.
        values: plain values.
        folder: of the results files.
    """
    about = stamp() | {"processor": processor(), "cores": os.cpu_count()}
    write_json(folder / "benchmarks" / f"{name}.json", about | values)


def read(path: Path, schema: dict[str, Any] = SCHEMA) -> dict[str, Any]:
    """Read a results file, or what another command wrote, and `validate` it.

    Raises:
        DataError: the file is missing, is not JSON, or lacks a field.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"there is no such {schema['title']}", file=path, remedy=f"run `{schema['command']}` first"
        ) from None
    except ValueError as error:
        raise DataError(f"not JSON ({error})", file=path, remedy=_anew(schema)) from None
    validate(result, path, schema)
    return result


def read_all(folder: Path, pattern: str = "*.json") -> list[dict[str, Any]]:
    """Read the results files of a folder whose names match, in the order of their names."""
    return [read(path) for path in sorted(folder.glob(pattern))]


def by_protocol(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results that were scored on FER2013's PublicTest with *disgust* left out, as the book's are.

    Test scores are kept where they are on PrivateTest, and left out otherwise.
    """
    kept = []
    for result in found:
        if "fer2013" in result["validation"] and own_splits(result) and disgust(result) == "drop":
            tested = "fer2013" in result.get("test", {})
            kept.append(result if tested else {k: v for k, v in result.items() if k != "test"})
    return kept


def other_splits(manifest: dict[str, Any]) -> list[str]:
    """The sources of a merged set whose splits are not those that their owners published."""
    return [source["name"] for source in manifest["sources"] if not source.get("own_splits", True)]


def own_splits(result: dict[str, Any]) -> bool:
    """Whether FER2013's validation and test are PublicTest and PrivateTest; older files note nothing else."""
    return "fer2013" not in result.get("protocol", {}).get("other_splits", ())


def disgust(result: dict[str, Any]) -> str:
    """What became of FER2013's seventh class: ``"drop"`` or ``"angry"``."""
    return result.get("protocol", {}).get("disgust", "drop")


def describe_run(
    name: str,
    profile: str,
    model: nn.Module,
    about: dict[str, Any],
    recipe: dict[str, Any],
    history: pd.DataFrame,
    faces: FaceSet,
    checkpoint: Path,
) -> dict[str, Any]:
    """Everything of a results file but the scores.

    Args:
        name: of the run, e.g. ``"easynet-seed0"``.
        profile: ``"demo"`` or ``"full"``.
        model: the trained network.
        about: what `run.json` says: the network's name, the sources, the revision it was trained with.
        recipe: `Recipe.as_dict()`.
        history: the learning curve, one row an epoch.
        faces: the whole merged set that it was trained on.
        checkpoint: the file with the chosen weights.
    """
    sizes = faces.index.groupby(["split", "source"], observed=True).size()
    return {
        "format": FORMAT,
        "name": name,
        "profile": profile,
        "date": datetime.now(UTC).date().isoformat(),
        "model": {
            "name": about["network"],
            "options": model.options,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        },
        "recipe": recipe,
        "data": {
            "faceset": sha256(faces.path / "manifest.json"),
            "sources": {s["name"]: s["checksums"] for s in faces.manifest["sources"]},
            "trained_on": about["sources"] or sorted(s["name"] for s in faces.manifest["sources"]),
            "splits": {f"{split}/{source}": int(n) for (split, source), n in sizes.items()},
        },
        "protocol": {
            "disgust": faces.manifest["disgust"],
            "other_splits": other_splits(faces.manifest),
        },
        "revision": about["revision"],
        "precision": about.get("precision", "32-true"),
        "teachers": about.get("teachers"),
        "labels": about.get("labels"),
        "calibrated": about.get("calibrated"),
        "validated_on": about.get("validate_on"),
        "cached": about["cached"] | about["cache"] if about.get("cached") else None,
        "packages": {
            p: version(p) for p in ("torch", "torchvision", "lightning", "numpy", "facenet-pytorch")
        },
        "processor": processor(),
        "training_seconds": round(float(history["seconds"].sum()), 1),
        "images_per_second": round(float(history["images_per_second"].median()), 1),
        "checkpoint": sha256(checkpoint),
        "learning_curve": history.to_dict("records"),
    }


def predictions_path(folder: Path, name: str, split: str) -> Path:
    """Where a run's answers on one split are kept, below the folder of results."""
    return folder / "predictions" / f"{name}-{split}.parquet"


def evaluate(model: nn.Module, faces: FaceSet, split: str) -> tuple[dict[str, dict[str, Any]], pd.DataFrame]:
    """Score a network on one split, each variant clearly labelled.

    Returns:
        - For each source in the split, by its name, what `metrics` gives: plain; ``<source>+flip`` with the
          mirror image averaged; ``<source>+ten-crop`` with ten views averaged, for the test split
          alone since it takes long; for FER2013 also ``fer2013-deduplicated``, without images that have an
          exact copy in an earlier split.
        - What was predicted, one row an image: its columns of the faceset's index, and probabilities
          ``p_<class>`` and, with the mirror image averaged, ``flip_<class>``, float32 0–1.
    """
    part = faces.split(split)
    plain, flip = predict(model, part), predict(model, part, flip=True)
    crops = predict(model, part, ten_crop=True) if split == "test" else None
    scores, index = {}, part.index
    for source in sorted(index["source"].unique()):
        rows = (index["source"] == source).to_numpy()
        labels, fresh = part.labels[rows], ~index["seen_copy"].to_numpy()[rows]
        people = index["subject"][rows]
        people = None if people.isna().any() else people.to_numpy(str)
        scores[source] = metrics(labels, plain[rows], people)
        scores[f"{source}+flip"] = metrics(labels, flip[rows], people)
        if crops is not None:
            scores[f"{source}+ten-crop"] = metrics(labels, crops[rows], people)
        if not fresh.all() and fresh.any():
            few = None if people is None else people[fresh]
            scores[f"{source}-deduplicated"] = metrics(labels[fresh], plain[rows][fresh], few)
    columns = [f"p_{c}" for c in CLASSES], [f"flip_{c}" for c in CLASSES]
    predictions = pd.concat(
        [
            index.reset_index(drop=True),
            pd.DataFrame(plain, columns=columns[0]),
            pd.DataFrame(flip, columns=columns[1]),
        ],
        axis=1,
    )
    return scores, predictions


def summarise(values: list[float] | np.ndarray) -> dict[str, float]:
    """Mean and standard deviation (n − 1) over seeds; the deviation of one value is none (NaN)."""
    values = np.asarray(values, dtype=float)
    return {
        "mean": float(values.mean()),
        "std": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        "seeds": len(values),
    }


def stamp() -> dict[str, str]:
    """Date and revision, as every file of results has them."""
    return {"date": datetime.now(UTC).date().isoformat(), "revision": revision()}


def revision() -> str:
    """The commit of the code, with ``+changes`` where the checkout differs from it, or ``"unknown"``."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        dirty = bool(git("status", "--porcelain", "--untracked-files=no", "--", "."))
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def processor() -> str:
    """The processor's own name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
