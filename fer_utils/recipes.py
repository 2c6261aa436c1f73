"""The recipe that each network is trained with, for each profile."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from typing import Any

from fer_utils.augment import Augment
from fer_utils.models import build
from fer_utils.training import Recipe, default_precision
from fer_utils.workspace import Profile

_POSTER = Augment(flip=0.5, degrees=10, shift=0.06, scale=0.1)
_BICUBIC = Augment(flip=0.5, degrees=12, shift=0.08, scale=0.12, interpolation="bicubic")
_LIT = dataclasses.replace(_BICUBIC, brightness=0.15, contrast=0.2)

# The poster froze the first 100 of its ResNet-50's 175 layers; other trunks freeze the same share.
POSTER_FREEZE = 100 / 175

RECIPES: dict[Profile, dict[str, tuple[dict[str, Any], Recipe]]] = {
    "full": {
        "emonet": ({}, Recipe(epochs=12, lr=0.02, augment=_POSTER)),
        "easynet": ({}, Recipe(epochs=28, lr=0.02, augment=_BICUBIC)),
        "facenet": (
            {"freeze": 0.45, "head": [], "input_size": 128},
            Recipe(epochs=12, lr=0.03, augment=_LIT),
        ),
    },
    "demo": {
        "emonet": ({"width": 0.125}, Recipe(epochs=5, lr=0.02, augment=_POSTER)),
        "easynet": (
            {"widths": [16, 32, 64], "stride": 2, "image_size": 64},
            Recipe(epochs=6, lr=0.05, augment=_POSTER),
        ),
        "facenet": (
            {"trunk": "easynet", "pretrained": "none", "trunk_width": 0.5, "head": [256, 64], "dropout": 0.2},
            Recipe(epochs=8, batch_size=32, lr=0.03, augment=_POSTER),
        ),
    },
}


# On a GPU a batch is so much larger, and the learning rate with it (Goyal et al. 2017, arXiv:1706.02677).
GPU_BATCHES = 4


def recipe_for(network: str, profile: Profile) -> tuple[dict[str, Any], Recipe]:
    """Options of a network and the recipe to train it with on the device that is there.

    Where there is a GPU, recipes of the full profile have `GPU_BATCHES` times the images in a batch and as
    many times the learning rate.

    Raises:
        ValueError: there is no network of that name.
    """
    if network not in RECIPES[profile]:
        raise ValueError(f"no network is called {network!r}; there are {', '.join(RECIPES[profile])}")
    options, recipe = RECIPES[profile][network]
    if profile == "full" and default_precision() != "32-true":
        recipe = dataclasses.replace(
            recipe, batch_size=GPU_BATCHES * recipe.batch_size, lr=GPU_BATCHES * recipe.lr
        )
    return options, recipe


def command(result: Mapping[str, Any]) -> str:
    """The `fer train` line that makes a run again, by its results file; then that of `fer calibrate`, if so.

    Args:
        result: as `results.read` gives it.

    Returns:
        The command, as a shell takes it: what differs from the network's recipe on a processor. Batch and
        learning rate are always told, since that recipe has others on a GPU.
    """
    network, profile = result["model"]["name"], result["profile"]
    calibrated = result.get("calibrated")
    name = calibrated["run"] if calibrated else result["name"]
    options, recipe = RECIPES[profile][network]
    words = ["fer", "train", network, "--name", name, "--seed", result["recipe"]["seed"]]
    where = ["--profile", profile] if profile != "full" else []
    words += where
    if set(result["data"]["trained_on"]) != set(result["data"]["sources"]):
        words += ["--sources", *result["data"]["trained_on"]]
    if result.get("validated_on"):
        words += ["--validate-on", *result["validated_on"]]
    then, usual = _flat(Recipe.from_dict(result["recipe"])), _flat(recipe)
    told = {"batch_size", "lr"} | {name for name in then if name not in usual or then[name] != usual[name]}
    words += given("--set", {name: then[name] for name in then if name in told and name != "seed"})
    usual = build(network, **options).options
    own = result["model"]["options"]
    words += given("--option", {name: value for name, value in own.items() if value != usual.get(name)})
    teachers, labels, cached = (result.get(key) for key in ("teachers", "labels", "cached"))
    if teachers:
        words += ["--teachers", *teachers["checkpoints"]]
    if labels:
        words += ["--labels", labels["kind"]]
    if labels or teachers:
        words += ["--share", f"{(labels or teachers)['share']:g}"]
    if cached:
        words += ["--cache", cached["views"], "--cache-dtype", cached["dtype"]]
    trained = shlex.join(map(str, [*words, "--precision", result.get("precision", "32-true")]))
    return f"{trained} && {shlex.join(['fer', 'calibrate', name, *where])}" if calibrated else trained


def _flat(recipe: Recipe) -> dict[str, Any]:
    """A recipe's fields with those of its augmentation beside them, as ``--set`` takes them."""
    fields = recipe.as_dict()
    augment = fields.pop("augment")
    return fields | (
        {"augment": None} if augment is None else {f"augment.{name}": v for name, v in augment.items()}
    )


def given(option: str, values: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command: each with its option, ``--set`` or ``--option``, before it."""
    words = []
    for name, value in values.items():
        words += [option, f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return words
