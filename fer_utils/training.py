"""Training: the data module, the Lightning module and `fit`, the one call that trains any of the networks.

The same call runs on a processor, on one or several GPUs and on several machines: `accelerator`, `devices`,
`num_nodes`, `strategy` and `precision` go to `lightning.Trainer` as they are.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from fer_utils.augment import Augment
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.files import atomic_write, write_json

TRAINER = ("accelerator", "devices", "num_nodes", "strategy", "precision")  # options of `fit` for Lightning


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images a step, on each device.
        batches: steps of an epoch; 0 for as many as it takes to see every image. A fixed number gives sets
            of different sizes the same budget: each epoch draws its images anew from the larger one.
        optimizer: ``"sgd"`` with Nesterov momentum (Sutskever et al. 2013; the poster's) or ``"adam"``
            (with decoupled weight decay, Loshchilov & Hutter 2019).
        lr: largest learning rate of the schedule.
        lr_decay: how much slower each block learns than the one above it: the head learns at `lr`, the block
            below it at `lr_decay` × `lr`, the next at its square × `lr`, down to the input (discriminative
            fine-tuning, Howard & Ruder 2018). 1 for one rate; less only for networks with `stages`, FaceNet.
        momentum: Nesterov momentum; Adam's first beta.
        weight_decay: on weight matrices and kernels, not on biases and normalisation.
        schedule: ``"onecycle"`` (Smith & Topin 2019: up, then down to almost zero), ``"cosine"`` (down
            from the start) or ``"constant"``.
        warmup: share of the steps in which one-cycle goes up.
        label_smoothing: share of the label's weight given to all classes alike (Szegedy et al. 2016).
        mixup: alpha of mixup (Zhang et al. 2018), which trains on blends of two images; 0 for none.
        ema: decay of the moving average of the weights, which is what is validated and kept (Polyak &
            Juditsky 1992); 0 for none. 0.998 averages over some 500 steps.
        clip: largest norm of the gradient; 0 for none.
        augment: changes drawn for each training image, or none.
        seed: seeds weights, order, augmentation and dropout.
    """

    epochs: int = 30
    batch_size: int = 64
    batches: int = 0
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = 0.05
    lr_decay: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    warmup: float = 0.2
    label_smoothing: float = 0.1
    mixup: float = 0.0
    ema: float = 0.0
    clip: float = 5.0
    augment: Augment | None = field(default_factory=Augment)
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Make a recipe from what `as_dict` gave."""
        augment = values.get("augment")
        return cls(**{**values, "augment": Augment(**augment) if augment is not None else None})


Batch = tuple[Tensor, Tensor, Tensor]  # images, labels, and what the loss aims at


class Faces(Dataset[Batch]):
    """A `FaceSet` that hands out whole batches.

    A batch is images, uint8 (B, 1, 64, 64); labels, int64 (B,); and targets, float32 (B, classes), a
    distribution over the classes for each image, or (B, classes + answers) with a second question.

    Args:
        faces: the images and their labels.
        targets: float32 (N, classes), rows sum to 1; by default all the weight is on the label. Columns
            beyond the classes aim at a second question, as for `fit`.
    """

    def __init__(self, faces: FaceSet, targets: np.ndarray | None = None) -> None:
        self.faces = faces
        self.labels = torch.from_numpy(faces.labels.copy())
        self.classes = max(len(CLASSES), int(self.labels.max()) + 1 if len(self.labels) else 0)
        if targets is not None and len(targets) != len(faces):
            raise ValueError(f"{len(targets)} targets for {len(faces)} images")
        self.targets = None if targets is None else torch.from_numpy(np.asarray(targets, np.float32))
        self.answers = 0 if targets is None else targets.shape[1] - self.classes

    def __len__(self) -> int:
        return len(self.faces)

    def __getitems__(self, rows: list[int]) -> Batch:
        """Fetch the rows of one batch in one go; PyTorch's loader prefers this to single items."""
        images = torch.from_numpy(self.faces.take(rows))
        # `fer_utils.features.Features` gives floats, which have their channels, in place of images.
        return images.unsqueeze(1) if images.dtype == torch.uint8 else images, *self.labels_and_targets(rows)

    def labels_and_targets(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Labels, int64 (B,), and targets, float32 (B, classes), of some rows."""
        labels = self.labels[rows]
        targets = F.one_hot(labels, self.classes).float() if self.targets is None else self.targets[rows]
        return labels, targets


def _as_it_is(batch: Batch) -> Batch:
    return batch


def refuse_no_images(train: FaceSet, validation: FaceSet) -> None:
    """Raise DataError where there is nothing to train on, or nothing to choose the epoch on."""
    for faces, what in ((train, "training"), (validation, "validation")):
        if not len(faces):
            raise DataError(
                f"there are no {what} images", file=faces.path, remedy="check the split and source asked for"
            )


class FaceData(L.LightningDataModule):
    """Batches for training and validation; augmentation runs on the device, a draw for each image.

    Args:
        train: training faces.
        validation: validation faces.
        recipe: gives batch size, augmentation and seed.
        targets: of the training faces, as for `Faces`.
    """

    def __init__(
        self, train: FaceSet, validation: FaceSet, recipe: Recipe, targets: np.ndarray | None = None
    ) -> None:
        super().__init__()
        refuse_no_images(train, validation)
        self.train_faces, self.validation_faces = Faces(train, targets), Faces(validation)
        self.recipe = recipe

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the order follows from seed and epoch alone, on one device or many."""
        workers, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = self._sampler(num_replicas=workers, rank=rank, shuffle=True, seed=self.recipe.seed)
        # Batch normalisation cannot learn from a last batch of one image.
        return self._loader(
            self.train_faces, sampler=sampler, drop_last=len(sampler) % self.recipe.batch_size == 1
        )

    def val_dataloader(self) -> DataLoader:
        """Batches in the order of the set."""
        return self._loader(self.validation_faces)

    def _sampler(self, **options: Any) -> DistributedSampler:
        return DistributedSampler(self.train_faces, **options)

    def _loader(self, faces: Faces, **options: Any) -> DataLoader:
        return DataLoader(
            faces,
            batch_size=self.recipe.batch_size,
            collate_fn=_as_it_is,
            # A loader draws a seed for its workers whenever it is opened, which in a resumed run is at
            # another time; from a generator of its own, so that augmentation and dropout do not notice.
            generator=torch.Generator().manual_seed(self.recipe.seed),
            pin_memory=torch.cuda.is_available(),
            **options,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Scale images to 0–1 and, while training, augment them."""
        images, labels, targets = batch
        if images.dtype != torch.uint8:
            return images.float(), labels, targets
        images = images.float() / 255
        if self.trainer and self.trainer.training and self.recipe.augment is not None:
            images = self.recipe.augment(images)
        return images, labels, targets


class Classifier(L.LightningModule):
    """A network with its loss and optimiser.

    Args:
        model: takes float images (B, 1, 64, 64) of 0–1 and gives logits (B, 6).
        recipe: how to train it.
        answers: how many of the model's last logits answer a second question.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, answers: int = 0) -> None:
        super().__init__()
        self.model, self.recipe, self.answers = model, recipe, answers

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 6), and of the second question (B, answers), for float images (B, 1, 64, 64)."""
        logits = self.model(images)
        return logits.tensor_split([logits.shape[1] - self.answers], 1)

    def on_train_epoch_start(self) -> None:
        """Draw augmentation and dropout from seed, epoch and rank, so that a resumed run draws the same."""
        torch.manual_seed((self.recipe.seed * 1_000 + self.current_epoch) * 1_000 + self.global_rank)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Loss of one batch."""
        images, labels, targets = batch
        if self.recipe.mixup:
            share = torch.distributions.Beta(self.recipe.mixup, self.recipe.mixup).sample().item()
            share, other = max(share, 1 - share), torch.randperm(len(labels), device=labels.device)
            images = share * images + (1 - share) * images[other]
            targets = share * targets + (1 - share) * targets[other]
        logits, second = self(images)
        classes = logits.shape[1]
        loss = F.cross_entropy(logits, targets[:, :classes], label_smoothing=self.recipe.label_smoothing)
        if self.answers:
            loss = loss + F.cross_entropy(second, targets[:, classes:])
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

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser and schedule of the recipe, over the parameters that are not frozen."""
        recipe = self.recipe
        # One pass over memory instead of one for each operation: a third of the time of a step of FaceNet's
        # head on a processor. Lightning's mixed precision cannot clip gradients with it.
        fused = self.device.type == "cpu" and self.trainer.precision == "32-true"
        optimizer = make_optimizer(self.model, recipe, fused=fused)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule: torch.optim.lr_scheduler.LRScheduler
        if recipe.schedule == "onecycle" and steps > 2:
            highest = [group["lr"] for group in optimizer.param_groups]
            # PyTorch divides by the length of the way up, which takes two steps, if there is one.
            warmup = min(1.0, max(recipe.warmup, 2 / steps)) if recipe.warmup else 0.0
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, highest, total_steps=steps, pct_start=warmup, cycle_momentum=False
            )
        elif recipe.schedule != "constant":  # also of one or two steps, which only go down
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        else:
            schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def make_optimizer(model: nn.Module, recipe: Recipe, *, fused: bool = False) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that are not frozen.

    Weight decay holds for weight matrices and kernels; biases and normalisation have none. With `lr_decay`,
    each depth has groups of its own, the head's first.

    Args:
        model: with `stages()` if rates go by depth.
        recipe: how to train.
        fused: use PyTorch's one-pass form of the optimiser; results are the same up to rounding.

    Raises:
        ValueError: `lr_decay` is not above 0 and at most 1, or the network does not tell its depths.
    """
    if not 0 < recipe.lr_decay <= 1:
        raise ValueError(f"lr_decay is {recipe.lr_decay}; it must be above 0 and at most 1")
    if recipe.lr_decay == 1:
        depths = [list(model.parameters())]
    elif hasattr(model, "stages"):
        depths = model.stages()[::-1]
    else:
        raise ValueError(f"{type(model).__name__} does not tell its depths: lr_decay must be 1")
    groups = []
    for depth, parameters in enumerate(depths):
        trained = [p for p in parameters if p.requires_grad]
        lr = recipe.lr * recipe.lr_decay**depth
        for chosen, decay in (
            ([p for p in trained if p.ndim > 1], recipe.weight_decay),
            ([p for p in trained if p.ndim <= 1], 0.0),
        ):
            if chosen:
                groups.append({"params": chosen, "lr": lr, "weight_decay": decay})
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=True, fused=fused or None
        )
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999), fused=fused or None)


