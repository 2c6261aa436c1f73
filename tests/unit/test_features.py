"""The frozen part computed once: the same training, resumable, and never an old file for something new."""

import dataclasses
import json
import multiprocessing
import shutil
import signal
import time
from collections import namedtuple

import lightning as L
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_utils import cli, features, results, runs
from fer_utils.augment import Augment
from fer_utils.datasets.faceset import FaceSet
from fer_utils.errors import DataError
from fer_utils.evaluation import metrics, predict
from fer_utils.models import FaceNet
from fer_utils.training import Recipe, fit, make_optimizer
from fer_utils.weights import load_model
from fer_utils.workspace import Workspace

EASY = {"trunk": "easynet", "pretrained": "none", "trunk_width": 0.125, "head": [16], "freeze": 0.6}
MOBILE = {"trunk": "mobilenet_v1", "pretrained": "none", "trunk_width": 0.25, "head": [16], "input_size": 32}
RECIPE = Recipe(epochs=3, batch_size=32, lr=0.03, augment=None)
DRAWN = Augment(degrees=5, shift=0.03, scale=0.05)
# Trunk, frozen share, last layer of the frozen part and shape of its output at 64, 32, 80 and 32 pixels.
CUTS = {
    "easynet": (64, 0.5, "pool2/0", (24, 12, 12)),
    "mobilenet_v1": (32, 100 / 175, "block8/dw_relu", (128, 2, 2)),
    "inception_resnet_v1": (80, 0.5, "repeat_2/3/relu", (896, 3, 3)),
    "resnet50": (32, 100 / 175, "conv4_2", (1024, 2, 2)),
    "efficientnet_lite0": (32, 0.6, "block10", (112, 2, 2)),
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


def make(faces, root, model=None, **options):
    part = faces.split("train"), faces.split("validation")
    return features.cache(model or net(), *part, root, **{"verbose": False} | options)


def folders(root):
    return sorted(p.name for p in root.iterdir() if p.is_dir() and p.suffix != ".partial")


def assert_close(a, b, **tolerance):
    for name, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[name], msg=name, **tolerance)


@pytest.mark.parametrize("trunk", CUTS)
def test_the_parts_together_are_the_network(trunk):
    size, freeze, last, shape = CUTS[trunk]
    width = {"trunk_width": 0.25} if trunk in ("easynet", "mobilenet_v1") else {}
    torch.manual_seed(0)
    model = FaceNet(trunk, "none", freeze=freeze, head=[8], input_size=size, **width)
    frozen, trained = features.split(model)
    images = torch.rand(4, 1, 64, 64)
    for mode in (True, False):
        model.train(mode), trained.train(mode)
        with torch.no_grad():
            torch.manual_seed(1)
            middle = frozen(images)
            parts = trained(middle)
            torch.manual_seed(1)
            torch.testing.assert_close(parts, model(images), rtol=0, atol=0)
    assert middle.shape[1:] == shape
    assert frozen.last.startswith(last)
    # Everything that is trained is above, under its own name, and what is below is frozen.
    assert not any(p.requires_grad for p in frozen.parameters())
    above = dict(trained.named_parameters())
    for name, parameter in model.named_parameters():
        assert above.get(name) is parameter or not parameter.requires_grad, name
    held = {id(layer.module) for layer in model.frozen_layers}
    trained.train()
    assert not any(m.training for m in trained.modules() if id(m) in held)


def test_the_whole_trunk_frozen_leaves_the_head():
    frozen, trained = features.split(net(freeze=1.0))
    assert frozen.last == "pool/flatten" and len(trained.trunk) == 0
    assert frozen(torch.rand(2, 1, 64, 64)).shape == (2, 9 * 24)


@pytest.mark.parametrize("options", [{"freeze": 0}, {"freeze": 1}, {**MOBILE, "freeze": 0.0}])
def test_nothing_frozen_is_nothing_to_cache(options):
    with pytest.raises(ValueError, match="no whole layer or block is frozen"):
        features.split(FaceNet(**EASY | options))


