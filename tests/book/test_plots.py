"""Every figure draws without a warning, is readable, fits the page, and says what it was given."""

import inspect
import itertools
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fer_utils.emotions import CLASSES
from fer_utils.votes import ANSWERS
from reading_faces.report import plots
from reading_faces.study import agreement

LABELS = np.repeat(np.arange(6), 4)
IMAGES = np.random.default_rng(0).integers(0, 255, (24, 64, 64), dtype=np.uint8)
PROBABILITIES = np.random.default_rng(1).dirichlet(np.ones(6), 24)
CONFUSION = np.diag([900, 80, 1234, 7, 5, 0]) + np.arange(36).reshape(6, 6) * (np.arange(6) < 5)[:, None]
HISTORY = pd.DataFrame(
    {
        "epoch": range(1, 13),
        "train_loss": np.linspace(1.8, 0.9, 12),
        "val_loss": np.linspace(1.7, 1.1, 12),
        "train_accuracy": np.linspace(0.25, 0.71, 12),
        "val_accuracy": np.linspace(0.28, 0.64, 12),
        "lr": np.linspace(0.05, 0.0, 12),
    }
)
LAYER_COLUMNS = ["layer", "kind", "output", "parameters", "trained"]
LAYERS = pd.DataFrame(
    [
        ("conv1", "conv 5×5", (32, 60, 60), 800, False),
        ("pool1", "max pool 3×3 /2", (32, 29, 29), 0, False),
        ("block8 trained", "depthwise 3×3, conv 1×1 /2", "512 × 6 × 6", 268_800, True),
        ("fc1", "fully connected", (4096,), 4_198_400, True),
        ("fc2", "fully connected", "6", 774, True),
    ],
    columns=LAYER_COLUMNS,
)
BINS = pd.DataFrame(
    {
        "low": np.arange(10) / 10,
        "high": np.arange(1, 11) / 10,
        "confidence": [np.nan, *(np.arange(1, 10) / 10 + 0.05)],
        "accuracy": [np.nan, *(np.arange(1, 10) / 10)],
        "count": [0, *range(20, 200, 20)],
    }
)
SYSTEMS = pd.DataFrame(
    {
        "name": ["humans on FER2013", "EasyNet, seed 0", "a network whose name is too long for one line"],
        "value": [0.65, 0.689, 0.761],
        "low": [0.60, 0.674, np.nan],
        "high": [0.70, 0.704, np.nan],
        "group": ["other", "own", "other"],
        "note": ["7 classes", None, "single, ImageNet-22k start, ten-crop, PrivateTest"],
    }
)
STATISTICS = pd.DataFrame(
    [
        (source, quantity, value)
        for source in ("fer2013", "ckplus", "mine")
        for quantity in ("brightness", "contrast", "sharpness", "noise")
        for value in np.random.default_rng(2).normal(100, 20, 12)
    ],
    columns=["source", "quantity", "value"],
)
RECALLS = {
    name: {c: (v, v - 0.05, v + 0.05) for c, v in zip(CLASSES, np.linspace(0.4, 0.9, 6), strict=True)}
    for name in ("EmoNet", "EasyNet", "FaceNet")
}
RECALLS["EmoNet"]["fear"] = None


def count_table(*sources):
    columns = pd.MultiIndex.from_product([sources, ("test", "train", "validation")])
    rows = np.arange(len(CLASSES) * len(columns)).reshape(len(CLASSES), -1) * 97
    table = pd.DataFrame(rows, index=list(CLASSES), columns=columns)
    table.loc["total"] = table.sum()
    return table


def accuracies(rows, columns):
    values = np.linspace(0.1, 0.99, rows * columns).reshape(rows, columns)
    return values, np.stack([values - 0.04, np.minimum(values + 0.04, 1)], -1)


SHARES = np.random.default_rng(4).multinomial(10, np.full(7, 1 / 7), 12) / 10
BANDS = [f"{band}\n1,234 images" for band in agreement.BANDS]
SIZE = (100, 140)
FRAMES = [np.full(SIZE, 90, np.uint8) for _ in range(3)]
BOXES = [(40.0, 20.0, 104.0, 84.0), None, (30.0, 10.0, 90.0, 80.0)]

