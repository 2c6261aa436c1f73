"""Training learns, resumes to the same weights, and keeps its files whole."""

import dataclasses
import sys
from contextlib import contextmanager

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from fer_utils import training
from fer_utils.augment import Augment
from fer_utils.errors import DataError
from fer_utils.evaluation import metrics, predict
from fer_utils.models import EasyNet
from fer_utils.training import (
    Checkpoint,
    Classifier,
    FaceData,
    Recipe,
    fit,
    keep_freed_memory,
    make_optimizer,
)

RECIPE = Recipe(epochs=3, batch_size=32, lr=0.05, label_smoothing=0.0, augment=None)
AUGMENTED = dataclasses.replace(RECIPE, augment=Augment(degrees=3, shift=0.02, flip=0.5))
AVERAGED = dataclasses.replace(AUGMENTED, ema=0.9, mixup=0.4)


def small_net(seed=0):
    L.seed_everything(seed, verbose=False)
    return EasyNet(widths=(4, 8, 8), hidden=16, dropout=0.1)


def train(faces, recipe, folder, **options):
    return fit(
        small_net(recipe.seed),
        faces.split("train"),
        faces.split("validation"),
        recipe,
        folder,
        accelerator="cpu",
        verbose=False,
        **options,
    )


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0, msg=name)


def test_learns_what_can_be_learnt(toy_faces, tmp_path):
    done = train(toy_faces, dataclasses.replace(RECIPE, epochs=6), tmp_path)
    assert done.best["val_accuracy"] > 0.9
    assert not done.model.training
    assert list(pd.read_csv(tmp_path / "history.csv")["epoch"]) == [1, 2, 3, 4, 5, 6]
    assert (done.history["images_per_second"] > 0).all()


@pytest.mark.parametrize("batches", [1, 2, 5])
def test_one_cycle_may_be_a_handful_of_steps(toy_faces, tmp_path, batches):
    done = train(toy_faces, dataclasses.replace(RECIPE, epochs=1, batches=batches), tmp_path)
    assert len(done.history) == 1 and 0 <= done.history["lr"].iloc[0] <= RECIPE.lr


def test_returns_the_weights_of_the_best_epoch(toy_faces, tmp_path):
    done = train(toy_faces, RECIPE, tmp_path)
    validation = toy_faces.split("validation")
    scores = metrics(validation.labels, predict(done.model, validation))
    assert scores["accuracy"] == pytest.approx(done.history["val_accuracy"].max(), abs=1e-6)


