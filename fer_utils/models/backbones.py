"""FaceNet's trunks: networks that were trained to tell people apart, without their classifiers."""

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import nullcontext
from typing import ClassVar

import torch
from facenet_pytorch import InceptionResnetV1
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

from fer_utils.models.easynet import EasyNet

Layers = dict[str, nn.Module]


class Trunk(nn.Sequential):
    """Blocks in a row, ending in the mean over the image: grey images in, features out."""

    size: ClassVar[int]  # side in pixels of the images, where the user does not say
    least: ClassVar[int] = 3  # the smallest side of which anything is left behind the last layer
    means: ClassVar[tuple[float, ...]]  # taken from the channels, of values 0–255
    scale: ClassVar[float] = 1.0  # divides them after that
    weights: ClassVar[str | None] = "vggface2"  # what there are public weights of
    folded: ClassVar[bool] = False  # whether these have batch norm folded into scale and shift
    features: int  # length of the output

    def __init__(self, **blocks: nn.Module) -> None:
        super().__init__(OrderedDict(blocks))
        self.register_buffer("_means", torch.tensor(self.means).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features, float (B, `features`), of grey images, float (B, 1, S, S) of 0–1."""
        return super().forward(self.normalise(images))

    def normalise(self, images: Tensor) -> Tensor:
        """Equal channels in the trunk's own units, one for each of `means`, of images (B, 1, S, S) of 0–1."""
        return (images * 255 - self._means) / self.scale

    def layers(self) -> list[tuple[str, nn.Module]]:
        """Names and modules of all layers in the order of computing, the input first."""
        leaves = [(n, m) for n, m in self.named_modules() if n and not any(m.children())]
        return [("input", nn.Identity()), *leaves]

    @torch.no_grad()
    def restore_batch_norm_statistics(self, batches: Iterable[Tensor]) -> None:
        """Give each normalisation mean and variance of its input for images (B, 1, S, S) of 0–1; same output.

        For weights that have it `folded`: in training mode, where normalisations use the batch's own
        statistics, the network would compute something else, and diverge at once.
        """
        # Of each normalisation's input, by channel: number of values, their sum and sum of squares.
        sums = {module: 0 for module in self.modules() if isinstance(module, nn.BatchNorm2d)}

        def observe(norm: nn.Module, inputs: tuple[Tensor]) -> None:
            variance, mean = (v.double() for v in torch.var_mean(inputs[0], (0, 2, 3), correction=0))
            moments = torch.stack([torch.ones_like(mean), mean, variance + mean.square()])
            sums[norm] = sums[norm] + inputs[0][:, 0].numel() * moments

        hooks = [norm.register_forward_pre_hook(observe) for norm in sums]
        self.eval()
        for batch in batches:
            self(batch)
        for hook in hooks:
            hook.remove()
        for norm, (count, total, squares) in sums.items():
            mean = total / count
            variance = (squares / count - mean.square()).clamp(min=0)
            scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            shift = norm.bias.double() - scale * norm.running_mean.double()
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(scale * (variance + norm.eps).sqrt())
            norm.bias.copy_(shift + scale * mean)


def global_mean(side: int = 1) -> nn.Sequential:
    """Means over `side` × `side` fields of the image, as one row: two layers, as in Keras' VGGFace models."""
    return nn.Sequential(OrderedDict(mean=nn.AdaptiveAvgPool2d(side), flatten=nn.Flatten()))


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: for stride 2 and an even side, more at right and bottom."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve float (B, C, S, S)."""
        side, stride = images.shape[-1], self.stride[0]
        missing = max((-(-side // stride) - 1) * stride + self.kernel_size[0] - side, 0)
        before, after = missing // 2, missing - missing // 2
        if before != after:
            images, before = F.pad(images, (before, after, before, after)), 0
        # A processor takes fifty times as long for the gradient of a depthwise step of two in half precision.
        slow = self.groups > 1 and stride > 1 and self.weight.requires_grad and torch.is_grad_enabled()
        slow = slow and images.device.type == "cpu"
        with torch.autocast("cpu", enabled=False) if slow else nullcontext():
            images = images.float() if slow else images
            return F.conv2d(images, self.weight, None, self.stride, before, 1, self.groups)


class MobileNetV1(Trunk):
    """MobileNetV1 (Howard et al. 2017) as in the `faceres` model, its channels times `width`."""

    size = 96
    means = (103.939, 116.779, 123.68)  # blue, green, red
    folded = True
    EPSILON = 1e-3  # TensorFlow's, of the normalisations
    CHANNELS = (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
    STRIDES = (1, 2, 1, 2, 1, 2, *[1] * 5, 2, 1)

    def __init__(self, width: float = 1.0) -> None:
        channels = max(8, round(32 * width))
        blocks = {"conv1": nn.Sequential(OrderedDict(self._layer("", 3, channels, 3, 2, 1)))}
        for number, (outputs, stride) in enumerate(zip(self.CHANNELS, self.STRIDES, strict=True), 1):
            inputs, channels = channels, max(8, round(outputs * width))
            depthwise = self._layer("dw_", inputs, inputs, 3, stride, inputs)
            pointwise = self._layer("pw_", inputs, channels, 1, 1, 1)
            blocks[f"block{number}"] = nn.Sequential(OrderedDict(depthwise | pointwise))
        super().__init__(**blocks, pool=global_mean())
        self.features = channels

    def _layer(self, prefix: str, inputs: int, outputs: int, kernel: int, stride: int, groups: int) -> Layers:
        """Convolution, batch normalisation and ReLU6."""
        convolution = SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        nn.init.kaiming_normal_(convolution.weight)
        norm = nn.BatchNorm2d(outputs, eps=self.EPSILON)
        return {f"{prefix}conv": convolution, f"{prefix}bn": norm, f"{prefix}relu": nn.ReLU6(True)}


class InceptionResNetV1(Trunk):
    """facenet-pytorch's Inception-ResNet-v1 up to its last block: the embedding layer of 512 is left off."""

    size = 160
    least = 75
    means = (127.5, 127.5, 127.5)
    scale = 128.0
    features = 1792

    def __init__(self) -> None:
        blocks = dict(InceptionResnetV1().named_children())
        for top in ("avgpool_1a", "dropout", "last_linear", "last_bn"):
            del blocks[top]
        super().__init__(**blocks, pool=global_mean())


class ResNet50(Trunk):
    """ResNet-50 (He et al. 2016) of the Caffe lineage, as VGGFace2 was published with it: the poster's trunk.

    It differs from torchvision's in two places: a stage's stride sits on the first 1×1 convolution of its
    first block (and on the projection), and the first pooling has no padding.
    """

    size = 224
    means = (131.0912, 103.8827, 91.4953)  # red, green, blue
    features = 2048

    def __init__(self) -> None:
        blocks = dict(resnet50(weights=None).named_children())
        for stage in ("layer2", "layer3", "layer4"):
            blocks[stage][0].conv1.stride, blocks[stage][0].conv2.stride = (2, 2), (1, 1)
        blocks["maxpool"] = nn.MaxPool2d(3, 2, ceil_mode=True)
        del blocks["avgpool"], blocks["fc"]
        super().__init__(**blocks, pool=global_mean())

    def layers(self) -> list[tuple[str, nn.Module]]:
        """The 175 layers that Keras counts: each ReLU and addition of a block is one.

        Index 99, the last of the first hundred, is the addition in `layer3.1`, which Keras calls conv4_2.
        """
        modules = dict(self.named_modules())
        names = ["input", "conv1", "bn1", "relu", "maxpool"]
        for block in (f"layer{s}.{i}" for s, blocks in enumerate((3, 4, 6, 3), 1) for i in range(blocks)):
            parts = ["conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3", "add", "relu"]
            if block.endswith(".0"):
                parts[7:8] = ["downsample.0", "bn3", "downsample.1"]
            names += [f"{block}.{part}" for part in parts]
        return [(name, modules.get(name, nn.Identity())) for name in [*names, "pool.mean", "pool.flatten"]]


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut, as dlib computes them.

    With a stride of two nothing is padded, and the shortcut has the means over fields of 2×2. Where the two
    differ in side or channels, the smaller one is filled up with zeros at the end.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=2 - stride, bias=False)
        self.bn1, self.relu1 = nn.BatchNorm2d(outputs), nn.ReLU(True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2, self.relu2 = nn.BatchNorm2d(outputs), nn.ReLU(True)
        self.shortcut = nn.AvgPool2d(2) if stride == 2 else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps, float (B, `outputs`, S', S'), of maps (B, `inputs`, S, S)."""
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(maps)))))
        maps = self.shortcut(maps)
        if inner.shape != maps.shape:
            _, channels, height, width = map(max, zip(inner.shape, maps.shape, strict=True))
            inner, maps = (
                F.pad(m, (0, width - m.shape[3], 0, height - m.shape[2], 0, channels - m.shape[1]))
                for m in (inner, maps)
            )
        return self.relu2(inner + maps)


class JoinedLevels(nn.Sequential):
    """Levels in a row; what comes out are the means over the image after each, side by side."""

    def forward(self, maps: Tensor) -> Tensor:
        """Features, float (B, channels of all levels), of maps (B, C, S, S)."""
        means = []
        for level in self:
            maps = level(maps)
            means.append(maps.mean((2, 3)))
        return torch.cat(means, 1)


class DlibResNet(Trunk):
    """dlib's face recognition network (King 2009): a ResNet of 29 convolutions, in the public domain.

    Beside the means of the last map, its features have those of two levels below, which know more about an
    expression. The first convolution takes the grey image: `pretrained.dlib_state` adds its kernels up.
    """

    size = 128
    least = 103
    means = (0.0,)
    scale = 256.0
    weights = "dlib"
    folded = True
    features = 128 + 256 + 256
    LEVELS = ((32, 3, 1), (64, 4, 2), (128, 3, 2), (256, 3, 2), (256, 1, 2))  # channels, blocks, first stride

    def __init__(self) -> None:
        levels, inputs = [], 32
        for outputs, count, stride in self.LEVELS:
            rest = (Residual(outputs, outputs) for _ in range(count - 1))
            levels.append(nn.Sequential(Residual(inputs, outputs, stride), *rest))
            inputs = outputs
        first = {"conv1": nn.Conv2d(1, 32, 7, 2, bias=False), "bn1": nn.BatchNorm2d(32)}
        first |= {"relu1": nn.ReLU(True), "pool1": nn.MaxPool2d(3, 2)}
        super().__init__(**first, level1=levels[0], level2=levels[1], joined=JoinedLevels(*levels[2:]))


class EasyTrunk(Trunk):
    """EasyNet's convolutions, `width` times as wide, and the means over 3×3 fields; no public weights."""

    size = 64
    least = 31
    means = (127.5, 127.5, 127.5)
    scale = 64.0
    weights = None

    def __init__(self, width: float = 1.0) -> None:
        widths = tuple(round(n * width) for n in (32, 96, 192))
        easynet = EasyNet(widths=widths, channels=3, padding=False)
        super().__init__(**dict(easynet.features.named_children()), pool=global_mean(3))
        self.features = 9 * widths[-1]


TRUNKS: dict[str, type[Trunk]] = {
    "easynet": EasyTrunk,
    "mobilenet_v1": MobileNetV1,
    "inception_resnet_v1": InceptionResNetV1,
    "resnet50": ResNet50,
    "dlib_resnet": DlibResNet,
}
