"""Checks of a merged set that can fail: are its sources alike, can they be learned, do their labels agree?

`python -m reading_faces.study.checks` runs them with EmoNet (0.3 hours on one core with FER2013)
and writes `checks/emonet-checks.json`. The test split stays closed, but for its counts of classes.
"""

import argparse
import dataclasses
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage, stats
from sklearn.metrics import confusion_matrix
from torch import nn

from fer_utils import models
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.evaluation import predict, wilson_interval
from fer_utils.experiment import recipe_for, workspace
from fer_utils.files import sha256
from fer_utils.training import Recipe, fit
from reading_faces.study.store import write_report

Build = Callable[[], nn.Module]  # makes a network; called after seeding
Confusions = dict[tuple[str, str], np.ndarray]  # trained on, tested on -> int (6, 6), label × prediction
ALL = "all"
ALONE = "one source only, so there is nothing to compare"
ZOOMS = (1.0, 0.95, 1.05, 0.9, 1.1, 0.85, 1.15, 0.8, 1.2, 1.25)
REACH = 8  # pixels of shift that are tried, each way
LEVELS = np.linspace(0, 1, 21)  # quantiles in the file: box and whiskers are among them


class Check(NamedTuple):
    """What was checked, what was measured and asked for (in words), and whether nothing wrong was seen."""

    name: str
    value: str
    threshold: str
    passed: bool


def by_source(faces: FaceSet) -> dict[str, FaceSet]:
    """The images of each source outside the test split."""
    source, seen = faces.index["source"], faces.index["split"] != "test"
    return {name: faces.where((seen & (source == name)).to_numpy()) for name in dict.fromkeys(source)}


def image_statistics(faces: FaceSet, at_most: int = 5_000) -> pd.DataFrame:
    """Brightness, contrast and sharpness (grey values 0–255), a row an image, of at most so many a source.

    Sharpness is the mean difference of neighbouring pixels over the contrast: blur lowers it.
    """
    tables = []
    for source, part in by_source(faces).items():
        rows = np.linspace(0, len(part) - 1, min(len(part), at_most)).astype(int)
        images = part.take(rows).astype(np.float32)
        steps = sum(np.abs(np.diff(images, axis=axis)).mean((1, 2)) for axis in (1, 2)) / 2
        contrast = images.std((1, 2))
        columns = {"brightness (mean grey)": images.mean((1, 2)), "contrast (deviation)": contrast}
        columns["sharpness"] = steps / np.maximum(contrast, 1)
        tables.append(pd.DataFrame({"source": source} | columns))
    return pd.concat(tables, ignore_index=True)


def mean_faces(faces: FaceSet) -> dict[str, np.ndarray]:
    """Mean image of each class by source, float (6, H, W), 0–255; not-a-number without an image."""
    return {
        source: np.stack([part.take(np.flatnonzero(part.labels == k)).mean(0) for k in range(len(CLASSES))])
        for source, part in by_source(faces).items()
    }


def lighting(statistics: pd.DataFrame, most: float = 64, times: float = 2) -> Check:
    """Compare each source's median brightness and contrast with those of the nearest other source.

    A difference of at most `most` grey levels passes, and of at most `times` the contrast.
    """
    medians = statistics.groupby("source", sort=False).median()
    bright, contrast = medians.iloc[:, 0], np.log(medians.iloc[:, 1])
    off = {s: float((bright.drop(s) - bright[s]).abs().min()) for s in medians.index}
    ratio = {s: math.exp((contrast.drop(s) - contrast[s]).abs().min()) for s in medians.index}
    wrong = [s for s in off if off[s] > most or ratio[s] > times]
    value = f"{max(off.values()):.0f} grey levels, {max(ratio.values()):.2f} times"
    return _compared(
        "sources are lit alike", value, f"{most:g} grey levels, {times:g} times", wrong, len(off)
    )


def framing(means: Mapping[str, np.ndarray], shift: int = 3, zoom: float = 0.1) -> Check:
    """Move and enlarge each source's mean face until it lies on that of the nearest other source.

    A shift of at most `shift` pixels passes, and a change of size by at most the share `zoom`.
    """

    def excess(change: tuple[float, int]) -> float:
        return max(abs(change[0] - 1) / zoom, change[1] / shift)

    shared = np.isfinite([face.mean((1, 2)) for face in means.values()]).all(0)
    faces = {source: face[shared].mean(0) if shared.any() else face[0] for source, face in means.items()}
    near = {
        s: min((alignment(faces[s], faces[o]) for o in faces if o != s), key=excess, default=(1.0, 0))
        for s in faces
    }
    wrong = [source for source, change in near.items() if excess(change) > 1 + 1e-9]
    scale, moved = max(near.values(), key=excess)
    asked = f"{shift} pixels, {zoom:.0%} larger or smaller"
    return _compared("faces are framed alike", f"{moved} pixels, {scale:.2f} times", asked, wrong, len(means))


