#!/usr/bin/env bash
# Lightning 2.6.6, torch 2.14.1: averaging weights spoils batch-norm layers that are frozen.
#
# Guess: `StochasticWeightAveraging` measures the statistics of batch norm again for the layers that are trained; a
#   layer that the model keeps in evaluation mode (`on_train_epoch_start`), as in fine-tuning, keeps its own.
# Seen: it clears the statistics of every batch-norm layer, then runs the training images once more to fill them. A layer
#   in evaluation mode is not filled: it ends with mean 0 and variance 1 in place of the pretrained ones, and whatever
#   follows it gets inputs on another scale. No warning. PyTorch's own `update_bn` fails otherwise: it fills the frozen
#   layer, too, with statistics of the new images, and leaves it in training mode.
# Here: weights are not averaged; frozen layers are never in training mode (tests/unit/test_facenet.py).
#
# Prints mean and variance of a frozen and of a trained layer. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "lightning==2.6.6" "torch==2.14.1" "numpy==2.4.6" 2> pip.log || { cat pip.log; exit 2; }
cat > average.py <<'PYTHON'
import logging
import warnings

import lightning as L
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging
from torch import nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class FineTuned(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU()).requires_grad_(False)
        self.trunk[1].running_mean.fill_(0.3)
        self.trunk[1].running_var.fill_(2.0)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, inputs):
        return self.head(self.trunk(inputs))

    def on_train_epoch_start(self):
        self.trunk.eval()

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.head.parameters(), 0.1)


def statistics(layer):
    return round(layer.running_mean.mean().item(), 3), round(layer.running_var.mean().item(), 3)


def trained(*callbacks):
    L.seed_everything(0, verbose=False)
    network, quiet = FineTuned(), ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    trainer = L.Trainer(max_epochs=4, accelerator="cpu", callbacks=[*callbacks], **dict.fromkeys(quiet, False))
    trainer.fit(network, batches)
    return network


inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
batches = DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), 8)
plain, averaged = trained(), trained(StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2))
print(f"lightning {L.__version__}, torch {torch.__version__}: mean and variance of a layer, frozen at (0.3, 2.0)")
frozen = [statistics(network.trunk[1]) for network in (plain, averaged)]
print(f"trained: {frozen[0]}; with averaged weights: {frozen[1]}, the trained layer {statistics(averaged.head[1])}")
plain.train()
plain.trunk.eval()
update_bn(batches, plain)
after, training = statistics(plain.trunk[1]), plain.trunk[1].training
print(f"after update_bn: {after}, in training mode: {training}")
raise SystemExit(not (frozen == [(0.3, 2.0), (0.0, 1.0)] and after != (0.3, 2.0) and training))
PYTHON
env/bin/python average.py
