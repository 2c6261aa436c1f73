"""FER2013 in every layout: found wherever it lies, read as it is, refused when damaged."""

import random
import re
import sys
import tarfile
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import PACKINGS, SPLITS, USAGES, csv_bytes, fer2013_csv, load, noise, pack, refused, save, write
from PIL import Image

from fer_utils.datasets import discover, fer2013
from fer_utils.datasets.base import FaceSource, face_table
from fer_utils.emotions import FER2013
from fer_utils.errors import DataError

ICML = ("emotion", " Usage", " pixels")
LABELS = [FER2013[i % 7] for i in range(14)]
OFFICIAL = ["train"] * 5 + ["validation"] * 5 + ["test"] * 4


def read(root):
    """The source, without the note that it is much smaller than FER2013."""
    source = load(fer2013, root)
    return source and replace(source, notes=tuple(n for n in source.notes if "official splits" not in n))


def check(source, splits=OFFICIAL):
    """That a source is what `fer2013_csv()` wrote."""
    assert source.name == "fer2013" and source.cropped
    assert source.table["emotion"].tolist() == LABELS
    assert source.table["split"].tolist() == splits
    assert source.table["subject"].isna().all()
    np.testing.assert_array_equal(source.images, noise(14))


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    ("name", "columns"), [("fer2013", ("emotion", "pixels", "Usage")), ("icml_face_data", ICML)]
)
def test_the_two_csvs_plain_and_packed(tmp_path, name, columns, packing):
    data = pack(packing, fer2013_csv(columns=columns), name=f"{name}.csv")
    path = write(tmp_path / "fer2013" / f"{name}.csv{packing}", data)
    source = read(tmp_path)
    check(source)
    assert source.layout == f"{name}.csv"
    assert source.table["origin"][0] == f"fer2013/{path.name}:2"
    assert source.files == (path,)
    assert not source.notes


@pytest.mark.parametrize("packing", PACKINGS)
def test_an_archive_that_lost_its_name_is_read_and_a_bomb_is_not(tmp_path, monkeypatch, packing):
    path = write(tmp_path / "fer2013.csv", pack(packing, fer2013_csv(), "fer2013/fer2013.csv"))
    check(read(tmp_path))
    path = path.rename(tmp_path / f"fer2013.csv{packing}")
    monkeypatch.setattr(discover, "LARGEST", 50_000)
    if packing:
        refused(lambda: read(tmp_path), file=path, says="it unpacks to more than 50,000 bytes")


@pytest.mark.parametrize(
    "place",
    [
        "FER2013.CSV",
        "archive/fer2013/fer2013/fer2013.csv",
        "my data/face sets (2)/fer2013.csv",
        "archive.zip",
        "download.tar.gz",
        "challenge.tgz",
    ],
)
def test_the_csv_is_found_wherever_it_lies(tmp_path, place):
    packing = max((p for p in PACKINGS if place.endswith(p)), key=len)
    more = {"fer2013/README": b"read me", "__MACOSX/._fer2013.csv": b"x"}
    write(tmp_path / place, pack(packing, fer2013_csv(), "fer2013/fer2013.csv", more))
    (tmp_path / "again").symlink_to(tmp_path)  # a folder that links to itself ends
    check(read(tmp_path))


@pytest.mark.parametrize(
    ("part", "becomes"),
    [
        (rb"\n(\d),", rb"\n\1.0,"),  # a column with gaps
        (rb"[^,\n]+", rb'"\g<0>"'),
        (rb"\n", b"\r\n"),
        (rb"\A", b"\xef\xbb\xbf"),  # a byte order mark
    ],
)
def test_a_csv_as_pandas_or_excel_write_it_again(tmp_path, part, becomes):
    write(tmp_path / "fer2013.csv", re.sub(part, becomes, fer2013_csv()))
    check(read(tmp_path))


def test_train_csv_is_all_training(tmp_path):
    write(tmp_path / "train.csv", fer2013_csv(columns=("emotion", "pixels")))
    write(tmp_path / "test.csv", csv_bytes(noise(3), [0] * 3, [""] * 3, ["pixels"]))
    source = read(tmp_path)
    check(source, ["train"] * 14)
    assert source.notes == ("no images for validation and test", "also there and not read: test.csv")


def test_test_csv_alone_says_that_it_has_no_labels(tmp_path):
    path = write(tmp_path / "fer2013" / "test.csv", csv_bytes(noise(3), [0] * 3, [""] * 3, ["pixels"]))
    refused(lambda: read(tmp_path), file=path, says="no labels")


