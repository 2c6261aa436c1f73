"""Paired comparisons of runs, and whether merging helps."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from fer_utils import cli, results, runs
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import mcnemar
from fer_utils.workspace import Workspace
from reading_faces.study import compare

TINY = {
    "model_options": {"widths": [2, 4, 4], "hidden": 8},
    "recipe_changes": {"epochs": 1, "batch_size": 16, "lr": 0.05, "augment": None},
}


@pytest.fixture(scope="module")
def space(three_sources, tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    (root / "faceset").symlink_to(three_sources.path)
    return Workspace("demo", root / "data", root, root / "results")


@pytest.fixture(scope="module")
def report(space):
    return compare.merging(space, seeds=(0, 1), **TINY)


def test_both_trainings_have_the_same_budget_and_judge(space, report):
    assert report["steps"] == 144 // 16 and report["sources"] == {"ckplus": 72, "fer2013": 144, "jaffe": 72}
    for pair in report["pairs"]:
        assert pair["images"] == 48
        merged, alone = (results.read(space.results / f"{name}.json") for name in pair["runs"])
        assert merged["data"]["trained_on"] == ["ckplus", "fer2013", "jaffe"]
        assert alone["data"]["trained_on"] == ["fer2013"]
        assert merged["recipe"] == alone["recipe"] and merged["recipe"]["seed"] == pair["seed"]
        accuracies = [r["test"]["fer2013"]["accuracy"] for r in (merged, alone)]
        assert pair["accuracy"] == pytest.approx(accuracies)
        assert pair["difference"] == pytest.approx(accuracies[0] - accuracies[1])
    assert report["difference"]["seeds"] == 2
    assert json.loads((space.results / "comparisons" / "merging.json").read_text()) == report


def test_finished_trainings_are_kept_on_real_data(three_sources, tmp_path, monkeypatch):
    (tmp_path / "faceset").symlink_to(three_sources.path)
    space = Workspace("full", tmp_path / "data", tmp_path, tmp_path / "results")
    first = compare.merging(space, seeds=(0,), verbose=False, **TINY)
    monkeypatch.setattr(runs, "train", lambda *_, **__: pytest.fail("trained again"))
    assert compare.merging(space, seeds=(0,), verbose=False, **TINY)["pairs"] == first["pairs"]
    plain = TINY | {"model_options": TINY["model_options"] | {"batch_norm": False}}
    with pytest.raises(DataError, match="batch_norm is True, not False"):
        compare.merging(space, seeds=(0,), verbose=False, **plain)
    other = TINY | {"recipe_changes": TINY["recipe_changes"] | {"lr": 0.1}}
    with pytest.raises(DataError, match=r"other settings than the comparison asks for: lr is 0.05, not 0.1"):
        compare.merging(space, seeds=(0,), verbose=False, **other)


def test_the_test_is_mcnemars_on_the_kept_answers(space, report):
    first, second = report["pairs"][0]["runs"]
    tables = [
        pd.read_parquet(results.predictions_path(space.results, run, "test")) for run in (first, second)
    ]
    tables = [t[t["source"] == "fer2013"] for t in tables]
    correct = [np.array([CLASSES[i] for i in t[compare.PROBABILITIES].to_numpy().argmax(1)]) for t in tables]
    truth = np.array([CLASSES[i] for i in tables[0]["label"]])
    expected = mcnemar(correct[0] == truth, correct[1] == truth)
    found = compare.paired(space, first, second)
    assert {k: found[k] for k in expected} == expected
    turned = compare.paired(space, second, first)
    assert turned["difference"] == -found["difference"] and turned["p"] == found["p"]


def test_no_image_is_read_again(space, report, monkeypatch):
    monkeypatch.setattr("fer_utils.datasets.faceset.FaceSet.take", lambda *_: pytest.fail("images were read"))
    compare.paired(space, *report["pairs"][0]["runs"])


def test_what_cannot_be_compared_is_refused(space, report, tmp_path):
    first, second = report["pairs"][0]["runs"]
    with pytest.raises(DataError, match=r"no predictions are kept.*fer evaluate nothing --test"):
        compare.paired(space, first, "nothing")
    path = results.predictions_path(space.results, second, "test")
    table = pd.read_parquet(path)
    table.iloc[1:].to_parquet(path)
    with pytest.raises(DataError, match="not scored on the same test images"):
        compare.paired(space, first, second)
    relabelled = table.assign(label=(table["label"] + 1) % 6)  # a row of the source was put right
    relabelled.attrs = table.attrs
    relabelled.to_parquet(path)
    with pytest.raises(DataError, match="not scored on the same test images and labels"):
        compare.paired(space, first, second)
    with pytest.raises(DataError, match=r"not scored on test images of kdef.*ask for a source.*fer2013"):
        compare.paired(space, first, second, source="kdef")
    shutil.copy(results.predictions_path(space.results, first, "test"), path)
    with pytest.raises(DataError, match="not of the weights that its results file speaks of"):
        compare.paired(space, first, second)
    table.to_parquet(path)


def test_one_source_has_nothing_to_be_merged_with(toy_faces, tmp_path):
    (tmp_path / "faceset").symlink_to(toy_faces.path)
    with pytest.raises(DataError, match=r"holds fer2013 only.*CK\+ or JAFFE"):
        compare.merging(Workspace("demo", tmp_path, tmp_path, tmp_path / "results"))


def test_the_commands_say_the_same(space, report, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_workspace", lambda options: space)
    pair = report["pairs"][0]
    assert cli.main(["compare", *pair["runs"]]) == 0
    said = capsys.readouterr().out
    assert f"{pair['accuracy'][0]:.2%}" in said and f"p = {pair['p']:.2g}" in said
    monkeypatch.setattr(runs, "train", lambda *a, **k: pytest.fail("trained"))
    assert cli.main(["compare", pair["runs"][0], "nothing"]) == 1
    assert "fer evaluate nothing --test" in capsys.readouterr().err