@pytest.mark.parametrize(("dtype", "freeze"), [("float32", 0.6), ("float32", 1.0), ("float16", 0.6)])
def test_cached_training_is_the_same_training(toy_faces, tmp_path, freeze, dtype):
    """With dropout, clipping and a shuffled order, which must be those of training without a cache."""
    parts = toy_faces.split("train"), toy_faces.split("validation")
    options = {"accelerator": "cpu", "verbose": False}
    plain = fit(net(freeze=freeze), *parts, RECIPE, tmp_path / "plain", **options)
    model = net(freeze=freeze)
    cached = make(toy_faces, tmp_path / "features", model, dtype=dtype)
    assert cached.train[0].dtype == dtype and cached.about["dtype"] == dtype
    done = features.fit_cached(model, *parts, RECIPE, tmp_path / "cached", cached, **options)
    if dtype == "float32":
        assert_close(done.model, plain.model, rtol=1e-3, atol=1e-4)
    one, other = (torch.cat([p.flatten() for p in m.parameters()]) for m in (done.model, plain.model))
    assert (one - other).norm() < (1e-4 if dtype == "float32" else 0.05) * other.norm()
    assert done.model is model and not model.training
    columns = ["train_loss", "val_loss"]
    np.testing.assert_allclose(
        done.history[columns], plain.history[columns], atol=1e-4 if dtype == "float32" else 0.03
    )
    # The whole network scores what was validated during training.
    scores = metrics(parts[1].labels, predict(done.model, parts[1]))
    assert scores["accuracy"] == pytest.approx(done.best["val_accuracy"], abs=0.02)
    assert done.best["val_accuracy"] > 0.5


def test_a_second_question_goes_with_a_cache(toy_faces, tmp_path):
    parts = toy_faces.split("train"), toy_faces.split("validation")
    own = np.eye(6, dtype=np.float32)[parts[0].labels]
    model = net(freeze=0.5)
    cached = make(toy_faces, tmp_path / "features", model)
    done = features.fit_cached(
        model, *parts, RECIPE, tmp_path / "cached", cached, targets=np.hstack([own, own]), accelerator="cpu",
        verbose=False,
    )  # fmt: skip
    assert done.model is model and done.model.classifier[-1].out_features == 6
    assert done.model(torch.zeros(2, 1, 64, 64)).shape == (2, 6)
    alone = make(toy_faces, tmp_path / "features", net(freeze=0.5))
    plain = features.fit_cached(net(freeze=0.5), *parts, RECIPE, tmp_path / "plain", alone,
                                accelerator="cpu", verbose=False)  # fmt: skip
    assert done.history["train_loss"].iloc[0] > 1.5 * plain.history["train_loss"].iloc[0]


def test_views_are_what_augmentation_draws_and_the_first_is_plain(toy_faces, tmp_path):
    model = net()
    cached = make(toy_faces, tmp_path, model, views=3, augment=DRAWN, dtype="float32")
    frozen, _ = features.split(model)
    images = torch.from_numpy(toy_faces.split("train").take(np.arange(40))).unsqueeze(1).float() / 255
    with torch.no_grad():
        plain = frozen(images).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(cached.train[0][:40], plain, atol=1e-4)
    assert not np.allclose(cached.train[1][:40], plain, atol=1e-2)
    assert not np.allclose(cached.train[1], cached.train[2], atol=1e-2)
    held_out = torch.from_numpy(toy_faces.split("validation").take(np.arange(10))).unsqueeze(1).float() / 255
    with torch.no_grad():
        np.testing.assert_allclose(
            cached.validation[:10], frozen(held_out).permute(0, 2, 3, 1).numpy(), atol=1e-4
        )


