"""FaceNet: shapes, what is frozen in each trunk, and batch normalisation taken apart without a trace."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_utils import weights
from fer_utils.errors import DataError
from fer_utils.files import sha256
from fer_utils.models import FaceNet, build, layer_table, pretrained
from fer_utils.models.backbones import TRUNKS, MobileNetV1, ResNet50
from fer_utils.models.pretrained import mobilenet_state, read_tensorflow_js
from fer_utils.training import Recipe, make_optimizer

SMALL = {
    "trunk": "mobilenet_v1",
    "pretrained": "none",
    "trunk_width": 0.25,
    "head": [16, 8],
    "input_size": 32,
}
# By trunk: layers that Keras would count, features, and the smallest input that is quick to compute.
COUNTS = {
    "easynet": (14, 1728, 64),
    "mobilenet_v1": (84, 1024, 32),
    "inception_resnet_v1": (424, 1792, 80),
    "resnet50": (175, 2048, 32),
    "efficientnet_lite0": (143, 1280, 32),
}


def real_weights():
    """The public files where this machine has them: FER_WEIGHTS, or shared/weights beside the checkout."""
    folder = Path(os.environ.get("FER_WEIGHTS") or Path(__file__).parents[3] / "shared" / "weights")
    return folder if (folder / "faceres.bin").is_file() else None


@pytest.fixture(scope="module", params=COUNTS)
def trunk(request):
    torch.manual_seed(0)
    return request.param, FaceNet(
        request.param, "none", freeze=100 / 175, head=[8], input_size=COUNTS[request.param][2]
    )


def test_features_and_logits(trunk):
    name, model = trunk
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert model.eval()(images).shape == (2, 6)
        assert model.trunk(model.enlarge(images)).shape == (2, COUNTS[name][1])


def test_layers_are_counted_and_frozen_as_keras_does(trunk):
    name, model = trunk
    table, frozen = model.frozen_table(), round(COUNTS[name][0] * 100 / 175)
    assert len(table) == COUNTS[name][0] and table["layer"][0] == "input"
    assert table["frozen"].tolist() == [i < frozen for i in range(len(table))]
    parameters = list(model.trunk.parameters())
    assert table["parameters"].sum() == sum(p.numel() for p in parameters)
    held = sum(p.numel() for p in parameters if not p.requires_grad)
    assert held == table.loc[table["frozen"], "parameters"].sum() > 0
    assert f"{frozen} of {len(table)} layers" in model.describe_frozen()
    assert f"{held:,} parameters" in model.describe_frozen()


def test_the_layer_table_shows_frozen_and_trained_parts(trunk):
    name, model = trunk
    table = layer_table(model)
    assert table["parameters"].sum() == sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert table.loc[table["trained"], "parameters"].sum() == trained
    assert 9 <= len(table) <= 25 and all(len(shape) in (1, 3) for shape in table["output"])
    assert table["output"].iloc[-1] == (6,) and table["kind"].iloc[-1] == "fully connected"
    assert (table["layer"].str.endswith(" frozen").sum() == 1) == (
        name in ("mobilenet_v1", "inception_resnet_v1", "efficientnet_lite0")
    )


def test_what_is_frozen_stays_and_the_rest_learns(trunk):
    _, model = trunk
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = {layer.module for layer in model.frozen_layers}
    graph = []
    for module in model.trunk.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, i, o: graph.append((m in frozen, o.requires_grad)))
    optimizer = make_optimizer(model, Recipe(lr=0.1))
    model(torch.rand(4, 1, 64, 64)).square().sum().backward()
    optimizer.step()
    # No graph is built for the frozen part: it costs a forward pass only.
    assert all(needs_gradient == (not is_frozen) for is_frozen, needs_gradient in graph)
    held = {id(value) for m in frozen if m for value in [*m.parameters(), *m.buffers()]}
    for name, value in model.state_dict(keep_vars=True).items():
        unchanged = torch.equal(value, before[name])
        assert unchanged == (id(value) in held or name == "trunk._means"), name
    assert not any(m.training for m in frozen if m)
    assert model.classifier.norm.training


def test_the_first_100_layers_of_resnet50_end_with_the_addition_in_conv4_2():
    model = FaceNet("resnet50", "none", freeze=100, head=[8])
    names = [layer.name for layer in model.trunk.layers()]
    assert names[:5] == ["input", "conv1/conv", "conv1/bn", "conv1/relu", "pool1"]
    assert names[5:17] == [
        f"conv2_1/{part}"
        for part in ("reduce", "reduce_bn", "reduce_relu", "conv3x3", "conv3x3_bn", "conv3x3_relu",
                     "increase", "proj", "increase_bn", "proj_bn", "add", "relu")
    ]  # fmt: skip
    assert names[99:102] == ["conv4_2/add", "conv4_2/relu", "conv4_3/reduce"]
    assert len(model.frozen_layers) == 100
    blocks = {b for b, m in model.trunk.named_children() if any(not p.requires_grad for p in m.parameters())}
    assert blocks == {"conv1", "conv4_1", "conv4_2"} | {f"conv2_{i}" for i in (1, 2, 3)} | {
        f"conv3_{i}" for i in (1, 2, 3, 4)
    }
    assert "up to conv4_2/add" in model.describe_frozen()


@pytest.mark.parametrize(
    ("freeze", "frozen"), [(0, 0), (0.0, 0), (1, 1), (4, 4), (0.5, 42), (84, 84), (1.0, 84)]
)
def test_freezing_by_count_and_by_share(freeze, frozen):
    model = FaceNet(**SMALL, freeze=freeze)
    assert len(model.frozen_layers) == frozen
    held = any(not p.requires_grad for p in model.parameters())
    assert held == (frozen > 1)  # the input has no parameters
    assert all(p.requires_grad for p in model.classifier.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trunk": "vgg16"}, "no trunk is called 'vgg16'"),
        ({"pretrained": "imagenet"}, "'vggface2' or 'none'"),
        ({"freeze": 85}, "counts 84 layers"),
        ({"freeze": -1}, "counts 84 layers"),
        ({"pretrained": "vggface2"}, "pretrained='none'"),
        ({"trunk": "easynet", "pretrained": "vggface2", "trunk_width": 1.0}, "no public weights"),
        ({"trunk": "resnet50"}, "pretrained='none'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FaceNet(**{**SMALL, **options})


def test_options_make_the_same_network_again():
    torch.manual_seed(0)
    model = FaceNet(**SMALL, freeze=0.5).eval()
    again = build("facenet", **json.loads(json.dumps(model.options))).eval()
    again.load_state_dict(model.state_dict())
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(model(images), again(images)) and again.options == model.options
    assert [layer.name for layer in again.frozen_layers] == [layer.name for layer in model.frozen_layers]


def test_without_hidden_layers_the_head_is_linear():
    model = FaceNet(**{**SMALL, "head": []})
    assert [name for name, _ in model.classifier.named_children()] == ["norm", "fc1"]


def test_a_trunk_that_learnt_something_else_can_be_put_in(toy_faces):
    torch.manual_seed(0)
    teacher, model = FaceNet(**SMALL).trunk, FaceNet(**SMALL)
    model.load_trunk(teacher.state_dict())
    images = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(teacher.eval()(images), model.trunk.eval()(images))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_pretrained(toy_faces)  # nothing to load with pretrained="none"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_every_trunk_gets_its_own_preprocessing():
    seen = {}
    for name, kind in TRUNKS.items():
        model = kind()
        first = next(iter(model.children()))
        first.register_forward_pre_hook(lambda m, i, name=name: seen.update({name: i[0]}))
        with torch.no_grad():
            model.eval()(torch.full((1, 1, 80, 80), 0.5))
    expected = {
        "mobilenet_v1": [127.5 - 103.939, 127.5 - 116.779, 127.5 - 123.68],
        "inception_resnet_v1": [0.0, 0.0, 0.0],
        "resnet50": [127.5 - 91.4953, 127.5 - 103.8827, 127.5 - 131.0912],
        "efficientnet_lite0": [0.5 / 128] * 3,
    }
    for name, values in expected.items():
        assert seen[name].shape == (1, 3, 80, 80)
        np.testing.assert_allclose(seen[name][0, :, 3, 5], values, atol=1e-4)
    assert TRUNKS["inception_resnet_v1"].scale == 128


def test_resnet50_strides_sit_on_the_first_convolution_of_a_stage():
    trunk = ResNet50(width=4)
    assert [m.stride for m in (trunk.conv3_1.reduce, trunk.conv3_1.proj, trunk.conv3_1.conv3x3)] == [
        (2, 2), (2, 2), (1, 1)
    ]  # fmt: skip
    with torch.no_grad():
        assert trunk.pool1(trunk.conv1(torch.rand(1, 3, 224, 224))).shape == (1, 4, 56, 56)


# --- the folded MobileNet ---


@pytest.fixture(scope="module")
def faceres(tmp_path_factory):
    """A model with random weights in the public files' form, and its tensors."""
    rng, tensors = np.random.default_rng(0), {}

    def add(name, shape, scale, offset=0.0):
        tensors[name] = (offset + scale * rng.standard_normal(shape)).astype(np.float16)

    add("feats/kernel", (1024, 256), 0.1)  # what is not needed stands there too, and first
    add("conv1/convolution/merged_input", (3, 3, 3, 32), 0.01)
    add("conv1_bn/batchnorm_1/sub", (32,), 0.5)
    inputs = 32
    for i, (outputs, _) in enumerate(MobileNetV1.BLOCKS, 1):
        add(f"conv_dw_{i}/depthwise_kernel", (3, 3, inputs, 1), 0.3)
        add(f"conv_dw_{i}_bn/batchnorm_1/mul", (inputs,), 0.2, 1.0)
        add(f"conv_dw_{i}_bn/batchnorm_1/sub", (inputs,), 0.5)
        add(f"conv_pw_{i}/convolution/merged_input", (1, 1, inputs, outputs), (2 / inputs) ** 0.5)
        add(f"conv_pw_{i}_bn/batchnorm_1/sub", (outputs,), 0.5)
        inputs = outputs
    entries = [
        {"name": n, "shape": list(t.shape), "dtype": "float32", "quantization": {"dtype": "float16"}}
        for n, t in tensors.items()
    ]
    entries.append({"name": "global_pooling/Mean/reduction_indices", "shape": [2], "dtype": "int32"})
    folder = tmp_path_factory.mktemp("faceres")
    manifest = {"format": "graph-model", "weightsManifest": [{"paths": ["faceres.bin"], "weights": entries}]}
    (folder / "faceres.json").write_text(json.dumps(manifest))
    data = b"".join(t.tobytes() for t in tensors.values()) + np.array([1, 2], np.int32).tobytes()
    (folder / "faceres.bin").write_bytes(data)
    return folder, {n: torch.tensor(t.astype(np.float32)) for n, t in tensors.items()}


