"""FaceNet's trunks, without their classifiers: three know VGGFace2's people, and one ImageNet's things."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, NamedTuple

import torch
from facenet_pytorch import InceptionResnetV1
from torch import Tensor, nn
from torch.nn import functional as F

from fer_utils.models.easynet import EasyNet


class Layer(NamedTuple):
    """A layer as Keras counts them; the input, concatenations and scalings have no module."""

    name: str
    module: nn.Module | None


class Trunk(nn.Sequential):
    """Blocks in a row, ending in the mean over the image: grey images in, features out.

    Attributes:
        size: side in pixels of the images that it is given where the user does not say.
        means: what is taken from the three channels, of values 0–255.
        scale: what they are divided by after that.
        weights: what there are public weights of: ``"vggface2"``, ``"imagenet"`` or nothing.
        features: length of the output.
    """

    size: ClassVar[int]
    means: ClassVar[tuple[float, float, float]]
    scale: ClassVar[float] = 1.0
    weights: ClassVar[str | None] = "vggface2"
    features: int

    def __init__(self, **blocks: nn.Module) -> None:
        super().__init__()
        for name, block in blocks.items():
            self.add_module(name, block)
        self.register_buffer("_means", torch.tensor(self.means).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features.

        Args:
            images: float (B, 1, S, S) grey, values 0–1; the three channels are made equal to it.

        Returns:
            float (B, `features`).
        """
        return super().forward(self.normalise(images))

    def normalise(self, images: Tensor) -> Tensor:
        """Three channels in the trunk's own units, (B, 3, S, S), from grey images (B, 1, S, S) of 0–1."""
        return (images * 255 - self._means) / self.scale

    def layers(self) -> list[Layer]:
        """All layers in the order of computing, the input first, each of which counts one."""
        counted = [Layer("input", None)]
        for name, block in self.named_children():
            counted.extend(self._layers(name, block))
        return counted

    def _layers(self, name: str, module: nn.Module) -> Iterator[Layer]:
        children = list(module.named_children())
        if not children:
            yield Layer(name, module)
        for child_name, child in children:
            yield from self._layers(f"{name}/{child_name}", child)


