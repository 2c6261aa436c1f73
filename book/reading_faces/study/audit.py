"""Audit of group differences: is a network right less often about some people than about others?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import wilson_interval

CHUNK = 1_000_000  # shuffled entries held in memory at once
TIE = 1e-9  # rounding must not decide whether two shuffles count as equally extreme


def group_differences(
    groups: Sequence[Any] | np.ndarray | pd.Series,
    labels: Sequence[int] | np.ndarray,
    predicted: Sequence[int] | np.ndarray,
    *,
    people: Sequence[Any] | np.ndarray | pd.Series | None = None,
    permutations: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy and recall of each class by group, with intervals and a test for equality.

    The null hypothesis of each test is that a right answer is equally likely in all groups. Answers are
    shuffled over the groups; p is the share of shuffles whose chi-square statistic is at least as large as
    the measured one, the measured one counted in, which never understates p (Phipson & Smyth 2010).

    Args:
        groups: (N,), the group of each image: names, numbers or whatever can be written as text.
        labels: int (N,), values 0–5 in the order of `CLASSES`.
        predicted: int (N,), the network's answers, values 0–5.
        people: (N,), who each image shows. Then whole people are shuffled, since several images of one
            person are less evidence than as many images of different people. This supposes that people of
            all groups have about as many images each. The intervals still take the images as independent,
            so they are too narrow where people have several images.
        permutations: shuffles of each test; the smallest p is 1 / (permutations + 1).
        level: coverage of the intervals, 0–1.
        seed: of the shuffles.

    Returns:
        One row for each measure (`accuracy`, then `recall` of each class) and group. Columns: `images`;
        `share` of them that were answered rightly, 0–1; `low` and `high`, its Wilson interval; and, the same
        in all rows of a measure: `gap`, the largest share minus the smallest; `p`; and `p_holm`, for the
        recalls p corrected for testing several classes (Holm 1979), for accuracy p as it is. Where a group
        has no image of a class its share is missing; so are gap and p where fewer than two groups have one.

    Raises:
        DataError: lengths differ, there are no two groups, a label or answer is not 0–5, a group or a person
            is missing, or a person is in two groups.
        ValueError: `permutations` is below 1.
    """
    if permutations < 1:
        raise ValueError(f"a test needs at least one permutation, not {permutations}")
    labels, predicted = _classes(labels, "labels"), _classes(predicted, "predicted")
    names, group = _names(groups, "groups")
    who = np.arange(len(group)) if people is None else _names(people, "people")[1]
    _check(labels, predicted, group, who, names)

    rng = np.random.default_rng(seed)
    right = predicted == labels
    measures = {"accuracy": np.ones(len(labels), bool)}
    measures |= {f"recall {name}": labels == i for i, name in enumerate(CLASSES)}
    shares, tests = [], {}
    for measure, mask in measures.items():
        table = _shares(right[mask], group[mask], names, level)
        shares.append(table.assign(measure=measure))
        tests[measure] = {"gap": table["share"].max() - table["share"].min(), "p": np.nan}
        if (table["images"] > 0).sum() > 1:
            tests[measure]["p"] = permutation_test(right[mask], group[mask], who[mask], permutations, rng)
    tested = pd.DataFrame(tests).T
    tested.loc[tested["p"].isna(), "gap"] = np.nan
    tested["p_holm"] = [tested.loc["accuracy", "p"], *holm(tested["p"].to_numpy()[1:])]
    return pd.concat(shares).join(tested, on="measure").set_index(["measure", "group"])


