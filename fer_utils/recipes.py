"""The recipe that each network is trained with, for each profile."""

from __future__ import annotations

from typing import Any

from fer_utils.augment import Augment
from fer_utils.training import Recipe
from fer_utils.workspace import Profile

_POSTER = Augment(flip=0.5, degrees=10, shift=0.06, scale=0.1)
_STRONGER = Augment(flip=0.5, degrees=12, shift=0.08, scale=0.12)

# The poster froze the first 100 of its ResNet-50's 175 layers; other trunks freeze the same share.
POSTER_FREEZE = 100 / 175

RECIPES: dict[Profile, dict[str, tuple[dict[str, Any], Recipe]]] = {
    "full": {
        "emonet": ({}, Recipe(epochs=12, lr=0.02, augment=_POSTER)),
        "easynet": ({}, Recipe(epochs=24, lr=0.02, augment=_STRONGER)),
        "facenet": (
            {"freeze": POSTER_FREEZE},
            Recipe(epochs=8, lr=0.01, augment=_STRONGER),
        ),
    },
    "demo": {
        "emonet": ({"width": 0.125}, Recipe(epochs=5, lr=0.02, augment=_POSTER)),
        "easynet": ({"widths": [16, 32, 64]}, Recipe(epochs=6, lr=0.05, augment=_POSTER)),
        "facenet": (
            {"trunk": "easynet", "pretrained": "none", "trunk_width": 0.5, "head": [256, 64], "dropout": 0.2},
            Recipe(epochs=8, batch_size=32, lr=0.03, augment=_POSTER),
        ),
    },
}


def recipe_for(network: str, profile: Profile) -> tuple[dict[str, Any], Recipe]:
    """Options of a network and the recipe to train it with.

    Raises:
        ValueError: there is no network of that name.
    """
    if network not in RECIPES[profile]:
        raise ValueError(f"no network is called {network!r}; there are {', '.join(RECIPES[profile])}")
    return RECIPES[profile][network]
