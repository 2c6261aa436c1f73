"""What a network looks at, how sure it is and what throws it off: each measure finds what was planted."""

import copy
import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import roc_auc_score
from torch import nn

from fer_utils import calibration, cli
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import expected_calibration_error, mean_intervals, predict
from fer_utils.faces import FaceDetector
from fer_utils.models import EasyNet, EmoNet, FaceNet
from fer_utils.training import Recipe, fit
from fer_utils.weights import save_checkpoint
from fer_utils.workspace import Workspace
from reading_faces.report import notebook, plots
from reading_faces.study import attention, inspection, robustness

OPTIONS = {"widths": [8, 8, 16], "hidden": 16, "dropout": 0.0, "stride": 2, "image_size": 64}
FACES = inspection.drawn_faces(24)
FROM_FACES = (robustness.SHUFFLED, robustness.BLURRED)
bar_rows = [(8 * k * 64 / 48, (8 * k + 6) * 64 / 48) for k in range(6)]  # of the toy faces, enlarged to 64


@pytest.fixture(scope="module")
def toy(toy_faces, tmp_path_factory):
    """A small EasyNet that reads the place of the toy faces' bars, and what it was trained on."""
    torch.manual_seed(0)
    recipe = Recipe(epochs=5, batch_size=20, lr=0.05, augment=None)
    parts = toy_faces.split("train"), toy_faces.split("validation")
    return fit(EasyNet(**OPTIONS), *parts, recipe, tmp_path_factory.mktemp("run"), verbose=False).model


@pytest.fixture(scope="module")
def held_out(toy_faces):
    return toy_faces.split("validation").images, toy_faces.split("validation").labels


@pytest.fixture
def space(toy, toy_faces, tmp_path, monkeypatch):
    """A workspace of real-data form around the toy faces, with one finished run."""
    space = Workspace("full", tmp_path, tmp_path / "build", tmp_path / "results")
    (space.runs / "toy").mkdir(parents=True)
    space.faceset.symlink_to(toy_faces.path)
    save_checkpoint(
        toy, space.runs / "toy" / "model.safetensors", {"network": "easynet", "options": toy.options}
    )
    for module in (inspection, notebook):
        monkeypatch.setattr(module, "workspace", lambda profile: space)
    monkeypatch.setattr(cli, "_workspace", lambda options: space)
    return space


# What it looks at


def test_regions_share_out_the_face():
    masks = attention.region_masks()
    assert tuple(masks) == attention.REGIONS
    assert (np.sum(list(masks.values()), axis=0) == 1).all()
    similar = [masks[name].mean() for name in ("brows", "eyes", "mouth", "cheeks")]
    assert max(similar) / min(similar) < 1.1  # so that their effects can be compared


def test_boxes_hold_the_parts_of_drawn_faces():
    mean = FACES.images.mean(0)
    eyes = mean[10:34, [*range(16, 26), *range(38, 48)]].mean(1)
    assert 20 <= 10 + eyes.argmin() < 30  # the darkest row
    lips = mean[44:56, 26:38].mean(1)
    assert 0 < lips.argmin() < len(lips) - 1  # a valley within the box


def test_hiding_fills_with_each_images_own_mean():
    mask = attention.region_masks()["eyes"]
    images = FACES.images[:3]
    hidden = attention.hide(images, mask)
    assert hidden.dtype == np.uint8 and (hidden[:, ~mask] == images[:, ~mask]).all()
    for image, before in zip(hidden, images, strict=True):
        assert np.unique(image[mask]).tolist() == [round(before.mean())]


def test_hiding_the_bar_hurts_and_hiding_something_else_does_not(toy, held_out):
    table = attention.region_sensitivity(toy, *held_out, draws=300).set_index(["region", "label"])
    # The bar of the third class lies in rows 21 to 29, columns 11 to 53: where a face has its eyes.
    eyes, cheeks = table.loc[("eyes", CLASSES[2])], table.loc[("cheeks", CLASSES[2])]
    assert eyes["accuracy_low"] > 0.5 and eyes["probability_low"] > 0.3
    assert abs(cheeks["accuracy"]) < 0.1 and abs(cheeks["probability"]) < 0.15
    assert (table["accuracy_low"] <= table["accuracy"]).all()
    assert (table["probability"] <= table["probability_high"]).all()
    assert table.loc[("eyes", "all"), "images"] == len(held_out[1])


