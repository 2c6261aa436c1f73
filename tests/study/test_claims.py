"""Claims are judged by fixed rules: each can come out either way, and the stored verdicts are theirs."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fer_utils.errors import DataError
from fer_utils.evaluation import bootstrap_interval
from fer_utils.experiment import project_root
from reading_faces.report.scores import RESULTS, published
from reading_faces.study import claims
from reading_faces.study.stats import (
    Z,
    difference_of,
    mcnemar,
    mean_score,
    paired_difference,
    quantile,
    unpaired_difference,
)
from reading_faces.study.store import read_report, write_report

N = 3534


def score(accuracy, images=N):
    return {"accuracy": accuracy, "images": images}


@pytest.fixture
def judge(tmp_path):
    """Write a report and judge the claims that it decides: their verdicts in order."""

    def write(name, report):
        write_report(tmp_path / name, report)
        return [c["verdict"] for c in claims.judge(tmp_path) if c["evidence"] == name]

    return write


def test_the_stored_verdicts_are_what_the_rules_give():
    again = json.loads(json.dumps(claims.judge(RESULTS)))
    assert again == read_report(RESULTS / "comparisons" / "claims.json")["claims"]
    assert len(again) == 11 and {c["verdict"] for c in again} == {"held", "not held", "not tested"}


def test_nothing_is_judged_without_evidence(tmp_path, capsys, monkeypatch):
    assert {c["verdict"] for c in claims.judge(tmp_path)} == {"not tested"}
    (tmp_path / "comparisons").mkdir()
    (tmp_path / claims.DEPTH).write_text("[1")
    with pytest.raises(DataError, match=r"depth\.json: not JSON"):
        claims.judge(tmp_path)


def test_merging_must_help_with_all_seeds_together(judge):
    def pair(difference, only=200):
        return {"difference": difference, "only_a": only, "only_b": only, "images": N}

    assert judge(claims.MERGING, {"pairs": [pair(0.02), pair(0.021), pair(0.022)]}) == ["held"]
    assert judge(claims.MERGING, {"pairs": [pair(0.002), pair(0.02), pair(0.04)]}) == ["not held"]
    assert judge(claims.MERGING, {"pairs": [pair(-0.02)]}) == ["not held"]


@pytest.mark.parametrize(
    ("faces", "imagenet", "scratch", "verdicts"),
    [
        (0.70, 0.60, 0.50, ["held", "held", "held"]),
        (0.70, 0.66, 0.68, ["held", "not held", "not held"]),
        (0.70, 0.69, 0.66, ["not held", "not held", "not held"]),
    ],
)
def test_a_start_must_win_in_every_way_of_using_it(judge, faces, imagenet, scratch, verdicts):
    values = {"vggface2": faces, "imagenet": imagenet, "none": scratch}
    runs = [
        {"pretrained": start, "how": how, "seed": 0, "trunk": "t", "validation": score(value)}
        for start, value in values.items()
        for how in claims.WAYS
        if start != "none" or how == "all"
    ]
    assert judge(claims.STARTS, {"runs": runs}) == verdicts
    runs[0]["validation"] = score(imagenet - 0.1)  # worse as a linear probe
    assert judge(claims.STARTS, {"runs": runs}) == ["not held", "not held", verdicts[2]]


def search(sgd, adam):
    trials = [{"value": value} for value in (*sgd, *adam)]
    return {"images": N, "trials": trials, "optimizers": {"sgd": list(sgd), "adam": list(adam)}}


def test_optimisers_are_compared_on_equal_budgets_and_tuning_against_the_median(judge):
    low, high = np.linspace(0.3, 0.6, 40), np.linspace(0.3, 0.66, 40)
    assert judge(claims.SEARCH, search(high, low)) == ["held", "held"]
    assert judge(claims.SEARCH, search(low, high)) == ["not held", "held"]
    late = search([*low, 0.9], low)  # the forty-first trial does not count
    assert judge(claims.SEARCH, late)[0] == "not held"
    narrow = np.linspace(0.55, 0.6, 40)
    assert judge(claims.SEARCH, search([None, *narrow], narrow)) == ["not held", "not held"]


@pytest.mark.parametrize(
    ("two", "three", "four", "mobilenet", "verdicts"),
    [
        ([0.6], [0.64], [0.65], [0.55], ["held", "held"]),
        ([0.6], [0.64], [0.605], [0.7], ["not held", "not held"]),
        ([0.6], [0.64], [0.62], [0.645], ["held", "held"]),
        ([0.5, 0.7], [0.64, 0.64], [0.66, 0.58], [0.6, 0.69], ["not held", "held"]),  # the seeds scatter
    ],
)
def test_depth_counts_images_and_seeds(judge, two, three, four, mobilenet, verdicts):
    values = {"easynet-2": two, "easynet-3": three, "easynet-4": four, "mobilenet": mobilenet}
    means = {key: float(np.mean(own)) for key, own in values.items()}
    report = {
        "epochs": 8,
        "runs": [
            {"key": key, "network": key.split("-")[0], "seed": seed, "validation": score(value)}
            for key, own in values.items()
            for seed, value in enumerate(own)
        ],
        "differences": [
            {"first": a, "second": b, "difference": means[a] - means[b],
             "interval": [means[a] - means[b] - 0.01, means[a] - means[b] + 0.01]}
            for a in means for b in means
        ],
    }  # fmt: skip
    assert judge(claims.DEPTH, report) == verdicts


def networks(only_a=400, only_b=300, easynet=(0.70, 0.69, 0.71), facenet=(0.7, 0.71, 0.69)):
    a, b = np.zeros(N, bool), np.zeros(N, bool)
    a[:only_a], b[only_a : only_a + only_b] = True, True
    pair = {"what": "best by validation", "variant": "plain", "images": N}
    pair["interval"] = bootstrap_interval(a.astype(int) - b)
    runs = [("easynet", v) for v in easynet] + [("facenet", v) for v in facenet]
    return {
        "images": {"plain": N},
        "pairs": [pair | mcnemar(a, b)],
        "runs": {str(i): {"network": n, "test": {"plain": v}} for i, (n, v) in enumerate(runs)},
    }


@pytest.mark.parametrize(
    ("changes", "verdicts"),
    [
        ({}, ["held", "held", "not held"]),
        ({"only_a": 350, "only_b": 340}, ["not held", "held", "not held"]),
        ({"only_a": 300, "only_b": 400}, ["not held", "held", "not held"]),
        ({"easynet": (0.66, 0.65, 0.67), "facenet": (0.77, 0.76, 0.78)}, ["held", "not held", "held"]),
        ({"easynet": (0.72, 0.73)}, ["held", "not tested", "not held"]),
    ],
)
def test_facenet_must_win_image_by_image_and_scores_take_three_seeds(judge, changes, verdicts):
    assert judge(claims.NETWORKS, networks(**changes)) == verdicts


def test_the_posters_figures_in_the_claims_are_those_of_the_table():
    figures = published().query("source == 'poster'")
    for row in figures.itertuples():
        assert any(row.network in c.text and f"{row.accuracy:.1%}" in c.text for c in claims.CLAIMS)
    known = (project_root() / "book" / "references.bib").read_text(encoding="utf-8")
    for source in set(published()["source"]) - {"poster", "fer"}:
        assert f"{{{source}," in known, source


# --- statistics ---


def test_a_mean_is_as_sure_as_images_and_seeds_let_it():
    one = mean_score([score(0.7, 1000)])
    assert one["low"] < 0.7 < one["high"] and one["seeds"] == 1 and np.isnan(one["std"])
    alike, apart = (mean_score([score(v, 1000) for v in values]) for values in ([0.7] * 3, [0.65, 0.7, 0.75]))
    assert alike["high"] - alike["low"] == pytest.approx(one["high"] - one["low"])
    assert apart["high"] - apart["low"] > 2 * (alike["high"] - alike["low"])
    perfect = mean_score([score(1.0, 50)] * 3)
    assert perfect["high"] == 1 and perfect["low"] < 1


@settings(deadline=None)
@given(st.floats(0, 1e-2), st.integers(2, 6), st.integers(0, 99))
def test_few_seeds_widen_an_interval_up_to_students_t(of_images, count, seed):
    values = np.random.default_rng(seed).normal(0.7, 0.01, count)
    assert Z <= quantile(of_images, values) <= stats.t.ppf(0.975, count - 1) + 1e-9
    assert quantile(of_images, values[:1]) == Z
    assert quantile(0.0, values) == pytest.approx(stats.t.ppf(0.975, count - 1))


def test_a_difference_of_means_covers_the_truth():
    rng, truth, held = np.random.default_rng(0), 0.05, []
    for _ in range(300):
        hard = rng.random(1000)  # of each image, shared by all runs
        first, second = (
            hard < (base + 0.01 * rng.normal(size=(3, 1)) + 0.05 * rng.normal(size=(3, 1000)))
            for base in (0.6 + truth, 0.6)
        )
        value = paired_difference(first, second)
        sides = ([score(run.mean(), 1000) for run in side] for side in (first, second))
        assert unpaired_difference(*sides).value == pytest.approx(value.value)
        held.append(value.low < truth < value.high)
    assert 0.92 < np.mean(held) < 0.99
    assert difference_of(0.1, 0.01).high == pytest.approx(0.1 + Z * 0.1)


def test_mcnemar_sees_a_difference_and_its_absence():
    a = np.array([True] * 90 + [False] * 10)
    b = np.array([True] * 60 + [False] * 30 + [True] * 10)
    result = mcnemar(a, b)
    assert (result["only_a"], result["only_b"]) == (30, 10)
    assert result["difference"] == pytest.approx(a.mean() - b.mean())
    assert result["p"] < 0.01
    assert mcnemar(a, a)["p"] == 1.0
