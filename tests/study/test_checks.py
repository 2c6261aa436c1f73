"""The sanity checks pass on sound data and find the damage they are for, wherever it is."""

import dataclasses
import itertools
import json
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from torch import nn

from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.merge import merge
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import CLASSES
from fer_utils.experiment import workspace
from fer_utils.models import EasyNet
from fer_utils.training import Recipe
from reading_faces.study import checks
from reading_faces.study.checks import ALL, ALONE, swapped_classes
from reading_faces.study.store import read_report

RECIPE = Recipe(epochs=2, batch_size=24, lr=0.1, label_smoothing=0.0, augment=None)
BUILD = partial(EasyNet, widths=(4, 8, 8), hidden=16, dropout=0.0)
SOURCES = ("fer2013", "ckplus", "jaffe")
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
    if len(sizes) == 1:
        return {tuple(sizes) * 2: np.diag(next(iter(sizes.values())))}
    for trained_on, tested_on in itertools.permutations(sizes, 2):
        sure = skill(trained_on, tested_on) if callable(skill) else skill
        leaning = rng.dirichlet(np.full(6, 5))
        shares = sure * np.eye(6) + (1 - sure) * (leaning + rng.dirichlet(np.full(6, 4), 6)) / 2
        true = np.stack([rng.multinomial(n, row) for n, row in zip(sizes[tested_on], shares, strict=True)])
        rows, columns = (np.argsort(called.get(s, np.arange(6))) for s in (tested_on, trained_on))
        confusions[trained_on, tested_on] = true[np.ix_(rows, columns)]
    return confusions


def names(a, b):
    return {CLASSES[a]: CLASSES[b], CLASSES[b]: CLASSES[a]}


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize(("a", "b"), PAIRS, ids=lambda i: CLASSES[i])
def test_a_swap_is_found_in_any_source_and_any_two_classes(source, a, b):
    called = renaming(**names(a, b))
    for seed in range(2):
        assert swapped_classes(measured({source: called}, seed=seed)) == {source: names(a, b)}


@pytest.mark.parametrize("skill", [0.0, 0.1, 0.3, 0.7])
def test_nothing_is_named_where_nothing_is_swapped(skill):
    for seed in range(60):
        assert swapped_classes(measured({}, seed=seed, skill=skill)) == {}
    assert checks.same_codes(measured({}, skill=skill)).passed


def test_classes_that_are_mixed_up_anyway_are_not_named():
    sizes = {name: np.full(6, 40) for name in ("a", "b", "c")}
    confusions = measured({}, sizes=sizes, skill=0.4)
    fear, surprise = CLASSES.index("fear"), CLASSES.index("surprise")
    for confusion in confusions.values():  # as often right as wrong, and leaning to surprise
        confusion[[fear, surprise]] = 2
        confusion[fear, [fear, surprise]] = 10, 22
        confusion[surprise, [fear, surprise]] = 8, 24
    assert swapped_classes(confusions) == {}


@pytest.mark.parametrize("source", SIZES)
def test_longer_cycles_and_several_swaps_are_found(source):
    cycle = renaming(angry="fear", fear="happy", happy="angry")
    expected = {source: {"fear": "angry", "happy": "fear", "angry": "happy"}}
    assert swapped_classes(measured({source: cycle}, skill=0.4)) == expected
    both = renaming(angry="fear", fear="angry", sad="neutral", neutral="sad")
    assert swapped_classes(measured({source: both})) == {source: names(0, 1) | names(3, 5)}
    moved = np.roll(np.arange(6), 2)
    expected = {CLASSES[name]: CLASSES[true] for true, name in enumerate(moved)}
    assert swapped_classes(measured({source: moved}, skill=0.4)) == {source: expected}


def test_different_mistakes_of_two_sources_are_told_apart():
    called = {"ckplus": renaming(**names(2, 3)), "jaffe": renaming(**names(0, 4))}
    assert swapped_classes(measured(called)) == {"ckplus": names(2, 3), "jaffe": names(0, 4)}


