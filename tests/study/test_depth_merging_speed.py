"""Comparisons of depths and of merged sources, and what is timed: on faces that are small and quick."""

import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from fer_utils.errors import DataError
from fer_utils.experiment import Workspace, read_result
from fer_utils.models import EasyNet
from reading_faces.study import depth, merging, speed
from reading_faces.study.store import read_report

STORED = Path(__file__).resolve().parents[2] / "book" / "results"
QUICK = {"epochs": 1, "batch_size": 48, "lr": 0.05}


def space_of(faces, folder):
    (folder / "faceset").symlink_to(faces.path)
    return Workspace("demo", folder, folder, folder / "results")


def test_depths_are_trained_alike_and_compared_image_by_image(three_sources, tmp_path, monkeypatch):
    networks = {k: v for k, v in depth.NETWORKS.items() if k in ("easynet-2", "easynet-4")}
    small = {"widths": [2, 4, 4], "hidden": 8}
    networks = {key: (title, name, options | small) for key, (title, name, options) in networks.items()}
    mobilenet = depth.MOBILENET | {"trunk_width": 0.125, "head": [], "input_size": 32}
    networks["mobilenet"] = ("MobileNetV1", "facenet", mobilenet)
    monkeypatch.setattr(depth, "NETWORKS", networks)
    space = space_of(three_sources, tmp_path)
    report = depth.depth(space, seeds=(0, 1), **QUICK)
    assert read_report(space.results / "comparisons" / "depth.json") == report
    assert [run["seed"] for run in report["runs"]] == [0, 1] * 3 and report["images"] == 48
    recipes = [read_result(space.results / f"{run['run']}.json").recipe for run in report["runs"]]
    assert all(recipe | {"seed": 0} == recipes[0] for recipe in recipes)
    means = {}
    for run in report["runs"]:
        means[run["key"]] = means.get(run["key"], 0) + run["validation"]["accuracy"] / 2
    assert len(report["differences"]) == 3
    for pair in report["differences"]:
        assert pair["difference"] == pytest.approx(means[pair["first"]] - means[pair["second"]])
        assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]


def test_both_sides_of_merging_take_as_many_steps_and_see_the_same_test_images(three_sources, tmp_path):
    space, small = space_of(three_sources, tmp_path), {"widths": [2, 4, 4], "hidden": 8, "batches": 3}
    report = merging.merging(space, seeds=(0,), **QUICK, **small)
    assert report["steps"] == 3 and report["sources"] == {"ckplus": 72, "fer2013": 144, "jaffe": 72}
    (pair,) = report["pairs"]
    both = [read_result(space.results / f"{name}.json") for name in pair["runs"]]
    assert [r.data["trained_on"] for r in both] == [["ckplus", "fer2013", "jaffe"], ["fer2013"]]
    assert both[0].recipe == both[1].recipe
    assert pair["accuracy"] == pytest.approx([r.test["fer2013"]["accuracy"] for r in both])
    assert pair["difference"] == pytest.approx(pair["accuracy"][0] - pair["accuracy"][1])
    assert pair["images"] == 48


def test_one_source_has_nothing_to_be_merged_with(toy_faces, tmp_path):
    with pytest.raises(DataError, match="merged is fer2013 only"):
        merging.merging(space_of(toy_faces, tmp_path))


def names(values):
    """Keys of nested dicts and lists."""
    below = list(values.values()) if isinstance(values, dict) else values if isinstance(values, list) else []
    own = set(values) if isinstance(values, dict) else set()
    return own.union(*map(names, below))


def test_what_is_timed_is_written_under_the_names_that_pages_read(toy_faces, tmp_path, monkeypatch):
    space = space_of(toy_faces, tmp_path)
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    monkeypatch.setattr(speed, "SIZES", (96,))
    monkeypatch.setattr(speed, "TURNS", 1)
    monkeypatch.setattr(speed, "STEPS", 1)
    monkeypatch.setattr(speed, "workspace", lambda profile: space)
    monkeypatch.setattr(speed, "load_model", lambda path: EasyNet(widths=(2, 4, 4), hidden=8))
    monkeypatch.setattr(speed, "EasyNet", lambda image_size=48: EasyNet((2, 4, 4), 8, image_size=image_size))
    monkeypatch.setattr(speed, "Detector", lambda: SimpleNamespace(detect=lambda frame: []))
    for run in speed.RUNS:
        (space.runs / run).mkdir(parents=True)
        (space.runs / run / "model.safetensors").touch()
    pixels, usages = " ".join(["0"] * 48 * 48), ("Training", "PublicTest", "PrivateTest")
    rows = [{"emotion": n, "pixels": pixels, "Usage": usage} for n in (0, 2) for usage in usages]
    (tmp_path / "fer2013").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "fer2013" / "fer2013.csv", index=False)
    for what in ("speed", "throughput", "steps", "augmentation", "reading"):
        speed.main([what])
        now, then = (
            read_report(folder / "benchmarks" / f"{what}.json") for folder in (space.results, STORED)
        )
        assert names(now) <= names(then)
    assert speed.milliseconds(lambda: time.sleep(0.002), images=2)["median"] >= 1