def test_other_peoples_train_csv_is_left_alone(tmp_path):
    write(tmp_path / "titanic" / "train.csv", "PassengerId,Survived\n1,0\n")
    write(tmp_path / "titanic" / "test.csv", "PassengerId\n1\n")
    write(tmp_path / "fer2013" / "fer2013new.csv", "x")
    assert read(tmp_path) is None


def test_the_best_of_several_forms_is_read_and_the_others_are_named(tmp_path):
    write(tmp_path / "a" / "train.csv", fer2013_csv(columns=("emotion", "pixels")))
    write(tmp_path / "b" / "icml_face_data.csv", fer2013_csv(columns=ICML))
    write(tmp_path / "c" / "fer2013.csv.gz", pack(".gz", fer2013_csv()))
    write(tmp_path / "c" / "fer2013.zip", b"damaged")
    folders(tmp_path / "d", KAGGLE)
    source = read(tmp_path)
    assert source.files == (tmp_path / "c" / "fer2013.csv.gz",)
    assert source.notes == ("also there and not read: b/icml_face_data.csv, d, a/train.csv, c/fer2013.zip",)


# Class folders

KAGGLE = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
OTHER = ("Anger", "disgusted", "FEARFUL", "happiness", "sadness", "surprised", "neutral")


def folders(root, classes, *, prefix=True, suffix=".png", train=10, test=4):
    """train/ and test/ with so many images a class, of which half of the test images are PublicTest."""
    seed = 0
    for part, n in (("train", train), ("test", test)):
        for name in classes:
            for i in range(n):
                seed += 1
                usage = USAGES[0] if part == "train" else USAGES[1 + i % 2]
                stem = f"{usage}_{seed}" if prefix else f"im{seed}"
                save(root / part / name / f"{stem}{suffix}", seed=seed)
    return root


def splits_of(source):
    return dict(Counter(source.table["split"]))


@pytest.mark.parametrize("classes", [KAGGLE, OTHER])
@pytest.mark.parametrize("suffix", [".png", ".JPG"])
@pytest.mark.parametrize("place", ["", "archive/FER2013/FER2013", "my data/images"])
def test_class_folders_under_all_their_names(tmp_path, classes, suffix, place):
    folders(tmp_path / place, classes, suffix=suffix, train=2, test=2)
    for name in ("Thumbs.db", "._Training_1.png"):  # what systems leave in folders
        write(tmp_path / place / "train" / classes[0] / name, b"x")
    source = read(tmp_path)
    assert source.layout == "class folders"
    assert splits_of(source) == {"train": 14, "validation": 7, "test": 7}
    jpeg = ["28 images are JPEGs, but the owners' are not"] * (suffix == ".JPG")
    assert [note.split(":")[0] for note in source.notes] == jpeg
    for row, origin in enumerate(source.table["origin"]):
        name = (tmp_path / origin).parent.name
        assert source.table["emotion"][row] == FER2013[classes.index(name)]
        np.testing.assert_array_equal(source.images[row], np.asarray(Image.open(tmp_path / origin)))


def test_the_prefix_of_a_name_is_trusted_over_the_folder(tmp_path):
    for i, usage in enumerate(USAGES):
        for part in ("train", "test"):
            save(tmp_path / part / "happy" / f"{usage}_{i}_{part}.png")
    table = read(tmp_path).table
    for origin, split in zip(table["origin"], table["split"], strict=True):
        assert SPLITS[USAGES.index(origin.split("/")[-1].split("_")[0])] == split


def test_a_test_folder_without_prefixes_is_the_undivided_set_and_says_so(tmp_path):
    folders(tmp_path, KAGGLE, prefix=False, train=17, test=3)
    source = read(tmp_path)
    assert splits_of(source) == {"train": 105, "validation": 14, "test": 21} and not source.own_splits
    held = source.table[source.table["split"] == "validation"]
    assert Counter(held["emotion"]) == dict.fromkeys(KAGGLE, 2)
    assert all(origin.startswith("train/") for origin in held["origin"])
    first, second = source.notes
    assert "21 images in test/" in first and "7,178" in first and "test split" in first
    assert "14 training images, every eighth of a class, are the validation split" in second
    assert read(tmp_path).table.equals(source.table)


def test_folders_with_contempt_have_the_labels_of_another_set(tmp_path):
    folders(tmp_path / "ferplus", (*KAGGLE, "contempt"), train=1, test=1)
    refused(lambda: read(tmp_path), file=tmp_path / "ferplus" / "test" / "contempt", says="no class contempt")
    write(tmp_path / "fer2013.csv", fer2013_csv())
    check(read(tmp_path))


