"""Exported networks are scored, and read the test images once."""

import shutil

import pytest

from fer_utils.experiment import Workspace
from reading_faces.study import exported
from reading_faces.study.store import read_report


def test_every_network_is_scored_and_a_known_one_not_read_again(toy_faces, tmp_path, monkeypatch, capsys):
    (tmp_path / "faceset").symlink_to(toy_faces.path)
    space = Workspace("demo", tmp_path, tmp_path, tmp_path / "results")
    monkeypatch.setattr(exported, "workspace", lambda profile: space)
    some = tmp_path / "networks"
    some.mkdir()
    for name in ("easynet-int8", "easynet-small", "mtcnn-p"):
        shutil.copy(exported.NETWORKS / f"{name}.onnx", some)
    monkeypatch.setattr(exported, "NETWORKS", some)
    exported.main([])
    path = space.results / "checks" / "exported.json"
    first = read_report(path)["networks"]
    assert list(first) == ["easynet-int8", "easynet-small"]
    images = {about[split]["images"] for about in first.values() for split in ("validation", "test")}
    assert images == {len(toy_faces.split("test"))}
    assert f"test {first['easynet-small']['test']['accuracy']:.2%}" in capsys.readouterr().out

    monkeypatch.setattr(exported, "Predictor", lambda path: pytest.fail("read again"))
    exported.main([])
    assert read_report(path)["networks"] == first
    monkeypatch.setattr(exported, "sha256", lambda path: "another")
    with pytest.raises(pytest.fail.Exception, match="read again"):
        exported.main([])