class Checkpoint(ModelCheckpoint):
    """Lightning's, but it knows its best epoch again where the folder has been moved since."""

    @property
    def state_key(self) -> str:
        """As Lightning's own: checkpoints from before this class was there are known by that."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state as if it had been written in the present folder."""
        here = str(self.dirpath)

        def moved(path: str) -> str:
            return str(Path(here) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        ranked = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        now = {"dirpath": here, "best_k_models": ranked} | {name: moved(state_dict[name]) for name in paths}
        super().load_state_dict(state_dict | now)


class History(Callback):
    """Keeps the learning curve in the checkpoint, so that it survives a resume, and in `history.csv`."""

    def __init__(self, path: Path, epochs: int, verbose: bool) -> None:
        self.path, self.epochs, self.verbose = path, epochs, verbose
        self.rows: list[dict[str, float]] = []
        self._start, self._training_seconds = 0.0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """The rows so far."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows of a checkpoint."""
        self.rows = state_dict["rows"]

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock of the training part."""
        self._training_seconds = time.perf_counter() - self._start

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the epoch."""
        values = trainer.callback_metrics
        images = trainer.num_training_batches * trainer.datamodule.recipe.batch_size * trainer.world_size
        row = {"epoch": trainer.current_epoch + 1}
        row |= {
            name: round(float(values[name]), 6)
            for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        }
        row |= {
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "seconds": round(time.perf_counter() - self._start, 3),
            "images_per_second": round(images / self._training_seconds, 1),
        }
        self.rows.append(row)
        if trainer.is_global_zero:
            atomic_write(self.path, pd.DataFrame(self.rows).to_csv(index=False))
            if self.verbose:
                print(
                    f"epoch {row['epoch']:2d}/{self.epochs}  training: loss {row['train_loss']:.3f}, "
                    f"{row['train_accuracy']:6.1%} right  validation: loss {row['val_loss']:.3f}, "
                    f"{row['val_accuracy']:6.1%} right",
                    flush=True,
                )


class Forecast(Callback):
    """Says, some steps into the first epoch that is trained, how many minutes the rest will take."""

    WARM, STEPS, LONG = 5, 25, 120.0  # steps before the clock starts, and timed; seconds worth a word
    clock = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self._start: float | None = None
        self._done = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Time some steps, once."""
        step = batch_idx + 1
        if self._done or not trainer.is_global_zero:
            return
        if step == self.WARM:
            self._start = self.clock()
        elif step == self.WARM + self.STEPS and self._start is not None:
            self._done = True
            each = (self.clock() - self._start) / self.STEPS
            left = each * (trainer.estimated_stepping_batches - trainer.global_step)
            if left > self.LONG:
                on = "the GPU" if pl_module.device.type == "cuda" else "the processor"
                print(f"about {left / 60:.0f} minutes to go on {on}, validation aside", flush=True)


@dataclass(frozen=True)
class Fit:
    """What `fit` gives.

    Attributes:
        model: the network with the weights of the epoch that was best on validation, in evaluation mode.
        history: one row an epoch: losses, accuracies (0–1), learning rate, seconds, images per second.
        folder: where checkpoints and `history.csv` are.
    """

    model: nn.Module
    history: pd.DataFrame
    folder: Path

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
    data: FaceData | None = None,
    resume: bool = False,
    progress: bool = False,
    verbose: bool = True,
    accelerator: str = "auto",
    devices: str | int | list[int] = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
    precision: str | None = None,
) -> Fit:
    """Train a network and return it as it was after its best epoch on validation.

    A checkpoint is written after each epoch. A run that was stopped goes on with ``resume=True`` and ends
    with the same weights as if it had not been stopped.

    Args:
        model: a network of `fer_utils.models`; build it after `lightning.seed_everything(recipe.seed)`.
        train: training faces.
        validation: faces on which the epoch is chosen.
        recipe: how to train.
        folder: for checkpoints (`last.ckpt`, `best.ckpt`), `recipe.json` and `history.csv`.
        targets: float32 (N, 6), a distribution over the classes for each training face that the loss aims
            at instead of the label; see `fer_utils.soft`. Or (N, 6 + answers): the further columns are a
            distribution, times the weight of its loss, that a second question aims at (multi-task learning,
            Caruana 1997). While it trains, the last layer has a unit for each answer, taken off at the end;
            a row of zeros asks nothing.
        data: what makes the batches; by default a `FaceData` of the faces and targets.
        resume: go on from `last.ckpt` if there is one.
        progress: show a text progress bar within each epoch.
        verbose: print a line after each epoch.
        accelerator: for `lightning.Trainer`.
        devices: for `lightning.Trainer`.
        num_nodes: for `lightning.Trainer`.
        strategy: for `lightning.Trainer`.
        precision: for `lightning.Trainer`; by default ``"16-mixed"`` on a GPU and ``"32-true"`` elsewhere.

    Raises:
        DataError: no images, or a resumed run whose recipe differs from the one it began with.
    """
    refuse_no_images(train, validation)
    keep_freed_memory()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    last = folder / "last.ckpt"
    on = {"accelerator": accelerator, "devices": devices, "num_nodes": num_nodes, "strategy": strategy}
    on["precision"] = precision or default_precision(accelerator)
    check_settings(model, recipe, on)
    if resume:
        check_recipe(folder, recipe)
    write_json(folder / "recipe.json", recipe.as_dict())
    if not resume:
        for old in (last, folder / "best.ckpt", folder / "history.csv"):
            old.unlink(missing_ok=True)
    history = History(folder / "history.csv", recipe.epochs, verbose)
    # `save_last` of one callback would write last.ckpt only after epochs that are the best so far.
    whole = {"save_on_train_epoch_end": True, "enable_version_counter": False}
    best = Checkpoint(folder, filename="best", monitor="val_accuracy", mode="max", **whole)
    latest = Checkpoint(folder, filename="last", **whole)
    callbacks: list[Callback] = [history, best, latest]
    if recipe.ema:
        callbacks.insert(0, EMAWeightAveraging(decay=recipe.ema))
    if verbose:
        callbacks.append(Forecast())
    if progress:
        callbacks.append(TQDMProgressBar(refresh_rate=20))
    with _quiet():
        trainer = L.Trainer(
            **on,
            max_epochs=recipe.epochs,
            gradient_clip_val=recipe.clip or None,
            limit_train_batches=recipe.batches or 1.0,
            callbacks=callbacks,
            enable_progress_bar=progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            logger=False,
            use_distributed_sampler=False,
        )
        data = data or FaceData(train, validation, recipe, targets)
        with _wider(model, data.train_faces.answers) as answers:
            # The memory layout in which oneDNN and cuDNN convolve fastest; results are the same.
            classifier = Classifier(model.to(memory_format=torch.channels_last), recipe, answers)
            start = last if resume and last.exists() else None
            trainer.fit(classifier, datamodule=data, ckpt_path=start, weights_only=True)
            state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
            model.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    return Fit(model.cpu().eval(), pd.DataFrame(history.rows), folder)


def last_layer(model: nn.Module) -> nn.Linear:
    """The layer that gives the logits."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


@contextmanager
def _wider(model: nn.Module, units: int) -> Iterator[int]:
    """Give a network's last layer so many more units, and take them off at the end, whatever happened."""
    last = last_layer(model)
    classes = last.out_features
    if units:
        new = nn.Linear(last.in_features, units)
        last.weight = nn.Parameter(torch.cat([last.weight.detach(), new.weight.detach()]))
        last.bias = nn.Parameter(torch.cat([last.bias.detach(), new.bias.detach()]))
        last.out_features += units
    try:
        yield units
    finally:
        if units:
            last.weight = nn.Parameter(last.weight.detach()[:classes].clone())
            last.bias = nn.Parameter(last.bias.detach()[:classes].clone())
            last.out_features = classes


def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step, instead of giving it back to the system.

    A step frees and asks for the same large blocks again and again; each time the system has to map and clear
    their pages anew, which took 5 to 30 % of the time of a step on a processor. Elsewhere nothing happens.
    """
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # malloc.h
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(m_mmap_threshold, 2**30)
            libc.mallopt(m_trim_threshold, 2**31 - 1)
            libc.mallopt(m_top_pad, 2**28)


def default_precision(accelerator: str = "auto") -> str:
    """Mixed half precision on a GPU, single precision elsewhere; in Lightning's words."""
    on_gpu = torch.cuda.is_available() and accelerator in ("auto", "gpu", "cuda")
    return "16-mixed" if on_gpu else "32-true"


def check_settings(model: nn.Module, recipe: Recipe, options: Mapping[str, Any]) -> None:
    """Refuse what a training could not begin with, before anything of an earlier run is removed for it.

    Args:
        model: the network.
        recipe: how to train it.
        options: as for `fit`; those for `lightning.Trainer` are looked at.

    Raises:
        ValueError: Lightning knows no such device, strategy or precision, or the recipe does not fit the
            network.
    """
    on = {name: options[name] for name in TRAINER if options.get(name) is not None}
    with _quiet():
        try:
            L.Trainer(**on, logger=False, enable_checkpointing=False)
        except (MisconfigurationException, RuntimeError) as error:
            raise ValueError(str(error)) from None
    make_optimizer(model, recipe)


def check_recipe(folder: Path, recipe: Recipe) -> None:
    """Refuse to go on with a run by another recipe than it began with.

    Args:
        folder: of the run; where it holds neither checkpoint nor weights, there is nothing to go on with.
        recipe: the one to go on by.

    Raises:
        DataError: they differ; names the fields.
    """
    path = folder / "recipe.json"
    begun = (folder / "last.ckpt").exists() or (folder / "model.safetensors").exists()
    if not begun or not path.exists():
        return
    now = json.loads(json.dumps(recipe.as_dict()))
    # A recipe from before a field was added had, in effect, that field's default.
    then = json.loads(json.dumps(Recipe().as_dict())) | json.loads(path.read_text(encoding="utf-8"))
    if then != now:
        changed = sorted(name for name in now if now[name] != then.get(name))
        raise DataError(
            f"the run began with another recipe ({', '.join(changed)} changed)",
            file=path,
            remedy="resume with the same settings, or start anew in another folder",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Lightning's notes on hardware and on loader workers: batches are ready without workers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        # Frozen layers are in evaluation mode on purpose.
        warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode at the start.*")
        try:
            yield
        finally:
            logger.setLevel(level)
