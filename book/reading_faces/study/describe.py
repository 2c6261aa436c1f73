"""What the images of each source look like on average: lighting, contrast, framing, class balance."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES


def image_statistics(faces: FaceSet, at_most: int = 5_000) -> pd.DataFrame:
    """Brightness, contrast and sharpness of every image.

    Brightness is the mean and contrast the standard deviation of the grey values, 0–255. Sharpness is the
    mean absolute difference of neighbouring pixels divided by the contrast: blur lowers it, noise raises it.

    Args:
        faces: the set; its test split is left out.
        at_most: images a source, evenly spaced, so that large sets stay quick.

    Returns:
        Columns `source`, `quantity`, `value`; one row an image and quantity.
    """
    tables = []
    for source, part in _by_source(faces):
        rows = np.linspace(0, len(part) - 1, min(len(part), at_most)).astype(int)
        images = part.take(rows).astype(np.float32)
        contrast = images.std((1, 2))
        steps = np.abs(np.diff(images, axis=1)).mean((1, 2)) + np.abs(np.diff(images, axis=2)).mean((1, 2))
        quantities = {
            "brightness (mean grey)": images.mean((1, 2)),
            "contrast (deviation)": contrast,
            "sharpness": steps / 2 / np.maximum(contrast, 1),
        }
        tables += [pd.DataFrame({"source": source, "quantity": q, "value": v}) for q, v in quantities.items()]
    return pd.concat(tables, ignore_index=True)


def mean_faces(faces: FaceSet) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Mean image of every class and source, and the number of images behind it; the test split is left out.

    Returns:
        By source, float (6, H, W), 0–255, not-a-number for a class without an image; and six counts.
    """
    means, counts = {}, {}
    for source, part in _by_source(faces):
        chosen = [np.flatnonzero(part.labels == label) for label in range(len(CLASSES))]
        blank = np.full(part.take([0])[0].shape, np.nan)
        means[source] = np.stack([part.take(rows).mean(0) if len(rows) else blank for rows in chosen])
        counts[source] = [len(rows) for rows in chosen]
    return means, counts


def _by_source(faces: FaceSet) -> list[tuple[str, FaceSet]]:
    index = faces.index
    open_images = (index["split"] != "test").to_numpy()
    sources = dict.fromkeys(index["source"])
    return [(s, faces.where(open_images & (index["source"] == s).to_numpy())) for s in sources]
