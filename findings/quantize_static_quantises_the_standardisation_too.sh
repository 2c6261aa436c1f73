#!/usr/bin/env bash
# onnxruntime 1.31.1, quantize_static: a network that standardises its images itself misjudges those of low contrast.
#
# Guess: as in PyTorch, convolutions and fully connected layers are quantised; the arithmetic before them is not.
# Seen: products, sums and quotients are quantised too. The squares of a standardisation share one range, so a face of
#   low contrast has squares below one step: its deviation is far off, and logits are wrong by 79 % of their size. With
#   `op_types_to_quantize=["Conv", "Gemm"]` it is 10 %, as for other images (14 %, and 18 % as called).
# Here: `export_int8` names these two operators.
#
# Prints errors and answers that change, of a small network with a fitted head, on drawn patterns. Exit code 1 if this is
# no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "onnxruntime==1.31.1" "onnx==1.23.2" 2> pip.log || { cat pip.log; exit 2; }
cat > standardise.py <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

logging.disable()
random = np.random.default_rng(0)


def write_network(path, head=None):
    """Standardise, two convolutions, and a linear layer if its weights are given."""
    random, weights, nodes = np.random.default_rng(0), [], []

    def add(name, values, kind=np.float32):
        weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def step(operator, given, gives, **options):
        nodes.append(helper.make_node(operator, given, [gives], **options))
        return gives

    pixels = add("pixels", [1, 2, 3], np.int64)
    centred = step("Sub", ["images", step("ReduceMean", ["images", pixels], "mean")], "centred")
    variance = step("ReduceMean", [step("Mul", [centred, centred], "squares"), pixels], "variance")
    deviation = step("Add", [step("Sqrt", [variance], "root"), add("epsilon", 0.001)], "deviation")
    given = step("Div", [centred, deviation], "standardised")
    for place, (out, into) in enumerate([(16, 1), (32, 16)]):
        kernel = add(f"kernel{place}", random.normal(0, (2 / (9 * into)) ** 0.5, (out, into, 3, 3)))
        bias = add(f"bias{place}", random.normal(0, 0.5, out))
        given = step("Conv", [given, kernel, bias], f"conv{place}", strides=[2, 2], pads=[1] * 4)
        given = step("Relu", [given], f"relu{place}")
    gives = step("Flatten", [given], "features")
    if head is not None:
        gives = step("Gemm", [gives, add("head", head[:-1]), add("bias", head[-1])], "logits")
    inputs = [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["count", 1, 48, 48])]
    outputs = [helper.make_tensor_value_info(gives, onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "network", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


class Calibration(CalibrationDataReader):
    def __init__(self, images):
        self.batches = iter([images])

    def get_next(self):
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def run(path, images):
    return onnxruntime.InferenceSession(path).run(None, {"images": images})[0]


def draw(count):
    """Six patterns, blurred by noise, at contrasts from 2 to 100 % of the greatest."""
    labels, contrast = random.integers(0, 6, count), np.exp(random.uniform(np.log(0.01), np.log(0.5), count))
    noisy = patterns[labels] + random.normal(0, 6.0, (count, 48, 48))
    noisy /= np.abs(noisy).max((1, 2), keepdims=True)
    return labels, contrast, (0.5 + contrast[:, None, None] * noisy)[:, None].astype(np.float32)


random = np.random.default_rng(1)
patterns = random.normal(size=(6, 48, 48))
(labels, _, images), (truth, contrast, seen) = draw(2048), draw(2048)
write_network("features.onnx")
features = np.c_[run("features.onnx", images), np.ones(len(images))]
ridge = features.T @ features + 100 * np.eye(features.shape[1])
write_network("float32.onnx", np.linalg.solve(ridge, features.T @ np.eye(6)[labels]))
layers = {"layers": ["Conv", "Gemm"], "all": None}
for name, operators in layers.items():
    quantize_static(
        "float32.onnx", f"{name}.onnx", Calibration(images[:512]), per_channel=True, op_types_to_quantize=operators
    )
exact, chosen, every = (run(f"{name}.onnx", seen) for name in ("float32", *layers))
print(f"onnxruntime {onnxruntime.__version__}: median error of logits, relative to their size; answers that change")
errors = {}
for name, some in {"low": contrast < 0.02, "usual": contrast >= 0.02}.items():
    size = np.linalg.norm(exact[some], axis=1)
    for kind, logits in {"Conv and Gemm only": chosen, "as called": every}.items():
        errors[name, kind] = float(np.median(np.linalg.norm((logits - exact)[some], axis=1) / size))
        changed = float((logits.argmax(1) != exact.argmax(1))[some].mean())
        print(f"{name} contrast, {kind}: {errors[name, kind]:.1%}; {changed:.1%}")
raise SystemExit(not (errors["low", "as called"] > 5 * errors["low", "Conv and Gemm only"]))
PYTHON
env/bin/python standardise.py
