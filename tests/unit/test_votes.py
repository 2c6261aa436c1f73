"""FER+: votes joined to faces, soft labels, and trainings on both (for CORE: moves to test_experiment)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import VOTES_HEAD, csv_bytes, refused, write
from scipy.stats import entropy

from fer_utils import results, runs
from fer_utils.datasets import ferplus, read_sources
from fer_utils.datasets.merge import merge
from fer_utils.demo import layouts as demo
from fer_utils.emotions import CLASSES, FER2013, FOLDER_NAMES
from fer_utils.errors import DataError
from fer_utils.votes import NO_VOTES, OUTSIDE, UNDECIDED, Votes, read_votes, soft_labels, votes_on
from fer_utils.workspace import Workspace

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


def test_votes_as_a_second_question(space, monkeypatch):
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
    taught = {"teachers": ["beside"], "labels": "both", "share": 0.5, "name": "beside-taught"}
    runs.train(space, "easynet", verbose=False, **taught, **TINY)
    assert (seen["targets"][:, :6].max(1) < 1).any()
    np.testing.assert_allclose(seen["targets"][:, :6].sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(seen["targets"][:, 6:], shares / 2, rtol=1e-6)
    told = results.read(runs.evaluate(space, "beside-taught"))
    assert told["labels"]["share"] == 0.5 and told["teachers"]["share"] == 0.7
    with pytest.raises(ValueError, match="must be above 0"):
        runs.train(space, "easynet", labels="both", share=0.0, verbose=False, **TINY)


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
