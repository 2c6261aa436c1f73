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
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import confusion_matrix
from torch import nn

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import majority_accuracy, predict, wilson_interval
from fer_utils.training import Recipe, fit

Build = Callable[[], nn.Module]
Confusions = dict[tuple[str, str], np.ndarray]
ALL = "all"
ALONE = "one source only, so there is nothing to compare"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: what was checked.
        value: what was measured, in words.
        threshold: what was asked for, in words.
        passed: whether nothing was found wrong.
    """

    name: str
    value: str
    threshold: str
    passed: bool

    @property
    def compared(self) -> bool:
        """Whether there was anything to compare."""
        return self.value != ALONE

    @property
    def verdict(self) -> str:
        """``"passed"``, ``"FAILED"`` or ``"not compared"``."""
        return ("passed" if self.passed else "FAILED") if self.compared else "not compared"


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

    Augmentation is off, and the same images, out of the training split, train and are asked for afterwards.
    """
    training = faces.split("train")
    chosen = np.random.default_rng(recipe.seed).permutation(len(training))[:images]
    few = training.where(np.isin(np.arange(len(training)), chosen))
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
        f"{len(few)} images learnt by heart", _percent(right), f"at least {_percent(least)}", right >= least
    )


def shuffled(build: Build, faces: FaceSet, recipe: Recipe) -> Check:
    """Train on shuffled labels: better than the largest class on validation would mean a leak.

    Validation labels are shuffled too while training, since they choose the epoch; true ones judge it. The
    interval takes images to err independently: where all images of a class are near copies of each other, a
    network hits or misses whole classes at once, and can be above it by luck.
    """
    labels, rng = faces.labels.copy(), np.random.default_rng(recipe.seed)
    for split in ("train", "validation"):
        rows = np.flatnonzero(faces.index["split"] == split)
        labels[rows] = rng.permutation(labels[rows])
    model = train(build, faces.relabelled(labels), recipe)
    validation = faces.split("validation")
    hits = int(np.sum(predict(model, validation).argmax(1) == validation.labels))
    low, high = wilson_interval(hits, len(validation))
    prior = majority_accuracy(validation.labels, faces.split("train").labels)
    return Check(
        "shuffled labels teach nothing",
        f"{_percent(hits / len(validation))} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)",
        f"interval reaches down to {_percent(prior)}, what the largest class gives",
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
    confusions: Confusions


def source_matrix(build: Build, faces: FaceSet, recipe: Recipe, *, steps: int = 320) -> SourceMatrix:
    """Train on each source alone and on all of them, and test on the images of each source.

    A network never meets an image it was trained on, and the test split stays closed: where a source took
    part in training, its validation split is used, otherwise training and validation split.

    Raises:
        DataError: a source lacks training or validation images.
    """
    sources = comparable(faces)
    rows = [*sources, ALL] if len(sources) > 1 else sources
    confusions: Confusions = {}
    for trained_on in rows:
        confusions |= _confusions_of(build, faces, recipe, trained_on, sources, steps)
    shares = {s: _open_images(faces, s).index["label"].value_counts(normalize=True).max() for s in sources}
    return _matrix(confusions, rows, pd.Series(shares))


def comparable(faces: FaceSet) -> list[str]:
    """The sources of a merged set.

    Raises:
        DataError: a source lacks training or validation images, so that `source_matrix` cannot be made.
    """
    sources = list(dict.fromkeys(faces.index["source"]))
    for source, split in itertools.product(sources, ("train", "validation")):
        if not len(faces.split(split, source)):
            raise DataError(
                f"there are no {split} images of {source}, so it cannot be checked against the others",
                file=faces.path,
                remedy="merge without it: `fer merge --sources …` with the names of the others",
            )
    return sources


def _confusions_of(
    build: Build, faces: FaceSet, recipe: Recipe, trained_on: str, sources: list[str], steps: int
) -> Confusions:
    """Train on one source, or on all, and test on each."""
    mine = faces if trained_on == ALL else faces.where((faces.index["source"] == trained_on).to_numpy())
    model = train(build, mine, recipe, steps=steps)
    confusions = {}
    for tested_on in sources:
        seen = trained_on in (tested_on, ALL)
        part = faces.split("validation", tested_on) if seen else _open_images(faces, tested_on)
        predicted = predict(model, part).argmax(1)
        confusions[trained_on, tested_on] = confusion_matrix(
            part.labels, predicted, labels=range(len(CLASSES))
        )
    return confusions


def _matrix(confusions: Confusions, rows: list[str], chance: pd.Series) -> SourceMatrix:
    sources = list(chance.index)
    hits = {key: (int(c.trace()), int(c.sum())) for key, c in confusions.items()}
    accuracy = pd.DataFrame([[hits[r, s][0] / hits[r, s][1] for s in sources] for r in rows], rows, sources)
    intervals = np.array([[wilson_interval(*hits[r, s]) for s in sources] for r in rows])
    return SourceMatrix(accuracy, intervals, chance, confusions)


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
        f"lower bounds at worst {100 * margin:+.1f} points from chance"
        + (f"; not read: {', '.join(weak)}" if weak else ""),
        "each interval above the largest class",
        not weak,
    )


