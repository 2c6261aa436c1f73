"""The sanity checks pass on sound data and find the damage they are for, wherever it is."""

import dataclasses
import itertools
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.models import EasyNet
from fer_utils.training import Recipe
from reading_faces.study import checks
from reading_faces.study.checks import ALL, SourceMatrix, swapped_classes

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, label_smoothing=0.0, augment=None)
BUILD = partial(EasyNet, widths=(4, 8, 8), hidden=16, dropout=0.0)
# Images of each class that are open to the checks, of FER2013, CK+ and JAFFE as they are.
SIZES = {
    "fer2013": np.array([4000, 4100, 7200, 4800, 3200, 5000]),
    "ckplus": np.array([90, 50, 140, 60, 170, 250]),
    "jaffe": np.array([24, 25, 24, 24, 23, 24]),
}
PAIRS = list(itertools.combinations(range(6), 2))


def renaming(**names):
    """By true class, what a source calls it."""
    called = np.arange(6)
    for true, name in names.items():
        called[CLASSES.index(true)] = CLASSES.index(name)
    return called


def measured(called, *, sizes=None, seed=0, skill=0.25):
    """Confusions as networks would leave them that lean to some classes and know their trade a little.

    Args:
        called: by source, for each true class what the source calls it.
        sizes: by source, images of each class.
        seed: of the networks and their errors.
        skill: share of images that are recognised for sure, or a function (trained on, tested on) -> share.
    """
    rng, sizes, confusions = np.random.default_rng(seed), sizes or SIZES, {}
    for trained_on, tested_on in itertools.permutations(sizes, 2):
        sure = skill(trained_on, tested_on) if callable(skill) else skill
        leaning = rng.dirichlet(np.full(6, 5))
        shares = sure * np.eye(6) + (1 - sure) * (leaning + rng.dirichlet(np.full(6, 4), 6)) / 2
        true = np.stack([rng.multinomial(n, row) for n, row in zip(sizes[tested_on], shares, strict=True)])
        rows, columns = (np.argsort(called.get(s, np.arange(6))) for s in (tested_on, trained_on))
        confusions[trained_on, tested_on] = true[np.ix_(rows, columns)]
    frame = pd.DataFrame(0.5, [*sizes, ALL], list(sizes))
    return SourceMatrix(frame, np.zeros((*frame.shape, 2)), pd.Series(0.2, list(sizes)), confusions)


def names(a, b):
    return {CLASSES[a]: CLASSES[b], CLASSES[b]: CLASSES[a]}


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize(("a", "b"), PAIRS, ids=lambda i: CLASSES[i])
def test_a_swap_is_found_in_any_source_and_any_two_classes(source, a, b):
    called = renaming(**names(a, b))
    for seed in range(3):
        found = swapped_classes(measured({source: called}, seed=seed))
        assert found == {source: names(a, b)}


@pytest.mark.parametrize("skill", [0.0, 0.1, 0.3, 0.7])
def test_nothing_is_named_where_nothing_is_swapped(skill):
    for seed in range(60):
        assert swapped_classes(measured({}, seed=seed, skill=skill)) == {}
    assert checks.same_codes(measured({}, skill=skill)).passed


def test_classes_that_are_mixed_up_anyway_are_not_named():
    sizes = {name: np.full(6, 40) for name in ("a", "b", "c")}
    matrix = measured({}, sizes=sizes, skill=0.4)
    fear, surprise = CLASSES.index("fear"), CLASSES.index("surprise")
    for confusion in matrix.confusions.values():  # as often right as wrong, and leaning to surprise
        confusion[[fear, surprise]] = 2
        confusion[fear, [fear, surprise]] = 10, 22
        confusion[surprise, [fear, surprise]] = 8, 24
    assert swapped_classes(matrix) == {}


