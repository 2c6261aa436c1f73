"""FER2013 in every layout: found wherever it lies, read as it is, refused when damaged."""

import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import PACKINGS, SPLITS, USAGES, csv_bytes, fer2013_csv, noise, pack, refused, save, write
from PIL import Image

from fer_utils.datasets import fer2013
from fer_utils.emotions import FER2013

ICML = ("emotion", " Usage", " pixels")
LABELS = [FER2013[i % 7] for i in range(14)]
OFFICIAL = ["train"] * 5 + ["validation"] * 5 + ["test"] * 4


def read(root):
    path = fer2013.find(root)
    assert path is not None
    return fer2013.read(path, root)


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


@pytest.mark.parametrize(
    "place",
    [
        "fer2013.csv",
        "FER2013.CSV",
        "FER2013/FER2013/fer2013.csv",
        "archive/fer2013/fer2013.csv",
        "my data/face sets (2)/fer2013.csv",
        "archive.zip",
        "download.tar.gz",
        "kaggle/fer2013.csv.zip",
        "challenge.tgz",
    ],
)
def test_the_csv_is_found_wherever_it_lies(tmp_path, place):
    packing = max((p for p in PACKINGS if place.endswith(p)), key=len)
    more = {"fer2013/README": b"read me", "__MACOSX/._fer2013.csv": b"x"}
    write(tmp_path / place, pack(packing, fer2013_csv(), "fer2013/fer2013.csv", more))
    check(read(tmp_path))


def test_links_are_followed_and_dead_ones_are_named(tmp_path):
    real = write(tmp_path / "elsewhere" / "x.csv", fer2013_csv())
    root = tmp_path / "root"
    root.mkdir()
    link = root / "fer2013.csv"
    link.symlink_to(real)
    check(read(root))
    real.unlink()
    refused(lambda: read(root), file=link, says="missing")


def test_a_folder_that_links_to_itself_ends(tmp_path):
    write(tmp_path / "fer2013" / "fer2013.csv", fer2013_csv())
    (tmp_path / "fer2013" / "again").symlink_to(tmp_path)
    check(read(tmp_path))


def test_train_csv_is_all_training(tmp_path):
    write(tmp_path / "train.csv", fer2013_csv(columns=("emotion", "pixels")))
    write(tmp_path / "test.csv", csv_bytes(noise(3), [0] * 3, [""] * 3, ["pixels"]))
    source = read(tmp_path)
    check(source, ["train"] * 14)
    assert source.notes == (
        "no images for validation and test",
        "not read, since it has no labels: test.csv",
    )


@pytest.mark.parametrize("data", [csv_bytes(noise(3), [0] * 3, [""] * 3, ["pixels"]), b"", b"pixels\n"])
def test_test_csv_alone_says_that_it_has_no_labels(tmp_path, data):
    path = write(tmp_path / "fer2013" / "test.csv", data)
    refused(lambda: read(tmp_path), file=path, says="no labels")


def test_other_peoples_train_csv_is_left_alone(tmp_path):
    write(tmp_path / "titanic" / "train.csv", "PassengerId,Survived\n1,0\n")
    write(tmp_path / "titanic" / "test.csv", "PassengerId\n1\n")
    assert fer2013.find(tmp_path) is None


