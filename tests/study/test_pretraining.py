"""Three starts on equal terms, and what features computed once save: studies that write one report each."""

import json
from functools import partial

import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet

from fer_utils.errors import DataError
from fer_utils.experiment import Workspace
from fer_utils.models import FaceNet
from reading_faces.study import caching, pretraining


@pytest.fixture
def space(toy_faces, tmp_path, monkeypatch):
    """A merged set of bars, and starts that are small and need no download."""
    (tmp_path / "faceset").symlink_to(toy_faces.path)
    space = Workspace("demo", tmp_path / "data", tmp_path, tmp_path / "results")
    for study in (pretraining, caching):
        monkeypatch.setattr(study, "workspace", lambda profile: space)
        monkeypatch.setattr(study, "load_pretrained", lambda model, images: None)
    return space


def test_the_imagenet_trunk_computes_what_its_package_computes():
    torch.manual_seed(0)
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    trunk = pretraining.EfficientNetLite0(net).eval()
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = net.extract_features((images.expand(-1, 3, -1, -1) * 255 - 127) / 128).mean((2, 3))
        torch.testing.assert_close(trunk(images), expected, rtol=1e-4, atol=1e-4)
    again = pretraining.EfficientNetLite0()
    again.load_state_dict(pretraining.EfficientNetLite0.imagenet())
    assert again.stem[1].running_var.std() > 0


def test_starts_are_compared_on_equal_terms_and_finished_runs_kept(space, monkeypatch, capsys):
    small = {"trunk": "easynet", "pretrained": "none", "trunk_width": 0.25}
    monkeypatch.setattr(pretraining, "STARTS", {"none": small})
    monkeypatch.setattr(pretraining, "SIZE", 32)
    monkeypatch.setattr(pretraining, "HEAD", [8])
    pretraining.main(["--profile", "demo", "--epochs", "1", "--how", "probe"])
    path = space.results / "comparisons" / "pretraining.json"
    (probe,) = json.loads(path.read_text())["runs"]
    pretraining.main(["--profile", "demo", "--epochs", "1", "--how", "probe", "all"])
    report = json.loads(path.read_text())
    assert report["runs"][0] == probe and [run["how"] for run in report["runs"]] == ["probe", "all"]
    assert report["recipe"]["epochs"] == 1 and "seed" not in report["recipe"] and report["size"] == 32
    for run in report["runs"]:
        assert run["validation"]["images"] == 60 and "test" not in run and run["options"]["input_size"] == 32
    assert capsys.readouterr().out.count("on validation") == 2
    # The trunk was computed once: four views for training and one for validation.
    assert len(list((space.runs / "pretraining" / "features").glob("*.npy"))) == 5
    with pytest.raises(DataError, match="other terms"):
        pretraining.main(["--profile", "demo", "--epochs", "2"])


def test_the_cache_is_measured(space, monkeypatch):
    monkeypatch.setattr(
        caching, "CASES", (("linear head", 1.0, (), 32), ("poster's share", 100 / 175, (8,), 32))
    )
    monkeypatch.setattr(caching, "VIEWS", 2)
    monkeypatch.setattr(caching, "SECONDS", 0.02)
    monkeypatch.setattr(caching, "FaceNet", partial(FaceNet, input_size=32))
    caching.main(["--profile", "demo", "--epochs", "1", "--images", "64"])
    report = json.loads((space.results / "benchmarks" / "caching.json").read_text())
    head, share = report["cases"]
    assert (head["frozen_layers"], share["frozen_layers"]) == (84, 48)
    for case in (head, share):
        assert case["bound"] > 1 and len(case["epoch_seconds"]["cached"]) == 1
        assert set(case["validation_accuracy"]) == {"uncached", "cached"} and 0 <= case["mcnemar"]["p"] <= 1
    assert head["speedup"] > 1 and head["cache"]["bytes"] == (2 * 64 + 60) * 1024 * 2
