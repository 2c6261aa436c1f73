"""Shared fixtures: a small demo data set in the official layouts, and the faces merged from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.faceset import FaceSet
from fer_utils.datasets.merge import merge
from fer_utils.emotions import CLASSES


@pytest.fixture(scope="session")
def toy_faces(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """A merged set that is easy to learn: a bright bar whose place tells the class, on noise."""
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(6), 70)
    images = rng.integers(0, 80, (len(labels), 48, 48), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[8 * label : 8 * label + 6, 8:40] += 150
    split = np.where(np.arange(len(labels)) < 300, "train", "validation")
    split[360:] = "test"
    table = pd.DataFrame(
        {
            "emotion": [CLASSES[i] for i in labels],
            "subject": None,
            "split": split,
            "origin": [f"toy.csv:{i + 2}" for i in range(len(labels))],
        }
    )
    folder: Path = tmp_path_factory.mktemp("toy")
    source = FaceSource("fer2013", "toy", table, images, cropped=True, files=())
    return merge([source], folder / "faceset", progress=False)


@pytest.fixture(scope="session")
def three_sources(tmp_path_factory: pytest.TempPathFactory) -> FaceSet:
    """Three small sources with the same code, a bar whose place tells the class, and looks of their own."""
    rng, sources = np.random.default_rng(0), []
    for name, n, noise, ink in (("fer2013", 240, 90, 120), ("ckplus", 120, 30, 60), ("jaffe", 120, 60, 180)):
        labels = np.arange(n) % 6
        images = rng.integers(0, noise, (n, 48, 48), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[8 * label : 8 * label + 6, 8:40] += np.uint8(min(ink, 255 - noise))
        split = np.repeat(["train", "validation", "test"], [n * 6 // 10, n * 2 // 10, n * 2 // 10])
        table = pd.DataFrame(
            {
                "emotion": [CLASSES[i] for i in labels],
                "subject": None,
                "split": split,
                "origin": [f"{name}/{i}" for i in range(n)],
            }
        )
        sources.append(FaceSource(name, "toy", table, images, cropped=True, files=()))
    return merge(sources, tmp_path_factory.mktemp("three") / "faceset", progress=False)
