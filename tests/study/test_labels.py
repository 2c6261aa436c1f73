"""Labels against votes: joining FER+, agreement, soft labels, doubted labels, and the commands for it."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import VOTES_HEAD, csv_bytes, refused, write
from scipy.stats import entropy

from fer_utils import cli, results, runs, soft
from fer_utils.datasets import ferplus, read_sources
from fer_utils.datasets.merge import merge
from fer_utils.demo import layouts as demo
from fer_utils.emotions import CLASSES, FER2013, FOLDER_NAMES
from fer_utils.errors import DataError
from fer_utils.files import sha256
from fer_utils.training import Recipe
from fer_utils.votes import NO_VOTES, OUTSIDE, UNDECIDED, Votes, read_votes, soft_labels, votes_on
from fer_utils.workspace import Workspace
from reading_faces.report import label_tables, plots
from reading_faces.study import labels

CODE = {name: code for code, name in FER2013.items()}
WORD = {FOLDER_NAMES.get(word, word): word for word in ferplus.VOTES}
USAGE = {"Training": 240, "PublicTest": 60, "PrivateTest": 60}
TINY = {
    "model_options": {"widths": [4, 8, 8], "hidden": 16},
    "recipe_changes": {"epochs": 4, "batch_size": 32, "augment": None, "lr": 0.05},
}


def ten(**said: int) -> list[int]:
    """Votes by word, in the order of FER+'s columns."""
    assert set(said) <= set(ferplus.VOTES)
    return [said.get(word, 0) for word in ferplus.VOTES]


def votes(*rows: list[int]) -> Votes:
    return Votes(np.array(rows, np.int64).reshape(-1, len(ferplus.VOTES)))


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Workspace:
    """FER2013 with faces that are easy to tell apart, and FER+; in both, some rows are out of the ordinary.

    Rows 0–5 of a usage show the classes in turn and so on; of Training, the first twelve labels are of the
    next class, which the ten contradict, and row 20 is disgust. Rows 30 and 31 are copies with two labels.
    """
    root, rng = tmp_path_factory.mktemp("labels"), np.random.default_rng(0)
    images, codes, usages, lines = [], [], [], [VOTES_HEAD]
    for usage, n in USAGE.items():
        for i in range(n):
            shown, image = i % 6, rng.integers(0, 80, (48, 48), dtype=np.uint8)
            image[8 * shown : 8 * shown + 6, 8:40] += 150
            wrong = usage == "Training" and i < 12
            code = CODE[CLASSES[(shown + wrong) % 6]]
            said = ten(**{WORD[CLASSES[shown]]: 9, "unknown": 1})
            if usage == "Training" and i == 20:
                code, said = CODE["disgust"], ten(disgust=10)
            if usage == "Training" and i == 31:
                image, said = images[30], lines[31].split(",")[2:]
            images.append(image)
            codes.append(code)
            usages.append(usage)
            lines.append(f"{usage},fer{2 * len(lines):07d}.png,{','.join(map(str, said))}")
    write(root / "data" / "fer2013" / "fer2013.csv", csv_bytes(np.array(images), codes, usages))
    write(root / "data" / "fer2013" / "fer2013new.csv", "\n".join(lines) + "\n")
    made = Workspace("demo", root / "data", root, root / "results")
    merge(read_sources(made.data), made.faceset, progress=False)
    return made


rows_of_votes = st.lists(
    st.lists(st.integers(0, 9), min_size=10, max_size=10).map(lambda r: ten(**{ferplus.VOTES[c]: r.count(c)
             for c in range(10)})), min_size=1, max_size=6)  # fmt: skip


@given(rows=rows_of_votes)
def test_votes_are_counted_as_by_hand(rows):
    found = votes(*rows)
    np.testing.assert_allclose(found.shares.sum(1), 1)
    np.testing.assert_allclose(found.entropy, [entropy(row, base=2) for row in rows], atol=1e-9)
    for row, top, majority in zip(rows, found.top, found.majority, strict=True):
        said = Counter(dict(zip(ferplus.VOTES, row, strict=True)))
        first = [word for word, n in said.items() if n == max(row)]
        six = [CLASSES.index(name) for name, word in WORD.items() if word in first and name in CLASSES]
        assert top == (six[0] if len(first) == 1 and six else UNDECIDED if six else OUTSIDE)
        kept = {word: n for word, n in said.items() if n > 1}
        clear = [word for word, n in kept.items() if 2 * n > sum(kept.values())]
        name = FOLDER_NAMES.get(clear[0], clear[0]) if clear else None
        assert majority == (UNDECIDED if not clear else CLASSES.index(name) if name in CLASSES else OUTSIDE)


