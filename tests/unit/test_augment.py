"""Augmentation: values stay in range, each image has its own draw, each change does what it says."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_utils.augment import Augment

STILL = Augment(flip=0, degrees=0, shift=0, scale=0)


@given(
    st.integers(1, 5),
    st.floats(0, 1),
    st.floats(0, 45),
    st.floats(0, 0.3),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.floats(0, 1),
    st.sampled_from(["bilinear", "bicubic"]),
)
@settings(max_examples=25, deadline=None)
def test_shape_and_range_are_kept(count, flip, degrees, shift, scale, light, erase, interpolation):
    images = torch.rand(count, 1, 24, 24)
    augment = Augment(flip, degrees, shift, scale, light, light, erase, interpolation)
    changed = augment(images)
    assert changed.shape == images.shape
    assert changed.min() >= 0 and changed.max() <= 1
    assert torch.isfinite(changed).all()


def test_without_any_change_the_image_stays():
    images = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(STILL(images), images, atol=1e-5, rtol=0)


def test_mirror_is_exact():
    images = torch.rand(4, 1, 16, 16)
    mirrored = dataclasses.replace(STILL, flip=1)(images)
    torch.testing.assert_close(mirrored, images.flip(3), atol=1e-5, rtol=0)


def test_bicubic_moves_by_half_a_pixel_with_less_blur(monkeypatch):
    monkeypatch.setattr(Augment, "_uniform", lambda self, images, limit: torch.full((len(images),), limit))
    x = torch.arange(32.0)
    wave = (0.5 + 0.4 * torch.sin(2 * torch.pi * x / 5)).expand(1, 1, 32, 32)
    moved = 0.5 + 0.4 * torch.sin(2 * torch.pi * (x + 0.5) / 5)
    errors = []
    for interpolation in ("bilinear", "bicubic"):
        augment = dataclasses.replace(STILL, shift=0.5 / 32, interpolation=interpolation)
        errors.append((augment(wave) - moved)[0, 0, 8:24, 4:28].abs().max())
    assert errors[1] < 0.5 * errors[0]


def test_half_of_a_large_batch_is_mirrored():
    images = torch.rand(400, 1, 8, 8)
    changed = dataclasses.replace(STILL, flip=0.5)(images)
    share = ((changed - images).abs().amax((1, 2, 3)) > 0.05).float().mean()
    assert 0.4 < share < 0.6


@pytest.mark.parametrize(
    "change",
    [{"degrees": 20}, {"shift": 0.2}, {"scale": 0.3}, {"brightness": 0.2}, {"contrast": 0.5}, {"erase": 1}],
)
def test_each_image_of_a_batch_gets_its_own_draw(change):
    one = torch.rand(1, 1, 32, 32) * 0.4 + 0.3
    changed = dataclasses.replace(STILL, **change)(one.expand(6, -1, -1, -1))
    different = {tuple(image.flatten().tolist()) for image in changed}
    assert len(different) == 6


def test_rotation_by_a_known_angle_moves_a_point_where_it_should(monkeypatch):
    image = torch.zeros(1, 1, 65, 65)
    image[..., 32, 52] = 1  # 20 pixels right of the centre
    monkeypatch.setattr(Augment, "_uniform", lambda self, images, limit: torch.full((len(images),), limit))
    turned = dataclasses.replace(STILL, degrees=90)(image)
    row, column = divmod(int(turned.flatten().argmax()), 65)
    assert column == 32 and abs(row - 32) == 20


def test_erasing_fills_with_the_mean_within_the_stated_area():
    images = torch.rand(200, 1, 32, 32)
    changed = dataclasses.replace(STILL, erase=1.0)(images)
    holes = ((changed - images).abs() > 1e-4).float().mean((1, 2, 3))
    assert holes.min() > 0.005 and holes.max() < 0.25
