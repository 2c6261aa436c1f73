"""Calibration undoes what was done to the logits, and reliability counts what it says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.metrics import log_loss

from fer_utils import calibration


def drawn(seed, n, scale=1.0, biases=0.0):
    """Labels drawn from true probabilities, and the same probabilities with other logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 6))
    labels = (softmax(logits, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    return labels, softmax((logits - biases) / scale, axis=1)


@settings(max_examples=8, deadline=None)
@given(st.floats(0.35, 3.5), st.integers(0, 1000))
def test_temperature_recovers_a_known_scaling(sharper, seed):
    labels, probabilities = drawn(seed, 6000, 1 / sharper)
    temperature = calibration.fit_temperature(labels, probabilities)
    assert temperature == pytest.approx(sharper, rel=0.1)
    better = calibration.apply_bias(probabilities, 1 / temperature, np.zeros(1))
    assert log_loss(labels, better) <= log_loss(labels, probabilities) + 1e-9


@settings(max_examples=8, deadline=None)
@given(st.floats(0.5, 2), st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_scale_and_biases_of_logits_are_recovered(scale, biases):
    biases = np.array(biases) - np.mean(biases)
    labels, probabilities = drawn(0, 6000, scale, biases)
    fitted_scale, fitted = calibration.fit_bias(labels, probabilities)
    assert fitted_scale == pytest.approx(scale, rel=0.1) and fitted.sum() == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(fitted, biases, atol=0.25)
    corrected = calibration.apply_bias(probabilities, fitted_scale, fitted)
    np.testing.assert_allclose(corrected.sum(1), 1)
    assert log_loss(labels, corrected) <= log_loss(labels, drawn(0, 6000)[1]) + 1e-6  # the likeliest


def test_calibration_error_of_known_cases():
    labels = np.array([0, 0, 0, 1])
    always = np.tile(np.eye(6)[0], (4, 1))  # fully confident in class 0, right in 3 of 4
    assert calibration.expected_calibration_error(labels, always) == pytest.approx(0.25)
    calibrated = np.tile([0.75, 0.25, 0, 0, 0, 0], (4, 1))
    assert calibration.expected_calibration_error(labels, calibrated) == pytest.approx(0.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 300), st.integers(1, 20))
def test_reliability_bins_count_by_confidence(seed, n, bins):
    labels, probabilities = drawn(seed, n, 0.6)
    table = calibration.reliability_bins(labels, probabilities, bins)
    assert len(table) == bins and table["count"].sum() == n
    filled = table[table["count"] > 0]
    assert filled["confidence"].between(filled["low"] - 1e-9, filled["high"] + 1e-9).all()
    hits = (filled["accuracy"] * filled["count"]).sum()
    assert hits == pytest.approx((probabilities.argmax(1) == labels).sum())
    assert table[table["count"] == 0]["accuracy"].isna().all()
