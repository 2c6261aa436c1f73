"""How much faster does FaceNet train on features computed once? `python -m reading_faces.study.caching`.

Trains with and without the cache, by the same recipe; timing the frozen and the trained part by themselves
bounds what can be gained. Writes `benchmarks/caching.json`; on an idle machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from fer_utils.datasets.faceset import FaceSet
from fer_utils.evaluation import mcnemar, predict
from fer_utils.experiment import recipe_for, workspace
from fer_utils.models import FaceNet
from fer_utils.training import Recipe, fit
from fer_utils.weights import load_pretrained
from reading_faces import features
from reading_faces.study.store import write_report

VIEWS, SECONDS, POSTER_HEAD = 4, 2.0, (4096, 1024)
# What is trained, frozen share of the trunk, units of the head's hidden layers, images a batch.
CASES = (
    ("linear head", 1.0, (), 64),
    ("head only", 1.0, POSTER_HEAD, 64),
    ("head only", 1.0, POSTER_HEAD, 256),
    ("poster's share", 100 / 175, POSTER_HEAD, 64),
)


def bound(net: FaceNet, images: torch.Tensor, labels: torch.Tensor, recipe: Recipe) -> float:
    """Time a step of the whole network over that of its trained part: the most that a cache can bring."""
    frozen, trained = features.split(net)
    optimizer = torch.optim.SGD([p for p in trained.parameters() if p.requires_grad], 0.0, momentum=0.9)

    @torch.no_grad()
    def below() -> torch.Tensor:
        return frozen(net.trunk.normalise(net.enlarge(recipe.augment(images))))

    kept = below()

    def above() -> None:
        optimizer.zero_grad()
        F.cross_entropy(trained(kept), labels).backward()
        optimizer.step()

    def seconds(call: Callable[[], object]) -> float:
        timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
        return timer.blocked_autorange(min_run_time=SECONDS).median

    return 1 + seconds(below) / seconds(above)


def measure(freeze: float, head: tuple[int, ...], parts: list[FaceSet], recipe: Recipe) -> dict[str, Any]:
    """Train a FaceNet with and without the cache."""

    def new() -> FaceNet:
        L.seed_everything(recipe.seed, verbose=False)
        net = FaceNet(freeze=freeze, head=head)
        load_pretrained(net, parts[0].images)
        return net

    plain, net = new(), new()
    with tempfile.TemporaryDirectory() as folder:
        seen = {"views": VIEWS, "augment": recipe.augment}
        kept = [features.compute(net, parts[0], Path(folder), **seen)]
        kept.append(features.compute(net, parts[1], Path(folder)))
        trained = features.split(net)[1]
        runs = {"uncached": fit(plain, *parts, recipe, Path(folder) / "uncached", verbose=False)}
        runs["cached"] = fit(trained, *kept, recipe, Path(folder) / "cached", verbose=False)
    images = torch.from_numpy(parts[0].take(range(recipe.batch_size))).unsqueeze(1).float() / 255
    most = bound(new(), images, torch.from_numpy(parts[0].labels[: recipe.batch_size]), recipe)
    ratios = np.divide(*(run.history["seconds"] for run in runs.values()))
    nets, labels = {"uncached": plain, "cached": net}, parts[1].labels
    right = {kind: predict(each.eval(), parts[1]).argmax(1) == labels for kind, each in nets.items()}
    return {
        "frozen_layers": len(net.frozen_layers),
        "last_frozen": net.frozen_layers[-1][0],
        "batch": recipe.batch_size,
        "cache": {"views": VIEWS, "bytes": sum(view.nbytes for part in kept for view in part.views)},
        "epoch_seconds": {kind: run.history["seconds"].tolist() for kind, run in runs.items()},
        "speedup": (speedup := float(np.median(ratios))),
        "speedup_range": [float(ratios.min()), float(ratios.max())],
        "bound": most,
        "share_of_bound": speedup / most,
        "validation_accuracy": {kind: float(hits.mean()) for kind, hits in right.items()},
        "mcnemar": mcnemar(right["uncached"], right["cached"]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all cases on real faces, or on drawn ones to see that it runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=("demo", "full"), default="full")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=8_000, help="of each split, at most")
    asked = parser.parse_args(arguments)
    space, cases = workspace(asked.profile), []
    faces = [space.faces().split(split) for split in ("train", "validation")]
    parts = [part.where(np.arange(len(part)) < asked.images) for part in faces]
    for case, freeze, head, batch in CASES:
        recipe = recipe_for("facenet", "full")[1]
        changes = {"epochs": asked.epochs, "batch_size": batch, "lr": recipe.lr * batch / recipe.batch_size}
        cases.append({"case": case} | measure(freeze, head, parts, dataclasses.replace(recipe, **changes)))
    about = vars(asked) | {"threads": torch.get_num_threads(), "cases": cases}
    write_report(space.results / "benchmarks" / "caching.json", about)


if __name__ == "__main__":
    main()
