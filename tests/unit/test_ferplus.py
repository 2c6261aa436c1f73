"""FER+: votes by row, blank names, and files that do not fit to FER2013."""

import layouts as made
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_utils.datasets import fer2013, ferplus


def both(root, text=made.VOTES, columns=("emotion", "pixels", "Usage"), name="fer2013.csv"):
    made.write(root / name, made.fer2013_csv(columns=columns))
    path = made.write(root / "fer2013new.csv", text)
    return path, made.load(fer2013, root)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return both(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("packing", made.PACKINGS)
@pytest.mark.parametrize(
    "place", ["fer2013new.csv", "FERPlus/fer2013new.csv", "FER2013/FER2013/FER2013New.csv"]
)
def test_votes_plain_and_packed(tmp_path, packing, place):
    made.write(tmp_path / f"{place}{packing}", made.pack(packing, made.VOTES.encode(), "fer2013new.csv"))
    votes = ferplus.read(ferplus.find(tmp_path))
    assert list(votes.columns) == ["usage", "name", *ferplus.VOTES]
    assert votes["name"].tolist()[5:9] == ["fer0000005.png", "", "fer0000008.png", "fer0000009.png"]
    assert votes["happiness"].tolist() == [0 if i == 6 else 9 - i % 3 for i in range(14)]
    assert (votes[list(ferplus.VOTES)].sum(axis=1) == 10).all()
    assert votes.loc[6, "NF"] == 10


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("Training,fer0000099.png,1,9", "surprise is ''"),
        ("Train,fer0000099.png,1,9,0,0,0,0,0,0,0,0", "usage is 'Train'"),
        ("Training,fer0000099.png,1,x,0,0,0,0,0,0,0,0", "happiness is 'x'"),
        ("Training,fer0000099.png,1,,0,0,0,0,0,0,0,0", "happiness is ''"),
        ("Training,fer0000099.png,1,11,0,0,0,0,0,0,0,0", "happiness is '11'"),
        ("Training,fer0000099.png,1,²,0,0,0,0,0,0,0,0", "happiness is '²'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, row, says):
    path = made.write(
        tmp_path / "fer2013new.csv", "\n".join([made.VOTES_HEAD, made.VOTES_ROWS[0], row, made.VOTES_ROWS[1]])
    )
    made.refused(lambda: ferplus.read(path), file=path, row=3, says=says)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "No columns"),
        (made.VOTES_HEAD + "\n", "no rows"),
        (made.VOTES.replace(",NF", "", 1), "the header is 'Usage, Image name"),
        (made.VOTES.replace("fear,contempt", "contempt,fear", 1), "the header is"),
        (bytes(range(256)) * 99, ""),
        (f'{made.VOTES_HEAD}\nTraining,"{"x" * 2_000}', "EOF inside string"),
        (f"{made.VOTES_HEAD}\n{made.VOTES_ROWS[0]},0\n", "usage is"),
        (f"{made.VOTES}{made.VOTES_ROWS[0]},0\n", "Expected 12 fields"),
    ],
)
def test_a_file_that_is_no_table_of_votes_is_refused(tmp_path, data, says):
    path = made.write(tmp_path / "fer2013new.csv", data)
    made.refused(lambda: ferplus.read(path), file=path, says=says)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, len(made.VOTES) - 2))
def test_a_file_cut_short_does_not_join(whole, cut):
    path, source = whole
    made.write(path, made.VOTES[:cut])
    made.refused(lambda: ferplus.read(path, source), file=path)


def test_rows_that_do_not_fit_are_refused(tmp_path):
    path, source = both(tmp_path, "\n".join([made.VOTES_HEAD, *made.VOTES_ROWS[:-1]]))
    made.refused(lambda: ferplus.read(path, source), file=path, says="13 rows, FER2013 (fer2013.csv) has 14")
    made.write(path, "\n".join([made.VOTES_HEAD, *made.VOTES_ROWS[1:], made.VOTES_ROWS[0]]))
    made.refused(
        lambda: ferplus.read(path, source),
        file=path,
        row=6,
        says="the Usage is PublicTest, but fer2013.csv:6",
    )


def test_class_folders_and_train_csv_cannot_be_joined(tmp_path):
    made.save(tmp_path / "a" / "train" / "happy" / "Training_1.png")
    made.write(tmp_path / "b" / "train.csv", made.fer2013_csv(columns=("emotion", "pixels")))
    path = made.write(tmp_path / "fer2013new.csv", made.VOTES)
    for root, layout in ((tmp_path / "a", "class folders"), (tmp_path / "b", "train.csv")):
        source = made.load(fer2013, root)
        made.refused(
            lambda source=source: ferplus.read(path, source), file=path, says=f"was read from {layout}"
        )
