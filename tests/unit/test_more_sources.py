"""RAF-DB, AffectNet and ExpW: layouts on request, read from small imitations."""

import numpy as np
import pytest
from layouts import affectnet_tree, annotation, expw_tree, load, noise, rafdb_tree, refused, save, write
from PIL import Image

from fer_utils.datasets import affectnet, expw, fer2013, rafdb
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


@pytest.mark.parametrize("images", ["basic/Image/aligned/aligned", "Image/aligned"])
@pytest.mark.parametrize("lists", ["basic/EmoLabel/EmoLabel/x", "basic/labels/EmoLabel"])
def test_rafdb_as_its_archives_unpack(tmp_path, images, lists):
    rafdb_tree(tmp_path / "made")
    (tmp_path / "made" / "Image" / "aligned").rename(made_in(tmp_path / images))
    (tmp_path / "made" / "EmoLabel").rename(made_in(tmp_path / lists))
    assert load(rafdb, tmp_path).table["emotion"].tolist() == list(RAFDB.values())


def made_in(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("place", ["archive/DATASET", "RAF-DB", ""])
@pytest.mark.parametrize("names", [[str(code) for code in RAFDB], list(RAFDB.values())])
def test_rafdb_as_class_folders(tmp_path, place, names):
    for part in ("train", "test"):
        for i, name in enumerate(names):
            for j in range(8):
                save(tmp_path / place / part / name / f"{part}_{8 * i + j:05d}_aligned.jpg", noise(1, 100)[0])
    source = load(rafdb, tmp_path)
    counts = source.table.groupby(["split", "emotion"]).size()
    assert (counts["train"] == 7).all() and (counts["validation"] == 1).all() and (counts["test"] == 8).all()
    by_name = dict(zip(names, RAFDB.values(), strict=True))
    named = [by_name[origin.split("/")[-2]] for origin in source.table["origin"]]
    assert source.table["emotion"].tolist() == named
    assert load(fer2013, tmp_path) is None and load(affectnet, tmp_path) is None


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


ONE = HEADER.replace(b"(9999999999999,)", b"()") + b" " * 64 + b"\n"  # of one letter


@pytest.mark.parametrize(
    "data",
    [
        b"",
        ONE + b"\xff" * 4,
        b"\x93NUMPY",
        b"3",
        b"PK\x03\x04",
        b"\x80\x04K\x03.",
        HEADER + b" " * 50 + b"\n",
        bytes(100),
    ],
)
def test_an_annotation_that_is_no_array_is_named(tmp_path, data):
    path = write(affectnet_tree(tmp_path) / "train_set" / "annotations" / "0_exp.npy", data)
    refused(lambda: load(affectnet, tmp_path), file=path, says="cannot be read")


def test_codes_of_affectnet_that_are_no_emotion_are_left_out(tmp_path):
    labels = affectnet_tree(tmp_path) / "train_set" / "annotations"
    for i, code in enumerate((8, 9.0, 10)):
        annotation(labels / f"{i}_exp.npy", np.array(str(code)))
    source = load(affectnet, tmp_path)
    assert source.table["emotion"].tolist() == [AFFECTNET[i % 8] for i in range(3, 10)]
    assert source.notes == ("3 images show no face or none of the eight emotions and were left out",)
    np.testing.assert_array_equal(
        source.images[0], np.asarray(Image.open(tmp_path / "train_set/images/3.jpg"))
    )
    refused_code = annotation(labels / "0_exp.npy", np.array("11"))
    refused(lambda: load(affectnet, tmp_path), file=refused_code, says="10 no face")


def affectnet_lists(root):
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence\n"
    for name in ("training", "validation"):
        lines = [f"7/{name}{i}.jpg,{10 + i},20,40,50,1;2,{i},0.5\n" for i in range(11)]
        for i in range(11):
            save(root / "Manually_Annotated_Images" / "7" / f"{name}{i}.jpg", noise(1, 90, i)[0])
        write(root / "Manually_Annotated_file_lists" / f"{name}.csv", head + "".join(lines))
    return root / "Manually_Annotated_file_lists" / "training.csv"


def test_affectnet_as_csv(tmp_path):
    table = affectnet_lists(tmp_path / "AffectNet")
    source = load(affectnet, tmp_path)
    assert source.table["emotion"].tolist() == [*AFFECTNET.values()] * 2
    assert source.table["split"].tolist() == ["train"] * 8 + ["validation"] * 8
    assert source.notes == ("6 images show no face or none of the eight emotions and were left out",)
    photo = np.asarray(Image.open(tmp_path / source.table["origin"][3]))
    np.testing.assert_array_equal(source.images[3], photo[20:70, 13:53])
    whole = table.read_text()
    for line, says in (
        ("7/x.jpg,1,2,3,4,,0,0", "no image 7/x.jpg"),
        ("7/training0.jpg,1,x,3,4,,0,0", "1, x, 3, 4"),
    ):
        write(table, f"{whole}{line}\n")
        refused(lambda: load(affectnet, tmp_path), file=table, row=13, says=says)
    for path in table.parent.iterdir():
        write(path, whole.split("\n")[0])
    refused(lambda: load(affectnet, tmp_path), file=table.parent, says="no image of an emotion")


@pytest.mark.parametrize("names", [[str(i) for i in range(9)], [*AFFECTNET.values(), "none"]])
def test_affectnet_as_class_folders(tmp_path, names):
    for part in ("train", "val"):
        for name in names:
            save(tmp_path / "AffectNet" / part / name / "1.jpg", noise(1, 96)[0])
    source = load(affectnet, tmp_path)
    named = dict(zip(names, AFFECTNET.values(), strict=False))
    assert source.table["emotion"].tolist() == [named[o.split("/")[-2]] for o in source.table["origin"]]
    assert source.table["split"].value_counts().to_dict() == {"train": 8, "validation": 8}
    assert load(fer2013, tmp_path) is None and load(rafdb, tmp_path) is None


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
