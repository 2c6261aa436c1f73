"""Weights: public forms read as published, nothing else let in; checkpoints survive the round trip."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save_file

from fer_utils import weights
from fer_utils.errors import DataError
from fer_utils.models import FaceNet
from fer_utils.weights import fetch, load_model, load_pretrained, save_checkpoint


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Weights are looked for in an empty folder."""
    monkeypatch.setenv("FER_WEIGHTS", str(tmp_path))
    return tmp_path


# --- public weights ---


def numbered(state):
    """A state of the same names and shapes, each tensor a number of its own, which takes no room on disk."""
    return {name: torch.tensor(float(i)).expand(value.shape) for i, (name, value) in enumerate(state.items())}


def assert_read(trunk, want):
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, want[name] if "num_batches" not in name else torch.tensor(0)), name


def test_resnet50_is_read_from_albanies_file(folder, resnet):
    want, state = numbered(resnet.trunk.state_dict()), {"classifier.weight": torch.zeros(1)}
    # Names written down anew: of each block, of torchvision's and of Caffe's layers.
    pairs = {"conv1": "conv1_7x7_s2", "bn1": "conv1_7x7_s2_bn"}
    parts = {"conv1": "1x1_reduce", "conv2": "3x3", "conv3": "1x1_increase", "downsample.0": "1x1_proj"}
    parts |= {f"bn{i}": f"{parts[f'conv{i}']}_bn" for i in (1, 2, 3)} | {"downsample.1": "1x1_proj_bn"}
    for stage, blocks in {2: 3, 3: 4, 4: 6, 5: 3}.items():
        for block in range(1, blocks + 1):
            ours = f"layer{stage - 1}.{block - 1}"
            pairs |= {f"{ours}.{o}": f"conv{stage}_{block}_{t}" for o, t in parts.items()}
    for name, value in want.items():
        layer, key = name.rsplit(".", 1)
        state[f"{pairs[layer]}.{key}"] = value
    torch.save(state, folder / "resnet50_ft_dag.pth")
    load_pretrained(resnet, np.zeros((0, 64, 64), np.uint8))
    assert_read(resnet.trunk, want)


def test_inception_is_read_from_facenet_pytorchs_file(folder, monkeypatch):
    model = FaceNet("inception_resnet_v1", head=[8], input_size=80).eval()
    name, want = "20180402-114759-vggface2.pt", numbered(model.trunk.state_dict())
    torch.save(want | {"logits.weight": torch.zeros(1)}, folder / name)
    monkeypatch.setitem(weights.SOURCES, name, ("", weights.sha256(folder / name)))
    load_pretrained(model, np.zeros((0, 64, 64), np.uint8))
    assert_read(model.trunk, want)


def test_weights_of_another_network_are_refused(folder, resnet):
    for state, problem in (
        ({"conv1_7x7_s2.weight": torch.zeros(64, 3, 7, 7)}, "'bn1.weight'"),
        ({}, "'conv1.weight'"),
    ):
        torch.save(state, folder / "resnet50_ft_dag.pth")
        with pytest.raises(DataError, match=rf"not the weights of resnet50: {problem}"):
            load_pretrained(resnet, np.zeros((0, 64, 64), np.uint8))


@pytest.fixture(scope="module")
def resnet():
    return FaceNet("resnet50", head=[8], input_size=32)


class Attack:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize("content", [pickle.dumps({"a": Attack()}, 2), b"<html>not found</html>", b""])
def test_what_is_no_plain_state_is_refused_and_not_executed(content, folder, resnet, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "resnet50_ft_dag.pth").write_bytes(content)
    with pytest.raises(DataError, match=r"resnet50_ft_dag.pth: not a state of plain tensors"):
        load_pretrained(resnet, np.zeros((0, 64, 64), np.uint8))
    torch.save({"a": Attack()}, folder / "resnet50_ft_dag.pth")
    with pytest.raises(DataError, match="not a state of plain tensors"):
        load_pretrained(resnet, np.zeros((0, 64, 64), np.uint8))
    assert not (folder / "hacked").exists()


