"""Public pretrained weights under the names that this package's trunks have."""

import json
import re

import numpy as np
import torch
from torch import Tensor

from fer_utils.models.backbones import MobileNetV1

State = dict[str, Tensor]


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
