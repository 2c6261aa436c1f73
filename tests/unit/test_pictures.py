"""Pictures of all kinds come out upright, in 8 bits and RGB, or are refused with a word of what is wrong."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_utils.errors import DataError
from fer_utils.pictures import read_picture

RAMP = np.linspace(0, 255, 12 * 20).reshape(12, 20).astype(np.uint8)
COLOUR = np.stack([RAMP, RAMP[::-1], 255 - RAMP], 2)


def encoded(pixels, form, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF"])
def test_lossless_formats_and_objects_give_the_same_pixels(tmp_path, form):
    data = encoded(RAMP if form == "GIF" else COLOUR, form, **({"lossless": True} if form == "WEBP" else {}))
    want = np.repeat(RAMP[..., None], 3, 2) if form == "GIF" else COLOUR
    path = tmp_path / "picture"
    path.write_bytes(data)
    for given_as in (data, path, str(path), Image.open(path), want):
        np.testing.assert_array_equal(read_picture(given_as), want)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_any_colours(mode):
    file = io.BytesIO()
    Image.fromarray(COLOUR).convert(mode).save(file, "JPEG", quality=100, subsampling=0)
    want = np.asarray(Image.fromarray(COLOUR).convert(mode).convert("RGB"), int)
    assert np.abs(read_picture(file.getvalue()).astype(int) - want).max() <= 12


@pytest.mark.parametrize("form", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(form, orientation):
    blocks = np.zeros((32, 48), np.uint8)
    blocks[:16, :24] = 255  # bright at the top left, as seen
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # Pillow's transpositions
    image = Image.fromarray(blocks) if undo is None else Image.fromarray(blocks).transpose(undo)
    file = io.BytesIO()
    image.save(file, form, exif=exif)
    seen = read_picture(file.getvalue())
    assert seen.shape == (32, 48, 3)
    assert seen[4:12, 4:20].min() > 240 and seen[20:, 28:].max() < 15


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_damaged_note_on_orientation_does_no_harm(form):
    data = encoded(COLOUR, form, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert read_picture(data).shape == COLOUR.shape


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("deep", [False, True])
def test_greys_of_a_tiff_in_8_and_16_bits_and_either_sense(inverted, deep):
    values = RAMP.astype(np.uint16) * 257 if deep else RAMP
    tags = {262: 0} if inverted else {}
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", tiffinfo=tags)
    # Pillow inverts 8 bits when it writes and when it reads, and 16 bits never.
    want = 255 - RAMP if inverted and deep else RAMP
    np.testing.assert_array_equal(read_picture(file.getvalue())[..., 0], want)


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_greys_of_more_bits_are_scaled(kind):
    data = encoded((RAMP.astype(np.int32) * 257).astype(kind), "TIFF")
    np.testing.assert_array_equal(read_picture(data)[..., 0], RAMP)


@pytest.mark.parametrize("mode", ["LA", "P", "1"])
def test_white_is_white_in_every_kind_of_pixels(tmp_path, mode):
    Image.new("L", (8, 6), 255).convert(mode).save(tmp_path / "white.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "white.png"), np.full((6, 8, 3), 255))


def test_what_is_transparent_is_white():
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, 3:, 3] = 255
    seen = read_picture(encoded(pixels, "PNG"))
    assert (seen[:, :3] == 255).all() and (seen[:, 3:] == 0).all()


@given(st.sampled_from(["PNG", "JPEG", "TIFF", "GIF", "WEBP", "BMP"]), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_are_refused_or_read(form, data):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    damaged = bytearray(encoded(pixels, form))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    with contextlib.suppress(DataError):  # nothing else may come out
        assert read_picture(bytes(damaged)).dtype == np.uint8


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("notes.txt", b"no picture", "no picture"),
        ("clip.mp4", b"\0\0\0\x18ftypmp42", "video"),
        ("cut.png", encoded(np.tile(COLOUR, (20, 20, 1)), "PNG")[:900], "damaged"),
        ("empty.jpg", b"", "no picture"),
    ],
)
def test_the_refusal_names_the_file_and_what_is_wrong(tmp_path, name, data, word):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=word) as caught:
        read_picture(tmp_path / name)
    assert caught.value.file == tmp_path / name


def test_a_picture_too_large_for_memory_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(DataError, match="100 megapixels"):
        read_picture(tmp_path / "huge.png")
    with pytest.raises(DataError, match="no such file"):
        read_picture(tmp_path / "absent.png")


@pytest.mark.parametrize("pixels", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_arrays_of_other_types_are_refused(pixels):
    with pytest.raises(DataError, match="is no picture"):
        read_picture(pixels)