COSTS = pd.DataFrame(
    {
        "name": ["emonet-seed0", "easynet-seed0", "facenet-seed0"],
        "parameters": [14_231_702, 2_338_246, 11_606_854],
        "milliseconds": [9.4, 2.1, 21.7],
        "accuracy": [0.57, 0.65, 0.67],
        "low": [0.55, 0.63, 0.65],
        "high": [0.58, 0.67, 0.68],
    }
)
RATES = {"sgd": (1e-3, 1.0), "adam": (3e-5, 3e-2)}
RACERS = {"sgd": "SGD, Nesterov", "adam": "Adam"}
TRIALS = pd.DataFrame(
    [(o, lr, 0.6 - k / 30, (0.571, 0.833, 1.0)[k % 3])
     for o, ends in RATES.items() for k, lr in enumerate(np.geomspace(*ends, 12))],
    columns=["optimizer", "lr", "value", "freeze"],
)  # fmt: skip
BINNED = TRIALS[::2].assign(median=TRIALS["value"], best=TRIALS["value"] + 0.05)
RACED = pd.concat(
    [
        pd.DataFrame({"optimizer": o, "trials": range(1, 101), "value": 0.5 + 0.02 * np.log(range(1, 101))})
        for o in RACERS
    ]
)
RACED = RACED.assign(low=RACED["value"] - 0.02, high=RACED["value"] + 0.02)
FIGURES = {
    "sample_grid": lambda: plots.sample_grid(IMAGES, LABELS),
    "sample_grid by name": lambda: plots.sample_grid(IMAGES, [CLASSES[i] for i in LABELS], columns=3),
    "class_counts": lambda: plots.class_counts(count_table("fer2013", "ckplus", "jaffe")),
    "class_counts of one": lambda: plots.class_counts(count_table("fer2013").drop("total")),
    "class_counts of all": lambda: plots.class_counts(count_table(*plots.SOURCES)),
    "mean_faces": lambda: plots.mean_faces(
        {"fer2013": IMAGES[:6].astype(float), "jaffe": np.full((6, 64, 64), np.nan)},
        {"fer2013": [28_709, 4, 3, 2, 1, 9], "jaffe": [0] * 6},
    ),
    "augmentation_examples": lambda: plots.augmentation_examples(IMAGES[0], IMAGES[1:18]),
    "augmentation_examples of floats": lambda: plots.augmentation_examples(IMAGES[0] / 255, IMAGES[:3] / 255),
    "statistics_by_source": lambda: plots.statistics_by_source(STATISTICS),
    "architecture": lambda: plots.architecture(LAYERS, "EasyNet"),
    "architecture in rows": lambda: plots.architecture(pd.concat([LAYERS] * 4), "FaceNet"),
    "learning_curves": lambda: plots.learning_curves(HISTORY, best_epoch=11, chance=0.25),
    "learning_curves of one epoch": lambda: plots.learning_curves(HISTORY[:1]),
    "schedule": lambda: plots.schedule(HISTORY),
    "confusion_matrices": lambda: plots.confusion_matrices({"validation": CONFUSION, "test": CONFUSION}),
    "confusion_matrices of rates": lambda: plots.confusion_matrices(
        {name: CONFUSION for name in "abcd"}, show="rates"
    ),
    "confusion_matrices of counts": lambda: plots.confusion_matrices({"test": CONFUSION}, show="counts"),
    "accuracy_matrix": lambda: plots.accuracy_matrix(
        *accuracies(4, 3),
        ["fer2013", "ckplus", "jaffe", "all"],
        ["fer2013", "ckplus", "jaffe"],
        chance=[0.25, 0.3, 0.17],
        threshold=[0.25, 0.3, 0.5],
    ),
    "accuracy_matrix of one": lambda: plots.accuracy_matrix(*accuracies(1, 1), ["demo"], ["demo"]),
    "intervals": lambda: plots.intervals(SYSTEMS, references={"the poster": 0.689}),
    "intervals without notes": lambda: plots.intervals(SYSTEMS.drop(columns="note")[1:2], label="macro-F1"),
    "recall_intervals": lambda: plots.recall_intervals(RECALLS),
    "share_intervals": lambda: plots.share_intervals(
        {g: {n: (0.7, 0.6, 0.8) for n in BANDS} | {BANDS[0]: None} for g in ("by the label", "by the votes")},
        BANDS,
        label="accuracy",
    ),
    "share_intervals from near": lambda: plots.share_intervals(
        {
            g: {w: (v, v - 0.02, v + 0.01) for w, v in zip("abc", (a, 0.5, 0.55), strict=True)}
            for g, a in (("VGGFace2", 0.47), ("ImageNet", 0.46), ("random", 0.26))
        },
        list("abc"),
        label="accuracy",
        near=True,
    ),
    "votes_grid": lambda: plots.votes_grid(IMAGES[:12], LABELS[:12], SHARES),
    "votes_grid of two": lambda: plots.votes_grid(IMAGES[:2], LABELS[:2], SHARES[:2]),
    "label_votes": lambda: plots.label_votes(np.arange(48).reshape(6, 8) ** 2, ANSWERS),
    "found_by_effort": lambda: plots.found_by_effort(
        {"planted": np.arange(50) < 5, "top vote differs": np.arange(50) % 3 == 0}
    ),
    "costs": lambda: plots.costs(COSTS),
    "costs of one": lambda: plots.costs(COSTS.iloc[:1]),
    "reliability": lambda: plots.reliability({"before": BINS, "after": BINS}),
    "reliability of one": lambda: plots.reliability({"EasyNet": BINS}),
    "reliability of three": lambda: plots.reliability(dict.fromkeys("abc", BINS)),
    "predictions_grid": lambda: plots.predictions_grid(
        IMAGES, LABELS, PROBABILITIES.argmax(1), PROBABILITIES
    ),
    "predictions_grid of few": lambda: plots.predictions_grid(
        IMAGES, LABELS, PROBABILITIES.argmax(1), PROBABILITIES, n=2
    ),
    "predictions_grid of seven": lambda: plots.predictions_grid(IMAGES, LABELS, LABELS, PROBABILITIES, n=7),
    "detection_examples": lambda: plots.detection_examples(FRAMES, BOXES, IMAGES[:3]),
    "learning_rates": lambda: plots.learning_rates(TRIALS, BINNED, RACERS),
    "learning_rates of one": lambda: plots.learning_rates(TRIALS[:1], BINNED[:1], {"sgd": "SGD"}),
    "spread": lambda: plots.spread(
        {title: TRIALS.loc[TRIALS["optimizer"] == o, "value"].to_numpy() for o, title in RACERS.items()},
        below=0.13,
    ),
    "spread of one": lambda: plots.spread({"SGD": np.array([0.6])}),
    "expected_best": lambda: plots.expected_best(RACED, RACERS),
}


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        plots.use_style()
        yield


