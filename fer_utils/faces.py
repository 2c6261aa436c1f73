"""From frames to faces: square crops around MTCNN's boxes, resizing with antialiasing."""

import numpy as np

from fer_utils.detector import SMALLEST, Detector

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels
SIDE = 64  # pixels of the faces that are merged, and that networks take
LARGE_FACE = 1 / 13  # of a frame's longer side: portraits of a laboratory have no smaller face


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


def resize(images: np.ndarray) -> np.ndarray:
    """Resize square images, uint8 (N, S, S), to (N, 64, 64): bicubic, with antialiasing."""
    if images.shape[1:] == (SIDE, SIDE):
        return images
    import torch  # predicting does without it
    from torch.nn import functional as F

    floats = torch.from_numpy(np.array(images)).unsqueeze(1).float()
    scaled = F.interpolate(floats, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    return scaled.round().clamp(0, 255).squeeze(1).byte().numpy()


def face_image(frame: np.ndarray, detector: Detector) -> tuple[np.ndarray, int]:
    """The largest face of a frame, uint8 (64, 64), or its centred square, and the number of faces."""
    found = detector.detect(frame, max(SMALLEST, LARGE_FACE * max(frame.shape)))
    square = crop_square(frame, found[0, :4].tolist()) if len(found) else centre_square(frame)
    return resize(square[None])[0], len(found)