def holm(p: np.ndarray) -> np.ndarray:
    """Correct p values for testing several hypotheses (Holm 1979).

    Args:
        p: float (K,), 0–1; missing values are no tests and stay missing.

    Returns:
        float (K,): where it is at most α, the hypothesis may be rejected, and the probability of rejecting
        any true one is at most α.
    """
    p = np.asarray(p, float)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    corrected = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def permutation_test(
    right: np.ndarray, group: np.ndarray, who: np.ndarray, permutations: int, rng: np.random.Generator
) -> float:
    """Test whether right answers are equally frequent in all groups, by shuffling people over the groups.

    Args:
        right: bool (N,), whether each image was answered rightly.
        group: int (N,), the group of each image.
        who: int (N,), who each image shows; nobody is in two groups.
        permutations: number of shuffles.
        rng: shuffles.

    Returns:
        p, from 1 / (permutations + 1) to 1; the statistic is Pearson's chi-square.
    """
    people, index = np.unique(who, return_index=True)
    place = np.searchsorted(people, who)
    own = np.bincount(place), np.bincount(place, right)  # images and hits of each person
    _, group = np.unique(group[index], return_inverse=True)
    count = int(group.max()) + 1
    measured = _chi_square(*_sums(group[None], own, count))[0]
    if len(people) == len(who):
        # Shuffling single images is drawing the hits of each group without replacement.
        sizes = np.bincount(group)
        hits = rng.multivariate_hypergeometric(sizes, int(right.sum()), permutations, method="marginals")
        as_extreme = np.sum(_chi_square(sizes, hits) >= measured - TIE)
    else:
        as_extreme, left = 0, permutations
        while left:
            some = min(left, max(1, CHUNK // len(people)))
            shuffled = rng.permuted(np.tile(group, (some, 1)), axis=1)
            as_extreme += np.sum(_chi_square(*_sums(shuffled, own, count)) >= measured - TIE)
            left -= some
    return float((as_extreme + 1) / (permutations + 1))


def _shares(right: np.ndarray, group: np.ndarray, names: list[str], level: float) -> pd.DataFrame:
    """Images, share of right answers and its interval, one row a group."""
    rows = []
    for g, name in enumerate(names):
        hits, images = int(right[group == g].sum()), int((group == g).sum())
        low, high = wilson_interval(hits, images, level=level) if images else (np.nan, np.nan)
        share = hits / images if images else np.nan
        rows.append({"group": name, "images": images, "share": share, "low": low, "high": high})
    return pd.DataFrame(rows)


def _sums(group: np.ndarray, own: tuple[np.ndarray, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and hits of each group, both (B, G), for B ways (B, P) to put people into groups."""
    images, hits = (np.stack([(group == g) @ values for g in range(count)], axis=1) for values in own)
    return images, hits


def _chi_square(images: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Pearson's statistic of right and wrong answers by group: (B,) of hits (B, G)."""
    share = hits.sum(1, keepdims=True) / images.sum(-1, keepdims=True)
    variance = images * share * (1 - share)
    return np.divide(
        (hits - images * share) ** 2, variance, out=np.zeros(hits.shape), where=variance > 0
    ).sum(1)


def _classes(values: Sequence[int] | np.ndarray, name: str) -> np.ndarray:
    """Check labels or answers; int64 (N,)."""
    array = np.asarray(values)
    if array.ndim != 1 or (len(array) and not np.issubdtype(array.dtype, np.integer)):
        raise DataError(
            f"`{name}` is of type {array.dtype} and shape {array.shape}, expected one whole number an image",
            remedy="of probabilities (N, 6), give `probabilities.argmax(1)`",
        )
    outside = np.flatnonzero((array < 0) | (array >= len(CLASSES)))
    if len(outside):
        raise DataError(
            f"`{name}` holds {array[outside[0]]} at place {outside[0]}, expected 0 to {len(CLASSES) - 1}",
            remedy="number the classes as `fer_utils.emotions.CLASSES` does and leave other images out",
        )
    return array.astype(np.int64)


def _names(values: Sequence[Any] | np.ndarray | pd.Series, name: str) -> tuple[list[str], np.ndarray]:
    """The different names, sorted, and for each image the place of its name there: int (N,)."""
    series = pd.Series(np.asarray(values, dtype=object))
    missing = np.flatnonzero(series.isna())
    if len(missing):
        raise DataError(
            f"`{name}` is missing for {len(missing)} images, the first at place {missing[0]}",
            remedy="leave these images out, or give them a name of their own, say 'unknown'",
        )
    codes, names = pd.factorize(series.astype(str), sort=True)
    return list(names), codes


def _check(
    labels: np.ndarray, predicted: np.ndarray, group: np.ndarray, who: np.ndarray, names: list[str]
) -> None:
    lengths = len(group), len(labels), len(predicted), len(who)
    if len(set(lengths)) > 1:
        raise DataError(
            "groups, labels, predictions and people are {}, {}, {} and {} in number".format(*lengths),
            remedy="give one of each for every image, in the same order",
        )
    if len(names) < 2:
        raise DataError(
            f"there is nothing to compare: {len(names)} group(s)", remedy="give at least two groups"
        )
    if (pd.Series(group).groupby(who).nunique() > 1).any():
        raise DataError(
            "a person is in two groups",
            remedy="give each person one group, or leave `people` out if the groups are not of people",
        )
