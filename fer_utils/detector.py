"""Faces in a picture: MTCNN (Zhang et al. 2016) on onnxruntime, with pyramid and suppression in NumPy.

The three networks are facenet-pytorch's, as `reading_faces.mtcnn` exports them; the boxes are those of its
`MTCNN(keep_all=True)` up to rounding.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

NETWORKS = Path(__file__).parent / "weights_data"
THRESHOLDS = 0.6, 0.7, 0.7  # least face probability after each network
FACTOR = 0.709  # between levels of the pyramid
SMALLEST = 20  # pixels: a face smaller than that is not looked for unless asked
LARGEST_SIDE = 2000  # a larger picture is reduced first: faces of 1 % of its longer side are found


def session(path: Path, threads: int = 0) -> onnxruntime.InferenceSession:
    """Open an ONNX network on the processor; `threads` 0 takes all cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Detector:
    """Finds faces with MTCNN, each network on so many `threads` (0: all cores). Threads may share it."""

    def __init__(self, threads: int = 0) -> None:
        self._networks = [session(NETWORKS / f"mtcnn-{stage}.onnx", threads) for stage in "pro"]

    def detect(
        self, picture: np.ndarray, min_face: float | None = None, min_confidence: float = 0.9
    ) -> np.ndarray:
        """Find all faces of a picture, uint8 (H, W) grey or (H, W, 3) RGB, 0–255.

        Gives float32 (N, 5): left, top, right, bottom in pixels of the picture, and the probability of a
        face, 0–1, of at least `min_confidence`; the largest face first. `min_face` is its least height in
        pixels; by default 20, and 1 % of the longer side of a picture that is larger than 2,000 pixels.
        """
        step = 1 if min_face else max(1, max(picture.shape[:2]) // LARGEST_SIDE)
        pixels = np.asarray(Image.fromarray(picture).reduce(step)) if step > 1 else picture
        sums = _sums(pixels if pixels.ndim == 3 else pixels[..., None])
        boxes = self._propose(sums, min_face or SMALLEST)
        boxes, offsets = self._look(sums, boxes, 1, 24)
        kept = suppress(boxes, 0.7)
        boxes, offsets = self._look(sums, _squares(_moved(boxes[kept], offsets[kept])), 2, 48)
        boxes = _moved(boxes, offsets)
        boxes = boxes[suppress(boxes, 0.7, smaller=True)]
        boxes = boxes[boxes[:, 4] >= min_confidence]
        boxes[:, :4] *= step
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return boxes[np.argsort(-area, kind="stable")].astype(np.float32)

    def _propose(self, sums: np.ndarray, min_face: float) -> np.ndarray:
        """First stage: a window of 12 pixels slides over a pyramid. Gives float (N, 5)."""
        height, width = len(sums) - 1, sums.shape[2] - 1
        # Single precision as in facenet-pytorch: a box whose edge falls upon a pixel is then cut off alike.
        scale, levels = 12 / min_face, [np.empty((0, 9), np.float32)]
        while min(height, width) * scale >= 12:
            level = _averages([sums], int(height * scale + 1), int(width * scale + 1))
            offsets, probabilities = self._networks[0].run(None, {"pixels": level})
            rows, columns = np.nonzero(probabilities[0, 0] >= THRESHOLDS[0])
            corner = np.stack([columns, rows], 1).astype(np.float32)
            boxes = np.hstack([np.floor((2 * corner + 1) / scale), np.floor((2 * corner + 12) / scale)])
            scores = probabilities[0, 0, rows, columns]
            found = np.hstack([boxes, scores[:, None], offsets[0, :, rows, columns]])
            levels.append(found[suppress(found, 0.5)])
            scale *= FACTOR
        boxes = np.concatenate(levels)
        boxes = boxes[suppress(boxes, 0.7)]
        size = np.tile(boxes[:, 2:4] - boxes[:, :2], 2)
        return _squares(np.hstack([boxes[:, :4] + boxes[:, 5:] * size, boxes[:, 4:5]]))

    def _look(
        self, sums: np.ndarray, boxes: np.ndarray, stage: int, side: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 5) in which a later stage, at `side` pixels, sees a face, and its offsets (N, 4)."""
        edges = np.trunc(boxes[:, :4]).astype(int)
        left, top = np.maximum(edges[:, :2], 1).T - 1
        right, bottom = np.minimum(edges[:, 2:], (sums.shape[2] - 1, len(sums) - 1)).T
        inside = (bottom > top) & (right > left)
        regions = np.stack([top, bottom + 1, left, right + 1], 1)[inside].tolist()
        if not regions:  # of nothing, older versions of onnxruntime cannot tell the shape
            return np.empty((0, 5)), np.empty((0, 4))
        pixels = _averages([sums[y:y_end, :, x:x_end] for y, y_end, x, x_end in regions], side, side)
        offsets, *_, probabilities = self._networks[stage].run(None, {"pixels": pixels})
        passed = probabilities[:, 1] > THRESHOLDS[stage]
        return np.hstack([boxes[inside, :4], probabilities[:, 1:]])[passed], offsets[passed]


def _sums(pixels: np.ndarray) -> np.ndarray:
    """Sums of uint8 (H, W, channels) over all rectangles at its upper left: int32 (H + 1, channels, W + 1).

    A mean over any rectangle costs four look-ups. Sums may overflow; differences are right all the same.
    """
    # Rows, channels, columns: look-ups then copy whole rows, or run along one.
    table = np.zeros((pixels.shape[0] + 1, pixels.shape[2], pixels.shape[1] + 1), np.int32)
    table[1:, :, 1:] = pixels.transpose(0, 2, 1)
    np.cumsum(table, 2, out=table)
    for above, row in pairwise(table):
        row += above  # six times as fast as cumsum down the columns
    return table


def _averages(tables: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Scale rectangles, cut out of a table of sums, as MTCNN wants them: float32 (N, 3, height, width).

    A pixel, about −1 to 1, is the mean of its part; parts overlap as in adaptive pooling.
    """
    top, bottom = _edges(np.array([[len(table) - 1] for table in tables]), height)
    left, right = _edges(np.array([[table.shape[2] - 1] for table in tables]), width)
    means = np.empty((len(tables), 3, height, width), np.float32)
    for number, table in enumerate(tables):
        strips = table[bottom[number]] - table[top[number]]
        total = strips.take(right[number], 2, mode="clip")
        total -= strips.take(left[number], 2, mode="clip")
        means[number] = total.transpose(1, 0, 2)
    pixels = (bottom - top)[:, None, :, None] * (right - left)[:, None, None, :]
    means /= pixels.astype(np.float32) * 128
    means -= 127.5 / 128
    return means


def _edges(lengths: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `count` overlapping parts of lengths, int (N, 1), begins and ends: int (N, count)."""
    place = np.arange(count)
    return place * lengths // count, -(-(place + 1) * lengths // count)


def suppress(boxes: np.ndarray, threshold: float, *, smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: keep the most probable of boxes that overlap by more than a threshold, 0–1.

    Boxes are float (N, 5 or more): left, top, right, bottom, probability. Overlap is intersection over union;
    with `smaller`, as in MTCNN's last stage, it is measured against the smaller box, pixels counted with both
    edges. Gives int (K,), the rows that are kept, the most probable first.
    """
    left, top, right, bottom, scores = boxes[:, :5].T
    more = 1.0 if smaller else 0.0
    area = (right - left + more) * (bottom - top + more)
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        wide = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + more
        high = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + more
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        whole = np.minimum(area[best], area[rest]) if smaller else area[best] + area[rest] - shared
        order = rest[shared <= threshold * whole]
    return np.array(kept, int)


def _moved(boxes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move the edges of boxes (N, 5) by shares of their sizes."""
    size = np.tile(boxes[:, 2:4] - boxes[:, :2] + 1, 2)
    return np.hstack([boxes[:, :4] + offsets * size, boxes[:, 4:]])


def _squares(boxes: np.ndarray) -> np.ndarray:
    """Make boxes (N, 5) square about their centres, as large as their longer side."""
    size = boxes[:, 2:4] - boxes[:, :2]
    side = size.max(1, keepdims=True)
    corner = boxes[:, :2] + (size - side) / 2
    return np.hstack([corner, corner + side, boxes[:, 4:]])
