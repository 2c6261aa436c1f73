"""Temperature scaling, bias correction and reliability: does the confidence mean what it says?"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp, softmax


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Find the temperature, 0.05 to 20, under which the labels are likeliest (Guo et al. 2017, sec. 4.2).

    Takes labels, int (N,), of images that the network was not trained on, and its predictions, float (N, C).
    """
    logits = _logits(probabilities)

    def loss(logarithm: float) -> float:
        scaled = logits / np.exp(logarithm)
        return float(np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]))

    best = minimize_scalar(loss, bounds=np.log((0.05, 20)), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(best.x))


def fit_bias(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, np.ndarray]:
    """Find scale and biases of the logits: bias-corrected temperature scaling (Alexandari et al. 2020).

    Takes what `fit_temperature` takes. Returns the factor (one over the temperature), and float64 (C,) to add
    then, with a sum of 0.
    """
    logits = _logits(probabilities)
    truth = np.eye(logits.shape[1])[labels]

    def loss(scale_and_biases: np.ndarray) -> tuple[float, np.ndarray]:
        shifted = logits * scale_and_biases[0] + scale_and_biases[1:]
        log_likelihood = shifted - logsumexp(shifted, axis=1, keepdims=True)
        error = (np.exp(log_likelihood) - truth) / len(truth)
        slope = np.concatenate([[np.sum(error * logits)], error.sum(0)])
        return -float(np.mean(np.sum(truth * log_likelihood, 1))), slope

    start = np.concatenate([[1.0], np.zeros(logits.shape[1])])
    best = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return float(best[0]), best[1:] - best[1:].mean()


def apply_bias(probabilities: np.ndarray, scale: float, biases: np.ndarray) -> np.ndarray:
    """Correct probabilities as `fit_bias` says: float64 (N, C), rows sum to 1."""
    return softmax(_logits(probabilities) * scale + biases, axis=1)


def reliability_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Mean confidence and accuracy (0–1) and count of each equal bin of confidence; nan where it is empty."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, bins) / count for values in (confidence, correct)]
    edges = np.arange(bins + 1) / bins
    columns = {"low": edges[:-1], "high": edges[1:], "confidence": means[0], "accuracy": means[1]}
    return pd.DataFrame(columns | {"count": count})


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal bins, 0–1 (Guo et al. 2017, eq. 3)."""
    table = reliability_bins(labels, probabilities, bins)
    return float(((table["confidence"] - table["accuracy"]).abs() * table["count"]).sum() / len(labels))


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Logarithms: logits up to a constant per row, which softmax does not see."""
    return np.log(np.maximum(np.asarray(probabilities, float), 1e-12))
