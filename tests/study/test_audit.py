"""The audit of group differences: right figures, true gaps found, false alarms as rare as promised."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import accuracy_score, recall_score

from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.merge import merge
from fer_utils.demo.drawn_face import Identity
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict, wilson_interval
from fer_utils.weights import load_model
from reading_faces.study.audit import group_differences, holm, permutation_test

PAGE = Path(__file__).resolve().parents[2] / "book" / "limits.md"
MEASURES = ["accuracy", *(f"recall {name}" for name in CLASSES)]
PER_MEASURE = ["gap", "p", "p_holm"]


def answers(rng, labels, chance):
    """The label with the given probability, and the next class otherwise."""
    return np.where(rng.random(len(labels)) < chance, labels, (labels + 1) % len(CLASSES))


def random_case(seed, n=120, groups="abc"):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, n)
    return rng.choice(list(groups), n), labels, answers(rng, labels, 0.7)


def per_measure(table):
    return table.groupby(level="measure", sort=False)[PER_MEASURE].first()


def test_figures_are_those_of_scikit_learn():
    group, labels, predicted = random_case(0)
    table = group_differences(group, labels, predicted, permutations=9)
    assert list(table.index) == [(m, g) for m in MEASURES for g in "abc"]
    assert list(table.columns) == ["images", "share", "low", "high", *PER_MEASURE]
    for g in "abc":
        mine = group == g
        assert table.loc[("accuracy", g), "share"] == accuracy_score(labels[mine], predicted[mine])
        recalls = recall_score(labels[mine], predicted[mine], labels=range(6), average=None)
        np.testing.assert_allclose(table.xs(g, level="group")["share"].iloc[1:], recalls)
        low, high = wilson_interval(int(np.sum((labels == predicted)[mine])), int(mine.sum()))
        assert tuple(table.loc[("accuracy", g), ["low", "high"]]) == (low, high)
    shares = table["share"].unstack("group")
    np.testing.assert_allclose(per_measure(table)["gap"], (shares.max(axis=1) - shares.min(axis=1))[MEASURES])


@st.composite
def cases(draw):
    n = draw(st.integers(2, 40))
    codes = st.integers(0, 5)
    group = draw(st.lists(st.sampled_from("abcd"), min_size=n, max_size=n).filter(lambda g: len(set(g)) > 1))
    labels, predicted = (draw(st.lists(codes, min_size=n, max_size=n)) for _ in range(2))
    return np.array(group), np.array(labels), np.array(predicted)


@settings(max_examples=15, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_what_always_holds(case, random):
    group, labels, predicted = case
    table = group_differences(group, labels, predicted, permutations=19)
    there = table[table["images"] > 0]
    assert (there["low"] <= there["share"] + 1e-12).all() and (there["share"] <= there["high"] + 1e-12).all()
    assert there[["share", "low", "high"]].stack().between(0, 1).all()
    assert table[table["images"] == 0][["share", "low", "high"]].isna().all(axis=None)
    images = table["images"].unstack("group")
    assert images.loc["accuracy"].sum() == len(labels) == images.drop("accuracy").to_numpy().sum()
    tested = per_measure(table)
    comparable = (images > 0).sum(axis=1)[MEASURES] > 1
    assert (tested.notna().all(axis=1) == comparable).all()
    assert tested["p"].dropna().between(1 / 20, 1).all()
    assert tested["gap"].dropna().between(0, 1).all()
    assert (tested["p_holm"].dropna() >= tested["p"].dropna()).all()
    assert tested.loc["accuracy", "p_holm"] == tested.loc["accuracy", "p"]
    assert (tested.loc[tested["gap"] == 0, "p"] == 1).all()
    order = random.sample(range(len(labels)), len(labels))
    again = group_differences(group[order], labels[order], predicted[order], permutations=19)
    pd.testing.assert_frame_equal(table, again)  # shuffles depend on the seed and not on the order


def test_the_seed_decides_p_and_nothing_else():
    case = random_case(3)
    first, again, other = (group_differences(*case, permutations=99, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first["p"].equals(other["p"])
    pd.testing.assert_frame_equal(first.drop(columns=["p", "p_holm"]), other.drop(columns=["p", "p_holm"]))


def test_p_is_the_exact_one_for_two_groups():
    """The hits of a group are hypergeometric, so that every outcome's probability can be written down."""
    sizes, hits = (17, 30), (8, 24)
    labels = np.zeros(sum(sizes), int)
    right = np.concatenate([np.arange(n) < k for n, k in zip(sizes, hits, strict=True)])
    group = np.repeat(["a", "b"], sizes)
    table = group_differences(group, labels, np.where(right, 0, 1), permutations=40_000)
    outcomes = np.arange(max(0, sum(hits) - sizes[1]), min(sizes[0], sum(hits)) + 1)
    probability = stats.hypergeom.pmf(outcomes, sum(sizes), sum(hits), sizes[0])
    expected = sizes[0] * sum(hits) / sum(sizes)
    exact = probability[abs(outcomes - expected) >= abs(hits[0] - expected) - 1e-9].sum()
    assert 0.005 < exact < 0.5
    tested = per_measure(table)
    assert tested.loc["accuracy", "p"] == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))
    # Here all images are of one class, so that accuracy and its recall are the same question.
    assert tested.loc["recall angry", "p"] == pytest.approx(exact, abs=4 * np.sqrt(exact / 40_000))