@pytest.mark.parametrize("source", SIZES)
def test_longer_cycles_and_several_swaps_are_found(source):
    cycle = renaming(angry="fear", fear="happy", happy="angry")
    found = swapped_classes(measured({source: cycle}))
    assert found == {source: {"fear": "angry", "happy": "fear", "angry": "happy"}}
    both = renaming(angry="fear", fear="angry", sad="neutral", neutral="sad")
    assert swapped_classes(measured({source: both})) == {source: names(0, 1) | names(3, 5)}
    moved = np.roll(np.arange(6), 2)
    expected = {CLASSES[name]: CLASSES[true] for true, name in enumerate(moved)}
    assert swapped_classes(measured({source: moved})) == {source: expected}


def test_different_mistakes_of_two_sources_are_told_apart():
    called = {"ckplus": renaming(**names(2, 3)), "jaffe": renaming(**names(0, 4))}
    assert swapped_classes(measured(called)) == {"ckplus": names(2, 3), "jaffe": names(0, 4)}


def test_of_two_sources_both_are_named():
    sizes = {name: SIZES[name] for name in ("fer2013", "jaffe")}
    cycle = renaming(angry="fear", fear="happy", happy="angry")
    for source in sizes:
        assert swapped_classes(measured({source: renaming(**names(1, 4))}, sizes=sizes)) == {
            name: names(1, 4) for name in sizes
        }
    there = {"fear": "angry", "happy": "fear", "angry": "happy"}
    back = {other: name for name, other in there.items()}
    assert swapped_classes(measured({"jaffe": cycle}, sizes=sizes)) == {"jaffe": there, "fer2013": back}


def test_a_source_that_cannot_be_read_does_not_decide_who_is_right():
    def skill(*sources):
        return 0.0 if "jaffe" in sources else 0.4

    found = swapped_classes(measured({"ckplus": renaming(**names(2, 3))}, skill=skill))
    assert found == {"fer2013": names(2, 3), "ckplus": names(2, 3)}


def test_classes_without_images_are_no_obstacle():
    sizes = SIZES | {"ckplus": np.array([90, 0, 140, 60, 170, 0])}
    assert swapped_classes(measured({}, sizes=sizes)) == {}
    found = swapped_classes(measured({"ckplus": renaming(**names(2, 3))}, sizes=sizes))
    assert found == {"ckplus": names(2, 3)}


def test_the_verdict_says_who_and_what():
    check = checks.same_codes(measured({"ckplus": renaming(**names(2, 3))}))
    assert not check.passed and check.value == "ckplus: happy and sad"
    cycle = renaming(angry="fear", fear="happy", happy="angry")
    assert checks.same_codes(measured({"jaffe": cycle})).value == "jaffe: angry → happy → fear → angry"
    alone = measured({}, sizes={"fer2013": SIZES["fer2013"]})
    assert checks.same_codes(alone).passed and "nothing to compare" in checks.same_codes(alone).value


def test_above_chance_names_the_source_that_is_not_read():
    matrix = measured({})
    intervals = np.full((4, 3, 2), 0.9)
    intervals[-1, :, 0] = 0.5, 0.19, 0.5
    check = checks.above_chance(dataclasses.replace(matrix, intervals=intervals))
    assert not check.passed and "not read: ckplus" in check.value and "-1.0 points" in check.value
    intervals[-1, 1, 0] = 0.3
    assert checks.above_chance(dataclasses.replace(matrix, intervals=intervals)).passed


def test_source_matrix_of_sound_sources(sound):
    matrix = sound
    assert list(matrix.accuracy.index) == ["fer2013", "ckplus", "jaffe", ALL]
    assert (np.diag(matrix.accuracy) > 0.7).all()
    assert checks.above_chance(matrix).passed and checks.same_codes(matrix).passed
    # Where a source took part in training, only its validation images are asked for; never a test image.
    assert matrix.confusions["jaffe", "jaffe"].sum() == matrix.confusions[ALL, "jaffe"].sum() == 24
    assert matrix.confusions["fer2013", "jaffe"].sum() == 96
    assert matrix.chance.tolist() == pytest.approx([1 / 6] * 3, abs=0.01)
    low, high = np.moveaxis(matrix.intervals, -1, 0)
    assert (low <= matrix.accuracy + 1e-9).all(None) and (matrix.accuracy <= high + 1e-9).all(None)


