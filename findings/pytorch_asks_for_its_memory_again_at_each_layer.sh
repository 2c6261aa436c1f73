#!/usr/bin/env bash
# torch 2.14.1 on a processor, Linux: on a batch of 64 photos most of a network's time goes into getting memory.
#
# Guess: ONNX Runtime computes the first layers of a MobileNetV1 in a quarter of PyTorch's time, since it fuses them; so
#   whoever trains what is above a frozen part saves three quarters of that part's time by exporting it.
# Seen: PyTorch asks the C library for each layer's output. Beyond 32 MB glibc maps it anew and gives it back, and Linux
#   maps it page by page: 130,000 page faults a batch. Told by MALLOC_TOP_PAD_ and two more variables to keep what is
#   freed, PyTorch takes two fifths of its time, and ONNX Runtime, which keeps its memory anyway, as long as before.
# Here: training and predicting keep freed memory (`fer_utils.memory`): FaceNet predicts batches twice as fast. Exporting
#   the frozen part would then have saved 8% of a training step.
#
# Prints seconds and page faults a batch, one thread. Exit code 1 if keeping memory saves less than a third of PyTorch's
# time or nine tenths of its page faults.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.14.1" "onnx==1.23.2" "onnxscript==0.7.2" "onnxruntime==1.31.1" "numpy==2.4.6" \
  2> pip.log || { cat pip.log; exit 2; }
cat > blocks.py <<'PYTHON'
import resource
import sys
import time

import onnxruntime
import torch
from torch import nn


def layer(inputs, outputs, side, stride, groups):
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU6()


layers = [*layer(3, 32, 3, 2, 1)]
for inputs, outputs, stride in ((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)):
    layers += [*layer(inputs, inputs, 3, stride, inputs), *layer(inputs, outputs, 1, 1, 1)]
torch.set_num_threads(1)
network = nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)
photos = torch.rand(64, 3, 128, 128)
if sys.argv[1] == "export":
    torch.onnx.export(network, (photos,), "blocks.onnx", input_names=["x"], dynamo=True, verbose=False)
    raise SystemExit
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession("blocks.onnx", options)


def pytorch():
    with torch.inference_mode():
        network(photos)


runs = {"PyTorch": pytorch, "ONNX Runtime": lambda: session.run(None, {"x": photos.numpy()})}
for name, run in runs.items():
    times, faults = [], []
    for _ in range(12):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        run()
        times.append(time.perf_counter() - start)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    print(f"{name},{min(times[2:]):.3f},{min(faults[2:])}")
PYTHON
env/bin/python blocks.py export > export.log 2>&1 || { cat export.log; exit 2; }
env/bin/python blocks.py time > given_back.csv
MALLOC_TOP_PAD_=268435456 MALLOC_TRIM_THRESHOLD_=2147483647 MALLOC_MMAP_THRESHOLD_=1073741824 \
  env/bin/python blocks.py time > kept.csv
cat > compare.py <<'PYTHON'
import csv

import torch

print(f"torch {torch.__version__}")
seconds, faults = {}, {}
for memory in ("given_back", "kept"):
    for name, time, count in csv.reader(open(f"{memory}.csv")):
        seconds[name, memory], faults[name, memory] = float(time), int(count)
        print(f"memory {memory.replace('_', ' '):10s}  {name:12s}  {time} s  {int(count):7,} page faults")
saved = 1 - seconds["PyTorch", "kept"] / seconds["PyTorch", "given_back"]
fewer = 1 - faults["PyTorch", "kept"] / max(1, faults["PyTorch", "given_back"])
print(f"PyTorch: {saved:.0%} of the time saved, {fewer:.1%} of the page faults")
raise SystemExit(not (saved > 1 / 3 and fewer > 0.9))
PYTHON
env/bin/python compare.py
