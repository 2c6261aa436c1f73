#!/usr/bin/env bash
# facenet-pytorch 2.5.3: the loss and accuracy that its `training.pass_epoch` returns are not those of the images.
#
# Guess: over a loader whose last batch is smaller, the accuracy it returns is the share of images that are right.
# Seen: it is the mean over batches, each counted alike: of 66 images 64 are right, and it returns 0.5 where the last
#   batch is the two that are wrong. The loss likewise. With FER2013's 3,589 test images in batches of 64 the last five
#   count thirteen times what the others do, and the result changes with the batch size.
# Here: scores come from the predictions of all images, and the learning curve weights batches by their size.
#
# Prints both accuracies. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.14.1" "torchvision==0.29.1" "numpy==2.4.6" "pillow==13.0.0" requests \
  2> pip.log || { cat pip.log; exit 2; }
env/bin/python -m pip install --quiet --no-deps "facenet-pytorch==2.5.3"
cat > epoch.py <<'PYTHON'
import contextlib
import io
from importlib.metadata import version

import torch
from facenet_pytorch import training
from torch.utils.data import DataLoader, TensorDataset

logits, labels = torch.tensor([[1.0, 0.0]]).repeat(66, 1), torch.zeros(66, dtype=torch.long)
labels[64:] = 1


def epoch(size):
    loader = DataLoader(TensorDataset(logits, labels), size)
    network, loss = torch.nn.Identity().eval(), torch.nn.CrossEntropyLoss()
    metrics = {"accuracy": training.accuracy}
    with contextlib.redirect_stdout(io.StringIO()):
        returned = training.pass_epoch(network, loss, loader, batch_metrics=metrics)
    return returned[0].item(), returned[1]["accuracy"].item()


true = (logits.argmax(1) == labels).float().mean().item()
results = {size: epoch(size) for size in (64, 33)}
print(f"facenet-pytorch {version('facenet-pytorch')}: {true:.1%} of the images are right")
for size, (loss, accuracy) in results.items():
    print(f"batches of {size}: accuracy {accuracy:.1%}, loss {loss:.3f}")
raise SystemExit(not (results[64][1] == 0.5 and abs(results[33][1] - true) < 1e-5))
PYTHON
env/bin/python epoch.py
