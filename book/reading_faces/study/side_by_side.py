"""Checks of a merged set that need no network: are its sources lit, framed and balanced alike?

Each takes what chapter 2 shows side by side (`reading_faces.study.describe`) and gives a `Check` with its threshold.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from fer_utils.emotions import CLASSES
from reading_faces.study.checks import ALONE, Check

ZOOMS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.25)
REACH = 8  # pixels of shift that are tried, each way


def lighting(statistics: pd.DataFrame, *, most: float = 64.0, times: float = 2.0) -> Check:
    """Whether a source is much darker, brighter, flatter or harsher than the others.

    A reader that scales grey values wrongly or cuts them off fails this; one that inverts them only where
    their mean is far from the middle. A source passes that agrees with one other, as in `framing`.

    Args:
        statistics: what `describe.image_statistics` gives.
        most: largest difference of a source's median brightness from that of the nearest other one, in grey
            levels of 255.
        times: largest ratio of a source's median contrast and that of the nearest other one, either way.
    """
    name = "the sources are lit alike"
    asked = f"brightness within {most:g} of 255, contrast within {times:g} times"
    medians = statistics.groupby(["quantity", "source"])["value"].median().unstack()
    bright, contrast = (
        medians[medians.index.str.startswith(word)].iloc[0] for word in ("brightness", "contrast")
    )
    if len(bright) == 1:
        return Check(name, ALONE, asked, passed=True)
    off = {s: min(bright[s] - bright.drop(s), key=abs) for s in bright.index}
    ratio = {s: min(contrast[s] / contrast.drop(s), key=lambda r: abs(np.log(r))) for s in contrast.index}
    wrong = [s for s in off if abs(off[s]) > most or not 1 / times <= ratio[s] <= times]
    far = max(off, key=lambda s: abs(off[s]))
    harsh = max(ratio, key=lambda s: abs(np.log(ratio[s])))
    value = f"at most {off[far]:+.0f} ({far}) and {ratio[harsh]:.2f} times ({harsh})".replace("-", "−")
    return Check(name, value + _named(wrong), asked, not wrong)


def framing(means: Mapping[str, np.ndarray], *, shift: int = 3, zoom: float = 0.1) -> Check:
    """Whether the faces of a source stand elsewhere in the frame than the others', or are cropped tighter.

    The mean face of each source is laid over that of each other one, enlarged and moved until they agree best
    (largest correlation in the middle of the frame). A source passes that agrees with one other: then one
    that is off does not take the rest with it. Of two that differ, both are named.

    Args:
        means: what `describe.mean_faces` gives: by source, float (6, H, W).
        shift: largest shift that passes, in pixels.
        zoom: largest enlargement or reduction that passes, as a share.
    """
    name = "faces stand alike in the frame"
    asked = f"moved by at most {shift} pixels, scaled by at most {100 * zoom:g} %"
    if len(means) == 1:
        return Check(name, ALONE, asked, passed=True)

    def excess(found: tuple[float, int, int]) -> float:
        return max(abs(found[0] - 1) / zoom, abs(found[1]) / shift, abs(found[2]) / shift)

    shared = [c for c in range(len(CLASSES)) if np.isfinite([m[c] for m in means.values()]).all()]
    if not shared:
        return Check(name, "no class that all sources have", asked, passed=False)
    faces = {s: m[shared].mean(0) for s, m in means.items()}
    best = {s: min((_alignment(faces[s], faces[o]) for o in faces if o != s), key=excess) for s in faces}
    wrong = [s for s, found in best.items() if excess(found) > 1 + 1e-9]
    worst = max(best, key=lambda s: excess(best[s]))
    scale, down, right = best[worst]
    value = f"at most {down:+d} down, {right:+d} right, {scale:.2f} times ({worst})".replace("-", "−")
    return Check(name, value + _named(wrong), asked, not wrong)


def classes(counts: pd.DataFrame, *, least: float = 0.01) -> Check:
    """Whether every source has enough training images of every class to learn it from.

    Args:
        counts: what `FaceSet.counts` gives.
        least: smallest share of a source's training images.
    """
    train = counts.loc[list(CLASSES)].xs("train", axis=1, level="split")
    shares = train / train.sum()
    smallest = shares.stack().idxmin()
    wrong = [f"{c} in {s}" for s, c in itertools.product(shares.columns, CLASSES) if shares.loc[c, s] < least]
    value = f"at least {100 * shares.loc[smallest]:.1f} % ({smallest[0]} in {smallest[1]})"
    asked = f"each at least {100 * least:g} % of a source's training images"
    return Check("every source has every class", value + _named(wrong), asked, not wrong)


def _named(wrong: list[str]) -> str:
    return f"; not so: {', '.join(wrong)}" if wrong else ""


def _alignment(face: np.ndarray, other: np.ndarray) -> tuple[float, int, int]:
    """Scale and shift, down and right, of a mean face (H, W) against another, in pixels."""
    middle = other[REACH:-REACH, REACH:-REACH]
    middle = (middle - middle.mean()) / middle.std()
    best, found = -np.inf, (1.0, 0, 0)
    for scale in sorted(ZOOMS, key=lambda z: abs(z - 1)):
        windows = sliding_window_view(resized(face, 1 / scale), middle.shape)
        likeness = np.tensordot(windows, middle) / middle.size / windows.std((2, 3))
        if likeness.max() > best + 1e-6:
            best = likeness.max()
            down, right = np.unravel_index(likeness.argmax(), likeness.shape)
            found = (scale, int(down) - REACH, int(right) - REACH)
    return found


def resized(face: np.ndarray, scale: float) -> np.ndarray:
    """The face enlarged about its centre, in a frame of the same size; edges are repeated."""
    centre = (np.array(face.shape) - 1) / 2
    return ndimage.affine_transform(face, np.eye(2) / scale, centre - centre / scale, order=1, mode="nearest")