def global_mean() -> nn.Sequential:
    """Mean over the image and flattening: two layers, as in Keras' VGGFace models."""
    pool = nn.Sequential()
    pool.add_module("mean", nn.AdaptiveAvgPool2d(1))
    pool.add_module("flatten", nn.Flatten())
    return pool


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: for stride 2 and an even side, more at right and bottom."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve float (B, C, S, S)."""
        side, stride = images.shape[-1], self.stride[0]
        missing = max((-(-side // stride) - 1) * stride + self.kernel_size[0] - side, 0)
        before, after = missing // 2, missing - missing // 2
        if before == after:
            return F.conv2d(images, self.weight, None, self.stride, before, 1, self.groups)
        return super().forward(F.pad(images, (before, after, before, after)))


class MobileNetV1(Trunk):
    """MobileNetV1 (Howard et al. 2017) as in the `faceres` model: 13 depthwise-separable blocks.

    Args:
        width: factor on the numbers of channels; the public weights have 1.
    """

    size = 96
    means = (103.939, 116.779, 123.68)  # blue, green, red
    EPSILON = 1e-3  # TensorFlow's, of the normalisations
    # Channels and stride of each block.
    BLOCKS = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    )

    def __init__(self, width: float = 1.0) -> None:
        channels = max(8, round(32 * width))
        blocks = {"conv1": nn.Sequential()}
        add_convolution(blocks["conv1"], "", 3, channels, 3, 2, 1)
        for number, (outputs, stride) in enumerate(self.BLOCKS, 1):
            inputs, channels = channels, max(8, round(outputs * width))
            block = blocks[f"block{number}"] = nn.Sequential()
            block.kind = "depthwise 3×3, conv 1×1" + (" /2" if stride == 2 else "")
            add_convolution(block, "dw_", inputs, inputs, 3, stride, inputs)
            add_convolution(block, "pw_", inputs, channels, 1, 1, 1)
        super().__init__(**blocks, pool=global_mean())
        self.features = channels

    @torch.no_grad()
    def unfold(self, batches: Iterable[Tensor]) -> None:
        """Give each normalisation the mean and variance of its input, and leave its output as it is.

        Before, normalisations only scale and shift (`pretrained.mobilenet_state`), so that in training mode,
        where they use the batch's own mean and variance, the network would compute something else.

        Args:
            batches: float images (B, 1, S, S), values 0–1.
        """
        norms = [m for m in self.modules() if isinstance(m, nn.BatchNorm2d)]
        # Of each normalisation: values seen, their sum and the sum of their squares, a channel.
        sums = {m: torch.zeros(3, m.num_features, dtype=torch.float64) for m in norms}

        def observe(norm: nn.Module, inputs: tuple[Tensor]) -> None:
            variance, mean = (v.double() for v in torch.var_mean(inputs[0], (0, 2, 3), correction=0))
            count = inputs[0][:, 0].numel()
            sums[norm] += count * torch.stack([torch.ones_like(mean), mean, variance + mean.square()])

        hooks = [norm.register_forward_pre_hook(observe) for norm in norms]
        was_training = self.training
        self.eval()
        for batch in batches:
            self(batch)
        self.train(was_training)
        for hook in hooks:
            hook.remove()
        for norm in norms:
            mean, square = sums[norm][1] / sums[norm][0], sums[norm][2] / sums[norm][0]
            variance = (square - mean.square()).clamp(min=0)
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            shift = norm.bias.double() - scale * norm.running_mean.double()
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(scale * (variance + norm.eps).sqrt())
            norm.bias.copy_(shift + scale * mean)


def add_convolution(
    block: nn.Sequential,
    prefix: str,
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int,
    groups: int,
    *,
    relu: bool = True,
) -> None:
    """Add convolution, batch normalisation and ReLU6 to a block, as MobileNet and EfficientNet have them."""
    convolution = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    block.add_module(f"{prefix}conv", convolution)
    block.add_module(f"{prefix}bn", nn.BatchNorm2d(outputs, eps=MobileNetV1.EPSILON))
    if relu:
        block.add_module(f"{prefix}relu", nn.ReLU6(inplace=True))


class InceptionResNetV1(Trunk):
    """facenet-pytorch's Inception-ResNet-v1 up to its last block: the embedding layer of 512 is left off."""

    size = 160
    means = (127.5, 127.5, 127.5)
    scale = 128.0
    features = 1792
    TOP = ("avgpool_1a", "dropout", "last_linear", "last_bn")

    def __init__(self) -> None:
        blocks = {n: block for n, block in InceptionResnetV1().named_children() if n not in self.TOP}
        for name, block in blocks.items():
            if name.startswith(("repeat", "mixed", "block8")):
                block.kind = f"{len(block)} Inception blocks" if "repeat" in name else "Inception block"
        super().__init__(**blocks, pool=global_mean())

    def _layers(self, name: str, module: nn.Module) -> Iterator[Layer]:
        for layer in super()._layers(name, module):
            # What that package computes without a module, but Keras would count.
            if layer.name == f"{name}/conv2d":
                yield Layer(f"{name}/concatenate", None)
            yield layer
            if layer.name == f"{name}/conv2d":
                yield Layer(f"{name}/add", None)
        if "mixed" in name and "/" not in name:
            yield Layer(f"{name}/concatenate", None)


class Add(nn.Module):
    """The sum of a block's two branches: a layer of its own, as in Keras."""

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Add two float tensors of one shape."""
        return branch + shortcut


class Bottleneck(nn.Module):
    """ResNet's block of 1×1, 3×3 and 1×1 convolutions, its layers in Keras' order.

    In the Caffe lineage the stride sits on the first 1×1 convolution (and on the projection), not on the 3×3.
    """

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        outputs = 4 * width
        self.kind = "bottleneck" + (" /2" if stride == 2 else "")
        self.reduce = nn.Conv2d(inputs, width, 1, stride, bias=False)
        self.reduce_bn = nn.BatchNorm2d(width)
        self.reduce_relu = nn.ReLU(inplace=True)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv3x3_bn = nn.BatchNorm2d(width)
        self.conv3x3_relu = nn.ReLU(inplace=True)
        self.increase = nn.Conv2d(width, outputs, 1, bias=False)
        if project:
            self.proj = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        self.increase_bn = nn.BatchNorm2d(outputs)
        if project:
            self.proj_bn = nn.BatchNorm2d(outputs)
        self.project = project
        self.add = Add()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map float (B, inputs, S, S) to (B, 4 × width, S / stride, S / stride)."""
        branch = self.reduce_relu(self.reduce_bn(self.reduce(images)))
        branch = self.conv3x3_relu(self.conv3x3_bn(self.conv3x3(branch)))
        branch = self.increase_bn(self.increase(branch))
        shortcut = self.proj_bn(self.proj(images)) if self.project else images
        return self.relu(self.add(branch, shortcut))


class ResNet50(Trunk):
    """ResNet-50 (He et al. 2016) of the Caffe lineage, as VGGFace2 was published with it: the poster's trunk.

    Keras counts 175 layers; index 99, the last of "the first 100", is the addition in block conv4_2.
    First padding and pooling are those of the PyTorch ports; Keras' differ by one pixel at the border.

    Args:
        width: channels of the first stage; the public weights have 64.
    """

    size = 224
    means = (91.4953, 103.8827, 131.0912)  # blue, green, red
    STAGES = ((2, 3), (3, 4), (4, 6), (5, 3))

    def __init__(self, width: int = 64) -> None:
        conv1 = nn.Sequential()
        conv1.add_module("conv", nn.Conv2d(3, width, 7, 2, padding=3, bias=False))
        conv1.add_module("bn", nn.BatchNorm2d(width))
        conv1.add_module("relu", nn.ReLU(inplace=True))
        blocks = {"conv1": conv1, "pool1": nn.MaxPool2d(3, 2, ceil_mode=True)}
        inputs = width
        for stage, count in self.STAGES:
            for number in range(1, count + 1):
                stride = 2 if number == 1 and stage > 2 else 1
                inner = width * 2 ** (stage - 2)
                blocks[f"conv{stage}_{number}"] = Bottleneck(inputs, inner, stride, project=number == 1)
                inputs = 4 * inner
        super().__init__(**blocks, pool=global_mean())
        self.features = inputs


class Residual(nn.Sequential):
    """Layers in a row, the last of which, an `Add`, adds what went in to what came out."""

    def forward(self, images: Tensor) -> Tensor:
        """Map float (B, C, S, S) to the same shape."""
        *branch, add = self
        outputs = images
        for layer in branch:
            outputs = layer(outputs)
        return add(outputs, images)


class EfficientNetLite0(Trunk):
    """EfficientNet-Lite0: EfficientNet-B0 (Tan & Le 2019) with ReLU6 and without squeeze-and-excitation.

    The public weights are Google's for ImageNet, in PyTorch's form. They were trained on (x − 127) / 128, and
    not on what ImageNet's own mean and deviation make of x, which suits most other networks.
    """

    size = 224
    means = (127.0, 127.0, 127.0)
    scale = 128.0
    weights = "imagenet"
    features = 1280
    # Blocks, kernel, stride of the first of them, factor on the channels inside, and channels, by stage.
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )

    def __init__(self) -> None:
        channels = 32
        blocks = {"conv1": nn.Sequential()}
        add_convolution(blocks["conv1"], "", 3, channels, 3, 2, 1)
        for count, kernel, first_stride, expansion, outputs in self.STAGES:
            for number in range(count):
                stride = 1 if number else first_stride
                block = Residual() if number else nn.Sequential()
                block.kind = f"inverted bottleneck {kernel}×{kernel}" + (" /2" if stride == 2 else "")
                inner = expansion * channels
                if expansion > 1:
                    add_convolution(block, "expand_", channels, inner, 1, 1, 1)
                add_convolution(block, "dw_", inner, inner, kernel, stride, inner)
                add_convolution(block, "pw_", inner, outputs, 1, 1, 1, relu=False)
                if number:
                    block.add_module("add", Add())
                blocks[f"block{len(blocks)}"] = block
                channels = outputs
        blocks["top"] = nn.Sequential()
        add_convolution(blocks["top"], "", channels, self.features, 1, 1, 1)
        super().__init__(**blocks, pool=global_mean())


class EasyTrunk(Trunk):
    """EasyNet's convolutions and the means over 3×3 fields of the image: learns who is drawn within a minute.

    There are no public weights; chapter 4 makes its own from drawn people.

    Args:
        width: factor on the numbers of channels.
    """

    size = 64
    means = (127.5, 127.5, 127.5)
    scale = 64.0
    weights = None

    def __init__(self, width: float = 1.0) -> None:
        widths = tuple(round(n * width) for n in (32, 96, 192))
        convolutions = EasyNet(widths=widths, channels=3, stride=1, padding=False).features
        pool = nn.Sequential()
        pool.add_module("mean", nn.AdaptiveAvgPool2d(3))
        pool.add_module("flatten", nn.Flatten())
        super().__init__(**dict(convolutions.named_children()), pool=pool)
        self.features = 9 * round(192 * width)


TRUNKS: dict[str, type[Trunk]] = {
    "easynet": EasyTrunk,
    "mobilenet_v1": MobileNetV1,
    "inception_resnet_v1": InceptionResNetV1,
    "resnet50": ResNet50,
    "efficientnet_lite0": EfficientNetLite0,
}