def test_who_shares_the_first_place():
    found = votes(ten(fear=5, surprise=5), ten(fear=4, contempt=4, anger=2), ten(unknown=4, NF=4, anger=2),
                  ten(fear=4, surprise=3, contempt=3), ten(NF=10), ten())  # fmt: skip
    fear = CLASSES.index("fear")
    assert found.top.tolist() == [UNDECIDED, UNDECIDED, OUTSIDE, fear, OUTSIDE, NO_VOTES]
    assert found.majority.tolist() == [UNDECIDED, UNDECIDED, UNDECIDED, UNDECIDED, OUTSIDE, NO_VOTES]
    assert found.top_share.tolist() == [0.5, 0.4, 0.4, 0.4, 1, 0]
    # Without the words that one person said, five of nine are more than half.
    assert votes(ten(fear=5, surprise=4, anger=1)).majority.tolist() == [fear]
    assert np.isnan(found.entropy[-1]) and not found.voted[-1]


@given(rows=rows_of_votes, share=st.floats(0, 1), seed=st.integers(0, 99))
def test_soft_labels_are_distributions_between_label_and_votes(rows, share, seed):
    found = votes(*rows, ten())
    own = np.random.default_rng(seed).integers(0, 6, len(found))
    soft = soft_labels(own, found, share)
    assert soft.dtype == np.float32 and soft.shape == (len(found), 6)
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(soft[-1], np.eye(6)[own[-1]])
    others = found.shares[:, :6].copy()
    others[np.arange(len(own)), own] = 0
    soft[np.arange(len(own)), own] = 0
    np.testing.assert_allclose(soft, share * others, atol=1e-6)


def test_what_is_said_beside_the_six_words_goes_to_the_label():
    happy, fear = CLASSES.index("happy"), CLASSES.index("fear")
    soft = soft_labels(np.array([happy, happy]), votes(ten(fear=6, contempt=4), ten(NF=10)))
    assert soft[0, [happy, fear]] == pytest.approx([0.4, 0.6])
    assert soft[1, happy] == 1


def test_votes_join_by_where_a_face_came_from(space):
    faces = space.faces()
    found = votes_on(faces, space.data)
    shown = np.array([int(origin.rpartition(":")[2]) - 2 for origin in faces.index["origin"]])
    assert len(faces) == sum(USAGE.values()) - 1 and 20 not in shown
    expected = np.where(shown == 31, 30, shown) % 6
    np.testing.assert_array_equal(found.top, expected)
    some = faces.index["split"].eq("test").to_numpy()
    np.testing.assert_array_equal(votes_on(faces.where(some), space.data).counts, found.counts[some])
    changed = faces.relabelled((faces.labels + 1) % 6)
    np.testing.assert_array_equal(votes_on(changed, space.data).counts, found.counts)


def test_other_sources_have_no_votes(space, three_sources):
    faces = three_sources.where(~three_sources.index["source"].eq("fer2013").to_numpy())
    assert not votes_on(faces, space.data).voted.any()


def test_votes_that_do_not_belong_to_the_faces_are_refused(space, toy_faces, tmp_path):
    with pytest.raises(DataError, match=r"merged from another file.*toy.csv:2") as caught:
        votes_on(toy_faces, space.data)
    assert caught.value.remedy
    error = refused(lambda: read_votes(tmp_path), file=tmp_path, says="FER+'s votes are not below")
    assert "fer2013new.csv" in error.remedy and "fer demo --anew" in error.remedy


def test_disgust_counts_as_anger_where_the_merge_says_so(space, tmp_path):
    folded = merge(read_sources(space.data), tmp_path / "faceset", disgust="angry", progress=False)
    found = votes_on(folded, space.data)
    row = folded.index["emotion"].eq("disgust").to_numpy()
    assert row.sum() == 1 and found.top[row] == CLASSES.index("angry")
    assert found.counts.sum(1).tolist() == [10] * len(folded)