def alignment(face: np.ndarray, other: np.ndarray) -> tuple[float, int]:
    """Scale and largest shift (pixels) at which a mean face (H, W) correlates best with another's middle."""
    middle = stats.zscore(other[REACH:-REACH, REACH:-REACH], axis=None)
    best, change, centre = -np.inf, (np.inf, REACH), (np.array(face.shape) - 1) / 2
    edges = {"order": 1, "mode": "nearest"}
    for scale in ZOOMS:
        windows = sliding_window_view(
            ndimage.affine_transform(face, np.eye(2) * scale, centre * (1 - scale), **edges), middle.shape
        )
        likeness = np.tensordot(windows, middle) / middle.size / windows.std((2, 3))
        if likeness.max() > best + 1e-6:
            best = likeness.max()
            place = np.array(np.unravel_index(likeness.argmax(), likeness.shape))
            change = (scale, int(np.abs(place - REACH).max()))
    return change


def balance(counts: pd.DataFrame, least: float = 0.01) -> Check:
    """Ask for a share of at least `least` for every class among each source's training images."""
    train = counts.loc[list(CLASSES)].xs("train", axis=1, level="split")
    shares = (train / train.sum()).unstack()
    wrong = [f"{c} in {source}" for (source, c), share in shares.items() if share < least]
    return _compared("every source has every class", f"{shares.min():.1%}", f"{least:.0%}", wrong)


def _compared(name: str, value: str, asked: str, wrong: Sequence[str], sources: int = 2) -> Check:
    value = value + (f"; not so: {', '.join(wrong)}" if wrong else "") if sources > 1 else ALONE
    return Check(name, value, asked, not wrong or sources == 1)


def overfit_small_batch(build: Build, faces: FaceSet, recipe: Recipe, images: int = 100) -> Check:
    """Memorise a few training images: a network that cannot is wired wrongly. Nothing is augmented."""
    training = faces.split("train")
    rows = np.random.default_rng(recipe.seed).permutation(len(training))[:images]
    few = training.where(np.isin(np.arange(len(training)), rows))
    plain = {"augment": None, "label_smoothing": 0.0, "weight_decay": 0.0, "epochs": 40, "batch_size": 25}
    model = _fit(build, few, few, dataclasses.replace(recipe, **plain))
    right = float(np.mean(predict(model, few).argmax(1) == few.labels))
    return Check(f"{len(few)} images are memorised", f"{right:.1%}", "at least 99.0%", right >= 0.99)


def shuffled_labels(build: Build, faces: FaceSet, recipe: Recipe) -> Check:
    """Train on shuffled labels: better than the largest class on validation would mean a leak.

    Validation labels are shuffled too while training, since they choose the epoch; true ones judge it. The
    interval takes images as independent: many near copies can put a network above it by chance.
    """
    rng, labels = np.random.default_rng(recipe.seed), faces.table["label"].to_numpy(copy=True)
    train, validation = faces.split("train"), faces.split("validation")
    for rows in (train.rows, validation.rows):
        labels[rows] = rng.permutation(labels[rows])
    broken = dataclasses.replace(faces, table=faces.table.assign(label=labels))
    model = _fit(build, broken.split("train"), broken.split("validation"), recipe)
    right = predict(model, validation).argmax(1) == validation.labels
    low, high = wilson_interval(int(right.sum()), len(right))
    prior = float(np.mean(validation.labels == np.bincount(train.labels).argmax()))
    value = f"{right.mean():.1%} ({100 * low:.1f} to {high:.1%})"
    return Check(
        "shuffled labels teach nothing", value, f"interval reaches down to {prior:.1%}", low <= prior
    )