def swapped_classes(
    matrix: SourceMatrix, *, level: float = 0.01, least: float = 0.1
) -> dict[str, dict[str, str]]:
    """Find sources whose names of classes have been swapped, or moved around in a longer cycle.

    If a source has exchanged a and b, then the networks of the other sources take its images of a for b and
    those of b for a, and its own network does the same to theirs. So for each source the renaming is looked
    for under which recall, summed over the classes, over both directions and over all other sources, is
    highest: an assignment problem. (Every renaming gives a network that leans to one class, or that has
    learnt nothing, the same sum, so its leanings do not count.) A cycle of the renaming is kept if

    - it raises recall in the classes concerned by at least `least` on average, and
    - this is significant: one-sided, by the sampling variance of the tested images, at `level` shared out
      evenly among the sources, the lengths of cycles, and the cycles of a length.

    The source with most to gain is renamed, and the search goes on with what is left. A source that explains
    the disagreement as well (not worse at the 1 % level, by what the remaining sources say) is named too: of
    two sources, nothing says which one is right. If the same classes are swapped in most sources, the others
    are named.

    Args:
        matrix: what `source_matrix` measured.
        level: highest probability of naming anything where nothing is swapped.
        least: mean rise of recall, 0–1.

    Returns:
        For each suspected source: its name of a class -> what the others call that.
    """
    sources = list(matrix.accuracy.columns)
    confusions = dict(matrix.confusions)
    found: dict[str, dict[str, str]] = {}
    open_sources = list(sources) if len(sources) > 1 else []
    while open_sources:
        tried = {s: _renaming(confusions, s, sources, level / len(sources), least) for s in open_sources}
        gains = {s: _gain(confusions, s, sources, tried[s])[0] for s in open_sources}
        worst = max(open_sources, key=gains.__getitem__)
        renaming = tried[worst]
        if (renaming == np.arange(len(CLASSES))).all():
            break
        back = np.argsort(renaming)
        for source in sources:
            if source == worst:
                found[source] = _named(renaming)
            elif _explains_as_well(confusions, source, worst, sources, renaming):
                found.setdefault(source, _named(back))
        for other in (s for s in sources if s != worst):
            confusions[other, worst] = confusions[other, worst][back]
            confusions[worst, other] = confusions[worst, other][:, back]
        open_sources.remove(worst)
    return found


def _renaming(
    confusions: Confusions, source: str, sources: list[str], level: float, least: float
) -> np.ndarray:
    """The renaming of a source's classes (class -> class) that is worth it, cycle by cycle."""
    others = [other for other in sources if other != source]
    recalls = sum(_recalls(confusions[o, source]) + _recalls(confusions[source, o]).T for o in others)
    best = linear_sum_assignment(recalls, maximize=True)[1]
    size, kept = len(CLASSES), np.arange(len(CLASSES))
    for cycle in _cycles(best):
        # So many cycles have this length: ways to pick its classes, times ways to put them in a circle.
        ways = math.comb(size, len(cycle)) * math.factorial(len(cycle) - 1)
        limit = stats.norm.isf(level / ((size - 1) * ways))
        alone = np.arange(size)
        alone[cycle] = best[cycle]
        gain, variance = _gain(confusions, source, others, alone)
        rise = gain / (len(cycle) * 2 * len(others))
        if rise >= least and gain > limit * math.sqrt(variance):
            kept[cycle] = best[cycle]
    return kept


def _gain(
    confusions: Confusions, source: str, others: list[str], renaming: np.ndarray
) -> tuple[float, float]:
    """What renaming a source adds to the recalls between it and others, and the variance of that."""
    back = np.argsort(renaming)
    parts = []
    for other in others:
        if other != source:
            parts += [_rise(confusions[other, source], renaming), _rise(confusions[source, other], back)]
    return sum(gain for gain, _ in parts), sum(variance for _, variance in parts)


