"""Labels and networks against the ten votes of FER+, counted again by hand."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import VOTES_HEAD, csv_bytes, write
from scipy.stats import entropy

from fer_utils.datasets import ferplus, read_sources
from fer_utils.datasets.merge import merge
from fer_utils.emotions import CLASSES, FER2013, FOLDER_NAMES
from fer_utils.errors import DataError
from fer_utils.experiment import Workspace, evaluate, train, votes_on
from fer_utils.training import Recipe
from reading_faces.study import agreement, crossfit
from reading_faces.study.agreement import OUTSIDE, UNDECIDED
from reading_faces.study.store import share

CODE = {name: code for code, name in FER2013.items()}
WORD = {FOLDER_NAMES.get(word, word): word for word in ferplus.VOTES}
USAGE = {"Training": 240, "PublicTest": 60, "PrivateTest": 60}
OPTIONS = {"widths": [4, 8, 8], "hidden": 16}
RECIPE = {"epochs": 4, "batch_size": 32, "augment": None, "lr": 0.05}
SHORT = RECIPE | {"epochs": 1, "batches": 3}


def ten(**words: int) -> list[int]:
    """Votes by word, in the order of FER+'s columns."""
    assert set(words) <= set(ferplus.VOTES)
    return [words.get(word, 0) for word in ferplus.VOTES]


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Workspace:
    """FER2013 with faces that are easy to tell apart, and FER+.

    Row i of a usage shows class i modulo 6. The first twelve labels of Training are of the next class, which
    the ten contradict; rows 30 and 31 are copies with two labels.
    """
    root, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    images, codes, usages, lines = [], [], [], [VOTES_HEAD]
    for usage, n in USAGE.items():
        for i in range(n):
            shown, image = i % 6, rng.integers(0, 80, (48, 48), dtype=np.uint8)
            image[8 * shown : 8 * shown + 6, 8:40] += 150
            wrong = usage == "Training" and i < 12
            votes = ten(**{WORD[CLASSES[shown]]: 9, "unknown": 1})
            if usage == "Training" and i == 31:
                image, votes = images[30], lines[31].split(",")[2:]
            images.append(image)
            codes.append(CODE[CLASSES[(shown + wrong) % 6]])
            usages.append(usage)
            lines.append(f"{usage},fer{2 * len(lines):07d}.png,{','.join(map(str, votes))}")
    write(root / "data" / "fer2013" / "fer2013.csv", csv_bytes(np.array(images), codes, usages))
    write(root / "data" / "fer2013" / "fer2013new.csv", "\n".join(lines) + "\n")
    made = Workspace("demo", root / "data", root, root / "results")
    merge(read_sources(made.data), made.faceset, progress=False)
    return made


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    more = crossfit.bootstrap
    monkeypatch.setattr(crossfit, "bootstrap", lambda *a, **how: more(*a, **how | {"n_resamples": 40}))


@pytest.fixture
def here(space, monkeypatch) -> Workspace:
    """The same, as the place in which both commands work, with a small EasyNet."""
    for module in (agreement, crossfit):
        monkeypatch.setattr(module, "workspace", lambda profile: space)
    monkeypatch.setattr(crossfit, "recipe_for", lambda *_: (OPTIONS, Recipe(**RECIPE)))
    return space


def report(space: Workspace, name: str) -> dict:
    return json.loads((space.results / "labels" / f"{name}.json").read_text(encoding="utf-8"))


rows_of_votes = st.lists(
    st.lists(st.integers(0, 9), min_size=10, max_size=10).map(lambda words: np.bincount(words, minlength=10)),
    min_size=1,
    max_size=6,
).map(np.array)


@given(votes=rows_of_votes)
def test_the_top_word_and_the_majority_are_those_counted_by_hand(votes):
    words = [FOLDER_NAMES.get(word, word) for word in ferplus.VOTES]
    for row, top, strict in zip(votes, agreement.plurality(votes), agreement.majority(votes), strict=True):
        first = [word for word, n in zip(words, row, strict=True) if n == row.max()]
        six = [CLASSES.index(word) for word in first if word in CLASSES]
        assert top == (UNDECIDED if six and len(first) > 1 else six[0] if six else OUTSIDE)
        kept = {word: n for word, n in zip(words, row, strict=True) if n > 1}
        clear = [word for word, n in kept.items() if 2 * n > sum(kept.values())]
        by_hand = [CLASSES.index(word) if word in CLASSES else OUTSIDE for word in clear] or [UNDECIDED]
        assert [strict] == by_hand


