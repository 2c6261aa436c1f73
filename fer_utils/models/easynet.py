"""EasyNet: the small network that is trained from scratch."""

import torch
from torch import Tensor, nn

from fer_utils.models.inputs import Standardise, resize

ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class Dropout(nn.Dropout):
    """Dropout whose mask is made of random bytes on a processor, so that `p` is rounded to a 256th.

    PyTorch draws the mask value by value on one thread: a sixth of the time of EasyNet's training.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Drop values of a tensor of any shape while training, and scale the others up."""
        count, dropped = values.numel(), round(256 * self.p)
        if not self.training or dropped in (0, 256) or values.device.type != "cpu":
            return super().forward(values)
        words = torch.empty(-(-count // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[:count].view(values.shape) >= dropped
        return values * kept * (256 / (256 - dropped))


def flatten(maps: Tensor) -> Tensor:
    """Rows of all values, (B, C × S × S), of maps (B, C, S, S) that are stored channel by channel of a pixel.

    Their gradient would come back in the other memory layout, in which ReLU takes it ten times as long.
    """
    if maps.requires_grad:
        maps.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
    return maps.flatten(1)


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

    The poster names the layers; widths, input size, batch normalisation (Ioffe & Szegedy 2015) and dropout
    are this book's. ReLU and max-pooling may change places without changing the result.

    Args:
        widths: filters of the three convolutions.
        hidden: units of the first fully connected layer.
        dropout: share of activations dropped before each fully connected layer, 0 to 1 in steps of 1/256.
        image_size: side in pixels to which images are scaled; FER2013 was published with 48.
        num_classes: number of logits.
        channels: of the input.
        stride: step of the first convolution; 2 makes all that follows four times cheaper.
        padding: fill the border with zeros, so that convolutions keep the size of their input.
        depth: 3 convolutions as in the figure; 2 leaves out conv3; 4 adds a 3×3 convolution after it.
        batch_norm: normalise after each layer but the last; without, layers have biases in its place.
        activation: ``"relu"``, ``"elu"`` (Clevert et al. 2016) or ``"silu"`` (Elfwing et al. 2018).
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
        self.options = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.options["widths"] = list(widths)
        if depth not in (2, 3, 4) or activation not in ACTIVATIONS:
            choices = f"depth can be 2, 3 or 4, and activation {', '.join(ACTIVATIONS)}"
            raise ValueError(f"depth is {depth!r} and activation {activation!r}; {choices}")
        self.input_size = image_size
        self.standardise = Standardise()
        first, second, third = widths
        pad, bias = int(padding), not batch_norm

        def activated(layer: nn.Module, norm: nn.Module) -> nn.Sequential:
            norms = [norm] if batch_norm else []
            return nn.Sequential(layer, *norms, ACTIVATIONS[activation](inplace=True))

        self.features = nn.Sequential()
        self.features.conv1 = nn.Conv2d(channels, first, 5, stride, 2 * pad, bias=bias)
        self.features.pool1 = activated(nn.MaxPool2d(3, 2, pad), nn.BatchNorm2d(first))
        self.features.conv2 = nn.Conv2d(first, second, 5, padding=2 * pad, bias=bias)
        self.features.pool2 = activated(nn.MaxPool2d(3, 2, pad), nn.BatchNorm2d(second))
        if depth >= 3:
            conv3 = nn.Conv2d(second, third, 4, padding=pad, bias=bias)
            self.features.conv3 = activated(conv3, nn.BatchNorm2d(third))
        if depth == 4:
            conv4 = nn.Conv2d(third, third, 3, padding=pad, bias=bias)
            self.features.conv4 = activated(conv4, nn.BatchNorm2d(third))
        with torch.no_grad():
            empty = torch.zeros(1, channels, image_size, image_size)
            flat = self.features.eval()(empty).numel()
        self.features.train()
        self.classifier = nn.Sequential()
        self.classifier.drop1 = Dropout(dropout)
        self.classifier.fc1 = activated(nn.Linear(flat, hidden, bias=bias), nn.BatchNorm1d(hidden))
        self.classifier.drop2 = Dropout(dropout)
        self.classifier.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (B, num_classes), of grey images, float (B, 1, H, W) of 0–1."""
        images = self.standardise(resize(images, self.input_size))
        return self.classifier(flatten(self.features(images)))
