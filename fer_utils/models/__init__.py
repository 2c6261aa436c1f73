"""The three networks. Each takes float images (B, 1, 64, 64), grey, 0–1, and gives logits (B, 6)."""

from typing import Any

from torch import nn

from fer_utils.models.easynet import EasyNet
from fer_utils.models.emonet import EmoNet
from fer_utils.models.facenet import FaceNet

MODELS: dict[str, type[nn.Module]] = {"emonet": EmoNet, "easynet": EasyNet, "facenet": FaceNet}


def build(name: str, **options: Any) -> nn.Module:
    """Make a network of `MODELS`, with its options; `model.options` holds what is needed to make it again."""
    return MODELS[name](**options)
