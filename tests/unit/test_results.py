"""Results files: complete, validated, whole or not at all; scores in every variant of the protocol."""

import copy
import hashlib
import json
import subprocess

import lightning as L
import numpy as np
import pandas as pd
import pytest

from fer_utils import results
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import metrics, predict
from fer_utils.files import sha256
from fer_utils.models import EasyNet
from fer_utils.training import Recipe

HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2],
        "train_loss": [1.8, 1.5],
        "train_accuracy": [0.2, 0.3],
        "val_loss": [1.7, 1.6],
        "val_accuracy": [0.2, 0.35],
        "lr": [0.05, 0.01],
        "seconds": [2.04, 1.0],
        "images_per_second": [100.0, 300.0],
    }
)
ABOUT = {"network": "easynet", "sources": None, "revision": "0123456789ab"}


@pytest.fixture(scope="module")
def model():
    L.seed_everything(0, verbose=False)
    return EasyNet(widths=(2, 2, 2), hidden=4).eval()


@pytest.fixture(scope="module")
def sound(model, toy_faces, tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp("run") / "model.safetensors"
    checkpoint.write_bytes(b"weights")
    described = results.describe_run(
        "easynet-seed0", "full", model, ABOUT, Recipe().as_dict(), HISTORY, toy_faces, checkpoint
    )
    return described | {"validation": results.evaluate(model, toy_faces, "validation")[0]}


def test_a_run_is_described_whole(sound, model, toy_faces):
    assert sound["recipe"]["seed"] == 0 and sound["profile"] == "full"
    assert sound["model"]["name"] == "easynet" and sound["model"]["options"] == model.options
    assert sound["model"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert sound["data"]["faceset"] == sha256(toy_faces.path / "manifest.json")
    assert sound["data"]["splits"] == {"train/fer2013": 300, "validation/fer2013": 60, "test/fer2013": 60}
    assert sound["data"]["trained_on"] == ["fer2013"] and sound["revision"] == ABOUT["revision"]
    assert sound["training_seconds"] == 3.0 and sound["images_per_second"] == 200.0
    assert sound["checkpoint"] == hashlib.sha256(b"weights").hexdigest()
    assert [row["epoch"] for row in sound["learning_curve"]] == [1, 2]
    assert {"torch", "lightning"} <= sound["packages"].keys() and sound["processor"]


def test_frozen_parameters_are_not_counted_as_trained(toy_faces, tmp_path):
    model = EasyNet(widths=(2, 2, 2), hidden=4)
    model.features.requires_grad_(False)
    (tmp_path / "weights").write_bytes(b"")
    only = ABOUT | {"sources": ["jaffe"]}
    said = results.describe_run("x", "demo", model, only, {}, HISTORY, toy_faces, tmp_path / "weights")
    counted = sum(p.numel() for p in model.classifier.parameters())
    assert said["model"]["trained_parameters"] == counted < said["model"]["parameters"]
    assert said["data"]["trained_on"] == ["jaffe"]


def test_what_is_written_is_read_again(sound, tmp_path):
    path = tmp_path / "new" / "easynet-seed0.json"
    results.write(sound, path)
    assert results.read(path) == json.loads(json.dumps(sound))
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_all_results_come_in_the_order_of_their_names(sound, tmp_path):
    for seed in (2, 0, 1):
        results.write(sound | {"name": f"easynet-seed{seed}"}, tmp_path / f"easynet-seed{seed}.json")
    results.write(sound | {"name": "emonet"}, tmp_path / "emonet.json")
    found = results.read_all(tmp_path, "easynet-*.json")
    assert [r["name"] for r in found] == ["easynet-seed0", "easynet-seed1", "easynet-seed2"]
    assert len(results.read_all(tmp_path)) == 4
    assert results.read_all(tmp_path / "nowhere") == []


@pytest.mark.parametrize("field", results.SCHEMA["required"])
def test_a_missing_field_is_named(sound, field, tmp_path):
    broken = {key: value for key, value in sound.items() if key != field}
    with pytest.raises(DataError, match=f"'{field}' is a required property"):
        results.validate(broken, tmp_path / "r.json")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("format",), 2),
        (("profile",), "real"),
        (("model",), {"name": "easynet"}),
        (("recipe",), {}),
        (("learning_curve",), []),
        (("validation", "fer2013", "accuracy"), 68.9),
        (("validation", "fer2013", "accuracy_interval"), [0.1]),
        (("validation", "fer2013", "images"), 0),
        (("validation", "fer2013", "confusion"), [[1]]),
    ],
)
def test_a_wrong_value_is_refused_and_nothing_is_written(sound, path, value, tmp_path):
    broken = copy.deepcopy(sound)
    *way, last = path
    place = broken
    for key in way:
        place = place[key]
    place[last] = value
    file = tmp_path / "r.json"
    with pytest.raises(DataError, match=r"no results file of format 1: \$\.") as caught:
        results.write(broken, file)
    assert caught.value.file == file and "fer evaluate" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_read_are_clear_errors(tmp_path):
    with pytest.raises(DataError, match="no such results file"):
        results.read(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"format": 1,', encoding="utf-8")
    with pytest.raises(DataError, match="not JSON") as caught:
        results.read(tmp_path / "half.json")
    assert "delete it" in caught.value.remedy
    with pytest.raises(DataError, match=r"half\.json"):
        results.read_all(tmp_path)


def test_every_variant_is_scored(model, toy_faces):
    index = toy_faces.index.copy()
    test = np.flatnonzero(index["split"] == "test")
    index.loc[test[:12], "seen_copy"] = True
    index.loc[test[40:], "source"] = "jaffe"
    faces = FaceSet(toy_faces.path, toy_faces.images, index, toy_faces.manifest, np.arange(len(toy_faces)))
    scores, answers = results.evaluate(model, faces, "test")
    jaffe = ["jaffe", "jaffe+flip", "jaffe+ten-crop"]
    assert list(scores) == ["fer2013", "fer2013+flip", "fer2013+ten-crop", "fer2013-deduplicated", *jaffe]
    assert [s["images"] for s in scores.values()] == [40, 40, 40, 28, 20, 20, 20]
    part = faces.split("test", "fer2013")
    assert scores["fer2013"] == metrics(part.labels, predict(model, part))
    assert scores["fer2013+flip"] == metrics(part.labels, predict(model, part, flip=True))
    cropped = metrics(part.labels, predict(model, part, ten_crop=True))
    assert scores["fer2013+ten-crop"]["confusion"] == cropped["confusion"]
    fresh = part.where(~part.index["seen_copy"].to_numpy())
    again = metrics(fresh.labels, predict(model, fresh))
    assert scores["fer2013-deduplicated"]["confusion"] == again["confusion"]
    assert set(results.evaluate(model, faces, "validation")[0]) == {"fer2013", "fer2013+flip"}
    own = answers[answers["source"] == "fer2013"]
    assert own["origin"].tolist() == part.index["origin"].tolist()
    for kind, flip in (("p", False), ("flip", True)):
        probabilities = own[[f"{kind}_{c}" for c in CLASSES]].to_numpy()
        np.testing.assert_allclose(probabilities, predict(model, part, flip=flip), atol=1e-6)


def test_a_spread_over_seeds():
    spread = results.summarise([0.6, 0.7, 0.8])
    assert spread["mean"] == pytest.approx(0.7) and spread["std"] == pytest.approx(0.1)
    assert spread["seeds"] == 3
    assert np.isnan(results.summarise([0.6])["std"])


def test_the_revision_is_a_commit_or_unknown(monkeypatch):
    assert results.revision() == "unknown" or len(results.revision().removesuffix("+changes")) == 12

    def fails(*arguments, **options):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", fails)
    assert results.revision() == "unknown"
