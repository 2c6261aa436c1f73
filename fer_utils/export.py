"""Networks as ONNX files, which `fer_utils.prediction` runs without PyTorch."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import torch
from facenet_pytorch.models.mtcnn import ONet, PNet, RNet
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
from onnxruntime.quantization import quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from fer_utils.calibration import fit_temperature
from fer_utils.datasets.faceset import FaceSet
from fer_utils.evaluation import predict
from fer_utils.files import atomic_path

OPSET = 20
SIDE = 64  # pixels of the images that networks take


class _Classifier(nn.Module):
    """A network whose input is scaled by products of matrices.

    They compute what `resize` does, to 3e-6. ONNX's operator Resize would do, but onnxruntime-web accepts its
    antialiasing on WebGPU and then fails at the first image.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        side = network.input_size
        self.network = network
        scaled = nn.functional.interpolate(
            torch.eye(SIDE)[None, None], (side, SIDE), mode="bicubic", antialias=True
        )
        self.register_buffer("matrix", scaled[0, 0])

    def forward(self, images: Tensor) -> Tensor:
        scaled = images if len(self.matrix) == SIDE else (self.matrix @ images @ self.matrix.T).clamp(0, 1)
        return self.network(scaled)


def export_network(model: nn.Module, faces: FaceSet, path: Path) -> float:
    """Write a network in single precision, and beside it, as ``NAME-int8.onnx``, in 8 bits.

    Both take any number of `images` at once, and note the temperature by which logits are to be divided.
    What is exact in half precision, as the weights of published networks are, is stored so.

    Args:
        model: gives logits (B, 6) for float32 images (B, 1, 64, 64) of 0–1.
        faces: validation gives the temperature, 512 training faces the ranges of activations in 8 bits.
        path: ends in ``.onnx``.

    Returns:
        The temperature.
    """
    validation, training = faces.split("validation"), faces.split("train")
    temperature = fit_temperature(validation.labels, predict(model, validation))
    network = _export(_Classifier(model), torch.zeros(2, 1, SIDE, SIDE), "images", ["logits"], {0: "count"})
    notes, casts = {"temperature": f"{temperature:.4f}"}, []
    helper.set_model_props(network, notes)
    for tensor in network.graph.initializer:
        values, name = numpy_helper.to_array(tensor), tensor.name
        half = values.astype(np.float16)
        if values.dtype == np.float32 and values.size > 1000 and np.array_equal(half, values):
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    for cast in reversed(casts):
        network.graph.node.insert(0, cast)
    _save(network, path)
    rows = np.random.default_rng(0).permutation(len(training))[:512]
    network = _quantised(path, training.take(rows))
    helper.set_model_props(network, notes)
    _save(network, path.with_stem(f"{path.stem}-int8"))
    return temperature


def _quantised(path: Path, faces: np.ndarray) -> onnx.ModelProto:
    """An exported network in 8 bits: weights per channel, activations by the uint8 faces (N, 64, 64) given.

    Only convolutions and fully connected layers are: with resizing and standardisation in 8 bits, accuracy
    falls far. The first convolution and depthwise ones, which take little time, stay in single precision.
    Weights take 7 bits, since sums of 8 saturate on processors without VNNI.
    """
    images = faces[:, None].astype(np.float32) / 255
    batches = iter([{"images": batch} for batch in np.array_split(images, -(-len(images) // 32))])
    reader = SimpleNamespace(get_next=lambda: next(batches, None))
    with tempfile.TemporaryDirectory() as folder:
        ready, done = Path(folder) / "ready.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(path, ready, skip_symbolic_shape=True)
        convolutions = [node for node in onnx.load(ready).graph.node if node.op_type == "Conv"]
        groups = [helper.get_node_attr_value(node, "group") for node in convolutions]
        kept = [node.name for place, node in enumerate(convolutions) if place == 0 or groups[place] > 1]
        layers = {"op_types_to_quantize": ["Conv", "Gemm"], "nodes_to_exclude": kept}
        quantize_static(ready, done, reader, **layers, per_channel=True, reduce_range=True)
        return onnx.load(done)


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
        if isinstance(network, PNet):  # the sigmoid of a difference in place of two softmaxes
            for values in (network.conv4_1.weight, network.conv4_1.bias):
                values.data = values.data[1:] - values.data[:1]
            network.softmax4_1 = nn.Sigmoid()
        _save(_export(network, example, "pixels", outputs, dynamic), folder / f"mtcnn-{name}.onnx")


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


def _export(
    model: nn.Module, example: Tensor, given: str, outputs: list[str], dynamic: dict[int, str]
) -> onnx.ModelProto:
    sizes = {axis: torch.export.Dim(name) for axis, name in dynamic.items()}
    names = {"input_names": [given], "output_names": outputs, "dynamic_shapes": (sizes,)}
    # Its own optimiser would fold batch norm into weights, which are then exact in single precision only.
    program = torch.onnx.export(
        model.eval(), (example,), opset_version=OPSET, optimize=False, verbose=False, **names
    )
    fold_constants(program.model)
    RemoveUnusedNodesPass()(program.model)
    ClearMetadataAndDocStringPass()(program.model)  # where each node stood in whose source file
    network = program.model_proto
    del network.graph.value_info[:]  # the same notes once more, and sizes that a reader works out
    return network


def _save(network: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(network)
    with atomic_path(path) as aside:
        onnx.save(network, aside)
