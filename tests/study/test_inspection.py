"""What a network looks at, how confident it is, what throws it off: each measure finds what was planted."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from fer_utils.datasets.faceset import FaceSet
from fer_utils.demo.layouts import demo_faces
from fer_utils.detector import Detector
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.experiment import Workspace
from fer_utils.faces import resize
from fer_utils.models import EasyNet, EmoNet, FaceNet
from fer_utils.training import Recipe, fit
from fer_utils.weights import save_checkpoint
from reading_faces.study import inspection
from reading_faces.study.store import read_report

OPTIONS = {"widths": [8, 8, 16], "hidden": 16, "dropout": 0.0, "stride": 2, "image_size": 64}
FACES = resize(demo_faces([CLASSES[k % 6] for k in range(24)], seed=8_000))


@pytest.fixture(scope="module")
def toy(toy_faces, tmp_path_factory):
    """A small EasyNet that reads the place of the toy faces' bars."""
    torch.manual_seed(0)
    recipe = Recipe(epochs=5, batch_size=30, lr=0.05, augment=None)
    parts = toy_faces.split("train"), toy_faces.split("validation")
    return fit(EasyNet(**OPTIONS), *parts, recipe, tmp_path_factory.mktemp("run"), verbose=False).model


@pytest.fixture(scope="module")
def held_out(toy_faces):
    return toy_faces.split("validation").images, toy_faces.split("validation").labels


# Saliency and occlusion


def test_regions_share_out_the_face_and_hold_its_parts():
    masks = inspection.region_masks()
    assert (np.sum(list(masks.values()), axis=0) == 1).all()
    similar = [masks[name].mean() for name in ("brows", "eyes", "mouth", "cheeks")]
    assert max(similar) / min(similar) < 1.1  # so that their effects can be compared
    mean = FACES.mean(0)
    eyes = mean[10:34, [*range(16, 26), *range(38, 48)]].mean(1)
    assert 20 <= 10 + eyes.argmin() < 30  # the darkest row
    assert 0 < mean[44:56, 26:38].mean(1).argmin() < 11  # the lips: a valley within the box


def test_hiding_the_bar_hurts_and_hiding_something_else_does_not(toy, held_out):
    table = pd.DataFrame(inspection.regions(toy, *held_out)).set_index(["region", "label"])
    # The bar of the third class lies in rows 21 to 29, columns 11 to 53: where a face has its eyes.
    eyes, cheeks = table.loc[("eyes", CLASSES[2])], table.loc[("cheeks", CLASSES[2])]
    assert eyes["accuracy_low"] > 0.5 and eyes["probability_low"] > 0.3
    assert abs(cheeks["accuracy"]) < 0.1 and abs(cheeks["probability"]) < 0.15
    assert (table["probability"] <= table["probability_high"] + 1e-9).all()
    assert table.loc[("eyes", "all"), "images"] == len(held_out[1])


def test_saliency_finds_the_bar(toy, held_out):
    maps = inspection.saliency(toy, *held_out)
    assert maps["layer"] == "conv3" and maps["grids"].shape == (6, 7, 7)
    assert np.allclose(maps["grids"].sum((1, 2)), 1)
    top, bottom = maps["extent"][2:]
    rows = (maps["grids"].sum(2) * (top + (np.arange(7) + 0.5) * (bottom - top) / 7)).sum(1)
    bars = (8 * np.arange(6) + 3) * 64 / 48  # of the toy faces, enlarged to 64
    assert np.abs(rows - bars).max() < 16 and np.corrcoef(rows, bars)[0, 1] > 0.95


def test_saliency_leaves_wrong_answers_out(toy, held_out):
    images, labels = held_out
    maps = inspection.saliency(toy, images, (labels + 1) % 6)
    assert maps["images"].sum() == (predict(toy, images).argmax(1) == (labels + 1) % 6).sum()
    assert np.isnan(maps["grids"][maps["images"] == 0]).all()


