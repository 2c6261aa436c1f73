#!/usr/bin/env bash
# torch 2.14.1 on a processor: in channels_last, the ReLU before `flatten` takes ten times as long in the backward pass.
#
# Guess: a network whose convolutions are in channels_last, the layout that PyTorch recommends, pays for `flatten` with one
#   copy of the last map in each direction, which is about what ReLU costs.
# Seen: behind `flatten` the gradient is in the other layout, and nothing brings it back. ReLU's backward pass gets its
#   output in one layout and its gradient in the other, loses its vector instructions, and branches on each value: on
#   values of both signs, ten times as long in single and twenty in half precision. Copying the gradient first costs a
#   quarter of that. With positive values alone it takes three times as long, so a benchmark on `torch.rand` misses it.
# Here: EasyNet turns the gradient of its last map by a hook.
#
# Prints milliseconds of the processor, one thread. Exit code 1 if the two layouts take less than four times as long as
# one, or if copying first does not save half of that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.14.1" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > layouts.py <<'PYTHON'
import time

import torch
from torch import nn


def milliseconds(call):
    times = []
    for _ in range(15):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


torch.set_num_threads(1)
torch.manual_seed(0)
print(f"torch {torch.__version__}")
# In a network: which layout does the gradient have that ReLU gets?
convolution, relu, seen = nn.Conv2d(3, 8, 3), nn.ReLU(), []
relu.register_full_backward_pre_hook(lambda module, gradient: seen.append(gradient[0]))
network = nn.Sequential(convolution, relu, nn.Flatten(), nn.Linear(8 * 9 * 9, 2)).to(memory_format=torch.channels_last)
network(torch.rand(4, 3, 11, 11)).sum().backward()
back = seen[0].is_contiguous(memory_format=torch.channels_last)
print(f"the gradient that comes back through flatten is in channels_last: {back}")
failed = back
for kind in (torch.float32, torch.bfloat16):
    for draw in (torch.randn, torch.rand):
        output = draw(64, 192, 11, 11).to(kind).to(memory_format=torch.channels_last).relu()
        other = torch.randn(64, 192, 11, 11).to(kind)
        gradient = other.contiguous(memory_format=torch.channels_last)
        slow = torch.ops.aten.threshold_backward
        one = milliseconds(lambda: slow(gradient, output, 0))
        two = milliseconds(lambda: slow(other, output, 0))
        first = milliseconds(lambda: slow(other.contiguous(memory_format=torch.channels_last), output, 0))
        signs = "both signs" if draw is torch.randn else "positive"
        print(f"{kind}, {signs:10s}: one layout {one:5.2f}, two {two:5.2f}, copied first {first:5.2f} ms")
        failed |= signs == "both signs" and not (two > 4 * one and first < two / 2)
raise SystemExit(failed)
PYTHON
env/bin/python layouts.py
