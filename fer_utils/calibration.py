"""Does the confidence mean what it says? Temperature scaling, reliability bins and selective prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp, softmax

from fer_utils.evaluation import expected_calibration_error, wilson_interval

TEMPERATURES = (0.05, 20.0)  # between which the best one is looked for
TINY = 1e-12  # least probability whose logarithm is taken


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative logarithm of the label's probability, in nats.

    Args:
        labels: int (N,).
        probabilities: float (N, C), rows sum to 1.
    """
    picked = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(picked, TINY)).mean())


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Soften (above 1) or sharpen (below 1) probabilities; the order of the classes stays.

    Logits and the logarithms of their probabilities differ by a constant a row, which softmax does not see,
    so the logits are not needed.

    Args:
        probabilities: float (N, C), rows sum to 1.
        temperature: above 0.

    Returns:
        float64 (N, C), rows sum to 1.
    """
    return apply_bias(probabilities, 1 / temperature, np.zeros(np.shape(probabilities)[1]))


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature under which the labels are likeliest (Guo et al. 2017, section 4.2).

    Args:
        labels: int (N,), of images that the network was not trained on.
        probabilities: float (N, C), what it said of them.

    Returns:
        A temperature between the ends of `TEMPERATURES`.

    Raises:
        ValueError: there is no image.
    """
    if not len(labels):
        raise ValueError("a temperature needs at least one image")
    found = minimize_scalar(
        lambda exponent: log_loss(labels, apply_temperature(probabilities, np.exp(exponent))),
        bounds=np.log(TEMPERATURES),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return float(np.exp(found.x))


def fit_bias(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """Scale and biases under which the labels are likeliest: bias-corrected temperature scaling.

    See Alexandari et al. 2020, section 3.1.

    Beside the temperature, each class has a bias, so that the order of the classes can change: a network that
    names a class too rarely, by the labels of images it was not trained on, will name it more often.

    Args:
        labels: int (N,), of images that the network was not trained on.
        probabilities: float (N, C), what it said of them.

    Returns:
        What to multiply logits by (one over the temperature), and float64 (C,) to add then, with a sum of 0.

    Raises:
        ValueError: there is no image.
    """
    if not len(labels):
        raise ValueError("a calibration needs at least one image")
    logits = np.log(np.maximum(np.asarray(probabilities, float), TINY))
    truth = np.eye(logits.shape[1])[labels]

    def loss(scale_and_biases: np.ndarray) -> tuple[float, np.ndarray]:
        shifted = logits * scale_and_biases[0] + scale_and_biases[1:]
        log_likelihood = shifted - logsumexp(shifted, axis=1, keepdims=True)
        error = (np.exp(log_likelihood) - truth) / len(truth)
        slope = np.concatenate([[np.sum(error * logits)], error.sum(0)])
        return -float(np.mean(np.sum(truth * log_likelihood, 1))), slope

    start = np.concatenate([[1.0], np.zeros(logits.shape[1])])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return float(found[0]), found[1:] - found[1:].mean()


def apply_bias(probabilities: np.ndarray, scale: float, biases: np.ndarray) -> np.ndarray:
    """Probabilities as `fit_bias` corrects them: float64 (N, C), rows sum to 1."""
    logits = np.log(np.maximum(np.asarray(probabilities, float), TINY)) * scale + biases
    return softmax(logits, axis=1)


def halves(labels: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two random halves of the images with the classes in equal shares: rows to fit on, and to measure on.

    Args:
        labels: int (N,).
        seed: of the draw.

    Returns:
        Row numbers, each in order; the first half is never the larger.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    return np.sort(by_class[1::2]), np.sort(by_class[::2])


def reliability_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Accuracy by confidence, in the bins of `expected_calibration_error`.

    Args:
        labels: int (N,).
        probabilities: float (N, C).
        bins: number of bins between 0 and 1.

    Returns:
        One row a bin, as `plots.reliability` takes them: `low`, `high`, `confidence`, `accuracy`
        (not-a-number in an empty bin) and `count`.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, bins) / count for values in (confidence, correct)]
    edges = np.arange(bins + 1) / bins
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "confidence": means[0], "accuracy": means[1], "count": count}
    )