@pytest.mark.parametrize("source", ["fer2013", "ckplus", "jaffe"])
def test_exchanging_names_touches_one_source_and_two_classes(three_sources, source):
    broken = checks.exchanged(three_sources, source, "fear", "neutral")
    mine = (three_sources.index["source"] == source).to_numpy()
    assert (broken.labels[~mine] == three_sources.labels[~mine]).all()
    assert (broken.labels[mine] == np.array([0, 5, 2, 3, 4, 1])[three_sources.labels[mine]]).all()
    assert (checks.exchanged(broken, source, "neutral", "fear").labels == three_sources.labels).all()


@pytest.fixture(scope="module")
def sound(three_sources):
    return checks.source_matrix(BUILD, three_sources, RECIPE, steps=40)


def test_a_swap_is_found_by_training_and_leaves_other_networks_as_they_were(
    three_sources, sound, monkeypatch
):
    source, a, b = "jaffe", "fear", "surprise"
    broken = checks.exchanged(three_sources, source, a, b)
    everything = checks.source_matrix(BUILD, broken, RECIPE, steps=40)
    assert swapped_classes(everything) == {source: {a: b, b: a}}

    trained = []
    monkeypatch.setattr(
        checks,
        "train",
        lambda build, faces, *r, **o: trained.append(faces) or real_train(build, faces, *r, **o),
    )
    matrix = checks.swapped_matrix(BUILD, three_sources, RECIPE, sound, source, a, b, steps=40)
    assert [set(faces.index["source"]) for faces in trained] == [{source}]
    assert list(matrix.accuracy.index) == list(sound.accuracy.columns)
    for key, confusion in matrix.confusions.items():
        np.testing.assert_array_equal(confusion, everything.confusions[key])
    assert (matrix.chance == everything.chance).all()
    assert matrix.accuracy.equals(everything.accuracy.loc[matrix.accuracy.index])


def test_exchanged_outputs_at_the_start_make_an_exchanged_network(three_sources, sound):
    """What `exchanged_matrix` says of the damaged source's own network, by training that network."""

    def build():
        model = BUILD()
        last = list(model.modules())[-1]
        assert isinstance(last, nn.Linear) and last.out_features == 6
        with torch.no_grad():
            for values in (last.weight, last.bias):
                values[[1, 4]] = values[[4, 1]].clone()
        return model

    trained = checks.swapped_matrix(
        build, three_sources, RECIPE, sound, "jaffe", "fear", "surprise", steps=40
    ).confusions
    said = checks.exchanged_matrix(sound, "jaffe", "fear", "surprise").confusions
    assert trained.keys() == said.keys()
    for key, confusion in said.items():  # sums are taken in another order, so an image may fall otherwise
        assert np.abs(confusion - trained[key]).sum() <= 2 + 0.04 * confusion.sum(), key
    assert np.abs(sound.confusions["jaffe", "fer2013"] - said["jaffe", "fer2013"]).sum() > 40


def test_a_swap_made_on_purpose_is_noticed(three_sources, sound):
    proof = checks.prove(BUILD, three_sources, RECIPE, sound, "fer2013", "angry", "neutral", steps=40)
    assert proof.named and proof.verdict == "noticed"
    assert proof.found == {"fer2013": {"angry": "neutral", "neutral": "angry"}}
    assert proof.said == "fer2013: angry and neutral"
    assert proof.home > 0.7


def test_a_swap_that_is_not_named_counts_as_missed():
    happy_sad = {"happy": "sad", "sad": "happy"}
    assert checks.Proof("jaffe", ("sad", "happy"), {"jaffe": happy_sad}).named
    for found in ({}, {"ckplus": happy_sad}, {"jaffe": {"fear": "sad", "sad": "fear"}}):
        proof = checks.Proof("jaffe", ("sad", "happy"), found)
        assert proof.named is False and proof.verdict == "MISSED"
    more = happy_sad | {"angry": "fear", "fear": "angry"}
    assert checks.Proof("jaffe", ("sad", "happy"), {"jaffe": more}).named is False


