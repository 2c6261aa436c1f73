#!/usr/bin/env bash
# torch 2.14.1 on a processor with AMX: bfloat16 makes the gradient of a strided depthwise convolution 40 times slower.
#
# Guess: where bfloat16 speeds a network's convolutions up, it does so for all kinds of them, or at worst changes nothing.
# Seen: a depthwise convolution with stride 1 takes about as long in bfloat16 as in single precision, forward and backward,
#   and so does one with stride 2 forward. Its gradient alone takes 40 times as long. A MobileNet has four or five
#   such layers, so autocast gives away what its other convolutions gain.
# Here: FaceNet computes depthwise steps of two that it trains in single precision (`SameConv2d`): one layer, a sixth of
#   the time of its training step. This explains why half precision had hardly helped it.
#
# Prints milliseconds of the processor, one thread, at 512 channels. Exit code 1 if the gradient of stride 2 takes less
# than 5 times as long in bfloat16, or that of stride 1 more than 3 times.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.14.1" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > depthwise.py <<'PYTHON'
import time

import torch


def milliseconds(call):
    times = []
    for _ in range(7):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


torch.set_num_threads(1)
flags = open("/proc/cpuinfo").read()
features = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
print(f"torch {torch.__version__}, the processor has {', '.join(features) or 'none of these'}")
times = {}
for stride in (1, 2):
    for kind in (torch.float32, torch.bfloat16):
        images = torch.randn(64, 512, 9, 9, dtype=kind).to(memory_format=torch.channels_last)
        kernel = torch.randn(512, 1, 3, 3, dtype=kind).to(memory_format=torch.channels_last)
        rest = (None, [stride] * 2, [0, 0], [1, 1], False, [0, 0], 512)
        gradient = torch.randn_like(torch.ops.aten.convolution(images, kernel, *rest))
        forward = milliseconds(lambda: torch.ops.aten.convolution(images, kernel, *rest))
        backward = milliseconds(
            lambda: torch.ops.aten.convolution_backward(gradient, images, kernel, *rest, [True, True, False])
        )
        times[stride, kind] = backward
        print(f"stride {stride}, {str(kind)[6:]:8s}: forward {forward:6.2f} ms, backward {backward:6.2f} ms")
slower = {stride: times[stride, torch.bfloat16] / times[stride, torch.float32] for stride in (1, 2)}
print(f"bfloat16's gradient takes {slower[1]:.1f} times as long at stride 1, {slower[2]:.0f} times at stride 2")
raise SystemExit(not (slower[2] > 5 and slower[1] < 3))
PYTHON
env/bin/python depthwise.py