def test_agreement_is_counted_by_split_and_class(space):
    report = labels.write_agreement(space)
    train, test = report["splits"]["train"], report["splits"]["test"]
    # Of 239 training labels twelve are wrong, and one copy of two.
    assert train["images"] == 239 and train["top"]["hits"] == 239 - 13
    assert sum(c["hits"] for c in train["top"]["by_class"].values()) == train["top"]["hits"]
    assert np.sum(train["table"]) == 239 and np.trace(np.array(train["table"])[:, :6]) == 239 - 13
    low, high = train["top"]["interval"]
    assert low < train["top"]["share"] < high
    assert test["top"]["share"] == test["majority"]["share"] == 1 and test["top_votes"][9] == 60
    assert test["entropy"]["mean"] == pytest.approx(entropy([9, 1], base=2))
    assert test["undecided"]["hits"] == test["outside"]["hits"] == 0
    assert report["duplicates"] | {"same_label": 0, "same_votes": 0, "settled": 0} == {
        "groups": 1, "images": 2, "conflicting": 1, "same_label": 0, "same_votes": 0, "settled": 0,
        "conflicting_before_merge": 1,
    }  # fmt: skip
    assert [report["duplicates"][k]["hits"] for k in ("same_label", "same_votes", "settled")] == [0, 1, 1]
    assert json.loads((space.results / "labels" / "agreement.json").read_text(encoding="utf-8")) == report


def test_copies_with_two_labels_are_shown_with_their_votes(space):
    faces = space.faces()
    table = labels.conflicting(faces, votes_on(faces, space.data))
    assert table["label"].tolist() == ["angry", "fear"] and table["group"].tolist() == [1, 1]
    assert table["votes"].tolist() == ["9 anger, 1 unknown"] * 2
    assert labels.in_words(np.array(ten())) == "no votes"


@settings(max_examples=30)
@given(rows=rows_of_votes, seed=st.integers(0, 99))
def test_the_ceiling_is_what_asking_one_of_the_ten_gives(rows, seed):
    found = votes(*rows)
    own = np.random.default_rng(seed).integers(0, 6, len(rows))
    agrees, says, same = [], [], []
    for row, label in zip(rows, own, strict=True):
        people = [word for word, n in enumerate(row) for _ in range(n)]
        same += [a == b for a, b in itertools.permutations(people, 2)]
        for i, word in enumerate(people):
            others = Counter(people[:i] + people[i + 1 :])
            first = [w for w, n in others.items() if n == max(others.values())]
            agrees.append((word in first) / len(first))
            says.append(ferplus.VOTES[word] == WORD[CLASSES[label]])
    ceiling = labels.ceiling(own, found)
    assert ceiling["person_and_others"] == pytest.approx(np.mean(agrees))
    assert ceiling["person_and_label"] == pytest.approx(np.mean(says))
    assert ceiling["person_and_person"] == pytest.approx(np.mean(same))
    assert ceiling["best_against_person"] == pytest.approx(np.mean(found.top_share))
    assert ceiling["best_against_person"] >= ceiling["person_and_label"]


def test_nothing_voted_on_is_no_error():
    assert labels.ceiling(np.zeros(0, int), votes())["person_and_label"] is None
    report = labels.agreement(np.zeros(2, int), votes(ten(), ten()))
    assert report["images"] == 0 and report["top"]["share"] is None


def test_a_network_stands_between_labels_and_votes():
    own = np.array([0, 0, 0, 0, 1])
    found = votes(ten(anger=10), ten(fear=8, anger=2), ten(fear=6, anger=4), ten(NF=10), ten(fear=5, anger=5))
    answers = np.eye(6)[[0, 1, 0, 0, 2]]
    report = labels.by_agreement(own, answers, found)
    assert report["label"]["hits"] == 3 and report["majority"] | {"recall": 0} == {
        **labels.share(2, 3), "recall": 0
    }  # fmt: skip
    assert {name: s["hits"] for name, s in report["sides"].items()} == {"label": 1, "top": 1, "neither": 0}
    assert [band["label"]["of"] for band in report["bands"].values()] == [1, 1, 1, 2]
    assert [band["top"]["of"] for band in report["bands"].values()] == [0, 1, 1, 1]
    assert report["bands"]["eight or nine"]["top"]["hits"] == 1
    assert sum(b["label"]["of"] for b in report["bands"].values()) == report["images"]


