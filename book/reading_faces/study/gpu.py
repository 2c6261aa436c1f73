"""What do long schedules and an ensemble of teachers bring? `python -m reading_faces.study.gpu`.

For whoever has a data-centre GPU for a quarter of an hour. ``pack FILE`` writes FER2013's training and
validation faces and FER+'s votes, but no test face, to a file that travels. There, ``train FILE FOLDER``
trains as many of `CONFIGURATIONS`, in their order, as fit the ``--minutes``, each in a folder of its own; the
next call goes on with what is missing. At home, ``collect FOLDER`` makes runs of them, for `fer evaluate`.
"""

import argparse
import io
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from fer_utils import experiment
from fer_utils.augment import Augment
from fer_utils.datasets import ferplus, read_sources
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.faces import resize
from fer_utils.files import atomic_path, sha256
from fer_utils.models import MODELS, FaceNet, build, inputs
from fer_utils.training import Classifier, Recipe, fit
from fer_utils.weights import load_pretrained, save_checkpoint

SOURCE, SIDE = "fer2013", 48  # pixels
TEACHERS = 3  # so many of the best on validation


@dataclass(frozen=True)
class Configuration:
    """A network to train on labels and votes."""

    network: str  # of `fer_utils.models`, or of `FromScratch`
    options: dict[str, Any]
    recipe: Recipe
    taught: bool = False  # by an ensemble that answers the very batches that it sees


_MOVED = Augment(degrees=12, shift=0.08, scale=0.12, erase=0.25, interpolation="bicubic")
_LIT = replace(_MOVED, brightness=0.15, contrast=0.2)
_LONG = Recipe(epochs=40, batch_size=256, lr=0.12, mixup=0.2, augment=_LIT)
_SCRATCH = replace(_LONG, epochs=80, lr=0.08)
_SMALL = replace(_LONG, epochs=90, lr=0.08, label_smoothing=0.0, augment=_MOVED)
_FACENET, _NARROW = {"head": [], "input_size": 160}, {"widths": [16, 32, 64], "dropout": 0.1}
_PUPILS = {
    "facenet-consistent": Configuration("facenet", _FACENET, replace(_LONG, label_smoothing=0.0), True),
    "easynet-consistent": Configuration("easynet", {}, _SMALL, True),
    "easynet-narrow": Configuration("easynet", _NARROW, _SMALL, True),
}
CONFIGURATIONS = {  # in order of value; the last ones may teach another time
    "facenet-long-160": Configuration("facenet", _FACENET, _LONG),
    "vgg-48": Configuration("vgg", {"side": 48}, _SCRATCH),
    "vgg-64": Configuration("vgg", {"side": 64}, replace(_SCRATCH, seed=1)),
    **{
        f"{name}-seed{seed}": replace(pupil, recipe=replace(pupil.recipe, seed=seed))
        for seed in range(3)
        for name, pupil in _PUPILS.items()
    },
    "facenet-long-192": Configuration("facenet", _FACENET | {"input_size": 192}, _LONG),
    "resnet50-96": Configuration("resnet50", {"side": 96}, _SCRATCH),
}


