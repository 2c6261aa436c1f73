"""EmoNet and EasyNet: shapes at every layer as the docstrings say, and what the normalisation does."""

import pytest
import torch

from fer_utils.models import EasyNet, EmoNet, build
from fer_utils.models.easynet import Dropout


def shapes(model, size=64):
    seen = {}
    for _, module in model.named_children():
        for inner, layer in module.named_children():
            layer.register_forward_hook(lambda m, i, o, name=inner: seen.update({name: tuple(o.shape[1:])}))
    model.eval()(torch.rand(2, 1, size, size))
    return seen


def test_easynet_has_the_posters_layers():
    seen = shapes(EasyNet())
    assert [seen[k] for k in ("conv1", "pool1", "conv2", "pool2", "conv3", "fc1", "fc2")] == [
        *[(32, 48, 48), (32, 24, 24), (96, 24, 24), (96, 12, 12), (192, 11, 11), (128,), (6,)]
    ]
    kernels = [m.kernel_size for m in EasyNet().modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [(5, 5), (5, 5), (4, 4)]
    unpadded = shapes(EasyNet(widths=(4, 8, 16), padding=False, image_size=64))
    assert [unpadded[k] for k in ("conv1", "pool1", "conv2", "pool2", "conv3")] == [
        *[(4, 60, 60), (4, 29, 29), (8, 25, 25), (8, 12, 12), (16, 9, 9)]
    ]


def test_easynet_scales_images_to_its_own_size():
    model, seen = EasyNet(widths=(4, 8, 16)).eval(), []
    model.standardise.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ramp = (torch.arange(64) / 64).expand(1, 1, 64, 64)
    model(ramp)
    assert seen[0].shape == (1, 1, 48, 48)
    inside = seen[0][0, 0, 24, 4:-4].diff()  # borders are bent
    torch.testing.assert_close(inside, torch.full_like(inside, 1 / 48), atol=1e-3, rtol=0)


def test_easynet_of_other_depths_and_activations():
    plain = EasyNet(widths=(4, 8, 16), hidden=8, batch_norm=False, activation="silu")
    kinds = [type(module).__name__ for module in plain.modules()]
    assert not any("BatchNorm" in kind for kind in kinds) and kinds.count("SiLU") == 4 and "ReLU" not in kinds
    layers = [m for m in plain.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert all(layer.bias is not None for layer in layers)
    for depth in (2, 3, 4):
        model = EasyNet(widths=(4, 8, 16), depth=depth)
        assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == depth
        assert shapes(model)["fc2"] == (6,)
    for wrong in ({"activation": "tanh"}, {"depth": 5}):
        with pytest.raises(ValueError, match=r"depth can be 2, 3 or 4, and activation relu, elu, silu"):
            EasyNet(**wrong)


def test_emonet_is_shaped_like_vgg_s():
    model = EmoNet()
    seen = shapes(model)
    names = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8")
    assert [seen[k] for k in names] == [
        *[(48, 32, 32), (48, 16, 16), (128, 16, 16), (128, 8, 8), (256, 8, 8), (256, 8, 8), (256, 8, 8)],
        *[(256, 4, 4), (2048,), (2048,), (6,)],
    ]
    kernels = [m.kernel_size[0] for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert kernels == [7, 5, 3, 3, 3]


@pytest.mark.parametrize("name", ["emonet", "easynet"])
def test_logits_do_not_depend_on_lighting_and_contrast(name):
    model = build(name).eval()
    images = torch.rand(4, 1, 64, 64) * 0.5 + 0.2
    with torch.no_grad():
        plain, darker = model(images), model(images * 0.8 - 0.05)
        seen, darker_seen = model.standardise(images), model.standardise(images * 0.8 - 0.05)
    assert plain.shape == (4, 6)
    # Untrained logits hardly differ between images; without standardising, these move by twice that and more.
    torch.testing.assert_close(plain, darker, atol=0.5 * float(plain.std(0).mean()), rtol=0)
    torch.testing.assert_close(seen, darker_seen, atol=0.05, rtol=0)
    assert torch.isfinite(model(torch.full((2, 1, 64, 64), 0.5))).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("easynet", {"widths": (4, 8, 16), "hidden": 32, "dropout": 0.1, "depth": 2}),
        ("emonet", {"width": 0.125}),
        ("facenet", {"pretrained": "none", "trunk_width": 0.25, "head": (16,), "freeze": 0.5}),
    ],
)
def test_options_make_the_same_network_again(name, options):
    torch.manual_seed(0)
    model = build(name, **options).eval()
    again = build(name, **model.options).eval()
    again.load_state_dict(model.state_dict())
    images = torch.rand(2, 1, 64, 64)
    assert torch.equal(model(images), again(images)) and again.options == model.options


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 1])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    torch.manual_seed(0)
    dropout, ones = Dropout(share), torch.ones(64, 4_001)  # not a multiple of the eight bytes of a word
    dropped = dropout(ones)
    assert sorted(dropped.unique().tolist()) == pytest.approx(
        sorted({0.0 if share else 1.0, 1 / (1 - share) if share < 1 else 0.0}), rel=5e-3
    )
    zeros = dropped == 0
    assert zeros.float().mean() == pytest.approx(share, abs=0.004)
    # Neighbours, within one word and beyond, are dropped independently of each other.
    for distance in (1, 3, 8):
        together = (zeros[:, distance:] & zeros[:, :-distance]).float().mean()
        assert together == pytest.approx(share**2, abs=0.006)
    assert not torch.equal(dropout(ones), dropped) or share in (0, 1)
    assert torch.equal(dropout.eval()(ones), ones)


def test_dropout_repeats_by_the_seed_in_half_precision_too():
    drawn = []
    for _ in range(2):
        torch.manual_seed(5)
        values = torch.ones(3, 50, dtype=torch.bfloat16, requires_grad=True)
        Dropout(0.3)(values).sum().backward()
        drawn.append(values.grad)
    assert torch.equal(*drawn) and drawn[0].dtype == torch.bfloat16 and 0 < (drawn[0] == 0).sum() < 150
