"""Augmentation on whole batches, with a draw for each image, which one affine map resamples once."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augment:
    """Random mirror, shift, scale, rotation, lighting and erasing, drawn for each image of a batch."""

    flip: float = 0.5  # probability of a mirror image
    degrees: float = 10.0  # largest rotation to either side
    shift: float = 0.06  # largest shift to either side, a share of the side; the border is repeated
    scale: float = 0.1  # largest relative change of size: 0.1 draws factors of 0.9–1.1
    brightness: float = 0.0  # largest grey value added or taken away, of 0–1
    contrast: float = 0.0  # largest relative change of contrast about the image's mean
    erase: float = 0.0  # probability that a rectangle of 2–20% is filled with the mean (Zhong et al. 2020)
    # "bilinear" blurs what it moves by a part of a pixel; "bicubic" hardly does
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"interpolation is {self.interpolation!r}; it can be bilinear or bicubic")

    def __call__(self, images: Tensor) -> Tensor:
        """Change a batch, float (B, C, H, W) of 0–1, by draws of torch's generator of its device."""
        grid = F.affine_grid(self._maps(images), list(images.shape), align_corners=False)
        how = {"mode": self.interpolation, "padding_mode": "border", "align_corners": False}
        images = F.grid_sample(images, grid, **how).clamp(0, 1)
        if self.brightness or self.contrast:
            images = self._light(images)
        if self.erase:
            images = self._erase(images)
        return images

    def _uniform(self, images: Tensor, limit: float) -> Tensor:
        return (torch.rand(len(images), device=images.device) * 2 - 1) * limit

    def _maps(self, images: Tensor) -> Tensor:
        angle = self._uniform(images, math.radians(self.degrees))
        factor = 1 / (1 + self._uniform(images, self.scale))
        mirror = torch.where(torch.rand(len(images), device=images.device) < self.flip, -1.0, 1.0)
        cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
        # The image spans −1 to 1, so a shift by a share s of its side is 2 s.
        x, y = self._uniform(images, 2 * self.shift), self._uniform(images, 2 * self.shift)
        rows = [torch.stack((cos * mirror, -sin, x), 1), torch.stack((sin * mirror, cos, y), 1)]
        return torch.stack(rows, 1)

    def _light(self, images: Tensor) -> Tensor:
        gain = 1 + self._uniform(images, self.contrast).view(-1, 1, 1, 1)
        offset = self._uniform(images, self.brightness).view(-1, 1, 1, 1)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return ((images - mean) * gain + mean + offset).clamp(0, 1)

    def _erase(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        device = images.device
        area = torch.empty(count, device=device).uniform_(0.02, 0.2)
        aspect = torch.empty(count, device=device).uniform_(math.log(0.3), math.log(3.3)).exp()
        tall, wide = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        top = torch.rand(count, device=device) * (1 - tall)
        left = torch.rand(count, device=device) * (1 - wide)
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        inside_y = (y >= top[:, None]) & (y < (top + tall)[:, None])
        inside_x = (x >= left[:, None]) & (x < (left + wide)[:, None])
        chosen = (torch.rand(count, device=device) < self.erase)[:, None, None]
        hole = (chosen & inside_y[:, :, None] & inside_x[:, None, :])[:, None]
        return torch.where(hole, images.mean(dim=(1, 2, 3), keepdim=True), images)
