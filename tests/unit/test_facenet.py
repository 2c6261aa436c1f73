"""FaceNet: shapes, what is frozen in each trunk, and batch normalisation restored without a trace."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_utils import weights
from fer_utils.files import sha256
from fer_utils.models import FaceNet
from fer_utils.models.backbones import TRUNKS, MobileNetV1
from fer_utils.models.pretrained import mobilenet_state, tensorflow_js_tensors
from fer_utils.weights import load_pretrained

SMALL = {"pretrained": "none", "trunk_width": 0.25, "head": [16, 8], "input_size": 32}
# By trunk: layers, features, and the smallest input that is quick to compute.
COUNTS = {
    "easynet": (14, 1728, 64),
    "mobilenet_v1": (84, 1024, 32),
    "inception_resnet_v1": (380, 1792, 80),
    "resnet50": (175, 2048, 32),
}


@pytest.fixture(scope="module", params=COUNTS)
def trunk(request):
    torch.manual_seed(0)
    size = COUNTS[request.param][2]
    return request.param, FaceNet(request.param, "none", freeze=100 / 175, head=[8], input_size=size)


def test_features_and_logits(trunk):
    name, model = trunk
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        assert model.eval()(images).shape == (2, 6)
        assert model.trunk(model.enlarge(images)).shape == (2, COUNTS[name][1])


def test_layers_are_counted_and_frozen_from_the_input_up(trunk):
    name, model = trunk
    layers, frozen = model.trunk.layers(), round(COUNTS[name][0] * 100 / 175)
    assert len(layers) == COUNTS[name][0] and layers[0][0] == "input"
    assert [n for n, _ in model.frozen_layers] == [n for n, _ in layers[:frozen]]
    held = {id(p) for _, module in model.frozen_layers for p in module.parameters()}
    assert held
    for parameter in model.parameters():
        assert parameter.requires_grad == (id(parameter) not in held)
    counted = {id(p) for _, module in layers for p in module.parameters()}
    assert counted == {id(p) for p in model.trunk.parameters()}


def test_what_is_frozen_stays_and_the_rest_learns(trunk):
    _, model = trunk
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = {module for _, module in model.frozen_layers}
    graph = []
    for module in model.trunk.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda m, i, o: graph.append((m in frozen, o.requires_grad)))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, 0.1)
    model(torch.rand(4, 1, 64, 64)).square().sum().backward()
    optimizer.step()
    # No graph is built for the frozen part: it costs a forward pass only.
    assert all(needs_gradient == (not is_frozen) for is_frozen, needs_gradient in graph)
    held = {id(value) for m in frozen for value in [*m.parameters(), *m.buffers()]}
    for name, value in model.state_dict(keep_vars=True).items():
        assert torch.equal(value, before[name]) == (id(value) in held), name
    assert not any(m.training for m in frozen) and model.classifier.norm.training


def test_the_first_100_layers_of_resnet50_end_with_the_addition_in_its_third_stage():
    model = FaceNet("resnet50", "none", freeze=100, head=[8])
    names = [name for name, _ in model.trunk.layers()]
    assert names[:5] == ["input", "conv1", "bn1", "relu", "maxpool"]
    parts = "conv1 bn1 relu conv2 bn2 relu conv3 downsample.0 bn3 downsample.1 add relu"
    assert names[5:17] == [f"layer1.0.{part}" for part in parts.split()]
    assert names[99:102] == ["layer3.1.add", "layer3.1.relu", "layer3.2.conv1"]
    assert len(model.frozen_layers) == 100
    frozen = {n.rsplit(".", 2)[0] for n, p in model.trunk.named_parameters() if not p.requires_grad}
    assert {"layer2.3", "layer3.1"} <= frozen and "layer3.2" not in frozen
    first = model.trunk.layer3[0]  # strides as in Caffe
    strides = [m.stride for m in (first.conv1, first.downsample[0], first.conv2)]
    assert strides == [(2, 2), (2, 2), (1, 1)]
    trunk = model.trunk
    with torch.no_grad():
        assert trunk.maxpool(trunk.conv1(torch.rand(1, 3, 224, 224))).shape == (1, 64, 56, 56)


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
        ({"pretrained": "imagenet", "trunk_width": 1.0}, "for mobilenet_v1 .* 'vggface2' or 'none'"),
        ({"freeze": 85}, "counts 84 layers"),
        ({"freeze": -1}, "counts 84 layers"),
        ({"pretrained": "vggface2"}, "it can be 'none'"),
        ({"trunk": "easynet", "pretrained": "vggface2", "trunk_width": 1.0}, "for easynet .* 'none'"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FaceNet(**{**SMALL, **options})


def test_without_hidden_layers_the_head_is_linear():
    model = FaceNet(**{**SMALL, "head": []})
    assert [name for name, _ in model.classifier.named_children()] == ["norm", "fc1"]


def test_every_trunk_gets_its_own_preprocessing():
    expected = {
        "easynet": [0.0] * 3,
        "mobilenet_v1": [127.5 - 103.939, 127.5 - 116.779, 127.5 - 123.68],
        "inception_resnet_v1": [0.0] * 3,
        "resnet50": [127.5 - 131.0912, 127.5 - 103.8827, 127.5 - 91.4953],
    }
    for name, mean in expected.items():
        seen = TRUNKS[name]().normalise(torch.full((1, 1, 8, 8), 0.5))
        assert seen.shape == (1, 3, 8, 8)
        np.testing.assert_allclose(seen[0, :, 3, 5], mean, atol=1e-4)
    assert TRUNKS["inception_resnet_v1"].scale == 128


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
    for i, outputs in enumerate(MobileNetV1.CHANNELS, 1):
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
    for i, stride in enumerate(MobileNetV1.STRIDES, 1):
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
        monkeypatch.setitem(weights.SOURCES, path.name, ("https://example.org", sha256(path)))


def test_the_folded_mobilenet_computes_what_its_graph_says(faceres):
    folder, tensors = faceres
    arrays = tensorflow_js_tensors(*((folder / f"faceres.{end}").read_bytes() for end in ("json", "bin")))
    assert arrays["global_pooling/Mean/reduction_indices"].tolist() == [1, 2]
    trunk = MobileNetV1().eval()
    trunk.load_state_dict(mobilenet_state(arrays), strict=False)
    images = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected = straightforward(tensors, images)
        torch.testing.assert_close(trunk(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01 and expected.max() < 6


def test_loading_restores_batch_norm_and_leaves_what_is_computed(faceres, toy_faces, monkeypatch):
    folder, tensors = faceres
    use(folder, monkeypatch)
    training = toy_faces.split("train").images[:150]
    model = FaceNet(head=[8], input_size=32, freeze=4)
    load_pretrained(model, training)
    assert model.training and not model.trunk.conv1.bn.training  # frozen layers stay in evaluation mode
    images = torch.from_numpy(training).unsqueeze(1).float() / 255
    small, norm, seen = model.enlarge(images), model.trunk.block5.pw_bn, []
    norm.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    with torch.no_grad():
        expected = straightforward(tensors, small)
        torch.testing.assert_close(model.eval().trunk(small), expected, rtol=1e-4, atol=1e-4)
        variance, mean = torch.var_mean(seen[0], (0, 2, 3), correction=0)
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(norm.running_var, variance, rtol=1e-3, atol=1e-3)
        # So a training step starts from the same features, which are those of the whole batch here.
        trained = model.train().trunk(small)
        torch.testing.assert_close(trained, model.eval().trunk(small), rtol=0.01, atol=0.01)


def test_a_network_without_public_weights_is_left_as_it_is(toy_faces):
    model = FaceNet(**SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_pretrained(model, toy_faces.images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