def at_home(matrix):
    """With cells for each source's own network, which `measured` leaves out."""
    own = {(source, source): np.diag(np.full(6, 10)) for source in matrix.accuracy.columns}
    return dataclasses.replace(matrix, confusions=matrix.confusions | own)


def test_sensitivity_depends_on_what_can_be_told_apart(sound):
    noticed = checks.sensitivity(sound)
    assert list(noticed) == ["fer2013", "ckplus", "jaffe"]
    assert all(len(pairs) == 15 and all(pairs.values()) for pairs in noticed.values())
    blind = checks.sensitivity(at_home(measured({}, skill=0.0)))
    assert not any(named for pairs in blind.values() for named in pairs.values())
    # Where two classes are taken for each other almost half of the time, their exchange changes little.
    matrix = at_home(measured({}, skill=0.6))
    for source, other in itertools.permutations(SIZES, 2):
        confusion = matrix.confusions[source, other]
        for row, other_row in ((1, 4), (4, 1)):
            both = confusion[row, row] + confusion[row, other_row]
            confusion[row, row] = round(0.53 * both)
            confusion[row, other_row] = both - confusion[row, row]
    for pairs in checks.sensitivity(matrix).values():
        assert [pair for pair, named in pairs.items() if not named] == [("fear", "surprise")]


def test_swaps_of_what_is_not_there_are_refused(three_sources, sound):
    with pytest.raises(DataError, match=r"no faces of a source 'rafdb'.*name one of fer2013, ckplus, jaffe"):
        checks.prove(BUILD, three_sources, RECIPE, sound, "rafdb", "happy", "sad")
    for pair in (("happy", "happy"), ("happy", "disgust")):
        with pytest.raises(ValueError, match="cannot be exchanged; name two of angry, fear"):
            checks.exchanged(three_sources, "jaffe", *pair)


def test_one_source_has_one_cell(toy_faces):
    matrix = checks.source_matrix(BUILD, toy_faces, RECIPE, steps=5)
    assert matrix.accuracy.shape == (1, 1)
    assert checks.same_codes(matrix).passed
    # Nothing is trained, since nothing could be compared.
    proof = checks.prove(None, toy_faces, RECIPE, matrix, "fer2013", "happy", "sad")
    assert proof.named is None and proof.verdict == "not compared" and "nothing to compare" in proof.said
    assert checks.sensitivity(matrix) == {}


class Blind(nn.Module):
    """A network with a loose wire: it does not see the image."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(1, 6)

    def forward(self, images):
        return self.logits(images.new_ones(len(images), 1))


def test_a_sound_network_learns_by_heart_and_a_blind_one_does_not(toy_faces, monkeypatch):
    seen = []
    monkeypatch.setattr(checks, "fit", lambda m, few, *a, **o: seen.append(few) or real_fit(m, few, *a, **o))
    assert checks.memorised(BUILD, toy_faces, RECIPE, images=50).passed
    assert len(seen[0]) == 50 and set(seen[0].index["split"]) == {"train"}
    check = checks.memorised(Blind, toy_faces, RECIPE, images=50)
    assert not check.passed and check.name.startswith("50 images")


real_fit, real_train = checks.fit, checks.train


def test_shuffled_labels_teach_nothing(toy_faces):
    check = checks.shuffled(BUILD, toy_faces, RECIPE)
    assert check.passed, check.value


def test_shuffled_labels_uncover_a_leak(toy_faces, monkeypatch):
    # A network that gets to see the true labels all the same, as a leak would have it.
    monkeypatch.setattr(type(toy_faces), "relabelled", lambda self, labels: self)
    check = checks.shuffled(BUILD, toy_faces, dataclasses.replace(RECIPE, epochs=5))
    assert not check.passed
