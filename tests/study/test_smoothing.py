"""Smoothing over time: what is fitted is what the tracker does, and scores are what they say."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fer_utils.demo.layouts import write_demo
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.experiment import Workspace
from fer_utils.prediction import Face, Predictor
from fer_utils.video import SMOOTHING, Tracker
from reading_faces.report.scores import RESULTS
from reading_faces.study import smoothing
from reading_faces.study.smoothing import Sequence, compare, measure, smooth
from reading_faces.study.store import read_report

HAPPY, NEUTRAL = CLASSES.index("happy"), CLASSES.index("neutral")


def sequence(answers: str, way: list[float], sure: float = 0.9) -> Sequence:
    """A frame every tenth of a second, `h` happy, `n` neutral."""
    chances = np.full((len(answers), 6), (1 - sure) / 5, np.float32)
    for row, answer in zip(chances, answers, strict=True):
        row[{"h": HAPPY, "n": NEUTRAL}[answer]] = sure
    return Sequence(HAPPY, 0.5, np.arange(len(answers)) / 10, np.array(way, float), chances)


def test_what_is_fitted_is_what_the_tracker_does():
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.uniform(0.01, 0.3, 20))
    chances = rng.dirichlet(np.ones(6), 20).astype(np.float32)
    some = Sequence(0, 0.0, seconds, np.ones(20), chances)
    for constant in (0.0, 0.2, 1.0):
        tracker = Tracker(constant)
        seen = [
            tracker.update([Face("", (0, 0, 9, 9), 1.0, p, np.zeros(1))], t)[0][1].probabilities
            for p, t in zip(chances, seconds, strict=True)
        ]
        np.testing.assert_allclose(smooth(some, constant), seen, atol=1e-6)


def test_other_averages():
    some = sequence("nnhh", [0, 0, 1, 1])
    window = smooth(some, 0.06, "window")  # reaches one frame back
    np.testing.assert_allclose(window[2], (some.probabilities[1] + some.probabilities[2]) / 2)
    np.testing.assert_allclose(window[0], some.probabilities[0])
    logs = smooth(some, 0.1, "logarithms")
    np.testing.assert_allclose(logs.sum(1), 1)
    share = 1 - np.exp(-1)
    expected = np.log(0.9 / 0.02) * (1 - 2 * share)
    assert np.log(logs[2, NEUTRAL] / logs[2, HAPPY]) == pytest.approx(expected, rel=1e-5)


def test_scores_of_a_sequence():
    some = sequence("hnnnhnhhnh", [0, 0, 0, 0.3, 0.4, 0.6, 1, 1, 1, 1])
    scores = measure(some, some.probabilities)
    assert scores["peak"] == pytest.approx(3 / 4)
    assert scores["changes"] == pytest.approx(6 / 9)
    assert scores["delay"] == pytest.approx(0.4)  # happy before it began does not count
    never = sequence("nnnn", [0, 0.5, 1, 1])
    assert np.isnan(measure(never, never.probabilities)["delay"])


def test_flicker_is_smoothed_and_the_answer_comes_later():
    rng, way = np.random.default_rng(1), [0] * 20 + [1] * 40
    several = []
    for _ in range(30):
        clean = ["n"] * 20 + ["h"] * 40
        for place in rng.choice(60, 6, replace=False):
            clean[place] = "n" if place >= 20 else "h"
        several.append(sequence("".join(clean), way))
    report = compare(several, 0.25)
    assert set(report) == set(smoothing.MEASURES)
    for scores in report.values():
        for value, low, high in scores.values():
            assert low <= value <= high
        assert scores["gain"][0] == pytest.approx(scores["smoothed"][0] - scores["plain"][0])
    assert report["changes"]["gain"][2] < -0.1 and report["delay"]["gain"][1] > 0.05
    nothing = compare(several, 0.0)
    assert all(scores["gain"] == pytest.approx([0, 0, 0], abs=1e-6) for scores in nothing.values())


def test_films_go_through_a_file(monkeypatch):
    monkeypatch.setattr(smoothing, "SECONDS", 0.2)
    (clip,) = smoothing.film(1, 3, Predictor("easynet", threads=1))
    assert CLASSES[clip.label] == "angry" and clip.probabilities.shape == (5, 6)
    assert clip.seconds == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    np.testing.assert_allclose(clip.probabilities.sum(1), 1, atol=1e-5)
    assert len(np.unique(clip.probabilities, axis=0)) == 5  # no frame is like another


def test_worse_clips_are_worse_and_expressions_rise():
    clips = [smoothing.draw_clip("happy", worse, np.random.default_rng(2)) for worse in (0.0, 1.0)]
    (good, way), (bad, _) = clips
    assert good.shape == (60, 120, 160) and good.dtype == np.uint8
    assert way[0] == 0 and way[-1] == 1 and (np.diff(way) >= 0).all()
    steps = [np.abs(np.diff(frames[:10].astype(float), axis=0)).mean() for frames in (good, bad)]
    assert steps[1] > 2 * steps[0]


def test_official_tree_of_ckplus_is_read_as_sequences(tmp_path):
    write_demo(tmp_path / "data", fer2013=40, ckplus=1, jaffe=1)
    found = list(smoothing.ckplus(tmp_path / "data", Predictor("easynet", threads=1)))
    assert [CLASSES[s.label] for s in found] == ["happy", "surprise", "sad"]
    for one in found:
        assert (one.way[0], one.way[-3:].tolist()) == (0, [1, 1, 1]) and len(one.way) >= 5
        assert one.way[-4] < 1
        assert np.diff(one.seconds) == pytest.approx(1 / 30)


def test_a_form_of_ckplus_without_sequences_is_named(tmp_path):
    with pytest.raises(DataError, match=r"CK\+"):
        next(smoothing.ckplus(tmp_path, None))
    repack = tmp_path / "CK+48" / "happy"
    repack.mkdir(parents=True)
    Image.new("L", (48, 48)).save(repack / "S010_004_00000017.png")
    with pytest.raises(DataError, match=r"no sequences.*official"):
        next(smoothing.ckplus(tmp_path, None))


def test_main_fits_on_one_half_and_measures_on_the_other(tmp_path, monkeypatch):
    def film(count, seed, predictor):
        way = [0] * 10 + [1] * 20
        for number in range(count):
            held_out = number >= count // 2
            flicker = "n" * 10 + ("hhhn" * 5 if held_out else "h" * 20)
            yield replace(sequence(flicker, way), label=HAPPY, worse=number % 2)

    monkeypatch.setattr(smoothing, "film", film)
    space = Workspace("demo", tmp_path, tmp_path, tmp_path)
    monkeypatch.setattr(smoothing, "workspace", lambda profile: space)
    smoothing.main(["--sequences", "8", "--network", "easynet"])
    report = read_report(tmp_path / "video" / "smoothing.json")
    assert report["fitted"]["best"] == dict.fromkeys(smoothing.KINDS, 0.0)  # no flicker there: no smoothing
    assert report["held_out"]["sequences"] == 4
    assert report["held_out"]["by_constant"][0]["peak"]["plain"][0] == 0.75


def test_the_filter_that_users_get_is_the_fitted_one():
    report = read_report(RESULTS / "video" / "smoothing.json")
    assert report["fitted"]["best"]["probabilities"] == SMOOTHING
    used = next(row for row in report["held_out"]["by_constant"] if row["constant"] == SMOOTHING)
    assert used["peak"] == report["held_out"]["by_kind"]["probabilities"]["peak"]