def calibrated_error(
    probabilities: np.ndarray, *, bins: int = 15, draws: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The calibration error that luck alone gives: that of a network whose confidence is exactly right.

    The error is a sum of sizes, so on finitely many images even a perfect network has one above 0. Labels are
    drawn from the very probabilities that the network states, and the error is computed for each draw.

    Args:
        probabilities: float (N, C).
        bins: as for `expected_calibration_error`.
        draws: how often labels are drawn.
        seed: of the draws.

    Returns:
        The mean over the draws, and the value that 95 of 100 stay below.
    """
    rng, confidence = np.random.default_rng(seed), probabilities.max(1)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    said = np.bincount(place, confidence, bins)
    errors = [
        np.abs(said - np.bincount(place, rng.random(len(confidence)) < confidence, bins)).sum()
        for _ in range(draws)
    ]
    return float(np.mean(errors) / len(confidence)), float(np.quantile(errors, 0.95) / len(confidence))


def calibration(
    labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 15, seed: int = 0
) -> dict[str, float | int | dict[str, float] | dict[str, pd.DataFrame]]:
    """Fit a temperature on one half of the images and measure it on the other.

    Args:
        labels: int (N,), of images that the network was not trained on.
        probabilities: float (N, C).
        bins: number of bins of confidence.
        seed: of the halves.

    Returns:
        `temperature`; `fitted_on` and `measured_on`, numbers of images; and of the second half,
        ``"before"`` and ``"after"`` the scaling: `error` (expected calibration error, 0–1), `luck` (its 95 %
        point for a network that is perfectly calibrated), `log_loss`, `confidence` (mean) and, among
        `bins`, the tables of `reliability_bins`; and `accuracy`, which is the same for both.
    """
    fit, measure = halves(labels, seed=seed)
    temperature = fit_temperature(labels[fit], probabilities[fit])
    answers = {
        "before": probabilities[measure],
        "after": apply_temperature(probabilities[measure], temperature),
    }
    truth = labels[measure]
    return {
        "temperature": temperature,
        "fitted_on": len(fit),
        "measured_on": len(measure),
        "accuracy": float(np.mean(answers["before"].argmax(1) == truth)),
        "error": {k: expected_calibration_error(truth, a, bins) for k, a in answers.items()},
        "luck": {k: calibrated_error(a, bins=bins, seed=seed)[1] for k, a in answers.items()},
        "log_loss": {k: log_loss(truth, a) for k, a in answers.items()},
        "confidence": {k: float(a.max(1).mean()) for k, a in answers.items()},
        "bins": {k: reliability_bins(truth, a, bins) for k, a in answers.items()},
    }


def coverage_curve(
    labels: np.ndarray, probabilities: np.ndarray, shares: np.ndarray | None = None
) -> pd.DataFrame:
    """Selective prediction: accuracy on the images of which the network is surest (El-Yaniv & Wiener 2010).

    Args:
        labels: int (N,).
        probabilities: float (N, C).
        shares: coverages to give, above 0 and up to 1; by default 0.05, 0.10, … 1.

    Returns:
        One row a share: `coverage` (what whole images make of it), `images`, `threshold` (least confidence
        that is answered), `accuracy`, `low` and `high` (Wilson 95 %).

    Raises:
        ValueError: there is no image, or a share is not above 0 and up to 1.
    """
    shares = np.arange(1, 21) / 20 if shares is None else np.asarray(shares, float)
    if not len(labels) or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError("coverage needs images, and shares above 0 and up to 1")
    confidence, hits = _surest_first(labels, probabilities)
    rows = []
    for share in shares:
        n = max(1, round(share * len(labels)))
        low, high = wilson_interval(int(hits[n - 1]), n)
        rows.append((n / len(labels), n, confidence[n - 1], hits[n - 1] / n, low, high))
    return pd.DataFrame(rows, columns=["coverage", "images", "threshold", "accuracy", "low", "high"])


def risk_area(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Area under the risk-coverage curve (Geifman & El-Yaniv 2017): mean error over all coverages, 0–1.

    Args:
        labels: int (N,).
        probabilities: float (N, C).

    Returns:
        `area` of this network; `best`, if it were sure of all its right answers and of no wrong one; and
        `random`, if its confidence said nothing, which is its error.
    """
    _, hits = _surest_first(labels, probabilities)
    n = np.arange(1, len(labels) + 1)
    best = np.minimum(n, hits[-1])
    return {
        "area": float(np.mean(1 - hits / n)),
        "best": float(np.mean(1 - best / n)),
        "random": float(1 - hits[-1] / n[-1]),
    }


def _surest_first(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Confidences from high to low, and how many of the answers so far are right."""
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    return confidence[order], np.cumsum((probabilities.argmax(1) == labels)[order])
