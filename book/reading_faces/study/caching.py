"""How much faster does FaceNet train on features computed once? `python -m reading_faces.study.caching`.

Trains with and without the cache, by the same recipe; timing the frozen and the trained part by themselves
bounds what can be gained. Writes `benchmarks/caching.json`; on an idle machine.
"""

import argparse
import copy
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from fer_utils.datasets.faceset import FaceSet
from fer_utils.evaluation import predict
from fer_utils.experiment import recipe_for, workspace
from fer_utils.models import FaceNet
from fer_utils.training import Recipe, fit, make_optimizer
from fer_utils.weights import load_pretrained
from reading_faces import features
from reading_faces.study.stats import mcnemar
from reading_faces.study.store import write_report

VIEWS, SECONDS, THREADS, POSTER_HEAD = 4, 2.0, torch.get_num_threads(), (4096, 1024)
CASES = (  # what is trained, frozen share of the trunk, units of the head's hidden layers, images a batch
    ("linear head", 1.0, (), 64),
    ("head only", 1.0, POSTER_HEAD, 64),
    ("head only", 1.0, POSTER_HEAD, 256),
    ("poster's share", 100 / 175, POSTER_HEAD, 64),
)


def bound(net: FaceNet, faces: FaceSet, recipe: Recipe) -> float:
    """Time a step of the whole network over that of its trained part: the most that a cache can bring."""
    (frozen, trained), rows = features.split(net), range(recipe.batch_size)
    images = torch.from_numpy(faces.take(rows)).unsqueeze(1).float() / 255
    labels, optimizer = torch.from_numpy(faces.labels[rows]), make_optimizer(trained, recipe)

    @torch.no_grad()
    def below() -> torch.Tensor:
        return frozen(net.trunk.normalise(net.enlarge(recipe.augment(images))))

    kept = below()

    def above() -> None:
        optimizer.zero_grad()
        F.cross_entropy(trained(kept), labels).backward()
        optimizer.step()

    timers = (Timer("call()", globals={"call": call}, num_threads=THREADS) for call in (below, above))
    frozen_time, trained_time = (timer.blocked_autorange(min_run_time=SECONDS).median for timer in timers)
    return 1 + frozen_time / trained_time


def measure(freeze: float, head: tuple[int, ...], parts: list[FaceSet], recipe: Recipe) -> dict[str, Any]:
    """Train a FaceNet with and without the cache."""
    L.seed_everything(recipe.seed, verbose=False)
    plain, seen = FaceNet(freeze=freeze, head=head), {"views": VIEWS, "augment": recipe.augment}
    load_pretrained(plain, parts[0].images)
    net, most = copy.deepcopy(plain), bound(copy.deepcopy(plain), parts[0], recipe)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = [features.compute(net, parts[0], folder, **seen), features.compute(net, parts[1], folder)]
        runs = {"uncached": fit(plain, *parts, recipe, folder / "uncached", verbose=False)}
        runs["cached"] = fit(features.split(net)[1], *kept, recipe, folder / "cached", verbose=False)
    ratios = np.divide(*(run.history["seconds"] for run in runs.values()))
    right = [predict(each.eval(), parts[1]).argmax(1) == parts[1].labels for each in (plain, net)]
    return {
        "frozen_layers": len(net.frozen_layers),
        "batch": recipe.batch_size,
        "cache": {"views": VIEWS, "bytes": sum(view.nbytes for part in kept for view in part.views)},
        "epoch_seconds": {kind: run.history["seconds"].tolist() for kind, run in runs.items()},
        "speedup": (speedup := float(np.median(ratios))),
        "speedup_range": [float(ratios.min()), float(ratios.max())],
        "bound": most,
        "share_of_bound": speedup / most,
        "validation_accuracy": {kind: float(hits.mean()) for kind, hits in zip(runs, right, strict=True)},
        "mcnemar": mcnemar(*right),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("profile", "full"), ("epochs", 6), ("images", 8_000)):
        parser.add_argument(f"--{name}", type=type(default), default=default)
    asked = parser.parse_args(arguments)
    space, cases = workspace(asked.profile), []
    faces = (space.faces().split(split) for split in ("train", "validation"))
    parts = [part.where(np.arange(len(part)) < asked.images) for part in faces]
    for case, freeze, head, batch in CASES:
        recipe = recipe_for("facenet", "full")[1]
        changes = {"epochs": asked.epochs, "batch_size": batch, "lr": recipe.lr * batch / recipe.batch_size}
        cases.append({"case": case} | measure(freeze, head, parts, dataclasses.replace(recipe, **changes)))
    about = vars(asked) | {"threads": THREADS, "cases": cases}
    write_report(space.results / "benchmarks" / "caching.json", about)


if __name__ == "__main__":
    main()