def test_meta_says_what_the_features_are(toy_faces, tmp_path):
    cached = make(toy_faces, tmp_path, views=2, augment=DRAWN)
    metas = [
        json.loads((tmp_path / name / "meta.json").read_text(encoding="utf-8")) for name in folders(tmp_path)
    ]
    for meta in metas:
        assert {"weights", "faces", "pixels", "input_size", "trunk", "seconds", "torch"} <= meta.keys()
        assert meta["last_layer"] == cached.about["layer"] == "pool2/2" and meta["dtype"] == "float16"
    assert sorted((m["images"], m["view"]) for m in metas) == [(60, 0), (300, 0), (300, 1)]
    assert [m["augment"]["degrees"] for m in metas if "augment" in m] == [5]
    assert cached.about["bytes"] == sum(m["bytes"] for m in metas)


def test_two_views_can_be_the_image_and_its_mirror_image(toy_faces, tmp_path):
    model = net(freeze=1.0)
    mirror = Augment(flip=1, degrees=0, shift=0, scale=0)
    cached = make(toy_faces, tmp_path, model, views=2, augment=mirror, dtype="float32")
    images = torch.from_numpy(toy_faces.split("train").take(np.arange(40))).unsqueeze(1).float() / 255
    with torch.no_grad():
        expected = features.split(model)[0](images.flip(3)).numpy()
    np.testing.assert_allclose(cached.train[1][:40], expected, atol=1e-3)


def test_an_epoch_takes_each_image_once_and_all_views_in_turn(toy_faces, tmp_path):
    parts = toy_faces.split("train"), toy_faces.split("validation")
    cached = make(toy_faces, tmp_path, views=3, augment=DRAWN)
    data = features.FeatureData(*parts, RECIPE, cached)
    loader, seen = data.train_dataloader(), []
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        numbers, rows = np.divmod(list(loader.sampler), len(parts[0]))
        assert sorted(rows) == list(range(len(parts[0])))
        assert np.bincount(numbers, minlength=3).min() > len(parts[0]) / 5
        seen.append(numbers[np.argsort(rows)])
        for batch, labels, targets in loader:
            assert batch.dtype == torch.float16 and len(batch) == len(labels) == len(targets)
    assert (np.sort(np.stack(seen), 0) == np.arange(3)[:, None]).all()
    # Features and labels belong together, in the order that was asked for.
    batch, labels, _ = data.train_faces.__getitems__([5, len(parts[0]) + 7, 2])
    for k, (view, row) in enumerate([(0, 5), (1, 7), (0, 2)]):
        np.testing.assert_array_equal(batch[k].permute(1, 2, 0).numpy(), cached.train[view][row])
        assert labels[k] == parts[0].labels[row]
    assert batch.is_contiguous(memory_format=torch.channels_last)
    plain = torch.cat([b for b, _, _ in data.val_dataloader()]).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(plain, cached.validation)


def test_what_is_there_is_opened_and_more_views_are_added(toy_faces, tmp_path, monkeypatch, capsys):
    one = make(toy_faces, tmp_path, verbose=True)
    said = capsys.readouterr().out
    assert "computed once: 2 of 2 views are missing, 360 images to 12×12×12 numbers of float16" in said
    assert "GB in" in said and "minutes" in said
    assert make(toy_faces, tmp_path, verbose=True).about == one.about
    assert capsys.readouterr().out == ""
    make(toy_faces, tmp_path, views=2, augment=DRAWN, verbose=True)
    assert "1 of 3 views are missing, 300 images" in capsys.readouterr().out
    monkeypatch.setattr(features, "_compute", lambda *a: pytest.fail("computed again"))
    again = make(toy_faces, tmp_path, views=2, augment=DRAWN)
    np.testing.assert_array_equal(again.train[0], one.train[0])
    assert one.about["bytes"] == 360 * 12**3 * 2 and one.about["seconds"] > 0
    # The views are drawn from numbers of their own: nothing else notices.
    monkeypatch.undo()
    model = net()
    before = torch.get_rng_state()
    make(toy_faces, tmp_path / "anew", model, views=2, augment=DRAWN)
    assert torch.equal(torch.get_rng_state(), before)


class Stop(Exception):
    pass


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 64)


def stop(after, *arguments, **options):
    """Begin to compute views and stop after so many chunks."""
    chunk, calls = features._chunk, iter(range(after))

    def failing(*inputs):
        if next(calls, None) is None:
            raise Stop
        return chunk(*inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "_chunk", failing)
        with pytest.raises(Stop):
            make(*arguments, **options)


