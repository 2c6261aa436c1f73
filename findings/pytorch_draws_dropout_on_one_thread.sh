#!/usr/bin/env bash
# torch 2.14.1 on a processor: dropout before a large layer costs more than the layer, and more threads do not help.
#
# Guess: a dropout mask is drawn by all threads, as other operations on each value are, and costs about what ReLU costs.
# Seen: the mask is drawn value by value on one thread. For the 23,232 features of a batch of 64 images that takes five
#   times as long as the fully connected layer of 128 units behind it, with two threads as with one. Dropout by a mask of
#   random bytes, eight to a draw of the generator, takes a third of the time with one thread and a fifth with two.
# Here: EasyNet drops three tenths of so many features, and makes its masks that way (`fer_utils.models.easynet.Dropout`).
#
# Prints milliseconds. Exit code 1 if two threads draw PyTorch's mask in less than seven tenths of one thread's time, or
# if random bytes save less than half of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.14.1" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > masks.py <<'PYTHON'
import time

import torch
from torch import nn

features, keep = torch.rand(64, 23_232), torch.empty(64, 23_232)
layer, dropout = nn.Linear(23_232, 128), nn.Dropout(0.25)


def of_bytes():
    words = torch.empty(features.numel() // 8, dtype=torch.int64).random_(-(2**63), None)
    return features * (words.view(torch.uint8).view(features.shape) >= 64) * (4 / 3)


calls = {
    "ReLU": features.relu,
    "fully connected layer": lambda: layer(features),
    "PyTorch's mask": lambda: keep.bernoulli_(0.75),
    "PyTorch's dropout": lambda: dropout(features),
    "dropout by random bytes": of_bytes,
}
print(f"torch {torch.__version__}")
best = {}
with torch.no_grad():
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name, call in calls.items():
            times = []
            for _ in range(15):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            best[name, threads] = min(times)
for name in calls:
    print(f"{name:24s} one thread {1e3 * best[name, 1]:6.2f} ms, two threads {1e3 * best[name, 2]:6.2f} ms")
share = 1 - float((of_bytes() != 0).float().mean())
print(f"random bytes drop {share:.4f} of the values")
alone = best["PyTorch's mask", 2] > 0.7 * best["PyTorch's mask", 1]
saved = best["dropout by random bytes", 1] < best["PyTorch's dropout", 1] / 2
raise SystemExit(not (alone and saved and abs(share - 0.25) < 0.002))
PYTHON
env/bin/python masks.py