def source_confusions(build: Build, faces: FaceSet, recipe: Recipe, steps: int = 320) -> Confusions:
    """Train on each source alone and on all of them, and test on the images of each source.

    No network meets an image it was trained on: where a source took part in training, its validation split
    is used, otherwise training and validation split. Small sources get more epochs, to reach `steps`.
    """
    parts, confusions = by_source(faces), {}
    for trained_on in [*parts, ALL] if len(parts) > 1 else parts:
        train, validation = (
            faces.split(s, None if trained_on == ALL else trained_on) for s in ("train", "validation")
        )
        epochs = max(recipe.epochs, math.ceil(steps * recipe.batch_size / len(train)))
        model = _fit(build, train, validation, dataclasses.replace(recipe, epochs=epochs))
        for source, part in parts.items():
            test = part.split("validation") if trained_on in (source, ALL) else part
            predicted = predict(model, test).argmax(1)
            confusions[trained_on, source] = confusion_matrix(
                test.labels, predicted, labels=range(len(CLASSES))
            )
    return confusions


def _fit(build: Build, train: FaceSet, validation: FaceSet, recipe: Recipe) -> nn.Module:
    L.seed_everything(recipe.seed, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        return fit(build(), train, validation, recipe, folder, verbose=False).model


def above_chance(confusions: Confusions, chance: Mapping[str, float]) -> Check:
    """Trained on all sources together, each source must be read better than by its largest class."""
    row, margins = ALL if len(chance) > 1 else next(iter(chance)), {}
    for source, largest in chance.items():
        low, _ = wilson_interval(int(confusions[row, source].trace()), int(confusions[row, source].sum()))
        margins[source] = 100 * (low - largest)
    value = f"lower bounds at worst {min(margins.values()):+.1f} points from chance"
    wrong = [source for source, margin in margins.items() if margin <= 0]
    return _compared("every source can be read", value, "each interval above the largest class", wrong)


def same_codes(confusions: Confusions) -> Check:
    """The sources must agree on what the classes are called; see `swapped_classes`."""
    swapped, asked = swapped_classes(confusions), "no swapped classes"
    wrong = [f"{source} ({a} is {b})" for source, names in swapped.items() for a, b in names.items()]
    sources = len({a for a, _ in confusions} - {ALL})
    return _compared("the sources use the same codes", f"{len(wrong)} names", asked, wrong, sources)


def swapped_classes(
    confusions: Confusions, level: float = 0.001, least: float = 0.12
) -> dict[str, dict[str, str]]:
    """Name the sources whose classes have been swapped: by source, its name of a class -> the others' name.

    If a source exchanged a and b, the networks of the others take its a for b and its b for a, and its own
    network does the same to theirs. So every exchange of two classes in every source is tried; the one that
    raises recall most is made, and the search goes on (a longer cycle takes several). It must raise the
    recall of its classes by `least` (0–1) on average, and significantly: one-sided, at `level` shared out
    among all exchanges. A source that explains the disagreement as well (not worse at the 1% level, by what
    the remaining sources show) is named too: of two sources, nothing says which one is right.
    """
    sources, current = list(dict.fromkeys(a for a, _ in confusions if a != ALL)), ""
    names = {source: {c: c for c in CLASSES} for source in sources}
    alike = {source: set(sources) - {source} for source in sources}
    limit = stats.norm.isf(level / (len(sources) * math.comb(len(CLASSES), 2)))
    while len(sources) > 1:
        rises = {s: _rises(confusions, s, [o for o in sources if o != s]) for s in sources}
        # What counts; the source that is being renamed first, so that its cycles are not shared out.
        worth = {s: rise * (rise > np.maximum(least, limit * error)) for s, (rise, error) in rises.items()}
        current = max(sources, key=lambda s: (s == current and worth[s].any(), worth[s].max()))
        if not worth[current].any():
            break
        place = np.unravel_index(worth[current].argmax(), worth[current].shape)
        a, b = (CLASSES[i] for i in place)
        for other in sorted(alike[current]):
            rest = [s for s in sources if s not in (current, other)]
            (rise, error), (same, noise) = (_rises(confusions, s, rest) for s in (current, other))
            alike[current] -= {other} if (rise - same > 2.33 * np.hypot(error, noise))[place] else set()
        confusions = exchanged_confusions(confusions, current, a, b)
        names[current] = {name: {a: b, b: a}.get(c, c) for name, c in names[current].items()}
    moved = {s: {name: c for name, c in names[s].items() if name != c} for s in sources}
    named = {s: renaming for s, renaming in moved.items() if renaming}
    back = {o: {c: name for name, c in moved[s].items()} for s in named for o in alike[s]}
    return back | named


def _rises(confusions: Confusions, source: str, others: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Mean rise of two classes' recall between a source and others if it exchanges them, and its error."""
    pairs = [ends for other in others for ends in ((other, source), (source, other))]
    tested = np.reshape([confusions[ends] for ends in pairs], (-1, len(CLASSES), len(CLASSES)))
    # One more image spread over the classes: few images are no certainty.
    n = tested.sum(2, keepdims=True) + 1
    shares = (tested + 1 / len(CLASSES)) / n
    own = np.diagonal(shares, axis1=1, axis2=2)[:, :, None]
    rise, variance = (shares - own).sum(0), ((shares + own - (shares - own) ** 2) / n).sum(0)
    rows = max(2 * len(pairs), 1)
    return (rise + rise.T) / rows, np.sqrt(variance + variance.T) / rows


def exchanged_confusions(confusions: Confusions, source: str, a: str, b: str) -> Confusions:
    """The confusions if one source had exchanged the names of two classes, without training.

    The networks of the others, and what they predict, stay the same; the labels that judge them change. The
    source's own network is what training gives from a start with these two outputs exchanged, which is as
    likely as the start it had. The network of all sources is left out.
    """
    same = np.arange(len(CLASSES))
    order = np.array([CLASSES.index({a: b, b: a}.get(c, c)) for c in CLASSES])
    return {
        (trained, tested): c[order if tested == source else same][:, order if trained == source else same]
        for (trained, tested), c in confusions.items()
        if trained != ALL
    }


def sensitivity(confusions: Confusions) -> dict[str, dict[str, Any]]:
    """By source: how many of the 15 exchanges of two classes would be `named`, and which `missed`."""
    sources, counts = list(dict.fromkeys(a for a, _ in confusions if a != ALL)), {}
    pairs = list(itertools.combinations(CLASSES, 2))
    for source in sources if len(sources) > 1 else []:
        broken = {pair: exchanged_confusions(confusions, source, *pair) for pair in pairs}
        missed = [[a, b] for a, b in pairs if swapped_classes(broken[a, b]).get(source) != {a: b, b: a}]
        counts[source] = {"named": len(pairs) - len(missed), "of": len(pairs), "missed": missed}
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks, print and write them; 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m reading_faces.study.checks", description=__doc__)
    parser.add_argument("--profile", choices=["demo", "full"], default="full")
    parser.add_argument("--epochs", type=int, default=4, help="of each training")
    options, start = parser.parse_args(arguments), time.perf_counter()
    space = workspace(options.profile)
    faces, (settings, recipe) = space.faces(), recipe_for("emonet", space.profile)
    recipe, build = dataclasses.replace(recipe, epochs=options.epochs), partial(models.EmoNet, **settings)
    chance = {s: float(np.bincount(part.labels).max() / len(part)) for s, part in by_source(faces).items()}
    statistics, counts = image_statistics(faces), faces.counts()
    confusions = source_confusions(build, faces, recipe)
    checks = [lighting(statistics), framing(mean_faces(faces)), balance(counts)]
    checks += [overfit_small_batch(build, faces, recipe), shuffled_labels(build, faces, recipe)]
    checks += [above_chance(confusions, chance), same_codes(confusions)]
    matrix: dict[str, Any] = {"tested_on": list(chance), "chance": list(chance.values()), "confusions": {}}
    for (trained_on, tested_on), confusion in confusions.items():
        matrix["confusions"].setdefault(trained_on, {})[tested_on] = confusion.tolist()
    quantiles: dict[str, Any] = {source: {} for source in chance}
    for (source, name), values in statistics.set_index("source").stack().groupby(level=[0, 1]):
        quantiles[source][name] = {"images": len(values), "quantiles": values.quantile(LEVELS).tolist()}
    report = {
        "name": "emonet-checks",
        "profile": space.profile,
        "wall_seconds": round(time.perf_counter() - start, 1),
        "model": {"options": settings, "parameters": sum(p.numel() for p in build().parameters())},
        "data": {"faceset": sha256(faces.path / "manifest.json")},
        "recipe": dataclasses.asdict(recipe),
        "checks": [check._asdict() for check in checks],
        "matrix": matrix,
        "sensitivity": sensitivity(confusions),
        "statistics": quantiles,
        "balance": {s: {p: counts[s][p][list(CLASSES)].to_dict() for p in counts[s]} for s in chance},
    }
    write_report(space.results / "checks" / "emonet-checks.json", report)
    print(pd.DataFrame(checks).to_string(index=False))
    return int(not all(check.passed for check in checks))


if __name__ == "__main__":
    raise SystemExit(main())
