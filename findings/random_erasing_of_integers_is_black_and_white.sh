#!/usr/bin/env bash
# torchvision 0.29.1: `v2.RandomErasing` fills a uint8 image with other values than a float image.
#
# Guess: on a uint8 image, which v2's other transforms like best, `value="random"` erases by random grey levels, and
#   `value=0.5` by half of the range, as on the same image in floats of 0 to 1.
# Seen: the fill is made as a float and then cast. "random" draws from the normal distribution, so that nine pixels of
#   ten become levels 0 to 3 or 253 to 255, black and white; 0.5 becomes 0, black. On floats of 0 to 1, "random" leaves
#   the range: half of the pixels are below 0. No warning. It fits images that are standardised already, only.
# Here: the book's erasing works on floats and fills with the image's mean (tests/unit/test_augment.py).
#
# Prints the values of the erased pixels. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.14.1" "torchvision==0.29.1" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > erase.py <<'PYTHON'
import torch
import torchvision
from torchvision.transforms import v2

image = torch.full((1, 64, 64), 128, dtype=torch.uint8)


def erased(pixels, value):
    torch.manual_seed(0)
    result = v2.RandomErasing(p=1, value=value)(pixels)
    return result[result != pixels]


levels, half = erased(image, "random"), erased(image, 0.5).unique().tolist()
floats = erased(image / 255, "random")
extreme = ((levels < 4) | (levels > 252)).float().mean().item()
below = (floats < 0).float().mean().item()
print(f"torchvision {torchvision.__version__}: of {len(levels)} erased pixels, {extreme:.0%} are 0-3 or 253-255")
print(f"levels: {levels.unique().tolist()}; value=0.5 gives {half}; of floats, {below:.0%} are below 0")
raise SystemExit(not (extreme > 0.99 and half == [0] and 0.4 < below < 0.6))
PYTHON
env/bin/python erase.py
