"""RAF-DB, AffectNet and ExpW: layouts on request, read from small imitations."""

import numpy as np
import pytest
from layouts import affectnet_tree, annotation, expw_tree, load, noise, rafdb_tree, refused, save, write
from PIL import Image

from fer_utils.datasets import affectnet, expw, rafdb
from fer_utils.emotions import AFFECTNET, FER2013, RAFDB

# RAF-DB


@pytest.mark.parametrize("place", ["", "RAF-DB/basic", "archive/RAF DB (1)"])
@pytest.mark.parametrize("suffix", [".jpg", ".JPG"])
def test_rafdb(tmp_path, place, suffix):
    rafdb_tree(tmp_path / place, suffix)
    save(tmp_path / place / "Image" / "original" / "train_00000.jpg")
    source = load(rafdb, tmp_path)
    assert source.table["emotion"].tolist() == list(RAFDB.values())
    assert source.table["split"].tolist() == ["train"] * 5 + ["test"] * 2
    assert source.cropped
    for row, origin in enumerate(source.table["origin"]):
        np.testing.assert_array_equal(source.images[row], np.asarray(Image.open(tmp_path / origin)))


def test_rafdb_gets_a_validation_split(tmp_path):
    rafdb_tree(tmp_path)
    names = [f"train_{i:05d}" for i in range(100, 124)]
    for i, name in enumerate(names):
        save(tmp_path / "Image" / "aligned" / f"{name}_aligned.jpg", noise(1, 100, i)[0])
    labels = tmp_path / "EmoLabel" / "list_patition_label.txt"
    lines = "".join(f"{name}.jpg {4 + i % 2}\n" for i, name in enumerate(names))
    labels.write_text(labels.read_text(encoding="utf-8") + lines, encoding="utf-8")
    source = load(rafdb, tmp_path)
    held = source.table[source.table["split"] == "validation"]
    assert sorted(held["emotion"]) == sorted([RAFDB[4], RAFDB[5]])  # one in eight of twelve or thirteen
    assert "2 training images, every eighth of a class, are the validation split" in source.notes[0]
    assert (source.table["split"] == "test").sum() == 2


def test_rafdb_with_folders_nested_and_with_windows_line_ends(tmp_path):
    rafdb_tree(tmp_path)
    (tmp_path / "Image" / "aligned").rename(tmp_path / "x")
    (tmp_path / "Image" / "aligned").mkdir()
    (tmp_path / "x").rename(tmp_path / "Image" / "aligned" / "aligned")
    labels = tmp_path / "EmoLabel" / "list_patition_label.txt"
    labels.write_bytes(b"\xef\xbb\xbf" + labels.read_bytes().replace(b"\n", b"\r\n").replace(b" ", b"\t"))
    assert len(load(rafdb, tmp_path)) == 7


@pytest.mark.parametrize(
    "line",
    ["train_00000.jpg", "train_00000.jpg 0", "train_00000.jpg 8", "train_00000.jpg 5 5", "x.jpg 5", "\x00"],
)
def test_a_wrong_line_of_rafdb_is_named(tmp_path, line):
    rafdb_tree(tmp_path)
    labels = tmp_path / "EmoLabel" / "list_patition_label.txt"
    write(labels, f"\n{labels.read_text()}{line}\n")
    refused(lambda: load(rafdb, tmp_path), file=labels, row=9)


def test_what_is_missing_of_rafdb_is_named(tmp_path):
    labels = rafdb_tree(tmp_path) / "EmoLabel" / "list_patition_label.txt"
    (tmp_path / "Image" / "aligned" / "train_00002_aligned.jpg").unlink()
    refused(lambda: load(rafdb, tmp_path), file=labels, row=3, says="train_00002_aligned.jpg is missing")
    write(labels, "")
    refused(lambda: load(rafdb, tmp_path), file=labels, says="empty")


# AffectNet


@pytest.mark.parametrize("place", ["", "AffectNet", "archive/affectnet (2)"])
def test_affectnet(tmp_path, place):
    affectnet_tree(tmp_path / place)
    save(tmp_path / place / "train_set" / "images" / "99.jpg")
    source = load(affectnet, tmp_path)
    assert source.table["emotion"].tolist() == [AFFECTNET[i % 8] for i in range(10)]
    assert source.table["split"].tolist() == ["train"] * 8 + ["validation"] * 2
    assert source.notes == ("1 images have no annotation and were left out",)
    for row, origin in enumerate(source.table["origin"]):
        np.testing.assert_array_equal(source.images[row], np.asarray(Image.open(tmp_path / origin)))


