"""What every chapter does first and last: find its folders, say what it runs on, glue numbers into prose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from IPython.display import display

from fer_utils import results
from fer_utils.plots import use_style
from fer_utils.workspace import Profile, Workspace, workspace


def setup(profile: Profile) -> Workspace:
    """Open the workspace of a profile, set the figures' style and say what this run uses."""
    use_style()
    space = workspace(profile)
    faces = {"demo": "drawn demo faces", "full": "real data below FER_DATA"}[profile]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor (no GPU found)"
    print(f"profile: {profile} ({faces})\ndevice: {device}")
    return space


def glue(name: str, value: Any, text: str | None = None) -> None:
    """Store a value for the prose of the printed book: ``{glue:text}`name` `` shows it.

    Outside the book (in Colab, say) nothing is shown, so a chapter also prints what it glues.

    Args:
        name: the key.
        value: a number, a string or a figure.
        text: how the prose shows it; by default `value` itself.
    """
    shown = value if text is None else text
    try:
        from myst_nb import glue as store
    except ImportError:
        return
    store(name, _Plain(shown) if isinstance(shown, str) else shown, display=False)


class _Plain(str):
    """A string that prints without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def percent(value: float, digits: int = 1) -> str:
    """A share as the prose writes it: 0.689 becomes ``68.9 %``."""
    return f"{100 * value:.{digits}f} %"


def score(metrics: dict[str, Any]) -> str:
    """An accuracy with its interval, e.g. ``68.9 % (95 % interval 67.4 to 70.4 %)``."""
    low, high = metrics["accuracy_interval"]
    return f"{percent(metrics['accuracy'])} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"


def full_results(pattern: str) -> list[dict[str, Any]]:
    """Results files of the full profile that match, or an empty list with a printed note how to make them."""
    found = results.read_all(workspace("full").results, pattern)
    if not found:
        print(f"no results file {pattern} yet: the page “The full run” says which command writes it")
    return found


def show(figure: Any) -> None:
    """Display a figure once, in the place of the call."""
    display(figure)


def folder_of(path: Path, space: Workspace) -> str:
    """A path below the build folder as readers see it, without the machine's own part."""
    return str(path.relative_to(space.build.parent.parent))