def test_the_best_of_several_forms_is_read_and_the_others_are_named(tmp_path):
    write(tmp_path / "a" / "train.csv", fer2013_csv(columns=("emotion", "pixels")))
    write(tmp_path / "b" / "icml_face_data.csv", fer2013_csv(columns=ICML))
    write(tmp_path / "c" / "fer2013.csv.gz", pack(".gz", fer2013_csv()))
    write(tmp_path / "c" / "fer2013.zip", b"damaged")
    folders(tmp_path / "d", KAGGLE)
    source = read(tmp_path)
    assert source.files == (tmp_path / "c" / "fer2013.csv.gz",)
    assert source.notes == ("also found and not read: b/icml_face_data.csv, d, a/train.csv, c/fer2013.zip",)


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
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG", ".PNG"])
@pytest.mark.parametrize("place", ["", "fer2013", "archive/FER2013/FER2013", "my data/images"])
def test_class_folders_under_all_their_names(tmp_path, classes, suffix, place):
    folders(tmp_path / place, classes, suffix=suffix, train=2, test=2)
    source = read(tmp_path)
    assert source.layout == "class folders"
    assert splits_of(source) == {"train": 14, "validation": 7, "test": 7} and source.own_splits
    assert not source.notes
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
    assert all(o.startswith("test/") for o in source.table["origin"][source.table["split"] == "test"])
    first, second = source.notes
    assert "21 images in test/" in first and "public" in first and "7,178" in first and "test split" in first
    assert "14 training images, every eighth of a class, are the validation split" in second
    assert read(tmp_path).table.equals(source.table)


def test_where_validation_images_are_named_none_is_taken_from_training(tmp_path):
    folders(tmp_path, KAGGLE, train=9)
    next((tmp_path / "test" / "happy").glob("PublicTest*")).rename(tmp_path / "test" / "happy" / "im1.png")
    source = read(tmp_path)
    assert splits_of(source) == {"train": 63, "validation": 13, "test": 15}
    assert len(source.notes) == 1 and source.notes[0].startswith("1 images in test/")


def test_a_validation_folder_is_the_validation_split(tmp_path):
    folders(tmp_path, KAGGLE, prefix=False, train=2, test=2)
    (tmp_path / "test").rename(tmp_path / "validation")
    source = read(tmp_path)
    assert splits_of(source) == {"train": 14, "validation": 14}
    assert source.notes == ("no images for test",)


def test_parts_that_are_nested_in_themselves_are_read(tmp_path):
    folders(tmp_path, KAGGLE, train=2, test=2)
    for part in ("train", "test"):
        (tmp_path / part).rename(tmp_path / "x")
        (tmp_path / part).mkdir()
        (tmp_path / "x").rename(tmp_path / part / part)
    source = read(tmp_path)
    assert splits_of(source) == {"train": 14, "validation": 7, "test": 7} and source.own_splits
    assert not source.notes


def test_what_systems_leave_in_folders_is_passed_over(tmp_path):
    folders(tmp_path / "fer2013", KAGGLE, train=1, test=2)
    for part in ("train", "test"):
        for name in KAGGLE:
            write(tmp_path / "__MACOSX" / part / name / "._Training_1.png", b"x")
            write(tmp_path / "fer2013" / part / name / "Thumbs.db", b"x")
            write(tmp_path / "fer2013" / part / name / "._Training_1.png", b"x")
        write(tmp_path / "fer2013" / part / ".DS_Store", b"x")
        write(tmp_path / "fer2013" / part / "__MACOSX" / "._x", b"x")
    source = read(tmp_path)
    assert len(source) == 21
    assert not source.notes


def test_class_folders_of_other_data_sets_are_left_alone(tmp_path):
    for name in ("AffectNet", "RAF-DB", "CK+48", "jaffe"):
        folders(tmp_path / name, KAGGLE, train=1, test=1)
    assert fer2013.find(tmp_path) is None


def test_a_class_that_is_missing_is_noted(tmp_path):
    folders(tmp_path, KAGGLE[1:], train=1, test=2)
    assert read(tmp_path).notes == ("no images of angry",)


# Damage


def test_an_unknown_class_folder_is_named(tmp_path):
    folders(tmp_path, (*KAGGLE, "bored"), train=1, test=1)
    refused(lambda: read(tmp_path), file=tmp_path / "test" / "bored", says="known are angry")


def test_an_empty_class_folder_is_named(tmp_path):
    folders(tmp_path, KAGGLE, train=1, test=1)
    shutil.rmtree(tmp_path / "train" / "sad")
    write(tmp_path / "train" / "sad" / "notes.txt", "x")
    refused(lambda: read(tmp_path), file=tmp_path / "train" / "sad", says="no images")