@settings(max_examples=30)
@given(votes=rows_of_votes, seed=st.integers(0, 99))
def test_the_ceiling_is_what_asking_one_of_the_ten_gives(votes, seed):
    labels = np.random.default_rng(seed).integers(0, 6, len(votes))
    agrees, own, same = [], [], []
    for row, label in zip(votes, labels, strict=True):
        people = [word for word, n in enumerate(row) for _ in range(n)]
        same += [a == b for a, b in itertools.permutations(people, 2)]
        for i, word in enumerate(people):
            others = Counter(people[:i] + people[i + 1 :])
            first = [w for w, n in others.items() if n == max(others.values())]
            agrees.append((word in first) / len(first))
            own.append(ferplus.VOTES[word] == WORD[CLASSES[label]])
    ceiling = agreement.ceiling(labels, votes)
    assert ceiling["person_and_others"] == pytest.approx(np.mean(agrees))
    assert ceiling["person_and_label"] == pytest.approx(np.mean(own))
    assert ceiling["person_and_person"] == pytest.approx(np.mean(same))
    assert ceiling["best_against_person"] == pytest.approx(np.mean(votes.max(1) / 10))
    assert ceiling["best_against_person"] >= ceiling["person_and_label"]


def test_the_report_counts_planted_disagreement_and_copies(here):
    agreement.main([])
    made = report(here, "agreement")
    train, test = made["splits"]["train"], made["splits"]["test"]
    assert train["images"] == 240 and train["top"]["hits"] == 240 - 13  # one of the copies, too
    assert sum(c["hits"] for c in train["top"]["by_class"].values()) == 240 - 13
    assert np.sum(train["table"]) == 240 and np.trace(np.array(train["table"])[:, :6]) == 240 - 13
    assert test["top"]["share"] == test["majority"]["share"] == 1
    assert test["entropy"]["mean"] == pytest.approx(entropy([9, 1], base=2))
    assert test["undecided"]["hits"] == test["outside"]["hits"] == 0
    copies = made["duplicates"]
    counted = {"groups": 1, "images": 2, "conflicting": 1, "conflicting_before_merge": 1}
    assert copies.items() >= counted.items()
    assert [copies[k]["hits"] for k in ("same_label", "same_votes", "settled")] == [0, 1, 1]


def test_a_network_stands_between_labels_and_votes():
    labels, predicted = np.array([0, 0, 0, 0, 1]), np.array([0, 1, 0, 0, 2])
    clear = [ten(anger=10), ten(fear=8, anger=2), ten(fear=6, anger=4)]
    votes = np.array([*clear, ten(NF=10), ten(fear=5, anger=5)])
    scores = agreement.between(labels, predicted, votes)
    assert scores["label"]["hits"] == 3 and scores["majority"] == share(np.array([True, True, False]))
    assert {name: s["hits"] for name, s in scores["sides"].items()} == {"label": 1, "top": 1, "neither": 0}
    assert [band["label"]["of"] for band in scores["bands"].values()] == [1, 1, 1, 2]
    assert [band["top"]["of"] for band in scores["bands"].values()] == [0, 1, 1, 1]
    assert scores["bands"]["eight or nine"]["top"]["hits"] == 1


@given(total=st.integers(9, 10), most=st.integers(1, 10))
def test_every_share_of_votes_is_in_one_band(total, most):
    largest = min(most, total) / total
    assert sum(low <= largest <= high for low, high in agreement.BANDS.values()) == 1


def test_nothing_has_no_share():
    assert share(np.zeros(0, bool)) == {"hits": 0, "of": 0, "share": None, "interval": None}
    low, high = share(np.arange(10) < 5)["interval"]
    assert low < 0.5 < high


def test_runs_are_scored_from_their_stored_predictions(here, monkeypatch):
    for kind in ("own", "ferplus"):
        train(here, "easynet", labels=kind, name=f"labels/{kind}", verbose=False, **OPTIONS, **SHORT)
        evaluate(here, f"labels/{kind}", test=kind == "own")
    monkeypatch.setattr("fer_utils.datasets.faceset.FaceSet.take", lambda *_: pytest.fail("images were read"))
    agreement.main(["--runs", "labels/own", "labels/ferplus"])
    own, votes = report(here, "networks")["runs"].values()
    assert (own["labels"], votes["labels"]) == ("own", "ferplus")
    assert list(own["splits"]) == ["validation", "test"] and list(votes["splits"]) == ["validation"]
    result = json.loads((here.results / "labels" / "own.json").read_text(encoding="utf-8"))
    assert own["splits"]["test"]["label"]["share"] == pytest.approx(result["test"]["fer2013"]["accuracy"])
    with pytest.raises(DataError):
        agreement.main(["--runs", "nobody"])


def test_predictions_on_other_images_are_refused(here, three_sources):
    faces = three_sources.where(three_sources.index["source"].eq("fer2013").to_numpy())
    with pytest.raises(DataError, match="evaluated on other validation images"):
        agreement.run_between(here, faces, np.ones((len(faces), 10), int), "labels/own")


