"""Export the face detector, which travels in the wheel: `python -m reading_faces.mtcnn FOLDER`."""

import sys
from pathlib import Path

import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from torch import Tensor, nn

from fer_utils.export import save, to_onnx


def export_detector(folder: Path) -> None:
    """Write facenet-pytorch's MTCNN as `mtcnn-p.onnx`, `mtcnn-r.onnx` and `mtcnn-o.onnx`."""
    stages = (
        (PNet(), 64, "p", ["offsets", "probabilities"], {0: "count", 2: "height", 3: "width"}),
        (RNet(), 24, "r", ["offsets", "probabilities"], {0: "count"}),
        (ONet(), 48, "o", ["offsets", "landmarks", "probabilities"], {0: "count"}),
    )
    for network, side, name, outputs, dynamic in stages:
        example = torch.zeros(2, 3, side, side)
        for part, layer in list(network.named_children()):
            if isinstance(layer, nn.PReLU):
                setattr(network, part, _PReLU(layer.weight.detach()))
        # The last network would lose more by further channels.
        for stage in {"p": (1,), "r": (1, 2), "o": ()}[name]:
            _pool_first(network, stage)
        if isinstance(network, PNet):  # a softmax of two is the sigmoid of their difference
            for values in (network.conv4_1.weight, network.conv4_1.bias):
                values.data = values.data[1:] - values.data[:1]
            network.softmax4_1 = nn.Sigmoid()
        save(to_onnx(network, example, "pixels", outputs, dynamic), folder / f"mtcnn-{name}.onnx")


class _PReLU(nn.Module):
    """PReLU in operators that onnxruntime runs faster: the greater of x and its multiple.

    For slopes above 1 it is the smaller one. With `source`, the input has more channels than there are
    slopes, and `source` names the one to be multiplied by each slope's size.
    """

    def __init__(self, slopes: Tensor, source: Tensor | None = None) -> None:
        super().__init__()
        self.source, self.slopes = source, slopes if source is None else slopes.abs()
        self.steep = slopes > 1 if bool((slopes > 1).any()) else None

    def forward(self, x: Tensor) -> Tensor:
        shape = -1, *[1] * (x.ndim - 2)
        first, second = x, x
        if self.source is not None:
            first, second = x[:, : len(self.slopes)], x.index_select(1, self.source)
        second = self.slopes.view(shape) * second
        larger = torch.maximum(first, second)
        if self.steep is None:
            return larger
        return torch.where(self.steep.view(shape), torch.minimum(first, second), larger)


@torch.no_grad()
def _pool_first(network: nn.Module, stage: int) -> None:
    """Pool before PReLU, which then has a quarter of the work; no bit of the result changes.

    With a negative slope, PReLU falls before it rises, so that the maximum of −x is needed, too: the
    convolution gets channels for it.
    """
    convolution, prelu, pool = (getattr(network, f"{part}{stage}") for part in ("conv", "prelu", "pool"))
    negative, source = prelu.slopes < 0, torch.arange(len(prelu.slopes))
    source[negative] = len(source) + torch.arange(int(negative.sum()))
    for values in (convolution.weight, convolution.bias):
        values.data = torch.cat([values, -values[negative]])
    setattr(network, f"prelu{stage}", nn.Identity())
    setattr(network, f"pool{stage}", nn.Sequential(pool, _PReLU(prelu.slopes, source)))


if __name__ == "__main__":
    export_detector(Path(sys.argv[1]))