def texts(figure):
    """Texts that can be seen: not empty, and, for tick labels, within the limits of their axis."""
    artists = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in [*figure.axes, *(child for a in figure.axes for child in a.child_axes)]:
        artists += [*axes.texts, axes.title, axes._left_title]
        if legend := axes.get_legend():
            artists += legend.get_texts()
        if not axes.axison:
            continue
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [t for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
            artists += [axis.label, *(t for tick in ticks for t in (tick.label1, tick.label2))]
    return [t for t in artists if t.get_visible() and t.get_text().strip()]


def words(figure):
    FigureCanvasAgg(figure).draw()
    return [t.get_text() for t in texts(figure)]


@pytest.mark.parametrize("name", FIGURES)
def test_figure_draws_quietly_and_is_readable(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = FIGURES[name]()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    assert isinstance(figure, Figure) and not plt.get_fignums()
    assert figure.get_figwidth() <= plots.WIDTH + 1e-9
    page = figure.bbox.padded(1)
    boxes = []
    for text in texts(figure):
        assert text.get_fontsize() >= 9, text
        box = text.get_window_extent(canvas.get_renderer())
        inside = page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        assert inside, f"{text} is cut off"
        if text.get_rotation() in (0, 90):  # the box of slanted words is larger than they are
            boxes.append((text, box.padded(-1)))
    for (a, one), (b, other) in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), f"{a} overlaps {b}"


def test_every_public_figure_is_tried():
    public = {
        name
        for name, f in inspect.getmembers(plots, inspect.isfunction)
        if f.__module__ == plots.__name__ and not name.startswith("_")
    }
    assert {name.split()[0] for name in FIGURES} == public - {"use_style"}


def test_a_row_of_samples_holds_its_class_and_blanks_where_there_are_too_few():
    labels = np.array([0] * 5 + [1] * 2 + [2, 3, 4, 5])
    images = np.stack([np.full((8, 8), 10 * (i + 1), np.uint8) for i in labels])
    sheet = plots.sample_grid(images, labels, columns=3).axes[0].images[0].get_array().filled(-1)
    rows = [sheet[9 * i : 9 * i + 8] for i in range(6)]
    for i, shown in enumerate((3, 2, 1, 1, 1, 1)):
        assert np.sum(rows[i] == 10 * (i + 1)) == shown * 64


def test_counts_say_each_number_and_leave_the_total_row_out():
    table = count_table("fer2013", "ckplus")
    said = words(plots.class_counts(table))
    for column in table:
        for value in table.loc[list(CLASSES), column]:
            assert f"{value:,}" in said
    assert f"fer2013: {table['fer2013'].loc['total'].sum():,} images" in said


def test_mean_faces_say_how_many_images_are_behind_them():
    said = words(FIGURES["mean_faces"]())
    assert "28,709" in said and said.count("none") == 6


@pytest.mark.parametrize("show", ["rates", "counts", "both"])
def test_confusion_matrix_says_rates_and_counts(show):
    (axes,) = plots.confusion_matrices({"test": CONFUSION}, show=show).axes
    cells = [t.get_text() for t in axes.texts]
    sums = CONFUSION.sum(1)
    for (i, j), count in np.ndenumerate(CONFUSION):
        rate = f"{100 * count / sums[i]:.0f}" if sums[i] else "–"
        sign = f"{rate} %" if sums[i] else "–"
        expected = {"rates": rate, "counts": f"{count:,}", "both": f"{sign}\n{count:,}"}[show]
        assert cells[6 * i + j] == expected


def test_accuracies_below_the_threshold_are_marked_and_explained():
    values, ends = accuracies(2, 2)
    figure = plots.accuracy_matrix(values, ends, ["a", "b"], ["c", "d"], threshold=0.5)
    said = words(figure)
    assert sum(text.startswith("▼") for text in said) == (values < 0.5).sum() + 1
    assert "▼ below 50.0 %" in said
    assert f"{100 * values[1, 1]:.1f} %\n{100 * ends[1, 1, 0]:.1f} to {100 * ends[1, 1, 1]:.1f}" in said
    plain = words(plots.accuracy_matrix(values, ends, ["a", "b"], ["c", "d"]))
    assert not any("▼" in text for text in plain)


def test_architecture_says_shapes_and_sums_of_parameters():
    said = words(FIGURES["architecture"]())
    assert {"EasyNet", "32×60×60", "512×6×6", "4096", "conv1"} <= set(said)
    assert "trained (4,467,974 parameters)" in said and "frozen (800 parameters)" in said
    assert "without parameters" in said


def test_learning_curves_mark_the_kept_epoch_and_chance():
    said = words(FIGURES["learning_curves"]())
    assert {"training", "validation", "kept: epoch 11", "chance: 25.0 %"} <= set(said)
    ticks = [t for t in words(FIGURES["learning_curves of one epoch"]()) if t.endswith("%")]
    assert len(set(ticks)) == len(ticks) > 1


def test_intervals_put_the_highest_first_and_keep_notes_with_their_values():
    figure = FIGURES["intervals"]()
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    names = [t.get_text().replace("\n", " ") for t in axes.get_yticklabels()]
    values = [t.get_text().replace("\n", " ") for t in axes.child_axes[0].get_yticklabels()]
    order = SYSTEMS.sort_values("value", ascending=False)
    assert names == order["name"].tolist()
    assert [v.split()[0] for v in values] == ["76.1", "68.9", "65.0"]
    assert values[0].endswith("PrivateTest") and values[1] == "68.9 %"
    assert "the poster: 68.9 %" in words(figure)


def test_predictions_say_whether_they_are_right():
    said = words(plots.predictions_grid(IMAGES, LABELS, (LABELS + (LABELS == 0)) % 6, PROBABILITIES, n=8))
    assert said.count("✗ fear") == 4 and said.count("✓ fear") == 4


def test_frames_without_a_face_say_so():
    said = words(FIGURES["detection_examples"]())
    assert said.count("crop") == 2 and "frame, no face found" in said and "centred square" in said


def test_sources_keep_their_colours_and_others_take_what_is_left():
    colours = plots._colours(["mine", "jaffe", "theirs"])
    assert colours[1] == plots.SOURCES["jaffe"] and len(set(colours)) == 3


EMPTY = np.empty((0, 64, 64), np.uint8)
WRONG = {
    "one label for many images": lambda: plots.sample_grid(IMAGES, [0]),
    "a seventh class": lambda: plots.sample_grid(IMAGES[:1], ["disgust"]),
    "a label beyond five": lambda: plots.sample_grid(IMAGES[:1], [6]),
    "a label below zero": lambda: plots.sample_grid(IMAGES[:1], [-1]),
    "counts without a class": lambda: plots.class_counts(count_table("jaffe").drop("fear")),
    "counts of one level": lambda: plots.class_counts(count_table("jaffe")["jaffe"]),
    "five mean faces": lambda: plots.mean_faces({"jaffe": IMAGES[:5]}, {"jaffe": [1] * 5}),
    "counts of another source": lambda: plots.mean_faces({"jaffe": IMAGES[:6]}, {"ckplus": [1] * 6}),
    "five counts": lambda: plots.mean_faces({"jaffe": IMAGES[:6]}, {"jaffe": [1] * 5}),
    "variants of another size": lambda: plots.augmentation_examples(IMAGES[0], IMAGES[:2, :32]),
    "a table without values": lambda: plots.statistics_by_source(STATISTICS.drop(columns="value")),
    "no statistics": lambda: plots.statistics_by_source(STATISTICS[:0]),
    "layers without kinds": lambda: plots.architecture(LAYERS.drop(columns="kind"), ""),
    "no layers": lambda: plots.architecture(LAYERS[:0], ""),
    "an output of two numbers": lambda: plots.architecture(LAYERS.assign(output="3 × 4"), ""),
    "curves without losses": lambda: plots.learning_curves(HISTORY.drop(columns="val_loss")),
    "a schedule without rates": lambda: plots.schedule(HISTORY.drop(columns="lr")),
    "no matrix": lambda: plots.confusion_matrices({}),
    "seven classes": lambda: plots.confusion_matrices({"test": np.eye(7)}),
    "names for other values": lambda: plots.accuracy_matrix(*accuracies(2, 2), ["a"], ["b", "c"]),
    "intervals of another shape": lambda: plots.accuracy_matrix(np.eye(2), np.eye(2), ["a", "b"], ["a", "b"]),
    "one chance for two": lambda: plots.accuracy_matrix(
        *accuracies(2, 2), ["a", "b"], ["a", "b"], chance=[1]
    ),
    "a third group": lambda: plots.intervals(SYSTEMS.assign(group="theirs")),
    "systems without values": lambda: plots.intervals(SYSTEMS.drop(columns="value")),
    "no systems": lambda: plots.intervals(SYSTEMS[:0]),
    "recalls without a class": lambda: plots.recall_intervals({"EasyNet": {"fear": None}}),
    "no recalls": lambda: plots.recall_intervals({}),
    "bins without counts": lambda: plots.reliability({"test": BINS.drop(columns="count")}),
    "no reliability": lambda: plots.reliability({}),
    "fewer predictions": lambda: plots.predictions_grid(IMAGES, LABELS, [0], PROBABILITIES),
    "five probabilities": lambda: plots.predictions_grid(IMAGES, LABELS, LABELS, PROBABILITIES[:, :5]),
    "no predictions": lambda: plots.predictions_grid(EMPTY, [], [], np.empty((0, 6))),
    "fewer boxes": lambda: plots.detection_examples(FRAMES, BOXES[:1], IMAGES[:3]),
    "trials without rates": lambda: plots.learning_rates(TRIALS.drop(columns="lr"), BINNED, RACERS),
    "no optimiser": lambda: plots.learning_rates(TRIALS, BINNED, {}),
    "no group of trials": lambda: plots.spread({}),
    "a group without trials": lambda: plots.spread({"SGD": np.array([])}),
    "a race without bands": lambda: plots.expected_best(RACED.drop(columns="low"), RACERS),
    "a race of nobody": lambda: plots.expected_best(RACED, {}),
    "no frames": lambda: plots.detection_examples([], [], []),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name):
    with pytest.raises(ValueError, match=r"."):
        WRONG[name]()
