"""Readers of the public VGGFace2 weights, in the forms in which their authors publish them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from fer_utils import weights
from fer_utils.errors import DataError
from fer_utils.models.backbones import TRUNKS, MobileNetV1

Arrays = dict[str, np.ndarray]
KERAS_EPSILON, CAFFE_EPSILON = 1e-3, 1e-5
# ResNet-50's three public forms: the first one that is there is read.
RESNET50_FILES = ("rcmalli_vggface_tf_notop_resnet50.h5", "resnet50_ft_dag.pth", "resnet50_ft_weight.pkl")


def load_vggface2(trunk: str) -> dict[str, Tensor]:
    """State of a trunk with the weights of VGGFace2, fetched if need be.

    Args:
        trunk: a name in `TRUNKS`.

    Returns:
        Names and float32 tensors as the trunk's `load_state_dict` wants them.

    Raises:
        DataError: the weights cannot be had, are damaged or are those of another network.
    """
    if trunk == "mobilenet_v1":
        manifest, binary = weights.fetch("faceres.json"), weights.fetch("faceres.bin")
        state, path = mobilenet_state(read_tensorflow_js(manifest, binary)), manifest
    elif trunk == "inception_resnet_v1":
        path = weights.fetch("20180402-114759-vggface2.pt")
        own = TRUNKS[trunk]().state_dict().keys()
        state = {name: value for name, value in _read_torch(path).items() if name in own}
    else:
        path = weights.find_one(RESNET50_FILES)
        state = resnet50_state(path)
    return _checked(state, trunk, path)


def _checked(state: dict[str, Tensor], trunk: str, path: Path) -> dict[str, Tensor]:
    """Compare names and shapes with the trunk's, and make everything float32."""
    wanted = {n: v for n, v in TRUNKS[trunk]().state_dict().items() if not n.endswith("num_batches_tracked")}
    for name, value in wanted.items():
        found = "missing" if name not in state else tuple(state[name].shape)
        if found != tuple(value.shape):
            raise DataError(
                f"not the weights of {trunk}: {name} is {found}, expected {tuple(value.shape)}",
                file=path,
                remedy="see the page on pretrained weights for the file that is meant",
            )
    counters = {n.rpartition(".")[0] + ".num_batches_tracked" for n in wanted if n.endswith("running_mean")}
    return {n: state[n].float() for n in wanted} | {n: torch.tensor(0) for n in counters}


# --- mobilenet_v1: a TensorFlow.js graph model ---


def read_tensorflow_js(manifest: Path, binary: Path) -> Arrays:
    """Read the tensors of a TensorFlow.js model.

    Args:
        manifest: the JSON file, whose `weightsManifest` lists name, shape, type and quantisation.
        binary: the one file in which the tensors follow each other, little-endian.

    Returns:
        Arrays by name, float16 ones as float32.

    Raises:
        DataError: a file is damaged or holds a kind of number that is not known here.
    """
    data, start, arrays = binary.read_bytes(), 0, {}
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["weightsManifest"][0]["weights"]
        for entry in entries:
            stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
            kind = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}[stored]
            count = int(np.prod(entry["shape"], dtype=np.int64))
            values = np.frombuffer(data, kind, count, start)
            start += values.nbytes
            arrays[entry["name"]] = values.reshape(entry["shape"]).astype(entry["dtype"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"not a TensorFlow.js model with its weights ({type(error).__name__}: {error})",
            file=manifest,
            remedy=f"get it and {binary.name} again",
        ) from None
    return arrays


def mobilenet_state(arrays: Arrays) -> dict[str, Tensor]:
    """The folded `faceres` tensors as a state of `MobileNetV1`, whose normalisations only scale and shift.

    Raises:
        DataError: a tensor is missing.
    """
    state: Arrays = {}

    def add(block: str, kernel: np.ndarray, scale: np.ndarray | float, shift: np.ndarray) -> None:
        state[f"{block}conv.weight"] = kernel
        state[f"{block}bn.weight"] = scale * np.ones_like(shift)
        state[f"{block}bn.bias"] = shift
        state[f"{block}bn.running_mean"] = np.zeros_like(shift)
        state[f"{block}bn.running_var"] = np.full_like(shift, 1 - MobileNetV1.EPSILON)

    def kernel(name: str) -> np.ndarray:  # height, width, in, out -> out, in, height, width
        return arrays[f"{name}/convolution/merged_input"].transpose(3, 2, 0, 1)

    try:
        add("conv1.", kernel("conv1"), 1.0, arrays["conv1_bn/batchnorm_1/sub"])
        for i in range(1, len(MobileNetV1.BLOCKS) + 1):
            depthwise = arrays[f"conv_dw_{i}/depthwise_kernel"].transpose(2, 3, 0, 1)
            scale, shift = (arrays[f"conv_dw_{i}_bn/batchnorm_1/{part}"] for part in ("mul", "sub"))
            add(f"block{i}.dw_", depthwise, scale, shift)
            add(f"block{i}.pw_", kernel(f"conv_pw_{i}"), 1.0, arrays[f"conv_pw_{i}_bn/batchnorm_1/sub"])
    except KeyError as error:
        raise DataError(
            f"not the faceres model: the tensor {error} is missing", remedy="get faceres.json and .bin again"
        ) from None
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}


