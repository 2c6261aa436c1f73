"""Names that moved to `fer_utils.experiment`; goes when nobody imports them from here."""

from fer_utils.experiment import RECIPES, recipe_for

POSTER_FREEZE = 100 / 175

__all__ = ["POSTER_FREEZE", "RECIPES", "recipe_for"]
