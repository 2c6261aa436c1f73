"""The book's figures. They draw what they are given: nothing is loaded, and nothing computed beyond layout.

Every function returns a `matplotlib.figure.Figure` that pyplot does not know, so a notebook shows it once, as
the value of its cell. Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; whatever
a colour says is also said by a marker, a hatch, a line style or a word.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.core.pylabtools import select_figure_formats
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon, Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

from fer_utils.emotions import CLASSES

WIDTH = 7.2  # inches: the text column of a page
INK, QUIET, RULE = "#222222", "#666666", "#bbbbbb"
BLUE, ORANGE, GREEN, VERMILLION, SKY, PINK = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
CYCLE = (BLUE, ORANGE, GREEN, PINK, SKY, VERMILLION)
MARKERS = ("o", "s", "^", "D", "v", "P")
SOURCES = dict(zip(("fer2013", "ckplus", "jaffe", "rafdb", "affectnet", "expw"), CYCLE, strict=True))
SPLITS = {"train": ("#4d4d4d", ""), "validation": (VERMILLION, "////"), "test": (SKY, "....")}
LIGHT_TEXT_FROM = 0.66  # of the colour map Blues: where white is read more easily than ink
LAYERS = {"trained": (BLUE, ""), "frozen": ("#b4c3d1", "////"), "without parameters": ("#f2f2f2", "")}


def use_style() -> None:
    """Set the book's style for all following figures, and let a notebook show them as pictures.

    Fonts are 9 points and larger at full size; the font comes with matplotlib, so that figures look the same
    on every machine.
    """
    matplotlib.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": "figure",
            "figure.facecolor": "white",
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.labelsize": 9,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.edgecolor": RULE,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "grid.color": "#e6e6e6",
            "hatch.linewidth": 0.6,
            "legend.frameon": False,
        }
    )
    # Registered here, since matplotlib does it only for figures of pyplot's with the inline backend.
    if (shell := get_ipython()) is not None:
        select_figure_formats(shell, {"png"})


def sample_grid(images: np.ndarray, labels: Sequence[str] | np.ndarray, columns: int = 9) -> Figure:
    """Sample faces, one row a class: the poster's figure 1.

    Args:
        images: uint8 (N, H, W), grey, 0–255.
        labels: of each image, names of `CLASSES` or ints 0–5.
        columns: faces a row; each class shows its first ones.

    Raises:
        ValueError: shapes do not agree, or a label is not one of the six classes.
    """
    names = _names(labels)
    _check_images(images, len(names))
    rows = [[images[i] for i in np.flatnonzero(names == name)[:columns]] for name in CLASSES]
    return _mosaic(rows, columns, images.shape[1:], row_names=CLASSES)


def class_counts(counts: pd.DataFrame) -> Figure:
    """Images by class and split, one panel a source, each with its own scale.

    Args:
        counts: as `FaceSet.counts` gives them: rows are the classes and ``total``, columns (source, split).

    Raises:
        ValueError: a class is missing, or the columns do not have two levels.
    """
    _check(counts.columns.nlevels == 2 and set(CLASSES) <= set(counts.index), "not a table of FaceSet.counts")
    sources, splits = (list(dict.fromkeys(counts.columns.get_level_values(level))) for level in (0, 1))
    splits.sort(key=list(SPLITS).index)
    step = 0.84 / len(splits)
    figure, panels = _panels(len(sources), 3, height=0.9 + 6 * max(0.3, 0.17 * len(splits)), sharey=True)
    for axes, source in zip(panels, sources, strict=True):
        part = counts[source]
        for split in (s for s in splits if s in part):
            colour, hatch = SPLITS[split]
            places = np.arange(len(CLASSES)) - 0.42 + (splits.index(split) + 0.5) * step
            bars = axes.barh(
                places,
                part.loc[list(CLASSES), split],
                0.9 * step,
                color=colour,
                hatch=hatch,
                edgecolor="white",
            )
            axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=9)
        axes.set_title(f"{source}: {part.loc[list(CLASSES)].to_numpy().sum():,} images", loc="left")
        axes.margins(x=0.24)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(left=False)
    panels[0].set_yticks(range(len(CLASSES)), CLASSES)
    panels[0].set_ylim(len(CLASSES) - 0.5, -0.5)
    handles = [Patch(facecolor=SPLITS[s][0], hatch=SPLITS[s][1], edgecolor="white", label=s) for s in splits]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(splits))
    return figure


def mean_faces(means: Mapping[str, np.ndarray], counts: Mapping[str, Sequence[int]]) -> Figure:
    """Mean face of every class (columns) and source (rows), with the number of images below it.

    Args:
        means: by source, float (6, H, W), grey, 0–255; all of one size. Not-a-number where there is no image.
        counts: by source, the images behind each mean, six ints.

    Raises:
        ValueError: shapes do not agree.
    """
    sizes = {np.shape(faces)[1:] for faces in means.values()}
    _check(all(len(faces) == len(CLASSES) for faces in means.values()), "six mean faces a source are needed")
    _check(len(sizes) == 1 and list(counts) == list(means), "means and counts do not agree")
    _check(all(len(numbers) == len(CLASSES) for numbers in counts.values()), "six counts a source are needed")
    texts = [[f"{n:,}" if n else "none" for n in counts[source]] for source in means]
    return _mosaic(
        [list(faces) for faces in means.values()],
        len(CLASSES),
        sizes.pop(),
        row_names=list(means),
        column_names=CLASSES,
        texts=texts,
    )


def augmentation_examples(original: np.ndarray, variants: np.ndarray, columns: int = 9) -> Figure:
    """A face, framed, followed by versions of it as training sees them.

    Args:
        original: (H, W), grey, uint8 0–255 or float 0–1.
        variants: (K, H, W), of the same type.
        columns: faces a row.

    Raises:
        ValueError: shapes do not agree.
    """
    _check_images(variants, len(variants))
    _check(original.shape == variants.shape[1:], "original and variants differ in size")
    faces = [original, *variants]
    rows = [faces[start : start + columns] for start in range(0, len(faces), columns)]
    figure = _mosaic(rows, min(columns, len(faces)), original.shape, white=_white(variants))
    height, width = original.shape
    frame = Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor=VERMILLION, linewidth=2.5)
    figure.axes[0].add_patch(frame).set_clip_on(False)
    figure.axes[0].set_title("original (framed) and variants", loc="left")
    return figure


def statistics_by_source(table: pd.DataFrame) -> Figure:
    """Distributions of image statistics by source, one panel a quantity.

    Boxes hold the middle half of the images, the line is the median, whiskers reach from the 5th to the 95th
    percentile.

    Args:
        table: columns `source`, `quantity`, `value`; one row an image and quantity.

    Raises:
        ValueError: a column is missing.
    """
    _check_columns(table, "source", "quantity", "value")
    quantities, sources = list(table["quantity"].unique()), list(table["source"].unique())
    figure, panels = _panels(len(quantities), 3, height=0.75 + 0.36 * len(sources), sharey=True)
    for axes, quantity in zip(panels, quantities, strict=True):
        part = table[table["quantity"] == quantity]
        values = [part.loc[part["source"] == source, "value"].dropna() for source in sources]
        boxes = axes.boxplot(
            values,
            orientation="horizontal",
            positions=range(len(sources)),
            widths=0.6,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            medianprops={"color": INK, "linewidth": 1.5},
        )
        for box, colour in zip(boxes["boxes"], _colours(sources), strict=True):
            box.set(facecolor=_lighter(colour, 0.45), edgecolor=colour)
        axes.set_title(quantity, loc="left")
        axes.grid(axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(left=False)
    panels[0].set_yticks(range(len(sources)), sources)
    panels[0].set_ylim(len(sources) - 0.5, -0.5)
    return figure


def architecture(table: pd.DataFrame, title: str, per_row: int = 8) -> Figure:
    """A network as a row of slabs: the poster's figures 2–4.

    The height of a slab grows with the root of the image side, its thickness with the logarithm of the number
    of channels; fully connected layers are flat bars whose height grows with the logarithm of their units.

    Args:
        table: one row a layer, as `fer_utils.models.layer_table` gives it: `layer`, `kind`, `output` (a tuple
            (channels, height, width) or (units,), or text such as ``"32 × 60 × 60"``), `parameters` and
            `trained`.
        title: of the figure.
        per_row: slabs a row; further ones go on in the next row.

    Raises:
        ValueError: a column is missing, an output is no shape, or there is no layer.
    """
    _check_columns(table, "layer", "kind", "output", "parameters", "trained")
    _check(len(table) > 0, "there is nothing to draw")
    shapes = [_shape(output) for output in table["output"]]
    rows = -(-len(table) // per_row)
    across = -(-len(table) // rows)
    pitch, line, head = WIDTH / across, 0.155, 0.62
    letters = int(pitch / 0.085)
    texts = [
        [*_wrap(layer, letters - 1), *_wrap(kind, letters), "×".join(map(str, shape))]
        for layer, kind, shape in zip(table["layer"], table["kind"], shapes, strict=True)
    ]
    largest = max((shape[1] for shape in shapes if len(shape) == 3), default=1)
    slabs = [_slab_height(shape, largest) for shape in shapes]
    floors, height = [], head
    for start in range(0, len(table), across):  # each row is as high as its highest slab and longest text
        floors.append(-height - 1.2 * max(slabs[start : start + across]))
        height = 0.25 + line * max(map(len, texts[start : start + across])) - floors[-1]
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH), ylim=(-height, 0))
    axes.axis("off")
    axes.text(0.1, -0.1, title, va="top", fontsize=11, weight="bold")
    status = np.where(table["trained"], "trained", "frozen").astype(object)
    status[table["parameters"].to_numpy() == 0] = "without parameters"
    for i, (shape, words) in enumerate(zip(shapes, texts, strict=True)):
        row, column = divmod(i, across)
        x, floor = (column + 0.5) * pitch, floors[row]
        if i + 1 < len(table):
            axes.plot((x, x + pitch), (floor, floor), color=RULE, linewidth=1, zorder=0)
        _slab(axes, x, floor, slabs[i], shape, *LAYERS[status[i]])
        named = len(_wrap(table["layer"].iloc[i], letters - 1))
        for k, word in enumerate(words):
            weight, colour = ("bold", INK) if k < named else ("normal", INK if k == len(words) - 1 else QUIET)
            axes.text(x, floor - 0.1 - k * line, word, ha="center", va="top", weight=weight, color=colour)
    sums = table["parameters"].groupby(status).sum()
    handles = [
        Patch(
            facecolor=LAYERS[s][0], hatch=LAYERS[s][1], edgecolor=INK, linewidth=0.6, label=_sum(s, sums[s])
        )
        for s in LAYERS
        if s in sums
    ]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.1, -0.28), ncols=3, borderpad=0,
                bbox_transform=axes.transData, borderaxespad=0, columnspacing=1.5)  # fmt: skip
    return figure


def learning_curves(
    history: pd.DataFrame, *, best_epoch: int | None = None, chance: float | None = None
) -> Figure:
    """Loss and accuracy over the epochs, in training and validation.

    Args:
        history: `epoch`, `train_loss`, `val_loss`, `train_accuracy`, `val_accuracy` (0–1), one row an epoch.
        best_epoch: the epoch whose weights were kept; marked.
        chance: accuracy of always answering the most frequent class, 0–1; a dotted line.

    Raises:
        ValueError: a column is missing.
    """
    _check_columns(history, "epoch", "train_loss", "val_loss", "train_accuracy", "val_accuracy")
    figure, (left, right) = _panels(2, 2, height=2.9)
    for axes, quantity in ((left, "loss"), (right, "accuracy")):
        for split, column, style in (("train", "train", "--"), ("validation", "val", "-")):
            marker = "o" if len(history) < 3 else None
            label = "training" if split == "train" else split
            colour = SPLITS[split][0]
            axes.plot(
                history["epoch"], history[f"{column}_{quantity}"], style, c=colour, label=label, marker=marker
            )
        if best_epoch is not None:
            axes.axvline(best_epoch, color=QUIET, linewidth=0.8, label=f"kept: epoch {best_epoch}", zorder=0)
        axes.set_title(quantity, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
    if chance is not None:
        right.axhline(chance, color=QUIET, linestyle=":", label=f"chance: {100 * chance:.1f} %")
    low, high = right.get_ylim()
    middle = (low + high) / 2
    right.set_ylim(min(low, middle - 0.05), max(high, middle + 0.05))  # ticks of whole percents differ
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    figure.legend(*right.get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def schedule(history: pd.DataFrame) -> Figure:
    """Learning rate over the epochs.

    Args:
        history: `epoch` and `lr`, one row an epoch.

    Raises:
        ValueError: a column is missing.
    """
    _check_columns(history, "epoch", "lr")
    figure, (axes,) = _panels(1, 1, height=2.0)
    axes.plot(history["epoch"], history["lr"], color=BLUE, marker="o", markersize=3)
    axes.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(axis="y")
    return figure


def confusion_matrices(
    matrices: Mapping[str, np.ndarray], *, show: Literal["rates", "counts", "both"] = "both"
) -> Figure:
    """Confusion matrices side by side: rows are labels, columns predictions; colour is the share of the row.

    Args:
        matrices: by title, int (6, 6) counts.
        show: what a cell says: the share of its row in % (without the sign if alone), the count, or both.

    Raises:
        ValueError: a matrix is not 6×6, or there is none.
    """
    _check(bool(matrices), "there is no matrix to draw")
    across = min(len(matrices), 3 if show == "rates" else 2)
    side = min((WIDTH - 0.6) / across, 4.6)
    figure, panels = _panels(
        len(matrices), across, height=side + 0.35, width=side * across + 0.6, sharey=True
    )
    for axes, (title, counts) in zip(panels, matrices.items(), strict=True):
        counts = np.asarray(counts)
        _check(counts.shape == (len(CLASSES),) * 2, f"{title}: a matrix of shape {counts.shape}, not 6×6")
        rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
        for (i, j), n in np.ndenumerate(counts):
            rate = f"{100 * rates[i, j]:.0f}{' %' * (show == 'both')}" if counts[i].sum() else "–"
            text = {"rates": rate, "counts": f"{n:,}", "both": f"{rate}\n{n:,}"}[show]
            colour = "white" if rates[i, j] > LIGHT_TEXT_FROM else INK
            axes.text(j, i, text, ha="center", va="center", color=colour, linespacing=1.1)
        axes.set_title(title)
        axes.set_xticks(range(len(CLASSES)), CLASSES, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(CLASSES)), CLASSES)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    figure.supxlabel(
        "prediction (share of the label's images in %)" if show == "rates" else "prediction", fontsize=9
    )
    figure.supylabel("label", fontsize=9)
    return figure


def accuracy_matrix(
    values: np.ndarray,
    intervals: np.ndarray,
    trained_on: Sequence[str],
    tested_on: Sequence[str],
    *,
    chance: Sequence[float] | None = None,
    threshold: float | Sequence[float] | None = None,
) -> Figure:
    """Accuracies by training set (rows) and test set (columns), with intervals.

    Args:
        values: (R, C), accuracies 0–1; not-a-number where there is none.
        intervals: (R, C, 2), lower and upper ends, 0–1.
        trained_on: R names.
        tested_on: C names.
        chance: of each column, accuracy 0–1 of the most frequent class; written below the name.
        threshold: one for all columns or one a column, 0–1; accuracies below it are marked ▼.

    Raises:
        ValueError: shapes do not agree.
    """
    values, intervals, shape = np.asarray(values), np.asarray(intervals), (len(trained_on), len(tested_on))
    _check(values.shape == shape, f"values of shape {values.shape} for {shape} names")
    _check(intervals.shape == (*shape, 2), f"intervals of shape {intervals.shape} for {shape} names")
    _check(chance is None or len(chance) == shape[1], "one chance a column is needed")
    below = values < (np.full(shape[1], -1.0) if threshold is None else np.broadcast_to(threshold, shape[1]))
    width = min(WIDTH, 1.6 + 1.4 * shape[1])
    figure, (axes,) = _panels(1, 1, height=1.0 + 0.62 * shape[0], width=width)
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        mark, (low, high) = "▼ " if below[i, j] else "", 100 * intervals[i, j]
        text = "–" if np.isnan(value) else f"{mark}{100 * value:.1f} %\n{low:.1f} to {high:.1f}"
        axes.text(j, i, text, ha="center", va="center", color="white" if value > LIGHT_TEXT_FROM else INK)
        if below[i, j]:
            corner = (j - 0.47, i - 0.46)
            axes.add_patch(Rectangle(corner, 0.94, 0.92, fill=False, edgecolor=VERMILLION, linewidth=1.8))
    names = list(tested_on)
    if chance is not None:
        names = [f"{name}\nchance {100 * c:.1f} %" for name, c in zip(names, chance, strict=True)]
    axes.set_xticks(range(shape[1]), names)
    axes.set_yticks(range(shape[0]), trained_on)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlabel="tested on", ylabel="trained on")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if below.any():
        levels = sorted({f"{100 * t:.1f} %" for t in np.atleast_1d(threshold)})
        said = f"below {levels[0]}" if len(levels) == 1 else "below the column's threshold"
        figure.supxlabel(f"▼ {said}", fontsize=9, color=VERMILLION, x=0.99, ha="right")
    return figure


def intervals(
    table: pd.DataFrame, *, label: str = "accuracy", references: Mapping[str, float] | None = None
) -> Figure:
    """Values with their intervals, the highest first: previous work, ablations, seeds.

    Args:
        table: `name`; `value`, `low`, `high` (0–1; `low` and `high` not-a-number where no interval is known);
            `group`, ``"own"`` for what this book measured or ``"other"``; and, optionally, `note`, such as
            the protocol. Values and notes stand at the right.
        label: of the axis.
        references: vertical lines by name, 0–1.

    Raises:
        ValueError: a column is missing, a group is neither own nor other, or there is no row.
    """
    _check_columns(table, "name", "value", "low", "high", "group")
    _check(set(table["group"]) <= {"own", "other"}, "a group is neither own nor other")
    _check(len(table) > 0, "there is nothing to draw")
    table = table.sort_values("value", ascending=False, kind="stable").reset_index(drop=True)
    names = ["\n".join(textwrap.wrap(name, 30)) for name in table["name"]]
    notes = table["note"].fillna("") if "note" in table else [""] * len(table)
    said = [
        "\n".join(textwrap.wrap(f"{100 * value:.1f} %  {note}".rstrip(), 34))
        for value, note in zip(table["value"], notes, strict=True)
    ]
    lines = [1 + max(a.count("\n"), b.count("\n")) for a, b in zip(names, said, strict=True)]
    places = np.cumsum(lines) - np.array(lines) / 2 + 0.75 * np.arange(len(table))
    end = sum(lines) + 0.75 * len(table)
    figure, (axes,) = _panels(1, 1, height=0.95 + 0.16 * end)
    styles = {"own": ("o", BLUE, "this book"), "other": ("D", QUIET, "others, as published or measured")}
    for group, (marker, colour, legend) in styles.items():
        part = (table["group"] == group).to_numpy()
        if part.any():
            rows = table[part]
            errors = [rows["value"] - rows["low"], rows["high"] - rows["value"]]
            face = colour if group == "own" else "white"
            axes.errorbar(rows["value"], places[part], xerr=errors, fmt=marker, color=colour, label=legend,
                          markersize=6, markerfacecolor=face, elinewidth=1.6, capsize=3)  # fmt: skip
    for (name, value), style in zip((references or {}).items(), ("--", ":", "-."), strict=False):
        axes.axvline(value, color=VERMILLION, linestyle=style, label=f"{name}: {100 * value:.1f} %", zorder=0)
    axes.set_yticks(places, names)
    axes.set_ylim(end, -0.75)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None, symbol=" %"))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(label)
    axes.grid(axis="both")
    right = axes.secondary_yaxis("right")
    right.set_yticks(places, said)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    handles, entries = axes.get_legend_handles_labels()
    own_first = sorted(range(len(entries)), key=lambda i: isinstance(handles[i], Line2D))
    figure.legend([handles[i] for i in own_first], [entries[i] for i in own_first],
                  loc="outside upper center", ncols=3 if len(entries) < 4 else 2)  # fmt: skip
    return figure


def costs(table: pd.DataFrame) -> Figure:
    """What accuracy costs: against parameters (left) and milliseconds a face (right), each on its own scale.

    Args:
        table: `name`, `parameters`, `milliseconds`, `accuracy`, `low`, `high` (0–1), one row a network.

    Raises:
        ValueError: a column is missing, or there is no row.
    """
    _check_columns(table, "name", "parameters", "milliseconds", "accuracy", "low", "high")
    _check(len(table) > 0, "there is nothing to draw")
    figure, panels = _panels(2, 2, height=3.0, sharey=True)
    labels = ("parameters, millions", "milliseconds a face")
    for axes, values, label in zip(
        panels, (table["parameters"] / 1e6, table["milliseconds"]), labels, strict=True
    ):
        for i, (row, x) in enumerate(zip(table.itertuples(), values, strict=True)):
            errors = [[row.accuracy - row.low], [row.high - row.accuracy]]
            axes.errorbar(x, row.accuracy, yerr=errors, fmt=MARKERS[i % len(MARKERS)], markersize=6,
                          color=CYCLE[i % len(CYCLE)], label=row.name, elinewidth=1.6, capsize=3)  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(values.min() / 2, values.max() * 2)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(label)
        axes.grid()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    panels[0].set_ylabel("accuracy")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside upper center", ncols=min(len(table), 4))
    return figure


def recall_intervals(recalls: Mapping[str, Mapping[str, tuple[float, float, float] | None]]) -> Figure:
    """Recall of every class, with intervals, for several networks side by side.

    Args:
        recalls: by network and class, (recall, low, high), 0–1, or none for a class without an image.

    Raises:
        ValueError: a class is missing, or there is no network.
    """
    return share_intervals(recalls, CLASSES, label="recall")


def share_intervals(
    shares: Mapping[str, Mapping[str, tuple[float, float, float] | None]],
    names: Sequence[str],
    *,
    label: str,
    near: bool = False,
) -> Figure:
    """Shares with their intervals, by group (colour and marker) and name (from left to right).

    Args:
        shares: by group and name, (share, low, high), 0–1, or none where nothing was counted.
        names: what stands on the axis, in this order.
        label: of the shares.
        near: come near: the axis is as long as the intervals need, not 0 to 1, and says each share in %.

    Raises:
        ValueError: a name is missing in a group, or there is no group.
    """
    _check(bool(shares), "there is nothing to draw")
    for group, values in shares.items():
        missing = [name for name in names if name not in values]
        _check(not missing, f"{group}: {', '.join(missing)} is missing")
    figure, (axes,) = _panels(1, 1, height=3.1)
    shifts = (np.arange(len(shares)) - (len(shares) - 1) / 2) * min(0.27 if near else 0.18, 0.7 / len(shares))
    for i, (group, values) in enumerate(shares.items()):
        found = [(k, *values[name]) for k, name in enumerate(names) if values[name] is not None]
        place, value, low, high = np.array(found, dtype=float).reshape(-1, 4).T
        colour, marker = CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]
        axes.errorbar(place + shifts[i], value, yerr=[value - low, high - value], fmt=marker, color=colour,
                      label=group, markersize=6, elinewidth=1.6, capsize=3)  # fmt: skip
        for k, share in zip(place, value, strict=True) if near else ():
            axes.annotate(f"{100 * share:.1f}", (k + shifts[i], share), (6, 0), va="center",
                          textcoords="offset points", color=INK)  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set(xlim=(-0.6, len(names) - 0.4), ylabel=label)
    if not near:
        axes.set_ylim(0, 1.02)
    axes.set_xticks(np.arange(len(names) - 1) + 0.5, minor=True)
    axes.tick_params(axis="x", which="both", length=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid(axis="y")
    axes.grid(axis="x", which="minor")
    # Long names would run off the figure.
    columns = next((c for c in (4, 2) if min(c, len(shares)) * max(map(len, shares)) < 85), 1)
    figure.legend(loc="outside upper center", ncols=min(len(shares), columns))
    return figure


def votes_grid(images: np.ndarray, labels: Sequence[str] | np.ndarray, shares: np.ndarray) -> Figure:
    """Faces with what people said about them: one bar a class, and one for all other words.

    Args:
        images: uint8 (N, H, W), grey, 0–255.
        labels: of each image, names of `CLASSES` or ints 0–5; a dot marks them among the bars.
        shares: float (N, 7), shares of the votes for the six classes and outside them, 0–1.

    Raises:
        ValueError: shapes do not agree, a label is not one of the six classes, or there is no image.
    """
    labels, names = _names(labels), (*CLASSES, "other word")
    _check_images(images, len(labels))
    _check(np.shape(shares) == (len(labels), len(names)), "shares are not (N, 7)")
    _check(len(labels) > 0, "there is nothing to draw")
    across = min(6, len(labels))
    down = -(-len(labels) // across)
    figure = Figure(figsize=(0.95 + 1.04 * across, 2.5 * down + 0.3), layout="constrained")
    grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=(1, 1) * down)
    for k in range(down * across):
        face, bars = grid[2 * (k // across), k % across], grid[2 * (k // across) + 1, k % across]
        face.axis("off")
        if k >= len(labels):
            bars.axis("off")
            continue
        own = CLASSES.index(labels[k])
        face.imshow(images[k], cmap="gray", vmin=0, vmax=255)
        face.set_title(f"label: {labels[k]}", fontsize=9)
        colours = [BLUE if i == own else RULE for i in range(len(names))]
        bars.barh(range(len(names)), shares[k], 0.75, color=colours)
        bars.plot(-0.07, own, "o", color=INK, markersize=4, clip_on=False)
        bars.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6), xticks=())
        bars.set_yticks(range(len(names)), names if k % across == 0 else [""] * len(names))
        bars.tick_params(length=0, pad=11)
        bars.spines["bottom"].set_visible(False)
    dot = Line2D([], [], color=INK, marker="o", markersize=4, linestyle="", label="label")
    figure.legend(handles=[dot, Patch(facecolor=BLUE, label="votes for the label"),
                           Patch(facecolor=RULE, label="votes for another word")],
                  loc="outside upper center", ncols=3 if across > 3 else 1)  # fmt: skip
    return figure


def label_votes(counts: np.ndarray, answers: Sequence[str]) -> Figure:
    """What people said of the images with each label: rows are labels, columns what most people said.

    Args:
        counts: int (6, K), images.
        answers: K names of columns.

    Raises:
        ValueError: shapes do not agree.
    """
    counts = np.asarray(counts)
    _check(counts.shape == (len(CLASSES), len(answers)), f"counts of shape {counts.shape}")
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure, (axes,) = _panels(1, 1, height=4.0, width=min(WIDTH, 1.2 + 0.75 * len(answers)))
    axes.imshow(rates, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), n in np.ndenumerate(counts):
        rate = f"{100 * rates[i, j]:.0f} %" if counts[i].sum() else "–"
        colour = "white" if rates[i, j] > LIGHT_TEXT_FROM else INK
        axes.text(j, i, f"{rate}\n{n:,}", ha="center", va="center", color=colour, linespacing=1.1)
    axes.set_xticks(range(len(answers)), ["\n".join(textwrap.wrap(name, 10)) for name in answers])
    axes.set_yticks(range(len(CLASSES)), CLASSES)
    axes.axvline(len(CLASSES) - 0.5, color=QUIET, linewidth=1)
    axes.set(xlabel="top vote of the ten", ylabel="label")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def found_by_effort(ranked: Mapping[str, np.ndarray]) -> Figure:
    """Share of the wrong labels that is found when one looks at the most suspicious ones first.

    Args:
        ranked: by what counts as wrong, bool (N,), whether each label is wrong, the most suspicious first.

    Raises:
        ValueError: there is no ranking, or one without a wrong label.
    """
    figure, (axes,) = _panels(1, 1, height=3.0)
    _check(bool(ranked), "there is nothing to draw")
    for i, (name, wrong) in enumerate(ranked.items()):
        wrong = np.asarray(wrong, bool)
        _check(bool(wrong.any()), f"{name}: no label is wrong")
        looked = np.arange(len(wrong) + 1) / len(wrong)
        found = np.concatenate([[0], np.cumsum(wrong)]) / wrong.sum()
        style = ("-", "--", "-.")[i % 3]
        axes.plot(looked, found, style, color=CYCLE[i % len(CYCLE)], label=f"{name} ({wrong.sum():,})")
    axes.plot((0, 1), (0, 1), ":", color=QUIET, label="in random order")
    axes.set(xlabel="labels looked at", ylabel="wrong labels found", xlim=(0, 1), ylim=(0, 1.02))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid()
    axes.legend(loc="lower right")
    return figure


def reliability(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Reliability diagrams (Guo et al. 2017, fig. 1): accuracy by confidence, with the bins' sizes below.

    Args:
        tables: by title, one row a bin of confidence: `low`, `high` (its ends, 0–1), `confidence`, `accuracy`
            (means in the bin, 0–1, not-a-number in an empty bin) and `count`.

    Raises:
        ValueError: a column is missing, or there is no table.
    """
    _check(bool(tables), "there is nothing to draw")
    across = len(tables)
    figure = Figure(figsize=(min(WIDTH, 1 + 3.2 * across), 4.2), layout="constrained")
    grid = figure.subplots(2, across, squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for (upper, lower), (title, bins) in zip(grid.T, tables.items(), strict=True):
        _check_columns(bins, "low", "high", "confidence", "accuracy", "count")
        width = bins["high"] - bins["low"]
        upper.plot((0, 1), (0, 1), color=QUIET, linestyle="--", linewidth=1, label="perfectly calibrated")
        upper.bar(bins["low"], bins["accuracy"], width, align="edge", color=_lighter(BLUE, 0.35),
                  edgecolor="white", label="accuracy in the bin")  # fmt: skip
        upper.plot(
            bins["confidence"], bins["accuracy"], "o", color=INK, markersize=4, label="at the mean confidence"
        )
        lower.bar(bins["low"], bins["count"], width, align="edge", color=RULE, edgecolor="white")
        upper.set(title=title, xlim=(0, 1), ylim=(0, 1))
        lower.set_xlabel("confidence")
        lower.set_xticks((0.2, 0.6, 1) if across > 3 else np.linspace(0, 1, 6 if across < 3 else 3))
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for axis in (upper.yaxis, lower.xaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("images")
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=min(3, across + 1)
    )
    return figure


def predictions_grid(
    images: np.ndarray,
    labels: Sequence[str] | np.ndarray,
    predicted: Sequence[str] | np.ndarray,
    probabilities: np.ndarray,
    n: int = 12,
) -> Figure:
    """Faces with the predicted class and the probabilities of all six.

    Args:
        images: uint8 (N, H, W), grey, 0–255.
        labels: of each image, names of `CLASSES` or ints 0–5; a dot marks them among the probabilities.
        predicted: the answers, of the same form; a ✓ or ✗ says whether they agree with the label.
        probabilities: float (N, 6), 0–1.
        n: shows the first n images.

    Raises:
        ValueError: shapes do not agree, a label is not one of the six classes, or there is no image.
    """
    labels, predicted = _names(labels), _names(predicted)
    _check_images(images, len(labels))
    _check(len(predicted) == len(labels), f"{len(predicted)} predictions for {len(labels)} labels")
    _check(np.shape(probabilities) == (len(labels), len(CLASSES)), "probabilities are not (N, 6)")
    _check(len(labels) > 0, "there is nothing to draw")
    n = min(n, len(labels))
    across = min(6, n)
    down = -(-n // across)
    legend = 0.3 if across > 3 else 0.6
    figure = Figure(figsize=(0.85 + 1.05 * across, 2.45 * down + legend), layout="constrained")
    grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=(1, 1) * down)
    for k in range(down * across):
        face, bars = grid[2 * (k // across), k % across], grid[2 * (k // across) + 1, k % across]
        face.axis("off")
        if k >= n:
            bars.axis("off")
            continue
        right = labels[k] == predicted[k]
        face.imshow(images[k], cmap="gray", vmin=0, vmax=255)
        face.set_title(
            f"{'✓' if right else '✗'} {predicted[k]}", fontsize=9, color=BLUE if right else VERMILLION
        )
        colours = [(BLUE if right else VERMILLION) if name == predicted[k] else RULE for name in CLASSES]
        bars.barh(range(len(CLASSES)), probabilities[k], 0.75, color=colours)
        bars.plot(-0.07, CLASSES.index(labels[k]), "o", color=INK, markersize=4, clip_on=False)
        bars.set(xlim=(0, 1), ylim=(len(CLASSES) - 0.4, -0.6), xticks=())
        bars.set_yticks(range(len(CLASSES)), CLASSES if k % across == 0 else [""] * len(CLASSES))
        bars.tick_params(length=0, pad=11)
        bars.spines["bottom"].set_visible(False)
    dot = Line2D([], [], color=INK, marker="o", markersize=4, linestyle="", label="label")
    figure.legend(handles=[dot, Patch(facecolor=BLUE, label="✓ predicted rightly"),
                           Patch(facecolor=VERMILLION, label="✗ predicted wrongly")],
                  loc="outside upper center", ncols=3 if across > 3 else 1)  # fmt: skip
    return figure


def learning_rates(trials: pd.DataFrame, bins: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Value of each trial of a search against its learning rate, one panel an optimiser.

    Args:
        trials: `optimizer`, `lr`, `value` (0–1) and `freeze` (0–1), one row a trial.
        bins: `optimizer`, `lr`, `median`, `best`, one row a part of the range; they are joined by lines.
        titles: of the optimisers, in order.

    Raises:
        ValueError: a column is missing, or there is no optimiser.
    """
    _check_columns(trials, "optimizer", "lr", "value", "freeze")
    _check_columns(bins, "optimizer", "lr", "median", "best")
    figure, panels = _panels(len(titles), 2, height=3.2, sharey=True)
    for axes, (optimizer, title) in zip(panels, titles.items(), strict=True):
        own = trials[trials["optimizer"] == optimizer]
        for i, freeze in enumerate(sorted(trials["freeze"].unique())):
            part = own[own["freeze"] == freeze]
            axes.scatter(part["lr"], part["value"], s=22, marker=MARKERS[i], color=_lighter(CYCLE[i], 0.2),
                         linewidth=0, label=f"{100 * freeze:.0f} % frozen")  # fmt: skip
        line = bins[bins["optimizer"] == optimizer]
        axes.plot(line["lr"], line["best"], color=INK, linewidth=1.4, label="best")
        axes.plot(line["lr"], line["median"], "--", color=INK, linewidth=1.4, label="median")
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(title, loc="left")
        axes.set_xlabel("learning rate")
        axes.grid()
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    panels[0].set_ylabel("accuracy on validation")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def spread(values: Mapping[str, np.ndarray], *, below: float | None = None) -> Figure:
    """All values of a search in order, from the worst to the best, one curve a group.

    Marked on each curve are the value that one in ten is below, the median, and the best.

    Args:
        values: by group, accuracies 0–1.
        below: if given, a line so far below the best of all, 0–1.

    Raises:
        ValueError: there is no group, or a group without a value.
    """
    _check(bool(values) and all(len(v) for v in values.values()), "there is nothing to draw")
    figure, (axes,) = _panels(1, 1, height=3.1)
    for i, (group, found) in enumerate(values.items()):
        share = np.linspace(0, 1, len(found)) if len(found) > 1 else np.ones(1)
        style = {"color": CYCLE[i % len(CYCLE)], "linestyle": ("-", "--", "-.", ":")[i % 4]}
        axes.plot(share, np.sort(found), label=group, **style)
        marks = (0.1, 0.5, 1.0)
        axes.plot(marks, np.quantile(found, marks), MARKERS[i % len(MARKERS)], color=style["color"])
    if below is not None:
        level = max(map(np.max, values.values())) - below
        axes.axhline(level, color=VERMILLION, linestyle=":", label=f"{100 * below:.0f} points below the best")
    axes.set_xticks((0, 0.1, 0.5, 1), ("worst", "one in ten\nis below", "median", "best"))
    axes.set(xlim=(-0.02, 1.02), xlabel="trials in order", ylabel="accuracy on validation")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid()
    figure.legend(loc="outside upper center", ncols=min(len(values) + 1, 3))
    return figure


def expected_best(curves: pd.DataFrame, titles: Mapping[str, str]) -> Figure:
    """Best value to be expected of so many trials, with 95 % bands, one curve an optimiser.

    Args:
        curves: `optimizer`, `trials`, `value`, `low`, `high` (0–1), one row a number of trials.
        titles: of the optimisers, in order.

    Raises:
        ValueError: a column is missing, or there is no optimiser.
    """
    _check_columns(curves, "optimizer", "trials", "value", "low", "high")
    _check(bool(titles), "there is nothing to draw")
    figure, (axes,) = _panels(1, 1, height=3.0)
    for i, (optimizer, title) in enumerate(titles.items()):
        line, colour = curves[curves["optimizer"] == optimizer], CYCLE[i]
        axes.fill_between(line["trials"], line["low"], line["high"], color=colour, alpha=0.15, linewidth=0)
        axes.plot(line["trials"], line["value"], ("-", "--")[i % 2], color=colour, label=title)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set(xlabel="trials tried", ylabel="expected best on validation")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid()
    figure.legend(loc="outside upper center", ncols=len(titles))
    return figure


def detection_examples(
    frames: Sequence[np.ndarray],
    boxes: Sequence[tuple[float, float, float, float] | None],
    crops: Sequence[np.ndarray],
) -> Figure:
    """Frames with the face found in them and, beside each, the crop; two examples a row.

    Args:
        frames: uint8 (H, W) each, grey, 0–255, of any sizes.
        boxes: (left, top, right, bottom) in pixels of the frame, or none where no face was found.
        crops: uint8 (S, S) each, as the merge cuts them.

    Raises:
        ValueError: there are not as many boxes and crops as frames.
    """
    _check(len(frames) == len(boxes) == len(crops), "as many boxes and crops as frames are needed")
    figure, panels = _panels(2 * len(frames), 4, height=1.5)
    for i, (frame, box, crop) in enumerate(zip(frames, boxes, crops, strict=True)):
        for axes, image in zip(panels[2 * i : 2 * i + 2], (frame, crop), strict=True):
            axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            axes.axis("off")
        panels[2 * i].set_title("frame" if box else "frame, no face found", fontsize=9)
        panels[2 * i + 1].set_title("crop" if box else "centred square", fontsize=9)
        if box:
            size = (box[2] - box[0], box[3] - box[1])
            panels[2 * i].add_patch(Rectangle(box[:2], *size, fill=False, edgecolor=ORANGE, linewidth=2))
    return figure


def _panels(
    n: int, across: int, *, height: float, width: float = WIDTH, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with n axes in rows of at most `across`; `height` is that of one row, in inches."""
    _check(n > 0, "there is nothing to draw")
    across = min(across, n)
    down = -(-n // across)
    figure = Figure(figsize=(width, height * down), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False, **options).flat)
    for axes in panels[n:]:
        axes.remove()
    return figure, panels[:n]


def _mosaic(
    rows: Sequence[Sequence[np.ndarray]],
    columns: int,
    size: tuple[int, int],
    *,
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
    texts: Sequence[Sequence[str]] = (),
    white: float = 255,
) -> Figure:
    """Images of one size on one pair of axes, with names beside, above and below them."""
    height, width = size
    gap = max(1, width // 24)
    step = height + gap + (round(0.22 * height) if texts else 0), width + gap
    sheet = np.full((len(rows) * step[0] - step[0] + height, columns * step[1] - gap), np.nan)
    centres_y, centres_x = (np.arange(n) * s + side / 2 - 0.5 for n, s, side in
                            ((len(rows), step[0], height), (columns, step[1], width)))  # fmt: skip
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            sheet[i * step[0] : i * step[0] + height, j * step[1] : j * step[1] + width] = image
    inner = WIDTH - (0.85 if row_names else 0.1)
    tall = inner * (sheet.shape[0] + (step[0] - height if texts else 0)) / sheet.shape[1]
    figure, (axes,) = _panels(1, 1, height=tall + 0.3)
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=white)
    axes.set_yticks(centres_y[: len(row_names)], row_names)
    axes.set_xticks(centres_x[: len(column_names)], column_names)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            axes.text(centres_x[j], i * step[0] + height + 1, text, ha="center", va="top", color=QUIET)
    return figure


def _slab_height(shape: tuple[int, ...], largest: int) -> float:
    """Inches: by the root of the image side, or by the logarithm of the units."""
    return float(0.09 * np.log2(shape[0] + 1) if len(shape) == 1 else 0.95 * np.sqrt(shape[1] / largest))


def _slab(
    axes: Axes, x: float, floor: float, height: float, shape: tuple[int, ...], colour: str, hatch: str
) -> None:
    """Draw one layer, standing on `floor` and centred on x (inches)."""
    flat = len(shape) == 1
    thick = 0.1 if flat else 0.06 + 0.035 * np.log2(shape[0])
    depth = 0.0 if flat else 0.2 * height
    left, top = x - (thick + depth) / 2, floor + height
    front = [(left, floor), (left + thick, floor), (left + thick, top), (left, top)]
    roof = [
        (left, top),
        (left + thick, top),
        (left + thick + depth, top + depth),
        (left + depth, top + depth),
    ]
    side = [front[1], (front[1][0] + depth, floor + depth), roof[2], front[2]]
    for corners, tint in ((front, 0.0), (roof, 0.5), (side, 0.25))[: 1 if flat else 3]:
        face = {"facecolor": _lighter(colour, tint), "edgecolor": INK, "linewidth": 0.6, "hatch": hatch}
        axes.add_patch(Polygon(corners, closed=True, joinstyle="round", **face))


def _shape(output: Any) -> tuple[int, ...]:
    """(channels, height, width) or (units,) out of a tuple, an int or a text like 32 × 60 × 60."""
    parts = output.replace("x", "×").split("×") if isinstance(output, str) else np.atleast_1d(output)
    _check(len(parts) in (1, 3), f"{output!r} is neither channels × height × width nor units")
    return tuple(int(str(part).replace(",", "")) for part in parts)


def _wrap(text: str, width: int) -> list[str]:
    """Lines of a name; a stride such as /2 stays with what stands before it."""
    return textwrap.wrap(str(text).replace("_", " ").replace(" /", "\u00a0/"), width)


def _sum(status: str, parameters: int) -> str:
    return f"{status} ({parameters:,} parameters)" if parameters else status


def _names(labels: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Names of classes, where labels may be ints 0–5."""
    known = dict(enumerate(CLASSES)) | {name: name for name in CLASSES}
    unknown = {str(label) for label in labels if label not in known}
    _check(not unknown, f"labels beside the six classes: {', '.join(sorted(unknown))}")
    names = [known[label] for label in labels]
    return np.array(names, dtype=object)


def _colours(names: Iterable[str]) -> list[str]:
    """The sources' own colours; others take those that are left, in order."""
    names = list(names)
    left = iter([c for c in CYCLE if c not in {SOURCES.get(name) for name in names}] * len(names))
    return [SOURCES.get(name) or next(left) for name in names]


def _lighter(colour: str, share: float) -> tuple[float, ...]:
    return tuple(share + (1 - share) * c for c in to_rgb(colour))


def _white(images: np.ndarray) -> float:
    return 255 if images.dtype == np.uint8 else 1


def _check_images(images: np.ndarray, n: int) -> None:
    _check(np.ndim(images) == 3 and len(images) == n, f"images of shape {np.shape(images)} for {n} labels")


def _check_columns(table: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in table]
    _check(not missing, f"the table lacks the columns {', '.join(missing)}")


def _check(condition: bool, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
