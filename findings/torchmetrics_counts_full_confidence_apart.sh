#!/usr/bin/env bash
# torchmetrics 1.9.0, torch 2.13.0: the calibration error has a sixteenth bin, for confidences of exactly 1.
#
# Guess: `MulticlassCalibrationError(n_bins=15)` has 15 bins as in Guo et al. 2017, the last one up to and with 1.
# Seen: the last bin ends before 1; a confidence of exactly 1, which single precision gives as soon as a logit leads by
#   18, falls into a bin of its own. Errors of opposite sign no longer cancel within the bin: with half of the images at
#   1 (93 % right) and half at 0.95 (all right) the error is 0.058; with 0.99999 in place of 1 it is 0.009.
# Here: the error is computed by `fer_utils.calibration`, whose last bin holds 1.
#
# Prints both errors. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torchmetrics==1.9.0" "torch==2.13.0" 2> pip.log || { cat pip.log; exit 2; }
cat > bins.py <<'PYTHON'
import torch
import torchmetrics
from torchmetrics.classification import MulticlassCalibrationError

COUNT = 4000
random = torch.Generator().manual_seed(0)
sure = torch.rand(COUNT, generator=random) < 0.5
wrong = sure & (torch.rand(COUNT, generator=random) < 0.07)


def error(highest):
    confidence = torch.where(sure, highest, 0.95)
    rest = ((1 - confidence) / 5)[:, None].expand(-1, 5)
    probabilities = torch.cat([confidence[:, None], rest], 1)
    return MulticlassCalibrationError(num_classes=6, n_bins=15)(probabilities, wrong.long()).item()


saturated = torch.tensor([18.0, 0, 0, 0, 0, 0]).softmax(0)[0].item()
exact, nearly = error(1.0), error(0.99999)
print(f"torchmetrics {torchmetrics.__version__}: a lead of 18 gives a confidence of {saturated!r} in single precision")
print(f"calibration error with confidences of 1: {exact:.4f}; of 0.99999 instead: {nearly:.4f}")
raise SystemExit(not (saturated == 1.0 and exact > 0.05 and nearly < 0.02))
PYTHON
env/bin/python bins.py