def test_of_two_sources_both_are_named():
    sizes = {name: SIZES[name] for name in ("fer2013", "jaffe")}
    for source in sizes:
        confusions = measured({source: renaming(**names(1, 4))}, sizes=sizes)
        assert swapped_classes(confusions) == {name: names(1, 4) for name in sizes}
    cycle = renaming(angry="fear", fear="happy", happy="angry")
    there = {"fear": "angry", "happy": "fear", "angry": "happy"}
    back = {other: name for name, other in there.items()}
    swapped = swapped_classes(measured({"jaffe": cycle}, sizes=sizes, skill=0.6))
    assert swapped in ({"jaffe": there, "fer2013": back}, {"fer2013": back, "jaffe": there})


def test_a_source_that_cannot_be_read_does_not_decide_who_is_right():
    def skill(*sources):
        return 0.0 if "jaffe" in sources else 0.4

    swapped = swapped_classes(measured({"ckplus": renaming(**names(2, 3))}, skill=skill))
    assert swapped == {"fer2013": names(2, 3), "ckplus": names(2, 3)}


def test_classes_without_images_are_no_obstacle():
    sizes = SIZES | {"ckplus": np.array([90, 0, 140, 60, 170, 0])}
    assert swapped_classes(measured({}, sizes=sizes)) == {}
    swapped = swapped_classes(measured({"ckplus": renaming(**names(2, 3))}, sizes=sizes))
    assert swapped == {"ckplus": names(2, 3)}


def test_the_verdict_names_source_and_classes():
    check = checks.same_codes(measured({"ckplus": renaming(**names(2, 3))}))
    assert not check.passed and "ckplus (happy is sad), ckplus (sad is happy)" in check.value
    alone = checks.same_codes(measured({}, sizes={"fer2013": SIZES["fer2013"]}))
    assert alone.passed and alone.value == ALONE


def test_above_chance_names_the_source_that_is_not_read():
    sound = {(ALL, source): np.diag(np.full(6, 20)) + 5 for source in SOURCES}
    assert checks.above_chance(sound, dict.fromkeys(SOURCES, 0.2)).passed
    blind = sound | {(ALL, "ckplus"): np.full((6, 6), 10)}
    check = checks.above_chance(blind, dict.fromkeys(SOURCES, 0.2))
    assert not check.passed and check.value.endswith("not so: ckplus")


