"""Input normalisation that the networks carry inside, so that every caller passes plain grey images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """Give each image zero mean and unit standard deviation: lighting and contrast cancel.

    Args:
        eps: added to the standard deviation, in grey values of 0–1; a constant image becomes all zeros.
    """

    def __init__(self, eps: float = 1e-2) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, images: Tensor) -> Tensor:
        """Standardise float images (B, C, H, W); the output has the same shape."""
        std, mean = torch.std_mean(images, dim=(1, 2, 3), keepdim=True, correction=0)
        return (images - mean) / (std + self.eps)
