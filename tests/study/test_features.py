"""The frozen part computed once: the same training, and never an old file for something new."""

import dataclasses

import lightning as L
import numpy as np
import pytest
import torch

from fer_utils.augment import Augment
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.models import FaceNet
from fer_utils.training import Recipe, fit
from reading_faces import features

EASY = {"trunk": "easynet", "pretrained": "none", "trunk_width": 0.125, "head": [16], "freeze": 0.6}
RECIPE = Recipe(epochs=3, batch_size=32, lr=0.03, augment=None)
DRAWN = Augment(degrees=5, shift=0.03, scale=0.05)
# Trunk, size of the images, what is frozen and the shape of its features.
CUTS = {
    "easynet": (64, 0.5, (24, 12, 12)),
    "mobilenet_v1": (32, 100 / 175, (128, 2, 2)),
    "inception_resnet_v1": (80, 0.5, (896, 3, 3)),
    "resnet50": (32, 100 / 175, (1024, 2, 2)),
    "dlib_resnet": (104, 0.3, (64, 12, 12)),
}


def net(seed=0, **options):
    L.seed_everything(seed, verbose=False)
    model = FaceNet(**EASY | options)
    # Normalisation that has seen something, so that evaluation and training mode differ.
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
    return model


def images_of(faces, rows):
    return torch.from_numpy(faces.take(rows)).unsqueeze(1).float() / 255


@pytest.mark.parametrize("trunk", CUTS)
def test_the_parts_together_are_the_network(trunk):
    size, freeze, shape = CUTS[trunk]
    width = {"trunk_width": 0.25} if trunk in ("easynet", "mobilenet_v1") else {}
    torch.manual_seed(0)
    model = FaceNet(trunk, "none", freeze=freeze, head=[8], input_size=size, **width)
    frozen, trained = features.split(model)
    images = torch.rand(4, 1, 64, 64)
    for mode in (True, False):
        model.train(mode), trained.train(mode)
        with torch.no_grad():
            middle = frozen(model.trunk.normalise(model.enlarge(images)))
            torch.manual_seed(1)
            parts = trained(middle)
            torch.manual_seed(1)
            torch.testing.assert_close(parts, model(images), rtol=1e-6, atol=1e-6)
    assert middle.shape[1:] == shape
    # Everything that is trained is above, and what is below is frozen.
    assert not any(p.requires_grad for p in frozen.parameters())
    above = {id(p) for p in trained.parameters()}
    assert all(id(p) in above for p in model.parameters() if p.requires_grad)
    held = {module for _, module in model.frozen_layers}
    trained.train()
    assert not any(m.training for m in trained.modules() if m in held)


def test_the_whole_trunk_frozen_leaves_the_head():
    model = net(freeze=1.0)
    frozen, trained = features.split(model)
    assert list(trained) == [model.classifier] and frozen(torch.rand(2, 3, 64, 64)).shape == (2, 9 * 24)


@pytest.mark.parametrize("freeze", [0.6, 1.0])
def test_training_on_features_is_the_same_training(toy_faces, tmp_path, freeze):
    """With dropout, clipping and a shuffled order, up to the half precision of the features."""
    parts = toy_faces.split("train"), toy_faces.split("validation")
    options = {"accelerator": "cpu", "verbose": False}
    plain = fit(net(freeze=freeze), *parts, RECIPE, tmp_path / "plain", **options)
    model = net(freeze=freeze)
    computed = [features.compute(model, faces, tmp_path / "features") for faces in parts]
    assert computed[0].take([0, 5]).dtype == np.float16 and len(computed[1]) == len(parts[1])
    done = fit(features.split(model)[1], *computed, RECIPE, tmp_path / "computed", **options)
    one, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in (model, plain.model))
    assert (one - other).norm() < 0.05 * other.norm()
    columns = ["train_loss", "val_loss"]
    np.testing.assert_allclose(done.history[columns], plain.history[columns], atol=0.03)
    # The whole network scores what was validated during training.
    right = predict(model.eval(), parts[1]).argmax(1) == parts[1].labels
    assert right.mean() == pytest.approx(done.best["val_accuracy"], abs=0.02)
    assert done.best["val_accuracy"] > 0.5


def test_views_are_what_augmentation_draws_and_the_first_is_plain(toy_faces, tmp_path):
    model, faces = net(), toy_faces.split("train")
    state = torch.get_rng_state()
    computed = features.compute(model, faces, tmp_path, views=3, augment=DRAWN)
    assert torch.equal(torch.get_rng_state(), state)  # nothing else notices the drawing
    frozen, _ = features.split(model)
    with torch.no_grad():
        plain = frozen(model.trunk.normalise(images_of(faces, range(40)))).numpy()
    np.testing.assert_allclose(computed.views[0][:40], plain, rtol=1e-2, atol=1e-2)
    first, second, third = (view.astype(float) for view in computed.views)
    assert abs(first - second).mean() > 0.02 and abs(second - third).mean() > 0.02
    # Batches have faces in all views, and labels belong to them.
    batch = computed.take(np.arange(300))
    views = [[np.array_equal(batch[i], view[i]) for view in computed.views] for i in range(300)]
    assert np.sum(views, 0).min() > 60 and np.sum(views, 1).min() == 1
    np.testing.assert_array_equal(computed.labels, faces.labels)


def test_what_is_there_is_read_and_anything_else_has_another_file(toy_faces, tmp_path, monkeypatch):
    """Weights, pixels, choice of images, cut, size and augmentation: never an old file."""
    faces = toy_faces.split("validation")

    def new(model=None, faces=faces, **options):
        before = set(tmp_path.iterdir())
        features.compute(model or net(), faces, tmp_path, **{"views": 2, "augment": DRAWN} | options)
        return len(set(tmp_path.iterdir()) - before)

    assert new() == 2
    changed, normalised, above = net(), net(), net(head=[8])
    with torch.no_grad():
        changed.trunk.conv1.weight[0, 0, 0, 0] += 1e-6
    normalised.trunk.pool1[1].running_var[0] += 1e-3
    assert all(new(model) == 2 for model in (changed, normalised, net(freeze=0.4), net(input_size=80)))
    assert new(augment=dataclasses.replace(DRAWN, degrees=6)) == 1 and new(views=3) == 1  # plain views stay
    assert new(faces=faces.where(np.arange(len(faces)) != 4)) == 2
    # What is trained above does not matter, nor do labels; and nothing is computed twice.
    above.trunk.load_state_dict(net().trunk.state_dict())
    monkeypatch.setattr(features, "_view", lambda *_: pytest.fail("computed again"))
    other_labels = dataclasses.replace(faces, table=faces.table.assign(label=np.int8(0)))
    assert new(above) == new(faces=other_labels) == new() == 0


def test_what_half_precision_cannot_hold_is_refused(toy_faces, tmp_path):
    large = net()
    with torch.no_grad():
        large.trunk.pool1[1].weight *= 1e6
    with pytest.raises(DataError, match=r"leave the range of half precision"):
        features.compute(large, toy_faces.split("validation"), tmp_path)
    assert not list(tmp_path.iterdir())
