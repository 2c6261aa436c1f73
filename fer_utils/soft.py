"""Soft labels: a distribution over the classes to train on, where one label says too little."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.evaluation import predict
from fer_utils.files import sha256
from fer_utils.weights import load_checkpoint


def answers(teachers: Sequence[Path], faces: FaceSet, kept: Path) -> np.ndarray:
    """The mean answer of several networks to each face and its mirror image.

    Training on such answers is distillation (Hinton et al. 2015, arXiv:1503.02531); with teachers of the
    student's own kind, "born-again" training (Furlanello et al. 2018, arXiv:1805.04770). An answer tells
    which wrong classes are nearly right, and where the label is an odd one out.

    Args:
        teachers: checkpoints, for `load_checkpoint`.
        faces: whom to ask about.
        kept: folder where each teacher's answers are kept, so that the next student need not ask again. Their
            file's name follows from the teacher's weights and the faces.

    Returns:
        float32 (N, 6), rows sum to 1.
    """
    about = hashlib.sha256(np.ascontiguousarray(faces.images)).hexdigest()[:16]
    kept.mkdir(parents=True, exist_ok=True)
    told = []
    for teacher in teachers:
        path = kept / f"{sha256(teacher)[:16]}-{about}.npy"
        if not path.exists():
            aside = path.with_name(f".{path.stem}.{os.getpid()}.npy")
            np.save(aside, predict(load_checkpoint(teacher), faces, flip=True))
            aside.replace(path)
        told.append(np.load(path))
    return np.mean(told, axis=0, dtype=np.float32)


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
