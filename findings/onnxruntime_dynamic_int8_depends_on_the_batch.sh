#!/usr/bin/env bash
# onnxruntime 1.31.1, quantize_dynamic: what a face is predicted as depends on which faces are classified with it.
#
# Guess: a network without batch statistics gives an image the same logits alone and in a batch.
# Seen: the range of activations is measured at run time over the whole batch. A bright image coarsens the steps of the
#   dark ones: their logits move by up to 26 % of their own range and 6 of 256 answers change, while the network in single
#   precision, or quantised with fixed ranges, gives the same to the last bits. A result depends on the batch size.
# Here: networks are quantised with `quantize_static`, whose ranges are fixed.
#
# Prints the largest change of a logit, relative to its image's range, and the answers that change, between 256 images
# classified one by one and together; the network is a small random one. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "onnxruntime==1.31.1" "onnx==1.23.2" 2> pip.log || { cat pip.log; exit 2; }
cat > batch.py <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

logging.disable()
random = np.random.default_rng(0)


def write_network(path):
    weights, nodes, given = [], [], "images"

    def add(name, values):
        weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    for place, (out, into) in enumerate([(8, 1), (16, 8)]):
        edges = random.normal(0, (2 / (9 * into)) ** 0.5, (out, into, 3, 3))
        kernel = add(f"kernel{place}", edges - edges.mean((2, 3), keepdims=True))
        nodes.append(helper.make_node("Conv", [given, kernel], [f"conv{place}"], strides=[2, 2], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"conv{place}"], [given := f"relu{place}"]))
    nodes.append(helper.make_node("Flatten", [given], ["flat"]))
    head = [add("head", random.normal(0, 0.05, (16 * 12 * 12, 6))), add("bias", np.zeros(6))]
    nodes.append(helper.make_node("Gemm", ["flat", *head], ["logits"]))
    inputs = [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["count", 1, 48, 48])]
    outputs = [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["count", 6])]
    graph = helper.make_graph(nodes, "network", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


class Calibration(CalibrationDataReader):
    def __init__(self, images):
        self.batches = iter([images])

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def compare(name):
    session = onnxruntime.InferenceSession(name)
    alone = np.concatenate([session.run(None, {"images": image[None]})[0] for image in images])
    together = session.run(None, {"images": images})[0]
    moved = float((np.abs(alone - together).max(1) / np.ptp(alone, axis=1)).max())
    changed = int((alone.argmax(1) != together.argmax(1)).sum())
    print(f"{name}: logits move by up to {moved:.2%} of the image's range, {changed} of {len(images)} answers change")
    return moved, changed


images = random.random((256, 1, 48, 48), np.float32) * random.uniform(0.05, 1, (256, 1, 1, 1)).astype(np.float32)
write_network("float32.onnx")
quantize_dynamic("float32.onnx", "dynamic.onnx", weight_type=QuantType.QUInt8)
quantize_static("float32.onnx", "static.onnx", Calibration(images))
print(f"onnxruntime {onnxruntime.__version__}")
single, dynamic, static = (compare(f"{name}.onnx") for name in ("float32", "dynamic", "static"))
raise SystemExit(not (dynamic[0] > 1e-3 and dynamic[1] > 0 and max(single[0], static[0]) < 1e-5))
PYTHON
env/bin/python batch.py