def test_classes_without_an_image_have_no_row(toy, held_out):
    images, labels = held_out
    some = labels < 2
    table = attention.region_sensitivity(toy, images[some], labels[some], draws=100)
    assert set(table["label"]) == {"all", *CLASSES[:2]}


def test_grad_cam_finds_the_bar(toy, held_out):
    maps = attention.class_maps(toy, *held_out)
    assert maps.layer == "conv3" and maps.grids.shape == (6, 7, 7)
    assert np.allclose(np.nansum(maps.grids, (1, 2)), 1)
    top, bottom = maps.extent[2:]
    centres = top + (np.arange(7) + 0.5) * (bottom - top) / 7
    rows = (maps.grids.sum(2) * centres).sum(1)
    bars = np.array([sum(ends) / 2 for ends in bar_rows])
    assert np.abs(rows - bars).max() < 16, (rows, bars)
    assert np.corrcoef(rows, bars)[0, 1] > 0.95


def test_grad_cam_leaves_out_wrong_answers_and_leaves_the_network_as_it_was(toy, held_out):
    images, labels = held_out
    toy.train()
    maps = attention.class_maps(toy, images, (labels + 1) % 6, batch_size=17)
    assert toy.training and not any(block._forward_hooks for block in toy.modules())
    toy.eval()
    wrong = predict(toy, images).argmax(1) == (labels + 1) % 6
    assert maps.images.sum() == wrong.sum()
    assert np.isnan(maps.grids[maps.images == 0]).all()


def test_averaged_slopes_are_the_first_papers_and_agree_where_the_network_takes_means():
    torch.manual_seed(0)
    features, head = torch.rand(3, 5, 4, 4, requires_grad=True), nn.Linear(5, 1)
    maps = []
    for averaged in (False, True):
        score = head(features.mean((2, 3))).sum(1)
        maps.append(attention.grad_cam(score, features, averaged=averaged))
    assert torch.allclose(*maps)
    expected = torch.einsum("c,bchw->bhw", head.weight[0] / 16, features).relu()
    assert torch.allclose(maps[0], expected, atol=1e-6)