def test_p_is_nearly_that_of_chi_square_for_large_groups():
    group, labels, predicted = random_case(5, n=3000)
    table = group_differences(group, labels, predicted, permutations=5000)
    chi_square = stats.chi2_contingency(pd.crosstab(group, labels == predicted), correction=False)
    assert per_measure(table).loc["accuracy", "p"] == pytest.approx(chi_square.pvalue, abs=0.03)


def test_p_is_the_exact_one_for_people():
    """Six people in two groups of three can be put into groups in twenty ways."""
    images, hits = np.array([4, 2, 3, 5, 4, 3]), np.array([4, 2, 2, 1, 2, 0])
    who = np.repeat(np.arange(6), images)
    right = np.concatenate([np.arange(n) < k for n, k in zip(images, hits, strict=True)])
    labels = np.zeros(len(who), int)

    def statistic(first):
        mine = np.isin(np.arange(6), first)
        counts = [[hits[m].sum(), images[m].sum() - hits[m].sum()] for m in (mine, ~mine)]
        return stats.chi2_contingency(counts, correction=False).statistic

    ways = [statistic(first) for first in combinations(range(6), 3)]
    exact = np.mean(np.array(ways) >= statistic((0, 1, 2)) - 1e-9)
    group = np.where(who < 3, "a", "b")
    table = group_differences(group, labels, np.where(right, 0, 1), people=who, permutations=20_000)
    assert per_measure(table).loc["accuracy", "p"] == pytest.approx(exact, abs=0.015)
    alone = group_differences(group, labels, np.where(right, 0, 1), permutations=20_000)
    assert per_measure(alone).loc["accuracy", "p"] < exact / 2


def test_a_true_gap_is_found():
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(20):
        group = np.repeat(["a", "b"], (200, 100))
        labels = rng.integers(0, 6, 300)
        predicted = answers(rng, labels, np.where(group == "a", 0.8, 0.6))
        table = group_differences(group, labels, predicted, permutations=199)
        found += per_measure(table).loc["accuracy", "p"] <= 0.05
    assert found >= 18


def test_the_page_says_rightly_how_many_images_it_takes():
    """The page's rule for four audits of five, at 70 against 60 %."""
    chance, rng = np.array([0.7, 0.6]), np.random.default_rng(6)
    n = round(7.8 * (chance * (1 - chance)).sum() / 0.1**2)
    assert "some 350 for 70 against 60 %" in PAGE.read_text(encoding="utf-8") and n == pytest.approx(
        350, abs=5
    )
    group, who = np.repeat([0, 1], n), np.arange(2 * n)
    p = [permutation_test(rng.random(2 * n) < chance[group], group, who, 199, rng) for _ in range(600)]
    assert 0.74 < np.mean(np.array(p) <= 0.05) < 0.85


def test_the_class_with_the_gap_is_named():
    rng = np.random.default_rng(1)
    labels = np.tile(np.arange(6), 100)
    group = rng.choice(["a", "b"], 600)
    chance = np.where((group == "a") & (labels == CLASSES.index("fear")), 0.3, 0.8)
    tested = per_measure(group_differences(group, labels, answers(rng, labels, chance), permutations=999))
    assert list(tested.index[1:][tested["p_holm"].iloc[1:] <= 0.05]) == ["recall fear"]
    assert tested.loc["recall fear", "gap"] > 0.3


def test_false_alarms_are_as_rare_as_promised():
    """Without a gap, p ≤ 5 % in one of twenty audits, also for groups of very unequal size."""
    rng, audits = np.random.default_rng(2), 1500
    for sizes in ((150, 150), (200, 30), (100, 60, 20)):
        group, who = np.repeat(np.arange(len(sizes)), sizes), np.arange(sum(sizes))
        p = [permutation_test(rng.random(len(who)) < 0.7, group, who, 199, rng) for _ in range(audits)]
        low, high = stats.binom.interval(0.998, audits, 0.05)
        # Hits are whole numbers, so that p cannot be exactly 5 %: the test errs on the safe side, a little.
        assert 0.7 * low <= np.sum(np.array(p) <= 0.05) <= high, sizes