@given(total=st.integers(1, 10), most=st.integers(1, 10))
def test_every_share_of_votes_is_in_one_band(total, most):
    share = min(most, total) / total
    assert sum(low <= share <= high for _, low, high in labels.BANDS) == 1 or total < 9


@given(n=st.integers(0, 60), portion=st.floats(0, 1), seed=st.integers(0, 9))
def test_planted_errors_are_errors_and_known(n, portion, seed):
    own = np.random.default_rng(seed).integers(0, 6, n)
    spoilt, wrong = labels.plant(own, portion, seed=seed)
    assert wrong.sum() == round(portion * n)
    np.testing.assert_array_equal(spoilt != own, wrong)
    assert ((spoilt >= 0) & (spoilt < 6)).all()


SETTINGS = {"epochs": 2, "batch_size": 32, "augment": None, "lr": 0.05}
OPTIONS = {"widths": [4, 8, 8], "hidden": 16}


def cross(faces, folder, recipe=None, **how):
    recipe = recipe or Recipe(**SETTINGS)
    training, validation = faces.split("train"), faces.split("validation")
    return labels.out_of_sample(
        "easynet", training, validation, recipe, OPTIONS, folder, verbose=False, **how
    )


def test_nobody_is_asked_about_what_they_learnt(space, tmp_path, monkeypatch):
    seen, fit = [], labels.fit

    def watched(model, train, validation, *rest, **options):
        seen.append((set(train.index["hash"]), set(validation.index["hash"])))
        return fit(model, train, validation, *rest, **options)

    monkeypatch.setattr(labels, "fit", watched)
    faces = space.faces()
    answers = cross(faces, tmp_path, Recipe(**SETTINGS | {"epochs": 1, "schedule": "constant"}))
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    everything = set(faces.split("train").index["hash"])
    held = [everything - trained for trained, _ in seen]
    assert len(held) == 3 and set.union(*held) == everything
    assert sum(map(len, held)) == len(everything)  # each image, with its copies, in one fold
    assert all(not judged & everything for _, judged in seen)
    assert max(map(len, held)) < 1.3 * min(map(len, held))


def test_a_stopped_cross_validation_goes_on_and_ends_the_same(space, tmp_path, monkeypatch):
    whole = cross(space.faces(), tmp_path / "whole")
    fit, calls = labels.fit, []

    def stops(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments, **options)

    monkeypatch.setattr(labels, "fit", stops)
    with pytest.raises(KeyboardInterrupt):
        cross(space.faces(), tmp_path / "cut")
    np.testing.assert_array_equal(cross(space.faces(), tmp_path / "cut", resume=True), whole)
    assert len(calls) == 4  # one fold, the one that was stopped, and the two that were left
    np.testing.assert_array_equal(cross(space.faces(), tmp_path / "cut", resume=True), whole)
    assert len(calls) == 4
    with pytest.raises(DataError, match=r"other settings \(recipe changed\)"):
        cross(space.faces(), tmp_path / "cut", Recipe(**SETTINGS | {"lr": 0.01}), resume=True)
    other = space.faces().relabelled(np.zeros(len(space.faces()), int))
    with pytest.raises(DataError, match=r"\(images changed\)"):
        cross(other, tmp_path / "cut", resume=True)
    with pytest.raises(ValueError, match="at least two"):
        cross(space.faces(), tmp_path / "one", folds=1)
    # What begins anew must not leave the answers of the one before to pupils.
    (tmp_path / "cut" / "out-of-sample.parquet").touch()
    monkeypatch.setattr(labels, "fit", stops)
    calls[1:] = []
    with pytest.raises(KeyboardInterrupt):
        cross(space.faces(), tmp_path / "cut")
    assert not (tmp_path / "cut" / "out-of-sample.parquet").exists()