def straightforward(tensors, images):
    """What the TensorFlow.js graph computes, node by node; sides of strided layers must be even."""
    x = images * 255 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)

    def same(x, kernel, stride, groups=1):
        around = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)
        return F.conv2d(F.pad(x, around) if kernel.shape[-1] == 3 else x, kernel, None, stride, 0, 1, groups)

    x = same(x, tensors["conv1/convolution/merged_input"].permute(3, 2, 0, 1), 2)
    x = (x + tensors["conv1_bn/batchnorm_1/sub"].view(-1, 1, 1)).clamp(0, 6)
    for i, (_, stride) in enumerate(MobileNetV1.BLOCKS, 1):
        x = same(x, tensors[f"conv_dw_{i}/depthwise_kernel"].permute(2, 3, 0, 1), stride, x.shape[1])
        scale, shift = (tensors[f"conv_dw_{i}_bn/batchnorm_1/{k}"].view(-1, 1, 1) for k in ("mul", "sub"))
        x = (x * scale + shift).clamp(0, 6)
        x = same(x, tensors[f"conv_pw_{i}/convolution/merged_input"].permute(3, 2, 0, 1), 1)
        x = (x + tensors[f"conv_pw_{i}_bn/batchnorm_1/sub"].view(-1, 1, 1)).clamp(0, 6)
    return x.mean((2, 3))