def test_images_of_one_person_count_as_one_person():
    """Where some people are read better than others, only shuffling people keeps the promise."""
    rng, audits = np.random.default_rng(3), 300
    who, images = np.repeat(np.arange(20), 12), np.arange(240)
    group = (who >= 10).astype(int)
    alarms = {"people": 0, "images": 0}
    for _ in range(audits):
        right = rng.random(240) < rng.beta(1.5, 1, 20)[who]
        alarms["people"] += permutation_test(right, group, who, 99, rng) <= 0.05
        alarms["images"] += permutation_test(right, group, images, 99, rng) <= 0.05
    assert 0.015 * audits <= alarms["people"] <= stats.binom.ppf(0.999, audits, 0.05)
    assert alarms["images"] > 0.2 * audits


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.02, np.nan, 0.9])), [0.04, np.nan, 0.9])
    assert len(holm(np.array([]))) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_always(p):
    corrected = holm(np.array(p))
    assert (corrected >= p).all() and (corrected <= 1).all()
    assert (corrected <= np.minimum(1, np.array(p) * len(p)) + 1e-12).all()  # never worse than Bonferroni
    assert min(corrected) == pytest.approx(min(1, min(p) * len(p)))
    order = np.argsort(p, kind="stable")
    assert (np.diff(corrected[order]) >= 0).all()


def test_holm_keeps_the_level_of_the_family():
    p = np.random.default_rng(4).random((4000, 6))
    alarms = np.mean([holm(row).min() <= 0.05 for row in p])
    assert 0.035 < alarms < 0.06
    assert np.mean(p.min(axis=1) <= 0.05) > 0.2  # uncorrected, every fourth audit cries wolf


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"groups": ["a", "b", "a"]}, "3, 4, 4 and 3"),
        ({"groups": ["a"] * 4}, "1 group"),
        ({"groups": ["a", None, "b", np.nan]}, "missing for 2 images, the first at place 1"),
        ({"groups": pd.Series(["a", pd.NA, "b", "b"], dtype="string")}, "missing for 1 images"),
        ({"labels": [0, 1, 6, 2]}, "`labels` holds 6 at place 2"),
        ({"labels": [0, -1, 5, 2]}, "`labels` holds -1 at place 1"),
        ({"predicted": np.ones((4, 6)) / 6}, "shape (4, 6)"),
        ({"predicted": [0.5, 0, 1, 2]}, "`predicted` is of type float64"),
        ({"predicted": ["angry"] * 4}, "`predicted` is of type"),
        ({"people": ["x", "x", "x", "y"]}, "in two groups"),
        ({"people": ["x", None, "x", "y"]}, "`people` is missing"),
        ({"people": ["x"]}, "4, 4, 4 and 1"),
        ({"groups": [], "labels": [], "predicted": []}, "0 group"),
    ],
)
def test_bad_input_is_named(change, says):
    good = {"groups": ["a", "b", "a", "b"], "labels": [0, 1, 2, 3], "predicted": [0, 1, 2, 4]}
    with pytest.raises(DataError) as caught:
        group_differences(**(good | change))
    assert says in str(caught.value)
    assert caught.value.remedy


def test_a_test_needs_shuffles():
    with pytest.raises(ValueError, match="at least one"):
        group_differences([1, 2], [0, 0], [0, 1], permutations=0)


def drawn_people(name: str, people: int, seed: int) -> FaceSource:
    """Cropped demo faces, each person with each expression once; with no `people`, nobody is known."""
    rng = np.random.default_rng(seed)
    known = [Identity.draw(rng) for _ in range(people or 6)]
    emotions = [emotion for _ in known for emotion in CLASSES]
    faces = demo_faces(emotions, seed=seed, people=[who for who in known for _ in CLASSES])
    table = pd.DataFrame(
        {
            "emotion": emotions,
            "subject": np.repeat([f"{name}{i}" for i in range(len(known))], len(CLASSES)) if people else None,
            "split": None if people else np.resize(["train", "validation", "test"], len(emotions)),
            "origin": [f"{name}.csv:{row}" for row in range(2, len(emotions) + 2)],
        }
    )
    return FaceSource(name, "drawn", table, faces, cropped=True, files=())


def test_the_listing_of_the_page_runs(tmp_path, monkeypatch, capsys):
    """The page's own code, on demo faces: few of them, where `workspace` looks for them."""
    monkeypatch.setenv("FER_BUILD", str(tmp_path))
    sources = [drawn_people("fer2013", 0, 1), drawn_people("ckplus", 6, 2), drawn_people("jaffe", 5, 3)]
    faces = merge(sources, tmp_path / "demo" / "faceset", progress=False)

    listings = re.findall(
        r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    listing = next(code for code in listings if "group_differences(" in code)
    found: dict = {}
    exec(compile(listing, str(PAGE), "exec"), found)
    table = found["table"]

    index = faces.index
    assert set(table.index.get_level_values("group")) == {"ckplus", "jaffe"}
    assert (
        table.loc["accuracy", "images"].to_dict()
        == index[index["source"] != "fer2013"].value_counts("source").to_dict()
    )
    part = faces.where((index["source"] == "jaffe").to_numpy())
    right = predict(load_model("easynet"), part).argmax(1) == part.labels
    assert table.loc[("accuracy", "jaffe"), "share"] == pytest.approx(right.mean())
    assert table["p"].dropna().between(0, 1).all()
    assert "recall surprise" in capsys.readouterr().out