def test_an_empty_part_is_named(tmp_path):
    folders(tmp_path, KAGGLE, train=1, test=1)
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "train").mkdir()
    refused(lambda: read(tmp_path), file=tmp_path / "train", says="no class folders")


@pytest.mark.parametrize("name", ["fer2013", "FER-2013", "fer 2013"])
def test_an_empty_folder_of_its_name_says_what_to_put_there(tmp_path, name):
    (tmp_path / name).mkdir()
    refused(lambda: read(tmp_path), file=tmp_path / name, says="put fer2013.csv, icml_face_data.csv, or")


def test_ferplus_alone_in_its_folder_is_no_damage(tmp_path):
    write(tmp_path / "fer2013" / "fer2013new.csv", "x")
    assert fer2013.find(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n", b"hello"])
def test_an_image_that_is_none_is_named_when_it_is_asked_for(tmp_path, data):
    folders(tmp_path, KAGGLE, train=1, test=1)
    path = write(tmp_path / "train" / "happy" / "Training_1000.png", data)
    source = read(tmp_path)
    row = source.table["origin"].tolist().index("train/happy/Training_1000.png")
    refused(lambda: source.images[row], file=path, says="cannot be decoded")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (("emotion", "pixels"), "column `Usage` is missing"),
        (("emotion", "Usage"), "column `pixels` is missing"),
        (("pixels", "Usage"), "column `emotion` is missing"),
    ],
)
@pytest.mark.parametrize("name", ["fer2013.csv", "icml_face_data.csv"])
def test_a_missing_column_is_named(tmp_path, name, columns, says):
    path = write(tmp_path / name, fer2013_csv(columns=columns))
    refused(lambda: read(tmp_path), file=path, row=1, says=says)


def test_train_csv_without_labels_is_refused(tmp_path):
    path = write(tmp_path / "train.csv", fer2013_csv(columns=("pixels", "id")))
    refused(lambda: read(tmp_path), file=path, row=1, says="column `emotion` is missing")


@pytest.mark.parametrize("usage", ["", "training", "Train", "PrivateTes", "Test", "\x00"])
def test_a_wrong_usage_is_named_by_its_row(tmp_path, usage):
    data = csv_bytes(noise(4), [0, 1, 2, 3], [*USAGES, usage])
    path = write(tmp_path / "fer2013.csv", data)
    refused(lambda: read(tmp_path), file=path, row=5, says=f"the Usage {usage!r} is unknown; known are")


WHOLE = fer2013_csv()
ENDS = [i + 1 for i, byte in enumerate(WHOLE) if byte == ord("\n")]


@settings(max_examples=60, deadline=None)
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
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
@pytest.mark.parametrize("name", ["fer2013", "icml_face_data"])
def test_an_archive_cut_short_is_refused(tmp_path, packing, share, name):
    data = pack(packing, fer2013_csv(columns=ICML), f"{name}.csv")
    path = write(tmp_path / f"{name}.csv{packing}", data[: int(share * len(data))])
    refused(lambda: read(tmp_path), file=path)


def test_kaggles_whole_download_as_it_comes_asks_to_be_unpacked(tmp_path):
    members = {"train.csv": b"emotion,pixels\n", "test.csv": b"pixels\n"}
    path = write(tmp_path / "challenge.zip", pack(".zip", fer2013_csv(), "icml_face_data.csv", members))
    refused(lambda: read(tmp_path), file=path, says="unpack it")


def test_a_folder_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    folders(tmp_path, KAGGLE, train=1, test=1)
    closed = tmp_path / "train" / "happy"
    scandir = fer2013.walk.__globals__["os"].scandir

    def scan(path):
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("fer_utils.datasets.layouts.os.scandir", scan)
    refused(lambda: read(tmp_path), file=closed, says="check its permissions")


def test_folders_of_another_data_set_are_refused(tmp_path):
    for part in ("train", "test"):
        save(tmp_path / "archive" / part / "happy" / "1.png", noise(1, 112)[0])
    refused(lambda: read(tmp_path), file=tmp_path / "archive", says="these are others (112 by 112")
