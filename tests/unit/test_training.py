"""Training learns, resumes to the same weights, and keeps its files whole."""

import dataclasses
import shutil

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fer_utils import training
from fer_utils.augment import Augment
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.models import EasyNet, FaceNet
from fer_utils.training import Classifier, Recipe, fit, make_optimizer

RECIPE = Recipe(epochs=1, batch_size=32, lr=0.05, label_smoothing=0.0, augment=None)
RESUMED = dataclasses.replace(RECIPE, epochs=3, mixup=0.4, augment=Augment(contrast=0.2, erase=0.5))


def small_net(seed=0):
    L.seed_everything(seed, verbose=False)
    return EasyNet(widths=(4, 8, 8), hidden=16, dropout=0.1, stride=2)


def train(faces, recipe, folder, **options):
    options = {"accelerator": "cpu", "verbose": False} | options
    halves = faces.split("train"), faces.split("validation")
    return fit(small_net(recipe.seed), *halves, recipe, folder, **options)


def assert_same_weights(one, other):
    other = other.state_dict()
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0, msg=name)


@pytest.fixture(scope="module")
def trained(toy_faces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train(toy_faces, dataclasses.replace(RECIPE, epochs=5), folder, verbose=True)


def test_learns_what_can_be_learnt_and_keeps_the_best_epoch(trained, toy_faces):
    assert trained.best["val_accuracy"] > 0.9 and not trained.model.training
    assert list(pd.read_csv(trained.folder / "history.csv")["epoch"]) == [1, 2, 3, 4, 5]
    assert (trained.history["images_per_second"] > 0).all()
    assert trained.history["lr"].iloc[-1] < 0.001, "the cycle ends near zero"
    validation = toy_faces.split("validation")
    accuracy = np.mean(predict(trained.model, validation).argmax(1) == validation.labels)
    assert accuracy == pytest.approx(trained.best["val_accuracy"], abs=1e-6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_gradient_is_clipped_in_both_precisions(toy_faces, tmp_path, precision):
    moved = {}
    for clip in (0.0, 1e-4):
        recipe = dataclasses.replace(RECIPE, clip=clip, weight_decay=0.0)
        model = train(toy_faces, recipe, tmp_path / str(clip), precision=precision).model
        pairs = zip(model.parameters(), small_net().parameters(), strict=True)
        moved[clip] = torch.sqrt(sum((one - other).square().sum() for one, other in pairs)).item()
        steps = -(-len(toy_faces.split("train")) // recipe.batch_size)
    # With momentum of 0.9 a step is at most ten gradients long.
    assert 0 < moved[1e-4] < 10 * steps * RECIPE.lr * 1e-4 < moved[0.0]


class Stop(Exception):
    pass


def with_auxiliary_task(faces):
    """Targets: the labels, and for half of the faces their neighbours, of seven, as an auxiliary task."""
    auxiliary = 2 * np.roll(np.eye(7)[faces.labels], 1, axis=1)
    auxiliary[len(faces) // 2 :] = 0
    return np.hstack([np.eye(6)[faces.labels], auxiliary])


def test_a_stopped_run_that_moved_resumes_from_what_is_whole_to_the_same_weights(
    toy_faces, tmp_path, monkeypatch, capsys
):
    recipe = dataclasses.replace(RESUMED, batches=5)
    targets = with_auxiliary_task(toy_faces.split("train"))
    straight = train(toy_faces, recipe, tmp_path / "straight", targets=targets)
    step, epochs, last = Classifier.training_step, [], 2

    def failing(self, batch, index):
        epochs.append(self.current_epoch)
        if (self.current_epoch, index) == (last, 3):
            raise Stop
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", failing)
    with pytest.raises(Stop):
        train(toy_faces, recipe, tmp_path / "stopped", targets=targets)
    last = None
    for damaged, first in ((), 2), (("last",), 1), (("last", "previous"), 0), (("best",), 0):
        moved = tmp_path / "-".join(("moved", *damaged))
        shutil.copytree(tmp_path / "stopped", moved)
        for name in damaged:
            path = moved / f"{name}.ckpt"
            path.write_bytes(path.read_bytes()[:-1000])
        epochs.clear()
        resumed = train(toy_faces, recipe, moved, targets=targets, resume=True)
        printed = capsys.readouterr().err.splitlines()
        assert [line.split(" is damaged")[0] for line in printed] == [f"{moved / n}.ckpt" for n in damaged]
        assert min(epochs) == first
        assert_same_weights(straight.model, resumed.model)
        columns = ["epoch", "train_loss", "val_loss", "val_accuracy", "lr"]
        pd.testing.assert_frame_equal(straight.history[columns], resumed.history[columns])


def test_an_epoch_that_was_best_before_the_stop_stays_the_best(toy_faces, tmp_path, monkeypatch):
    recipe = dataclasses.replace(RESUMED, epochs=2, lr=0.02)
    step = Classifier.training_step

    def failing(self, batch, index):
        if self.current_epoch == 1:
            raise Stop
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", failing)
    with pytest.raises(Stop):
        train(toy_faces, recipe, tmp_path)
    first = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    monkeypatch.setattr(Classifier, "training_step", step)
    wrong = torch.full((32,), 7)  # no label that there is: the second epoch seems to be worse
    monkeypatch.setattr(
        Classifier, "_log", lambda self, stage, loss, logits, labels, log=Classifier._log: log(
            self, stage, loss, logits, wrong[: len(labels)] if stage == "val" else labels
        ),
    )  # fmt: skip
    done = train(toy_faces, recipe, tmp_path, resume=True)
    assert done.best["epoch"] == 1 and done.history["val_accuracy"].iloc[1] == 0
    for name, value in done.model.state_dict().items():
        torch.testing.assert_close(value, first[f"model.{name}"], rtol=0, atol=0)


def test_the_seed_decides(toy_faces, tmp_path):
    recipe = dataclasses.replace(RESUMED, epochs=1, batches=3)
    one, again = (train(toy_faces, recipe, tmp_path / name) for name in "ab")
    other = train(toy_faces, dataclasses.replace(recipe, seed=1), tmp_path / "c")
    assert_same_weights(one.model, again.model)
    assert not torch.equal(one.model.classifier.fc2.weight, other.model.classifier.fc2.weight)


def test_other_settings_are_refused_and_a_new_start_forgets_the_old_run(toy_faces, tmp_path):
    short = dataclasses.replace(RECIPE, batches=1)
    train(toy_faces, short, tmp_path, about={"network": "toy", "revision": "old"})
    (tmp_path / "model.safetensors").touch()
    changed = dataclasses.replace(short, lr=0.01, augment=Augment())
    with pytest.raises(DataError, match=r"other settings \(augment, lr, network changed\)"):
        train(toy_faces, changed, tmp_path, about={"network": "net", "revision": "new"}, resume=True)
    with pytest.raises(ValueError, match="precision"):
        train(toy_faces, short, tmp_path, precision="sixteen")
    assert (tmp_path / "model.safetensors").exists(), "nothing is lost to what cannot begin"
    done = train(toy_faces, dataclasses.replace(short, epochs=2), tmp_path)
    assert list(done.history["epoch"]) == [1, 2] and not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(("optimizer", "batches"), [("sgd", 1), ("adam", 2), ("adam", 5)])
def test_both_optimisers_and_cycles_of_a_handful_of_steps(toy_faces, tmp_path, optimizer, batches):
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, batches=batches)
    assert 0 <= train(toy_faces, recipe, tmp_path).history["lr"].item() <= RECIPE.lr


def test_sgd_uses_nesterov_momentum_and_spares_vectors_and_what_is_frozen():
    model = small_net()
    model.features.conv1.requires_grad_(False)
    optimizer = make_optimizer(model, RECIPE)
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [RECIPE.weight_decay, 0.0]
    assert all(p.ndim <= 1 for p in optimizer.param_groups[1]["params"])
    trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    frozen = sum(p.numel() for p in model.features.conv1.parameters())
    assert trained == sum(p.numel() for p in model.parameters()) - frozen


def quiet_step(classifier, batch):
    classifier._log = lambda *_: None
    return classifier.training_step(batch, 0)


def test_mixup_trains_on_blends_of_images_and_labels():
    model, labels = small_net().eval(), torch.arange(8) % 6
    images, targets = torch.rand(8, 1, 64, 64), torch.eye(6)[labels]
    torch.manual_seed(3)
    loss = quiet_step(Classifier(model, dataclasses.replace(RECIPE, mixup=1.0)), (images, labels, targets))
    torch.manual_seed(3)
    share = torch.distributions.Beta(1.0, 1.0).sample().item()
    share, other = max(share, 1 - share), torch.randperm(8)
    blends = (share * both + (1 - share) * both[other] for both in (images, targets))
    torch.testing.assert_close(loss, nn.functional.cross_entropy(model(next(blends)), next(blends)))


def test_the_auxiliary_loss_is_added_by_its_weight():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 9))
    classifier = Classifier(model, dataclasses.replace(RECIPE, label_smoothing=0.1), auxiliary=3)
    images, labels, asked = torch.rand(5, 1, 2, 2), torch.arange(5), torch.rand(5, 3)
    asked[0] = 0
    own, logits = torch.eye(6)[labels], model(images)
    expected = -(0.9 * own + 0.1 / 6).mul(logits[:, :6].log_softmax(1)).sum() / 5
    expected -= (asked * logits[:, 6:].log_softmax(1)).sum() / 5
    loss = quiet_step(classifier, (images, labels, torch.hstack([own, asked])))
    torch.testing.assert_close(loss, expected)


def test_an_auxiliary_task_is_learnt_and_forgotten(toy_faces, tmp_path, monkeypatch):
    targets, seen = with_auxiliary_task(toy_faces.split("train")), []
    change, keep = training.set_outputs, lambda layer: seen.append(layer.weight.detach().clone())
    monkeypatch.setattr(training, "set_outputs", lambda layer, n: (keep(layer), change(layer, n)))
    recipe = dataclasses.replace(RECIPE, epochs=4)
    last = train(toy_faces, recipe, tmp_path, targets=targets).model.classifier.fc2
    narrow, wide = seen
    assert narrow.shape == (6, 16) and wide.shape == (13, 16)
    assert last.out_features == 6 and last.bias.shape == (6,) and torch.equal(last.weight, wide[:6])
    validation = toy_faces.split("validation")
    model = small_net().eval()
    training.set_outputs(model.classifier.fc2, 13)
    state = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    logits = model(torch.tensor(validation.images[:, None]).float() / 255)
    assert np.mean(logits[:, 6:].argmax(1).numpy() == validation.labels + 1) > 0.6
    assert np.mean(logits[:, :6].argmax(1).numpy() == validation.labels) > 0.6


def test_targets_take_the_place_of_labels(toy_faces, tmp_path):
    moved = np.eye(6, dtype=np.float32)[(toy_faces.split("train").labels + 1) % 6]
    recipe = dataclasses.replace(RECIPE, epochs=4)
    done = train(toy_faces, recipe, tmp_path, targets=moved)
    validation = toy_faces.split("validation")
    assert np.mean(predict(done.model, validation).argmax(1) == (validation.labels + 1) % 6) > 0.5
    with pytest.raises(ValueError, match="2 targets for 300 images"):
        train(toy_faces, recipe, tmp_path, targets=moved[:2])
    with pytest.raises(DataError, match="there are no images"):
        train(toy_faces.where(np.zeros(len(toy_faces), bool)), recipe, tmp_path)


def test_every_image_is_seen_once_an_epoch_in_another_order(toy_faces, tmp_path, monkeypatch):
    seen, step = [], Classifier.training_step

    def watched(self, batch, index):
        seen.append((self.current_epoch, batch[0].flatten(1).sum(1)))
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", watched)
    train(toy_faces, dataclasses.replace(RECIPE, epochs=2), tmp_path / "whole")
    first, second = (torch.cat([images for epoch, images in seen if epoch == e]) for e in (0, 1))
    assert len(first) == 300 and not torch.equal(first, second)
    torch.testing.assert_close(first.sort().values, second.sort().values, rtol=0, atol=0)
    seen.clear()
    train(toy_faces, dataclasses.replace(RECIPE, epochs=2, batches=4), tmp_path / "part")
    assert [len(images) for _, images in seen] == [32] * 8, "a fixed number of batches is a fixed budget"


def test_images_grow_with_the_epochs_also_after_a_stop_and_are_judged_at_full_size(toy_faces, tmp_path):
    seen = []

    class Watched(FaceNet):
        def forward(self, images):
            seen.append((self.training, self.input_size))
            if self.training and len(seen) == 5:
                raise Stop
            return super().forward(images)

    def grow(**more):
        net = Watched("easynet", "none", head=[], input_size=96, trunk_width=0.25)
        recipe = dataclasses.replace(RECIPE, epochs=6, batches=1, first_size=48)
        rows = np.arange(len(toy_faces)) % 10 == 0
        halves = [toy_faces.where(rows).split(split) for split in ("train", "validation")]
        return fit(net, *halves, recipe, tmp_path, accelerator="cpu", verbose=False, **more)

    with pytest.raises(Stop):
        grow()
    assert grow(resume=True).model.input_size == 96
    assert [size for training, size in seen if training] == [48, 64, 64, 64, 80, 80, 96]
    assert {size for training, size in seen if not training} == {96}


@pytest.mark.parametrize(("net", "size"), [(EasyNet(), 32), (FaceNet("easynet", "none", head=[]), 4_000)])
def test_only_a_facenet_grows_and_only_to_its_own_size(net, size):
    with pytest.raises(ValueError, match="first_size"):
        Classifier(net, dataclasses.replace(RECIPE, first_size=size))


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"lr": -1}, {"optimizer": "lion"}])
def test_recipes_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match="above 0"):
        Recipe(**bad)