@pytest.mark.parametrize("value", [np.array("3"), np.array(3), np.array([3]), np.array(["3"])])
def test_an_annotation_of_affectnet_as_text_or_number(tmp_path, value):
    annotation(affectnet_tree(tmp_path) / "train_set" / "annotations" / "0_exp.npy", value)
    assert load(affectnet, tmp_path).table["emotion"][0] == "surprise"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.array("8"), "'8' is unknown"),
        (np.array("x"), "'x'"),
        (np.arange(2), "array of 2"),
        (np.array(3.5), "3.5"),
    ],
)
def test_a_wrong_annotation_of_affectnet_is_named(tmp_path, value, says):
    path = annotation(affectnet_tree(tmp_path) / "train_set" / "annotations" / "0_exp.npy", value)
    refused(lambda: load(affectnet, tmp_path), file=path, says=says)


HEADER = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<U1', 'fortran_order': False, 'shape': (9999999999999,), }"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x93NUMPY", b"3", b"PK\x03\x04", b"\x80\x04K\x03.", HEADER + b" " * 50 + b"\n", bytes(100)],
)
def test_an_annotation_that_is_no_array_is_named(tmp_path, data):
    path = write(affectnet_tree(tmp_path) / "train_set" / "annotations" / "0_exp.npy", data)
    refused(lambda: load(affectnet, tmp_path), file=path, says="cannot be read")


def test_what_is_missing_of_affectnet_is_named(tmp_path):
    part = affectnet_tree(tmp_path) / "val_set"
    (part / "images" / "8.jpg").unlink()
    refused(
        lambda: load(affectnet, tmp_path), file=part / "annotations" / "8_exp.npy", says="8.jpg is missing"
    )


# ExpW


@pytest.mark.parametrize("place", ["", "ExpW", "archive/expw"])
@pytest.mark.parametrize("photos", ["image/origin", "image", "images"])
def test_expw(tmp_path, place, photos):
    expw_tree(tmp_path / place, photos)
    source = load(expw, tmp_path)
    assert source.table["emotion"].tolist() == list(FER2013.values())
    assert source.table["subject"].tolist() == [f"photo {i // 2}.jpg" for i in range(7)]
    for i in range(7):
        photo = np.asarray(Image.open(tmp_path / place / photos / f"photo {i // 2}.jpg"))
        np.testing.assert_array_equal(source.images[i], photo[10 + i : 50, 5 + i : 45])


@pytest.mark.parametrize(
    "line",
    [
        "photo 0.jpg 0 10 5 45 50 30.5 7",
        "photo 0.jpg 0 10 5 45 50 30.5 happy",
        "photo 0.jpg 0 10 5 45 50 30.5",
        "photo 0.jpg 0 x 5 45 50 30.5 3",
        "photo 0.jpg 0 1.5 5 45 50 30.5 3",
    ],
)
def test_a_wrong_line_of_expw_is_named(tmp_path, line):
    labels = write(expw_tree(tmp_path) / "label" / "label.lst", f"photo 0.jpg 0 10 5 45 50 30.5 3\n{line}\n")
    refused(lambda: load(expw, tmp_path), file=labels, row=2)


@pytest.mark.parametrize("box", ["10 5 5 50", "50 5 45 50", "10 45 5 50"])
def test_an_empty_box_of_expw_is_named(tmp_path, box):
    labels = write(expw_tree(tmp_path) / "label" / "label.lst", f"photo 0.jpg 0 {box} 30.5 3\n")
    refused(lambda: load(expw, tmp_path), file=labels, row=1, says="of the face is empty")


def test_a_box_beyond_the_photo_is_cut_to_it_and_one_outside_is_refused(tmp_path):
    write(
        expw_tree(tmp_path) / "label" / "label.lst",
        "photo 0.jpg 0 -5 -5 99 99 1 3\nphoto 0.jpg 1 70 70 99 99 1 3\n",
    )
    source = load(expw, tmp_path)
    assert source.images[0].shape == (60, 60)
    refused(
        lambda: source.images[1], file=tmp_path / "image" / "origin" / "photo 0.jpg", says="outside the photo"
    )


def test_what_is_missing_of_expw_is_named(tmp_path):
    labels = expw_tree(tmp_path) / "label" / "label.lst"
    (tmp_path / "image" / "origin" / "photo 2.jpg").unlink()
    refused(lambda: load(expw, tmp_path), file=labels, row=5, says="photo 2.jpg is missing")


@pytest.mark.parametrize(
    ("make", "reader"), [(rafdb_tree, rafdb), (affectnet_tree, affectnet), (expw_tree, expw)]
)
def test_a_damaged_image_is_named_when_it_is_asked_for(tmp_path, make, reader):
    make(tmp_path)
    path = sorted(p for p in tmp_path.rglob("*.jpg"))[0]
    path.write_bytes(path.read_bytes()[:100])
    source = load(reader, tmp_path)
    row = next(i for i in range(len(source)) if make is expw_tree or source.table["origin"][i] in str(path))
    refused(lambda: source.images[row], file=path, says="cannot be decoded")
