"""How much faster FaceNet trains on cached features, against what timing its two parts says is possible.

Run with `python tests/benchmarks/caching.py` on an otherwise idle machine, with real data merged and the
weights of MobileNet at hand (FER_DATA, FER_WEIGHTS); ``--help`` shows how to make it smaller. For each case,
training only a head (linear, or the poster's) and training above the poster's share of frozen layers, it

- computes the cache, or opens it;
- trains with and without it, by the same recipe, one epoch of each in turn, through `fit`, which is stopped
  after the epoch and resumed for the next one;
- between the epochs times the frozen part (with augmentation and enlarging, which the cache spares as well)
  and the trained part (forward, backward, step) on batches of their own. The bound is the time of both over
  that of the trained part alone, over an epoch of training and validation;
- compares the two networks on the validation images: accuracies and McNemar's test.

An epoch is training, validation and writing the checkpoints. Prints a table and writes
`book/results/benchmarks/caching.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.nn import functional as F

from fer_utils import features, training
from fer_utils.datasets.faceset import FaceSet
from fer_utils.evaluation import mcnemar, predict
from fer_utils.models import FaceNet
from fer_utils.recipes import POSTER_FREEZE, recipe_for
from fer_utils.results import write_benchmark
from fer_utils.training import Fit, Recipe, fit, make_optimizer
from fer_utils.workspace import workspace

# Name, frozen share of the trunk, units of the head's hidden layers, images a batch.
Case = tuple[str, float, tuple[int, ...], int]
POSTER_HEAD = (4096, 1024)
CASES: tuple[Case, ...] = (
    ("linear head", 1.0, (), 64),
    ("head only", 1.0, POSTER_HEAD, 64),
    ("head only", 1.0, POSTER_HEAD, 256),
    ("poster's share", POSTER_FREEZE, POSTER_HEAD, 64),
)
TIMED = 5  # batches of each part between two epochs


class Clock:
    """Notes when an epoch begins and when its checkpoints are written, and lets `fit` end after one epoch."""

    def __init__(self) -> None:
        self.start = self.end = 0.0
        begin, write = training.History.on_train_epoch_start, ModelCheckpoint.on_train_epoch_end

        def started(history: training.History, trainer: L.Trainer, module: L.LightningModule) -> None:
            self.start = time.perf_counter()
            begin(history, trainer, module)

        def written(callback: ModelCheckpoint, trainer: L.Trainer, module: L.LightningModule) -> None:
            write(callback, trainer, module)
            self.end, trainer.should_stop = time.perf_counter(), True

        training.History.on_train_epoch_start, ModelCheckpoint.on_train_epoch_end = started, written

    @property
    def seconds(self) -> float:
        """Of the last epoch."""
        return self.end - self.start


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class Parts:
    """Times the frozen and the trained part of a network on batches of training images, in turns."""

    def __init__(self, net: FaceNet, faces: FaceSet, recipe: Recipe) -> None:
        self.frozen, self.trained = features.split(net.to(memory_format=torch.channels_last))
        self.recipe, self.times = recipe, {}
        batch = training.Faces(faces).__getitems__(list(range(min(recipe.batch_size, len(faces)))))
        self.images, _, self.targets = batch[0].float() / 255, *batch[1:]
        self.optimizer = make_optimizer(self.trained, recipe, fused=True)
        with torch.no_grad():
            self.features = self.frozen(self.images)

    def time(self) -> None:
        """Time each part on some more batches; the first turn warms caches up."""
        calls = {
            "frozen": lambda: self.forward(self.frozen, self.recipe.augment(self.images)),
            "trained": self.step,
            "frozen, validation": lambda: self.forward(self.frozen, self.images),
            "trained, validation": lambda: self.forward(self.trained.eval(), self.features),
        }
        for turn in range(TIMED + 1):
            for name, call in calls.items():
                self.times.setdefault(name, []).extend([seconds(call)] if turn else [call()][:0])

    @staticmethod
    @torch.no_grad()
    def forward(part: torch.nn.Module, batch: torch.Tensor) -> None:
        """A forward pass alone."""
        part(batch)

    def step(self) -> None:
        """What training does with a batch above the cut."""
        self.trained.train()
        self.optimizer.zero_grad()
        smoothing = self.recipe.label_smoothing
        F.cross_entropy(self.trained(self.features), self.targets, label_smoothing=smoothing).backward()
        torch.nn.utils.clip_grad_norm_(self.trained.parameters(), self.recipe.clip)
        self.optimizer.step()

    def medians(self) -> dict[str, float]:
        """Milliseconds an image, by part."""
        return {n: statistics.median(t) * 1e3 / len(self.images) for n, t in self.times.items()}

    def bound(self, train: int, validation: int) -> float:
        """How much faster an epoch of so many images can become."""
        ms = self.medians()
        trained = train * ms["trained"] + validation * ms["trained, validation"]
        return 1 + (train * ms["frozen"] + validation * ms["frozen, validation"]) / trained


def measure(case: Case, options: argparse.Namespace, clock: Clock) -> dict[str, Any]:
    """Run one case: cache, epochs in turn, bound and comparison."""
    name, freeze, head, batch_size = case
    space = workspace(options.profile)
    faces = space.faces()
    train, validation = (some(faces.split(s), options.images) for s in ("train", "validation"))
    recipe = recipe_for("facenet", "full")[1]
    recipe = dataclasses.replace(
        recipe, epochs=options.epochs, batch_size=batch_size, lr=recipe.lr * batch_size / 64
    )
    trunk = pretrained(faces.split("train"), options.profile).state_dict()

    def new() -> FaceNet:
        L.seed_everything(recipe.seed, verbose=False)
        net = FaceNet(pretrained="none", freeze=freeze, head=head)
        net.load_trunk(trunk)
        return net

    cached = features.cache(
        new(), train, validation, space.build / "features", views=options.views, augment=recipe.augment
    )
    parts = Parts(new(), train, recipe)
    runs: dict[str, Fit] = {}
    epochs: dict[str, list[float]] = {"uncached": [], "cached": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.epochs):
            for kind, done in epochs.items():
                settings = {"resume": kind in runs, "verbose": False, "accelerator": "cpu"}
                place = train, validation, recipe, Path(folder) / kind
                if kind == "cached":
                    runs[kind] = features.fit_cached(new(), *place, cached, **settings)
                else:
                    runs[kind] = fit(new(), *place, **settings)
                done.append(clock.seconds)
                print(f"{name}, batch {batch_size}: {kind:8s} {clock.seconds:7.2f} s", flush=True)
            parts.time()
    ratios = [slow / fast for slow, fast in zip(*epochs.values(), strict=True)]
    speedup, bound = statistics.median(ratios), parts.bound(len(train), len(validation))
    answers = {kind: predict(run.model, validation).argmax(1) for kind, run in runs.items()}
    right = {kind: answer == validation.labels for kind, answer in answers.items()}
    return {
        "case": name,
        "frozen_layers": round(freeze * 84),
        "last_frozen": cached.about["layer"],
        "batch": batch_size,
        "cache": cached.about | {"views": options.views, "numbers_an_image": int(cached.validation[0].size)},
        "epoch_seconds": {kind: [round(s, 3) for s in done] for kind, done in epochs.items()},
        "speedup": round(speedup, 3),
        "speedup_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "bound": round(bound, 3),
        "share_of_bound": round(speedup / bound, 3),
        "milliseconds_an_image": {n: round(v, 4) for n, v in parts.medians().items()},
        "validation_accuracy": {kind: round(float(r.mean()), 4) for kind, r in right.items()},
        "mcnemar": mcnemar(right["uncached"], right["cached"]),
        "curves": {kind: run.history["val_accuracy"].tolist() for kind, run in runs.items()},
    }


def some(faces: FaceSet, count: int) -> FaceSet:
    """The first so many faces; all of them for 0."""
    return faces.where(np.arange(len(faces)) < count) if count else faces


def pretrained(faces: FaceSet, profile: str) -> torch.nn.Module:
    """MobileNet with its VGGFace2 weights; random ones for drawn faces."""
    L.seed_everything(0, verbose=False)
    net = FaceNet(pretrained="vggface2" if profile == "full" else "none")
    net.load_pretrained(faces)
    return net.trunk


def main() -> None:
    """Measure all cases, print them, and write `benchmarks/caching.json`."""
    parser = argparse.ArgumentParser(description="Time FaceNet's training with and without cached features.")
    parser.add_argument("--profile", choices=("demo", "full"), default="full")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--images", type=int, default=0, help="of each split; all for 0")
    parser.add_argument("--results", type=Path, help="folder to write to (default: the profile's)")
    options = parser.parse_args()
    clock, cases = Clock(), []
    for case in CASES:
        found = measure(case, options, clock)
        cases.append(found)
        print(
            f"{found['case']}, batch {found['batch']}: {found['speedup']:.2f} times as fast "
            f"({found['speedup_range'][0]:.2f} to {found['speedup_range'][1]:.2f}), bound "
            f"{found['bound']:.2f}, share {found['share_of_bound']:.0%}; validation "
            f"{found['validation_accuracy']}, p = {found['mcnemar']['p']:.2g}",
            flush=True,
        )
    values = {
        "profile": options.profile,
        "threads": torch.get_num_threads(),
        "images": options.images or "all",
        "epochs": options.epochs,
        "cases": cases,
    }
    write_benchmark("caching", values, options.results or workspace(options.profile).results)


if __name__ == "__main__":
    main()
