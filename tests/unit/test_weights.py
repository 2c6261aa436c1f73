"""Weights: public forms read as published, nothing else let in; checkpoints survive the round trip."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save_file

from fer_utils import weights
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import EMOTIONS
from fer_utils.errors import DataError
from fer_utils.models import FaceNet
from fer_utils.models.backbones import InceptionResNetV1, ResNet50
from fer_utils.models.pretrained import load_vggface2, read_arrays_pickle
from fer_utils.weights import fetch, load_model, save_checkpoint

STAGES = {2: 3, 3: 4, 4: 6, 5: 3}  # blocks of ResNet-50's stages


@pytest.fixture(scope="module")
def resnet():
    """A ResNet-50 with random weights and normalisations that do something."""
    torch.manual_seed(0)
    model = ResNet50().eval()
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.5, 1.0)
            torch.nn.init.normal_(norm.bias, std=0.1)
            torch.nn.init.normal_(norm.running_mean, std=0.1)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return model


def layers(model):
    """Our layers with their names in Keras' file and in cydonia's, written down anew."""
    yield model.conv1.conv, model.conv1.bn, "conv1/7x7_s2", "conv1", "bn1"
    for stage, blocks in STAGES.items():
        for i in range(1, blocks + 1):
            block, their = getattr(model, f"conv{stage}_{i}"), f"layer{stage - 1}.{i - 1}"
            keras = f"conv{stage}_{i}_"
            yield block.reduce, block.reduce_bn, keras + "1x1_reduce", f"{their}.conv1", f"{their}.bn1"
            yield block.conv3x3, block.conv3x3_bn, keras + "3x3", f"{their}.conv2", f"{their}.bn2"
            yield block.increase, block.increase_bn, keras + "1x1_increase", f"{their}.conv3", f"{their}.bn3"
            if i == 1:
                their += ".downsample"
                yield block.proj, block.proj_bn, keras + "1x1_proj", f"{their}.0", f"{their}.1"


def write_keras(model, path):
    """The layout of Keras 2: a group a layer, its weights below it under their full names."""
    with h5py.File(path, "w") as file:
        names = ["input_1"]
        file.create_group("input_1").attrs["weight_names"] = np.array([], dtype="S1")
        for conv, norm, name, *_ in layers(model):
            values = {"kernel": conv.weight.detach().permute(2, 3, 1, 0)}
            parts = {"gamma": norm.weight, "beta": norm.bias}
            parts |= {"moving_mean": norm.running_mean, "moving_variance": norm.running_var}
            for layer, arrays in ((name, values), (f"{name}/bn", parts)):
                full = [f"{layer}/{part}:0" for part in arrays]
                group = file.require_group(layer)
                group.attrs["weight_names"] = np.array([f.encode() for f in full])
                for f, array in zip(full, arrays.values(), strict=True):
                    group.create_dataset(f, data=array.detach().numpy())
                names.append(layer)
        file.attrs["layer_names"] = np.array([n.encode() for n in names])


def write_dag(model, path):
    """Albanie's port, which takes red, green, blue."""
    state = {"classifier.weight": torch.zeros(8631, 2, 1, 1)}
    for conv, norm, name, *_ in layers(model):
        name = name.replace("/", "_")
        state[f"{name}.weight"] = conv.weight.detach()
        state |= {f"{name}_bn.{key}": value for key, value in norm.state_dict().items()}
    state["conv1_7x7_s2.weight"] = state["conv1_7x7_s2.weight"].flip(1)
    torch.save(state, path)


def write_cydonia(model, path):
    arrays = {"fc.weight": np.zeros((8631, 2), np.float32)}
    for conv, norm, _, conv_name, norm_name in layers(model):
        arrays[f"{conv_name}.weight"] = conv.weight.detach().numpy()
        for key in ("weight", "bias", "running_mean", "running_var"):
            arrays[f"{norm_name}.{key}"] = getattr(norm, key).detach().numpy()
    path.write_bytes(pickle.dumps(arrays, protocol=2))


FORMS = {
    "rcmalli_vggface_tf_notop_resnet50.h5": (write_keras, 1e-3),
    "resnet50_ft_dag.pth": (write_dag, 1e-5),
    "resnet50_ft_weight.pkl": (write_cydonia, 1e-5),
}


@pytest.mark.parametrize("name", FORMS)
def test_resnet50_is_read_from_its_public_forms(name, resnet, tmp_path, monkeypatch):
    write, epsilon = FORMS[name]
    write(resnet, tmp_path / name)
    monkeypatch.setenv("FER_WEIGHTS", str(tmp_path))
    read = ResNet50().eval()
    load_vggface2(read)
    images = torch.rand(2, 1, 64, 64)
    for norm in resnet.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eps = epsilon  # that of the program that the form is for
    with torch.no_grad():
        expected = resnet(images)
        assert expected.std() > 0.01
        torch.testing.assert_close(read(images), expected, rtol=1e-4, atol=1e-5)


