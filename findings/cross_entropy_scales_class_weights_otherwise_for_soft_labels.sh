#!/usr/bin/env bash
# torch 2.13.0: class weights give another loss once labels are written as distributions, as FER+ votes are.
#
# Guess: `cross_entropy(logits, labels, weight=w)` is `cross_entropy(logits, one_hot(labels), weight=w)`.
# Seen: the mean over labels is divided by the sum of their weights, the mean over distributions by the number of images.
#   With weights from FER2013's class sizes that average 1 over the seven classes, loss and gradients shrink to a
#   quarter on a batch of happy faces and grow to over 4 times on one of disgust: who goes from labels to votes, or
#   turns mixup on, trains with another learning rate in each batch.
# Here: recipes have no class weights.
#
# Prints both losses for three batches. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.13.0" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > weights.py <<'PYTHON'
import torch
from torch.nn.functional import cross_entropy, one_hot

SIZES = {"angry": 3995, "disgust": 436, "fear": 4097, "happy": 7215, "sad": 4830, "surprise": 3171, "neutral": 4965}
weights = 1 / torch.tensor(list(SIZES.values()), dtype=torch.float64)
weights = weights / weights.mean()
logits = torch.randn(70, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
batches = {
    "ten of each class": torch.arange(7).repeat(10),
    "happy faces": torch.full((70,), 3),
    "disgusted faces": torch.full((70,), 1),
}
print(f"torch {torch.__version__}")
ratios = {}
for name, labels in batches.items():
    by_label = cross_entropy(logits, labels, weight=weights).item()
    by_distribution = cross_entropy(logits, one_hot(labels, 7).double(), weight=weights).item()
    ratios[name] = by_distribution / by_label
    print(f"{name}: loss of labels {by_label:.3f}, of the same as distributions {by_distribution:.3f}")
expected = {name: weights[labels].mean().item() for name, labels in batches.items()}
as_seen = all(abs(ratios[name] - expected[name]) < 1e-9 for name in batches)
raise SystemExit(not (as_seen and ratios["happy faces"] < 0.5 and ratios["disgusted faces"] > 4))
PYTHON
env/bin/python weights.py
