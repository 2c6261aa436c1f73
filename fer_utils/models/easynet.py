"""EasyNet: the small network that is trained from scratch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fer_utils.models.normalise import Standardise, resize

# Options that a network's description leaves out where they are as here.
LATER = {"depth": 3, "batch_norm": True, "activation": "relu"}
ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


def pooling(
    channels: int, padding: int = 0, *, batch_norm: bool = True, activation: str = "relu"
) -> nn.Sequential:
    """Max-pooling 3×3 with stride 2, then batch normalisation (Ioffe & Szegedy 2015) and ReLU.

    ReLU and pooling may change places without changing the result, and normalising after the pooling means
    normalising a quarter of the values, which saves time on a processor.

    Args:
        channels: to be normalised.
        padding: of the pooling.
        batch_norm: normalise at all.
        activation: a key of `ACTIVATIONS`.
    """
    norm = [nn.BatchNorm2d(channels)] if batch_norm else []
    return nn.Sequential(
        nn.MaxPool2d(3, stride=2, padding=padding), *norm, ACTIVATIONS[activation](inplace=True)
    )


class EasyNet(nn.Module):
    """Three convolutions, two poolings and two fully connected layers, as in the poster's figure.

    ======== ===================================== ==============
    layer    what it does                          output (C×H×W)
    ======== ===================================== ==============
    input    image scaled to 48×48, standardised   1 × 48 × 48
    conv1    5×5, `widths[0]` filters              32 × 48 × 48
    pool1    max 3×3, stride 2; batch norm, ReLU   32 × 24 × 24
    conv2    5×5, `widths[1]` filters              96 × 24 × 24
    pool2    max 3×3, stride 2; batch norm, ReLU   96 × 12 × 12
    conv3    4×4, `widths[2]` filters; ditto       192 × 11 × 11
    fc1      fully connected; batch norm, ReLU     `hidden` = 128
    fc2      fully connected, logits               6
    ======== ===================================== ==============

    The poster names the layers; widths, input size, batch normalisation and dropout are this book's. The
    faces of FER2013 were published with 48 pixels a side: scaling the book's 64 back loses little of them.

    Args:
        widths: filters of the three convolutions.
        hidden: units of the first fully connected layer.
        dropout: share of activations dropped before each fully connected layer, 0 to 1.
        image_size: side in pixels to which images are scaled.
        channels: of the input.
        stride: step of the first convolution; 2 makes all that follows four times cheaper.
        padding: fill the border with zeros, so that convolutions keep the size of their input.
        num_classes: number of logits.
        depth: convolutions: 3 as in the figure; 2 leaves out conv3; 4 adds conv4, a 3×3 convolution like it.
        batch_norm: normalise after each layer but the last; without, layers have biases in its place.
        activation: ``"relu"``, ``"elu"`` (Clevert et al. 2016) or ``"silu"`` (Elfwing et al. 2018).

    Raises:
        ValueError: another depth or activation.
    """

    def __init__(
        self,
        widths: tuple[int, int, int] = (32, 96, 192),
        hidden: int = 128,
        dropout: float = 0.3,
        image_size: int = 48,
        num_classes: int = 6,
        channels: int = 1,
        stride: int = 1,
        padding: bool = True,
        depth: int = 3,
        batch_norm: bool = True,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if depth not in (2, 3, 4):
            raise ValueError(f"depth is {depth!r}; EasyNet can have 2, 3 or 4 convolutions")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}; it can be {', '.join(ACTIVATIONS)}")
        self.options = {
            "widths": list(widths),
            "hidden": hidden,
            "dropout": dropout,
            "image_size": image_size,
            "num_classes": num_classes,
            "channels": channels,
            "stride": stride,
            "padding": padding,
        }
        # Runs that began before these options were there must still be able to go on.
        later = {"depth": depth, "batch_norm": batch_norm, "activation": activation}
        self.options |= {name: value for name, value in later.items() if value != LATER[name]}
        how, bias = {"batch_norm": batch_norm, "activation": activation}, not batch_norm
        pad = int(padding)
        self.input_size = image_size
        self.standardise = Standardise()
        self.features = nn.Sequential()
        self.features.add_module("conv1", nn.Conv2d(channels, widths[0], 5, stride, 2 * pad, bias=bias))
        self.features.add_module("pool1", pooling(widths[0], pad, **how))
        self.features.add_module("conv2", nn.Conv2d(widths[0], widths[1], 5, padding=2 * pad, bias=bias))
        self.features.add_module("pool2", pooling(widths[1], pad, **how))
        for number, inputs, kernel in ((3, widths[1], 4), (4, widths[2], 3))[: depth - 2]:
            conv = nn.Conv2d(inputs, widths[2], kernel, padding=pad, bias=bias)
            norm = [nn.BatchNorm2d(widths[2])] if batch_norm else []
            act = ACTIVATIONS[activation](inplace=True)
            self.features.add_module(f"conv{number}", nn.Sequential(conv, *norm, act))
        with torch.no_grad():
            side = self.features.eval()(torch.zeros(1, channels, image_size, image_size)).shape[-1]
        self.features.train()
        self.classifier = nn.Sequential()
        self.classifier.add_module("drop1", nn.Dropout(dropout))
        fc1 = nn.Linear(widths[min(depth, 3) - 1] * side * side, hidden, bias=bias)
        flat = [nn.BatchNorm1d(hidden)] if batch_norm else []
        self.classifier.add_module("fc1", nn.Sequential(fc1, *flat, ACTIVATIONS[activation](inplace=True)))
        self.classifier.add_module("drop2", nn.Dropout(dropout))
        self.classifier.add_module("fc2", nn.Linear(hidden, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: float (B, 1, H, W) grey, values 0–1.

        Returns:
            Logits, float (B, num_classes).
        """
        return self.classifier(self.features(self.standardise(resize(images, self.input_size))).flatten(1))