# --- resnet50: three forms of one Caffe model ---


def resnet50_state(path: Path) -> dict[str, Tensor]:
    """Read ResNet-50 from rcmalli's `.h5`, Albanie's `_dag.pth` or cydonia's `.pkl`, told by their ending.

    Raises:
        DataError: the file is damaged, is of another kind, or a tensor is missing.
    """
    names = _resnet50_names()
    if path.suffix == ".pkl":
        source = {name: torch.from_numpy(value) for name, value in read_arrays_pickle(path).items()}
        return {ours: source[cydonia] for ours, (_, cydonia) in names.items() if cydonia in source}
    source = _read_keras(path) if path.suffix == ".h5" else _read_torch(path)
    state = {ours: source[dag] for ours, (dag, _) in names.items() if dag in source}
    if path.suffix != ".h5" and "conv1.conv.weight" in state:
        # This port takes red, green, blue (its `meta` gives the means in that order); the others the reverse.
        state["conv1.conv.weight"] = state["conv1.conv.weight"].flip(1)
    return state


def _resnet50_names() -> dict[str, tuple[str, str]]:
    """By our tensor's name: its names in the `_dag` port (Keras' with ``_`` for ``/``) and in cydonia's."""
    layers = {"conv1.conv": ("conv1_7x7_s2", "conv1"), "conv1.bn": ("conv1_7x7_s2_bn", "bn1")}
    parts = {"reduce": ("1x1_reduce", "1"), "conv3x3": ("3x3", "2"), "increase": ("1x1_increase", "3")}
    for stage, count in TRUNKS["resnet50"].STAGES:
        for block in range(1, count + 1):
            ours, dag = f"conv{stage}_{block}", f"conv{stage}_{block}"
            cydonia = f"layer{stage - 1}.{block - 1}"
            for part, (theirs, number) in parts.items():
                layers[f"{ours}.{part}"] = (f"{dag}_{theirs}", f"{cydonia}.conv{number}")
                layers[f"{ours}.{part}_bn"] = (f"{dag}_{theirs}_bn", f"{cydonia}.bn{number}")
            layers[f"{ours}.proj"] = (f"{dag}_1x1_proj", f"{cydonia}.downsample.0")
            layers[f"{ours}.proj_bn"] = (f"{dag}_1x1_proj_bn", f"{cydonia}.downsample.1")
    tensors = ("weight", "bias", "running_mean", "running_var")
    return {f"{o}.{t}": (f"{d}.{t}", f"{c}.{t}") for o, (d, c) in layers.items() for t in tensors}


def _read_keras(path: Path) -> dict[str, Tensor]:
    """Read a Keras 2 weights file: kernels turned to PyTorch's order, names those of the `_dag` port.

    Keras' normalisation adds 1e-3 to the variance, ours 1e-5; the difference goes into the variance.
    """
    names = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    state = {}
    try:
        with h5py.File(path) as file:
            root = file.get("model_weights", file)
            for layer in (_text(name) for name in root.attrs["layer_names"]):
                for full in (_text(name) for name in root[layer].attrs["weight_names"]):
                    value = root[layer][full][()]
                    name = full.rpartition("/")[2].partition(":")[0]
                    if name == "kernel" and value.ndim == 4:
                        name, value = "weight", value.transpose(3, 2, 0, 1)
                    elif name == "moving_variance":
                        value = value + (KERAS_EPSILON - CAFFE_EPSILON)
                    name = f"{layer.replace('/', '_')}.{names.get(name, name)}"
                    state[name] = torch.from_numpy(np.ascontiguousarray(value))
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(path, "a Keras weights file", error) from None
    return state


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _read_torch(path: Path) -> dict[str, Tensor]:
    """Read a PyTorch state; `weights_only` admits tensors and nothing else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value for name, value in state.items() if isinstance(value, Tensor)}
    except Exception as error:  # a foreign file makes the unpickler fail in any way
        raise _damaged(path, "a PyTorch state of plain tensors", error) from None


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can make NumPy arrays and plain containers, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Admit what NumPy needs to rebuild an array."""
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # how pickles of protocol 2 carry an array's bytes
            return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a NumPy array")


def read_arrays_pickle(path: Path) -> Arrays:
    """Read a pickle of names and NumPy arrays of numbers; nothing that the file asks for is executed.

    Raises:
        DataError: the file is damaged or holds anything else.
    """
    try:
        with path.open("rb") as file:
            found = _ArraysOnly(file, encoding="latin1").load()
        if not isinstance(found, dict) or any(
            not isinstance(a, np.ndarray) or a.dtype.kind not in "fiu" for a in found.values()
        ):
            raise TypeError("it holds more than names and arrays of numbers")
    except Exception as error:  # a foreign file makes the unpickler fail in any way
        raise _damaged(path, "a pickle of NumPy arrays", error) from None
    return found


def _damaged(path: Path, what: str, error: Exception) -> DataError:
    return DataError(
        f"not {what} ({type(error).__name__}: {str(error)[:200]})", file=path, remedy="get the file again"
    )
