"""Soft labels: a distribution over the classes to train on, where one label says too little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.evaluation import predict


def answers(teachers: Sequence[nn.Module], faces: FaceSet) -> np.ndarray:
    """The mean answer of several networks to each face and its mirror image.

    Training on such answers is distillation (Hinton et al. 2015, arXiv:1503.02531); with teachers of the
    student's own kind, "born-again" training (Furlanello et al. 2018, arXiv:1805.04770). An answer tells
    which wrong classes are nearly right, and where the label is an odd one out.

    Returns:
        float32 (N, 6), rows sum to 1.
    """
    return np.mean([predict(teacher, faces, flip=True) for teacher in teachers], axis=0, dtype=np.float32)


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