def asked_twice(faces):
    """Targets: the labels, and for half of the faces their neighbours as a second question."""
    own = np.eye(6)[faces.labels]
    second = 2 * np.roll(np.eye(7)[faces.labels], 1, axis=1)
    second[len(faces) // 2 :] = 0
    return np.hstack([own, second])


class Stop(Exception):
    pass


def test_checkpoints_from_before_runs_could_move_are_known():
    about = {"monitor": "val_accuracy", "mode": "max"}
    assert Checkpoint("here", **about).state_key == ModelCheckpoint("here", **about).state_key


def test_a_run_that_was_moved_keeps_the_epoch_that_was_best_before(toy_faces, tmp_path, monkeypatch):
    step, worse = Classifier.training_step, dataclasses.replace(AUGMENTED, epochs=2, lr=0.02)

    def failing(self, batch, index):
        if self.current_epoch == 1:
            raise Stop
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", failing)
    with pytest.raises(Stop):
        train(toy_faces, worse, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")

    judge = Classifier.validation_step
    monkeypatch.setattr(Classifier, "training_step", step)
    monkeypatch.setattr(  # the second epoch seems to be worse
        Classifier,
        "validation_step",
        lambda self, batch, i: judge(self, (batch[0], 5 - batch[1], batch[2]), i),
    )
    first = torch.load(tmp_path / "there" / "best.ckpt", weights_only=True)["state_dict"]
    done = train(toy_faces, worse, tmp_path / "there", resume=True)
    assert done.history["val_accuracy"].is_monotonic_decreasing
    assert done.best["epoch"] == 1
    assert_same_weights(weights(done.model), {n.removeprefix("model."): v for n, v in first.items()})


@pytest.mark.parametrize(
    ("recipe", "stopped_in_step", "twice"),
    [(AUGMENTED, 0, False), (AUGMENTED, 4, False), (AVERAGED, 4, False), (AVERAGED, 4, True)],
)
def test_a_stopped_run_resumes_to_the_same_weights(
    toy_faces, tmp_path, monkeypatch, recipe, stopped_in_step, twice
):
    targets = asked_twice(toy_faces.split("train")) if twice else None
    straight = train(toy_faces, recipe, tmp_path / "straight", targets=targets)

    step = Classifier.training_step

    def failing(self, batch, index):
        if self.current_epoch == 2 and index == stopped_in_step:
            raise Stop
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", failing)
    with pytest.raises(Stop):
        train(toy_faces, recipe, tmp_path / "stopped", targets=targets)
    monkeypatch.setattr(Classifier, "training_step", step)
    resumed = train(toy_faces, recipe, tmp_path / "stopped", targets=targets, resume=True)

    assert_same_weights(weights(straight.model), weights(resumed.model))
    columns = ["epoch", "train_loss", "val_loss", "val_accuracy", "lr"]
    pd.testing.assert_frame_equal(straight.history[columns], resumed.history[columns])


def test_the_seed_decides(toy_faces, tmp_path):
    one = train(toy_faces, AUGMENTED, tmp_path / "1")
    again = train(toy_faces, AUGMENTED, tmp_path / "2")
    other = train(toy_faces, dataclasses.replace(AUGMENTED, seed=1), tmp_path / "3")
    assert_same_weights(weights(one.model), weights(again.model))
    assert not torch.equal(one.model.classifier.fc2.weight, other.model.classifier.fc2.weight)


def test_resuming_with_another_recipe_is_refused(toy_faces, tmp_path):
    short = dataclasses.replace(RECIPE, epochs=1)
    train(toy_faces, short, tmp_path)
    with pytest.raises(DataError, match=r"another recipe \(lr changed\)"):
        train(toy_faces, dataclasses.replace(short, lr=0.01), tmp_path, resume=True)


def test_starting_anew_forgets_the_old_run(toy_faces, tmp_path):
    train(toy_faces, RECIPE, tmp_path)
    done = train(toy_faces, dataclasses.replace(RECIPE, epochs=1), tmp_path)
    assert list(done.history["epoch"]) == [1]


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_optimisers_and_schedules(toy_faces, tmp_path, optimizer, schedule):
    recipe = dataclasses.replace(RECIPE, epochs=2, optimizer=optimizer, schedule=schedule, lr=0.01)
    rates = train(toy_faces, recipe, tmp_path).history["lr"].tolist()
    if schedule == "constant":
        assert rates == [0.01, 0.01]
    else:
        assert rates[1] < 1e-4 < rates[0] <= 0.01


def test_sgd_uses_nesterov_momentum_and_spares_biases_from_decay():
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


def test_the_average_of_the_weights_is_what_is_validated_and_kept(toy_faces, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1, schedule="constant", ema=0.5, batch_size=100)
    path = []
    step = Classifier.on_before_zero_grad  # called before each step, when the last one's weights are in place

    class Watched(Classifier):
        def on_before_zero_grad(self, optimizer):
            path.append(self.model.classifier.fc2.weight.detach().clone())
            return step(self, optimizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer_utils.training.Classifier", Watched)
        averaged = train(toy_faces, recipe, tmp_path / "average").model.classifier.fc2.weight
    plain = train(toy_faces, dataclasses.replace(recipe, ema=0.0), tmp_path / "plain")
    last = plain.model.classifier.fc2.weight
    expected = path[1]  # after the first step, where averaging starts
    for weights_then in [*path[2:], last]:
        expected = 0.5 * expected + 0.5 * weights_then
    torch.testing.assert_close(averaged, expected)
    assert not torch.allclose(averaged, last)


def mixed_batch():
    labels = torch.arange(8) % 6
    return torch.rand(8, 1, 64, 64), labels, torch.eye(6)[labels]


def test_mixup_trains_on_blends_of_images_and_labels():
    model, batch = small_net().eval(), mixed_batch()
    seen = []

    class Watched(Classifier):
        def forward(self, images):
            seen.append(images)
            return super().forward(images)

        def _log(self, *arguments):
            pass

    recipe = dataclasses.replace(RECIPE, mixup=1.0)
    torch.manual_seed(3)
    loss = Watched(model, recipe).training_step(batch, 0)
    torch.manual_seed(3)
    share = torch.distributions.Beta(1.0, 1.0).sample().item()
    share, other = max(share, 1 - share), torch.randperm(8)
    torch.testing.assert_close(seen[0], share * batch[0] + (1 - share) * batch[0][other])
    targets = share * batch[2] + (1 - share) * batch[2][other]
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(model(seen[0]), targets))


def test_a_fixed_number_of_batches_gives_any_set_the_same_budget(toy_faces, tmp_path):
    steps = []

    class Counted(Classifier):
        def training_step(self, batch, index):
            steps.append(len(batch[1]))
            return super().training_step(batch, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer_utils.training.Classifier", Counted)
        done = train(toy_faces, dataclasses.replace(RECIPE, batches=4), tmp_path)
    assert steps == [32] * 12
    assert done.history["lr"].iloc[-1] < 0.002, "the schedule must end with the last step"


def test_targets_take_the_place_of_labels(toy_faces, tmp_path):
    training = toy_faces.split("train")
    moved = np.eye(6, dtype=np.float32)[(training.labels + 1) % 6]
    recipe = dataclasses.replace(RECIPE, epochs=6, batch_size=25)
    done = train(toy_faces, recipe, tmp_path, targets=moved)
    validation = toy_faces.split("validation")
    told = predict(done.model, validation).argmax(1)
    assert np.mean(told == (validation.labels + 1) % 6) > 0.5
    with pytest.raises(ValueError, match="2 targets for 300 images"):
        train(toy_faces, recipe, tmp_path, targets=moved[:2])


def test_a_second_question_is_learnt_and_forgotten(toy_faces, tmp_path, monkeypatch):
    targets, wide = asked_twice(toy_faces.split("train")), {}
    wider = training._wider

    @contextmanager
    def watched(model, units):
        with wider(model, units) as answers:
            yield answers
            wide["logits"] = model.eval()(torch.tensor(toy_faces.images[:, None]).float() / 255).detach()

    monkeypatch.setattr(training, "_wider", watched)
    done = train(toy_faces, dataclasses.replace(RECIPE, epochs=6), tmp_path, targets=targets)
    assert wide["logits"].shape == (len(toy_faces), 13)
    second = wide["logits"][:, 6:].argmax(1).numpy()
    assert np.mean(second == toy_faces.labels + 1) > 0.8
    assert done.best["val_accuracy"] > 0.8
    last = done.model.classifier.fc2
    assert last.out_features == 6 and last.weight.shape == (6, 16) and last.bias.shape == (6,)
    images = torch.tensor(toy_faces.images[:, None]).float() / 255
    torch.testing.assert_close(done.model(images), wide["logits"][:, :6])


def test_a_training_that_fails_leaves_no_wider_layer_behind(toy_faces, tmp_path, monkeypatch):
    def failing(self, batch, index):
        assert self.model.classifier.fc2.out_features == 13
        raise KeyError("a broken batch")

    monkeypatch.setattr(training.Classifier, "training_step", failing)
    model, (learnt, kept) = small_net(), (toy_faces.split(name) for name in ("train", "validation"))
    with pytest.raises(KeyError, match="a broken batch"):
        fit(model, learnt, kept, RECIPE, tmp_path, targets=asked_twice(learnt), verbose=False)
    assert model.classifier.fc2.out_features == 6
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 6)


def test_the_loss_of_a_second_question_is_added_by_its_weight():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 9))
    asked = Classifier(model, dataclasses.replace(RECIPE, label_smoothing=0.1), answers=3)
    asked._log = lambda *_: None
    images, labels = torch.rand(5, 1, 2, 2), torch.arange(5)
    own = torch.eye(6)[labels]
    second = torch.rand(5, 3)
    second[0] = 0
    logits = model(images)
    expected = -(0.9 * own + 0.1 / 6).mul(logits[:, :6].log_softmax(1)).sum() / 5
    expected -= (second * logits[:, 6:].log_softmax(1)).sum() / 5
    loss = asked.training_step((images, labels, torch.hstack([own, second])), 0)
    torch.testing.assert_close(loss, expected)


