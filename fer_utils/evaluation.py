"""Scores with their uncertainty: accuracy, recall, F1, calibration, intervals and paired tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import confusion_matrix, f1_score
from torch import nn
from torch.nn import functional as F

from fer_utils.calibration import expected_calibration_error
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES

Interval = tuple[float, float]


def predict(
    model: nn.Module,
    faces: FaceSet | np.ndarray,
    *,
    flip: bool = False,
    ten_crop: bool = False,
    batch_size: int = 256,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """Class probabilities of faces.

    Args:
        model: takes float images (B, 1, 64, 64) of 0–1 and gives logits (B, 6). It is put into evaluation
            mode and, afterwards, left as it was.
        faces: a `FaceSet`, or uint8 images (N, 64, 64).
        flip: average the probabilities of each image and its mirror image (test-time averaging).
        ten_crop: average those of the four corners and the centre, nine tenths of the side each and enlarged
            again, and of their mirror images (Krizhevsky et al. 2012, sec. 4.1).
        batch_size: images a step.
        device: where to compute; by default on the GPU, or where the model is if there is none.

    Returns:
        float32 (N, 6); rows sum to 1.
    """
    home, was_training = next(model.parameters()).device, model.training
    device = device or ("cuda" if torch.cuda.is_available() else home)
    model.to(device).eval()
    rows = []
    # Moving the model within would leave it with parameters that cannot be trained any more.
    with torch.inference_mode():
        for start in range(0, len(faces), batch_size):
            chosen = np.arange(start, min(start + batch_size, len(faces)))
            batch = faces[chosen] if isinstance(faces, np.ndarray) else faces.take(chosen)
            images = torch.from_numpy(np.ascontiguousarray(batch)).to(device).unsqueeze(1).float() / 255
            views = _crops(images) if ten_crop else [images]
            views += [view.flip(3) for view in views] if flip or ten_crop else []
            probabilities = torch.stack([model(view).softmax(1) for view in views]).mean(0)
            rows.append(probabilities.float().cpu().numpy())
    model.to(home).train(was_training)
    return np.concatenate(rows) if rows else np.empty((0, len(CLASSES)), np.float32)


def _crops(images: torch.Tensor, share: float = 0.9) -> list[torch.Tensor]:
    """Corners and centre of images (B, C, H, W), a share of their sides long, in the images' own size."""
    size = images.shape[-2:]
    height, width = (round(share * side) for side in size)
    bottom, right = size[0] - height, size[1] - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = [images[:, :, top : top + height, left : left + width] for top, left in places]
    return [F.interpolate(crop, size, mode="bicubic", align_corners=False).clamp(0, 1) for crop in crops]


