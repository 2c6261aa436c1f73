"""Expressions over time: one track a face, probabilities smoothed, from a video file or a camera."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fer_utils.errors import DataError
from fer_utils.prediction import Face, Predictor

OVERLAP = 0.3  # least intersection over union of a face with itself a frame later
PATIENCE = 1.0  # seconds that a face may be hidden and still be the same
SMOOTHING = 0.25  # seconds: time constant of the filter, fitted on drawn sequences (chapter 9)


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        number: from 0.
        seconds: from the first frame, by the video's own time stamps.
        pixels: uint8 (H, W, 3), RGB, upright.
    """

    number: int
    seconds: float
    pixels: np.ndarray


def read_video(path: Path | str, every: int = 1) -> Iterator[Frame]:
    """Decode a video frame by frame.

    Args:
        path: a file, or what FFmpeg opens, such as a camera's device.
        every: so many frames on, the next one is given.

    Raises:
        DataError: the package av is missing, or the file is missing, damaged or no video.
    """
    try:
        import av
    except ImportError:
        raise DataError("videos need the package av", remedy='`pip install "fer-utils[video]"`') from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(
                    "there is no video in this file", file=Path(path), remedy="give a video or pictures"
                )
            start = None
            for number, frame in enumerate(container.decode(video=0)):
                if start is None:
                    start = frame.time or 0.0
                if number % every == 0:
                    # PyAV does not apply the rotation that phones note.
                    turned = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
                    yield Frame(number, float((frame.time or 0.0) - start), np.ascontiguousarray(turned))
    except av.error.FileNotFoundError:
        raise DataError("there is no such file", file=Path(path), remedy="check the path") from None
    except (av.error.FFmpegError, ValueError) as error:
        raise DataError(
            f"the video is damaged ({error})", file=Path(path), remedy="get the file again"
        ) from None


@dataclass
class _Track:
    number: int
    face: Face
    seconds: float
    smooth: np.ndarray


@dataclass
class Tracker:
    """Gives faces of successive frames a number, and smooths what is predicted of each.

    A face continues the track that it overlaps most, and starts a new one where it overlaps none.
    Probabilities are an exponential average over time: with a time constant τ, a frame Δt later counts
    1 − exp(−Δt / τ).

    Args:
        smoothing: time constant τ in seconds; 0 for none.
    """

    smoothing: float = SMOOTHING
    _tracks: list[_Track] = field(default_factory=list)
    _count: int = 0

    def update(self, faces: Iterable[Face], seconds: float) -> list[tuple[int, Face]]:
        """Take the faces of a frame.

        Args:
            faces: as `Predictor.predict` gives them.
            seconds: time of the frame; not before the last one.

        Returns:
            Number of the track and the face with smoothed probabilities, in the order given.
        """
        self._tracks = [track for track in self._tracks if seconds - track.seconds <= PATIENCE]
        faces, result = list(faces), {}
        pairs = [
            (overlap(track.face.box, face.box), place, track)
            for place, face in enumerate(faces)
            for track in self._tracks
        ]
        for shared, place, track in sorted(pairs, key=lambda pair: -pair[0]):
            if (
                shared >= OVERLAP
                and place not in result
                and all(track is not other for other in result.values())
            ):
                weight = 1.0 if not self.smoothing else 1 - np.exp((track.seconds - seconds) / self.smoothing)
                track.smooth = track.smooth + weight * (faces[place].probabilities - track.smooth)
                track.face, track.seconds = faces[place], seconds
                result[place] = track
        for place, face in enumerate(faces):
            if place not in result:
                result[place] = _Track(self._count, face, seconds, face.probabilities.astype(float))
                self._tracks.append(result[place])
                self._count += 1
        return [
            (result[place].number, replace(face, probabilities=result[place].smooth.astype(np.float32)))
            for place, face in enumerate(faces)
        ]


def predict_video(
    path: Path | str, predictor: Predictor, *, every: int = 1, smoothing: float = SMOOTHING, **options: Any
) -> Iterator[tuple[Frame, list[tuple[int, Face]]]]:
    """Classify the faces of a video over time.

    Args:
        path: for `read_video`.
        predictor: a network and a detector.
        every: look at every so many frames only.
        smoothing: for `Tracker`.
        **options: for `Predictor.predict`.

    Returns:
        Each frame looked at, with its faces: number of the track, and the face with smoothed probabilities.
    """
    tracker = Tracker(smoothing)
    for frame in read_video(path, every):
        yield frame, tracker.update(predictor.predict(frame.pixels, cropped=False, **options), frame.seconds)


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom), 0–1."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    whole = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)) - shared
    return shared / whole if whole > 0 else 0.0