def test_every_image_is_seen_once_an_epoch_in_another_order_each_epoch(toy_faces):
    data = FaceData(toy_faces.split("train"), toy_faces.split("validation"), RECIPE)
    loader = data.train_dataloader()
    orders = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        orders.append(torch.cat([images.flatten(1).sum(1) for images, *_ in loader]))
    assert len(orders[0]) == len(toy_faces.split("train"))
    assert not torch.equal(*orders)
    assert torch.equal(orders[0].sort().values, orders[1].sort().values)


def test_no_images_is_a_clear_error(toy_faces):
    nothing = toy_faces.where(toy_faces.index["source"].eq("jaffe").to_numpy())
    with pytest.raises(DataError, match="no training images"):
        FaceData(nothing, toy_faces.split("validation"), RECIPE)


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_is_not_given_back_between_steps():
    resource = pytest.importorskip("resource")

    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    keep_freed_memory()
    torch.ones(10_000_000)
    before = faults()
    for _ in range(5):
        torch.ones(10_000_000)  # 40 MB, some 9,800 pages
    assert faults() - before < 20_000, "given back, five times 9,800 pages would be asked for"


def test_a_recipe_survives_json():
    assert Recipe.from_dict(AUGMENTED.as_dict()) == AUGMENTED
    assert Recipe.from_dict(RECIPE.as_dict()) == RECIPE


def test_a_long_training_says_once_how_long_it_will_take(toy_faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training.Forecast, "WARM", 2)
    monkeypatch.setattr(training.Forecast, "STEPS", 2)
    ticks = iter(range(0, 10_000_000, 60))  # a minute goes by at every look at the clock
    monkeypatch.setattr(training.Forecast, "clock", lambda self: next(ticks))
    options = {"accelerator": "cpu", "verbose": True}
    faces = toy_faces.split("train"), toy_faces.split("validation")
    fit(small_net(), *faces, RECIPE, tmp_path, **options)
    # 300 images are 10 steps of 32 an epoch; after 4 of 30, two of which took a minute, 26 are left.
    assert capsys.readouterr().out.count("about 13 minutes to go on the processor") == 1
    monkeypatch.setattr(training.Forecast, "LONG", 3600.0)
    fit(small_net(), *faces, RECIPE, tmp_path, **options)
    assert "to go" not in capsys.readouterr().out