@pytest.fixture(scope="module", autouse=True)
def known():
    """Each network is trained once, whoever asks for it."""
    networks, train = {}, checks._fit

    def fit(build, faces, validation, recipe):
        key = (build, recipe, faces.labels.tobytes(), *faces.index["hash"])
        networks[key] = networks.get(key) or train(build, faces, validation, recipe)
        return networks[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_fit", fit)
        yield


@pytest.fixture(scope="module")
def sound(three_sources):
    return checks.source_confusions(BUILD, three_sources, RECIPE, steps=16)


def test_networks_are_tested_on_images_they_have_not_seen(sound):
    assert list(dict.fromkeys(trained_on for trained_on, _ in sound)) == [*SOURCES, ALL]
    assert all(sound[s, s].trace() > 0.7 * sound[s, s].sum() for s in SOURCES)
    assert checks.above_chance(sound, dict.fromkeys(SOURCES, 1 / 6)).passed
    assert checks.same_codes(sound).passed
    # Where a source took part in training, only its validation images are asked for; never a test image.
    assert sound["jaffe", "jaffe"].sum() == sound[ALL, "jaffe"].sum() == 24
    assert sound["fer2013", "jaffe"].sum() == 96


def test_a_swap_is_found_by_training(three_sources, sound):
    broken = three_sources.where(np.ones(len(three_sources), bool))
    mine = broken.index["source"] == "jaffe"
    called = renaming(**names(1, 4))
    broken.index.loc[mine, "label"] = called[broken.labels[mine]].astype(np.int8)
    retrained = checks.source_confusions(BUILD, broken, RECIPE, steps=16)
    assert swapped_classes(retrained) == {"jaffe": names(1, 4)}
    # Networks of the other sources have not seen the labels: without training, theirs are the same.
    expected = checks.exchanged_confusions(sound, "jaffe", "fear", "surprise")
    assert {trained_on for trained_on, _ in expected} == set(SOURCES)
    for pair in itertools.permutations(SOURCES, 2):
        if pair[0] != "jaffe":
            np.testing.assert_array_equal(retrained[pair], expected[pair])


def test_sensitivity_depends_on_what_can_be_told_apart(sound):
    noticed = checks.sensitivity(sound)
    assert list(noticed) == list(SOURCES)
    assert all(counts == {"named": 15, "of": 15, "missed": []} for counts in noticed.values())
    blind = checks.sensitivity(measured({}, skill=0.0))
    assert all(counts["named"] == 0 and len(counts["missed"]) == 15 for counts in blind.values())
    # Where two classes are taken for each other almost half of the time, their exchange changes little.
    confusions = measured({}, skill=0.6)
    for confusion in confusions.values():
        for row, other_row in ((1, 4), (4, 1)):
            both = confusion[row, row] + confusion[row, other_row]
            confusion[row, row] = round(0.53 * both)
            confusion[row, other_row] = both - confusion[row, row]
    assert all(c["missed"] == [["fear", "surprise"]] for c in checks.sensitivity(confusions).values())


class Blind(nn.Module):
    """A network with a loose wire: it does not see the image."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Linear(1, 6)

    def forward(self, images):
        return self.logits(images.new_ones(len(images), 1))


def test_a_sound_network_overfits_a_small_batch_and_a_blind_one_does_not(toy_faces, monkeypatch):
    seen, fit = [], checks.fit

    def short(model, few, judged, recipe, *rest, **how):
        seen.append((few, recipe))
        return fit(model, few, judged, dataclasses.replace(recipe, epochs=recipe.epochs // 3), *rest, **how)

    monkeypatch.setattr(checks, "fit", short)
    assert checks.overfit_small_batch(BUILD, toy_faces, RECIPE, images=25).passed
    few, recipe = seen[0]
    assert len(few) == 25 and set(few.index["split"]) == {"train"} and recipe.weight_decay == 0
    check = checks.overfit_small_batch(Blind, toy_faces, RECIPE, images=25)
    assert not check.passed and check.name.startswith("25 images")


class Leak:
    """A generator that shuffles nothing: true labels reach the network, as a leak would have it."""

    def permutation(self, values):
        return values


def test_shuffled_labels_teach_nothing_unless_there_is_a_leak(toy_faces, monkeypatch):
    recipe = dataclasses.replace(RECIPE, batch_size=60)
    check = checks.shuffled_labels(BUILD, toy_faces, recipe)
    assert check.passed, check.value
    monkeypatch.setattr(checks.np.random, "default_rng", lambda seed: Leak())
    assert not checks.shuffled_labels(BUILD, toy_faces, dataclasses.replace(recipe, epochs=3)).passed


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Three sources of drawn faces, with their mean faces and statistics."""
    emotions, sources = np.repeat(CLASSES, 12), []
    table = pd.DataFrame({"emotion": emotions, "subject": None, "split": "train"})
    for seed, name in enumerate(SOURCES):
        own, images = (
            table.assign(origin=[f"{name}/{i}" for i in table.index]),
            demo_faces(emotions, seed=seed),
        )
        sources.append(FaceSource(name, "toy", own, images, cropped=True, files=()))
    faces = merge(sources, tmp_path_factory.mktemp("side") / "faceset", progress=False)
    return faces, checks.mean_faces(faces), checks.image_statistics(faces)


def test_sound_sources_pass(demo):
    faces, means, statistics = demo
    for check in (checks.lighting(statistics), checks.framing(means), checks.balance(faces.counts())):
        assert check.passed and "not so" not in check.value, check


def zoomed(face, scale):
    centre = (np.array(face.shape) - 1) / 2
    return ndimage.affine_transform(face, np.eye(2) / scale, centre - centre / scale, order=1, mode="nearest")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("change", "pixels", "times"),
    [
        (lambda face: np.roll(face, 7, axis=0), 7, 1),
        (lambda face: np.roll(face, -5, axis=1), 5, 1),
        (lambda face: zoomed(face, 1.2), 0, 1.2),
        (lambda face: zoomed(face, 0.85), 0, 0.85),
    ],
    ids=["down", "left", "tighter", "wider"],
)
def test_another_frame_names_its_source_alone(demo, source, change, pixels, times):
    means = demo[1]
    check = checks.framing(means | {source: np.stack([change(face) for face in means[source]])})
    assert not check.passed and check.value.endswith(f"not so: {source}")
    moved, scale = re.match(r"(\d+) pixels, (\S+) times", check.value).groups()
    assert abs(int(moved) - pixels) <= 1 and abs(float(scale) - times) < 0.04, check.value


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("quantity", "change"),
    [("brightness", lambda v: 255 - v), ("brightness", lambda v: v / 4), ("contrast", lambda v: v / 3)],
)
def test_other_light_names_its_source(demo, source, quantity, change):
    statistics = demo[2].copy()
    column = next(name for name in statistics if name.startswith(quantity))
    if quantity == "brightness":
        statistics[column] += 60  # of middling grey, the inverse is no other
    rows = statistics["source"] == source
    statistics.loc[rows, column] = change(statistics.loc[rows, column])
    check = checks.lighting(statistics)
    assert not check.passed and check.value.endswith(f"not so: {source}")


