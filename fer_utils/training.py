"""Training: batches, the Lightning module, and `fit`, the one call that trains any of the networks."""

import dataclasses
import io
import json
import logging
import math
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler

from fer_utils.augment import Augment
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.files import atomic_path, atomic_write, write_json
from fer_utils.memory import keep_freed_memory

# Lightning's notes on hardware, on loader workers and on layers that are frozen on purpose.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
_NOTES = "many workers|is not empty|number of training batches|LeafSpec|in eval mode|dirpath has changed"
warnings.filterwarnings("ignore", message=f"(?s).*({_NOTES})")

# What a new run removes: weights of an earlier one must not pass for its own if it is stopped.
FILES = ("model.safetensors", "last.ckpt", "previous.ckpt", "best.ckpt", "history.csv")
Batch = tuple[Tensor, Tensor, Tensor]  # images, labels, targets


@dataclass(frozen=True)
class Recipe:
    """How a network is trained: one-cycle learning rate (Smith & Topin 2019), the best epoch kept."""

    epochs: int = 30
    batch_size: int = 64  # images a step, on each device
    batches: int = 0  # steps of an epoch; 0 for as many as it takes to see every image
    # SGD with Nesterov momentum, or Adam with decoupled weight decay (Loshchilov & Hutter 2019)
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.05  # the largest of the cycle
    momentum: float = 0.9  # or Adam's first beta
    weight_decay: float = 5e-4  # on matrices and kernels, not on biases and normalisation
    warmup: float = 0.2  # share of the steps in which the learning rate goes up
    label_smoothing: float = 0.1  # share of the label's weight given to all classes alike
    # Side in pixels to which a FaceNet's images are enlarged in the first epoch (Howard 2018; Tan & Le 2021);
    # it grows to the network's own until five sixths of the epochs are done. 0 for that from the start.
    first_size: int = 0
    mixup: float = 0.0  # alpha of mixup (Zhang et al. 2018), which trains on blends of two images
    clip: float = 5.0  # largest norm of the gradient; 0 for none
    augment: Augment | None = field(default_factory=Augment)  # drawn for each training image
    seed: int = 0  # of weights, order, augmentation and dropout

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.lr) <= 0 or self.optimizer not in ("sgd", "adam"):
            raise ValueError("epochs, batch_size and lr must be above 0, and optimizer sgd or adam")

    def side(self, epoch: int, own: int) -> int:
        """Pixels to which images are enlarged in an epoch, counted from 0; the network's `own` in the end."""
        grown = epoch / (5 / 6 * self.epochs)
        if not self.first_size or grown >= 1:
            return own
        return 16 * round((self.first_size + grown * (own - self.first_size)) / 16)


def loader(faces: FaceSet, recipe: Recipe, targets: np.ndarray | None = None, **options: Any) -> DataLoader:
    """Batches of faces, made by the process that trains, since they are ready without workers.

    Images, uint8 (B, 1, 64, 64); labels, int64 (B,); and targets, float32 (B, classes), a distribution over
    the classes, perhaps followed by the columns of an auxiliary task.
    """
    if targets is not None and len(targets) != len(faces):
        raise ValueError(f"{len(targets)} targets for {len(faces)} images")
    targets = np.eye(len(CLASSES), dtype=np.float32)[faces.labels] if targets is None else targets
    known = torch.from_numpy(faces.labels.copy()), torch.from_numpy(np.asarray(targets, np.float32))

    def batch(rows: list[int]) -> Batch:
        images = torch.from_numpy(faces.take(rows))
        # Features of a frozen part, in place of images, are floats and have their channels.
        images = images.unsqueeze(1) if images.dtype == torch.uint8 else images
        return images, *(values[rows] for values in known)

    # A loader draws a seed for its workers whenever it is opened, which in a resumed run is at another time;
    # from a generator of its own, so that augmentation and dropout do not notice.
    options |= {"generator": torch.Generator().manual_seed(recipe.seed), "collate_fn": batch}
    options |= {"pin_memory": torch.cuda.is_available()}
    return DataLoader(range(len(faces)), **options)


