"""RAF-DB, AffectNet and ExpW: layouts on request, read from small imitations."""

import numpy as np
import pytest
from layouts import affectnet_tree, expw_tree, load, rafdb_tree, refused, save, write
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
        "photo 0.jpg 0 10 5 45 50 30.5 happy",
        "photo 0.jpg 0 10 5 45 50 30.5",
        "photo 0.jpg 0 x 5 45 50 30.5 3",
    ],
)
def test_a_wrong_line_of_expw_is_named(tmp_path, line):
    labels = write(expw_tree(tmp_path) / "label" / "label.lst", f"photo 0.jpg 0 10 5 45 50 30.5 3\n{line}\n")
    refused(lambda: load(expw, tmp_path), file=labels, row=2)


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
