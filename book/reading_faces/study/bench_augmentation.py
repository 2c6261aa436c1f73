"""How much of an EasyNet training step goes to preparing and augmenting its batch, and kornia's share.

Run with `python tests/benchmarks/augmentation.py [FACESET]` on an otherwise idle machine. Prints medians of
alternating measurements, in milliseconds a batch of 64.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import kornia.augmentation as K
import torch
from torch.nn import functional as F

from fer_utils.augment import Augment
from fer_utils.datasets.faceset import FaceSet
from fer_utils.models import EasyNet
from fer_utils.results import write_benchmark
from fer_utils.training import Faces
from fer_utils.workspace import workspace

BATCH = 64


def milliseconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    """Measure, print, and write `book/results/benchmarks/augmentation.json`."""
    faces = FaceSet.open(Path(sys.argv[1])) if len(sys.argv) > 1 else workspace("demo").faces()
    data = Faces(faces.split("train"))
    rows = torch.randperm(len(data))[:BATCH].tolist()
    ours = Augment(flip=0.5, degrees=10, shift=0.06, scale=0.1)
    kornia = torch.nn.Sequential(
        K.RandomHorizontalFlip(p=0.5),
        K.RandomAffine(degrees=10, translate=(0.06, 0.06), scale=(0.9, 1.1), padding_mode="border", p=1.0),
    )
    model = EasyNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)

    def prepare() -> torch.Tensor:
        return data.__getitems__(rows)[0].float() / 255

    images, labels = prepare(), data.labels[rows]

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    calls = {
        "fetch": prepare,
        "augment": lambda: ours(images),
        "kornia": lambda: kornia(images),
        "step": step,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(33):
        for name, call in calls.items():
            elapsed = milliseconds(call)
            if turn >= 3:  # the first turns warm caches and thread pools up
                times[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:8s} {value:8.2f} ms")
    share = (medians["fetch"] + medians["augment"]) / (
        medians["fetch"] + medians["augment"] + medians["step"]
    )
    print(
        f"fetch and augment: {share:.1%} of a training step; "
        f"kornia takes {medians['kornia'] / medians['augment']:.1f} times as long"
    )
    milliseconds_each = {name: round(value, 3) for name, value in medians.items()}
    write_benchmark(
        "augmentation",
        {"batch": BATCH, "median_milliseconds": milliseconds_each, "share": round(share, 4)},
        workspace("full").results,
    )


if __name__ == "__main__":
    main()