def test_doubted_labels_are_measured_as_by_hand():
    truth = np.tile(np.arange(6), 50)
    spoilt, wrong = labels.plant(truth, 0.1)
    sure = np.full((300, 6), 0.02) + 0.88 * np.eye(6)[truth]
    errors = labels.find_errors(spoilt, sure)
    assert errors["doubted"].to_numpy().tolist() == wrong.tolist()
    assert errors["instead"].to_numpy().tolist() == truth.tolist()
    rate = labels.hit_rate(errors, wrong)
    assert rate["precision"]["share"] == rate["recall"]["share"] == rate["auc"] == 1
    assert rate["first"]["100"]["hits"] == 30 and "500" not in rate["first"]
    # Against something that has nothing to do with it, precision is that of doubting at random.
    rate = labels.hit_rate(errors, np.arange(300) % 2 == 0)
    low, high = rate["auc_interval"]
    assert low < 0.5 < high and rate["precision"]["interval"][0] < 0.5 < rate["precision"]["interval"][1]
    assert labels.hit_rate(errors, np.zeros(300, bool))["auc"] is None


@pytest.fixture(scope="module")
def doubts(space):
    return labels.crossfit(space, verbose=False, **TINY)


def test_what_the_ten_found_is_found_by_networks(space, doubts):
    assert json.loads((space.results / "labels" / "issues.json").read_text(encoding="utf-8")) == doubts
    assert doubts["differs"]["wrong"]["hits"] == 13 and doubts["images"] == 239
    assert doubts["differs"]["auc"] > 0.9 and doubts["differs"]["recall"]["share"] > 0.6
    assert doubts["agree"]["share"] > 0.8
    assert doubts["unsaid"]["wrong"]["hits"] == 13
    kept = pd.read_parquet(space.runs / doubts["name"] / "out-of-sample.parquet")
    assert kept["origin"].tolist() == space.faces().split("train").index["origin"].tolist()
    worst = kept.sort_values("quality").iloc[0]
    first = doubts["worst"][0]
    assert first["origin"] == worst["origin"] and first["label"] == CLASSES[worst["label"]]
    assert first["votes"].endswith("1 unknown") and len(doubts["worst"]) == labels.WORST
    assert sum(c["wrong"]["hits"] for c in doubts["by_class"].values()) == 13
    assert doubts["training_seconds"] > 0


@pytest.fixture(scope="module")
def networks(space):
    for kind in ("own", "ferplus"):
        runs.train(space, "easynet", labels=kind, name=f"labels/{kind}", verbose=False, **TINY)
    runs.evaluate(space, "labels/own", test=True)
    runs.evaluate(space, "labels/ferplus")
    return labels.write_networks(space, ["labels/own", "labels/ferplus"])


def test_runs_say_which_labels_they_learnt_from(space, networks):
    soft = results.read(space.results / "labels" / "ferplus.json")
    assert soft["labels"]["kind"] == "ferplus" and soft["labels"]["share"] == 1
    assert results.read(space.results / "labels" / "own.json")["labels"] is None
    assert [run["labels"] for run in networks["runs"].values()] == ["own", "ferplus"]
    assert list(networks["runs"]["labels/own"]["splits"]) == ["validation", "test"]
    assert list(networks["runs"]["labels/ferplus"]["splits"]) == ["validation"]
    own = results.read(space.results / "labels" / "own.json")["test"]["fer2013"]["accuracy"]
    assert networks["runs"]["labels/own"]["splits"]["test"]["label"]["share"] == pytest.approx(own)


def test_a_run_on_votes_aims_at_them(space, monkeypatch):
    seen, fit = {}, runs.fit

    def watched(*arguments, targets, **options):
        seen["targets"] = targets
        return fit(*arguments, targets=targets, **options)

    monkeypatch.setattr(runs, "fit", watched)
    options = {"name": "aims", "verbose": False, **TINY}
    runs.train(space, "easynet", labels="ferplus", share=0.5, **options)
    training = space.faces().split("train")
    expected = soft_labels(training.labels, votes_on(training, space.data), 0.5)
    np.testing.assert_array_equal(seen["targets"], expected)
    runs.train(space, "easynet", labels="ferplus", share=0.5, resume=True, **options)
    with pytest.raises(DataError, match="labels changed"):
        runs.train(space, "easynet", resume=True, **options)
    with pytest.raises(ValueError, match="not ferplus with teachers"):
        runs.train(space, "easynet", labels="ferplus", teachers=["aims"], **options)
    with pytest.raises(ValueError, match="one of own, ferplus, both"):
        runs.train(space, "easynet", labels="crowd", **options)