class Classifier(L.LightningModule):
    """A network, from images (B, 1, 64, 64) to logits (B, classes + auxiliary), with loss and optimiser."""

    def __init__(self, model: nn.Module, recipe: Recipe, auxiliary: int = 0) -> None:
        super().__init__()
        self.model, self.recipe, self.auxiliary = model, recipe, auxiliary
        first = recipe.first_size
        if first and not (hasattr(model, "enlarge") and 32 <= first <= model.input_size):
            raise ValueError("first_size is for FaceNet, and from 32 to its input_size")
        self.input_size = model.input_size if first else None

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale images to 0–1 and, while training, augment them on the device, a draw for each image."""
        images, labels, targets = batch
        if images.dtype == torch.uint8:
            images = images.float() / 255
            if self.trainer.training and self.recipe.augment is not None:
                images = self.recipe.augment(images)
        return images.float(), labels, targets

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the classes and of the auxiliary task."""
        logits = self.model(images)
        return logits.tensor_split([logits.shape[1] - self.auxiliary], 1)

    def on_train_epoch_start(self) -> None:
        """Draw augmentation and dropout from seed, epoch and rank, so that a resumed run draws the same."""
        torch.manual_seed((self.recipe.seed * 1_000 + self.current_epoch) * 1_000 + self.global_rank)
        if self.input_size:
            self.model.input_size = self.recipe.side(self.current_epoch, self.input_size)

    def on_validation_epoch_start(self) -> None:
        """Validate at the size at which the network will be used."""
        if self.input_size:
            self.model.input_size = self.input_size

    def mix(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Blend each image and its targets with those of another of the batch, if the recipe says so."""
        if self.recipe.mixup:
            share = torch.distributions.Beta(self.recipe.mixup, self.recipe.mixup).sample().item()
            share, other = max(share, 1 - share), torch.randperm(len(images), device=images.device)
            images = share * images + (1 - share) * images[other]
            targets = share * targets + (1 - share) * targets[other]
        return images, targets

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch: cross-entropy with the targets, and that of the auxiliary task."""
        images, labels, targets = batch
        images, targets = self.mix(images, targets)
        logits, auxiliary = self(images)
        classes = logits.shape[1]
        loss = F.cross_entropy(logits, targets[:, :classes], label_smoothing=self.recipe.label_smoothing)
        if self.auxiliary:
            loss = loss + F.cross_entropy(auxiliary, targets[:, classes:])
        self._log("train", loss, logits, labels)
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Loss (against the labels, without smoothing) and accuracy of one batch."""
        images, labels, _targets = batch
        logits, _ = self(images)
        self._log("val", F.cross_entropy(logits, labels), logits, labels)

    def _log(self, stage: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        values = {f"{stage}_loss": loss, f"{stage}_accuracy": (logits.argmax(1) == labels).float().mean()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient, which Lightning refuses to a fused optimiser in mixed precision."""
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser over the parameters that are not frozen, and the one-cycle learning rate."""
        recipe, steps = self.recipe, max(3, int(self.trainer.estimated_stepping_batches))
        # One pass over memory instead of one for each operation: a third of the time of a step of FaceNet's
        # head on a processor.
        optimizer = make_optimizer(self.model, recipe, fused=self.device.type == "cpu")
        # PyTorch divides by the length of the way up, which takes two steps, if there is one.
        warmup = max(recipe.warmup, 2 / steps) if recipe.warmup else 0.0
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.lr, total_steps=steps, pct_start=warmup, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_optimizer(model: nn.Module, recipe: Recipe, *, fused: bool = False) -> torch.optim.Optimizer:
    """The recipe's optimiser: weight decay holds for matrices and kernels, not for vectors."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    options = {"params": [g for g in groups if g["params"]], "lr": recipe.lr, "fused": fused or None}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(momentum=recipe.momentum, nesterov=recipe.momentum > 0, **options)
    return torch.optim.AdamW(betas=(recipe.momentum, 0.999), **options)


class History(Callback):
    """Keeps the learning curve, in `history.csv` and in the checkpoint, and the weights of the best epoch."""

    def __init__(self, folder: Path, recipe: Recipe, verbose: bool) -> None:
        self.folder, self.recipe, self.verbose = folder, recipe, verbose
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows of a checkpoint."""
        self.rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock of the training part, when the GPU has done what it was told."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._training_seconds = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the epoch, and keep its weights if they are the best so far."""
        images = trainer.num_training_batches * self.recipe.batch_size * trainer.world_size
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        row = {"epoch": trainer.current_epoch + 1}
        row |= {name: round(float(trainer.callback_metrics[name]), 6) for name in names}
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        row["seconds"] = round(time.perf_counter() - self._start, 3)
        row["images_per_second"] = round(images / self._training_seconds, 1)
        if row["val_accuracy"] > max((r["val_accuracy"] for r in self.rows), default=-1):
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)
        self.rows.append(row)
        if trainer.is_global_zero:
            atomic_write(self.folder / "history.csv", pd.DataFrame(self.rows).to_csv(index=False))
            if self.verbose:
                print_epoch(row, self.recipe.epochs)