def test_inception_is_read_from_facenet_pytorchs_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    trunk = InceptionResNetV1().eval()
    name = "20180402-114759-vggface2.pt"
    torch.save(trunk.state_dict() | {"logits.weight": torch.zeros(8631, 512)}, tmp_path / name)
    monkeypatch.setitem(weights.SOURCES, name, weights.Source("", weights.sha256(tmp_path / name)))
    monkeypatch.setenv("FER_WEIGHTS", str(tmp_path / "empty"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / name).rename(tmp_path / "checkpoints" / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # where that package puts it
    model = FaceNet("inception_resnet_v1", head=[8], input_size=80).eval()
    model.load_pretrained(None)
    images = torch.rand(1, 1, 80, 80)
    with torch.no_grad():
        torch.testing.assert_close(model.trunk(images), trunk(images))


def test_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_WEIGHTS", str(tmp_path))
    path = tmp_path / "resnet50_ft_dag.pth"
    torch.save({"conv1_7x7_s2.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(
        DataError, match=r"not the weights of a ResNet50: size mismatch for conv1.conv.weight"
    ):
        load_vggface2(ResNet50(width=1))
    torch.save({"conv1_7x7_s2.weight": torch.zeros(1, 3, 7, 7)}, path)
    with pytest.raises(DataError, match=r"a ResNet50: conv1.bn.weight is missing"):
        load_vggface2(ResNet50(width=1))


class Attack:
    def __reduce__(self):
        return os.system, ("touch hacked",)


@pytest.mark.parametrize(
    "content",
    [
        {"conv1.weight": Attack()},
        {"conv1.weight": np.array([Attack()], dtype=object)},
        {"conv1.weight": np.array(["text"])},
        {"conv1.weight": np.float32(1)},
        [np.zeros(2)],
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_holds_more_than_arrays_is_refused_and_not_executed(
    content, protocol, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(DataError, match="not a pickle of NumPy arrays"):
        read_arrays_pickle(tmp_path / "a.pkl")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_of_arrays_is_read(protocol, tmp_path):
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array(7)}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
    read = read_arrays_pickle(tmp_path / "a.pkl")
    assert all(torch.equal(read[name], torch.tensor(array)) for name, array in arrays.items())


@pytest.mark.parametrize("name", FORMS)
def test_garbage_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("FER_WEIGHTS", str(tmp_path))
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=f"{name}: not a"):
        load_vggface2(ResNet50(width=1))


# --- fetching ---


def test_a_file_that_is_there_is_checked(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_WEIGHTS", str(tmp_path))
    (tmp_path / "faceres.bin").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"faceres.bin: the file is damaged.*expected 2c7d2d62"):
        fetch("faceres.bin")


def test_what_cannot_be_downloaded_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("FER_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(weights.pooch, "retrieve", offline)
    for name, start in (("faceres.json", "5b83d49c"), ("20180402-114759-vggface2.pt", "281cebca")):
        with pytest.raises(DataError) as caught:
            fetch(name)
        message = str(caught.value)
        assert all(part in message for part in (str(tmp_path / name), "no network", "https://", start))
    with pytest.raises(DataError, match=r"resnet50_ft_dag.pth.*github.com/rcmalli.*No public checksum"):
        load_vggface2(ResNet50(width=1))
    with pytest.raises(DataError, match=r"faceres.json"):
        FaceNet(head=[8]).load_pretrained(None)


def test_every_download_has_a_checksum():
    assert all(len(source.sha256) == 64 for source in weights.SOURCES.values() if source.sha256)
    assert {name for name, source in weights.SOURCES.items() if source.sha256 is None} == set(FORMS)


# --- checkpoints ---


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = FaceNet(
        pretrained="none", trunk_width=0.25, head=[16], input_size=32, freeze=0.5, dropout=0.1
    ).to(memory_format=torch.channels_last)
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


@pytest.mark.parametrize("name", ["easynet", "facenet"])
def test_published_networks_compute_what_they_computed_when_published(name, tmp_path, monkeypatch):
    """Logits of 64 drawn faces, written down before the library was rebuilt."""
    golden = json.loads((Path(__file__).parent / "golden_logits.json").read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)  # they travel with the package, wherever it is used
    images = demo_faces([EMOTIONS[i % len(EMOTIONS)] for i in range(64)], seed=64, size=64)
    assert hashlib.sha256(images.tobytes()).hexdigest() == golden["images"]
    with torch.inference_mode():
        logits = load_model(name)(torch.from_numpy(images).unsqueeze(1).float() / 255)
    np.testing.assert_allclose(logits, golden[name], rtol=0, atol=1e-5)


def test_an_unknown_name_lists_the_published_networks():
    with pytest.raises(DataError, match=r"emonet.safetensors: there is no such.*\(easynet, facenet\)"):
        load_model("emonet")


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(model, path, {})
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_damaged_and_foreign_checkpoints_are_refused(saved, tmp_path):
    model, path = saved
    whole = path.read_bytes()
    tensors = load(whole)
    about = {"network": "facenet", "options": model.options}

    def refused(match):
        with pytest.raises(DataError, match=match) as caught:
            load_model(path)
        assert caught.value.file == path and caught.value.remedy

    for content in (whole[:-100], whole[:4], b"", b"PK\x03\x04 something else entirely"):
        path.write_bytes(content)
        refused("not a whole safetensors file")
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
        refused("not a network of this version")
    for changed, name in (
        ({k: v for k, v in tensors.items() if k != "classifier.fc2.bias"}, "classifier.fc2.bias"),
        (tensors | {"extra": torch.zeros(1)}, "extra"),
    ):
        save_file(changed, path, metadata={"fer_utils": json.dumps(about)})
        refused(name)
