"""What does smoothing over time gain? `python -m reading_faces.study.smoothing` fits the filter for videos.

Drawn people go from neutral to the peak of an expression. The camera shakes and is noisy, and the clip is
compressed, so that answers flicker; detector and network see what they would see of a real file.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from fer_utils.datasets import read_sources
from fer_utils.demo.drawn_face import NEUTRAL, PROTOTYPES, Identity, View, draw_face
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.experiment import workspace
from fer_utils.prediction import Predictor
from fer_utils.video import predict_video
from reading_faces.study.store import write_report

RATE, SECONDS = 25, 2.4
HEIGHT, WIDTH = 120, 160  # a face has about 65 pixels
EDGE = 8  # pixels around the picture, into which the camera shakes
LEVELS = 8  # steps in which an expression is drawn
SHOWN = tuple(name for name in CLASSES if name != "neutral")
KINDS = ("probabilities", "logarithms", "window")
CONSTANTS = *(k / 50 for k in range(11)), 0.25, 0.3, 0.4, 0.5, 0.7, 1.0  # seconds
CKPLUS_RATE, CKPLUS_PEAK = 30, 3  # frames a second; frames with the label
MEASURES = ("peak", "changes", "delay")


@dataclass(frozen=True)
class Sequence:
    """What a network says of a face over time."""

    label: int  # class at the peak, 0–5
    worse: float  # how bad the clip is, 0–1
    seconds: np.ndarray  # float (T,)
    way: np.ndarray  # float (T,), how far the expression has come, 0–1
    probabilities: np.ndarray  # float (T, 6), of each frame by itself


def draw_clip(emotion: str, worse: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Film a drawn person who goes from neutral to the peak of an emotion, 25 frames a second.

    `worse` is 0 for little noise and a steady hand, 1 for bad light; `rng` draws the rest. Gives grey frames,
    uint8 (T, H, W), and how far the expression has come in each, float (T,), 0–1.
    """
    who, peak = Identity.draw(rng), PROTOTYPES[emotion][0].varied(rng, 0.15)
    view = View(
        roll=rng.normal(0, 0.03),
        yaw=rng.normal(0, 0.04),
        centre=(rng.normal(0, 0.1), rng.normal(0.3, 0.08)),
        span=1.9 * rng.uniform(0.95, 1.05),
        light=(rng.normal(0, 0.3), rng.normal(-0.4, 0.15)),
        ambient=rng.uniform(0.5, 0.65),
        background=rng.uniform(0.3, 0.8),
    )
    shape = HEIGHT + 2 * EDGE, WIDTH + 2 * EDGE
    drawn = [draw_face(who, NEUTRAL.mixed(peak, k / LEVELS), view, shape) for k in range(LEVELS + 1)]
    time = np.arange(round(RATE * SECONDS)) / RATE
    rise = np.clip((time - rng.uniform(0.6, 0.9)) / rng.uniform(0.3, 0.7), 0, 1)
    way = rise * rise * (3 - 2 * rise)
    grain, shift, frames = 2 + 14 * worse, np.zeros(2), []
    for share in way:
        shift = 0.95 * shift + rng.normal(0, 0.2 + 0.4 * worse, 2)  # a hand that shakes
        x, y = np.clip(shift + EDGE, 0, 2 * EDGE)
        still = Image.fromarray(drawn[round(share * LEVELS)])
        window = still.transform((WIDTH, HEIGHT), Image.Transform.AFFINE, (1, 0, x, 0, 1, y), 3)
        lit = np.asarray(window, float) * rng.normal(1, 0.02)
        frames.append((lit + rng.normal(0, grain, lit.shape)).round().clip(0, 255).astype(np.uint8))
    return np.stack(frames), way


def write_clip(path: Path, frames: np.ndarray, quality: int) -> None:
    """Compress frames, uint8 (T, H, W), with H.264; 18 is good, 40 is bad quality."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=RATE, options={"crf": str(quality)})
        stream.height, stream.width = frames.shape[1:]
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="gray")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def film(count: int, seed: int, predictor: Predictor) -> Iterator[Sequence]:
    """Film drawn people, each emotion in turn, well or badly, and read the clips as any other video."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            rng, emotion = np.random.default_rng([seed, number]), SHOWN[number % len(SHOWN)]
            worse = rng.uniform()
            frames, way = draw_clip(emotion, worse, rng)
            write_clip(Path(folder, "clip.mp4"), frames, round(24 + 14 * worse))
            answers = predict_video(Path(folder, "clip.mp4"), predictor, smoothing=0, largest=True)
            seen = [(frame.number, frame.seconds, found[0][1]) for frame, found in answers if found]
            numbers, seconds, faces = zip(*seen, strict=True)
            chances = np.stack([face.probabilities for face in faces])
            yield Sequence(CLASSES.index(emotion), worse, np.array(seconds), way[list(numbers)], chances)


