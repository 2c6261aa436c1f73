"""Look at a trained network from all sides: what `fer inspect` does and chapter 8 shows.

Everything is measured on the validation split (FER2013's PublicTest), so that any number of networks can be
looked at without touching the test split. The file that is written holds numbers about a network and no
pixel of a face: the finest thing in it are grids of some ten by ten cells that say where a network looks on
average.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from fer_utils import results, runs
from fer_utils.calibration import calibration, coverage_curve, risk_area
from fer_utils.datasets.faceset import COLUMNS, FaceSet
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import bootstrap_interval, predict
from fer_utils.faces import resize
from fer_utils.files import sha256
from fer_utils.weights import load_model
from fer_utils.workspace import Workspace, project_root, workspace
from reading_faces.study.attention import Maps, class_maps, region_sensitivity
from reading_faces.study.robustness import confidences, robustness

FORMAT = 1
FOLDER = "inspection"  # below the folder of results
SOURCE = "fer2013"
TITLES = {"easynet": "EasyNet", "facenet": "FaceNet", "emonet": "EmoNet"}
FINEST = 16  # cells a side of a stored map: coarser than any picture of a face

_TABLE = {"type": "array", "minItems": 1, "items": {"type": "object"}}
_MAP = {"type": "array", "maxItems": FINEST, "items": {"type": "array", "maxItems": FINEST}}
SCHEMA = {
    "title": "inspection",
    "command": "fer inspect",
    "type": "object",
    "required": ["format", "name", "profile", "date", "revision", "network", "checkpoint", "data", "accuracy",
                 "calibration", "coverage", "risk", "regions", "robustness", "confidences", "attention"],
    "properties": {
        "format": {"const": FORMAT},
        "network": {"enum": list(TITLES)},
        "data": {"type": "object", "required": ["split", "source", "images"]},
        "accuracy": {"type": "number", "minimum": 0, "maximum": 1},
        "calibration": {"type": "object", "required": ["temperature", "error", "luck", "log_loss", "bins"]},
        "coverage": _TABLE,
        "regions": _TABLE,
        "robustness": _TABLE,
        "confidences": _TABLE,
        "attention": {
            "type": "object",
            "required": ["grids", "extent", "images", "layer"],
            "properties": {"grids": {"type": "array", "minItems": 6, "maxItems": 6, "items": _MAP}},
        },
    },
}  # fmt: skip


def drawn_faces(n: int = 1000, *, seed: int = 8_000) -> FaceSet:
    """Newly drawn faces, which no network has been trained on, framed as FER2013's.

    Args:
        n: how many.
        seed: of the drawing; the classes come in the shares of FER2013's training images.

    Returns:
        A set in memory, 64×64, all of it validation.
    """
    shares = np.array([3995, 4097, 7215, 4830, 3171, 4965])  # official counts of the six classes
    labels = np.random.default_rng(seed).choice(len(CLASSES), n, p=shares / shares.sum())
    images = resize(demo_faces([CLASSES[i] for i in labels], seed=seed))
    number = np.arange(n)
    index = pd.DataFrame(
        {
            "label": labels.astype(np.int8),
            "emotion": [CLASSES[i] for i in labels],
            "source": SOURCE,
            "subject": None,
            "split": "validation",
            "origin": [f"drawn:{i}" for i in number],
            "hash": "",
            "seen_copy": False,
        }
    )
    return FaceSet(Path("drawn"), images, index[list(COLUMNS)], {}, number)


def held_out(space: Workspace, n: int = 1000) -> FaceSet:
    """What chapter 8 looks at: PublicTest, or in the demo profile n newly drawn faces."""
    return drawn_faces(n) if space.profile == "demo" else space.faces().split("validation", SOURCE)


def look(model: nn.Module, images: np.ndarray, labels: np.ndarray, *, pictures: int = 500) -> dict[str, Any]:
    """Measure everything that chapter 8 shows about one network.

    Args:
        model: one of `fer_utils.models`.
        images: uint8 (N, 64, 64), held-out faces.
        labels: int (N,), values 0–5.
        pictures: of each kind that shows no face.

    Returns:
        `accuracy`, `accuracy_interval`; and, by the functions of these names, `calibration`, `coverage`,
        `risk`, `regions`, `robustness`, `confidences` and `attention`.
    """
    answers = predict(model, images)
    correct = answers.argmax(1) == labels
    return {
        "accuracy": float(correct.mean()),
        "accuracy_interval": list(bootstrap_interval(correct)),
        "calibration": calibration(labels, answers),
        "coverage": coverage_curve(labels, answers),
        "risk": risk_area(labels, answers),
        "regions": region_sensitivity(model, images, labels),
        "robustness": robustness(model, images, labels),
        "confidences": confidences(model, images, n=pictures),
        "attention": class_maps(model, images, labels),
    }


def inspect(space: Workspace, name: str, *, images: int | None = None, pictures: int = 500) -> Path:
    """Look at a run or a published network on validation, and write what was seen.

    Args:
        space: gives the runs, the merged set and the folder of results.
        name: of a finished run, or of a network in the checkout's `weights/`.
        images: look at so many validation images only, evenly spaced; for a quick look.
        pictures: of each kind that shows no face.

    Returns:
        The path of the file, `inspection/<name>.json` below the results.

    Raises:
        DataError: there is no such network, nothing is merged, no image to look at, or a published network
            may have learnt the images.
    """
    began = time.monotonic()
    path = _weights(space, name)
    model = load_model(path)
    faces = space.faces()
    runs.refuse_another_set(path.parent, faces)
    if SOURCE in results.other_splits(faces.manifest) and not (path.parent / "run.json").exists():
        raise DataError(
            "the validation images are of FER2013's training images, which a published network has learnt",
            file=space.faceset,
            remedy="merge a copy of FER2013 that tells PublicTest and PrivateTest apart, such as fer2013.csv",
        )
    faces = faces.split("validation", SOURCE)
    if not len(faces):
        raise DataError(
            f"there are no validation images of {SOURCE}",
            file=space.faceset,
            remedy="put FER2013 below FER_DATA and run `fer merge`",
        )
    count = len(faces) if images is None else max(1, min(images, len(faces)))
    rows = np.linspace(0, len(faces) - 1, count).astype(int)
    seen = look(model, faces.take(rows), faces.labels[rows], pictures=pictures)
    about = {
        "format": FORMAT,
        "name": name,
        "profile": space.profile,
        **results.stamp(),
        "processor": results.processor(),
        "network": next(n for n, kind in _models().items() if isinstance(model, kind)),
        "options": model.options,
        "checkpoint": sha256(path),
        "data": {
            "faceset": sha256(faces.path / "manifest.json"),
            "split": "validation",
            "source": SOURCE,
            "images": count,
            "of": len(faces),
        },
        "seconds": round(time.monotonic() - began, 1),
    }
    out = space.results / FOLDER / f"{name}.json"
    write(about | seen, out)
    return out


def _models() -> dict[str, type[nn.Module]]:
    from fer_utils.models import MODELS

    return MODELS


def _weights(space: Workspace, name: str) -> Path:
    """The file of a finished run's weights or, if there is no such run, of a published network's."""
    run, published = space.runs / name, project_root() / "weights" / f"{name}.safetensors"
    if (run / "model.safetensors").is_file():
        return run / "model.safetensors"
    if run.is_dir() or not published.is_file():
        raise DataError(
            "there is no finished run and no published network of that name",
            file=run,
            remedy="finish it with `fer train … --resume`, or name a file in weights/ without its ending",
        )
    return published


def write(result: dict[str, Any], path: Path) -> None:
    """Write what `look` saw and what it looked at, whole or not at all; tables become lists of rows."""
    results.write(_plain(result), path, SCHEMA)


def read(path: Path) -> dict[str, Any]:
    """Read what `write` wrote, with its tables as tables again.

    Raises:
        DataError: the file is missing, is not JSON, or lacks a field.
    """
    found = results.read(path, SCHEMA)
    for name in ("coverage", "regions", "robustness", "confidences"):
        found[name] = pd.DataFrame(found[name])
    bins = found["calibration"]["bins"]
    found["calibration"]["bins"] = {k: pd.DataFrame(rows).astype(float) for k, rows in bins.items()}
    maps = found["attention"]
    grids, images = np.array(maps["grids"], float), np.array(maps["images"], int)
    found["attention"] = Maps(grids, tuple(maps["extent"]), images, maps["layer"])
    return found


def _plain(value: Any) -> Any:
    """Values as JSON knows them: five decimals are finer than any interval here; not-a-number is null."""
    if isinstance(value, pd.DataFrame):
        return [_plain(row) for row in value.to_dict("records")]
    if isinstance(value, Maps):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(entry) for entry in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), 5)
    return int(value) if isinstance(value, np.integer) else value


def full_pair(networks: tuple[str, ...] = ("easynet", "facenet")) -> list[dict[str, dict[str, Any]]]:
    """The inspections of real networks for the book: of each kind, the one that is best on validation.

    Returns:
        A list of one dict, by title, for `notebook.show_real`; empty before the full run.
    """
    found = [read(path) for path in sorted((workspace("full").results / FOLDER).glob("*.json"))]
    pair = {}
    for network in networks:
        own = [result for result in found if result["network"] == network]
        if own:
            pair[TITLES[network]] = max(own, key=lambda result: result["accuracy"])
    return [pair] if pair else []


def part(pair: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    """One measurement of several networks, by title: what the functions of `plots` take."""
    return {title: result[name] for title, result in pair.items()}


def bins(pair: dict[str, dict[str, Any]]) -> dict[str, pd.DataFrame]:
    """Reliability before and after scaling, by title, as `plots.reliability` takes them."""
    return {
        f"{title}, {when}": table
        for title, calibrated in part(pair, "calibration").items()
        for when, table in calibrated["bins"].items()
    }


def mean_faces(faces: FaceSet) -> np.ndarray:
    """Mean face of every class: float (6, 64, 64), 0–255; not-a-number for a class without an image."""
    images, labels = faces.images, faces.labels
    means = [
        images[labels == k].mean(0) if (labels == k).any() else np.full((64, 64), np.nan) for k in range(6)
    ]
    return np.stack(means)