class FromScratch(nn.Module):
    """A network with random weights on faces of `side` pixels: ``"vgg"``, or one of timm by its name.

    The VGG has the 13 convolutions of VGG-16 (Simonyan & Zisserman 2015), with batch normalisation, and the
    mean over the image in place of the last pooling and the layers of 4096.
    """

    def __init__(self, network: str, side: int) -> None:
        super().__init__()
        self.options, self.side, self.standardise = {"side": side}, side, inputs.Standardise()
        if network == "vgg":
            features = make_layers(cfgs["D"][:-1], batch_norm=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
            self.body = nn.Sequential(*features, nn.Dropout(0.5), nn.Linear(512, len(CLASSES)))
        else:
            import timm  # which not every machine has

            self.body = timm.create_model(network, num_classes=len(CLASSES), drop_rate=0.3)

    def forward(self, images: Tensor) -> Tensor:
        """Logits, float (B, 6), of grey images, float (B, 1, 64, 64) of 0–1."""
        return self.body(self.standardise(inputs.resize(images, self.side)).expand(-1, 3, -1, -1))


def pack(file: Path, space: experiment.Workspace) -> None:
    """Write FER2013's training and validation faces, as one lossless picture, with labels, splits and votes.

    Raises DataError where votes are missing, or other faces were merged than those of the data.
    """
    faces = space.faces()
    faces = faces.where((faces.index["split"].ne("test") & faces.index["source"].eq(SOURCE)).to_numpy())
    votes = experiment.votes_on(faces.index, space.data, faces.manifest["disgust"])
    source = read_sources(space.data, [SOURCE])[0]
    rows = pd.Index(source.table["origin"]).get_indexer(faces.index["origin"])
    images = np.stack([source.images[row] for row in rows])
    if not np.array_equal(resize(images), faces.images):
        raise DataError("other faces were merged than these", file=space.data, remedy="run `fer merge`")
    Image.fromarray(images.reshape(-1, SIDE)).save(picture := io.BytesIO(), "PNG", optimize=True)
    labels = {"kind": "both", "share": 1.0, "votes": sha256(ferplus.find(space.data))}
    about = {"profile": space.profile, "labels": labels, "revision": experiment.revision()}
    about |= {"merged": faces.manifest["checksums"], "trained_on": [SOURCE], "calibrated": False}
    table, votes = np.void(faces.index[["label", "split"]].to_parquet(index=False)), votes.astype(np.uint8)
    with atomic_path(file) as aside, aside.open("wb") as out:
        np.savez(out, about=json.dumps(about), picture=np.void(picture.getvalue()), index=table, votes=votes)
    print(f"{len(images):,} faces, none of them a test face: {file}, {file.stat().st_size / 2**20:.1f} MiB")


def unpack(file: Path) -> tuple[dict[str, Any], FaceSet, np.ndarray]:
    """What a run notes of the data, the faces, and targets, float64 (N, 13): label and shares of votes."""
    with np.load(file) as stored:
        about, votes = json.loads(str(stored["about"])), stored["votes"].astype(int)
        picture, table = (io.BytesIO(stored[name].tobytes()) for name in ("picture", "index"))
    images, index = np.asarray(Image.open(picture)).reshape(-1, SIDE, SIDE), pd.read_parquet(table)
    faces = FaceSet(file, resize(images), index, {"checksums": about["merged"]}, np.arange(len(index)))
    return about, faces, np.hstack([np.eye(len(CLASSES))[faces.labels], experiment.vote_shares(votes)])


class Pupil(Classifier):
    """A classifier whose teachers, if any, answer the very batch that it sees (Beyer et al. 2022)."""

    def __init__(self, *arguments: Any, teachers: list[nn.Module]) -> None:
        super().__init__(*arguments)
        self.teachers = teachers  # in a list, they are not part of it

    def mix(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Put what the teachers predict for the mixed images beside the labels."""
        images, targets = super().mix(images, targets)
        if self.teachers:
            with torch.no_grad():
                answers = torch.stack([teacher(images).softmax(1) for teacher in self.teachers]).mean(0)
            own, votes = targets.tensor_split([len(CLASSES)], 1)
            targets = torch.cat([(1 - experiment.TEACHING) * own + experiment.TEACHING * answers, votes], 1)
        return images, targets


class Deadline(Callback):
    """Stops a training that cannot end in time."""

    def __init__(self, until: float) -> None:
        self.until, self.ends = until, []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Raise TimeoutError if the second epoch took too long; the first one always takes longer."""
        self.ends.append(time.monotonic())
        if len(self.ends) == 2:
            left, epochs = self.until - self.ends[1], trainer.max_epochs - trainer.current_epoch - 1
            if (needed := epochs * (self.ends[1] - self.ends[0])) > left:
                raise TimeoutError(f"it would take {needed:.0f} s more, and {left:.0f} s are left")


def best_teachers(out: Path) -> list[str]:
    """Names of networks that teach: those of a pupil that has begun, or else the best that have ended."""
    for run in sorted(out.glob("*/run.json")):
        if taught := json.loads(run.read_text())["teachers"]:
            return list(taught["checkpoints"])
    ended = [path.parent for path in out.glob("*/probabilities.npz")]
    best = {run.name: pd.read_csv(run / "history.csv")["val_accuracy"].max() for run in ended}
    if not best:
        raise DataError("there is no network that could teach", file=out, remedy="train another one first")
    return sorted(best, key=best.get)[-TEACHERS:]


def make(network: str, options: dict[str, Any], weights: Path | None = None) -> nn.Module:
    """Make a network of the package, or one from scratch; with weights, to teach on the device."""
    model = build(network, **options) if network in MODELS else FromScratch(network, **options)
    if weights is not None:
        model.load_state_dict(load_file(weights))
        model.eval().to("cuda" if torch.cuda.is_available() else "cpu", memory_format=torch.channels_last)
    return model


def train(name: str, data: tuple[dict, FaceSet, np.ndarray], out: Path, until: float) -> None:
    """Train a configuration on what `unpack` gives, or go on with it, into a folder of that name.

    `probabilities.npz` comes last: float16 `train` and `validation`, (N, 6), averaged with mirror images, and
    `checkpoint`, the SHA-256 of the weights. Raises TimeoutError if time, of `time.monotonic`, will not do.
    """
    asked, (about, faces, targets), folder = CONFIGURATIONS[name], data, out / name
    parts = {split: faces.split(split) for split in ("train", "validation")}
    names, gpu = best_teachers(out) if asked.taught else [], torch.cuda.is_available()
    L.seed_everything(asked.recipe.seed, verbose=False)
    model = make(asked.network, asked.options)
    if isinstance(model, FaceNet):
        load_pretrained(model, parts["train"].images)
    files = {name: out / name / "model.safetensors" for name in names}
    teachers = [make(CONFIGURATIONS[n].network, CONFIGURATIONS[n].options, files[n]) for n in names]
    checkpoints = {name: sha256(file) for name, file in files.items()}
    about = about | {
        "name": name,
        "model": experiment.describe(asked.network, model),
        "teachers": {"share": experiment.TEACHING, "checkpoints": checkpoints} if names else None,
        "precision": "bf16-mixed" if gpu else "32-true",
        "packages": experiment.packages(),
        "processor": torch.cuda.get_device_name() if gpu else experiment.processor(),
        "command": f"python -m reading_faces.study.gpu train FILE FOLDER --only {' '.join([*names, name])}",
    }
    run = fit(
        model,
        *parts.values(),
        asked.recipe,
        folder,
        targets=targets[(faces.index["split"] == "train").to_numpy()],
        about=about,
        resume=True,
        verbose=False,
        classifier=lambda *arguments: Pupil(*arguments, teachers=teachers),
        callbacks=[Deadline(until)],
        precision=about["precision"],
        benchmark=gpu,
    )
    weights = folder / "model.safetensors"
    save_checkpoint(model, weights, about | {"network": asked.network, "options": model.options})
    answers = {split: predict(model, part, flip=True).astype(np.float16) for split, part in parts.items()}
    with atomic_path(folder / "probabilities.npz") as aside, aside.open("wb") as file:
        np.savez_compressed(file, checkpoint=sha256(weights), **answers)
    for checkpoint in folder.glob("*.ckpt"):
        checkpoint.unlink()
    print(f"{name}: {run.best['val_accuracy']:.1%}, {run.best['images_per_second']:.0f} images/s", flush=True)


def collect(out: Path, space: experiment.Workspace) -> None:
    """Make runs of what `train` wrote, and keep what they predict of training faces, so that all can teach.

    Raises DataError where they were trained on another merged set.
    """
    faces = space.faces()
    for folder in sorted(path.parent for path in out.glob("*/probabilities.npz")):
        experiment.check_same_dataset(folder, faces)
        with np.load(folder / "probabilities.npz") as kept:
            checkpoint, answers = str(kept["checkpoint"]), kept["train"].astype(np.float32)
        index, run = faces.split("train", SOURCE).index, space.runs / folder.name
        experiment.write_predictions(space.results, run.name, "train", index, checkpoint, flip=answers)
        if json.loads((folder / "run.json").read_text())["model"]["name"] in MODELS:
            shutil.copytree(folder, run, dirs_exist_ok=True)
            print(f"fer evaluate {run.name} --test")


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack, train or collect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("pack", "train", "collect"))
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE|FOLDER")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=CONFIGURATIONS)
    asked = parser.parse_args(arguments)
    if asked.step != "train":
        return {"pack": pack, "collect": collect}[asked.step](*asked.paths, experiment.workspace("full"))
    until, (file, out) = time.monotonic() + 60 * asked.minutes, asked.paths
    data = unpack(file)
    for name in asked.only:
        if not (out / name / "probabilities.npz").exists() and time.monotonic() < until:
            try:
                train(name, data, out, until)
            except (OSError, ValueError, RuntimeError, ImportError) as reason:  # TimeoutError, DataError
                print(f"{name} is left out: {reason!r}", flush=True)


if __name__ == "__main__":
    main()