def test_votes_as_a_second_question(space, networks, monkeypatch):
    seen, fit = {}, runs.fit

    def watched(*arguments, targets, **options):
        seen["targets"] = targets
        return fit(*arguments, targets=targets, **options)

    monkeypatch.setattr(runs, "fit", watched)
    training = space.faces().split("train")
    shares = votes_on(training, space.data).shares
    done = runs.train(space, "easynet", labels="both", name="beside", verbose=False, **TINY)
    np.testing.assert_array_equal(seen["targets"][:, :6], np.eye(6)[training.labels])
    np.testing.assert_allclose(seen["targets"][:, 6:], shares, rtol=1e-6)
    assert done.model.classifier.fc2.out_features == 6
    told = results.read(runs.evaluate(space, "beside"))
    assert told["labels"]["kind"] == "both" and told["labels"]["share"] == 1
    taught = {"teachers": ["labels/own"], "labels": "both", "share": 0.5, "name": "beside-taught"}
    runs.train(space, "easynet", verbose=False, **taught, **TINY)
    assert (seen["targets"][:, :6].max(1) < 1).any()
    np.testing.assert_allclose(seen["targets"][:, :6].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(seen["targets"][:, 6:], shares / 2, rtol=1e-6)
    told = results.read(runs.evaluate(space, "beside-taught"))
    assert told["labels"]["share"] == 0.5 and told["teachers"]["share"] == 0.7
    with pytest.raises(ValueError, match="must be above 0"):
        runs.train(space, "easynet", labels="both", share=0.0, verbose=False, **TINY)


def test_a_second_question_is_asked_of_the_other_folds_only(space, tmp_path, monkeypatch):
    seen, fit = [], labels.fit

    def watched(model, train, *rest, targets, **options):
        seen.append((train, targets))
        return fit(model, train, *rest, targets=targets, **options)

    monkeypatch.setattr(labels, "fit", watched)
    training = space.faces().split("train")
    second = np.random.default_rng(0).dirichlet(np.ones(7), len(training)).astype(np.float32)
    recipe = Recipe(**SETTINGS | {"epochs": 1, "schedule": "constant"})
    answers = cross(space.faces(), tmp_path, recipe, second=second)
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    place = {origin: row for row, origin in enumerate(training.index["origin"])}
    for train, targets in seen:
        rows = [place[origin] for origin in train.index["origin"]]
        np.testing.assert_array_equal(targets[:, :6].argmax(1), training.labels[rows])
        np.testing.assert_array_equal(targets[:, 6:], second[rows])
    with pytest.raises(DataError, match=r"\(second changed\)"):
        cross(space.faces(), tmp_path, recipe, second=second[::-1], resume=True)
    with pytest.raises(DataError, match=r"\(second changed\)"):
        cross(space.faces(), tmp_path, recipe, resume=True)


def test_a_cross_validation_teaches_with_answers_to_faces_it_had_not_seen(space, doubts, monkeypatch):
    before = (space.results / "labels" / "issues.json").read_bytes()
    how = {"model_options": {"width": 0.125}, "recipe_changes": TINY["recipe_changes"] | {"epochs": 1}}
    report = labels.crossfit(space, "emonet", votes_too=True, verbose=False, **how)
    assert report["labels"]["kind"] == "both" and report["name"] == "crossfit/emonet-seed0"
    assert (space.results / "labels" / "issues.json").read_bytes() == before
    path = space.results / "labels" / "issues-emonet-both.json"
    assert json.loads(path.read_text(encoding="utf-8")) == report
    seen, fit = {}, runs.fit

    def watched(*arguments, targets, **options):
        seen["targets"] = targets
        return fit(*arguments, targets=targets, **options)

    monkeypatch.setattr(runs, "fit", watched)
    done = runs.train(space, "easynet", name="pupil", teachers=[report["name"]], verbose=False, **TINY)
    training = space.faces().split("train")
    table = space.runs / report["name"] / "out-of-sample.parquet"
    told = pd.read_parquet(table)[[f"p_{c}" for c in CLASSES]].to_numpy()
    np.testing.assert_allclose(seen["targets"], 0.3 * np.eye(6)[training.labels] + 0.7 * told, rtol=1e-5)
    about = json.loads((done.folder / "run.json").read_text(encoding="utf-8"))
    assert about["teachers"]["checkpoints"] == {report["name"]: sha256(table)}
    with pytest.raises(DataError, match="asked about other faces"):
        soft.answers(space, [report["name"]], space.faces().split("validation"))


def test_no_image_is_read_to_score_runs_by_votes(space, networks, monkeypatch):
    monkeypatch.setattr("fer_utils.datasets.faceset.FaceSet.take", lambda *_: pytest.fail("images were read"))
    assert labels.write_networks(space, list(networks["runs"]))["runs"] == networks["runs"]
    with pytest.raises(DataError, match="no validation predictions"):
        labels.write_networks(space, ["nobody"])


def test_the_commands_say_what_the_files_say(space, networks, doubts, capsys, monkeypatch):
    monkeypatch.setattr(cli, "_workspace", lambda options: space)
    assert cli.main(["labels", "--runs", "labels/own"]) == 0
    said = capsys.readouterr().out
    top = labels.write_agreement(space)["splits"]["train"]["top"]["share"]
    own = networks["runs"]["labels/own"]["splits"]["test"]["majority"]["share"]
    assert f"{top:.1%}" in said and f"{own:.1%} of 60 majorities" in said
    small = ["--option", "widths=[4, 8, 8]", "--option", "hidden=16", "--epochs", "4", "--resume"]
    small += [x for pair in ("batch_size=32", "augment=null", "lr=0.05") for x in ("--set", pair)]
    monkeypatch.setattr(labels, "fit", lambda *a, **k: pytest.fail("trained again"))
    assert cli.main(["crossfit", *small]) == 0
    found = doubts["differs"]
    assert f"{found['doubted']} of 239 labels are doubted" in capsys.readouterr().out


def test_without_votes_the_commands_stop_before_any_training(space, tmp_path, capsys, monkeypatch):
    bare = replace(space, data=tmp_path)
    monkeypatch.setattr(cli, "_workspace", lambda options: bare)
    monkeypatch.setattr(labels, "fit", lambda *a, **k: pytest.fail("trained"))
    monkeypatch.setattr(runs, "fit", lambda *a, **k: pytest.fail("trained"))
    for command in (["labels"], ["crossfit"], ["train", "easynet", "--labels", "ferplus"]):
        assert cli.main(command) == 1
        said = capsys.readouterr().err
        assert "FER+'s votes are not below" in said and "Traceback" not in said


def test_imagined_people_vote_on_the_drawn_faces(tmp_path):
    demo.write_demo(tmp_path / "data", fer2013=200, ckplus=1, jaffe=1)
    source = read_sources(tmp_path / "data", ["fer2013"])[0]
    path = ferplus.find(tmp_path / "data")
    table = ferplus.read(path, source)
    counts = table[list(ferplus.VOTES)].to_numpy()
    assert (counts.sum(1) == 10).all()
    flat = np.array([image.min() == image.max() for image in source.images])
    assert flat.sum() == 2 and (table.loc[flat, "NF"] == 10).all() and (table.loc[flat, "name"] == "").all()
    groups: dict[bytes, list[int]] = {}
    for i, image in enumerate(source.images):
        groups.setdefault(image.tobytes(), []).append(i)
    copies = [rows for rows in groups.values() if len(rows) > 1]
    assert copies and all((counts[rows] == counts[rows[0]]).all() for rows in copies)
    six = source.table["emotion"].isin(CLASSES).to_numpy() & ~flat
    own = source.table["emotion"].map(lambda name: CLASSES.index(name) if name in CLASSES else 0).to_numpy()
    agreement = (Votes(counts).top == own)[six].mean()
    assert 0.8 < agreement < 0.98  # some faces are ambiguous, on purpose


def test_tables_show_the_reports_or_say_that_there_are_none(space, doubts, networks):
    report = labels.write_agreement(space)
    table = label_tables.agreement_table(report["splits"])
    assert table.loc["all", "train"].startswith(f"{100 * report['splits']['train']['top']['share']:.1f} %")
    assert label_tables.ceiling_table(report["splits"]).shape == (5, 3)
    bits = label_tables.entropy_table(report["splits"])
    assert list(bits.index) == [*CLASSES, "all"]
    assert bits.loc["all", "train"] == f"{report['splits']['train']['entropy']['mean']:.2f}"
    assert label_tables.duplicates_table(report["duplicates"]).iloc[2, 0] == "1"
    assert label_tables.issues_table(doubts).loc["labels"].tolist() == ["239", "239"]
    assert "3 folds" in label_tables.issues_reading(doubts)
    assert list(label_tables.networks_table(networks).index) == ["labels/own"]
    own = networks["runs"]["labels/own"]
    worse = json.loads(json.dumps(own)) | {"labels": "ferplus"}
    for key in ("label", "majority"):
        worse["splits"]["validation"][key]["share"] -= 0.25
    several = {"runs": {"easynet-seed0": own, "easynet-seed1": own, "labels/votes-seed0": worse}}
    soft = label_tables.soft_table(several, "validation")
    assert list(soft["seeds"].items()) == [("easynet", 2), ("labels/votes", 1)]
    assert list(soft["aimed at"]) == ["FER2013's labels", "votes of FER+"]
    compared = ("labels/votes", "easynet", "validation")
    assert label_tables.soft_reading(several, *compared).startswith("−25.0 points (−")
    assert label_tables.soft_reading(networks, *compared) == "not run yet"
    said = label_tables.shares_reading(several, ["easynet-seed0", "labels/votes-seed0"], "validation")
    share = own["splits"]["validation"]["label"]["share"]
    assert said.startswith(f"{100 * share:.1f} %") and said.count("%") == 8
    assert label_tables.shares_reading(None, []) == "not run yet"
    facts = label_tables.facts(report)
    assert facts.keys() == label_tables.facts(None).keys()
    assert facts["labels-conflicts"] == "1" and facts["labels-copies"] == "100.0 %"
    result = results.read(space.results / "labels" / "own.json")
    assert "points" in label_tables.habits(report, [result])
    for nothing in (
        label_tables.agreement_table(None), label_tables.entropy_table(None),
        label_tables.ceiling_table(None), label_tables.issues_table(None),
        label_tables.duplicates_table(None), label_tables.networks_table(None), label_tables.soft_table(None),
    ):  # fmt: skip
        assert "not run yet" in nothing.to_string()
    assert "not run yet" in label_tables.habits(None, [result]) + label_tables.issues_reading(None)


def test_figures_show_what_they_are_given(space, networks):
    report = labels.write_agreement(space)
    found = votes_on(space.faces(), space.data)
    figure = label_tables.agreement_figure(report["splits"])
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["train", "validation", "test"]
    texts = {t.get_text() for t in label_tables.table_figure(report["splits"]["test"]).axes[0].texts}
    assert texts == {"100 %\n10", "0 %\n0"}
    names = [
        t.get_text() for t in label_tables.bands_figure(networks, ["labels/own"]).axes[0].get_xticklabels()
    ]
    assert names[2] == "eight or nine\n60 images"
    images, shares = space.faces().take([0, 1, 2]), found.shares[:3]
    grid = plots.votes_grid(images, [1, 2, 3], shares)
    assert [bar.get_width() for bar in grid.axes[3].patches][:7] == pytest.approx(shares[0])
    line = plots.found_by_effort({"wrong": np.array([True, False, True, False])}).axes[0].lines[0]
    assert line.get_ydata().tolist() == [0, 0.5, 0.5, 1, 1]
    for bad in (
        lambda: plots.votes_grid(images, [1, 2, 3], shares[:, :6]),
        lambda: plots.label_votes(np.zeros((6, 6)), ["a"]),
        lambda: plots.found_by_effort({"none": np.zeros(3, bool)}),
        lambda: plots.share_intervals({"a": {"b": None}}, ["c"], label="share"),
    ):
        with pytest.raises(ValueError, match=r"."):
            bad()


def test_faces_for_the_eye_are_clear_ones_and_unclear_ones():
    found = votes(
        ten(fear=10), ten(fear=5, anger=5), ten(NF=10), ten(sadness=7, anger=3), ten(happiness=9, NF=1)
    )
    assert label_tables.clear_and_unclear(found).tolist() == [0, 4, 1]
