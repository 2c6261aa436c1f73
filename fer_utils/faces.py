"""From frames to faces: MTCNN detection (Zhang et al. 2016), square crops, resizing with antialiasing."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from facenet_pytorch import MTCNN
from PIL import Image
from torch.nn import functional as F

Box = tuple[float, float, float, float]

# MTCNN's box reaches from the hairline to the chin and is higher than wide; FER2013's frame is a square
# that reaches from the forehead to just below the chin, with the ears at its sides. The square with the
# box's height as its side, moved down by nothing, is that frame; so the margin is none by default.
MARGIN = 0.0
# Frames are scaled down to this longer side for detection; boxes are given in the frame's own pixels.
DETECTION_SIDE = 320
SMALLEST_FACE = 24  # pixels of the scaled frame; smaller ones are not looked for


class FaceDetector:
    """Finds the largest face of a frame with facenet-pytorch's MTCNN, whose weights come with that package.

    Args:
        device: where to compute.
        threshold: least confidence of MTCNN's last stage, 0–1.
    """

    def __init__(self, device: str | torch.device = "cpu", threshold: float = 0.9) -> None:
        self.device, self.threshold = device, threshold

    @cached_property
    def _mtcnn(self) -> MTCNN:
        return MTCNN(keep_all=True, min_face_size=SMALLEST_FACE, device=self.device)

    def boxes(self, frame: np.ndarray) -> list[Box]:
        """All faces of a frame, the largest first.

        Args:
            frame: uint8 (H, W), grey, 0–255.

        Returns:
            Boxes (left, top, right, bottom) in pixels of the frame; an empty list where there is no face.
        """
        scale = max(1.0, max(frame.shape) / DETECTION_SIDE)
        image = Image.fromarray(frame)
        if scale > 1:
            image = image.resize(
                (round(image.width / scale), round(image.height / scale)), Image.Resampling.BILINEAR
            )
        if min(image.size) < SMALLEST_FACE:  # MTCNN stops with an error of its own
            return []
        with torch.inference_mode():
            found, confidence = self._mtcnn.detect(image.convert("RGB"))
        if found is None:
            return []
        kept = [
            tuple(float(v) * scale for v in b)
            for b, c in zip(found, confidence, strict=True)
            if c >= self.threshold
        ]
        return sorted(kept, key=lambda b: -(b[2] - b[0]) * (b[3] - b[1]))


def crop_square(frame: np.ndarray, box: Box, margin: float = MARGIN) -> np.ndarray:
    """Cut the square around a face.

    Args:
        frame: uint8 (H, W).
        box: (left, top, right, bottom) in pixels; may reach beyond the frame.
        margin: added on each side, as a share of the box's longer side.

    Returns:
        uint8 (S, S), S = longer side × (1 + 2 margin), rounded; pixels beyond the frame repeat its edge.
    """
    left, top, right, bottom = box
    side = max(1, round(max(right - left, bottom - top) * (1 + 2 * margin)))
    x, y = round((left + right - side) / 2), round((top + bottom - side) / 2)
    rows = np.clip(np.arange(y, y + side), 0, frame.shape[0] - 1)
    columns = np.clip(np.arange(x, x + side), 0, frame.shape[1] - 1)
    return frame[np.ix_(rows, columns)]


def centre_square(frame: np.ndarray) -> np.ndarray:
    """The largest square in the middle of a frame: what is taken where no face is found."""
    side = min(frame.shape)
    top, left = (frame.shape[0] - side) // 2, (frame.shape[1] - side) // 2
    return frame[top : top + side, left : left + side]


def resize(images: np.ndarray, size: int = 64) -> np.ndarray:
    """Resize square images with bicubic interpolation and antialiasing.

    Args:
        images: uint8 (N, S, S).
        size: side of the result in pixels.

    Returns:
        uint8 (N, size, size). Images of that size already are returned as they are.
    """
    if images.shape[1:] == (size, size):
        return images
    out = np.empty((len(images), size, size), np.uint8)
    for start in range(0, len(images), 512):
        part = torch.from_numpy(np.array(images[start : start + 512])).unsqueeze(1).float()
        scaled = F.interpolate(part, (size, size), mode="bicubic", antialias=True, align_corners=False)
        out[start : start + 512] = scaled.round().clamp(0, 255).squeeze(1).byte().numpy()
    return out


def face_image(frame: np.ndarray, detector: FaceDetector, size: int = 64) -> tuple[np.ndarray, int]:
    """Cut and resize the largest face of a frame.

    Args:
        frame: uint8 (H, W), grey, 0–255.
        detector: finds the faces.
        size: side of the result in pixels.

    Returns:
        The face, uint8 (size, size), and the number of faces found; with none, the centred square.
    """
    boxes = detector.boxes(frame)
    square = crop_square(frame, boxes[0]) if boxes else centre_square(frame)
    return resize(square[None], size)[0], len(boxes)
