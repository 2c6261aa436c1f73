"""A run's last layer is fitted on validation, and nothing else of it changes."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from fer_utils import calibrated, cli, results, runs
from fer_utils.calibration import apply_bias, fit_bias
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.recipes import command
from fer_utils.weights import load_model
from fer_utils.workspace import Workspace


def biased(scale, biases, n=6000, seed=0):
    """Labels drawn as some probabilities say, and what a network with another scale and bias says of them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 6))
    true = softmax(logits, axis=1)
    labels = (true.cumsum(1) > rng.random((n, 1))).argmax(1)
    return labels, softmax((logits - biases) / scale, axis=1), true


@settings(max_examples=15, deadline=None)
@given(st.floats(0.5, 2), st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_what_was_done_to_logits_is_found(scale, biases):
    biases = np.array(biases) - np.mean(biases)
    labels, told, true = biased(scale, biases)
    found_scale, found = fit_bias(labels, told)
    assert found_scale == pytest.approx(scale, rel=0.1) and found.sum() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found, biases, atol=0.25)
    mended = apply_bias(told, found_scale, found)
    np.testing.assert_allclose(mended.sum(1), 1)
    assert log_loss(labels, mended) <= log_loss(labels, true) + 1e-6  # it is the likeliest
    assert log_loss(labels, mended) <= log_loss(labels, told) + 1e-6


def test_an_image_is_judged_by_a_fit_to_others(monkeypatch):
    labels, told, _ = biased(1.0, np.array([1.5, 0, 0, 0, 0, -1.5]))
    fitted, judged = [], []

    def fit(labels, told):
        fitted.append(set(map(tuple, told)))
        return fit_bias(labels, told)

    def apply(told, *how):
        judged.append(set(map(tuple, told)))
        return apply_bias(told, *how)

    monkeypatch.setattr(calibrated, "fit_bias", fit)
    monkeypatch.setattr(calibrated, "apply_bias", apply)
    gain = calibrated.cross_validated(labels, told, seed=0) - np.mean(told.argmax(1) == labels)
    assert gain > 0.02
    everything = set(map(tuple, told))
    assert len(judged) == calibrated.FOLDS and set.union(*judged) == everything
    assert all(f == everything - j for f, j in zip(fitted, judged, strict=True))


@pytest.fixture(scope="module")
def space(toy_faces, tmp_path_factory):
    root = tmp_path_factory.mktemp("calibrated")
    (root / "faceset").symlink_to(toy_faces.path)
    made = Workspace("demo", root / "data", root, root / "results")
    options = {"widths": [4, 8, 8], "hidden": 16}
    runs.train(made, "easynet", name="toy-seed0", model_options=options, verbose=False,
               recipe_changes={"epochs": 2, "batch_size": 32, "augment": None})  # fmt: skip
    return made


def test_only_the_last_layer_changes_and_says_what_was_fitted(space, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_workspace", lambda options: space)
    assert cli.main(["calibrate", "toy-seed0"]) == 0
    assert "fer evaluate toy-calibrated-seed0 --profile" in capsys.readouterr().out
    folder = space.runs / "toy-calibrated-seed0"
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    fitted, faces = about["calibrated"], space.faces().split("validation")
    before, after = (load_model(space.runs / n / "model.safetensors") for n in ("toy-seed0", folder.name))
    changed = [
        name for name, value in after.state_dict().items() if not value.equal(before.state_dict()[name])
    ]
    assert changed == ["classifier.fc2.weight", "classifier.fc2.bias"]
    told = predict(before, faces)
    expected = apply_bias(told, fitted["scale"], np.array(fitted["biases"]))
    np.testing.assert_allclose(
        predict(after, faces), expected, atol=2e-3
    )  # weights are kept in half precision
    assert fitted["accuracy"]["before"] == np.mean(told.argmax(1) == faces.labels)
    assert not list(space.runs.glob(".*partial"))


def test_a_calibrated_run_is_scored_and_told_like_any_other(space):
    calibrated.calibrate(space, "toy-seed0")
    result = results.read(runs.evaluate(space, "toy-calibrated-seed0", test=True))
    assert result["calibrated"]["run"] == "toy-seed0"
    assert set(result["test"]["fer2013"]["recall"]) == set(CLASSES)
    told = command(result)
    assert told.startswith("fer train easynet --name toy-seed0 ")
    assert told.endswith(" && fer calibrate toy-seed0 --profile demo")


def test_what_cannot_be_calibrated_is_refused(space):
    calibrated.calibrate(space, "toy-seed0")
    for name, says in (("nobody", "missing or has not finished"), ("toy-calibrated-seed0", "already")):
        with pytest.raises(DataError, match=says):
            calibrated.calibrate(space, name)
    assert calibrated.calibrated_name("mine") == "mine-calibrated"