class Checkpoints(TorchCheckpointIO):
    """Files that are whole or not there, whatever is killed; the one before the last is kept, too."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside `path`: Lightning writes to TMPDIR, which may be another file system."""
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as aside:
            aside.write_bytes(buffer.getbuffer())
            if path.name == "last.ckpt" and path.exists():
                path.replace(path.with_name("previous.ckpt"))


def start_of(folder: Path) -> Path | None:
    """The checkpoint to go on from, or None to begin anew; without the best epoch's, no other helps."""

    def whole(name: str) -> bool:
        path = folder / name
        try:
            with zipfile.ZipFile(path) as parts:
                damaged = parts.testzip() is not None
        except FileNotFoundError:
            return False
        except Exception:  # whatever `zipfile` meets in a damaged file
            damaged = True
        if damaged:
            print(f"{path} is damaged; training goes on from what was before it", file=sys.stderr)
        return not damaged

    last = next(filter(whole, ("last.ckpt", "previous.ckpt")), None) if whole("best.ckpt") else None
    return folder / last if last else None


def print_epoch(row: Mapping[str, float], epochs: int) -> None:
    """Print a row of the learning curve."""
    text = "epoch {epoch:2.0f}/{epochs}  training: loss {train_loss:.3f}, accuracy {train_accuracy:6.1%}"
    text += "  validation: loss {val_loss:.3f}, accuracy {val_accuracy:6.1%}"
    print(text.format(**row, epochs=epochs), flush=True)


@dataclass(frozen=True)
class Fit:
    """A finished training."""

    model: nn.Module  # with the weights of the best epoch on validation, in evaluation mode
    history: pd.DataFrame  # a row an epoch: losses, accuracies, learning rate, seconds, images per second
    folder: Path  # of `run.json`, `history.csv` and the checkpoints

    @property
    def best(self) -> pd.Series:
        """The row of the epoch with the highest validation accuracy (the first, if several)."""
        return self.history.loc[self.history["val_accuracy"].idxmax()]


