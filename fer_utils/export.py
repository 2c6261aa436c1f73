"""Networks as ONNX files, which `fer_utils.prediction` runs without PyTorch."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass
from onnxruntime.quantization import quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn

from fer_utils.calibration import fit_temperature
from fer_utils.datasets.faceset import FaceSet
from fer_utils.evaluation import predict
from fer_utils.faces import SIDE
from fer_utils.files import atomic_path

OPSET = 20


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

    Both take any number of `images`, float32 (B, 1, 64, 64) of 0–1, and give `logits`, (B, 6). They note the
    temperature by which these are to be divided, which is also returned: it is that of the validation faces;
    512 training faces give the ranges of activations in 8 bits. What is exact in half precision, as the
    weights of published networks are, is stored so. The path ends in ``.onnx``.
    """
    validation, training = faces.split("validation"), faces.split("train")
    temperature = fit_temperature(validation.labels, predict(model, validation))
    network = to_onnx(_Classifier(model), torch.zeros(2, 1, SIDE, SIDE), "images", ["logits"], {0: "count"})
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
    save(network, path)
    rows = np.random.default_rng(0).permutation(len(training))[:512]
    network = _quantised(path, training.take(rows))
    helper.set_model_props(network, notes)
    save(network, path.with_stem(f"{path.stem}-int8"))
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


def to_onnx(
    model: nn.Module, example: Tensor, given: str, outputs: list[str], dynamic: dict[int, str]
) -> onnx.ModelProto:
    """Export a network of one input, called `given`, with names for the sizes that vary, by axis."""
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


def save(network: onnx.ModelProto, path: Path) -> None:
    """Check a network and write it, whole or not at all."""
    onnx.checker.check_model(network)
    with atomic_path(path) as aside:
        onnx.save(network, aside)
