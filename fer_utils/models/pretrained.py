"""Public pretrained weights under the names that this package's trunks have."""

import json
import re

import numpy as np
import torch
from torch import Tensor, nn

from fer_utils.models.backbones import DlibResNet, MobileNetV1

State = dict[str, Tensor]
_DLIB_MEANS = (122.782, 117.001, 104.298)  # of red, green, blue


def tensorflow_js_tensors(manifest: bytes, binary: bytes) -> State:
    """The tensors of a TensorFlow.js graph model by name, float16 ones as float32.

    The manifest is its JSON, with name, shape, type and quantisation of each; they follow each other in
    `binary`, its one weights file, little-endian.
    """
    start, tensors = 0, {}
    for entry in json.loads(manifest)["weightsManifest"][0]["weights"]:
        stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
        kind = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}[stored]
        values = np.frombuffer(binary, kind, int(np.prod(entry["shape"])), start)
        start += values.nbytes
        tensors[entry["name"]] = torch.tensor(values.astype(entry["dtype"])).reshape(entry["shape"])
    return tensors


def mobilenet_state(tensors: State) -> State:
    """The folded `faceres` tensors as a state of `MobileNetV1`, whose normalisations only scale and shift."""
    state: State = {}

    def add(ours: str, kernel: str, axes: tuple[int, ...], theirs: str) -> None:
        shift = tensors[f"{theirs}_bn/batchnorm_1/sub"]
        state[f"{ours}conv.weight"] = tensors[kernel].permute(axes)
        state[f"{ours}bn.weight"] = tensors.get(f"{theirs}_bn/batchnorm_1/mul", torch.ones_like(shift))
        state[f"{ours}bn.bias"] = shift
        state[f"{ours}bn.running_mean"] = torch.zeros_like(shift)
        state[f"{ours}bn.running_var"] = torch.full_like(shift, 1 - MobileNetV1.EPSILON)

    # Kernels are height, width, in, out; depthwise ones height, width, channels, 1.
    add("conv1.", "conv1/convolution/merged_input", (3, 2, 0, 1), "conv1")
    for i in range(1, len(MobileNetV1.CHANNELS) + 1):
        add(f"block{i}.dw_", f"conv_dw_{i}/depthwise_kernel", (2, 3, 0, 1), f"conv_dw_{i}")
        add(f"block{i}.pw_", f"conv_pw_{i}/convolution/merged_input", (3, 2, 0, 1), f"conv_pw_{i}")
    return state


def resnet50_state(tensors: State) -> State:
    """The tensors of `resnet50_ft_dag.pth`, Albanie's port of VGGFace2's Caffe model, for `ResNet50`."""
    parts = {"1x1_reduce": ("conv1", "bn1"), "3x3": ("conv2", "bn2"), "1x1_increase": ("conv3", "bn3")}
    parts["1x1_proj"] = ("downsample.0", "downsample.1")
    state: State = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(r"conv1_7x7_s2(_bn)?\.(\w+)", name):
            state[f"{'bn1' if match[1] else 'conv1'}.{match[2]}"] = tensor
        elif match := re.fullmatch(r"conv(\d)_(\d)_(\w+?)(_bn)?\.(\w+)", name):
            stage, block, part, norm, value = match.groups()
            layer = parts[part][1 if norm else 0]
            state[f"layer{int(stage) - 1}.{int(block) - 1}.{layer}.{value}"] = tensor
    return state


def dlib_state(file: bytes) -> State:
    """The tensors of `dlib_face_recognition_resnet_model_v1.dat` as a state of `DlibResNet`.

    The file has layers in the order of computing, with the name of their kind. Behind that of a convolution
    or an affine layer, which scales and shifts, follow a version and four dimensions, integers of as many
    bytes as the byte before says, and little-endian float32: kernels and biases, or scales and shifts.
    """
    tensors = []
    for kind in re.finditer(rb"\x05con_4|\x07affine_", file):
        integers, start = [], kind.end()
        for _ in range(5):
            end = start + 1 + file[start]
            integers.append(int.from_bytes(file[start + 1 : end], "little"))
            start = end
        tensors.append(torch.tensor(np.frombuffer(file, "<f4", int(np.prod(integers[1:])), start)))
    with torch.device("meta"):
        modules = [
            (name, module) for name, module in DlibResNet().named_modules() if not any(module.children())
        ]
    state: State = {}
    convolutions = [(name, module) for name, module in modules if isinstance(module, nn.Conv2d)]
    norms = [(name, module) for name, module in modules if isinstance(module, nn.BatchNorm2d)]
    layers = zip(convolutions, norms, tensors[::2], tensors[1::2], strict=True)
    for (ours, convolution), (norm, module), values, affine in layers:
        count = convolution.out_channels
        kernels, biases = values[:-count].view(count, -1, *convolution.kernel_size), values[-count:]
        if ours == "conv1":  # dlib takes means from red, green and blue, which are equal here
            biases = biases - torch.einsum("ocyx,c->o", kernels, torch.tensor(_DLIB_MEANS)) / DlibResNet.scale
            kernels = kernels.sum(1, keepdim=True)
        # They are a fiftieth to a seventh of He's size. The normalisation hides that, but not from the
        # optimiser, whose steps would be large beside them.
        larger = (2 / kernels[0].numel()) ** 0.5 / kernels.std()
        scale, shift = affine.split(count)
        state[f"{ours}.weight"] = kernels * larger
        state[f"{norm}.weight"], state[f"{norm}.bias"] = scale / larger, shift + scale * biases
        state[f"{norm}.running_mean"] = torch.zeros(count)
        state[f"{norm}.running_var"] = torch.full((count,), 1 - module.eps)
    return state
