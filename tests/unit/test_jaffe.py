"""JAFFE: its names and suffixes, what to pass over, and damage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import jaffe_folder, load, noise, refused, save, write
from PIL import Image

from fer_utils.datasets import jaffe
from fer_utils.datasets.base import read_grey
from fer_utils.emotions import JAFFE
from fer_utils.errors import DataError

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


# Decoding, which all data sets of image files share


def whole(suffix, folder):
    return save(folder / f"KA.AN1.39{suffix}", noise(1, 32)[0]).read_bytes()


@pytest.mark.parametrize("suffix", [".tiff", ".png", ".jpg", ".tiff.bmp"])
@settings(max_examples=40, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3
    )
)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd tags
def test_a_damaged_image_decodes_or_is_refused(tmp_path_factory, suffix, changes):
    folder = tmp_path_factory.mktemp("damaged")
    data = bytearray(whole(suffix, folder))
    for place, what in changes:
        start = place % len(data)
        data[start : start + len(what)] = what
    path = write(folder / f"KA.AN1.39{suffix}", bytes(data))
    try:
        image = read_grey(path)
    except DataError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 2
    if suffix == ".png":  # it has checksums: TIFF, BMP and JPEG have none, so that changed pixels pass
        np.testing.assert_array_equal(image, noise(1, 32)[0])


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("inverted", [False, True])
def test_more_than_eight_bits_are_scaled(tmp_path, kind, inverted):
    values = (noise(1, 8)[0].astype(np.int32) * 257).astype(kind)
    path = tmp_path / "KA.AN1.39.tiff"
    inverted = inverted and kind is np.uint16
    Image.fromarray(65535 - values if inverted else values).save(path, tiffinfo={262: int(not inverted)})
    np.testing.assert_array_equal(read_grey(path), noise(1, 8)[0])


DAMAGED = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"


@pytest.mark.parametrize("suffix", [".tiff", ".png", ".jpg"])
@pytest.mark.parametrize("damaged", [False, True])
def test_one_rule_for_orientation_and_no_harm_from_a_damaged_one(tmp_path, suffix, damaged):
    upright = np.repeat(np.repeat(np.array([[0, 0, 255], [0, 90, 180]], np.uint8), 16, 0), 16, 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    stored, note = (upright, DAMAGED) if damaged else (np.rot90(upright), exif)
    if not (damaged and suffix == ".tiff"):  # where it is a tag like any other
        Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=note)
        assert np.abs(read_grey(tmp_path / f"a{suffix}").astype(int) - upright).mean() < 2


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGB", "RGBA", "CMYK"])
def test_other_kinds_of_pixels_become_grey(tmp_path, mode):
    path = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    Image.new("L", (8, 6), 255).convert(mode).save(path)
    np.testing.assert_array_equal(read_grey(path), np.full((6, 8), 255, np.uint8))
