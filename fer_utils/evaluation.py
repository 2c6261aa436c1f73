"""Scores with their uncertainty: accuracy, recall, F1, calibration and intervals."""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.functional import five_crop

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.memory import keep_freed_memory

Interval = tuple[float, float]
LEVEL = 0.95  # of all intervals
BATCH = 64  # images at once

# SciPy and scikit-learn are imported where they are used: predicting does without them.


def predict(
    model: nn.Module, faces: FaceSet | np.ndarray, *, flip: bool = False, ten_crop: bool = False
) -> np.ndarray:
    """Class probabilities of a `FaceSet` or of uint8 images (N, 64, 64): float32 (N, 6); rows sum to 1.

    Args:
        model: takes float images (B, 1, 64, 64) of 0–1 and gives logits (B, 6); it computes on the GPU, or
            where it is if there is none, and is left as it was.
        faces: to classify.
        flip: average the probabilities of each image and its mirror image.
        ten_crop: average those of corners and centre, enlarged and mirrored (Krizhevsky et al. 2012, 4.1).
    """
    keep_freed_memory()
    home, was_training = next(model.parameters()).device, model.training
    device = "cuda" if torch.cuda.is_available() else home
    model.to(device).eval()
    rows = []
    # Moving the model within would leave it with parameters that cannot be trained any more.
    with torch.inference_mode():
        for start in range(0, len(faces), BATCH):
            chosen = np.arange(start, min(start + BATCH, len(faces)))
            batch = faces[chosen] if isinstance(faces, np.ndarray) else faces.take(chosen)
            images = torch.from_numpy(np.ascontiguousarray(batch)).to(device).unsqueeze(1).float() / 255
            views = _crops(images) if ten_crop else [images]
            views += [view.flip(3) for view in views] if flip or ten_crop else []
            probabilities = torch.stack([model(view).softmax(1) for view in views]).mean(0)
            rows.append(probabilities.float().cpu().numpy())
    model.to(home).train(was_training)
    return np.concatenate(rows) if rows else np.empty((0, len(CLASSES)), np.float32)


def _crops(images: torch.Tensor) -> list[torch.Tensor]:
    """Corners and centre of images (B, C, H, W), nine tenths of their sides long, in the images' own size."""
    size = images.shape[-2:]
    crops = five_crop(images, [round(0.9 * side) for side in size])
    return [F.interpolate(crop, size, mode="bicubic", align_corners=False).clamp(0, 1) for crop in crops]


def bootstrap_interval(
    values: np.ndarray, people: np.ndarray | None = None, *, draws: int = 10_000
) -> Interval:
    """Percentile bootstrap interval of a mean (Efron & Tibshirani 1993, ch. 13), such as an accuracy.

    Values, (N,), are one an image: bool (was it classified rightly?), numbers, or differences of two networks
    on the same images; or (N, K), for the means of K columns, whose intervals are arrays (K,).

    Images of one person are no independent draws. So where people, (N,), are known, they are drawn, each with
    all of their images (cluster bootstrap; Field & Welsh 2007). Where all predictions are right, or all
    wrong, every draw is alike and would claim certainty; then it is Wilson's interval, of so many images or
    people.
    """
    if not len(values):
        raise ValueError("an interval needs at least one image")
    drawn, sums, chances = len(values), np.asarray(values), np.full(len(values), 1 / len(values))
    sizes = np.ones(drawn)
    if people is not None:
        _, person = np.unique(people, return_inverse=True)
        sums, sizes = np.bincount(person, values), np.bincount(person)
        drawn, chances = len(sizes), np.full(len(sizes), 1 / len(sizes))
    elif sums.ndim == 1:  # images of one value are alike: only how many of them are drawn matters
        sums, images = np.unique(values, return_counts=True)
        order = np.lexsort((-sums.astype(float), -np.abs(sums.astype(float))))
        sums, sizes, chances = sums[order], np.ones(len(order)), images[order] / drawn
    if np.asarray(values).dtype == bool and np.all(values == values[0]):
        return wilson_interval(drawn * int(values[0]), drawn)
    often = np.random.default_rng(0).multinomial(drawn, chances, draws)
    means = ((often @ sums).T / (often @ sizes)).T
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return (float(low), float(high)) if means.ndim == 1 else (low, high)


def wilson_interval(successes: int, n: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); right for small n and shares near 0 or 1."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def metrics(
    labels: np.ndarray, probabilities: np.ndarray, people: np.ndarray | None = None
) -> dict[str, Any]:
    """All scores of one set of predictions, as plain values for a results file.

    Takes labels, int (N,), 0–5; probabilities, float (N, 6); and whose images they are, (N,), if known, for
    the bootstrap of `accuracy_interval`. The intervals of recalls (Wilson) are too narrow where a person has
    several images. `macro_f1` is over the classes that have images; rows of `confusion` are labels.
    """
    from sklearn.metrics import confusion_matrix, f1_score

    from fer_utils.calibration import expected_calibration_error

    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predicted, labels=range(len(CLASSES)))
    counts = list(zip(CLASSES, confusion.diagonal().tolist(), confusion.sum(1).tolist(), strict=True))
    f1 = f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    picked = probabilities[np.arange(len(labels)), labels]
    return {
        "images": len(labels),
        "accuracy": float(np.mean(predicted == labels)),
        "accuracy_interval": list(bootstrap_interval(predicted == labels, people)),
        "macro_f1": float(f1),
        "recall": {c: hits / n if n else None for c, hits, n in counts},
        "recall_interval": {c: list(wilson_interval(hits, n)) if n else None for c, hits, n in counts},
        "expected_calibration_error": expected_calibration_error(labels, probabilities),
        "log_loss": float(-np.log(np.maximum(picked, 1e-12)).mean()),
        "confusion": confusion.tolist(),
    }
