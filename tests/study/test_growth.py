"""Growth is measured on faces that the readers take, and each size by itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fer_utils.datasets.faceset import FaceSet
from fer_utils.experiment import Workspace
from reading_faces.study import growth
from reading_faces.study.store import read_report


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name, value in {"HELD_OUT": 6, "DRAWN": 12, "STEPS": 2, "BATCH": 4}.items():
        monkeypatch.setattr(growth, name, value)


def test_drawn_faces_with_noise_are_merged_without_copies_and_trained_on(tmp_path):
    (tmp_path / "data" / "fer2013").mkdir(parents=True)
    growth.write_csv(tmp_path / "data" / "fer2013" / "fer2013.csv", 48)
    growth.merging(tmp_path)
    faces = FaceSet.open(tmp_path / "faceset")
    assert faces.index["split"].value_counts().to_dict() == {"train": 36, "validation": 6, "test": 6}
    assert faces.index["hash"].is_unique and sorted(set(faces.labels)) == list(range(6))
    measured = growth.measured(growth.training, tmp_path)
    assert 0 < measured["megabytes_before"] <= measured["megabytes"] and measured["seconds"] > 0
    assert (tmp_path / "run" / "history.csv").read_text().count("\n") == 2


def test_every_size_is_measured_and_nothing_is_left(tmp_path, monkeypatch):
    space = Workspace("full", tmp_path, tmp_path, tmp_path / "results")
    monkeypatch.setattr(growth, "workspace", lambda profile: space)
    monkeypatch.setattr(growth, "ProcessPoolExecutor", lambda count, context: ThreadPoolExecutor(count))
    monkeypatch.setattr(growth.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    growth.main(["--faces", "24", "48"])
    report = read_report(tmp_path / "results" / "benchmarks" / "growth.json")
    assert [row["faces"] for row in report["rows"]] == [24, 48]
    assert not list((tmp_path / "temporary").iterdir())
