#!/usr/bin/env bash
# Lightning 2.6.6: a run resumed from a checkpoint within an epoch trains on the epoch's first images again.
#
# Guess: `fit(ckpt_path="last")` goes on behind the last step saved: it remembers the number of the batch, so the loader
#   is moved on to it.
# Seen: the number is restored (steps and epochs end as they should), but the loader starts at its first batch: of four
#   batches, with a checkpoint after two, the first two come twice and the last two never. With data sorted by class, or
#   few long epochs and many stops, the network hardly sees the end. No warning.
# Here: checkpoints are written at the end of epochs only, and the order of each epoch comes from its number.
#
# Prints the images of each batch. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "lightning==2.6.6" "torch==2.13.0" 2> pip.log || { cat pip.log; exit 2; }
cat > resume.py <<'PYTHON'
import logging
import warnings

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Network(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer, self.batches = torch.nn.Linear(1, 1), []

    def training_step(self, batch, number):
        self.batches.append((number, batch[0].tolist()))
        return self.layer(batch[0][:, None].float()).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(steps, resumed_from=None):
    network = Network()
    kept = ModelCheckpoint("kept", filename="{step}", every_n_train_steps=2, save_top_k=-1)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_steps=steps, accelerator="cpu", callbacks=[kept], **quiet)
    trainer.fit(network, DataLoader(TensorDataset(torch.arange(8)), 2), ckpt_path=resumed_from)
    return network.batches


whole = train(4)
resumed = train(4, "kept/step=2.ckpt")
print(f"lightning {L.__version__}\nan epoch: {whole}\nresumed after two batches: {resumed}")
repeated = resumed == [(2, [0, 1]), (3, [2, 3])]
raise SystemExit(not (repeated and whole[2:] == [(2, [4, 5]), (3, [6, 7])]))
PYTHON
env/bin/python resume.py
