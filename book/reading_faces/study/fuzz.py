"""Do the readers refuse, or read, whatever damage does to a file?

``python -m reading_faces.study.fuzz`` damages files of drawn faces (bits and bytes changed, parts cut out,
doubled or reversed, numbers and words put in) and writes `reliability/fuzz.json` below the results. A reader
may refuse a file by a DataError that names it and a remedy, or read it. Everything else is a failure: another
exception, a crash, more than `SECONDS`, more memory than `MEMORY`.
"""

import argparse
import json
import os
import resource
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fer_utils.datasets import ferplus, read_sources
from fer_utils.datasets.base import read_grey
from fer_utils.datasets.faceset import FaceSet
from fer_utils.datasets.merge import merge
from fer_utils.demo.layouts import demo_faces, write_demo
from fer_utils.errors import DataError
from fer_utils.experiment import read_predictions, read_result, workspace
from fer_utils.models import build
from fer_utils.prediction import NETWORKS, Predictor
from fer_utils.video import Frame, annotate_video, read_video
from fer_utils.weights import load_model, save_checkpoint
from reading_faces.study.store import write_report

SECONDS, MEMORY = 20, 3 << 30  # for one file; bytes beyond those of the process before
WORDS = [b"", b"-1", b"1e999", b"nan", b"null", b"[]", b"{}", b"\0", b"\xff", b'"', b",", b"\n", b"9" * 30]
NUMBERS = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
PICTURES = ("png", "jpeg", "tiff", "gif", "webp", "bmp")
RUN = "easynet-seed0"  # whose results are damaged: numbers about a network


def write_valid(folder: Path) -> None:
    """Write a valid file of each kind."""
    write_demo(folder / "data", fer2013=20, ckplus=1, jaffe=1)
    for packing in ("zip", "gztar"):
        name = str(folder / packing / "fer2013")
        shutil.make_archive(name, packing, folder / "data" / "fer2013", "fer2013.csv")
    merge(read_sources(folder / "data", ["fer2013"]), folder / "set", progress=False)
    faces, exif = demo_faces(["happy", "sad"] * 4, size=64), Image.Exif()
    for tag, value in {0x0112: 6, 0x010F: "maker", 0x8298: "nobody"}.items():
        exif[tag] = value  # it lies on its side
    for form in PICTURES:
        Image.fromarray(faces[0]).save(folder / f"a.{form}", exif=exif)
    frames = (Frame(i, i / 25, np.repeat(face[..., None], 3, 2)) for i, face in enumerate(faces))
    list(annotate_video(((frame, []) for frame in frames), folder / "a.mp4"))
    model = build("easynet", widths=[4, 8, 8], image_size=64)
    save_checkpoint(model, folder / "a.safetensors", {"network": "easynet", "options": model.options})
    shutil.copy(NETWORKS / "easynet-int8.onnx", folder / "a.onnx")
    for name in (f"{RUN}.json", f"predictions/{RUN}-validation.npz", "predictions/validation.parquet"):
        (folder / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(workspace("full").results / name, folder / "results" / name)


def _images(root: Path, name: str) -> list[tuple[int, ...]]:
    images = read_sources(root, [name])[0].images
    return [images[i].shape for i in range(len(images))]


# Patterns of the files that are damaged, and how one of them is read.
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "FER2013: CSV": ("data/fer2013/fer2013.csv", lambda path: _images(path.parent, "fer2013")),
    "FER2013: zip": ("zip/*", lambda path: _images(path.parent, "fer2013")),
    "FER2013: tar.gz": ("gztar/*", lambda path: _images(path.parent, "fer2013")),
    "FER+: votes": ("data/fer2013/fer2013new.csv", ferplus.read),
    "CK+: label of a sequence": (
        "data/CK+/Emotion/*/*/*.txt",
        lambda path: read_sources(path.parents[3], ["ckplus"]),
    ),
    **{f"picture: {form.upper()}": (f"a.{form}", read_grey) for form in PICTURES},
    "video: MP4": ("a.mp4", lambda path: [frame.pixels.shape for frame in read_video(path)]),
    "merged set": ("set/*", lambda path: FaceSet.open(path.parent).split("train").counts()),
    "results file": (f"results/{RUN}.json", read_result),
    "stored predictions": (
        "results/predictions/*",
        lambda path: read_predictions(path.parents[1], RUN, "validation"),
    ),
    "network: safetensors": ("a.safetensors", load_model),
    "network: ONNX": (
        "a.onnx",
        lambda path: Predictor(path, threads=1).probabilities(np.zeros((1, 64, 64), np.uint8)),
    ),
}


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Change a file in one to three places, half of them near its beginning."""
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(min(len(data), 300 if rng.random() < 0.5 else len(data)) + 1))
        part = data[start : start + int(2 ** rng.uniform(0, 10))]
        after, word = data[start + len(part) :], WORDS[rng.integers(len(WORDS))]
        number = NUMBERS[rng.integers(len(NUMBERS))].to_bytes(4, ("big", "little")[rng.integers(2)])
        flipped = bytes(byte ^ 1 << int(rng.integers(8)) for byte in part[:1]) + part[1:]
        changed = (flipped, rng.bytes(len(part)), b"", part + part, part[::-1], word + part)
        changed += (word + part[len(word) :], number + part[4:])
        data = data[:start] + changed[rng.integers(len(changed))] + (b"" if rng.random() < 0.1 else after)
    return data


def begin() -> None:
    """Limit a process's memory, and silence what libraries print about damage."""
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def attempt(name: str, folder: Path, seeds: list[int]) -> str:
    """Damage a file, unless there are no seeds, and read it: accepted, refused, or what failed and where."""
    pattern, read = READERS[name]
    files, rng = sorted(folder.glob(pattern)), np.random.default_rng(seeds or 0)
    path = files[rng.integers(len(files))]
    path.write_bytes(damage(path.read_bytes(), rng) if seeds else path.read_bytes())
    try:
        read(path)
    except DataError as error:
        return "refused" if error.file and error.remedy else f"no file or no remedy: {error}"[:160]
    except Exception as error:
        own = [step for step in traceback.extract_tb(error.__traceback__) if "fer_utils" in step.filename]
        place = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "the reader"
        return f"{type(error).__name__} in {place}"
    return "accepted"


def fuzz(name: str, valid: Path, seed: int, count: int) -> dict[str, Any]:
    """Try a reader: inputs `tried`, `refused`, `accepted`; of each failure, `inputs` and the `first` one."""
    context, outcomes, first, pool = get_context("forkserver"), Counter(), {}, None
    context.set_forkserver_preload([__name__])
    folder = shutil.copytree(valid, valid.with_name("damaged"), dirs_exist_ok=True)
    for number in range(-1, count):  # the first is not damaged
        for path in valid.glob(READERS[name][0]):
            shutil.copy(path, folder / path.relative_to(valid))
        pool = pool or ProcessPoolExecutor(1, context, begin)
        seeds = [seed, list(READERS).index(name), number] if number >= 0 else []
        try:
            outcome = pool.submit(attempt, name, folder, seeds).result(SECONDS if seeds else None)
        except (TimeoutError, BrokenProcessPool) as error:
            outcome = type(error).__name__
            for process in pool._processes.values():
                process.kill()
            pool = None
        if number < 0 and outcome != "accepted":
            raise RuntimeError(f"{name}: what is not damaged is not accepted: {outcome}")
        first.setdefault(outcome, number)
        outcomes[outcome] += number >= 0
    kept = {kind: outcomes.pop(kind, 0) for kind in ("refused", "accepted")}
    failures = {what: {"inputs": n, "first": first[what]} for what, n in outcomes.most_common()}
    return {"tried": count} | kept | {"failures": failures}


def main(arguments: list[str] | None = None) -> None:
    """Try every reader and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000, help="damaged files a reader (default: 2,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", default=list(READERS), help="only these; nothing is written")
    options, report = parser.parse_args(arguments), {}
    with tempfile.TemporaryDirectory() as folder:
        write_valid(Path(folder) / "valid")
        for name in options.readers:
            report[name] = fuzz(name, Path(folder) / "valid", options.seed, options.count)
            print(json.dumps({name: report[name]}, indent=1), flush=True)
    if options.readers == list(READERS):
        about = {"seed": options.seed, "limits": {"seconds": SECONDS, "bytes": MEMORY}, "readers": report}
        write_report(workspace("full").results / "reliability" / "fuzz.json", about)


if __name__ == "__main__":
    main()