def fit(
    model: nn.Module,
    train: FaceSet,
    validation: FaceSet,
    recipe: Recipe,
    folder: Path | str,
    *,
    targets: np.ndarray | None = None,
    about: Mapping[str, Any] | None = None,
    resume: bool = False,
    verbose: bool = True,
    classifier: Callable[..., Classifier] = Classifier,
    **trainer_options: Any,
) -> Fit:
    """Train a network and return it as it was after its best epoch on validation.

    Build it after `lightning.seed_everything(recipe.seed)`. The folder gets checkpoints, the learning
    curve, and `run.json`, with the recipe and plain values `about` the run. A run that was stopped goes on
    with `resume`, if its `run.json` agrees (but for `revision`), and ends with the same weights as if it had
    not been stopped. A `classifier` with another loss takes what `Classifier` takes. What is left of the
    options is for `lightning.Trainer`: `precision`, `devices`, `callbacks`, …

    Several processes (`devices`, `num_nodes`) share the images of training and of validation, take
    `batch_size` images a step each, and average their gradients, as if one process took all. What each
    draws for augmentation and dropout is its own, and so are its statistics of batch normalisation, of which
    process zero's are kept: Lightning's `sync_batchnorm` would join them, on GPUs alone. Process zero writes.

    Targets, float32 (N, 6), are a distribution over the classes for each training face, in place of its
    label. Further columns are a distribution, times its loss weight, for an auxiliary task (Caruana 1997):
    while the network trains, its last layer has a unit more for each; rows of zeros ask none.
    """
    if not (len(train) and len(validation)):
        raise DataError("there are no images", file=train.path, remedy="check split and sources")
    folder, about = Path(folder), {**(about or {}), "recipe": dataclasses.asdict(recipe)}
    history = History(folder, recipe, verbose)
    latest = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    quiet = ("enable_progress_bar", "enable_model_summary", "num_sanity_val_steps", "logger")
    callbacks = [history, latest, *trainer_options.pop("callbacks", ())]
    try:
        trainer = L.Trainer(
            **{"precision": default_precision()} | dict.fromkeys(quiet, False) | trainer_options,
            max_epochs=recipe.epochs,
            gradient_clip_val=recipe.clip or None,
            limit_train_batches=recipe.batches or 1.0,
            callbacks=callbacks,
            plugins=[Checkpoints()],
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, RuntimeError) as error:
        raise ValueError(str(error)) from None
    rank, processes, size = trainer.global_rank, trainer.world_size, recipe.batch_size
    sampler = DistributedSampler(train.labels, processes, rank, seed=recipe.seed)
    # Batch normalisation cannot be trained on a last batch of one image.
    alone = len(sampler) % size == 1
    # Of validation, each process has as many batches, and each image is in one of them.
    rows = np.arange(len(validation))
    parts = np.array_split(rows, processes * math.ceil(len(rows) / (processes * size)))
    batches = (
        loader(train, recipe, targets, batch_size=size, sampler=sampler, drop_last=alone),
        loader(validation, recipe, batch_sampler=parts[rank::processes]),
    )
    about["processes"] = processes
    if resume:
        check_same_run(folder, about)
    if trainer.is_global_zero:
        for old in () if resume else FILES:
            (folder / old).unlink(missing_ok=True)
        write_json(folder / "run.json", about)
    keep_freed_memory()
    start = start_of(folder) if resume else None
    layer = last_layer(model)
    classes = layer.out_features
    set_outputs(layer, classes if targets is None else targets.shape[1])
    # The memory layout in which oneDNN and cuDNN convolve fastest; results are the same.
    model.to(memory_format=torch.channels_last)
    module = classifier(model, recipe, layer.out_features - classes)
    trainer.fit(module, *batches, ckpt_path=start, weights_only=True)
    state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    set_outputs(layer, classes)
    return Fit(model.cpu().eval(), pd.DataFrame(history.rows), folder)


def check_same_run(folder: Path, about: Mapping[str, Any]) -> None:
    """Raise DataError where the run that began in a folder notes other settings in `run.json`."""
    path = folder / "run.json"
    then = json.loads(path.read_text(encoding="utf-8")) if path.exists() else about
    then, now = ({**run, **run["recipe"]} for run in (then, json.loads(json.dumps(about))))
    now.setdefault("processes", then.get("processes"))  # which is known once there is a trainer
    different = {k for k in then.keys() | now.keys() if then.get(k) != now.get(k)} - {"revision", "recipe"}
    if different:
        problem = f"the run began with other settings ({', '.join(sorted(different))} changed)"
        remedy = "resume with the same settings, or give the new run another name"
        raise DataError(problem, file=path, remedy=remedy)


def last_layer(model: nn.Module) -> nn.Linear:
    """The layer that gives the logits."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def set_outputs(layer: nn.Linear, outputs: int) -> None:
    """Give a layer more units, with new weights, or take its last ones off."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    if outputs > layer.out_features:
        new = nn.Linear(layer.in_features, outputs - layer.out_features)
        weight, bias = torch.cat([weight, new.weight.detach()]), torch.cat([bias, new.bias.detach()])
    if outputs != layer.out_features:
        layer.weight = nn.Parameter(weight[:outputs].clone())
        layer.bias = nn.Parameter(bias[:outputs].clone())
        layer.out_features = outputs


def default_precision() -> str:
    """Mixed half precision where there is a GPU, single precision elsewhere; in Lightning's words."""
    return "16-mixed" if torch.cuda.is_available() else "32-true"
