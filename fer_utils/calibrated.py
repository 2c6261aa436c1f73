"""A trained network with its last layer calibrated on validation: what `fer calibrate` makes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import nn

from fer_utils import runs
from fer_utils.calibration import apply_bias, fit_bias
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.files import sha256, write_json
from fer_utils.training import last_layer
from fer_utils.weights import load_model, save_checkpoint
from fer_utils.workspace import Workspace

FOLDS = 10  # of the cross-validation that tells what it brings


def calibrated_name(name: str) -> str:
    """Name of the calibrated run: ``net-seed0`` gives ``net-calibrated-seed0``."""
    before, seed, number = name.rpartition("-seed")
    return f"{before}-calibrated{seed}{number}" if seed else f"{name}-calibrated"


def calibrate(space: Workspace, name: str) -> Path:
    """Fit scale and biases of a run's logits on validation, and write the network with them as a run.

    The new run, `calibrated_name`, is the same network with another last layer: one image, one pass, the same
    number of parameters. Its `run.json` notes under `calibrated` the run it comes from, what was fitted, and
    the accuracy on validation before and after, the latter cross-validated: each image is judged by a fit to
    the others (a score on the very images of the fit would be too high).

    Args:
        space: gives the runs and the merged set.
        name: of a finished run.

    Returns:
        The folder of the new run; `fer evaluate` scores it like any other.

    Raises:
        DataError: there is no such run, it has not finished, it is calibrated already, or it was trained on
            another merged set.
    """
    folder = space.runs / name
    if not (folder / "model.safetensors").is_file():
        raise DataError(
            "the run is missing or has not finished",
            file=folder,
            remedy=f"run `fer train … --name {name}` first",
        )
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if about.get("calibrated"):
        raise DataError(
            "the run is calibrated already", file=folder, remedy="name the run that it comes from"
        )
    faces = space.faces()
    runs.refuse_another_set(folder, faces)
    validation = runs.of_sources(faces, about.get("validate_on") or about["sources"]).split("validation")
    model = load_model(folder / "model.safetensors")
    labels, told = validation.labels, predict(model, validation)
    scale, biases = fit_bias(labels, told)
    about |= {
        "name": calibrated_name(name),
        "calibrated": {
            "run": name,
            "checkpoint": sha256(folder / "model.safetensors"),
            "images": len(labels),
            "scale": scale,
            "biases": biases.tolist(),
            "accuracy": {
                "before": float(np.mean(told.argmax(1) == labels)),
                "after, cross-validated": cross_validated(labels, told, seed=0),
            },
        },
    }
    _fold_in(model, scale, biases)
    return _write(space, folder, about, model)


def cross_validated(labels: np.ndarray, told: np.ndarray, *, seed: int) -> float:
    """Accuracy, 0–1, where each image is judged after a fit to the images of other folds.

    Args:
        labels: int (N,).
        told: float (N, C), probabilities.
        seed: of the folds.
    """
    right = np.empty(len(labels), bool)
    few = max(2, min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min())))
    for fit, judged in StratifiedKFold(few, shuffle=True, random_state=seed).split(told, labels):
        answers = apply_bias(told[judged], *fit_bias(labels[fit], told[fit]))
        right[judged] = answers.argmax(1) == labels[judged]
    return float(right.mean())


@torch.no_grad()
def _fold_in(model: nn.Module, scale: float, biases: np.ndarray) -> None:
    """Multiply and shift the logits by changing the last layer."""
    last = last_layer(model)
    last.weight.mul_(scale)
    last.bias.mul_(scale).add_(torch.from_numpy(biases).to(last.bias))


def _write(space: Workspace, origin: Path, about: dict[str, Any], model: nn.Module) -> Path:
    """Lay the new run down aside, and rename it when it is whole."""
    folder = space.runs / about["name"]
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for part in ("recipe.json", "history.csv"):
        shutil.copyfile(origin / part, aside / part)
    recipe = json.loads((origin / "recipe.json").read_text(encoding="utf-8"))
    write_json(aside / "run.json", about)
    save_checkpoint(model, aside / "model.safetensors", about | {"recipe": recipe})
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder
