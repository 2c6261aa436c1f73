"""How do time and memory grow with the data? `python -m reading_faces.study.growth`.

Drawn faces, each repeated many times with other noise, stand in a CSV of FER2013's form, are merged, and a
small network is trained on them for a thousand steps. Merge and steps run in a process of their own each:
seconds are the processor's, memory is the most that was resident. Writes `benchmarks/growth.json`.
"""

import argparse
import multiprocessing
import re
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from fer_utils.datasets import read_sources
from fer_utils.datasets.faceset import FaceSet
from fer_utils.datasets.merge import merge
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import CLASSES, FER2013
from fer_utils.experiment import workspace
from fer_utils.models import EasyNet
from fer_utils.training import Recipe, fit
from reading_faces.study.store import write_report

FACES = (35_000, 140_000, 560_000)
HELD_OUT = 1_000  # faces of validation, and as many of test
DRAWN, NOISE = 600, 4  # faces that are drawn; grey levels up or down by which their copies differ
STEPS, BATCH = 1_000, 16
NET = {"widths": (4, 8, 8), "hidden": 16, "stride": 2}


def write_csv(path: Path, count: int) -> None:
    """Write so many faces in FER2013's form, in its proportions of 48×48 pixels a row."""
    rng = np.random.default_rng(0)
    emotions = [CLASSES[n % len(CLASSES)] for n in range(DRAWN)]
    faces = demo_faces(emotions, seed=0).reshape(DRAWN, -1).astype(np.int16)
    codes = [next(code for code, name in FER2013.items() if name == emotion) for emotion in emotions]
    texts = np.array([f"{level:3d} ".encode() for level in range(256)])
    with path.open("wb") as file:
        file.write(b"emotion,pixels,Usage\n")
        for row in range(count):
            left = (count - 1 - row) // HELD_OUT
            usage = {0: b"PrivateTest", 1: b"PublicTest"}.get(left, b"Training")
            noise = rng.integers(-NOISE, NOISE + 1, faces.shape[1], dtype=np.int16)
            pixels = texts[np.clip(faces[row % DRAWN] + noise, 0, 255)].tobytes()
            file.write(b"%d,%s,%s\n" % (codes[row % DRAWN], pixels, usage))


def merging(folder: Path) -> None:
    """Read and merge what `write_csv` wrote."""
    merge(read_sources(folder / "data"), folder / "faceset", progress=False)


def training(folder: Path) -> None:
    """Train on the merged faces for the first steps of an epoch."""
    faces = FaceSet.open(folder / "faceset")
    L.seed_everything(0, verbose=False)
    recipe = Recipe(epochs=1, batch_size=BATCH, batches=STEPS)
    parts = faces.split("train"), faces.split("validation")
    fit(EasyNet(**NET), *parts, recipe, folder / "run", verbose=False, accelerator="cpu")


def measured(call: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Seconds of the processor, and megabytes resident before and at most, of a call in this process."""
    start, seconds = resident("VmRSS"), time.process_time()
    call(folder)
    return {
        "seconds": time.process_time() - seconds,
        "megabytes": resident("VmHWM"),
        "megabytes_before": start,
    }


def resident(field: str) -> float:
    """Megabytes of memory that are resident, `VmRSS`, or were at most, `VmHWM`, as Linux counts them."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1e3


def growth(counts: tuple[int, ...]) -> list[dict[str, Any]]:
    """Measure merge and first steps for each number of faces."""
    rows = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "data" / "fer2013").mkdir(parents=True)
            write_csv(folder / "data" / "fer2013" / "fer2013.csv", count)
            row = {"faces": count}
            for what, call in (("merge", merging), ("steps", training)):
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                    row[what] = fresh.submit(measured, call, folder).result()
            rows.append(row)
            print(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Measure; the largest set takes 10 GB of the temporary folder for a while."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faces", type=int, nargs="+", default=FACES)
    counts = parser.parse_args(arguments).faces
    report = {"steps": STEPS, "batch": BATCH, "rows": growth(tuple(counts))}
    write_report(workspace("full").results / "benchmarks" / "growth.json", report)


if __name__ == "__main__":
    main()
