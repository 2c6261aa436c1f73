"""Expressions over time: one track a face, probabilities smoothed, from a video file or a camera."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from fer_utils.annotate import annotate, shared_area
from fer_utils.errors import DataError
from fer_utils.faces import Box
from fer_utils.files import atomic_path
from fer_utils.prediction import Face, Predictor

OVERLAP = 0.3  # least intersection over union of a face with itself a frame later
PATIENCE = 1.0  # seconds that a face may be hidden and still be the same
INERTIA = 0.2  # seconds over which a face's speed is averaged
SMOOTHING = 0.12  # seconds: time constant of the filter, fitted on drawn sequences (chapter 9)
MISSING = 1.0  # seconds that a video may end before its header says so
TICKS = 90_000  # a second, in the videos that are written

# FFmpeg's names for cameras, by system: the input format, and the camera of a number.
CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}


@dataclass(frozen=True)
class Frame:
    """A frame of a video."""

    number: int  # from 0, of all frames of the video
    seconds: float  # from the first frame, by the video's own time stamps; never less than a frame before
    pixels: np.ndarray  # uint8 (H, W, 3), RGB, upright, with square pixels


Answer = tuple[Frame, list[tuple[int, Face]]]


def read_video(source: Path | str | int, every: int = 1) -> Iterator[Frame]:
    """Decode a video: of a file, or of a camera by its number, from 0 (on Linux and macOS).

    Of `every` so many frames, it gives the first. A DataError is raised where the package av is missing,
    there is no such file or camera, or it is no video; a damaged one gives its frames up to the damage first.
    """
    try:
        import av
    except ImportError:
        raise DataError("videos need the package av", remedy='`pip install "fer-utils[video]"`') from None
    given, seconds, name, kind = 0, 0.0, str(source), None
    if isinstance(source, int):
        if sys.platform not in CAMERAS:
            raise DataError("cameras can be read on Linux and macOS only", remedy="record a video first")
        kind, name = CAMERAS[sys.platform]
        name = name.format(source)
    try:
        with av.open(name, format=kind, metadata_errors="replace") as container:
            stream = _pictures(container)
            length = float((container.duration or 0) / av.time_base)
            start, ended = None, 0.0
            for packet in container.demux():
                if packet.pts is not None and packet.time_base:
                    ended = max(ended, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                for frame in packet.decode() if packet.stream is stream else ():
                    if frame.is_corrupt:
                        raise EOFError("a frame is cut off")
                    time = given / (stream.guessed_rate or 25) if frame.time is None else frame.time
                    start = time if start is None else start
                    seconds = max(seconds, float(time - start))
                    if given % every == 0:
                        yield Frame(given, seconds, _upright(frame, stream))
                    given += 1
            if not given:
                raise EOFError("it has no frame")
            if ended - (container.start_time or 0) / av.time_base < length - MISSING:
                raise EOFError(f"it should last {length:.1f} s")
    except (av.error.FFmpegError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem, remedy = f"this is no video, or a damaged one ({reason})", "give a whole video"
        if given:
            problem = f"the video is damaged after {seconds:.1f} s, {given} frames ({reason})"
            remedy = "get the file again"
        elif isinstance(source, int):
            problem = f"camera {source} gives no pictures ({reason})"
            remedy = "check its number, and that no other program uses it"
        elif not Path(source).is_file():
            problem, remedy = f"the file cannot be read ({reason})", "check the path"
        raise DataError(problem, file=None if isinstance(source, int) else source, remedy=remedy) from None


def _pictures(container: Any) -> Any:
    """The first stream of moving pictures: no cover of a song, and no text, which FFmpeg would draw."""
    streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if not streams or container.format.name == "tty":
        problem = "there is no video in this file"
        raise DataError(problem, file=container.name, remedy="give a video or pictures")
    return streams[0]


def _upright(frame: Any, stream: Any) -> np.ndarray:
    """The frame as it is meant to be seen, uint8 (H, W, 3): FFmpeg neither turns nor stretches it."""
    aspect = stream.sample_aspect_ratio or 1
    pixels = frame.to_ndarray(format="rgb24", width=round(frame.width * aspect))
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return pixels
    (a, b), (c, d) = np.frombuffer(bytes(data), np.int32).reshape(3, 3)[:2, :2].tolist()
    if abs(b) > abs(a):  # columns become rows
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


@dataclass(eq=False)
class _Track:
    number: int
    face: Face  # as it was seen last, its probabilities averaged
    seconds: float  # when that was
    speed: np.ndarray | float = 0.0  # float (4,): of the box, pixels a second

    def near(self, box: Box, seconds: float) -> float:
        """Overlap with where the face was, or would be had it gone on as it went."""
        ahead = np.array(self.face.box) + (seconds - self.seconds) * self.speed
        return max(overlap(self.face.box, box), overlap(tuple(ahead), box))

    def follow(self, face: Face, seconds: float, smoothing: float) -> None:
        """Take what is seen of the face now."""
        passed = seconds - self.seconds
        if passed > 0:
            speed = (np.array(face.box) - self.face.box) / passed
            self.speed = self.speed + _weight(passed, INERTIA) * (speed - self.speed)
        smooth = self.face.probabilities
        smooth = smooth + _weight(passed, smoothing) * (face.probabilities - smooth)
        self.face, self.seconds = replace(face, probabilities=smooth), seconds


class Tracker:
    """Gives faces of successive frames a number, and smooths what is predicted of each.

    A face continues the track that it overlaps most, where that was or would be now at its speed, and starts
    a new one where it overlaps none. A face may be hidden for a second. Probabilities are an exponential
    average over time: with a time constant τ, a frame Δt after the last one counts 1 − exp(−Δt / τ).
    `smoothing` is τ in seconds; 0 for none.
    """

    def __init__(self, smoothing: float = SMOOTHING) -> None:
        self.smoothing, self._last, self._numbers = smoothing, 0.0, count()
        self._tracks: list[_Track] = []

    def update(self, faces: Iterable[Face], seconds: float) -> list[tuple[int, Face]]:
        """Take the faces that `Predictor.predict` gave of a frame, which is not before the last one.

        Gives, in their order, the number of the track, from 0, and the face with smoothed probabilities.
        """
        # What was seen in the frame before is known, however long ago that was.
        self._tracks = [t for t in self._tracks if t.seconds >= self._last or seconds - t.seconds <= PATIENCE]
        self._last, faces = seconds, list(faces)
        pairs = [
            (track.near(face.box, seconds), place, track)
            for place, face in enumerate(faces)
            for track in self._tracks
        ]
        found: dict[int, _Track] = {}
        for shared, place, track in sorted(pairs, key=lambda pair: -pair[0]):
            if shared >= OVERLAP and place not in found and track not in found.values():
                track.follow(faces[place], seconds, self.smoothing)
                found[place] = track
        for place, face in enumerate(faces):
            if place not in found:
                found[place] = _Track(next(self._numbers), face, seconds)
                self._tracks.append(found[place])
        return [(found[place].number, found[place].face) for place in range(len(faces))]


def predict_video(
    source: Path | str | int,
    predictor: Predictor,
    *,
    every: int = 1,
    smoothing: float = SMOOTHING,
    **options: Any,
) -> Iterator[Answer]:
    """Classify the faces of a video over time.

    Gives each frame looked at, with its faces: number of the track, and the face with smoothed probabilities.
    `source`, `every` and errors are those of `read_video`; `smoothing` is for `Tracker`, the options are for
    `Predictor.predict`.
    """
    tracker = Tracker(smoothing)
    for frame in read_video(source, every):
        faces = predictor.predict(frame.pixels, source=str(source), cropped=False, **options)
        yield frame, tracker.update(faces, frame.seconds)


def annotate_video(answers: Iterable[Answer], path: Path | str) -> Iterator[Answer]:
    """Write a video with boxes and bars while passing on what `predict_video` gives.

    The frames keep their times; there is no sound. What came before an error, or before the reader of the
    answers stopped, is written; without a frame, no file is. An older file is replaced at the end. A
    DataError says that `path` does not end in .mp4.
    """
    import av

    path, answers, stopped = Path(path), iter(answers), None
    if path.suffix.lower() != ".mp4":
        raise DataError("annotated videos are MP4", file=path, remedy="give a name that ends in .mp4")
    if (first := next(answers, None)) is None:
        return
    height, width = (side + side % 2 for side in first[0].pixels.shape[:2])  # H.264 has even sides
    with atomic_path(path) as aside, av.open(str(aside), "w", format="mp4") as container:
        # Without frames that look ahead: at an uneven rate, MP4 would note too short a length.
        stream = container.add_stream("h264", rate=30, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base, before = Fraction(1, TICKS), -1
        try:
            for frame, tracks in chain([first], answers):
                numbers = [number for number, _ in tracks]
                drawn = annotate(frame.pixels, [face for _, face in tracks], numbers)
                picture = av.VideoFrame.from_ndarray(drawn, format="rgb24").reformat(width, height)
                before = picture.pts = max(before + 1, round(frame.seconds * TICKS))
                picture.time_base = Fraction(1, TICKS)
                container.mux(stream.encode(picture))
                yield frame, tracks
        except BaseException as error:
            stopped = error
        container.mux(stream.encode(None))
    if stopped:
        raise stopped


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of two boxes, 0–1."""
    shared = shared_area(first, second)
    whole = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second)) - shared
    return shared / whole if whole > 0 else 0.0


def _weight(passed: float, constant: float) -> float:
    """Share of what is new in an exponential average; all of it without a time constant."""
    return float(-np.expm1(-passed / constant)) if constant > 0 else 1.0
