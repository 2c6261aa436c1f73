#!/usr/bin/env bash
# torch 2.13.0 and Pillow 13.0.0: `antialias` changes a bicubic resize that enlarges, where nothing can alias.
#
# Guess: `interpolate(..., antialias=True)` acts when images are made smaller; from 48 to 64 pixels both give the same.
# Seen: the switch also changes the cubic kernel, from a = -0.75 to Pillow's a = -0.5: 13 grey levels at the edges of a
#   drawn face of 48 pixels. Only antialias=True gives Pillow's result (within rounding). Who trains on faces enlarged
#   by one and predicts on the other's shows the network pictures that are sharper than those it knows. Bilinear has one
#   kernel, and does not change.
# Here: networks resize by `antialias=True`, in training and in their ONNX files.
#
# Prints the largest differences in grey levels. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.13.0" "pillow==13.0.0" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > enlarge.py <<'PYTHON'
import numpy as np
import torch
from PIL import Image, ImageDraw

picture = Image.new("L", (480, 480), 150)
draw = ImageDraw.Draw(picture)
draw.ellipse((60, 20, 420, 470), fill=200)
for x in (150, 330):
    draw.ellipse((x - 40, 170, x + 40, 220), fill=240)
    draw.ellipse((x - 18, 175, x + 18, 215), fill=30)
    draw.arc((x - 55, 110, x + 55, 180), 200, 340, fill=40, width=16)
draw.arc((150, 280, 330, 400), 20, 160, fill=60, width=20)
face = picture.resize((48, 48), Image.Resampling.BOX)
pixels = torch.from_numpy(np.array(face))[None, None].float()


def enlarged(mode, antialias):
    return torch.nn.functional.interpolate(pixels, (64, 64), mode=mode, antialias=antialias).clamp(0, 255)


def pillow(how):
    return torch.from_numpy(np.array(face.resize((64, 64), how)))[None, None].float()


cubic = [enlarged("bicubic", switch) for switch in (False, True)]
linear = [enlarged("bilinear", switch) for switch in (False, True)]
between, between_linear = ((first - second).abs().max().item() for first, second in (cubic, linear))
off, on = ((version - pillow(Image.Resampling.BICUBIC)).abs().max().item() for version in cubic)
print(f"torch {torch.__version__}, 48 to 64 pixels, grey levels")
print(f"bicubic, with and without antialias: {between:.2f} apart; bilinear: {between_linear:.2f}")
print(f"bicubic from Pillow's: {off:.2f} without antialias, {on:.2f} with")
raise SystemExit(not (between > 5 and between_linear < 0.01 and off > 5 and on < 1.01))
PYTHON
env/bin/python enlarge.py