NETWORKS = {
    "easynet": lambda: EasyNet(widths=(8, 8, 8)),
    "easynet of the demo": lambda: EasyNet(widths=(8, 8, 8), stride=2, image_size=64),
    "emonet": lambda: EmoNet(width=0.1),
    "mobilenet": lambda: FaceNet(pretrained="none", trunk_width=0.25, head=[8]),
    "easynet trunk": lambda: FaceNet("easynet", pretrained="none", trunk_width=0.25, head=[8]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_extent_is_where_the_cells_look(name):
    """The pixels that move a cell lie around the place that the extent gives it."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    layer, (left, right, top, bottom), shape = inspection.last_map(model)
    outputs = []
    model.get_submodule(layer).register_forward_hook(lambda _, inputs, output: outputs.append(output))
    images = torch.rand(16, 1, 64, 64, requires_grad=True)
    model(images)
    cell = (right - left) / shape[1]
    middle = round((32 - left) / cell - 0.5)  # the cell nearest to the middle, which sees least of the border
    (slopes,) = torch.autograd.grad(outputs[0][:, :, middle, middle].sum(), images)
    weights, places = slopes.abs().sum((0, 1)), torch.arange(64) + 0.5
    seen = [float((weights.sum(k) * places).sum() / weights.sum()) for k in (0, 1)]  # column, row
    stated = left + (middle + 0.5) * cell, top + (middle + 0.5) * (bottom - top) / shape[0]
    assert np.abs(np.array(seen) - stated).max() < 0.3 * cell


# Corrupted images and images out of the distribution


@pytest.mark.parametrize("name", inspection.CORRUPTIONS)
def test_corruptions_stay_images_and_get_worse(name):
    changes = []
    for severity in range(6):
        worse = inspection.corrupt(FACES[:6], name, severity)
        assert worse.dtype == np.uint8 and worse.shape == (6, 64, 64)
        assert (worse == inspection.corrupt(FACES[:6], name, severity)).all()
        changes.append(np.abs(worse.astype(float) - FACES[:6]).mean())
    assert changes[0] == 0 and (np.diff(changes) > 0).all()


def test_corruptions_do_what_their_levels_say():
    grey = np.random.default_rng(0).integers(118, 138, (40, 64, 64), dtype=np.uint8)
    change = {name: inspection.corrupt(grey, name, 3).astype(float) - grey for name in inspection.CORRUPTIONS}
    assert set(change["brightness"].mean((1, 2)).tolist()) == {-75.0, 75.0}
    assert change["noise"].std() == pytest.approx(32, rel=0.03)
    shrunk = inspection.corrupt(grey, "contrast", 3).std((1, 2)) / grey.std((1, 2))
    assert shrunk.mean() == pytest.approx(0.25, rel=0.05)
    assert (change["occlusion"] != 0).mean() == pytest.approx(0.2, abs=0.02)
    dot = np.zeros((30, 64, 64), np.uint8)
    dot[:, 31:33, 54:58] = 255
    turned = inspection.corrupt(dot, "rotation", 3)  # by 30 degrees, some to the left and some to the right
    rows = (turned.sum(2) * np.arange(64)).sum(1) / turned.sum((1, 2)) - 31.5
    assert np.allclose(np.abs(rows), 24 * math.sin(math.radians(30)), atol=0.7)
    assert (rows > 0).any() and (rows < 0).any()


def test_robustness_is_lost_where_the_bar_is_lost(toy, held_out):
    table = pd.DataFrame(inspection.robustness(toy, *held_out))
    assert len(table) == 36 and (table["low"] <= table["accuracy"]).all()
    plain = np.mean(predict(toy, held_out[0]).argmax(1) == held_out[1])
    assert (table.query("severity == 0")["accuracy"] == plain).all()
    worst = table.query("severity == 5").set_index("corruption")["accuracy"]
    assert worst["rotation"] < plain - 0.2  # the class is the place of the bar
    assert worst["contrast"] > plain - 0.3  # and the network takes contrast out


@pytest.mark.parametrize("kind", inspection.OUTSIDE)
def test_images_out_of_the_distribution_are_images_without_a_face(kind):
    images = inspection.outside(kind, 7, FACES)
    assert images.dtype == np.uint8 and images.shape == (7, 64, 64)
    assert (images == inspection.outside(kind, 7, FACES)).all()
    assert len(np.unique(images.reshape(7, -1), axis=0)) == 7
    detector = Detector(threads=1)
    shown = [
        np.kron(np.pad(image, 16, "edge"), np.ones((2, 2), np.uint8)) for image in (*images[:3], FACES[0])
    ]
    assert [len(detector.detect(image)) > 0 for image in shown] == [False] * 3 + [True]


def test_confidences_count_what_they_say(toy, held_out):
    table = pd.DataFrame(inspection.confidences(toy, held_out[0], 30)).set_index("kind")
    assert list(table.index) == ["faces", *inspection.OUTSIDE]
    assert [sum(h) for h in table["histogram"]] == [len(held_out[0]), *[30] * len(inspection.OUTSIDE)]
    own, noise = (predict(toy, x).max(1) for x in (held_out[0], inspection.outside("noise", 30, FACES)))
    assert table.loc["faces", "auroc"] == pytest.approx(0.5)
    assert table.loc["noise", "auroc"] == pytest.approx(
        roc_auc_score(np.repeat([1, 0], [len(own), 30]), [*own, *noise])
    )
    # All blank walls look alike to a network that standardises its input.
    assert table.loc["a blank wall", "answer_share"] == 1


# Confidence


def predictions(seed, n, sharper=1.0):
    """Labels drawn from true probabilities, and the same probabilities made sharper."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 6))
    labels = (softmax(logits, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    return labels, softmax(logits * sharper, axis=1)


def test_calibration_is_fitted_on_one_half_and_measured_on_the_other():
    labels, probabilities = predictions(1, 4001, sharper=2.0)
    report = inspection.reliability(labels, probabilities)
    assert (report["fitted_on"], report["measured_on"]) == (2000, 2001)
    assert report["temperature"] == pytest.approx(2, rel=0.1)
    assert report["error"]["after"] < report["floor"]["after"] < report["error"]["before"]
    assert report["log_loss"]["after"] < report["log_loss"]["before"]
    assert sum(row["count"] for row in report["bins"]["after"]) == 2001


def test_coverage_goes_from_the_most_confident_to_all():
    labels, probabilities = predictions(3, 130)
    rows, risk = inspection.coverage(labels, probabilities)
    curve = pd.DataFrame(rows)
    assert curve["coverage"].is_monotonic_increasing and curve["threshold"].is_monotonic_decreasing
    assert curve["accuracy"].iloc[-1] == pytest.approx(np.mean(probabilities.argmax(1) == labels))
    assert (curve["low"] <= curve["accuracy"]).all() and (curve["accuracy"] <= curve["high"]).all()
    assert risk["best"] < risk["area"] < risk["random"]


def test_confidence_that_knows_its_errors_has_the_best_area():
    labels = np.array([0, 1, 2, 3, 4, 5, 0, 1])
    probabilities = np.full((8, 6), 0.02)
    probabilities[np.arange(8), labels] = np.linspace(0.9, 0.7, 8)
    probabilities[6:] = np.roll(probabilities[6:], 1, axis=1) / 2  # two are wrong, and less confident
    rows, risk = inspection.coverage(labels, probabilities)
    assert risk == {"area": risk["best"], "best": risk["best"], "random": 0.25}
    assert [row["accuracy"] for row in rows][9::5] == [1, 1, 0.75]


# All of it, by one command


def test_the_command_writes_numbers_and_reads_validation_only(toy, toy_faces, tmp_path, monkeypatch):
    space = Workspace("full", tmp_path, tmp_path / "build", tmp_path / "results")
    path = space.runs / "toy" / "model.safetensors"
    path.parent.mkdir(parents=True)
    space.faceset.symlink_to(toy_faces.path)
    save_checkpoint(toy, path, {"network": "easynet", "options": toy.options})
    (path.parent / "history.csv").write_text("epoch\n")
    read, split = [], FaceSet.split
    monkeypatch.setattr(FaceSet, "split", lambda self, name, *x: read.append(name) or split(self, name, *x))
    monkeypatch.setattr(inspection, "workspace", lambda profile: space)
    inspection.main(["toy"])
    assert read == ["validation"]
    report = read_report(space.results / "inspection" / "toy.json")
    stored = read_report(inspection.workspace("full").results / "inspection" / "toy.json")
    assert stored == report and report["network"] == "easynet" and report["data"]["images"] == 60
    assert longest(report) <= 20 and np.shape(report["attention"]["grids"]) == (6, 7, 7)
    validation = split(space.faces(), "validation")
    right = predict(toy, validation).argmax(1) == validation.labels
    assert report["accuracy"] == pytest.approx(right.mean(), abs=0.02)
    (path.parent / "run.json").write_text(json.dumps({"name": "toy", "merged": "0" * 64}), encoding="utf-8")
    with pytest.raises(DataError, match="another merged set"):
        inspection.main(["toy"])


def longest(value):
    """Length of the longest list of numbers anywhere in a JSON value: a row of pixels would be 64."""
    if isinstance(value, dict):
        return max((longest(v) for v in value.values()), default=0)
    if isinstance(value, list):
        numbers = len(value) if any(isinstance(v, int | float) for v in value) else 0
        return max([numbers, *(longest(v) for v in value)])
    return 0
