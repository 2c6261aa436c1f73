"""Intervals of what is known from a few seeds: sampling noise of the images and of the start together."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from fer_utils.evaluation import bootstrap_interval, wilson_interval

Z = float(stats.norm.ppf(0.975))  # half of a 95 % interval, in standard errors that are known well
Scores = Sequence[Mapping[str, Any]]  # one a seed, with at least `accuracy` (0–1) and `images`


class Difference(NamedTuple):
    """A difference of two accuracies with its 95 % interval, as shares."""

    value: float
    low: float
    high: float


def variance_of_mean(values: np.ndarray) -> float:
    """Variance of the mean over seeds, s² / k; 0 where a single value leaves it unknown."""
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0


def quantile(of_images: float, *seeds: np.ndarray) -> float:
    """How many standard errors make half of a 95 % interval: Student's t, by Welch and Satterthwaite.

    The variance that the images leave is known well. That of each side's seeds, s² / k, has k − 1 degrees of
    freedom; a single value has none.
    """
    known = [(variance_of_mean(values), len(values) - 1) for values in seeds if len(values) > 1]
    doubt = sum(variance**2 / freedom for variance, freedom in known)
    if not doubt:
        return Z
    return float(stats.t.ppf(0.975, (of_images + sum(variance for variance, _ in known)) ** 2 / doubt))


def mean_score(scores: Scores) -> dict[str, float]:
    """Average accuracy over seeds, with an interval for images and seeds together.

    Gives `accuracy`, `low`, `high` (Wilson's interval of the mean, widened in quadrature by the seeds'
    standard error and by `quantile`), `std` over seeds (NaN for one), `seeds` and `images`.
    """
    values = np.array([s["accuracy"] for s in scores], float)
    mean, n = float(values.mean()), int(min(s["images"] for s in scores))
    low, high = wilson_interval(round(mean * n), n)
    wider = quantile(mean * (1 - mean) / n, values) / Z
    seeds = Z * np.sqrt(variance_of_mean(values))
    return {
        "accuracy": mean,
        "low": max(0.0, mean - wider * float(np.hypot(max(mean - low, 0), seeds))),
        "high": min(1.0, mean + wider * float(np.hypot(max(high - mean, 0), seeds))),
        "std": float(values.std(ddof=1)) if len(values) > 1 else float("nan"),
        "seeds": len(values),
        "images": n,
    }


def unpaired_difference(first: Scores, second: Scores) -> Difference:
    """First mean accuracy minus second, from the scores alone: too wide where both saw the same images."""
    values = [np.array([s["accuracy"] for s in side], float) for side in (first, second)]
    of_images = [
        v.mean() * (1 - v.mean()) / min(s["images"] for s in side)
        for v, side in zip(values, (first, second), strict=True)
    ]
    return difference_of(values[0].mean() - values[1].mean(), sum(of_images), *values)


def paired_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """First mean accuracy minus second, image by image; bool (runs, images), whether each was right."""
    by_image = first.mean(0) - second.mean(0)
    return difference_of(by_image.mean(), by_image.var() / len(by_image), first.mean(1), second.mean(1))


def difference_of(value: float, of_images: float, *seeds: np.ndarray) -> Difference:
    """Put an interval around a difference: the images' variance plus that of each side's mean over seeds."""
    variance = of_images + sum(variance_of_mean(values) for values in seeds)
    half = quantile(of_images, *seeds) * float(np.sqrt(variance))
    return Difference(float(value), float(value) - half, float(value) + half)


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, float]:
    """McNemar's exact test (McNemar 1947): do two networks that saw the same images differ?

    Takes bool (N,), whether each was right on the same images in the same order. Returns `only_a`, `only_b`
    (images that one alone got right), `difference` of the accuracies (a − b) and the two-sided `p`.
    """
    only_a, only_b = int(np.sum(correct_a & ~correct_b)), int(np.sum(~correct_a & correct_b))
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {"only_a": only_a, "only_b": only_b, "difference": (only_a - only_b) / len(correct_a), "p": p}


def pair(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Test two networks by which images they got right, bool (N,) each; `difference` is first − second."""
    return {
        "images": len(first),
        "accuracy": [float(first.mean()), float(second.mean())],
        **mcnemar(first, second),
        "interval": list(bootstrap_interval(first.astype(int) - second)),
    }