def ckplus(root: Path, predictor: Predictor) -> Iterator[Sequence]:
    """Read the labelled sequences of CK+ below a folder; the expression is taken to rise evenly.

    Raises:
        DataError: CK+ is not there, or without its sequences.
    """
    (source,) = read_sources(root, ["ckplus"])
    if source.layout != "official tree":
        remedy = "unpack the official cohn-kanade-images and Emotion"
        raise DataError(f"the form of CK+ here ({source.layout}) has no sequences", file=root, remedy=remedy)
    labelled = zip(source.table["emotion"], source.files, strict=False)  # files of labels come last
    folders = {file.parent: emotion for emotion, file in labelled if emotion in SHOWN}
    for folder, emotion in folders.items():
        found = [predictor.predict(p, cropped=False, largest=True) for p in sorted(folder.glob("*.png"))]
        kept = [number for number, faces in enumerate(found) if faces]
        way = np.minimum(np.arange(len(found)) / max(len(found) - CKPLUS_PEAK, 1), 1)
        chances = np.stack([found[number][0].probabilities for number in kept])
        yield Sequence(CLASSES.index(emotion), 0.0, np.array(kept) / CKPLUS_RATE, way[kept], chances)


def smooth(sequence: Sequence, constant: float, kind: str = "probabilities") -> np.ndarray:
    """Average over time, looking back only, with a constant τ in seconds (0 for no smoothing): float (T, 6).

    It is an exponential average of ``"probabilities"``, as `fer_utils.video.Tracker` does, or of their
    ``"logarithms"``; or the mean of a ``"window"`` that reaches 2τ back, which is as late.
    """
    values = sequence.probabilities.astype(float)
    if not constant:
        return values
    passed = sequence.seconds[:, None] - sequence.seconds
    if kind == "window":
        weights = ((passed >= 0) & (passed <= 2 * constant)).astype(float)
        return weights @ values / weights.sum(1, keepdims=True)
    values = np.log(values) if kind == "logarithms" else values
    result = values.copy()
    for k, step in enumerate(np.diff(sequence.seconds), 1):
        result[k] = result[k - 1] - np.expm1(-step / constant) * (values[k] - result[k - 1])
    if kind == "logarithms":
        result = np.exp(result)
        result /= result.sum(1, keepdims=True)
    return result


def measure(sequence: Sequence, smoothed: np.ndarray) -> dict[str, float]:
    """Score a sequence.

    Returns:
        `peak`, share of the frames at the peak with the right answer; `changes`, share of the frames with
        another answer than the frame before; `delay`, seconds from the start to the first right answer after
        the expression began, missing if there is none.
    """
    answers = smoothed.argmax(1)
    right = (answers == sequence.label) & (sequence.way > 0)
    return {
        "peak": float(right[sequence.way == 1].mean()),
        "changes": float((np.diff(answers) != 0).mean()),
        "delay": float(sequence.seconds[right.argmax()]) if right.any() else float("nan"),
    }


def compare(sequences: list[Sequence], constant: float, kind: str = "probabilities") -> dict[str, Any]:
    """Means over sequences with and without smoothing, and of their difference, with 95 % intervals.

    Returns:
        By name of a measure, `plain`, `smoothed` and `gain`, each as mean, low, high; the bootstrap draws
        sequences. Delays are compared where both have one.
    """
    plain = [measure(s, s.probabilities) for s in sequences]
    other = [measure(s, smooth(s, constant, kind)) for s in sequences]
    report = {}
    for name in MEASURES:
        pairs = np.array([[before[name], after[name]] for before, after in zip(plain, other, strict=True)])
        pairs = pairs[np.isfinite(pairs).all(1)]
        columns = np.column_stack([pairs, pairs[:, 1] - pairs[:, 0]])
        drawn = np.random.default_rng(0).integers(len(pairs), size=(2000, len(pairs)))
        low, high = np.quantile(columns[drawn].mean(1), (0.025, 0.975), axis=0)
        report[name] = {
            word: [float(v) for v in values]
            for word, *values in zip(("plain", "smoothed", "gain"), columns.mean(0), low, high, strict=True)
        }
    return report


def fit(sequences: list[Sequence], kind: str) -> float:
    """Find the time constant with the fewest changes of those that cost no accuracy at the peak."""
    scores = {
        constant: np.mean([list(measure(s, smooth(s, constant, kind)).values())[:2] for s in sequences], 0)
        for constant in CONSTANTS
    }
    free = [constant for constant in CONSTANTS if scores[constant][0] >= scores[0][0]]
    return min(free, key=lambda constant: scores[constant][1])


def main(arguments: list[str] | None = None) -> None:
    """Fit the time constants on one half of the people, and measure them on the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=160)
    parser.add_argument("--network", default="facenet")
    options = parser.parse_args(arguments)
    sequences = list(film(options.sequences, 9, Predictor(options.network, threads=1)))
    half = len(sequences) // 2
    fitted, held_out = sequences[:half], sequences[half:]
    best = {kind: fit(fitted, kind) for kind in KINDS}
    own = best[KINDS[0]]
    qualities = {
        "good": [s for s in held_out if s.worse < 0.5],
        "bad": [s for s in held_out if s.worse >= 0.5],
    }
    report = {
        "network": options.network,
        "clip": {"seconds": SECONDS, "rate": RATE, "size": [WIDTH, HEIGHT]},
        "fitted": {"sequences": half, "best": best, "other_half": fit(held_out, KINDS[0])},
        "held_out": {
            "sequences": len(held_out),
            "by_constant": [{"constant": c} | compare(held_out, c) for c in CONSTANTS],
            "by_kind": {kind: compare(held_out, constant, kind) for kind, constant in best.items()},
            "by_quality": {name: compare(some, own) for name, some in qualities.items()},
        },
    }
    write_report(workspace("full").results / "video" / "smoothing.json", report)


if __name__ == "__main__":
    main()