@pytest.mark.parametrize("stop_after", [0, 2, 7])
def test_a_stopped_computation_goes_on_to_the_same_bytes(
    toy_faces, tmp_path, monkeypatch, small_chunks, stop_after
):
    options = {"views": 2, "augment": DRAWN}
    straight = make(toy_faces, tmp_path / "straight", **options)
    chunk, done = features._chunk, []
    stop(stop_after, toy_faces, tmp_path / "stopped", **options)
    monkeypatch.setattr(features, "_chunk", lambda *a: done.append(a) or chunk(*a))
    resumed = make(toy_faces, tmp_path / "stopped", **options)
    assert len(done) == 11 - stop_after  # 5 chunks a view of 300 images, and one of the 60 for validation
    assert folders(tmp_path / "stopped") == folders(tmp_path / "straight")
    for name in folders(tmp_path / "straight"):
        files = [tmp_path / kind / name / "features.npy" for kind in ("straight", "stopped")]
        assert files[0].read_bytes() == files[1].read_bytes()
    np.testing.assert_array_equal(resumed.validation, straight.validation)
    assert not list((tmp_path / "stopped").glob("*.partial"))


def start(faces, root, pause=0.0):
    """Compute the views in a process of its own, 16 images at a time."""

    def work():
        torch.set_num_threads(1)  # a forked process has no other threads
        features.CHUNK, chunk = 16, features._chunk

        def slow(*arguments):
            time.sleep(pause)
            with (root / "chunks.log").open("a") as log:
                log.write("one\n")
            return chunk(*arguments)

        features._chunk = slow
        make(faces, root)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def ended(process):
    process.join(60)
    return process.exitcode


