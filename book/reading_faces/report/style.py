"""Look of the book's figures and numbers: the seaborn theme, colours, glued values, figures with captions."""

from ast import literal_eval
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fer_utils.emotions import CLASSES

WIDTH = 7.2  # inches: the text column of a page; wider figures are scaled down and their letters with them
BLUE, ORANGE, GREEN, VERMILLION, PINK, BROWN, _, GREY, YELLOW, SKY = sns.color_palette("colorblind").as_hex()
CLASS_COLOURS = dict(zip(CLASSES, (VERMILLION, PINK, YELLOW, BLUE, ORANGE, GREY), strict=True))
NETWORK_COLOURS = {"EmoNet": GREY, "EasyNet": BLUE, "FaceNet": ORANGE}
SPLIT_COLOURS = {"train": GREY, "validation": VERMILLION, "test": SKY}


def use_style() -> None:
    """Set seaborn's theme for all following figures: colour-blind palette, nothing below 9 points."""
    sizes = dict.fromkeys(("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"), 10)
    sizes |= dict.fromkeys(("legend.fontsize", "legend.title_fontsize"), 9)
    look = {
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.figsize": (WIDTH, 3.2),
        "figure.dpi": 110,
        "savefig.dpi": "figure",
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
    }
    sns.set_theme(style="whitegrid", palette="colorblind", font="DejaVu Sans", rc=sizes | look)
    pd.set_option("display.max_colwidth", None)


def caption(figure: Figure, name: str) -> None:
    """Show a figure and store it under a name, by which a Markdown cell gives it caption and alt text.

    That cell holds ``:::{glue:figure} name``, ``:alt: …`` and the caption; the page shows the figure there
    alone, with `book/stage.py` hiding the cell's own picture. The figure is closed.
    """
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    plt.close(figure)
    _glue(name, Image(picture.getvalue(), format="png"), shown=True)


def glue_number(name: str, value: Any, spec: str = "") -> None:
    """Print a value, formatted by `spec`, and store it, by a name of its own, for ``{glue:text}`name` ``."""
    text = format(value, spec)
    print(f"{name}: {text}")
    _glue(name, _Plain(text), shown=False)


def glue_numbers(values: dict[str, Any], spec: str = "") -> None:
    """Store several values, by name, as `glue_number` does."""
    for name, value in values.items():
        glue_number(name, value, spec)


def percent(value: float, interval: tuple[float, float] | None = None, digits: int = 1) -> str:
    """Format a share, e.g. ``68.9%``, or with its interval ``68.9% (67.4 to 70.4%)``."""
    text = f"{value:.{digits}%}"
    if interval is None:
        return text
    return f"{text} ({100 * interval[0]:.{digits}f} to {interval[1]:.{digits}%})"


def points(value: float, interval: tuple[float, float] | None = None, digits: int = 1) -> str:
    """Format a difference of shares, e.g. ``+1.4 points``, or ``+1.4 points (−0.3 to +3.1)``."""
    low, high = interval or (0.0, 0.0)
    between = f" ({100 * low:+.{digits}f} to {100 * high:+.{digits}f})" if interval else ""
    return f"{100 * value:+.{digits}f} points{between}".replace("-", "−")


def dots(
    axes: Axes,
    table: pd.DataFrame,
    label: str,
    value: str = "accuracy",
    hue: str | None = None,
    palette: Mapping[str, str] | None = None,
) -> None:
    """Draw one row of the table a line: its value as a point, `low` to `high` as a bar, the first on top.

    `label` and `value` are columns of the table; its `low` and `high` are missing where there is no interval.
    Rows of the same label share a line, one below the other. The x-axis shows shares as per cent. `palette`
    has a colour for each value of the column `hue`; without it all are drawn in the first colour.
    """
    names = list(dict.fromkeys(table[label]))
    for name, group in table.groupby(label, sort=False):
        shifts = 0.24 * (np.arange(len(group)) - (len(group) - 1) / 2)
        for shift, (_, row) in zip(shifts, group.iterrows(), strict=True):
            spread = None if pd.isna(row["low"]) else [[row[value] - row["low"]], [row["high"] - row[value]]]
            colour = palette[row[hue]] if hue and palette else BLUE
            axes.errorbar(
                row[value], names.index(name) + shift, xerr=spread, fmt="o", capsize=3, color=colour
            )
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel=value)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.grid(axis="y", visible=False)


def _glue(name: str, value: Any, shown: bool) -> None:
    """Store a value with myst-nb; without it, in Colab say, show it at most."""
    try:
        from myst_nb import glue
    except ImportError:
        if shown:
            display(value)
    else:
        glue(name, value, display=shown)


class _Plain(str):
    """A string that prints without quotation marks, unless it looks like something else to Python.

    myst-nb evaluates what is glued, so that `35,887` would come out as the pair (35, 887).
    """

    __slots__ = ()

    def __repr__(self) -> str:
        try:
            literal_eval(self)
        except (SyntaxError, ValueError):
            return str(self)
        return super().__repr__()
