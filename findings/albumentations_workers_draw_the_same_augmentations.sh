#!/usr/bin/env bash
# albumentations 2.0.8 in PyTorch's DataLoader on Linux: all workers draw the same augmentations, and in every epoch the same.
#
# Guess: each worker and each epoch draws anew, and `torch.manual_seed` makes it repeatable; PyTorch seeds its workers.
# Seen: each `Compose` owns a generator, which a worker process inherits as it was: two workers change their images alike,
#   and since workers start anew each epoch, so does each epoch: with six images and two workers there are three draws in
#   all, whatever the number of epochs. `random.seed`, `numpy.random.seed` and `torch.manual_seed` have no effect on it.
#   Without workers it draws anew. Augmentation that repeats hardly keeps a network from overfitting.
# Here: augmentation runs on whole batches in the training process, with PyTorch's generator, seeded by seed and epoch.
#
# Prints the grey level that each of six equal images gets in three epochs. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "albumentations==2.0.8" "torch==2.13.0" 2> pip.log || { cat pip.log; exit 2; }
cat > workers.py <<'PYTHON'
import os

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
import albumentations
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Grey(Dataset):
    def __init__(self):
        self.augment = albumentations.Compose([albumentations.RandomBrightnessContrast(p=1)])

    def __len__(self):
        return 6

    def __getitem__(self, row):
        return int(self.augment(image=np.full((8, 8), 100, np.uint8))["image"][0, 0])


def epochs(workers):
    torch.manual_seed(0)
    loader = DataLoader(Grey(), batch_size=1, num_workers=workers, multiprocessing_context="fork" if workers else None)
    seen = [[int(level) for level in loader] for _ in range(3)]
    print(f"{workers} workers: {seen}")
    return seen


print(f"albumentations {albumentations.__version__}")
alone, again, together = epochs(0), epochs(0), epochs(2)
pairs = together[0][::2] == together[0][1::2]
alike = pairs and together[0] == together[1] == together[2]
raise SystemExit(not (alike and alone != again and alone[0] != alone[1]))
PYTHON
env/bin/python workers.py
