"""Pictures that are worse than those of training, and pictures that show no face: what does a network say?

Six corruptions at five severities, in the manner of Hendrycks & Dietterich (2019), and seven kinds of
pictures without a face. All are made from the arguments alone: the same ones give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.nn import functional as F

from fer_utils.evaluation import predict, wilson_interval

HISTOGRAM = 20  # equal bins of confidence between 0 and 1
HEAVY_BLUR = 8.0  # pixels: an eighth of the face


class Corruption(NamedTuple):
    """A way in which a picture gets worse.

    Attributes:
        apply: takes float32 images (N, S, S) of 0–255, the level and a generator; gives the same form.
        levels: of the severities 1 to 5.
        unit: of the levels, in words.
    """

    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    levels: tuple[float, float, float, float, float]
    unit: str


def _brightness(images: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return images + level * _signs(len(images), rng)


def _contrast(images: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    means = images.mean((1, 2), keepdims=True)
    return means + (images - means) * level


def _noise(images: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return images + level * rng.standard_normal(images.shape, dtype=np.float32)


def _blur(images: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return gaussian_filter(images, (0, level, level), mode="nearest")


def _rotation(images: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    angles = math.radians(level) * torch.from_numpy(_signs(len(images), rng).ravel())
    cos, sin, zero = torch.cos(angles), torch.sin(angles), torch.zeros(len(images))
    maps = torch.stack((torch.stack((cos, -sin, zero), 1), torch.stack((sin, cos, zero), 1)), 1)
    batch = torch.from_numpy(images).unsqueeze(1)
    grid = F.affine_grid(maps, list(batch.shape), align_corners=False)
    turned = F.grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return turned.squeeze(1).numpy()


def _occlusion(images: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    count, side = len(images), images.shape[1]
    across = round(side * math.sqrt(level))
    # The square lies in the picture; one place is drawn, and larger squares cover the smaller ones' place.
    corners = np.rint(rng.random((count, 2)) * (side - across)).astype(int)
    place = np.arange(side)
    down, along = ((place >= c[:, None]) & (place < c[:, None] + across) for c in corners.T)
    return np.where(down[:, :, None] & along[:, None, :], images.mean((1, 2), keepdims=True), images)


def _signs(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(np.array([-1, 1], np.float32), n)[:, None, None]


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "brightness": Corruption(_brightness, (25, 50, 75, 100, 125), "grey levels, up or down"),
        "contrast": Corruption(_contrast, (0.6, 0.4, 0.25, 0.12, 0.05), "share that is left"),
        "noise": Corruption(_noise, (8, 16, 32, 48, 64), "deviation in grey levels"),
        "blur": Corruption(_blur, (0.75, 1.5, 2.5, 3.5, 5), "Gaussian, pixels of 64"),
        "rotation": Corruption(_rotation, (10, 20, 30, 45, 60), "degrees, left or right"),
        "occlusion": Corruption(_occlusion, (0.05, 0.1, 0.2, 0.35, 0.5), "share hidden by a square"),
    }
)
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(images: np.ndarray, name: str, severity: int, *, seed: int = 0) -> np.ndarray:
    """Make pictures worse.

    What is drawn at random (signs, noise, places) is drawn alike for all severities, so that a picture gets
    worse in one and the same way from each severity to the next.

    Args:
        images: uint8 (N, S, S), grey.
        name: of `CORRUPTIONS`.
        severity: 1 to 5; 0 gives the images as they are.
        seed: of the random numbers.

    Returns:
        uint8 (N, S, S).

    Raises:
        ValueError: there is no such corruption or severity.
    """
    if name not in CORRUPTIONS or severity not in (0, *SEVERITIES):
        raise ValueError(f"{name!r} at severity {severity!r}; there are {', '.join(CORRUPTIONS)}, 0 to 5")
    if severity == 0 or not len(images):
        return images.copy()
    kind = CORRUPTIONS[name]
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(name)])
    worse = kind.apply(images.astype(np.float32), kind.levels[severity - 1], rng)
    return np.rint(np.clip(worse, 0, 255)).astype(np.uint8)


def robustness(model: nn.Module, images: np.ndarray, labels: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    """Accuracy and confidence as pictures get worse.

    Args:
        model: as for `predict`.
        images: uint8 (N, 64, 64).
        labels: int (N,), values 0–5.
        seed: as for `corrupt`.

    Returns:
        One row a corruption and severity, from 0 (as they are) to 5: `corruption`, `severity`, `level`
        (not-a-number at 0), `unit`, `images`, `accuracy`, `low`, `high` (Wilson 95 %) and `confidence` (mean
        of the largest probability).
    """
    rows, plain = [], predict(model, images)
    for name, kind in CORRUPTIONS.items():
        for severity in (0, *SEVERITIES):
            answers = predict(model, corrupt(images, name, severity, seed=seed)) if severity else plain
            hits = int(np.sum(answers.argmax(1) == labels))
            low, high = wilson_interval(hits, len(labels))
            level = kind.levels[severity - 1] if severity else math.nan
            rows.append(
                {"corruption": name, "severity": severity, "level": level, "unit": kind.unit,
                 "images": len(labels), "accuracy": hits / len(labels), "low": low, "high": high,
                 "confidence": float(answers.max(1).mean())}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _uniform_noise(n: int, side: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 255, (n, side, side))


def _clouds(n: int, side: int, rng: np.random.Generator) -> np.ndarray:
    soft = gaussian_filter(rng.standard_normal((n, side, side)), (0, side / 12, side / 12), mode="wrap")
    return 127.5 + 50 * soft / soft.std((1, 2), keepdims=True)


def _gradients(n: int, side: int, rng: np.random.Generator) -> np.ndarray:
    angle, ends = rng.uniform(0, 2 * np.pi, (n, 1, 1)), rng.uniform(0, 255, (2, n, 1, 1))
    place = np.linspace(-1, 1, side)
    way = (np.cos(angle) * place + np.sin(angle) * place[:, None]) / np.sqrt(2)
    return ends[0] + (ends[1] - ends[0]) * (way + 1) / 2


def _walls(n: int, side: int, rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(rng.uniform(0, 255, (n, 1, 1)), (n, side, side))


def _shapes(n: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Three to eight rectangles, ellipses and lines of random size, place and tone."""
    pictures = np.empty((n, side, side), np.uint8)
    for picture in pictures:
        sheet = Image.new("L", (side, side), int(rng.integers(256)))
        pen = ImageDraw.Draw(sheet)
        for _ in range(rng.integers(3, 9)):
            ends = np.sort(rng.integers(-side // 8, side + side // 8, (2, 2)), axis=0).ravel().tolist()
            tone = int(rng.integers(256))
            match rng.integers(3):
                case 0:
                    pen.rectangle(ends, fill=tone)
                case 1:
                    pen.ellipse(ends, fill=tone)
                case _:
                    pen.line(ends, fill=tone, width=int(rng.integers(1, 6)))
        picture[:] = sheet
    return pictures


_DRAWN: Mapping[str, Callable[[int, int, np.random.Generator], np.ndarray]] = MappingProxyType(
    {
        "a blank wall": _walls,
        "gradients": _gradients,
        "noise": _uniform_noise,
        "clouds": _clouds,
        "shapes": _shapes,
    }
)
SHUFFLED, BLURRED = "shuffled faces", "heavy blur"
NONFACES = (*_DRAWN, SHUFFLED, BLURRED)  # heavy blur shows a face, but none that could be read


def nonfaces(kind: str, n: int, *, faces: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Pictures of 64×64 pixels without a face that could be read.

    Args:
        kind: one of `NONFACES`. ``"shuffled faces"`` are faces cut into 64 squares of 8×8 pixels that are
            laid out anew: they have a face's tones and edges and no face. ``"heavy blur"`` are faces blurred
            by `HEAVY_BLUR`.
        n: how many.
        faces: uint8 (M, 64, 64), M ≥ 1, for the last two kinds; they are used in turn.
        seed: of the random numbers.

    Returns:
        uint8 (n, 64, 64).

    Raises:
        ValueError: there is no such kind, or it needs faces.
    """
    if kind not in NONFACES or (kind not in _DRAWN and not len(faces if faces is not None else ())):
        raise ValueError(f"{kind!r}: there are {', '.join(NONFACES)}; the last two need faces")
    rng = np.random.default_rng([seed, NONFACES.index(kind)])
    if kind in _DRAWN:
        return np.rint(np.clip(_DRAWN[kind](n, 64, rng), 0, 255)).astype(np.uint8)
    chosen = faces[np.arange(n) % len(faces)]
    if kind == BLURRED:
        return np.rint(_blur(chosen.astype(np.float32), HEAVY_BLUR, rng)).astype(np.uint8)
    tiles = chosen.reshape(n, 8, 8, 8, 8).swapaxes(2, 3).reshape(n, 64, 8, 8)
    mixed = rng.permuted(np.tile(np.arange(64), (n, 1)), axis=1)
    tiles = np.take_along_axis(tiles, mixed[:, :, None, None], axis=1)
    return tiles.reshape(n, 8, 8, 8, 8).swapaxes(2, 3).reshape(n, 64, 64)


def confidences(model: nn.Module, faces: np.ndarray, *, n: int = 500, seed: int = 0) -> pd.DataFrame:
    """How sure a network is of faces, and of pictures that show none (Hendrycks & Gimpel 2017).

    Args:
        model: as for `predict`.
        faces: uint8 (N, 64, 64), of held-out people.
        n: pictures of each kind without a face.
        seed: as for `nonfaces`.

    Returns:
        One row for ``"faces"`` and each of `NONFACES`: `kind`, `images`, `mean`, `q05`, `q25`, `q50`, `q75`,
        `q95` (quantiles) of the largest probability, `told` (how often a face gets the higher confidence of a
        pair of one face and one such picture: the area under the ROC curve; 0.5 for the faces themselves),
        `answer` (the commonest answer, 0–5), `answer_share`, and `histogram` (counts in `HISTOGRAM` equal
        bins between 0 and 1).
    """
    rows, own = [], predict(model, faces)
    for kind in ("faces", *NONFACES):
        answers = own if kind == "faces" else predict(model, nonfaces(kind, n, faces=faces, seed=seed))
        confidence, said = answers.max(1), np.bincount(answers.argmax(1), minlength=answers.shape[1])
        quantiles = np.quantile(confidence, (0.05, 0.25, 0.5, 0.75, 0.95))
        place = np.minimum((confidence * HISTOGRAM).astype(int), HISTOGRAM - 1)
        rows.append(
            {"kind": kind, "images": len(confidence), "mean": float(confidence.mean()),
             **dict(zip(("q05", "q25", "q50", "q75", "q95"), map(float, quantiles), strict=True)),
             "told": _above(own.max(1), confidence), "answer": int(said.argmax()),
             "answer_share": float(said.max() / said.sum()),
             "histogram": np.bincount(place, minlength=HISTOGRAM).tolist()}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _above(high: np.ndarray, low: np.ndarray) -> float:
    """Share of the pairs in which the first is larger; ties count half (Mann-Whitney)."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / 2 / len(low))
