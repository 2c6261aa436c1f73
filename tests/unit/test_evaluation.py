"""Scores agree with a case by hand, and intervals with drawing."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from fer_utils.emotions import CLASSES
from fer_utils.evaluation import bootstrap_interval, metrics, predict, wilson_interval


class Brightness(nn.Module):
    """Says 'happy' for bright left halves; sensitive to mirroring."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        left = images[..., :32].mean((1, 2, 3))
        logits = torch.zeros(len(images), 6)
        logits[:, 2] = left * self.scale
        return logits


def test_a_network_can_be_trained_on_after_it_was_asked():
    class Moving(nn.Sequential):
        def to(self, device):  # what a move to a GPU does to parameters
            return self._apply(torch.clone)

    model = Moving(nn.Flatten(), nn.Linear(64 * 64, 6))
    predict(model, np.zeros((3, 64, 64), np.uint8))
    model(torch.zeros(1, 1, 64, 64)).sum().backward()
    assert model[1].weight.grad is not None


def test_metrics_of_a_case_by_hand():
    scores = metrics(np.array([0, 0, 1, 2, 1]), np.eye(6)[[0, 1, 1, 2, 5]])  # no image is of the class 5
    assert scores["accuracy"] == 0.6 and scores["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores["recall"] == dict(zip(CLASSES, [0.5, 0.5, 1, None, None, None], strict=True))
    assert np.argwhere(scores["confusion"]).tolist() == [[0, 0], [0, 1], [1, 1], [1, 5], [2, 2]]


def test_bootstrap_interval_matches_drawing_images():
    correct = np.random.default_rng(0).random(300) < 0.7
    low, high = bootstrap_interval(correct)
    rng = np.random.default_rng(1)
    means = [rng.choice(correct, 300).mean() for _ in range(4000)]
    assert np.quantile(means, [0.025, 0.975]) == pytest.approx([low, high], abs=0.008)
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval(np.array([], bool))


@pytest.mark.parametrize("right", [True, False])
def test_a_few_answers_that_are_all_alike_are_no_certainty(right):
    low, high = bootstrap_interval(np.full(25, right))
    assert (low, high) == pytest.approx((0.867, 1.0) if right else (0.0, 0.133), abs=1e-3)


def test_predict_gives_probabilities_and_flip_averages_both_views():
    images = np.zeros((300, 64, 64), np.uint8)
    images[:, :, :32] = 255
    model = Brightness().train()
    plain = predict(model, images)
    assert plain.shape == (300, 6) and plain.dtype == np.float32
    np.testing.assert_allclose(plain.sum(1), 1, rtol=1e-5)
    mirrored = predict(model, np.ascontiguousarray(images[:, :, ::-1]))
    np.testing.assert_allclose(predict(model, images, flip=True), (plain + mirrored) / 2, rtol=1e-5)
    assert model.training


class Recorder(Brightness):
    def forward(self, images):
        self.seen.append(images)
        return super().forward(images)


def test_ten_crops_are_corners_and_centre_each_and_mirrored():
    image, model = np.zeros((1, 64, 64), np.uint8), Recorder()
    image[0, :8, :8] = 255  # a bright upper left corner
    model.seen = []
    averaged = predict(model, image, ten_crop=True)
    seen = [view[0, 0] for view in model.seen]
    assert len(seen) == 10 and all(view.shape == (64, 64) for view in seen)
    # The corner is whole in the first crop and cut off most in the one that starts furthest from it.
    bright = [float(view.sum()) for view in seen[:5]]
    assert bright[0] == max(bright) and bright[3] == min(bright) and bright[3] < bright[4] < bright[0]
    for view, mirrored in zip(seen[:5], seen[5:], strict=True):
        torch.testing.assert_close(mirrored, view.flip(1))
    each = torch.stack([Brightness.forward(model, view[None, None]).softmax(1) for view in seen])
    np.testing.assert_allclose(averaged, each.mean(0).detach(), rtol=1e-5)


def test_people_are_drawn_with_all_of_their_images():
    rng = np.random.default_rng(0)
    right = rng.random(24) < 0.8
    correct, people = np.repeat(right, 9), np.repeat(np.arange(24), 9)
    low, high = bootstrap_interval(correct, people)
    once = bootstrap_interval(right)
    assert (low, high) == pytest.approx(once, abs=0.05), "nine pictures of a face say no more than one"
    alone = bootstrap_interval(correct)
    assert high - low > 2 * (alone[1] - alone[0])
    apart = bootstrap_interval(right, np.arange(24))
    assert apart == pytest.approx(once, abs=0.05)
    assert bootstrap_interval(np.ones(18, bool), np.repeat([0, 1], 9)) == wilson_interval(2, 2)
    assert bootstrap_interval(np.zeros(18, bool), np.repeat([0, 1], 9)) == wilson_interval(0, 2)


def test_the_interval_of_a_source_with_people_is_theirs():
    labels = np.repeat([0, 1, 2, 3], 10)
    probabilities = np.eye(6)[np.where(labels == 3, 0, labels)]
    people = np.repeat(["a", "b", "c", "d"], 10)
    wide, narrow = (metrics(labels, probabilities, given_)["accuracy_interval"] for given_ in (people, None))
    assert np.ptp(wide) > 2 * np.ptp(narrow)


def test_intervals_of_numbers_of_columns_and_of_differences():
    rng = np.random.default_rng(4)
    values = rng.normal(1, 2, (200, 2))
    low, high = bootstrap_interval(values, draws=2000)
    half = 1.96 * values.std(0) / np.sqrt(200)
    np.testing.assert_allclose([low, high], [values.mean(0) - half, values.mean(0) + half], atol=0.06)
    first, second = rng.random(500) < 0.8, rng.random(500) < 0.7
    low, high = bootstrap_interval(first.astype(int) - second)
    half = 1.96 * (first * 1.0 - second).std() / np.sqrt(500)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1) and low < first.mean() - second.mean() < high
    assert bootstrap_interval(first.astype(int) - first) == (0.0, 0.0)


FAULTS = """
import resource, numpy as np, torch
from fer_utils.evaluation import predict
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.ones(10_000_000)  # 40 MB, some 9,800 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
predict(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4096, 6)), np.zeros((1, 64, 64), np.uint8))
faults()  # what is kept is asked for once
print(before, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_memory_that_is_freed_is_not_given_back_after_predicting():
    before, after = map(int, subprocess.check_output([sys.executable, "-c", FAULTS]).split())
    if before < 40_000:
        pytest.skip("the system has larger pages")
    assert after < 5_000