def test_a_missing_class_names_its_source(demo):
    counts = demo[0].counts()
    counts.loc["fear", ("jaffe", "train")] = 0
    check = checks.balance(counts)
    assert not check.passed and check.value == "0.0%; not so: fear in jaffe"


def test_one_source_has_nothing_to_be_compared_with(demo):
    faces, means, statistics = demo
    alone = faces.where((faces.index["source"] == "jaffe").to_numpy())
    light = checks.lighting(statistics[statistics["source"] == "jaffe"])
    for check in (light, checks.framing({"jaffe": means["jaffe"]})):
        assert check.passed and check.value == ALONE
    assert checks.balance(alone.counts()).value != ALONE


def test_only_classes_in_common_are_laid_over_each_other(demo):
    means = {source: face.copy() for source, face in demo[1].items()}
    means["ckplus"][CLASSES.index("fear")] = np.nan
    assert checks.framing(means).passed
    means["ckplus"][:3], means["jaffe"][3:] = np.nan, np.nan
    assert not checks.framing(means).passed


def test_the_two_that_differ_are_both_named(demo):
    two = {"ckplus": demo[1]["ckplus"], "jaffe": np.roll(demo[1]["jaffe"], 6, axis=1)}
    assert checks.framing(two).value.endswith("not so: ckplus, jaffe")


@pytest.mark.parametrize("alone", [False, True])
def test_the_file_holds_what_the_checks_measured_and_no_face(
    three_sources, sound, tmp_path, monkeypatch, capsys, alone
):
    faces = three_sources
    for name in ("overfit_small_batch", "shuffled_labels"):
        monkeypatch.setattr(checks, name, lambda b, f, r, name=name: checks.Check(name, "1", "1", True))
    if alone:
        faces = faces.where((faces.index["source"] == "fer2013").to_numpy())
    monkeypatch.setenv("FER_BUILD", str(tmp_path))
    space = workspace("demo")
    monkeypatch.setattr(type(space), "faces", lambda self: faces)
    confusions = partial(checks.source_confusions, steps=8) if alone else lambda *_: sound
    monkeypatch.setattr(checks, "source_confusions", confusions)
    monkeypatch.setattr(checks, "recipe_for", lambda *_: ({"width": 0.04, "dropout": 0.1}, RECIPE))
    code = checks.main(["--profile", "demo", "--epochs", "1"])
    report = read_report(space.results / "checks" / "emonet-checks.json")
    assert code == int(not all(check["passed"] for check in report["checks"]))
    printed = capsys.readouterr().out
    assert len(report["checks"]) == 7 and all(check["value"] in printed for check in report["checks"])
    assert [check["value"] == ALONE for check in report["checks"]].count(True) == (3 if alone else 0)
    sources = ["fer2013"] if alone else list(SOURCES)
    assert report["matrix"]["tested_on"] == sources and report["recipe"]["epochs"] == 1
    assert list(report["matrix"]["confusions"]) == (sources if alone else [*sources, ALL])
    assert list(report["sensitivity"]) == ([] if alone else sources)
    counts = {"train": 24, "validation": 8, "test": 8}
    assert report["balance"]["fer2013"] == {s: dict.fromkeys(CLASSES, n) for s, n in counts.items()}
    light = checks.image_statistics(faces).groupby("source")["brightness (mean grey)"].median()
    quantiles = report["statistics"]["fer2013"]["brightness (mean grey)"]["quantiles"]
    assert quantiles[10] == pytest.approx(light["fer2013"]) and len(quantiles) == len(checks.LEVELS)
    # Counts, shares, quantiles and names: nothing as long as a face.
    assert max(len(line) for line in json.dumps(report, indent=1).splitlines()) < 200