def _rise(confusion: np.ndarray, renaming: np.ndarray) -> tuple[float, float]:
    """Sum over the rows of P(renamed) − P(own class), and its variance."""
    rows = np.arange(len(CLASSES))
    n = confusion.sum(1)
    moved = rows != renaming
    shares = _recalls(confusion)
    rise = (shares[rows, renaming] - shares[rows, rows])[moved].sum()
    # One image spread over the classes keeps the variance of rows with few images from being nought.
    smooth = (confusion + 1 / len(CLASSES)) / (n[:, None] + 1)
    up, down = smooth[rows, renaming], smooth[rows, rows]
    variance = ((up + down - (up - down) ** 2) / (n + 1))[moved].sum()
    return float(rise), float(variance)


def _explains_as_well(
    confusions: Confusions, source: str, worst: str, sources: list[str], renaming: np.ndarray
) -> bool:
    """Whether renaming `source` the other way round fits the remaining sources about as well."""
    rest = [s for s in sources if s not in (source, worst)]
    gain, variance = _gain(confusions, worst, rest, renaming)
    other_gain, other_variance = _gain(confusions, source, rest, np.argsort(renaming))
    return gain - other_gain <= stats.norm.isf(0.01) * math.sqrt(variance + other_variance)


def _recalls(confusion: np.ndarray) -> np.ndarray:
    """Shares of each row; a row without images says nothing, which is to say the same of all classes."""
    n = confusion.sum(1, keepdims=True)
    return np.where(n > 0, confusion / np.maximum(n, 1), 1 / len(CLASSES))


def _cycles(renaming: np.ndarray) -> list[list[int]]:
    """Cycles of more than one class."""
    left, cycles = set(range(len(CLASSES))), []
    while left:
        cycle = [min(left)]
        while (following := int(renaming[cycle[-1]])) != cycle[0]:
            cycle.append(following)
        left -= set(cycle)
        if len(cycle) > 1:
            cycles.append(cycle)
    return cycles


def _named(renaming: np.ndarray) -> dict[str, str]:
    """The classes that a renaming moves, by name."""
    return {CLASSES[i]: CLASSES[k] for i, k in enumerate(renaming) if i != k}


def same_codes(matrix: SourceMatrix) -> Check:
    """The sources must agree on what the classes are called."""
    found = swapped_classes(matrix)
    said = ALONE if len(matrix.accuracy.columns) == 1 else _found_in_words(found)
    return Check("the sources use the same codes", said, "no swapped classes", not found)


def exchanged(faces: FaceSet, source: str, a: str, b: str) -> FaceSet:
    """The faces as if one source had exchanged the names of two classes: damage for the check to find.

    Raises:
        DataError: there are no faces of that source.
        ValueError: not two different classes.
    """
    _check_swap(faces, source, a, b)
    new = np.where(faces.index["source"] == source, _exchange(a, b)[faces.labels], faces.labels)
    return faces.relabelled(new)


def exchanged_matrix(matrix: SourceMatrix, source: str, a: str, b: str) -> SourceMatrix:
    """The matrix as it would be if one source had exchanged the names of two classes, without training.

    The networks of the other sources would be the same, and so would be what they say about each image; only
    the labels that they are judged by change. For the network of the source itself, this is what training
    gives that begins with the two outputs of the last layer exchanged: outputs are drawn alike, and loss and
    steps treat them alike. `swapped_matrix` trains that network from its usual beginning.

    Returns:
        A matrix without the row of all sources together, which would have to be trained again.
    """
    order, sources = _exchange(a, b), list(matrix.accuracy.columns)
    confusions = {}
    for trained_on, tested_on in itertools.product(sources, repeat=2):
        confusion = matrix.confusions[trained_on, tested_on]
        confusion = confusion[order] if tested_on == source else confusion
        confusions[trained_on, tested_on] = confusion[:, order] if trained_on == source else confusion
    return _matrix(confusions, sources, matrix.chance)


def swapped_matrix(
    build: Build,
    faces: FaceSet,
    recipe: Recipe,
    matrix: SourceMatrix,
    source: str,
    a: str,
    b: str,
    *,
    steps: int = 320,
) -> SourceMatrix:
    """What `source_matrix` gives after one source has exchanged the names of two classes.

    Only the network of that source is trained again. Those of the others have seen none of its labels, so
    they are the same as before, and their confusions are those of `exchanged_matrix`.

    Args:
        build: as for `source_matrix`.
        faces: the sound set.
        recipe: as for `source_matrix`.
        matrix: what `source_matrix` measured on the sound set, with the same arguments.
        source: whose labels to damage.
        a: a class.
        b: the class to exchange it with.
        steps: as for `source_matrix`.

    Returns:
        A matrix without the row of all sources together.
    """
    broken = exchanged(faces, source, a, b)
    confusions = dict(exchanged_matrix(matrix, source, a, b).confusions)
    sources = list(matrix.accuracy.columns)
    confusions |= _confusions_of(build, broken, recipe, source, sources, steps)
    return _matrix(confusions, sources, matrix.chance)


