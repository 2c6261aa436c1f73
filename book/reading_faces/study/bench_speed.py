"""How many milliseconds a face the networks take, and how large they are.

Run with `python tests/benchmarks/speed.py [RUN …]` on an otherwise idle machine, with the runs' weights in
`build/full/runs`. Without names it takes the best seed by validation of EmoNet, EasyNet and FaceNet.
For each network it times single faces and batches of 64, with one thread and with all cores: the median and
the quartiles of the calls. Prints a table and writes `book/results/benchmarks/speed.json`.

The face detector is timed as well, on a drawn frame of a video's size: a face has to be found before it is
read, so that its time belongs to the same account.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer_utils import results
from fer_utils.demo.layouts import demo_faces
from fer_utils.faces import FaceDetector
from fer_utils.workspace import Workspace, workspace
from reading_faces.study import speed

FRAME = (480, 640)


def best_runs(space: Workspace) -> list[str]:
    """Of each network with results, the seed that is best on validation."""
    names = []
    for network in ("emonet", "easynet", "facenet"):
        found = results.read_all(space.results, f"{network}-seed*.json")
        if found:
            names.append(max(found, key=lambda r: r["validation"]["fer2013"]["accuracy"])["name"])
    return names


def detector_milliseconds(repeats: int) -> dict[str, Any]:
    """Time the detector on one frame with one drawn face of 200 pixels, with all cores."""
    frame = np.full(FRAME, 128, np.uint8)
    frame[140:340, 220:420] = demo_faces(["happy"], seed=0, size=200)[0]
    detector = FaceDetector()
    if not detector.boxes(frame):
        raise SystemExit("the detector finds no face in the frame that it is timed on")
    torch.set_num_threads(speed.cores())
    times = [1000 * t for t in speed.timed(lambda: detector.boxes(frame), repeats)]
    low, median, high = statistics.quantiles(times, n=4)
    return {"frame": list(FRAME), "threads": speed.cores(), "median": median, "low": low, "high": high}


def main() -> None:
    """Measure, print, and write `benchmarks/speed.json`."""
    parser = argparse.ArgumentParser(description="Milliseconds a face, parameters and size of networks.")
    parser.add_argument("runs", nargs="*", help="names (default: the best seed of each network)")
    parser.add_argument("--profile", choices=("demo", "full"), default="full")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--results", type=Path, help="folder to write to (default: the profile's)")
    options = parser.parse_args()
    space = workspace(options.profile)
    names = options.runs or best_runs(space)
    if not names:
        raise SystemExit("there is no run with results: train and evaluate one, or name one")
    measured = []
    for name in names:
        path = space.runs / name / "model.safetensors"
        found = speed.describe(name, path, repeats=options.repeats)
        measured.append(found)
        print(f"{name}: {found['parameters']:,} parameters, {found['megabytes']} MB", flush=True)
        for t in found["milliseconds"]:
            print(
                f"  {t['batch']:3d} a call, {t['threads']} threads: {t['median']:7.3f} ms a face "
                f"({t['low']:.3f} to {t['high']:.3f})",
                flush=True,
            )
    detector = detector_milliseconds(max(5, options.repeats // 5))
    print(f"face detector, a frame of {FRAME[1]}×{FRAME[0]}: {detector['median']:.0f} ms")
    values = {
        "profile": options.profile,
        "torch": torch.__version__.split("+")[0],
        "repeats": options.repeats,
        "networks": measured,
        "detector": detector,
    }
    results.write_benchmark("speed", values, options.results or space.results)


if __name__ == "__main__":
    main()
