"""Intervals of what is known from few seeds: luck of the images and luck of the start together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from fer_utils.evaluation import wilson_interval
from fer_utils.results import summarise

Z = float(stats.norm.ppf(0.975))  # half of a 95 % interval, in standard errors that are known well


def of_seeds(values: np.ndarray) -> float:
    """Variance of the mean over seeds, s² / k; 0 where a single value leaves it unknown."""
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.0


def quantile(of_images: float, *seeds: np.ndarray) -> float:
    """How many standard errors make half of a 95 % interval: Student's t, by Welch and Satterthwaite.

    What the images leave is a variance that is known well; the seeds' own, s² / k, has k − 1 degrees of
    freedom. So the fewer seeds, and the larger their share of the variance, the more: 1.96 where they count
    for nothing, 4.30 where three seeds are all there is.

    Args:
        of_images: the variance that the images leave.
        seeds: values of the seeds on each side; a single one tells no variance and is left out.
    """
    known = [(of_seeds(values), len(values) - 1) for values in seeds if len(values) > 1]
    doubt = sum(variance**2 / freedom for variance, freedom in known)
    if not doubt:
        return Z
    return float(stats.t.ppf(0.975, (of_images + sum(variance for variance, _ in known)) ** 2 / doubt))


def mean_score(scores: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean accuracy over seeds with an interval for images and seeds together.

    Args:
        scores: metrics of each seed, on the same images.

    Returns:
        `accuracy`, `low`, `high` (Wilson's interval of the mean, widened in quadrature by the seeds' standard
        error where there are several, and by what so few of them leave unknown, `quantile`), `std` over
        seeds (not-a-number for one), `seeds` and `images`.
    """
    values = np.array([s["accuracy"] for s in scores], float)
    mean, n = float(values.mean()), min(s["images"] for s in scores)
    low, high = wilson_interval(round(mean * n), n)
    wider = quantile(mean * (1 - mean) / n, values) / Z
    seeds = Z * np.sqrt(of_seeds(values))
    spread = summarise(values)
    return {
        "accuracy": mean,
        "low": max(0.0, mean - wider * float(np.hypot(max(mean - low, 0), seeds))),
        "high": min(1.0, mean + wider * float(np.hypot(max(high - mean, 0), seeds))),
        "std": spread["std"],
        "seeds": len(values),
        "images": n,
    }
