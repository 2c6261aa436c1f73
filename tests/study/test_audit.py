"""The audit of group differences: right figures, exact p, and true gaps found."""

import re
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import recall_score

from fer_utils import experiment
from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.merge import merge
from fer_utils.demo.drawn_face import Identity
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict, wilson_interval
from fer_utils.weights import load_model
from reading_faces.study.audit import group_differences, p_value

PAGE = Path(__file__).resolve().parents[2] / "book" / "limits.md"
RECALLS = [f"recall {name}" for name in CLASSES]


def answers(rng, labels, chance):
    """The label with the given probability, and the next class otherwise."""
    return np.where(rng.random(len(labels)) < chance, labels, (labels + 1) % 6)


def measures(table):
    return table.groupby(level="measure", sort=False)[["gap", "p", "p_holm"]].first()


def test_figures_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, group = rng.integers(0, 6, 150), rng.choice(list("abc"), 150)
    predicted = answers(rng, labels, 0.7)
    table = group_differences(group, labels, predicted)
    assert list(table.columns) == ["images", "share", "low", "high", "gap", "p", "p_holm"]
    for g in "abc":
        mine = group == g
        own = table.xs(g, level="group")
        recalls = recall_score(labels[mine], predicted[mine], labels=range(6), average=None)
        np.testing.assert_allclose(own["share"].loc[RECALLS], recalls)
        right = int((labels == predicted)[mine].sum())
        assert own.loc["accuracy", "share"] == right / mine.sum()
        assert tuple(own.loc["accuracy", ["low", "high"]]) == wilson_interval(right, int(mine.sum()))
    shares = table["share"].unstack("group")
    np.testing.assert_allclose(measures(table)["gap"], np.ptp(shares.loc[["accuracy", *RECALLS]], axis=1))


def test_a_class_that_one_group_lacks_is_not_tested():
    table = group_differences(list("aabb") * 5, [0, 1, 0, 0] * 5, [0, 1, 1, 0] * 5)
    assert ("recall fear", "a") in table.index and ("recall fear", "b") not in table.index
    assert table.loc["recall fear", ["gap", "p", "p_holm"]].isna().all(axis=None)
    assert measures(table).loc["recall angry", "p_holm"] == measures(table).loc["recall angry", "p"]


def test_p_is_the_exact_one_for_people():
    """Six people in two groups of three can be put into groups in twenty ways."""
    images, hits = np.array([4, 2, 3, 5, 4, 3]), np.array([4, 2, 2, 1, 2, 0])
    people = np.repeat(np.arange(6), images)
    right = np.concatenate([np.arange(n) < k for n, k in zip(images, hits, strict=True)])

    def statistic(first):
        mine = np.isin(np.arange(6), first)
        counts = [[hits[m].sum(), images[m].sum() - hits[m].sum()] for m in (mine, ~mine)]
        return stats.chi2_contingency(counts, correction=False).statistic

    ways = np.array([statistic(first) for first in combinations(range(6), 3)])
    exact = np.mean(ways >= statistic((0, 1, 2)) - 1e-9)
    table = pd.DataFrame({"group": people < 3, "right": right, "person": people})
    assert p_value(table) == pytest.approx(exact)
    assert p_value(table.assign(person=np.arange(len(right)))) < exact / 2


def test_the_class_with_the_gap_is_named():
    rng = np.random.default_rng(1)
    labels, group = np.tile(np.arange(6), 100), rng.choice(["a", "b"], 600)
    chance = np.where((group == "a") & (labels == CLASSES.index("fear")), 0.3, 0.8)
    tested = measures(group_differences(group, labels, answers(rng, labels, chance))).loc[RECALLS]
    assert list(tested.index[tested["p_holm"] <= 0.05]) == ["recall fear"]
    assert tested.loc["recall fear", "gap"] > 0.3


def test_holm_by_hand(monkeypatch):
    p = iter([0.5, 0.01, 0.04, 0.03, 0.005])
    monkeypatch.setattr("reading_faces.study.audit.p_value", lambda part: next(p))
    table = group_differences(list("ab") * 4, [0, 0, 1, 1, 2, 2, 3, 3], [0] * 8)
    assert measures(table)["p_holm"].tolist() == pytest.approx([0.5, 0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize(
    "change",
    [
        {"groups": ["a"] * 4},
        {"groups": ["a", None, "b", np.nan]},
        {"people": ["x", "x", "x", "y"]},
        {"people": ["x", None, "x", "y"]},
    ],
)
def test_bad_input_is_named(change):
    good = {"groups": ["a", "b", "a", "b"], "labels": [0, 1, 2, 3], "predicted": [0, 1, 2, 4]}
    with pytest.raises(DataError) as caught:
        group_differences(**(good | change))
    assert caught.value.remedy


def drawn_people(name, people, seed):
    """Cropped drawn faces, each person with each expression once."""
    rng = np.random.default_rng(seed)
    known = [Identity.draw(rng) for _ in range(people)]
    faces = demo_faces(list(CLASSES) * people, seed=seed, people=[who for who in known for _ in CLASSES])
    origins = [f"{name}.csv:{row}" for row in range(2, len(faces) + 2)]
    who = np.repeat([f"{name}{i}" for i in range(people)], len(CLASSES))
    table = pd.DataFrame(
        {"emotion": list(CLASSES) * people, "subject": who, "split": None, "origin": origins}
    )
    return FaceSource(name, "drawn", table, faces, cropped=True, files=())


def test_the_listing_of_the_page_runs(tmp_path, monkeypatch, capsys):
    faces = merge([drawn_people("ckplus", 6, 2), drawn_people("jaffe", 5, 3)], tmp_path, progress=False)
    monkeypatch.setattr(experiment, "workspace", lambda profile: SimpleNamespace(faces=lambda: faces))
    listings = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"))
    names = {}
    exec(next(code for code in listings if "group_differences(" in code), names)
    part = faces.where((faces.index["source"] == "jaffe").to_numpy())
    right = predict(load_model("easynet"), part).argmax(1) == part.labels
    assert names["table"].loc[("accuracy", "jaffe"), "share"] == pytest.approx(right.mean())
    assert names["table"].loc["accuracy", "images"].to_dict() == {"ckplus": 36, "jaffe": 30}
    assert "recall surprise" in capsys.readouterr().out
