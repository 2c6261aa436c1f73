"""Stored scores come out as one table, and what chapters glue is printed as it went in."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from myst_nb.core.variables import format_plain_text

from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.experiment import read_result
from reading_faces.report import scores, style
from reading_faces.study.store import read_report, write_report


@pytest.fixture(scope="module")
def table():
    return scores.load_scores()


# --- scores ---


def test_every_stored_run_has_a_readers_name_and_its_scores_unchanged(table):
    assert set(table["training"]) == set(scores.RUN_NAMES.values())
    assert list(table["training"].unique()) == list(scores.RUN_NAMES.values())
    for row in table.itertuples():
        result = read_result(scores.RESULTS / f"{row.run}.json")
        suffix = {v: k for k, v in scores.VARIANTS.items()}[row.variant]
        known = getattr(result, row.split)[row.source + suffix]
        assert (row.accuracy, [row.low, row.high]) == (known["accuracy"], known["accuracy_interval"])
        assert row.confusion.tolist() == known["confusion"] and row.images == known["images"]
        assert row.seed == result.recipe["seed"] and row.epochs == result.recipe["epochs"]
        assert row.calibrated == bool(result.calibrated) and result.profile == "full"
    assert not table.duplicated(["run", "split", "source", "variant"]).any()


def test_seeds_are_averaged_on_the_same_images(table):
    means = scores.seed_means(table.query("split == 'test'"))
    row = means.query("training == 'FaceNet' and variant == 'plain'").iloc[0]
    own = table.query("training == 'FaceNet' and variant == 'plain' and split == 'test'")
    assert row["accuracy"] == pytest.approx(own["accuracy"].mean()) and row["seeds"] == len(own) == 3
    assert row["low"] < own["accuracy"].min() and row["high"] > own["accuracy"].max()
    assert row["confusion"].sum() == 3 * row["images"]
    assert not means.duplicated(["training", "variant"]).any()


def test_other_patterns_and_folders_are_read(tmp_path):
    search = scores.load_scores("search/easynet/*.json")
    assert len(set(search["run"])) == len(list((scores.RESULTS / "search" / "easynet").glob("*.json")))
    assert set(search["split"]) == {"validation"}
    assert scores.load_scores(folder=tmp_path).empty
    result = json.loads((scores.RESULTS / "easynet-seed0.json").read_text(encoding="utf-8"))
    for i, protocol in enumerate(({"other_splits": ["fer2013"]}, {"disgust": "angry"}, {})):
        protocol = {"disgust": "drop", "other_splits": []} | protocol
        changed = result | {"name": f"x-seed{i}", "protocol": protocol}
        (tmp_path / f"x-seed{i}.json").write_text(json.dumps(changed), encoding="utf-8")
    assert set(scores.load_scores(folder=tmp_path)["run"]) == {"x-seed2"}  # others have another protocol


def test_published_figures_have_protocols_and_the_overview_up_to_ten_rows():
    known = scores.published()
    assert known["protocol"].notna().all() and known["accuracy"].between(0, 1).all()
    rows = known.dropna(subset="short")
    assert 4 <= len(rows) <= 8 and rows["name"].notna().all() and set(rows["source"]) >= {"poster", "fer"}


# --- reports ---


def test_a_report_is_stamped_and_read_back(tmp_path):
    path = tmp_path / "some" / "report.json"
    written = write_report(path, {"values": (1, 2), "more": {"a": None}})
    assert written["values"] == [1, 2] and {"date", "revision", "processor"} <= set(written)
    assert read_report(path) == written


@pytest.mark.parametrize(
    ("text", "problem"),
    [(None, "no such report"), ("{", "not JSON"), ("[1]", "lacks the date"), ("{}", "lacks the date")],
)
def test_what_is_no_report_is_refused(tmp_path, text, problem):
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=rf"report\.json: .*{problem}.*make study"):
        read_report(path)


# --- style ---


def glued(text: str) -> str:
    """What `{glue:text}` prints: myst-nb stores the representation and evaluates it."""
    stored: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("myst_nb.glue", lambda name, value, display: stored.update({name: value}))
        style.glue_number("key", text)
    return format_plain_text(repr(stored["key"]), "s")


@settings(deadline=None)
@given(st.one_of(st.text(), st.integers(0, 10**7).map("{:,}".format), st.floats(0, 1).map(style.percent)))
def test_strings_survive(text):
    assert glued(text) == text


def test_numbers_are_formatted_as_the_prose_writes_them(capsys):
    assert style.percent(0.6891) == "68.9%"
    assert style.percent(0.6891, (0.674, 0.704)) == "68.9% (67.4 to 70.4%)"
    assert style.points(-0.0142) == "−1.4 points"
    assert style.points(0.0142, (-0.003, 0.031)) == "+1.4 points (−0.3 to +3.1)"
    style.glue_numbers({"images": 35887}, ",")
    assert "images: 35,887" in capsys.readouterr().out


def test_a_figure_is_glued_and_shown_once(monkeypatch):
    calls = []
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: calls.append((name, value, display)))
    style.use_style()
    figure, _ = plt.subplots()
    style.caption(figure, "some-figure")
    assert [(name, shown) for name, _, shown in calls] == [("some-figure", True)]
    assert calls[0][1].data.startswith(b"\x89PNG") and not plt.get_fignums()


def test_dots_draw_rows_in_order_with_and_without_intervals():
    style.use_style()
    rows = pd.DataFrame(
        {"name": ["a", "b", "b"], "accuracy": [0.7, 0.6, 0.5], "low": [0.68, np.nan, 0.4],
         "high": [0.72, np.nan, 0.6], "who": ["x", "x", "y"]}
    )  # fmt: skip
    _, axes = plt.subplots()
    style.dots(axes, rows, "name", hue="who", palette={"x": style.BLUE, "y": style.GREY})
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim() == (1.5, -0.5)
    places = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert places == pytest.approx([0, 0.88, 1.12])
    plt.close("all")


def test_letters_are_large_enough_and_classes_have_colours_of_their_own():
    style.use_style()
    assert min(v for k, v in plt.rcParams.items() if k.endswith("size") and "font" in k) >= 9
    assert list(style.CLASS_COLOURS) == list(CLASSES) and len(set(style.CLASS_COLOURS.values())) == 6


def test_the_score_quoted_of_fer_is_the_one_that_was_measured():
    quoted = scores.published().set_index("system")["accuracy"]["package fer 25.10.3"]
    measured = read_report(scores.RESULTS / "benchmarks" / "crops.json")["networks"]["fer"]["test_accuracy"]
    assert quoted == pytest.approx(measured, abs=5e-4)