@dataclass(frozen=True)
class Proof:
    """What the comparison of sources said of a swap that was made on purpose.

    Attributes:
        source: whose labels were damaged.
        classes: the two that were exchanged.
        found: what `swapped_classes` named.
        compared: whether there was a second source to compare with.
        home: accuracy of the damaged source's own network on its own images, 0–1; none where nothing was
            trained.
    """

    source: str
    classes: tuple[str, str]
    found: dict[str, dict[str, str]]
    compared: bool = True
    home: float | None = None

    @property
    def named(self) -> bool | None:
        """Whether this source was named with just these two classes; none if nothing was compared."""
        a, b = self.classes
        return self.found.get(self.source) == {a: b, b: a} if self.compared else None

    @property
    def verdict(self) -> str:
        """What came out, in a word or two."""
        return {True: "noticed", False: "MISSED", None: "not compared"}[self.named]

    @property
    def said(self) -> str:
        """What was named, in words."""
        return _found_in_words(self.found) if self.compared else ALONE


def prove(
    build: Build,
    faces: FaceSet,
    recipe: Recipe,
    matrix: SourceMatrix,
    source: str,
    a: str,
    b: str,
    *,
    steps: int = 320,
) -> Proof:
    """Exchange two classes of one source, train again what that changes, and see whether it is noticed.

    Takes what `swapped_matrix` takes; with one source, nothing is trained.

    Raises:
        DataError: there are no faces of that source.
        ValueError: not two different classes.
    """
    _check_swap(faces, source, a, b)
    if len(matrix.accuracy.columns) == 1:
        return Proof(source, (a, b), {}, compared=False)
    broken = swapped_matrix(build, faces, recipe, matrix, source, a, b, steps=steps)
    return Proof(source, (a, b), swapped_classes(broken), home=float(broken.accuracy.loc[source, source]))


def sensitivity(matrix: SourceMatrix) -> dict[str, dict[tuple[str, str], bool]]:
    """For each source and each of the 15 pairs of classes: would their exchange be noticed here?

    By `exchanged_matrix`, so nothing is trained. Empty for one source, with which nothing can be compared.

    Returns:
        By source, two classes -> whether that source is named with these two and no others.
    """
    sources, pairs = list(matrix.accuracy.columns), list(itertools.combinations(CLASSES, 2))
    if len(sources) == 1:
        return {}
    return {
        s: {
            pair: bool(Proof(s, pair, swapped_classes(exchanged_matrix(matrix, s, *pair))).named)
            for pair in pairs
        }
        for s in sources
    }


def _check_swap(faces: FaceSet, source: str, a: str, b: str) -> None:
    sources = list(dict.fromkeys(faces.index["source"]))
    if source not in sources:
        raise DataError(
            f"there are no faces of a source {source!r}",
            file=faces.path,
            remedy=f"name one of {', '.join(sources)}",
        )
    if a == b or not {a, b} <= set(CLASSES):
        raise ValueError(f"{a!r} and {b!r} cannot be exchanged; name two of {', '.join(CLASSES)}")


def _exchange(a: str, b: str) -> np.ndarray:
    """By class, the class that takes its place when two are exchanged."""
    order = np.arange(len(CLASSES))
    i, k = CLASSES.index(a), CLASSES.index(b)
    order[[i, k]] = k, i
    return order


def _found_in_words(found: dict[str, dict[str, str]]) -> str:
    named = "; ".join(f"{source}: {_in_words(classes)}" for source, classes in found.items())
    return named or "no swapped classes"


def _in_words(classes: dict[str, str]) -> str:
    """A swap as "happy and sad", a longer cycle as "angry → fear → happy → angry"."""
    renaming = np.arange(len(CLASSES))
    for name, other in classes.items():
        renaming[CLASSES.index(name)] = CLASSES.index(other)
    words = []
    for cycle in _cycles(renaming):
        names = [CLASSES[i] for i in cycle]
        words.append(" and ".join(names) if len(names) == 2 else " → ".join([*names, names[0]]))
    return ", ".join(words)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
