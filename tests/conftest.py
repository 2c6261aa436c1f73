"""Shared fixtures: small merged sets that are easy to learn."""

import functools
import importlib.metadata
import os

import numpy as np
import pytest

from fer_utils.emotions import CLASSES

# Sums that do not depend on the number of cores. And two workers of two threads would wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
# Lightning asks each installed package for extensions whenever it starts to train.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)


def merged(folder, *sources):
    """Merge sources of bars on noise, whose place tells the class: name, images, noise, ink, held out."""
    # pytest-xdist's process that tests nothing reads this file, too, and can do without PyTorch.
    import pandas as pd

    from fer_utils.datasets.base import FaceSource
    from fer_utils.datasets.merge import merge

    rng, made = np.random.default_rng(0), []
    for name, n, noise, ink, held_out in sources:
        labels = np.arange(n) % 6
        images = rng.integers(0, noise, (n, 48, 48), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[8 * label : 8 * label + 6, 8:40] += np.uint8(ink)
        split = np.repeat(["train", "validation", "test"], [n - 2 * held_out, held_out, held_out])
        columns = {"emotion": [CLASSES[i] for i in labels], "subject": None, "split": split}
        table = pd.DataFrame(columns | {"origin": [f"{name}/{i}" for i in range(n)]})
        made.append(FaceSource(name, "toy", table, images, cropped=True, files=()))
    return merge(made, folder / "faceset", progress=False)


@pytest.fixture(scope="session")
def toy_faces(tmp_path_factory):
    return merged(tmp_path_factory.mktemp("toy"), ("fer2013", 420, 80, 150, 60))


@pytest.fixture(scope="session")
def three_sources(tmp_path_factory):
    """Three small sources with looks of their own."""
    sources = ("fer2013", 240, 90, 120, 48), ("ckplus", 120, 30, 60, 24), ("jaffe", 120, 60, 75, 24)
    return merged(tmp_path_factory.mktemp("three"), *sources)
