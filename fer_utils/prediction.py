"""Expressions of the faces in a picture: detector, crop and network on onnxruntime, without PyTorch."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_utils.detector import NETWORKS, SMALLEST, Detector, session
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.faces import SIDE, Box, crop_square
from fer_utils.pictures import read_picture

CROPPED_SIDE = 96  # a picture of 20 to so many pixels a side is a face crop
FILLED = 0.8  # of a picture's longer side: a face this high fills the picture, which is cropped already


@dataclass(frozen=True)
class Face:
    """A face and its expression.

    Attributes:
        source: the file, or the place in the list of pictures.
        box: left, top, right, bottom in pixels of the upright picture.
        confidence: of the detector that this is a face, 0–1; none where a small crop was taken as it is.
        probabilities: float32 (6,), of `CLASSES`, calibrated on FER2013; they sum to 1.
        crop: uint8 (64, 64), grey: what the network saw.
    """

    source: str
    box: Box
    confidence: float | None
    probabilities: np.ndarray
    crop: np.ndarray

    @property
    def emotion(self) -> str:
        """The most probable class."""
        return CLASSES[int(self.probabilities.argmax())]

    def row(self) -> dict[str, Any]:
        """Plain values for a line of a table."""
        box = dict(zip(("left", "top", "right", "bottom"), (round(v, 1) for v in self.box), strict=True))
        chances = {c: round(float(p), 4) for c, p in zip(CLASSES, self.probabilities, strict=True)}
        confidence = None if self.confidence is None else round(self.confidence, 3)
        return {"file": self.source, **box, "confidence": confidence, "emotion": self.emotion, **chances}


class Faces(list[Face]):
    """Faces, in the order of their pictures, the largest of each first."""

    def to_frame(self) -> Any:
        """As a pandas DataFrame, one row a face (needs pandas)."""
        import pandas as pd

        return pd.DataFrame([face.row() for face in self])


class Predictor:
    """A network and a detector, loaded once; may be shared by threads.

    Args:
        network: ``"facenet"`` (best), ``"easynet"`` (faster) or ``"easynet-small"`` (fastest); with ``-int8``
            after it, half the room and less time on most processors; or a file that `fer export onnx` wrote.
        threads: cores to use; 0 for all.
    """

    def __init__(self, network: str | Path = "facenet", threads: int = 0) -> None:
        known = {path.stem: path for path in sorted(NETWORKS.glob("*net*.onnx"), key=lambda p: p.stem)}
        path = known.get(str(network), Path(network))
        if not path.is_file():
            remedy = f"name one of {', '.join(known)}, or a file that `fer export onnx` wrote"
            raise DataError("there is no such network", file=path, remedy=remedy)
        self._detector = Detector(threads)
        try:
            self._network = session(path, threads)
            about = self._network.get_modelmeta().custom_metadata_map
            self._temperature = float(about.get("temperature", 1))
            answer = self.probabilities(np.zeros((1, SIDE, SIDE), np.uint8))
            if answer.shape != (1, len(CLASSES)) or not np.isfinite(answer).all():
                raise ValueError("its answer is no probabilities of six classes")
        except Exception as error:  # onnxruntime has errors of many kinds
            problem = f"this is no network that `fer export onnx` wrote, or a damaged one ({error})"
            raise DataError(problem[:300], file=path, remedy="export it again") from None

    def probabilities(self, crops: np.ndarray) -> np.ndarray:
        """Classify grey face crops, uint8 (N, 64, 64): float32 (N, 6), calibrated; rows sum to 1."""
        logits = []
        for start in range(0, len(crops), 64):
            images = crops[start : start + 64, None].astype(np.float32) / 255
            logits += self._network.run(None, {"images": images})
        scaled = np.concatenate(logits) / self._temperature
        powers = np.exp(scaled - scaled.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def predict(
        self,
        picture: Any,
        *,
        source: str = "",
        cropped: bool | None = None,
        largest: bool = False,
        min_confidence: float = 0.9,
        min_face: float | None = None,
    ) -> Faces:
        """Find and classify the faces of one picture.

        Args:
            picture: for `fer_utils.pictures.read_picture`.
            source: name of it in the result.
            cropped: whether the picture is a face crop, framed from forehead to chin, to be taken as it is;
                by default it is if it has 20 to 96 pixels a side or a face fills it.
            largest: of several faces, the largest only.
            min_confidence: least confidence of the detector, 0–1.
            min_face: least height of a face in pixels, see `Detector.detect`.

        Returns:
            One `Face` a face; none where there is no face.
        """
        pixels = read_picture(picture)
        height, width = pixels.shape[:2]
        small = min(height, width) >= SMALLEST and max(height, width) <= CROPPED_SIDE
        if cropped or (cropped is None and small):
            found = [[0.0, 0.0, float(width), float(height), None]]
        else:
            rows = self._detector.detect(pixels, min_face, min_confidence)[: 1 if largest else None]
            if cropped is None and len(rows) == 1 and rows[0, 3] - rows[0, 1] >= FILLED * max(height, width):
                rows[0, :4] = 0, 0, width, height
            found = rows.tolist()
        grey = np.asarray(Image.fromarray(pixels).convert("L"))
        crops = [crop_face(grey, tuple(box)) for *box, _ in found]
        answers = self.probabilities(np.stack(crops)) if crops else ()
        parts = zip(found, answers, crops, strict=True)
        return Faces(Face(source, tuple(box), score, *seen) for (*box, score), *seen in parts)


def predict(pictures: Any, network: str = "facenet", **options: Any) -> Faces:
    """Find and classify the faces of pictures.

    Args:
        pictures: one picture or an iterable of them: paths, bytes of files, Pillow images, or uint8 arrays
            (H, W) grey or (H, W, 3) RGB.
        network: see `Predictor`.
        **options: see `Predictor.predict`.

    Raises:
        DataError: a picture cannot be read. `Predictor.predict` answers one by one.
    """
    one = isinstance(pictures, str | Path | bytes | Image.Image | np.ndarray)
    several: Iterable[Any] = [pictures] if one else pictures
    predictor, faces = _predictor(network), Faces()
    for number, picture in enumerate(several):
        source = str(picture) if isinstance(picture, str | Path) else str(number)
        faces += predictor.predict(picture, source=source, **options)
    return faces


_predictor = lru_cache(Predictor)


def crop_face(grey: np.ndarray, box: Box) -> np.ndarray:
    """Cut the square about a box out of uint8 (H, W), and scale it with antialiasing: uint8 (64, 64)."""
    square = Image.fromarray(crop_square(grey, box).astype(np.float32))
    scaled = square.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(scaled).round().clip(0, 255).astype(np.uint8)