def test_a_file_that_is_there_is_checked(folder):
    (folder / "faceres.bin").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"faceres.bin: .*its SHA-256 is.*SHA-256 2c7d2d62"):
        fetch("faceres.bin")


def test_what_is_downloaded_is_checked_and_what_cannot_be_is_asked_for(folder, monkeypatch):
    def download(url, path):
        Path(path).write_bytes(b"bytes")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(DataError, match="its SHA-256 is"):
        fetch("faceres.bin")
    digest = hashlib.sha256(b"bytes").hexdigest()
    monkeypatch.setitem(weights.SOURCES, "x.bin", ("https://example.org/x.bin", digest))
    assert fetch("x.bin") == folder / "x.bin"

    def offline(*_):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    for name, start in (("faceres.json", "5b83d49c"), ("resnet50_ft_dag.pth", "not published")):
        with pytest.raises(DataError) as caught:
            fetch(name)
        parts = (str(folder / name), "not there and cannot be downloaded", "https://", start, "FER_WEIGHTS")
        assert all(part in str(caught.value) for part in parts)


# --- checkpoints ---


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = FaceNet(pretrained="none", trunk_width=0.25, head=[16], input_size=32, freeze=0.5, dropout=0.1)
    model.trunk.conv1.bn.running_var.fill_(1e6)  # beyond half precision
    path = tmp_path / "model.safetensors"
    save_checkpoint(model, path, {"name": "x", "network": "facenet", "options": model.options})
    return model, path


def test_a_checkpoint_survives_the_round_trip(saved):
    model, path = saved
    read = load_model(path)
    assert not read.training and read.options == model.options
    expected = model.eval().state_dict()
    for name, value in read.state_dict().items():
        assert value.dtype == expected[name].dtype, name
        tolerance = 1e-3 if value.ndim > 1 else 0
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance, msg=name)
    stored = load_file(path)
    assert stored["classifier.fc1.weight"].dtype == torch.float16
    assert stored["trunk.conv1.bn.running_var"].dtype == torch.float32
    assert list(path.parent.iterdir()) == [path]
    path.with_name("plain").touch()
    assert path.stat().st_mode == path.with_name("plain").stat().st_mode  # safetensors gives others no right


def test_an_unknown_name_lists_the_published_networks():
    with pytest.raises(DataError, match=r"emonet: there is no such network.*easynet, easynet-small, facenet"):
        load_model("emonet")


def test_damaged_and_foreign_checkpoints_are_refused(saved):
    model, path = saved
    whole = path.read_bytes()
    tensors = load(whole)
    about = {"network": "facenet", "options": model.options}

    def refused(match="not a network of this version"):
        with pytest.raises(DataError, match=match) as caught:
            load_model(path)
        assert caught.value.file == path and caught.value.remedy

    for content in (whole[:-100], whole[:4], b"", b"PK\x03\x04 something else entirely"):
        path.write_bytes(content)
        refused()
    for header in (
        None,
        {"fer_utils": "{"},
        {"fer_utils": "[]"},
        {"fer_utils": json.dumps({"network": "easynet"})},
        {"fer_utils": json.dumps(about | {"network": "bignet"})},
        {"fer_utils": json.dumps(about | {"options": {"colour": "red"}})},
        {"fer_utils": json.dumps(about | {"options": model.options | {"head": [32]}})},
    ):
        save_file(tensors, path, metadata=header)
        refused()
    for changed, name in (
        ({k: v for k, v in tensors.items() if k != "classifier.fc2.bias"}, "classifier.fc2.bias"),
        (tensors | {"extra": torch.zeros(1)}, "extra"),
    ):
        save_file(changed, path, metadata={"fer_utils": json.dumps(about)})
        refused(name)
