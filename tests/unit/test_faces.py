"""Cropping and resizing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_utils.faces import centre_square, crop_square, resize


@given(
    st.integers(5, 40),
    st.integers(5, 40),
    st.floats(-20, 40),
    st.floats(-20, 40),
    st.floats(1, 50),
    st.floats(1, 50),
)
@settings(max_examples=60, deadline=None)
def test_crops_are_square_whatever_the_box(height, width, left, top, w, h):
    frame = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)
    crop = crop_square(frame, (left, top, left + w, top + h))
    assert crop.shape[0] == crop.shape[1] == max(1, round(max(left + w - left, top + h - top)))
    assert crop.dtype == np.uint8


def test_a_crop_inside_the_frame_is_cut_out_exactly():
    frame = np.arange(100, dtype=np.uint8).reshape(10, 10)
    np.testing.assert_array_equal(crop_square(frame, (2, 3, 6, 7)), frame[3:7, 2:6])
    np.testing.assert_array_equal(crop_square(frame, (4, 3, 6, 7)), frame[3:7, 3:7])


def test_beyond_the_frame_the_edge_is_repeated():
    frame = np.arange(16, dtype=np.uint8).reshape(4, 4)
    crop = crop_square(frame, (-2, 0, 2, 4))
    np.testing.assert_array_equal(crop[:, :2], frame[:, :1].repeat(2, axis=1))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
def test_centre_square(shape):
    frame = np.arange(shape[0] * shape[1]).reshape(shape)
    square = centre_square(frame)
    assert square.shape == (min(shape), min(shape))
    top, left = (shape[0] - min(shape)) // 2, (shape[1] - min(shape)) // 2
    np.testing.assert_array_equal(square, frame[top : top + min(shape), left : left + min(shape)])


def test_resize_keeps_level_and_does_not_alias():
    flat = np.full((2, 48, 48), 77, np.uint8)
    assert (resize(flat) == 77).all()
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 256, 128))
    small = resize(stripes)
    assert small.shape == (1, 64, 64)
    # Antialiasing blends alternating stripes to grey; picking pixels would leave black or white.
    assert np.abs(small[:, :, 2:-2].astype(int) - 127).max() <= 2
    assert resize(small) is small