def use(folder, monkeypatch):
    """Let weights be fetched from a folder of synthetic files, whatever their checksums are."""
    monkeypatch.setenv("FER_WEIGHTS", str(folder))
    for path in folder.iterdir():
        monkeypatch.setitem(weights.SOURCES, path.name, weights.Source("https://example.org", sha256(path)))


def test_the_folded_mobilenet_computes_what_its_graph_says(faceres):
    folder, tensors = faceres
    arrays = read_tensorflow_js(folder / "faceres.json", folder / "faceres.bin")
    assert arrays["global_pooling/Mean/reduction_indices"].tolist() == [1, 2]
    trunk = MobileNetV1().eval()
    trunk.load_state_dict(mobilenet_state(arrays), strict=False)
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = straightforward(tensors, images)
        torch.testing.assert_close(trunk(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01 and expected.max() < 6


def test_loading_takes_batch_norm_apart_and_leaves_what_is_computed(faceres, toy_faces, monkeypatch):
    folder, tensors = faceres
    use(folder, monkeypatch)
    model = FaceNet(head=[8], input_size=32)
    model.load_pretrained(toy_faces.split("train"))
    again = FaceNet(head=[8], input_size=32)
    again.load_pretrained(toy_faces.split("train"))
    for name, value in model.trunk.state_dict().items():
        assert torch.equal(value, again.trunk.state_dict()[name]), name

    images = torch.from_numpy(toy_faces.take(range(300))).unsqueeze(1).float() / 255
    small = model.enlarge(images)
    norm = model.trunk.block5.pw_bn
    seen = []
    norm.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    with torch.no_grad():
        torch.testing.assert_close(
            model.eval().trunk(small), straightforward(tensors, small), rtol=1e-4, atol=1e-4
        )
        variance, mean = torch.var_mean(seen[0], (0, 2, 3), correction=0)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-3)
        # So a training step starts from the same features, which are those of the whole batch here.
        torch.testing.assert_close(
            model.train().trunk(small), model.eval().trunk(small), rtol=0.01, atol=0.01
        )


def test_the_real_mobilenet_is_taken_apart_without_a_trace(toy_faces, monkeypatch):
    folder = real_weights()
    if folder is None:
        pytest.skip("faceres.json and .bin are neither in FER_WEIGHTS nor in ../shared/weights")
    monkeypatch.setenv("FER_WEIGHTS", str(folder))
    model = FaceNet(head=[8]).eval()
    state = mobilenet_state(read_tensorflow_js(folder / "faceres.json", folder / "faceres.bin"))
    model.trunk.load_state_dict(state, strict=False)
    images = model.enlarge(torch.from_numpy(toy_faces.take(range(300, 420, 4))).unsqueeze(1).float() / 255)
    with torch.no_grad():
        folded = model.trunk(images)
        model.load_pretrained(toy_faces.split("train"))
        difference = (model.trunk(images) - folded).abs().max()
    assert difference <= 3e-6 * folded.abs().max()
    assert model.trunk.block3.dw_bn.running_var.std() > 0


def test_damaged_files_of_the_mobilenet_are_refused(faceres, tmp_path, monkeypatch):
    folder, _ = faceres
    short = tmp_path / "faceres.bin"
    short.write_bytes((folder / "faceres.bin").read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"not a TensorFlow.js model with faceres.bin"):
        read_tensorflow_js(folder / "faceres.json", short)
    use(folder, monkeypatch)
    state = read_tensorflow_js(folder / "faceres.json", folder / "faceres.bin")
    del state["conv1_bn/batchnorm_1/sub"]
    monkeypatch.setattr(pretrained, "read_tensorflow_js", lambda *_: state)
    with pytest.raises(DataError, match=r"of a MobileNetV1: conv1.conv.weight is missing"):
        FaceNet(head=[8]).load_pretrained(None)