def bootstrap_interval(
    correct: np.ndarray,
    people: np.ndarray | None = None,
    *,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of an accuracy (Efron & Tibshirani 1993, ch. 13).

    Drawing n images with replacement and counting the right ones is a binomial draw, so no image is
    actually drawn. Images of one person are no independent draws: a face that is misread once is misread in
    the next picture, too. So where people are known, they are drawn, each with all of their images (cluster
    bootstrap; Field & Welsh 2007, J. R. Stat. Soc. B 69, 369). Where all answers are right, or all wrong,
    every draw is alike and would claim certainty; then it is Wilson's interval, of so many images or people.

    Args:
        correct: bool (N,), whether each image was classified rightly.
        people: (N,), whose image it is; none if that is not known.
        level: coverage, 0–1.
        draws: bootstrap samples.
        seed: of the random numbers.

    Raises:
        ValueError: there is no image.
    """
    n = len(correct)
    if not n:
        raise ValueError("an interval needs at least one image")
    hits, rng = int(np.sum(correct)), np.random.default_rng(seed)
    if people is None:
        drawn = n
        shares = rng.binomial(n, hits / n, draws) / n
    else:
        _, person = np.unique(people, return_inverse=True)
        right, images = np.bincount(person, correct), np.bincount(person)
        drawn = len(images)
        often = rng.multinomial(drawn, np.full(drawn, 1 / drawn), draws)
        shares = (often @ right) / (often @ images)
    if hits in (0, n):
        return wilson_interval(drawn if hits else 0, drawn, level=level)
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_intervals(
    values: np.ndarray, draws: int = 2000, *, level: float = 0.95, seed: int = 0
) -> np.ndarray:
    """Percentile bootstrap intervals of the columns' means (Efron & Tibshirani 1993, ch. 13).

    For paired differences: what one image gives in two conditions stays together in every draw.

    Args:
        values: float (N, K), one row an image.
        draws: bootstrap samples.
        level: coverage, 0–1.
        seed: of the random numbers.

    Returns:
        float (K, 2): lower and upper ends.

    Raises:
        ValueError: there is no image.
    """
    n = len(values)
    if not n:
        raise ValueError("an interval needs at least one image")
    rng, equal = np.random.default_rng(seed), np.full(n, 1 / n)
    # How often each image is drawn; a hundred draws at a time keep this small.
    sizes = [len(part) for part in np.array_split(np.arange(draws), -(-draws // 100))]
    means = np.concatenate([rng.multinomial(n, equal, size) @ values / n for size in sizes])
    return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0).T


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share (Wilson 1927); right for small n and shares near 0 or 1."""
    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def metrics(
    labels: np.ndarray, probabilities: np.ndarray, people: np.ndarray | None = None
) -> dict[str, Any]:
    """All scores of one set of predictions, as plain values for a results file.

    Args:
        labels: int (N,), values 0–5.
        probabilities: float (N, 6).
        people: (N,), whose image it is, if that is known: for `accuracy_interval`. (The intervals of recalls
            take images as independent all the same, and are too narrow where a person has several.)

    Returns:
        `images`; `accuracy` with its bootstrap 95 % interval `accuracy_interval`; `macro_f1`, the
        mean of F1 over the classes that have images; `recall` and
        `recall_interval` (Wilson 95 %) by class; `expected_calibration_error`; `log_loss`; `confusion`
        (rows: label, columns: prediction, counts). Classes without an image have the recall none.

    Raises:
        ValueError: there is no image, or shapes do not agree.
    """
    if len(labels) == 0 or probabilities.shape != (len(labels), len(CLASSES)):
        raise ValueError(f"{len(labels)} labels and probabilities of shape {probabilities.shape}")
    predicted = probabilities.argmax(1)
    confusion = confusion_matrix(labels, predicted, labels=range(len(CLASSES)))
    hits, totals = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    picked = probabilities[np.arange(len(labels)), labels]
    return {
        "images": len(labels),
        "accuracy": float(np.mean(predicted == labels)),
        "accuracy_interval": list(bootstrap_interval(predicted == labels, people)),
        "macro_f1": float(
            f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
        ),
        "recall": {c: h / n if n else None for c, h, n in zip(CLASSES, hits, totals, strict=True)},
        "recall_interval": {
            c: list(wilson_interval(h, n)) if n else None
            for c, h, n in zip(CLASSES, hits, totals, strict=True)
        },
        "expected_calibration_error": expected_calibration_error(labels, probabilities),
        "log_loss": float(-np.log(np.maximum(picked, 1e-12)).mean()),
        "confusion": confusion.tolist(),
    }


def mcnemar(correct_a: np.ndarray, correct_b: np.ndarray) -> dict[str, float]:
    """McNemar's exact test (McNemar 1947): do two networks that saw the same images differ?

    Args:
        correct_a: bool (N,), whether the first network was right.
        correct_b: bool (N,), whether the second was, on the same images in the same order.

    Returns:
        `only_a`, `only_b` (images that one alone got right), `difference` of the accuracies (a − b) and the
        two-sided `p` of the binomial test on the images where they disagree.
    """
    only_a = int(np.sum(correct_a & ~correct_b))
    only_b = int(np.sum(~correct_a & correct_b))
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return {
        "only_a": only_a,
        "only_b": only_b,
        "difference": (only_a - only_b) / len(correct_a),
        "p": p,
    }


def paired_interval(
    correct_a: np.ndarray, correct_b: np.ndarray, *, level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the difference of two accuracies on the same images (a − b).

    An image stands for −1, 0 or 1, so drawing n of them is a multinomial draw and no image is actually drawn.

    Args:
        correct_a: bool (N,), whether the first network was right.
        correct_b: bool (N,), whether the second was, on the same images in the same order.
        level: coverage, 0–1.
        draws: bootstrap samples.
        seed: of the random numbers.

    Raises:
        ValueError: there is no image.
    """
    n = len(correct_a)
    if not n:
        raise ValueError("an interval needs at least one image")
    shares = np.array([np.sum(correct_a & ~correct_b), np.sum(~correct_a & correct_b)]) / n
    counts = np.random.default_rng(seed).multinomial(n, [*shares, 1 - shares.sum()], draws)
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / n, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def majority_accuracy(labels: np.ndarray, train_labels: np.ndarray) -> float:
    """Accuracy of always answering the class that is most frequent in training: what chance gives."""
    return float(np.mean(labels == np.bincount(train_labels, minlength=len(CLASSES)).argmax()))