def test_a_killed_process_leaves_what_the_next_one_goes_on_from(toy_faces, tmp_path):
    killed, deadline = start(toy_faces, tmp_path / "killed", 0.1), time.monotonic() + 60
    while not (notes := list(tmp_path.glob("killed/*.partial/progress.json"))):
        assert time.monotonic() < deadline and killed.is_alive()
        time.sleep(0.02)
    killed.kill()
    assert ended(killed) == -signal.SIGKILL
    done = json.loads(notes[0].read_text(encoding="utf-8"))["chunks"]
    assert 1 <= done < 19 and not folders(tmp_path / "killed")
    assert ended(start(toy_faces, tmp_path / "killed")) == 0
    assert ended(start(toy_faces, tmp_path / "straight")) == 0
    assert folders(tmp_path / "killed") == folders(tmp_path / "straight")
    for name in folders(tmp_path / "straight"):
        files = [tmp_path / kind / name / "features.npy" for kind in ("straight", "killed")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_processes_that_ask_at_once_share_one_computation(toy_faces, tmp_path):
    both = [start(toy_faces, tmp_path, 0.01) for _ in range(2)]
    assert [ended(process) for process in both] == [0, 0]
    assert len(folders(tmp_path)) == 2 and not list(tmp_path.glob("*.partial"))
    # Once for both: whoever came second neither computed a chunk nor touched what the first had made.
    assert len((tmp_path / "chunks.log").read_text().splitlines()) == -(-300 // 16) + -(-60 // 16)
    made = make(toy_faces, tmp_path)
    straight = make(toy_faces, tmp_path / "straight")
    np.testing.assert_allclose(made.train[0], straight.train[0], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(made.validation, straight.validation, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("damage", ["features.npy cut", "features.npy gone", "meta.json gone"])
def test_a_damaged_view_is_computed_again(toy_faces, tmp_path, damage):
    before = make(toy_faces, tmp_path).validation.copy()
    name, kind = damage.split()
    for folder in tmp_path.iterdir():
        if folder.is_dir():
            content = (folder / name).read_bytes()
            (folder / name).unlink() if kind == "gone" else (folder / name).write_bytes(content[:-100])
    np.testing.assert_array_equal(make(toy_faces, tmp_path).validation, before)


@pytest.mark.parametrize("damage", ["features.npy", "progress.json"])
def test_a_damaged_beginning_is_begun_again(toy_faces, tmp_path, small_chunks, damage):
    straight = make(toy_faces, tmp_path / "straight")
    stop(3, toy_faces, tmp_path / "stopped")
    (partial,) = (tmp_path / "stopped").glob("*.partial")
    (partial / damage).write_bytes(b"{")
    np.testing.assert_array_equal(make(toy_faces, tmp_path / "stopped").train[0], straight.train[0])


def test_a_note_of_what_is_gone_does_not_outlive_a_second_stop(toy_faces, tmp_path, small_chunks):
    straight = make(toy_faces, tmp_path / "straight")
    stop(3, toy_faces, tmp_path / "stopped")
    (partial,) = (tmp_path / "stopped").glob("*.partial")
    (partial / "features.npy").unlink()
    stop(0, toy_faces, tmp_path / "stopped")
    np.testing.assert_array_equal(make(toy_faces, tmp_path / "stopped").train[0], straight.train[0])


def test_anything_else_has_another_key(toy_faces, tmp_path):
    """Weights, pixels, manifest, choice of images, cut, size, views and precision: never an old file."""
    known = set()

    def new(faces=toy_faces, model=None, **options):
        parts = faces.split("train"), faces.split("validation")
        options = {"views": 2, "augment": DRAWN} | options
        found = {view.key for view in features.plan(model or net(), *parts, tmp_path, **options)} - known
        known.update(found)
        return len(found)

    assert new() == 3
    assert new() == 0
    changed = net()
    with torch.no_grad():
        changed.trunk.conv1.weight[0, 0, 0, 0] += 1e-6
    assert new(model=changed) == 3
    normalised = net()
    normalised.trunk.pool1[1].running_var[0] += 1e-3
    assert new(model=normalised) == 3
    assert new(model=net(freeze=0.4)) == 3
    assert new(model=net(input_size=80)) == 3
    assert new(dtype="float32") == 3
    assert new(augment=dataclasses.replace(DRAWN, degrees=6)) == 1  # plain views stay
    assert new(views=3) == 1
    # What is trained above does not matter.
    above = net(head=[8])
    above.trunk.load_state_dict(net().trunk.state_dict())
    above.classifier.fc1.weight.data += 1
    assert new(model=above) == 0

    mask = np.arange(len(toy_faces)) != 4
    assert new(toy_faces.where(mask)) == 2  # one training image fewer: its two views
    copy = tmp_path / "copy"
    shutil.copytree(toy_faces.path, copy)
    assert new(FaceSet.open(copy)) == 0  # the same faces elsewhere
    images = np.load(copy / "images.npy")
    images[3, 10, 10] ^= 1
    np.save(copy / "images.npy", images)
    assert new(FaceSet.open(copy)) == 2  # behind the manifest's back
    shutil.copy(toy_faces.path / "images.npy", copy / "images.npy")
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    (copy / "manifest.json").write_text(json.dumps(manifest | {"seed": 1}), encoding="utf-8")
    assert new(FaceSet.open(copy)) == 3
    # Labels are read from the faces, not from the cache.
    relabelled = toy_faces.relabelled(np.zeros(len(toy_faces)))
    assert new(relabelled) == 0


INGREDIENTS = st.dictionaries(
    st.sampled_from(["weights", "pixels", "view", "input_size", "augment"]),
    st.none() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
)


@given(INGREDIENTS, INGREDIENTS)
@settings(deadline=None)
def test_keys_are_equal_exactly_when_ingredients_are(one, other):
    def key(ingredients):
        return features.View(None, None, ingredients, (1,), None).key

    assert key(one) == key(dict(reversed(one.items())))
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (key(one) == key(other)) == same


def test_too_little_room_is_told_before_anything_is_written(toy_faces, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    needed = 360 * 12**3 * 2
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage(0, 0, needed + features.RESERVE - 1))
    with pytest.raises(DataError, match=r"features need 0\.00 GB .* but 0\.50 GB are free.*fewer views"):
        make(toy_faces, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage(0, 0, needed + features.RESERVE))
    make(toy_faces, tmp_path)
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage(0, 0, 0))
    make(toy_faces, tmp_path)  # what is there needs no room


def test_room_that_was_taken_before_a_stop_is_not_asked_for_again(
    toy_faces, tmp_path, monkeypatch, small_chunks
):
    stop(0, toy_faces, tmp_path)  # all room taken, no chunk computed
    (partial,) = tmp_path.glob("*.partial")
    taken = (partial / "features.npy").stat().st_size
    usage = namedtuple("usage", "total used free")
    needed = 360 * 12**3 * 2 - taken + 4096  # a page, for the file's header
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: usage(0, 0, needed + features.RESERVE))
    assert make(toy_faces, tmp_path).train[0].any()


def test_a_disk_that_fills_up_is_told(toy_faces, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(features.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(features.os, "posix_fallocate", full)
    with pytest.raises(DataError, match="there is no room for"):
        make(toy_faces, tmp_path)
    assert not list(tmp_path.glob("*.partial"))
    monkeypatch.delattr(features.os, "posix_fallocate")
    make(toy_faces, tmp_path)


def test_what_half_precision_cannot_hold_is_refused(toy_faces, tmp_path):
    large = net()
    with torch.no_grad():
        large.trunk.pool1[1].weight *= 1e6
    with pytest.raises(DataError, match=r"leave the range of half precision.*--cache-dtype float32"):
        make(toy_faces, tmp_path, large)
    assert not list(tmp_path.glob("*.partial"))
    large = net()
    with torch.no_grad():
        large.trunk.pool1[1].weight *= 1e6
    assert np.isfinite(make(toy_faces, tmp_path, large, dtype="float32").validation).all()
    broken = net()
    with torch.no_grad():
        broken.trunk.conv1.weight[0] = float("nan")
    with pytest.raises(DataError, match=r"not finite.*check the weights"):
        make(toy_faces, tmp_path, broken, dtype="float32")


def test_what_makes_no_sense_is_refused(toy_faces, tmp_path):
    with pytest.raises(ValueError, match="at least 1"):
        make(toy_faces, tmp_path, views=0)
    with pytest.raises(ValueError, match="without augmentation all are alike"):
        make(toy_faces, tmp_path, views=2)
    with pytest.raises(DataError, match="no training images"):
        make(toy_faces.where(np.zeros(len(toy_faces), bool)), tmp_path)
    cached = make(toy_faces, tmp_path)
    parts = toy_faces.split("train"), toy_faces.split("validation")
    with pytest.raises(ValueError, match="mixup blends images"):
        features.fit_cached(net(), *parts, dataclasses.replace(RECIPE, mixup=0.2), tmp_path, cached)
    with pytest.raises(ValueError, match=r"features of \[300\] images for 60 faces"):
        features.FeatureData(parts[1], parts[1], RECIPE, cached)


@pytest.fixture
def space(toy_faces, tmp_path):
    (tmp_path / "faceset").symlink_to(toy_faces.path)
    return Workspace("demo", tmp_path, tmp_path, tmp_path / "results")


def run(space, **options):
    changes = {"epochs": 2, "lr": 0.03, "augment.degrees": 2}
    settings = {"recipe_changes": changes, "model_options": {**EASY, "dropout": 0.1}, "verbose": False}
    return runs.train(space, "facenet", **settings | options)


def test_a_cached_run_is_a_run_like_any_other(space, toy_faces):
    done = run(space, cached=2)
    folder = space.runs / "facenet-seed0"
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert about["cached"] == {"views": 2, "dtype": "float16"}
    model = load_model(folder / "model.safetensors")
    assert isinstance(model, FaceNet)
    half = {name: v.half().float() if v.ndim > 1 else v for name, v in done.model.state_dict().items()}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, half[name], rtol=0, atol=0)
    result = results.read(runs.evaluate(space, "facenet-seed0"))
    assert result["validation"]["fer2013"]["accuracy"] == pytest.approx(done.best["val_accuracy"], abs=0.03)
    assert result["cached"]["views"] == 2 and result["cached"]["seconds"] > 0
    assert result["cached"]["bytes"] == sum(
        (folder / "features.npy").stat().st_size - 128
        for folder in (space.build / "features").iterdir()
        if folder.is_dir()
    )
    with pytest.raises(DataError, match="cached changed"):
        run(space, resume=True)
    with pytest.raises(DataError, match="cached changed"):
        run(space, cached=3, resume=True)


def test_a_stopped_cached_run_resumes_to_the_same_weights(space, monkeypatch):
    straight = run(space, cached=2, name="straight")
    step = features.FeatureData.on_after_batch_transfer

    def failing(self, batch, index):
        if self.trainer.current_epoch == 1 and not self.trainer.training:
            raise Stop
        return step(self, batch, index)

    monkeypatch.setattr(features.FeatureData, "on_after_batch_transfer", failing)
    with pytest.raises(Stop):
        run(space, cached=2, name="stopped")
    monkeypatch.undo()
    resumed = run(space, cached=2, name="stopped", resume=True)
    assert_close(resumed.model, straight.model, rtol=0, atol=0)
    # Computed anew, in another time, the features give the very same file of weights.
    before = (resumed.folder / "model.safetensors").read_bytes()
    shutil.rmtree(space.build / "features")
    again = run(space, cached=2, name="stopped")
    assert (again.folder / "model.safetensors").read_bytes() == before
    columns = ["epoch", "train_loss", "val_loss", "val_accuracy", "lr"]
    pd.testing.assert_frame_equal(straight.history[columns], resumed.history[columns])


def test_teachers_and_averages_go_with_a_cache(space):
    run(space, name="teacher")
    changes = {"epochs": 2, "lr": 0.03, "ema": 0.9, "lr_decay": 0.5}
    done = run(space, cached=2, name="pupil", teachers=["teacher"], recipe_changes=changes)
    assert len(done.history) == 2


def test_a_cache_is_for_what_has_a_frozen_part(space):
    with pytest.raises(ValueError, match="only facenet"):
        runs.train(space, "easynet", cached=2, verbose=False)
    with pytest.raises(ValueError, match="no whole layer"):
        run(space, cached=2, model_options=EASY | {"freeze": 0})
    with pytest.raises(ValueError, match="mixup blends images"):
        run(space, cached=2, recipe_changes={"mixup": 0.2})
    with pytest.raises(ValueError, match="at least 1"):
        run(space, cached=0)


@pytest.mark.parametrize(
    ("arguments", "views", "dtype"),
    [
        ([], None, "float16"),
        (["--cache"], 8, "float16"),
        (["--cache", "3", "--cache-dtype", "float32"], 3, "float32"),
    ],
)
def test_the_command_asks_for_views(monkeypatch, arguments, views, dtype):
    asked = {}

    def train(space, network, **options):
        asked.update(options)
        raise DataError("enough")

    monkeypatch.setattr(runs, "train", train)
    assert cli.main(["train", "facenet", *arguments]) == 1
    assert (asked["cached"], asked["cache_dtype"]) == (views, dtype)


def test_a_run_from_before_a_field_was_added_resumes(toy_faces, tmp_path):
    parts, recipe = (
        (toy_faces.split("train"), toy_faces.split("validation")),
        dataclasses.replace(RECIPE, epochs=1),
    )
    fit(net(), *parts, recipe, tmp_path, verbose=False)
    old = {name: value for name, value in recipe.as_dict().items() if name != "lr_decay"}
    (tmp_path / "recipe.json").write_text(json.dumps(old), encoding="utf-8")
    with pytest.raises(DataError, match=r"\(lr_decay changed\)"):
        fit(net(), *parts, dataclasses.replace(recipe, lr_decay=0.5), tmp_path, verbose=False, resume=True)
    assert len(fit(net(), *parts, recipe, tmp_path, verbose=False, resume=True).history) == 1


def rates(model, recipe):
    """Learning rate of each parameter that is trained, by its name."""
    found = {id(p): g["lr"] for g in make_optimizer(model, recipe).param_groups for p in g["params"]}
    return {name: found[id(p)] for name, p in model.named_parameters() if p.requires_grad}


def test_rates_fall_with_depth_from_the_head_down():
    model = FaceNet(**MOBILE, freeze=0.5)
    by_name = rates(model, dataclasses.replace(RECIPE, lr=0.1, lr_decay=0.5))
    depth = {"classifier": 0} | {f"trunk.block{13 - i}": i + 1 for i in range(13)} | {"trunk.conv1": 14}
    assert {name.rsplit(".", 2)[0] for name in by_name} >= {"trunk.block13", "trunk.block8", "classifier"}
    for name, rate in by_name.items():
        block = "classifier" if name.startswith("classifier") else ".".join(name.split(".")[:2])
        assert rate == pytest.approx(0.1 * 0.5 ** depth[block]), name
    # The part above the cut has the same rates, and with one rate for all, two groups are left.
    assert rates(features.split(model)[1], dataclasses.replace(RECIPE, lr=0.1, lr_decay=0.5)) == by_name
    assert set(rates(model, dataclasses.replace(RECIPE, lr=0.1)).values()) == {0.1}
    assert len(make_optimizer(model, RECIPE).param_groups) == 2
    groups = make_optimizer(model, dataclasses.replace(RECIPE, lr_decay=0.5)).param_groups
    assert groups[0]["lr"] == RECIPE.lr and [g["lr"] for g in groups] == sorted(
        (g["lr"] for g in groups), reverse=True
    )
    assert {p.ndim > 1 for g in groups if g["weight_decay"] for p in g["params"]} == {True}
    assert {p.ndim > 1 for g in groups if not g["weight_decay"] for p in g["params"]} == {False}


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "constant"])
def test_schedules_keep_the_proportions(toy_faces, tmp_path, monkeypatch, schedule):
    seen = []

    def note(self, trainer, *_):
        seen.append([g["lr"] for g in trainer.optimizers[0].param_groups])

    monkeypatch.setattr("fer_utils.training.History.on_train_batch_end", note, raising=False)
    recipe = dataclasses.replace(RECIPE, epochs=1, batch_size=25, lr=0.1, lr_decay=0.5, schedule=schedule)
    model = net(freeze=0)
    done = fit(
        model, toy_faces.split("train"), toy_faces.split("validation"), recipe, tmp_path, verbose=False
    )
    seen = np.array(seen)
    assert seen.shape[0] == 12 and seen.shape[1] >= 8
    expected = [g["lr"] for g in make_optimizer(model, recipe).param_groups]
    np.testing.assert_allclose(seen, seen[:, :1] * np.divide(expected, 0.1), rtol=1e-6)
    assert seen[:, 0].max() == pytest.approx(0.1, rel=0.1)
    assert done.history["lr"].max() <= 0.1


@pytest.mark.parametrize(("decay", "says"), [(0.0, "above 0"), (1.5, "at most 1"), (-1.0, "above 0")])
def test_a_decay_that_makes_no_sense_is_refused(decay, says):
    with pytest.raises(ValueError, match=says):
        make_optimizer(net(), dataclasses.replace(RECIPE, lr_decay=decay))


def test_depth_must_be_known():
    with pytest.raises(ValueError, match="does not tell its depths"):
        make_optimizer(torch.nn.Linear(2, 2), dataclasses.replace(RECIPE, lr_decay=0.9))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_fused_form_takes_the_same_steps(optimizer):
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer)
    models = []
    for fused in (True, False):
        torch.manual_seed(0)
        models.append(torch.nn.Linear(8, 6))
        step = make_optimizer(models[-1], recipe, fused=fused)
        for _ in range(10):
            step.zero_grad()
            models[-1](torch.rand(16, 8)).square().mean().backward()
            step.step()
    assert_close(*models, rtol=1e-4, atol=1e-6)