def folds(space: Workspace, folder, **changes) -> np.ndarray:
    faces = space.faces()
    targets = np.eye(6, dtype=np.float32)[faces.split("train").labels]
    recipe = Recipe(**SHORT | changes)
    return crossfit.out_of_fold_predictions("easynet", OPTIONS, recipe, faces, targets, folder, resume=True)


def test_no_network_predicts_what_it_was_trained_on(space, tmp_path, monkeypatch):
    seen, fit = [], crossfit.fit

    def watched(model, train, validation, *rest, targets, **options):
        seen.append((set(train.index["hash"]), set(validation.index["hash"])))
        np.testing.assert_array_equal(targets.argmax(1), train.labels)
        return fit(model, train, validation, *rest, targets=targets, **options)

    monkeypatch.setattr(crossfit, "fit", watched)
    predicted = folds(space, tmp_path)
    np.testing.assert_allclose(predicted.sum(1), 1, rtol=1e-5)
    everything = set(space.faces().split("train").index["hash"])
    held = [everything - trained for trained, _ in seen]
    assert len(held) == 3 and set.union(*held) == everything
    assert sum(map(len, held)) == len(everything)  # each image, with its copies, in one fold
    assert all(not judged & everything for _, judged in seen)
    assert max(map(len, held)) < 1.3 * min(map(len, held))


def test_a_stopped_cross_validation_goes_on_and_ends_the_same(space, tmp_path, monkeypatch):
    whole = folds(space, tmp_path / "whole")
    fit, calls = crossfit.fit, []

    def stops(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(crossfit, "fit", stops)
    with pytest.raises(KeyboardInterrupt):
        folds(space, tmp_path / "cut")
    np.testing.assert_array_equal(folds(space, tmp_path / "cut"), whole)
    np.testing.assert_array_equal(folds(space, tmp_path / "cut"), whole)
    assert len(calls) == 4  # one fold, the one that was stopped, and the two that were left
    folds(space, tmp_path / "cut", lr=0.01)  # other settings: no fold is taken over
    assert len(calls) == 7


def test_doubted_labels_are_counted_as_by_hand():
    truth, rng = np.tile(np.arange(6), 50), np.random.default_rng(0)
    wrong = rng.random(300) < 0.1
    labels = np.where(wrong, (truth + rng.integers(1, 6, 300)) % 6, truth)
    predicted = np.full((300, 6), 0.02) + 0.88 * np.eye(6)[truth]
    votes = np.array([ten(**{WORD[CLASSES[i]]: 7, "contempt": 3}) for i in truth])
    votes[0] = ten(fear=5, sadness=5)
    made = crossfit.doubts(labels, predicted, votes)
    rate = made["differs"]
    assert made["images"] == 299 and rate["wrong"]["hits"] == wrong[1:].sum() == made["unvoted"]["doubted"]
    assert rate["precision"]["share"] == rate["recall"]["share"] == rate["auc"] == made["agree"]["share"] == 1
    assert rate["first"]["100"]["hits"] == wrong[1:].sum() and "500" not in rate["first"]
    # Against votes that have nothing to do with the labels, a doubt is worth nothing.
    rate = crossfit.doubts(labels, predicted, rng.permutation(votes[1:].repeat(2, 0))[:300])["differs"]
    low, high = rate["auc_interval"]
    assert low < 0.5 < high and rate["precision"]["interval"][0] < rate["wrong"]["share"]


def test_networks_doubt_what_the_ten_contradict_and_can_teach(here):
    crossfit.main(["easynet", "epochs=5"])
    made = report(here, "issues")
    assert made["recipe"]["epochs"] == 5 and made["training_seconds"] > 0 and made["images"] == 240
    assert made["differs"]["wrong"]["hits"] == made["unvoted"]["wrong"]["hits"] == 13
    assert made["differs"]["auc"] > 0.9 and made["differs"]["recall"]["share"] > 0.6
    pupil = train(here, "easynet", name="pupil", teachers=[made["name"]], verbose=False, **OPTIONS, **SHORT)
    assert (pupil.folder / "model.safetensors").exists()


def test_votes_can_be_learnt_as_an_auxiliary_task(here, monkeypatch):
    seen, fit = [], crossfit.fit

    def watched(*arguments, targets, **options):
        seen.append((arguments[1], targets))
        return fit(*arguments, targets=targets, **options)

    monkeypatch.setattr(crossfit, "fit", watched)
    crossfit.main(["easynet", "epochs=1", "labels=both", "precision=32-true"])
    assert report(here, "issues-easynet-both")["labels"] == {"kind": "both"}
    for faces, targets in seen:
        votes = votes_on(faces.index, here.data)
        np.testing.assert_allclose(targets[:, 6:].sum(1), 1, rtol=1e-6)
        np.testing.assert_array_equal(targets[:, 6:12].argmax(1), votes[:, crossfit.SIX].argmax(1))
