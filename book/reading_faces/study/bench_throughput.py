"""How many images a second EasyNet trains on, by image size, width and precision; alternating in one run.

    python tests/benchmarks/throughput.py

Writes `book/results/benchmarks/throughput.json`. Run it on an idle machine.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch.nn import functional as F

from fer_utils.models import EasyNet
from fer_utils.results import write_benchmark
from fer_utils.training import keep_freed_memory
from fer_utils.workspace import workspace

BATCH, STEPS, ROUNDS = 64, 8, 5
VARIANTS = {
    "48 px, 32-96-192": {},
    "64 px, 32-96-192": {"image_size": 64},
    "48 px, 64-128-256": {"widths": (64, 128, 256)},
}


def rate(model: EasyNet, half: bool) -> float:
    """Images a second over `STEPS` training steps, after one that is not counted."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
    images, labels = torch.rand(BATCH, 1, 64, 64), torch.randint(0, 6, (BATCH,))
    start = 0.0
    for step in range(STEPS + 1):
        if step == 1:
            start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
    return BATCH * STEPS / (time.perf_counter() - start)


def main() -> None:
    """Measure, print and write."""
    keep_freed_memory()
    models = {name: EasyNet(**o).to(memory_format=torch.channels_last) for name, o in VARIANTS.items()}
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, model in models.items():
            for half in (False, True):
                key = f"{name}, {'bf16-mixed' if half else '32-true'}"
                rates.setdefault(key, []).append(rate(model, half))
    medians = {key: round(statistics.median(values), 1) for key, values in rates.items()}
    for key, value in medians.items():
        print(f"{key:40s} {value:6.0f} images/s")
    write_benchmark(
        "throughput",
        {"batch": BATCH, "rounds": ROUNDS, "threads": torch.get_num_threads(), "images_per_second": medians},
        workspace("full").results,
    )


if __name__ == "__main__":
    main()
