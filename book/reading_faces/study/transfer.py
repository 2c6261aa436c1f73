"""Transfer learning without a download: a network learns who is drawn, then what they express (chapter 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import lightning as L
import numpy as np
import pandas as pd

from fer_utils import features
from fer_utils.augment import Augment
from fer_utils.datasets.faceset import COLUMNS, FaceSet
from fer_utils.demo.drawn_face import Identity
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import EMOTIONS
from fer_utils.evaluation import predict, wilson_interval
from fer_utils.models import FaceNet
from fer_utils.recipes import recipe_for
from fer_utils.training import Fit, Recipe, fit
from fer_utils.workspace import workspace

IDENTITY_RECIPE = Recipe(epochs=8, lr=0.05, augment=Augment(flip=0.5, degrees=5, shift=0.03, scale=0.05))
LABELLED = 600  # training faces for the fine-tuning: where labels are few, a start matters most


def crowd(people: int = 60, pictures: int = 40, seed: int = 1_000) -> FaceSet:
    """Draw people who are in none of the demo data sets; the label says who it is, not what they express.

    Args:
        people: how many; at most 127.
        pictures: of each, with all kinds of expressions; every fifth is for validation.
        seed: of the drawing.

    Returns:
        A set in memory, of `people` × `pictures` images, 64×64.
    """
    rng = np.random.default_rng(seed)
    faces = [Identity.draw(rng) for _ in range(people)]
    who = np.tile(np.arange(people), pictures)
    emotions = rng.choice(EMOTIONS, len(who)).tolist()
    images = demo_faces(emotions, seed=seed, size=64, people=[faces[i] for i in who])
    number = np.arange(len(images))
    index = pd.DataFrame(
        {
            "label": who.astype(np.int8),
            "emotion": emotions,
            "source": "crowd",
            "subject": [f"P{i:03d}" for i in who],
            "split": np.where(number // people % 5 == 0, "validation", "train"),
            "origin": [f"drawn:{i}" for i in number],
            "hash": "",
            "seen_copy": False,
        }
    )
    return FaceSet(Path("crowd"), images, index[list(COLUMNS)], {}, number)


def learn_identities(people: FaceSet, folder: Path) -> Fit:
    """Teach the demo's trunk to say who is who.

    Args:
        people: what `crowd` gave.
        folder: for the checkpoints.
    """
    L.seed_everything(IDENTITY_RECIPE.seed, verbose=False)
    options, _ = recipe_for("facenet", "demo")
    model = FaceNet(**options | {"head": [], "num_classes": int(people.labels.max()) + 1})
    return fit(
        model, people.split("train"), people.split("validation"), IDENTITY_RECIPE, folder, verbose=False
    )


def fine_tune(folder: Path, start: Fit | None, freeze: float, views: int | None = None) -> Fit:
    """Train FaceNet on the expressions of `LABELLED` of the demo faces.

    Args:
        folder: for the checkpoints.
        start: whose trunk to start from; none for random weights.
        freeze: share of the trunk's layers that stays as it is.
        views: compute the frozen part once, for so many views of each face; none to compute it in each step.
    """
    faces = workspace("demo").faces()
    options, recipe = recipe_for("facenet", "demo")
    L.seed_everything(recipe.seed, verbose=False)
    model = FaceNet(**options | {"freeze": freeze})
    if start is not None:
        model.load_trunk(start.model.trunk.state_dict())
    order = np.random.default_rng(0).permutation(np.flatnonzero(faces.index["split"] == "train"))
    few = faces.where(np.isin(np.arange(len(faces)), order[:LABELLED]))
    validation = faces.split("validation")
    if views is None:
        return fit(model, few, validation, recipe, folder, verbose=False)
    store = features.cache(
        model, few, validation, folder / "features", views=views, augment=recipe.augment, verbose=False
    )
    return features.fit_cached(model, few, validation, recipe, folder, store, verbose=False)


def epochs_table(tuned: Mapping[str, Fit]) -> pd.DataFrame:
    """Median seconds an epoch took and the accuracy that was reached, one row a run."""
    rows = [
        {"run": name, "seconds an epoch": f"{run.history['seconds'].median():.2f}",
         "best on validation": f"{run.best['val_accuracy']:.1%}"}
        for name, run in tuned.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("run")


def compare(tuned: Mapping[str, Fit]) -> pd.DataFrame:
    """Accuracies on the demo faces' validation split, with Wilson intervals, for `plots.intervals`."""
    validation = workspace("demo").faces().split("validation")
    rows = []
    for name, run in tuned.items():
        hits = int(np.sum(predict(run.model, validation).argmax(1) == validation.labels))
        low, high = wilson_interval(hits, len(validation))
        rows.append({"name": name, "value": hits / len(validation), "low": low, "high": high, "group": "own"})
    return pd.DataFrame(rows)
