"""From frames to faces: MTCNN detection (Zhang et al. 2016), square crops, resizing with antialiasing."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from torch.nn import functional as F

Box = tuple[float, float, float, float]
# Frames are scaled down to this longer side for detection; boxes are given in the frame's own pixels.
DETECTION_SIDE = 320
THRESHOLD = 0.9  # least confidence of MTCNN's last stage
SMALLEST_FACE = 24  # pixels of the scaled frame; smaller ones are not looked for


class FaceDetector:
    """Detects faces with facenet-pytorch's MTCNN, whose weights come with that package."""

    @cached_property
    def _mtcnn(self) -> MTCNN:
        return MTCNN(keep_all=True, min_face_size=SMALLEST_FACE)

    def boxes(self, frame: np.ndarray) -> list[Box]:
        """Faces of a grey frame, uint8 (H, W): (left, top, right, bottom) in pixels, the largest first."""
        scale = max(1.0, max(frame.shape) / DETECTION_SIDE)
        image = Image.fromarray(frame)
        if scale > 1:
            size = round(image.width / scale), round(image.height / scale)
            image = image.resize(size, Image.Resampling.BILINEAR)
        if min(image.size) < SMALLEST_FACE:  # MTCNN stops with an error of its own
            return []
        with torch.inference_mode():
            boxes, confidence = self._mtcnn.detect(image.convert("RGB"))
        if boxes is None:
            return []
        kept = [tuple((scale * b).tolist()) for b in boxes.astype(float)[confidence >= THRESHOLD]]
        return sorted(kept, key=lambda b: -(b[2] - b[0]) * (b[3] - b[1]))


def crop_square(frame: np.ndarray, box: Box) -> np.ndarray:
    """Cut the square around a face out of uint8 (H, W): uint8 (S, S), S the longer side of the box.

    MTCNN's box reaches from the hairline to the chin and is higher than wide. The square with its centre and
    longer side is FER2013's frame: forehead to chin, ears at the sides. Beyond `frame`, its edge is repeated.
    """
    left, top, right, bottom = box
    side = max(1, round(max(right - left, bottom - top)))
    x, y = round((left + right - side) / 2), round((top + bottom - side) / 2)
    rows = np.clip(np.arange(y, y + side), 0, frame.shape[0] - 1)
    columns = np.clip(np.arange(x, x + side), 0, frame.shape[1] - 1)
    return frame[np.ix_(rows, columns)]


def centre_square(frame: np.ndarray) -> np.ndarray:
    """The largest square in the middle of a frame: what is taken where no face is detected."""
    side = min(frame.shape)
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top : top + side, left : left + side]


def resize(images: np.ndarray, size: int = 64) -> np.ndarray:
    """Resize square images, uint8 (N, S, S), to (N, size, size): bicubic, with antialiasing."""
    if images.shape[1:] == (size, size):
        return images
    floats = torch.from_numpy(np.array(images)).unsqueeze(1).float()
    scaled = F.interpolate(floats, (size, size), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).squeeze(1).byte().numpy()


def face_image(frame: np.ndarray, detector: FaceDetector, size: int = 64) -> tuple[np.ndarray, int]:
    """The largest face of a frame, uint8 (size, size), or its centred square, and the number of faces."""
    boxes = detector.boxes(frame)
    square = crop_square(frame, boxes[0]) if boxes else centre_square(frame)
    return resize(square[None], size)[0], len(boxes)