# Splits other than the official ones


def resplit(rows, seed):
    """The rows with the same numbers of each split, dealt out again."""
    emotions, splits = zip(*rows, strict=True)
    return list(zip(random.Random(seed).sample(emotions, len(emotions)), splits, strict=True))


# The official rows, split by split and class by class.
ROWS = [(e, s) for s in fer2013.OFFICIAL for e in FER2013.values() for _ in range(fer2013.OFFICIAL[s][e])]
BRACKETS = "the official splits, whose numbers are in brackets:"


@pytest.mark.parametrize(
    ("rows", "official", "says"),
    [
        (ROWS, True, ""),
        (
            [(e, "train" if i < 28_821 else "validation") for i, (e, _) in enumerate(ROWS)],  # a known repack
            False,
            f"not {BRACKETS} train 28,821 (28,709), validation 7,066 (3,589), test 0 (3,589)",
        ),
        (ROWS[:28_709] + ROWS[28_862:], False, f"not {BRACKETS} validation 3,436 (3,589)"),
        (resplit(ROWS, 0), False, f"not {BRACKETS} train disgust 444 "),
        (
            [*ROWS[:-1], ("sad", "test")],
            True,
            f"nearly {BRACKETS} test sad 595 (594), ",
        ),
    ],
)
def test_what_differs_from_the_official_splits_is_said(tmp_path, monkeypatch, rows, official, says):
    emotions, splits = zip(*rows, strict=True)
    table = face_table(emotions, [""] * len(rows), tmp_path, splits=splits)
    source = FaceSource("fer2013", "fer2013.csv", table, np.zeros((len(rows), 1, 1)), True, ())
    monkeypatch.setattr(fer2013, "read_pixel_csv", lambda *_: source)
    write(tmp_path / "fer2013.csv", "")
    source = load(fer2013, tmp_path)
    assert source.own_splits is official
    assert len(source.notes) == bool(says) and says in "".join(source.notes)


def test_class_folders_of_other_data_sets_are_left_alone_or_refused(tmp_path):
    for name in ("AffectNet", "RAF-DB", "CK+48", "jaffe"):
        folders(tmp_path / name, KAGGLE, train=1, test=1)
    assert read(tmp_path) is None
    path = save(tmp_path / "archive" / "train" / "happy" / "1.png", noise(1, 112)[0])
    refused(lambda: read(tmp_path), file=path, says="this one is of 112 by 112")


def test_an_unknown_class_folder_and_a_damaged_image_are_named(tmp_path):
    folders(tmp_path, KAGGLE, train=1, test=1)
    path = write(tmp_path / "train" / "happy" / "Training_1000.png", b"\x89PNG\r\n")
    source = read(tmp_path)
    row = source.table["origin"].tolist().index("train/happy/Training_1000.png")
    refused(lambda: source.images[row], file=path, says="no picture that can be read")
    save(tmp_path / "test" / "bored" / "PublicTest_1.png")
    refused(lambda: read(tmp_path), file=tmp_path / "test" / "bored", says="known are angry")


# Rows of the CSV

