"""Checks of a merged set that can fail: can it be learnt, only from its labels, and do the sources agree?

Each check trains small networks and gives a `Check` with the measured value, its threshold and a verdict.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import lightning as L
import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import confusion_matrix
from torch import nn

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.evaluation import majority_accuracy, predict, wilson_interval
from fer_utils.training import Recipe, fit

Build = Callable[[], nn.Module]
ALL = "all"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was checked.
        value: what was measured, in words.
        threshold: what was asked for, in words.
        passed: the verdict.
    """

    name: str
    value: str
    threshold: str
    passed: bool


def train(build: Build, faces: FaceSet, recipe: Recipe, *, steps: int = 0) -> nn.Module:
    """Train a fresh network on the training split, in a folder that is thrown away.

    Args:
        build: makes the network; called after seeding.
        faces: the set; its validation split chooses the epoch.
        recipe: how to train.
        steps: least number of steps; small sources get more epochs to reach it.
    """
    training = faces.split("train")
    epochs = max(recipe.epochs, math.ceil(steps * recipe.batch_size / max(len(training), 1)))
    L.seed_everything(recipe.seed, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        recipe = dataclasses.replace(recipe, epochs=epochs)
        return fit(build(), training, faces.split("validation"), recipe, folder, verbose=False).model


def memorised(
    build: Build, faces: FaceSet, recipe: Recipe, *, images: int = 100, least: float = 0.99
) -> Check:
    """Learn a few images by heart: a network that cannot do that is wired wrongly.

    Augmentation is off, and the same images train and are asked for afterwards.
    """
    chosen = np.random.default_rng(recipe.seed).permutation(len(faces))[:images]
    mask = np.zeros(len(faces), bool)
    mask[chosen] = True
    few = faces.where(mask)
    plain = dataclasses.replace(
        recipe,
        augment=None,
        label_smoothing=0.0,
        weight_decay=0.0,
        epochs=40,
        batch_size=25,
        schedule="cosine",
    )
    L.seed_everything(recipe.seed, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        model = fit(build(), few, few, plain, folder, verbose=False).model
    right = float(np.mean(predict(model, few).argmax(1) == few.labels))
    return Check(
        f"{len(few)} images learnt by heart", f"{right:.1%}", f"at least {least:.0%}", right >= least
    )


def shuffled(build: Build, faces: FaceSet, recipe: Recipe) -> Check:
    """Train on shuffled labels: better than the largest class on validation would mean a leak."""
    labels = faces.labels.copy()
    training = np.flatnonzero(faces.index["split"] == "train")
    labels[training] = np.random.default_rng(recipe.seed).permutation(labels[training])
    model = train(build, faces.relabelled(labels), recipe)
    validation = faces.split("validation")
    hits = int(np.sum(predict(model, validation).argmax(1) == validation.labels))
    low, high = wilson_interval(hits, len(validation))
    prior = majority_accuracy(validation.labels, faces.split("train").labels)
    return Check(
        "shuffled labels teach nothing",
        f"{hits / len(validation):.1%} (95 % interval {low:.1%} to {high:.1%})",
        f"interval reaches down to the largest class's {prior:.1%}",
        low <= prior,
    )


@dataclass(frozen=True)
class SourceMatrix:
    """Networks trained on each source and on all, tested on each source.

    Attributes:
        accuracy: rows trained on, columns tested on; shares 0–1.
        intervals: float (rows, columns, 2), Wilson 95 %.
        chance: for each column, the accuracy of always naming the largest class.
        confusions: (trained on, tested on) -> int (6, 6), rows label, columns prediction.
    """

    accuracy: pd.DataFrame
    intervals: np.ndarray
    chance: pd.Series
    confusions: dict[tuple[str, str], np.ndarray]


def source_matrix(build: Build, faces: FaceSet, recipe: Recipe, *, steps: int = 150) -> SourceMatrix:
    """Train on each source alone and on all of them, and test on the images of each source.

    A network never meets an image it was trained on, and the test split stays closed: where a source took
    part in training, its validation split is used, otherwise training and validation split.
    """
    sources = list(dict.fromkeys(faces.index["source"]))
    rows = [*sources, ALL] if len(sources) > 1 else sources
    confusions = {}
    for trained_on in rows:
        mine = faces if trained_on == ALL else faces.where((faces.index["source"] == trained_on).to_numpy())
        model = train(build, mine, recipe, steps=steps)
        for tested_on in sources:
            seen = trained_on in (tested_on, ALL)
            part = faces.split("validation", tested_on) if seen else _open_images(faces, tested_on)
            predicted = predict(model, part).argmax(1)
            confusions[trained_on, tested_on] = confusion_matrix(part.labels, predicted, labels=range(6))
    hits = {key: (int(c.trace()), int(c.sum())) for key, c in confusions.items()}
    accuracy = pd.DataFrame([[hits[r, s][0] / hits[r, s][1] for s in sources] for r in rows], rows, sources)
    intervals = np.array([[wilson_interval(*hits[r, s]) for s in sources] for r in rows])
    shares = {s: _open_images(faces, s).index["label"].value_counts(normalize=True).max() for s in sources}
    return SourceMatrix(accuracy, intervals, pd.Series(shares), confusions)


def _open_images(faces: FaceSet, source: str) -> FaceSet:
    index = faces.index
    return faces.where(((index["source"] == source) & (index["split"] != "test")).to_numpy())


def above_chance(matrix: SourceMatrix) -> Check:
    """Trained on all sources together, each source must be read better than chance."""
    row = matrix.accuracy.index.get_loc(matrix.accuracy.index[-1])
    low = matrix.intervals[row, :, 0]
    weak = [s for s, value in zip(matrix.accuracy.columns, low, strict=True) if value <= matrix.chance[s]]
    margin = min(value - matrix.chance[s] for s, value in zip(matrix.accuracy.columns, low, strict=True))
    return Check(
        "every source can be read",
        f"lower bound at least {margin:+.1%} from chance"
        + (f"; not read: {', '.join(weak)}" if weak else ""),
        "each interval above the largest class",
        not weak,
    )


def swapped_classes(matrix: SourceMatrix, *, level: float = 0.01) -> dict[str, set[tuple[str, str]]]:
    """Find sources in which two classes seem to have been swapped.

    Two sources disagree about classes a and b if, trained on the one and tested on the other (both ways
    counted together), images of a are taken for b more often than for a, and images of b for a more often
    than for b: each by a one-sided binomial test, at `level` divided by the number of pairs tried. The
    source that disagrees with every other one is the one to look at.

    Returns:
        For each suspected source, the pairs of classes. With two sources that disagree, both are named,
        since nothing says which one is right.
    """
    sources = list(matrix.accuracy.columns)
    pairs = list(itertools.combinations(range(len(CLASSES)), 2))
    couples = list(itertools.combinations(sources, 2))
    limit = level / max(1, len(pairs) * len(couples))
    found: dict[str, set[tuple[str, str]]] = {}
    for a, b in pairs:
        against = {source: 0 for source in sources}
        for one, other in couples:
            both = matrix.confusions[one, other] + matrix.confusions[other, one]
            if _more(both[a, b], both[a, a], limit) and _more(both[b, a], both[b, b], limit):
                against[one] += 1
                against[other] += 1
        for source, count in against.items():
            if count == len(sources) - 1 and count:
                found.setdefault(source, set()).add((CLASSES[a], CLASSES[b]))
    return found


def _more(wrong: int, right: int, limit: float) -> bool:
    total = int(wrong + right)
    return total > 0 and stats.binomtest(int(wrong), total, alternative="greater").pvalue < limit


def same_codes(matrix: SourceMatrix) -> Check:
    """The sources must agree on what the classes are called."""
    found = swapped_classes(matrix)
    names = "; ".join(f"{s}: {' and '.join(p)}" for s, pairs in found.items() for p in sorted(pairs))
    return Check(
        "the sources use the same codes", names or "no swapped classes", "no swapped classes", not found
    )
