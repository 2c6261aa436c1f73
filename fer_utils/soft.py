"""Soft labels: a distribution over the classes to train on, where one label says too little."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.files import sha256, write_table
from fer_utils.results import predictions_path
from fer_utils.weights import load_model
from fer_utils.workspace import Workspace

CROSSED = "crossfit/"  # what names of cross-validations begin with


def answers(space: Workspace, teachers: Sequence[str], faces: FaceSet) -> tuple[np.ndarray, dict[str, str]]:
    """The mean answer of several networks to each face and its mirror image (cross-validations: to the face).

    Training on such answers is distillation (Hinton et al. 2015, arXiv:1503.02531); with teachers of the
    student's own kind, "born-again" training (Furlanello et al. 2018, arXiv:1805.04770). An answer tells
    which wrong classes are nearly right, and where the label is an odd one out. A teacher that learnt these
    very faces by heart says little more than their labels. One that is a cross-validation (`labels.crossfit`)
    answers to each face by a network that was not trained on it (cross-fitting; Dao et al. 2021,
    arXiv:2104.09732).

    Each teacher's answers are kept in `predictions/<name>-train.parquet` below the results, so that the next
    student need not ask again. Where they are and the teacher's weights are not, the answers are enough.

    Args:
        space: gives the runs and the folder of results.
        teachers: names of finished runs, or of cross-validations.
        faces: whom to ask about.

    Returns:
        - Float32 (N, 6), rows sum to 1.
        - By teacher, the SHA-256 of the weights that answered, or of the cross-validation's table.

    Raises:
        DataError: a teacher has neither finished nor left answers to these faces.
    """
    told, checkpoints = [], {}
    for name in teachers:
        table = _answers(space, name, faces)
        told.append(table[list(CLASSES)].to_numpy())
        checkpoints[name] = table.attrs["checkpoint"]
    return np.mean(told, axis=0, dtype=np.float32), checkpoints


def _answers(space: Workspace, name: str, faces: FaceSet) -> pd.DataFrame:
    asked = hashlib.sha256(np.ascontiguousarray(faces.images)).hexdigest()
    crossed = name.startswith(CROSSED)
    origin = space.runs / name / ("out-of-sample.parquet" if crossed else "model.safetensors")
    checkpoint = sha256(origin) if origin.is_file() else None
    path = predictions_path(space.results, name, "train")
    if path.exists():
        table = pd.read_parquet(path)
        if table.attrs.get("faces") == asked and checkpoint in (None, table.attrs.get("checkpoint")):
            return table
    if checkpoint is None:
        raise DataError(
            "the teacher has not finished its own training, nor left answers to these faces",
            file=origin,
            remedy=f"finish it first: `fer {'crossfit' if crossed else 'train'} … --name {name} --resume`",
        )
    if crossed:
        table = _out_of_sample(origin, faces)
    else:
        # Asking must not move the random numbers that the student is about to draw.
        with torch.random.fork_rng(devices=[]):
            told = predict(load_model(origin), faces, flip=True)
        table = pd.DataFrame(told, columns=list(CLASSES))
    table.attrs = {"checkpoint": checkpoint, "faces": asked}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table)
    return table


def _out_of_sample(path: Path, faces: FaceSet) -> pd.DataFrame:
    table = pd.read_parquet(path)
    if list(table["hash"]) != list(faces.index["hash"]):
        raise DataError(
            "the cross-validation was asked about other faces than these",
            file=path,
            remedy="repeat it on this merged set: `fer crossfit …` without --resume",
        )
    return table[[f"p_{c}" for c in CLASSES]].set_axis(list(CLASSES), axis=1)


def blend(labels: np.ndarray, soft: np.ndarray, share: float) -> np.ndarray:
    """Give a share of each label's weight to a distribution.

    Args:
        labels: int (N,), 0–5.
        soft: float (N, 6), rows sum to 1.
        share: weight of `soft`, 0 (the labels alone) to 1 (the distributions alone).

    Returns:
        float32 (N, 6), rows sum to 1.

    Raises:
        ValueError: the share is not of 0–1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share is {share}; it must be from 0 to 1")
    return ((1 - share) * np.eye(len(CLASSES))[labels] + share * soft).astype(np.float32)
