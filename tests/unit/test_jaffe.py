"""JAFFE: its names and suffixes, and what to pass over."""

import numpy as np
import pytest
from layouts import jaffe_folder, load, noise, refused, save, write

from fer_utils.datasets import jaffe
from fer_utils.emotions import JAFFE

SUFFIXES = (".tiff", ".TIF", ".tiff.bmp", ".png", ".jpg", ".jpeg", ".bmp")


def read(root):
    return load(jaffe, root)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix(tmp_path, suffix):
    jaffe_folder(tmp_path / "jaffe", suffix)
    source = read(tmp_path)
    assert len(source) == 28
    for row, origin in enumerate(source.table["origin"]):
        subject, take, number, _ = origin.removeprefix("jaffe/").split(".", 3)
        assert source.table["subject"][row] == subject
        assert source.table["emotion"][row] == JAFFE[take[:2]]
        if not suffix.lower().startswith(".jp"):
            np.testing.assert_array_equal(source.images[row], noise(1, 256, int(number) - 1)[0])
    assert source.table["split"].isna().all()
    assert not source.cropped
    assert bool(source.notes) is suffix.startswith(".jp")


@pytest.mark.parametrize("place", ["", "jaffe", "archive/jaffedbase", "JAFFE/jaffe/jaffe", "my data (1)"])
def test_found_wherever_it_lies_without_what_else_lies_there(tmp_path, place):
    folder = jaffe_folder(tmp_path / place)
    for name in ("README", "README_FIRST.txt", ".DS_Store", "._KA.AN1.39.tiff", "Thumbs.db", "jaffe.pdf"):
        write(folder / name, b"x")
    write(tmp_path / "__MACOSX" / "jaffe" / "._KA.AN1.39.tiff", b"x")
    assert len(read(tmp_path)) == 28


def test_an_image_in_several_formats_is_read_once_from_the_lossless_one(tmp_path):
    jaffe_folder(tmp_path)
    save(tmp_path / "KA.AN1.1.jpg")
    save(tmp_path / "KA.AN1.1.jpeg")
    source = read(tmp_path)
    assert len(source) == 28
    assert not any(origin.endswith(("jpg", "jpeg")) for origin in source.table["origin"])
    assert source.notes == ("2 images are there in several file formats; each was read once",)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("KA.XX1.99.tiff", "the emotion code 'XX' is unknown; known are AN, DI, FE, HA, NE, SA, SU"),
        ("portrait.png", "as KA.AN1.39.tiff does"),
        ("KA.AN1.tiff", "as KA.AN1.39.tiff does"),
        ("KA.AN1.39 (1).tiff", "as KA.AN1.39.tiff does"),
    ],
)
def test_a_name_that_tells_no_emotion_is_refused(tmp_path, name, says):
    path = save(jaffe_folder(tmp_path) / name)
    refused(lambda: read(tmp_path), file=path, says=says)