NETWORKS = {
    "easynet": lambda: EasyNet(widths=(8, 8, 8)),
    "easynet of the demo": lambda: EasyNet(widths=(8, 8, 8), stride=2, image_size=64),
    "easynet without padding": lambda: EasyNet(widths=(8, 8, 8), padding=False, image_size=64),
    "emonet": lambda: EmoNet(width=0.1),
    "mobilenet": lambda: FaceNet(pretrained="none", trunk_width=0.25, head=[8]),
    "mobilenet at 112": lambda: FaceNet(pretrained="none", trunk_width=0.25, head=[8], input_size=112),
    "easynet trunk": lambda: FaceNet("easynet", pretrained="none", trunk_width=0.25, head=[8]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_extent_is_where_the_cells_look(name):
    """The pixels that move a cell lie around the place that is said of it."""
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    layer, block, shape = attention._block(model, attention.LEAST, torch.device("cpu"))
    left, right, top, bottom = attention._extent(model, block, shape)
    side = getattr(model, "input_size", 64)
    images = torch.rand(16, 1, side, side, requires_grad=True)
    body = model.trunk if isinstance(model, FaceNet) else model.features
    outputs = body.normalise(images) if isinstance(model, FaceNet) else images
    for child, module in body.named_children():
        outputs = module(outputs)
        if child == layer:
            break
    cell = (right - left) / shape[1]
    middle = round((32 - left) / cell - 0.5)  # the cell nearest to the middle, which sees least of the border
    (slopes,) = torch.autograd.grad(outputs[:, :, middle, middle].sum(), images)
    weights = slopes.abs().sum((0, 1))
    places = (torch.arange(side) + 0.5) * 64 / side
    seen = [float((weights.sum(k) * places).sum() / weights.sum()) for k in (0, 1)]  # column, row
    said = left + (middle + 0.5) * cell, top + (middle + 0.5) * (bottom - top) / shape[0]
    assert np.abs(np.array(seen) - said).max() < 0.3 * cell, (seen, said)


def test_too_fine_a_map_is_refused(toy, held_out):
    with pytest.raises(ValueError, match="at least 40×40"):
        attention.class_maps(toy, *held_out, least=40)


def test_intervals_of_means_are_those_of_theory():
    values = np.random.default_rng(0).normal((3, -1), (1, 5), (400, 2))
    ends = mean_intervals(values, 2000)
    error = values.std(0) / np.sqrt(400)
    assert np.allclose(
        ends, values.mean(0)[:, None] + np.outer(error, (-1.96, 1.96)), atol=0.15 * error.max()
    )
    assert (mean_intervals(values, 2000) == ends).all()
    assert np.allclose(mean_intervals(np.ones((5, 1)), 10), 1)
    with pytest.raises(ValueError, match="at least one image"):
        mean_intervals(np.empty((0, 1)))


# How sure it is


def probabilities(seed, n, sharper=1.0):
    """Labels drawn from stated probabilities, and the same probabilities made sharper."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 6))
    true = calibration.apply_temperature(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1)
    labels = (rng.random((n, 1)) > true.cumsum(1)).sum(1).clip(max=5)
    return labels, calibration.apply_temperature(true, 1 / sharper)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.35, 3.5), st.integers(0, 1000))
def test_temperature_recovers_a_known_scaling(sharper, seed):
    labels, said = probabilities(seed, 6000, sharper)
    temperature = calibration.fit_temperature(labels, said)
    assert temperature == pytest.approx(sharper, rel=0.1)
    better = calibration.apply_temperature(said, temperature)
    assert calibration.log_loss(labels, better) <= calibration.log_loss(labels, said) + 1e-9


@settings(deadline=None)
@given(arrays(float, (7, 6), elements=st.floats(0.001, 1)), st.floats(0.1, 10))
def test_temperature_keeps_the_order_of_the_classes(values, temperature):
    said = values / values.sum(1, keepdims=True)
    scaled = calibration.apply_temperature(said, temperature)
    assert np.allclose(scaled.sum(1), 1)
    best = np.take_along_axis(scaled, said.argmax(1)[:, None], 1)[:, 0]
    assert np.allclose(best, scaled.max(1))
    assert np.allclose(calibration.apply_temperature(said, 1), said)
    if temperature > 1:
        assert (scaled.max(1) <= said.max(1) + 1e-9).all()


def test_calibration_is_fitted_on_one_half_and_measured_on_the_other():
    labels, said = probabilities(1, 4001, sharper=2.0)
    found = calibration.calibration(labels, said)
    fit, measure = calibration.halves(labels)
    sizes = [np.bincount(labels[half], minlength=6) for half in (fit, measure)]
    assert np.abs(sizes[0] - sizes[1]).max() <= 1
    assert sorted([*fit, *measure]) == list(range(4001)) and found["fitted_on"] == len(fit) == 2000
    assert found["temperature"] == calibration.fit_temperature(labels[fit], said[fit])
    assert found["error"]["before"] == expected_calibration_error(labels[measure], said[measure])
    assert found["error"]["after"] < found["luck"]["after"] < found["error"]["before"]
    assert found["log_loss"]["after"] < found["log_loss"]["before"]
    # What is said of the half that is measured does not touch the temperature.
    other = said.copy()
    other[measure] = 1 / 6
    assert calibration.calibration(labels, other)["temperature"] == found["temperature"]
    with pytest.raises(ValueError, match="at least one image"):
        calibration.fit_temperature(labels[:0], said[:0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 300), st.integers(1, 20))
def test_bins_add_up_to_the_calibration_error(seed, n, bins):
    labels, said = probabilities(seed, n, 1.7)
    table = calibration.reliability_bins(labels, said, bins)
    gaps = (table["confidence"] - table["accuracy"]).abs() * table["count"]
    assert table["count"].sum() == n
    assert gaps.sum() / n == pytest.approx(expected_calibration_error(labels, said, bins))


def test_luck_is_what_a_calibrated_network_shows():
    errors = []
    for seed in range(60):
        labels, said = probabilities(seed, 300)
        errors.append(expected_calibration_error(labels, said))
    mean, high = calibration.calibrated_error(said, draws=500)
    assert mean == pytest.approx(np.mean(errors), rel=0.15)
    assert np.mean(np.array(errors) < high) > 0.85


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 200))
def test_coverage_goes_from_the_surest_to_all(seed, n):
    labels, said = probabilities(seed, n)
    curve = calibration.coverage_curve(labels, said)
    assert curve["coverage"].is_monotonic_increasing and curve["threshold"].is_monotonic_decreasing
    last = curve.iloc[-1]
    assert last["coverage"] == 1 and last["images"] == n
    assert last["accuracy"] == pytest.approx(np.mean(said.argmax(1) == labels))
    assert (curve["low"] <= curve["accuracy"]).all() and (curve["accuracy"] <= curve["high"]).all()
    area = calibration.risk_area(labels, said)
    assert area["best"] <= area["area"] + 1e-12


def test_confidence_that_knows_its_errors_has_the_best_area():
    labels = np.array([0, 1, 2, 3, 4, 5, 0, 1])
    said = np.full((8, 6), 0.02)
    said[np.arange(8), labels] = np.linspace(0.9, 0.7, 8)
    said[6:] = np.roll(said[6:], 1, axis=1) / 2  # the last two are wrong, and less sure
    area = calibration.risk_area(labels, said)
    assert area["area"] == area["best"] < area["random"] == 0.25
    curve = calibration.coverage_curve(labels, said, [0.5, 0.75, 1])
    assert curve["accuracy"].tolist() == [1, 1, 0.75]
    with pytest.raises(ValueError, match="above 0"):
        calibration.coverage_curve(labels, said, [0.0])


# What throws it off


@pytest.mark.parametrize("name", robustness.CORRUPTIONS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_corruptions_stay_images_and_get_worse(name, seed):
    images, before = FACES.images[:6], 0.0
    for severity in robustness.SEVERITIES:
        worse = robustness.corrupt(images, name, severity, seed=seed)
        assert worse.dtype == np.uint8 and worse.shape == images.shape
        assert (worse == robustness.corrupt(images, name, severity, seed=seed)).all()
        change = np.abs(worse.astype(float) - images).mean()
        assert change > before, f"{name} {severity}"
        before = change
    assert (robustness.corrupt(images, name, 0, seed=seed) == images).all()


def test_corruptions_do_what_their_levels_say():
    grey = np.random.default_rng(0).integers(118, 138, (40, 64, 64), dtype=np.uint8)
    signed = lambda name: robustness.corrupt(grey, name, 3).astype(float) - grey  # noqa: E731
    shifts = signed("brightness").mean((1, 2))
    assert set(shifts.tolist()) == {-75.0, 75.0}
    assert signed("noise").std() == pytest.approx(32, rel=0.03)
    shrunk = robustness.corrupt(grey, "contrast", 3).std((1, 2)) / grey.std((1, 2))
    assert shrunk.mean() == pytest.approx(0.25, rel=0.05)
    hidden = (signed("occlusion") != 0) | (grey == np.round(grey.mean((1, 2), keepdims=True)))
    assert hidden.mean() == pytest.approx(0.2, abs=0.05)
    dot = np.zeros((30, 64, 64), np.uint8)
    dot[:, 31:33, 54:58] = 255
    turned = robustness.corrupt(dot, "rotation", 3)  # by 30 degrees, some to the left and some to the right
    rows = (turned.sum(2) * np.arange(64)).sum(1) / turned.sum((1, 2)) - 31.5
    assert np.allclose(np.abs(rows), 24 * math.sin(math.radians(30)), atol=0.7)
    assert (rows > 0).any() and (rows < 0).any()
    for name, severity in (("fog", 1), ("blur", 6)):
        with pytest.raises(ValueError, match="there are brightness"):
            robustness.corrupt(grey, name, severity)


def test_robustness_is_lost_where_the_bar_is_lost(toy, held_out):
    table = robustness.robustness(toy, *held_out)
    assert len(table) == 6 * 6 and (table["low"] <= table["accuracy"]).all()
    plain = np.mean(predict(toy, held_out[0]).argmax(1) == held_out[1])
    assert (table.loc[table["severity"] == 0, "accuracy"] == plain).all()
    worst = table[table["severity"] == 5].set_index("corruption")["accuracy"]
    assert worst["rotation"] < plain - 0.2  # the place of the bar is what tells the class
    assert worst["contrast"] > plain - 0.3  # and the network takes contrast out


@pytest.mark.parametrize("kind", robustness.NONFACES)
def test_pictures_without_a_face_are_pictures_and_repeat(kind):
    pictures = robustness.nonfaces(kind, 7, faces=FACES.images)
    assert pictures.dtype == np.uint8 and pictures.shape == (7, 64, 64)
    assert (pictures == robustness.nonfaces(kind, 7, faces=FACES.images)).all()
    assert len(np.unique(pictures.reshape(7, -1), axis=0)) == 7
    if kind in FROM_FACES:
        with pytest.raises(ValueError, match="need faces"):
            robustness.nonfaces(kind, 2)


def test_shuffled_faces_keep_their_pixels():
    shuffled = robustness.nonfaces(robustness.SHUFFLED, 5, faces=FACES.images)
    for mixed, face in zip(shuffled, FACES.images, strict=False):
        assert (np.bincount(mixed.ravel(), minlength=256) == np.bincount(face.ravel(), minlength=256)).all()
        tiles = {face[r : r + 8, c : c + 8].tobytes() for r in range(0, 64, 8) for c in range(0, 64, 8)}
        assert all(mixed[r : r + 8, c : c + 8].tobytes() in tiles for r in (0, 24, 56) for c in (8, 40))
        assert (mixed != face).mean() > 0.5


def test_a_detector_finds_faces_and_none_where_there_is_none():
    detector = FaceDetector()

    def found(pictures):
        return sum(
            bool(detector.boxes(np.kron(np.pad(p, 16, "edge"), np.ones((2, 2), np.uint8)))) for p in pictures
        )

    assert found(FACES.images[:6]) >= 5
    for kind in robustness.NONFACES:
        assert found(robustness.nonfaces(kind, 6, faces=FACES.images, seed=3)) == 0, kind


def test_confidences_count_what_they_say(toy, held_out):
    table = robustness.confidences(toy, held_out[0], n=30).set_index("kind")
    assert list(table.index) == ["faces", *robustness.NONFACES]
    assert [sum(h) for h in table["histogram"]] == [len(held_out[0]), *[30] * len(robustness.NONFACES)]
    assert table.loc["faces", "told"] == pytest.approx(0.5)
    own = predict(toy, held_out[0]).max(1)
    noise = predict(toy, robustness.nonfaces("noise", 30)).max(1)
    truth = np.repeat([1, 0], [len(own), 30])
    assert table.loc["noise", "told"] == pytest.approx(roc_auc_score(truth, [*own, *noise]))
    # All blank walls look alike to a network that standardises what it is given.
    assert table.loc["a blank wall", "answer_share"] == 1


# All of it, by one command


def test_command_writes_numbers_and_reads_validation_only(space, monkeypatch, capsys):
    asked = []
    split = FaceSet.split

    def noted(self, name, source=None):
        asked.append(name)
        return split(self, name, source)

    monkeypatch.setattr(FaceSet, "split", noted)
    assert cli.main(["inspect", "toy", "--pictures", "20"]) == 0
    assert "60 validation images" in capsys.readouterr().out
    assert asked == ["validation"]
    path = space.results / "inspection" / "toy.json"
    plain = json.loads(path.read_text())
    assert plain["network"] == "easynet" and plain["data"]["images"] == plain["data"]["of"] == 60
    assert largest(plain) <= 20 and np.shape(plain["attention"]["grids"]) == (6, 7, 7)
    found = inspection.read(path)
    assert isinstance(found["attention"], attention.Maps) and len(found["robustness"]) == 36
    labels = space.faces().split("validation").labels
    answers = predict(inspection.load_model(space.runs / "toy" / "model.safetensors"),
                      space.faces().split("validation"))  # fmt: skip
    assert found["accuracy"] == pytest.approx(np.mean(answers.argmax(1) == labels), abs=1e-4)
    again = calibration.calibration(labels, answers)
    assert found["calibration"]["temperature"] == pytest.approx(again["temperature"], rel=1e-3)


def largest(value):
    """Length of the longest list of numbers anywhere in a JSON value: a row of pixels would be 64."""
    if isinstance(value, dict):
        return max((largest(v) for v in value.values()), default=0)
    if isinstance(value, list):
        numbers = len(value) if any(isinstance(v, int | float) for v in value) else 0
        return max([numbers, *(largest(v) for v in value)])
    return 0


def test_a_quick_look_takes_some_of_the_images(space):
    path = inspection.inspect(space, "toy", images=13, pictures=5)
    assert inspection.read(path)["data"] | {"faceset": ""} == {
        "faceset": "", "split": "validation", "source": "fer2013", "images": 13, "of": 60
    }  # fmt: skip


def test_published_networks_can_be_looked_at(space, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "project_root", lambda: tmp_path)
    (tmp_path / "weights").mkdir()
    save_checkpoint(toy, tmp_path / "weights" / "easynet.safetensors",
                    {"network": "easynet", "options": toy.options})  # fmt: skip
    path = inspection.inspect(space, "easynet", images=6, pictures=3)
    assert path.name == "easynet.json" and inspection.read(path)["name"] == "easynet"


def test_published_networks_are_not_asked_about_what_they_may_have_learnt(
    space, toy, toy_faces, tmp_path, monkeypatch
):
    (tmp_path / "weights").mkdir()
    save_checkpoint(
        toy, tmp_path / "weights" / "easynet.safetensors", {"network": "easynet", "options": toy.options}
    )
    monkeypatch.setattr(inspection, "project_root", lambda: tmp_path)
    sources = [source | {"own_splits": False} for source in toy_faces.manifest["sources"]]
    mixed = copy.copy(toy_faces)
    mixed.manifest = toy_faces.manifest | {"sources": sources}
    monkeypatch.setattr(Workspace, "faces", lambda space: mixed)
    with pytest.raises(DataError, match="which a published network has learnt"):
        inspection.inspect(space, "easynet", images=4, pictures=4)


def test_runs_of_another_merged_set_are_not_looked_at(space):
    path = space.runs / "toy" / "run.json"
    whole = path.read_bytes() if path.exists() else None
    path.write_text(json.dumps({"name": "toy", "merged": "0" * 64}), encoding="utf-8")
    with pytest.raises(DataError, match="another merged set"):
        inspection.inspect(space, "toy", images=6, pictures=3)
    path.unlink() if whole is None else path.write_bytes(whole)


@pytest.mark.parametrize("name", ["nothing", "unfinished"])
def test_what_is_not_there_is_said(space, name, capsys):
    (space.runs / "unfinished").mkdir()
    assert cli.main(["inspect", name]) == 1
    assert "no finished run and no published network" in capsys.readouterr().err


def test_damaged_files_are_refused(space):
    path = inspection.inspect(space, "toy", images=6, pictures=3)
    whole = json.loads(path.read_text())
    for damage in (
        {"format": 2},
        {"regions": []},
        {"attention": whole["attention"] | {"grids": [[[0.0] * 64] * 64] * 6}},
    ):
        path.write_text(json.dumps(whole | damage))
        with pytest.raises(DataError, match="no inspection of format 1"):
            inspection.read(path)
    path.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        inspection.read(path)
    with pytest.raises(DataError, match="run `fer inspect`"):
        inspection.read(path.with_name("none.json"))


def test_the_book_shows_the_best_of_each_network(space):
    assert inspection.full_pair() == []
    assert set(notebook.inspection_facts([]).values()) == {notebook.NOT_YET}
    assert notebook.NOT_YET in notebook.inspection_table([]).to_string()
    first = inspection.inspect(space, "toy", images=12, pictures=3)
    result = json.loads(first.read_text())
    inspection.write(result | {"name": "better", "accuracy": 1.0}, first.with_name("better.json"))
    inspection.write(
        result | {"name": "other", "network": "facenet", "accuracy": 0.5}, first.with_name("f.json")
    )
    (pair,) = inspection.full_pair()
    assert {title: r["name"] for title, r in pair.items()} == {"EasyNet": "better", "FaceNet": "other"}
    facts = notebook.inspection_facts([pair])
    assert "better" in facts["inspect-what"] and "EasyNet" in facts["inspect-regions"]
    assert facts.keys() == notebook.inspection_facts([]).keys()
    table = notebook.inspection_table([pair])
    assert table.loc["accuracy", "EasyNet"].startswith("100.0 %")
    figures = [
        plots.attention_maps(inspection.mean_faces(FACES), inspection.part(pair, "attention")),
        plots.region_effects(FACES.images.mean(0), attention.BOXES, inspection.part(pair, "regions")),
        plots.reliability(inspection.bins(pair)),
        plots.confidence_histograms(inspection.part(pair, "confidences")),
        plots.coverage_curves(inspection.part(pair, "coverage")),
        plots.robustness_curves(inspection.part(pair, "robustness")),
    ]
    for figure in figures:
        FigureCanvasAgg(figure).draw()


def test_figures_draw_what_they_are_given():
    table = pd.DataFrame(
        [("eyes", 0.1, "all", 0.2, 0.1, 0.3), ("mouth", 0.1, "all", -0.1, -0.2, 0.0)],
        columns=["region", "area", "label", "accuracy", "accuracy_low", "accuracy_high"],
    )
    for end in ("", "_low", "_high"):
        table[f"probability{end}"] = table[f"accuracy{end}"]
    figure = plots.region_effects(FACES.images[0], attention.BOXES, {"EasyNet": table})
    FigureCanvasAgg(figure).draw()
    picture, accuracy, _ = figure.axes
    assert len(picture.patches) == 6  # five regions, two cheeks
    places = accuracy.lines[0].get_xydata()
    assert places[:, 0].tolist() == [0.2, -0.1] and places[:, 1].tolist() == [0, 1]
    for draw in (
        plots.coverage_curves,
        plots.region_matrix,
        plots.robustness_curves,
        plots.confidence_histograms,
    ):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw({})
        with pytest.raises(ValueError, match="lacks the columns"):
            draw({"EasyNet": table[["area"]]})


def test_drawn_faces_are_new_and_the_same_each_time():
    again = inspection.drawn_faces(24)
    assert (again.images == FACES.images).all() and (again.labels == FACES.labels).all()
    assert FACES.images.shape == (24, 64, 64) and set(FACES.index["split"]) == {"validation"}
    demo = Workspace("demo", *[FACES.path] * 3)
    assert len(inspection.held_out(demo, 5)) == 5
    full = dataclasses.replace(demo, profile="full")
    with pytest.raises(DataError, match="not been merged"):
        inspection.held_out(full)
    means = inspection.mean_faces(FACES)
    k = int(FACES.labels[0])
    assert np.allclose(means[k], FACES.images[FACES.labels == k].mean(0))
