"""FaceNet: a network that was trained to tell people apart, fine-tuned to read expressions."""

from collections import OrderedDict
from typing import Self

import torch
from torch import Tensor, nn

from fer_utils.models.backbones import TRUNKS
from fer_utils.models.inputs import resize


class FaceNet(nn.Module):
    """A pretrained trunk without its classifier, then FC 4096, FC 1024, FC 6, as in the poster's figure.

    The poster names trunk and layers. This book adds dropout, and batch normalisation without parameters
    between the two: trunks differ in the scale of their features, and so one learning rate suits them all.

    A new FaceNet has random weights; `fer_utils.weights.load_pretrained` fills the trunk. Frozen layers keep
    their parameters (they get no gradient) and their batch normalisation stays in evaluation mode.

    Args:
        trunk: ``"mobilenet_v1"`` (3 million parameters, trains on a processor), ``"inception_resnet_v1"``
            (22 million), ``"resnet50"`` (24 million; the poster's), ``"dlib_resnet"`` (6 million; its weights
            are in the public domain) or ``"easynet"`` (for the demo).
        pretrained: ``"vggface2"``, or ``"dlib"`` for its trunk; ``"none"`` leaves the trunk as it is made.
        freeze: how much of the trunk stays as it is. An int counts layers as Keras does, the input included
            (the poster: 100 of ResNet-50's 175); a float from 0 to 1 is a share of the layers.
        head: units of the fully connected layers before the last one; empty for a single linear layer.
        dropout: share of activations dropped after each of them, 0 to 1.
        input_size: side in pixels to which images are enlarged; none for the trunk's own (96 to 224).
        trunk_width: factor on the channels of `mobilenet_v1` or `easynet` without pretrained weights.
        num_classes: number of logits.
    """

    def __init__(
        self,
        trunk: str = "mobilenet_v1",
        pretrained: str = "vggface2",
        freeze: int | float = 0,
        head: tuple[int, ...] | list[int] = (4096, 1024),
        dropout: float = 0.5,
        input_size: int | None = None,
        trunk_width: float = 1.0,
        num_classes: int = 6,
    ) -> None:
        super().__init__()
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if trunk not in TRUNKS:
            raise ValueError(f"no trunk is called {trunk!r}; there are {', '.join(TRUNKS)}")
        kind = TRUNKS[trunk]
        known = ("none",) if kind.weights is None or trunk_width != 1 else (kind.weights, "none")
        if pretrained not in known:
            names = " or ".join(map(repr, known))
            raise ValueError(f"pretrained is {pretrained!r}; for {trunk} of this width it can be {names}")
        self.input_size = input_size or kind.size
        if self.input_size < kind.least:
            raise ValueError(f"input_size is {input_size!r}; {trunk} needs {kind.least} pixels at least")
        self.options |= {"head": list(head), "input_size": self.input_size}
        self.trunk = kind() if trunk_width == 1 else kind(trunk_width)
        # The memory layout in which processors convolve fastest; results are the same.
        self.trunk.to(memory_format=torch.channels_last)
        units = self.trunk.features
        layers = OrderedDict(norm=nn.BatchNorm1d(units, affine=False))
        for number, outputs in enumerate(head, 1):
            layers[f"fc{number}"] = nn.Linear(units, outputs)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            layers[f"drop{number}"] = nn.Dropout(dropout)
            units = outputs
        layers[f"fc{len(head) + 1}"] = nn.Linear(units, num_classes)
        self.classifier = nn.Sequential(layers)
        self.frozen_layers = self._freeze(freeze)
        self.train()

    def _freeze(self, freeze: int | float) -> list[tuple[str, nn.Module]]:
        layers = self.trunk.layers()
        count = round(freeze * len(layers)) if isinstance(freeze, float) else freeze
        if not 0 <= count <= len(layers):
            how = f"{self.options['trunk']} counts {len(layers)} layers; an int, or a share of 0 to 1"
            raise ValueError(f"freeze={freeze!r}: {how}")
        for _, module in layers[:count]:
            module.requires_grad_(False)
        return layers[:count]

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for _, module in self.frozen_layers:
            module.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (B, num_classes), of grey images, float (B, 1, 64, 64) of 0–1."""
        return self.classifier(self.trunk(self.enlarge(images)))

    def enlarge(self, images: Tensor) -> Tensor:
        """Scale float images (B, 1, H, W) of 0–1 to `input_size`, bicubic and antialiased."""
        return resize(images, self.input_size)
