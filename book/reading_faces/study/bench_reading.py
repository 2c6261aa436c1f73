"""How long FER2013's plain CSV takes to read, and how much memory, here and with torchvision.

Run with `python tests/benchmarks/reading.py FER2013.CSV[.GZ] [TURNS]`. The file is unpacked to a temporary
folder; then both read that same plain file in turns, each reading in a process of its own, so that its peak
memory is its own. Wall time tells little on a busy machine, so that processor time stands beside it; neither
has the imports in it.

torchvision compares the file's MD5 with Kaggle's; other copies of the same rows have another one, so that
this check is replaced by one that lets every file pass, which saves torchvision the time of it. It reads a
split at a time: `train` is the Training rows alone, `train + test` is all rows, as ours.
"""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fer_utils.datasets import fer2013
from fer_utils.datasets.tables import open_csv
from fer_utils.results import write_benchmark
from fer_utils.workspace import workspace


def ours(root: Path) -> int:
    """Read the file with this package, to images and a table with split and origin of each."""
    path = fer2013.find(root)
    assert path is not None
    return len(fer2013.read(path, root))


def theirs(root: Path, *splits: str) -> int:
    """Read the file with torchvision, without its check of the MD5."""
    from torchvision.datasets import fer2013 as module

    module.check_integrity = lambda *_, **__: True
    sets = [module.FER2013(root, split) for split in splits]
    return sum(map(len, sets))


READINGS: dict[str, Callable[[Path], int]] = {
    "fer_utils, all rows": ours,
    "torchvision, train": lambda root: theirs(root, "train"),
    "torchvision, train + test": lambda root: theirs(root, "train", "test"),
}


def measure(name: str, root: Path, results: multiprocessing.SimpleQueue) -> None:
    """Put rows, seconds of wall and processor time, and growth of the peak memory in MB."""
    import torchvision.datasets  # noqa: F401 - before the clock starts

    before, wall, processor = peak(), time.perf_counter(), time.process_time()
    rows = READINGS[name](root)
    results.put((rows, time.perf_counter() - wall, time.process_time() - processor, peak() - before))


def peak() -> float:
    """Largest memory of this process until now, in MB (Linux counts it in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, print, and write `book/results/benchmarks/reading.json`."""
    source, turns = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    context = multiprocessing.get_context("spawn")
    runs: dict[str, list[tuple[int, float, float, float]]] = {name: [] for name in READINGS}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        plain = root / "fer2013" / "fer2013.csv"
        plain.parent.mkdir()
        with open_csv(source) as packed, plain.open("wb") as file:
            shutil.copyfileobj(packed, file)
        plain_bytes = plain.stat().st_size
        print(f"{plain_bytes / 1e6:.0f} MB of plain CSV, {turns} turns")
        for _ in range(turns):
            for name, done in runs.items():
                results = context.SimpleQueue()
                process = context.Process(target=measure, args=(name, root, results))
                process.start()
                process.join()
                done.append(results.get())
    medians = {
        name: [statistics.median(part) for part in zip(*done, strict=True)] for name, done in runs.items()
    }
    _, wall, processor, _ = medians["fer_utils, all rows"]
    for name, (rows, its_wall, its_processor, memory) in medians.items():
        print(
            f"{name:26s} {rows:6,.0f} rows  wall {its_wall:6.2f} s ({its_wall / wall:4.1f} times ours)  "
            f"processor {its_processor:6.2f} s ({its_processor / processor:4.1f} times ours)  "
            f"peak memory +{memory:4.0f} MB"
        )
    names = ("rows", "wall_seconds", "processor_seconds", "peak_megabytes")
    values = {
        name: dict(zip(names, (round(v, 2) for v in row), strict=True)) for name, row in medians.items()
    }
    megabytes = round(plain_bytes / 1e6)
    write_benchmark(
        "reading", {"megabytes": megabytes, "turns": turns, "medians": values}, workspace("full").results
    )


if __name__ == "__main__":
    main()
