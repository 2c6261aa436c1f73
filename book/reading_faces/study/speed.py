"""How long a network takes for a face, and how large it is."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fer_utils.weights import load_model

BATCHES = (1, 64)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@torch.inference_mode()
def milliseconds(
    model: nn.Module,
    *,
    batches: Sequence[int] = BATCHES,
    threads: Sequence[int] | None = None,
    repeats: int = 30,
) -> list[dict[str, float]]:
    """Time a network on the processor: logits of images that are cropped already, in single precision.

    Finding the face, cropping and copying to and from another device are not in it. The first calls, which
    are slower, are left out.

    Args:
        model: takes float images (B, 1, 64, 64). It is put into evaluation mode.
        batches: images a call.
        threads: numbers of threads to try; by default one and as many as there are cores.
        repeats: calls that are timed.

    Returns:
        For each number of threads and images: `batch`, `threads`, and the `median`, the quartiles `low` and
        `high`, in milliseconds a face.
    """
    before = torch.get_num_threads()
    model.cpu().eval()
    found = []
    try:
        for count in threads or sorted({1, cores()}):
            torch.set_num_threads(count)
            for batch in batches:
                images = torch.rand(batch, 1, 64, 64, generator=torch.Generator().manual_seed(0))
                times = [t * 1000 / batch for t in timed(lambda images=images: model(images), repeats)]
                low, median, high = statistics.quantiles(times, n=4)
                found.append({"batch": batch, "threads": count, "median": median, "low": low, "high": high})
    finally:
        torch.set_num_threads(before)
    return found


def timed(call: Callable[[], Any], repeats: int) -> list[float]:
    """Seconds of each call after a few that are not timed; at least two."""
    for _ in range(3):
        call()
    times = []
    for _ in range(max(2, repeats)):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def describe(name: str, checkpoint: Path, **options: Any) -> dict[str, Any]:
    """Size and speed of a network.

    Args:
        name: of its run.
        checkpoint: its file, as `fer train` writes it.
        **options: passed to `milliseconds`.

    Returns:
        `run`, `network` (class name), `parameters`, `megabytes` of the file, `input` (side in pixels of what
        it computes on) and `milliseconds`.

    Raises:
        DataError: the file is missing or damaged.
    """
    model = load_model(checkpoint)
    return {
        "run": name,
        "network": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "megabytes": round(checkpoint.stat().st_size / 1e6, 2),
        "input": getattr(model, "input_size", 64),
        "milliseconds": milliseconds(model, **options),
    }
