"""Names that moved to `fer_utils.experiment`; goes when nobody imports them from here."""

from typing import Any

from fer_utils import experiment
from fer_utils.experiment import check_same_dataset as refuse_another_set
from fer_utils.experiment import recipe_for

__all__ = ["change", "evaluate", "recipe_for", "refuse_another_set", "train", "train_or_load"]


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    options |= options.pop("recipe_changes", None) or {}
    options |= options.pop("model_options", None) or {}
    share = options.pop("share", None)
    return options if share is None else options | {"loss_weight": share}


def train(space: Any, network: str, **options: Any) -> Any:
    """`experiment.train` with the settings in groups."""
    return experiment.train(space, network, **_flat(options))


def train_or_load(space: Any, network: str, **options: Any) -> Any:
    """`experiment.train_or_load` with the settings in groups."""
    return experiment.train_or_load(space, network, **_flat(options))


def evaluate(space: Any, name: str, *, test: bool = False) -> Any:
    """The path of what `experiment.evaluate` writes."""
    experiment.evaluate(space, name, test=test)
    return space.results / f"{name}.json"


def change(recipe: Any, changes: dict[str, Any]) -> Any:
    """A recipe with some fields changed."""
    return experiment.changed("easynet", {}, recipe, changes)[1]
