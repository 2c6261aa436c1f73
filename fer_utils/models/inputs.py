"""Resizing and normalisation that the networks carry inside: callers pass plain grey images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def resize(images: Tensor, side: int) -> Tensor:
    """Scale float images (B, C, H, W) of 0–1 to squares of `side` pixels, bicubic and antialiased."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


class Standardise(nn.Module):
    """Give each image zero mean and unit standard deviation: lighting and contrast cancel."""

    EPSILON = 1e-2  # added to the standard deviation; a constant image becomes all zeros

    def forward(self, images: Tensor) -> Tensor:
        """Standardise float images (B, C, H, W); the output has the same shape."""
        std, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
        return (images - mean) / (std + self.EPSILON)
