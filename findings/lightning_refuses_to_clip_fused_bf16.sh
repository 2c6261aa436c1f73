#!/usr/bin/env bash
# lightning 2.6.6 with torch 2.14.1: a fused optimiser cannot be clipped in bfloat16, which has no gradient scaler.
#
# Guess: the conflict between clipping and fused optimisers concerns float16, where a scaler unscales gradients inside the
#   step. In bf16-mixed there is no scaler, so `gradient_clip_val` works with any optimiser, as it does in 32-true.
# Seen: Lightning asks only whether the optimiser could take a scaler, and refuses: training stops at its first step, and
#   the message speaks of unscaling that nobody does. Without `fused` the same training runs, and so it does in 32-true.
# Here: `Classifier.configure_gradient_clipping` clips by itself; the fused optimiser stays in both precisions.
#
# Prints what each combination does. Exit code 1 if bf16-mixed with a fused optimiser and clipping trains.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "torch==2.14.1" "lightning==2.6.6" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > clip.py <<'PYTHON'
import itertools
import logging
import warnings

import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")


class Module(L.LightningModule):
    def __init__(self, fused):
        super().__init__()
        self.layer, self.fused = torch.nn.Linear(4, 2), fused

    def training_step(self, batch, _):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1, fused=self.fused)


print(f"lightning {L.__version__}, torch {torch.__version__}")
data = DataLoader(TensorDataset(torch.rand(8, 4), torch.arange(8) % 2), batch_size=4)
quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "logger"), False)
seen = {}
for precision, fused in itertools.product(("32-true", "bf16-mixed"), (False, True)):
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=1, precision=precision, gradient_clip_val=1.0, **quiet
    )
    try:
        trainer.fit(Module(fused), data)
        seen[precision, fused] = "trains"
    except RuntimeError as error:
        seen[precision, fused] = f"RuntimeError: {' '.join(str(error).split())[:110]}…"
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    print(f"{precision:10s} fused={fused!s:5s} scaler={scaler}: {seen[precision, fused]}")
refused = {case for case, answer in seen.items() if answer != "trains"}
raise SystemExit(refused != {("bf16-mixed", True)})
PYTHON
env/bin/python clip.py