PIXELS = b" ".join([b"7"] * 2304).decode()
GOOD = f"3,{PIXELS},Training"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (f"3,{PIXELS[:-2]},Training", "2303 pixels, expected 2304"),
        (f"3,{PIXELS} 7,Training", "2305 pixels, expected 2304"),
        (f"{GOOD},x", "4 fields"),
        (f"3,{PIXELS[:-1]}256,Training", "pixel 2304 is 256"),
        (f"3,{PIXELS[:-1]}99999999999999999999,Training", "pixel 2304 is"),
        (f"3,1.0{PIXELS[1:]},Training", "pixel 1 is '1.0'"),
        (f"3,7 -2{PIXELS[3:]},Training", "pixel 2 is '-2'"),
        (f"3,7 \x00{PIXELS[3:]},Training", "pixel 2"),
        ("3,,Training", "0 pixels"),
        ("3," + "1 " * (1 << 20), "the row has 2 fields"),
        (f"7,{PIXELS},Training", "code '7' is unknown; known are 0 angry"),
        (f"-1,{PIXELS},Training", "code '-1'"),
        (f"3,{PIXELS},training", "the Usage 'training' is unknown; known are"),
    ],
)
def test_a_wrong_row_is_named_by_its_line(tmp_path, row, says):
    lines = ["emotion,pixels,Usage", GOOD, "", GOOD, row, GOOD]
    path = write(tmp_path / "fer2013.csv", "\n".join(lines))
    refused(lambda: read(tmp_path), file=path, row=5, says=says)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "one column `pixels`"),
        (b"emotion,pixels,Usage\n\n", "no rows"),
        (b"pixels,Usage\n1 2,Training\n", "one column `emotion`"),
        (b"emotion,pixels,emotion\n3,1,3\n", "one column `emotion`"),
        ("emotion,pixels,Usage\n".encode("utf-16"), "one column `pixels`"),
        (bytes(range(256)) * 1000, "one column `pixels`"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_a_few_words(tmp_path, data, says):
    path = write(tmp_path / "fer2013.csv", data)
    refused(lambda: read(tmp_path), file=path, says=says)


WHOLE = fer2013_csv()
ENDS = [i + 1 for i, byte in enumerate(WHOLE) if byte == ord("\n")]
telling = st.sampled_from([b" ", b"0", b"9", b"\t", b"\n", b"\r", b",", b".", b"-", b'"'])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(WHOLE) - 1))
def test_a_csv_cut_short_is_refused_unless_it_was_cut_between_rows(tmp_path_factory, cut):
    root = tmp_path_factory.mktemp("cut")
    write(root / "fer2013.csv", WHOLE[:cut])
    if cut in ENDS[1:] or cut + 1 in ENDS[1:]:
        source = read(root)
        np.testing.assert_array_equal(source.images, noise(14)[: len(source)])
    else:
        refused(lambda: read(root), file=root / "fer2013.csv")


@pytest.mark.parametrize("packing", [".gz", ".zip", ".tar.gz"])
@settings(max_examples=25, deadline=None)
@given(st.integers(0), st.one_of(telling, st.binary(min_size=1, max_size=30)), st.sampled_from([0, 1, 2]))
def test_a_damaged_archive_gives_the_same_data_or_is_refused(tmp_path_factory, packing, place, what, how):
    root = tmp_path_factory.mktemp("damaged")
    data = pack(packing, WHOLE)
    place %= len(data)
    after = data[place:] if how == 0 else data[place + len(what) :] if how == 1 else b""
    write(root / f"fer2013.csv{packing}", data[:place] + what + after)
    with suppress(DataError):
        check(read(root))


@pytest.mark.parametrize("packing", [".zip", ".tar.gz"])
def test_an_archive_without_a_csv_or_with_two_is_refused(tmp_path, packing):
    path = write(tmp_path / f"fer2013{packing}", pack(packing, b"hello", name="readme.txt"))
    refused(lambda: read(tmp_path), file=path, says="it holds none")
    write(path, pack(packing, fer2013_csv(), "icml_face_data.csv", {"a/train.csv": b"x"}))
    refused(
        lambda: read(tmp_path), file=path, says="it holds a/train.csv, icml_face_data.csv. Remedy: unpack"
    )


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_in_an_archive_lead_nowhere_and_nothing_is_unpacked_beside_it(tmp_path, kind):
    secret = write(tmp_path / "secret.csv", fer2013_csv())
    path = tmp_path / "data" / "fer2013.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("fer2013.csv")
        link.type, link.linkname = kind, str(secret)
        tar.addfile(link)
    refused(lambda: read(tmp_path / "data"), file=path, says="it holds none")
    write(path, pack(".tar", fer2013_csv(), "../../fer2013.csv"))
    check(read(tmp_path / "data"))
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["data", "fer2013.tar", "secret.csv"]


@pytest.mark.parametrize("packing", [".gz", ".tar.gz"])
def test_the_checksum_at_the_end_of_gzip_is_compared(tmp_path, packing):
    data = bytearray(pack(packing, fer2013_csv()))
    data[-8] ^= 1
    path = write(tmp_path / f"fer2013.csv{packing}", bytes(data))
    refused(lambda: read(tmp_path), file=path, says="CRC")


# Fetching, with a stand-in for kagglehub


def test_fetch_copies_kaggles_download_and_names_what_stands_in_its_way(tmp_path, monkeypatch):
    write(tmp_path / "cache" / "fer2013.tar.gz", pack(".tar.gz", fer2013_csv()))
    hub = SimpleNamespace(competition_download=lambda _: str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "kagglehub", hub)
    fer2013.fetch(tmp_path / "data")
    check(read(tmp_path / "data"))
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(DataError, match="pip install kagglehub"):
        fer2013.fetch(tmp_path / "data")
