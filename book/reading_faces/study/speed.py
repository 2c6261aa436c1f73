"""How fast is it? `python -m reading_faces.study.speed WHAT` writes `benchmarks/WHAT.json`."""

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.benchmark import Timer
from torchvision.datasets import fer2013 as theirs

from fer_utils.augment import Augment
from fer_utils.datasets import read_sources
from fer_utils.demo.layouts import demo_faces
from fer_utils.detector import Detector
from fer_utils.experiment import RECIPES, Workspace, processor_features, workspace
from fer_utils.memory import keep_freed_memory
from fer_utils.models import EasyNet, FaceNet
from fer_utils.training import Recipe, make_optimizer
from fer_utils.weights import load_model
from reading_faces.study.store import write_report

SECONDS, BATCH, THREADS = 2.0, 64, torch.get_num_threads()  # each call is timed for so long at least
PRECISIONS = ("32-true", "bf16-mixed")
# Pixels of FaceNet's images in training, and turns of timing so many steps.
SIZES, TURNS, STEPS = (80, 96, 112, 128, 160), 4, 3
RUNS = ("emonet-seed0", "easynet-seed0", "facenet-seed0")


def milliseconds(call: Callable[[], object], threads: int = THREADS, images: int = 1) -> dict[str, float]:
    """Time a call: `median`, and quartiles `low` and `high`, in milliseconds an image."""
    timed = Timer("call()", globals={"call": call}, num_threads=threads).blocked_autorange(None, SECONDS)
    low, median, high = (1e3 / images * np.quantile(timed.times, (0.25, 0.5, 0.75))).tolist()
    return {"threads": threads, "median": median, "low": low, "high": high}


@torch.inference_mode()
def speed(space: Workspace) -> dict[str, Any]:
    """Time one run of each network, and the detector on a frame of video."""
    networks = []
    for run in RUNS:
        path = space.runs / run / "model.safetensors"
        model = load_model(path).eval()
        about = {"run": run, "network": type(model).__name__, "megabytes": path.stat().st_size / 1e6}
        about |= {"parameters": sum(p.numel() for p in model.parameters()), "milliseconds": []}
        for threads, images in itertools.product(sorted({1, THREADS}), (1, BATCH)):
            batch = torch.rand(images, 1, 64, 64)
            timed = milliseconds(lambda m=model, b=batch: m(b), threads, images)
            about["milliseconds"].append({"batch": images} | timed)
        networks.append(about)
    frame, detector = np.full((480, 640), 128, np.uint8), Detector()
    frame[140:340, 220:420] = demo_faces(["happy"], seed=0, size=200)[0]
    timed = {"frame": frame.shape} | milliseconds(lambda: detector.detect(frame))
    return {"networks": networks, "detector": timed}


def train_step(
    model: nn.Module, precision: str = "32-true", augment: Augment | None = None
) -> Callable[[], object]:
    """Make one step of training a network on random images, as a call."""
    optimizer = make_optimizer(model.to(memory_format=torch.channels_last), Recipe(), fused=True)
    images, labels = torch.rand(BATCH, 1, 64, 64), torch.randint(0, 6, (BATCH,))

    def step() -> None:
        optimizer.zero_grad()
        faces = augment(images) if augment else images
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true"):
            loss = F.cross_entropy(model(faces), labels)
        loss.backward()
        optimizer.step()

    return step


def throughput(space: Workspace) -> dict[str, Any]:
    """Time EasyNet's training by image size and precision: images a second."""
    keep_freed_memory()  # as `fit` does
    rates = {}
    for size, precision in itertools.product((48, 64), PRECISIONS):
        timed = milliseconds(train_step(EasyNet(image_size=size), precision), images=BATCH)
        rates[f"{size} px, 32-96-192, {precision}"] = round(1e3 / timed["median"], 1)
    return {"batch": BATCH, "threads": THREADS, "images_per_second": rates}


def steps(space: Workspace) -> dict[str, Any]:
    """Time steps of FaceNet's training, with augmentation, by size, trunk and precision: images a second.

    On one core; `amx` says whether the processor has AMX, which is fast in half precision. The cases take
    turns, since the machine may have slower minutes; medians of the turns.
    """
    keep_freed_memory()
    options, recipe = RECIPES["full"]["facenet"]
    cases = {str(side): {"input_size": side} for side in SIZES}
    cases["dlib_resnet, 128"] = {"trunk": "dlib_resnet", "freeze": 0, "input_size": 128}
    timed: dict[str, dict[str, list[float]]] = {p: {name: [] for name in cases} for p in PRECISIONS}
    for _, (name, case), precision in itertools.product(range(TURNS), cases.items(), PRECISIONS):
        step = train_step(FaceNet(**options | {"pretrained": "none"} | case), precision, recipe.augment)
        timed[precision][name].append(Timer("call()", globals={"call": step}).timeit(STEPS).mean)
    rates = {
        precision: {name: round(BATCH / float(np.median(times)), 1) for name, times in each.items()}
        for precision, each in timed.items()
    }
    amx = bool(processor_features().get("amx_bf16"))
    return {"batch": BATCH, "turns": TURNS, "amx": amx, "images_per_second": rates}


def augmentation(space: Workspace) -> dict[str, Any]:
    """Time what comes before a training step: fetching a batch and augmenting it, here and with kornia."""
    faces = space.faces().split("train")
    rows = np.linspace(0, len(faces) - 1, BATCH).astype(int)
    affine = K.RandomAffine(10, (0.06, 0.06), (0.9, 1.1), padding_mode="border", p=1.0)
    theirs = nn.Sequential(K.RandomHorizontalFlip(p=0.5), affine)
    own, images = Augment(degrees=10, shift=0.06, scale=0.1), torch.rand(BATCH, 1, 64, 64)
    calls = {"fetch": lambda: faces.take(rows), "augment": lambda: own(images)}
    calls |= {"kornia": lambda: theirs(images), "step": train_step(EasyNet())}
    medians = {name: milliseconds(call)["median"] for name, call in calls.items()}
    share = 1 - medians["step"] / (sum(medians.values()) - medians["kornia"])
    return {"batch": BATCH, "median_milliseconds": medians, "share": share}


def reading(space: Workspace) -> dict[str, Any]:
    """Time FER2013's plain CSV below FER_DATA, whatever its checksum, of which torchvision knows one."""
    root, theirs.check_integrity = space.data, lambda *_, **__: True
    readers = {
        "fer_utils, all rows": lambda: read_sources(root, ["fer2013"]),
        "torchvision, train + test": lambda: [theirs.FER2013(root, split) for split in ("train", "test")],
    }
    medians = {n: {"wall_seconds": milliseconds(read, 1)["median"] / 1e3} for n, read in readers.items()}
    size = read_sources(root, ["fer2013"])[0].files[0].stat().st_size / 1e6
    return {"megabytes": round(size), "medians": medians}


def main(arguments: list[str] | None = None) -> None:
    """Measure on the real merged set and its runs, on an idle machine."""
    measures = {call.__name__: call for call in (speed, throughput, steps, augmentation, reading)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=measures)
    what, space = parser.parse_args(arguments).what, workspace("full")
    write_report(space.results / "benchmarks" / f"{what}.json", measures[what](space))


if __name__ == "__main__":
    main()
