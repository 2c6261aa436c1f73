"""FaceNet: shapes, what is frozen in each trunk, and batch normalisation restored without a trace."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fer_utils import weights
from fer_utils.files import sha256
from fer_utils.models import FaceNet
from fer_utils.models.backbones import TRUNKS, DlibResNet, MobileNetV1
from fer_utils.models.pretrained import mobilenet_state, tensorflow_js_tensors
from fer_utils.weights import load_pretrained

SMALL = {"pretrained": "none", "trunk_width": 0.25, "head": [16, 8], "input_size": 32}
# By trunk: layers, features, and the smallest input that is quick to compute.
COUNTS = {
    "easynet": (14, 1728, 64),
    "mobilenet_v1": (84, 1024, 32),
    "inception_resnet_v1": (380, 1792, 80),
    "resnet50": (175, 2048, 32),
    "dlib_resnet": (103, 640, 104),
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


@pytest.mark.parametrize("name", COUNTS)
def test_every_trunk_says_which_images_are_too_small(name):
    least = TRUNKS[name].least
    with torch.no_grad():
        FaceNet(name, "none", head=[], input_size=least).eval()(torch.rand(1, 1, 64, 64))
    with pytest.raises(ValueError, match=f"{name} needs {least} pixels at least"):
        FaceNet(name, "none", head=[], input_size=least - 1)


def test_without_hidden_layers_the_head_is_linear():
    model = FaceNet(**{**SMALL, "head": []})
    assert [name for name, _ in model.classifier.named_children()] == ["norm", "fc1"]


def test_every_trunk_gets_its_own_preprocessing():
    expected = {
        "easynet": [0.0] * 3,
        "mobilenet_v1": [127.5 - 103.939, 127.5 - 116.779, 127.5 - 123.68],
        "inception_resnet_v1": [0.0] * 3,
        "resnet50": [127.5 - 131.0912, 127.5 - 103.8827, 127.5 - 91.4953],
        "dlib_resnet": [127.5 / 256],
    }
    for name, mean in expected.items():
        seen = TRUNKS[name]().normalise(torch.full((1, 1, 8, 8), 0.5))
        assert seen.shape == (1, len(mean), 8, 8)
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


def test_depthwise_steps_that_learn_are_computed_in_single_precision(toy_faces):
    model, seen = FaceNet(**SMALL, freeze=30), {}
    strided = {n: m for n, m in model.trunk.named_modules() if n.endswith("dw_conv") and m.stride == (2, 2)}
    for name, module in strided.items():
        module.register_forward_hook(lambda m, i, output, name=name: seen.update({name: output.dtype}))
    images = torch.from_numpy(toy_faces.take(range(4))).unsqueeze(1) / 255
    with torch.autocast("cpu", torch.bfloat16):
        model(images).sum().backward()
    learn = {name: module.weight.requires_grad for name, module in strided.items()}
    assert set(learn.values()) == {True, False}
    assert {name: dtype == torch.float32 for name, dtype in seen.items()} == learn
    halves = {n: m.weight.grad for n, m in strided.items() if learn[n]}
    assert all(g.dtype == torch.float32 and g.abs().max() > 0 for g in halves.values())


# --- dlib's residual network ---


def dlib_file(rng):
    """A file of dlib's form with random weights, and the weights by layer."""

    def integer(value):
        size = (value.bit_length() + 7) // 8 or 1
        return bytes([size]) + value.to_bytes(size, "little")

    file, layers, inputs = b"\x01\x02 what comes before", [], 3
    shapes = [(32, 7)] + [(outputs, 3) for outputs, blocks, _ in DlibResNet.LEVELS for _ in range(2 * blocks)]
    for outputs, side in shapes:
        kernels = rng.normal(0, 0.1 * (2 / inputs / side**2) ** 0.5, (outputs, inputs, side, side))
        affine = rng.normal(size=(2, outputs)) * [[1], [0.2]] + [[6], [0.05]]
        layers.append([kernels, rng.normal(0, 0.1, outputs), *affine])
        for name, values in ((b"con_4", layers[-1][:2]), (b"affine_", layers[-1][2:])):
            flat = np.concatenate([part.ravel() for part in values])
            file += integer(len(name))[1:] + name + b"".join(map(integer, (2, len(flat), 1, 1, 1)))
            file += flat.astype("<f4").tobytes() + b"\x01\x03 settings of the layer"
        inputs = outputs
    return file, [[torch.tensor(part, dtype=torch.float32) for part in layer] for layer in layers]


def dlibs_own(layers, images):
    """What dlib computes, layer by layer, of images of three channels: the means after levels 3, 4 and 5."""
    layers, means = iter(layers), []

    def layer(x, stride, padding):
        kernels, biases, scale, shift = next(layers)
        x = F.conv2d(x, kernels, biases, stride, padding)
        return x * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)

    x = (images * 255 - torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1)) / 256
    x = F.max_pool2d(layer(x, 2, 0).relu(), 3, 2)
    for number, (_, blocks, stride) in enumerate(DlibResNet.LEVELS, 1):
        for step in [stride] + [1] * (blocks - 1):
            inner = layer(layer(x, step, 0 if step == 2 else 1).relu(), 1, 1)
            short = F.avg_pool2d(x, 2) if step == 2 else x
            size = [max(a, b) for a, b in zip(inner.shape, short.shape, strict=True)]
            x = torch.zeros(size)
            for part in (inner, short):
                x[:, : part.shape[1], : part.shape[2], : part.shape[3]] += part
            x = x.relu()
        means += [x.mean((2, 3))] if number >= 3 else []
    return torch.cat(means, 1)


@pytest.mark.parametrize("side", [104, 128, 150])
def test_dlibs_network_is_read_from_its_file(toy_faces, tmp_path, monkeypatch, side):
    file, layers = dlib_file(np.random.default_rng(0))
    (tmp_path / "dlib_face_recognition_resnet_model_v1.dat").write_bytes(file)
    use(tmp_path, monkeypatch)
    model = FaceNet("dlib_resnet", "dlib", head=[], input_size=side)
    load_pretrained(model, toy_faces.images[:32])
    images = model.enlarge(torch.from_numpy(toy_faces.take(range(4))).unsqueeze(1) / 255)
    with torch.no_grad():
        expected = dlibs_own(layers, images.expand(-1, 3, -1, -1))
        torch.testing.assert_close(
            model.eval().trunk(images), expected, rtol=1e-3, atol=1e-3 * float(expected.std())
        )
    assert expected.std() > 0.01
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):  # as large as He's, for the optimiser
            assert module.weight.std().item() == pytest.approx(
                (2 / module.weight[0].numel()) ** 0.5, rel=0.05
            )


def test_a_network_without_public_weights_is_left_as_it_is(toy_faces):
    model = FaceNet(**SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_pretrained(model, toy_faces.images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
