"""`fer predict`: faces in pictures, folders, videos and of a camera, as a table, CSV or JSON lines."""

import argparse
import csv
import glob
import json
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from fer_utils.annotate import annotate
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.files import atomic_path
from fer_utils.pictures import FORMATS, VIDEOS, read_picture
from fer_utils.prediction import Face, Faces, Predictor
from fer_utils.video import annotate_video, predict_video

COLUMNS = ("file", "left", "top", "right", "bottom", "confidence", "emotion", *CLASSES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `run` reads."""
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="pictures, folders, patterns or videos")
    add("--network", default="facenet", help="facenet, easynet, their -int8, or an ONNX file")
    add("--largest", action="store_true", help="only the largest face of a picture (default: all)")
    add("--cropped", action="store_true", help="pictures are face crops: detect nothing")
    add("--min-confidence", type=float, default=0.9, metavar="P", help="of the detector, 0 to 1")
    add("--min-face", type=float, metavar="PIXELS", help="height of the smallest face (default: 20)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="print comma-separated values")
    form.add_argument("--jsonl", action="store_true", help="print one JSON object a face")
    add("--annotate", type=Path, metavar="FOLDER", help="write pictures with boxes and bars there")
    add("--every", type=int, default=1, metavar="N", help="of a video, every Nth frame only")
    add("--camera", type=int, metavar="NUMBER", help="watch a camera, the first is 0; stop with Ctrl-C")


def run(options: argparse.Namespace) -> int:
    """Predict and print. Returns 1 if a file could not be used, which stderr names, and else 0."""
    if not options.paths and options.camera is None:
        raise ValueError("name pictures, folders or videos, or a --camera")
    smallest = 1 if options.min_face is None else options.min_face
    if not 0 <= options.min_confidence <= 1 or options.every < 1 or smallest <= 0:
        raise ValueError("--min-confidence is 0 to 1, --every at least 1, --min-face above 0")
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # whatever the locale, any file name
    files, failures = find(options.paths)
    videos = [file for file in files if file.suffix.lower() in VIDEOS]
    pictures = [file for file in files if file.suffix.lower() not in VIDEOS]
    targets = annotated(options.annotate, files) if options.annotate else {}
    printer = _Printer(options, seconds=bool(videos) or options.camera is not None)
    for failure in failures:
        with printer.failures():
            raise failure
    # One picture is computed on all cores, several are computed side by side.
    workers = max(1, min(len(pictures), os.cpu_count() or 1))
    predictor = Predictor(options.network, threads=1 if workers > 1 else 0)
    how = {name: getattr(options, name) for name in ("largest", "min_confidence", "min_face")}

    def work(file: Path) -> Faces:
        pixels = read_picture(file)
        faces = predictor.predict(pixels, source=str(file), cropped=options.cropped or None, **how)
        if file in targets:
            with atomic_path(targets[file]) as aside:
                Image.fromarray(annotate(pixels, faces)).save(aside, "PNG")
        return faces

    for file, answer in in_order(work, pictures, workers):
        with printer.failures():
            faces = answer.result()
            for face in faces or [None]:
                printer.face(str(file), face)
    for video in [*videos, *([] if options.camera is None else [options.camera])]:
        with printer.failures():
            frames = predict_video(video, predictor, every=options.every, **how)
            if video in targets:
                frames = annotate_video(frames, targets[video])
            for frame, tracks in frames:
                for track, face in tracks:
                    printer.face(str(video), face, seconds=round(frame.seconds, 3), track=track)
                printer.tick()
    return int(printer.failed)


def find(paths: list[str]) -> tuple[list[Path], list[DataError]]:
    """Files for paths, folders (all below them) and patterns; and what is wrong with those that give none."""
    files, failures = [], []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found = sorted(f for f in path.rglob("*") if f.suffix.lower() in FORMATS and f.is_file())
            if not found:
                failures.append(DataError("there are no pictures in this folder", file=path))
        elif path.exists() or not glob.has_magic(text):
            found = [path]  # reading it will say if it is missing
        else:
            names = glob.glob(text, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute patterns)
            found = sorted(Path(name) for name in names if Path(name).is_file())
            if not found:
                failures.append(DataError("no file matches this pattern", file=text, remedy="check it"))
        files += found
    return list(dict.fromkeys(files)), failures


def in_order(
    work: Callable[[Path], Faces], files: list[Path], workers: int
) -> Iterator[tuple[Path, Future[Faces]]]:
    """Answers side by side and in order, few of them ahead, so that memory does not grow with the files."""
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[Path, Future[Faces]]] = deque()
        for file in files:
            ahead.append((file, pool.submit(work, file)))
            if len(ahead) > 2 * workers:
                yield ahead.popleft()
        yield from ahead


def annotated(folder: Path, files: list[Path]) -> dict[Path, Path]:
    """Where the annotated copy of each file goes; those of the same name in other folders get a number."""
    if folder.suffix.lower() in VIDEOS and len(files) == 1:
        return {files[0]: folder}
    folder.mkdir(parents=True, exist_ok=True)
    originals: dict[Path, Path] = {}
    for file in files:
        ending, number = ".mp4" if file.suffix.lower() in VIDEOS else ".png", 1
        target = folder / f"{file.stem}{ending}"
        while target in originals:
            number += 1
            target = folder / f"{file.stem}-{number}{ending}"
        originals[target] = file
    return {file: target for target, file in originals.items()}


class _Printer:
    """Prints faces as they come, in the form asked for, and progress on a terminal."""

    def __init__(self, options: argparse.Namespace, *, seconds: bool) -> None:
        self.options, self.failed, self.count, self.start = options, False, 0, time.monotonic()
        self.columns = [*COLUMNS[:1], *(("seconds", "track") if seconds else ()), *COLUMNS[1:]]
        self.progress = sys.stderr.isatty() and not sys.stdout.isatty()
        self.writer = csv.DictWriter(sys.stdout, self.columns, lineterminator="\n")
        if options.csv:
            self.writer.writeheader()
        elif not options.jsonl:
            names = " ".join(f"{name:>8s}" for name in CLASSES)
            print(f"{'emotion':8s} {names}  file and box")

    def face(self, source: str, face: Face | None, **more: Any) -> None:
        row = dict.fromkeys(self.columns) | ({} if face is None else face.row()) | {"file": source} | more
        if self.options.csv:
            self.writer.writerow(row)
        elif self.options.jsonl:
            print(json.dumps(row, ensure_ascii=False))
        elif face is None:
            print(f"{'no face':8s} {'':{9 * len(CLASSES) - 1}s}  {source}")
        else:
            chances = " ".join(f"{row[name]:8.3f}" for name in CLASSES)
            place = f"{more['seconds']:.2f} s, face {more['track']}, " if more else ""
            box = ", ".join(f"{row[edge]:.0f}" for edge in ("left", "top", "right", "bottom"))
            print(f"{face.emotion:8s} {chances}  {source} ({place}{box})")

    def tick(self) -> None:
        self.count += 1
        if self.progress:
            rate = self.count / (time.monotonic() - self.start)
            print(f"\r{self.count} done, {rate:.1f} a second ", end="", file=sys.stderr, flush=True)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """One file that cannot be used is a line on stderr; the others go on."""
        try:
            yield
        except BrokenPipeError:
            raise
        except (DataError, OSError) as error:
            self.failed = True
            print(f"fer predict: {' '.join(str(error).split())}", file=sys.stderr)
        self.tick()
