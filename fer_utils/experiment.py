"""An experiment from its name to its results file: what `fer train`, `fer evaluate` and the chapters call."""

import dataclasses
import hashlib
import inspect
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import lightning as L
import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_only
from sklearn.model_selection import StratifiedKFold
from torch import nn

from fer_utils.augment import Augment
from fer_utils.calibration import apply_bias, fit_bias
from fer_utils.datasets import ferplus, read_sources
from fer_utils.datasets.faceset import FaceSet
from fer_utils.datasets.merge import merge
from fer_utils.emotions import CLASSES, FOLDER_NAMES, DisgustRule
from fer_utils.errors import DataError
from fer_utils.evaluation import metrics, predict
from fer_utils.files import atomic_path, only_writer, sha256, write_json
from fer_utils.models import MODELS, FaceNet, build
from fer_utils.training import Fit, Recipe, check_same_run, default_precision, fit, last_layer, print_epoch
from fer_utils.weights import load_model, load_pretrained, save_checkpoint

Profile = Literal["demo", "full"]  # faces drawn by the package, or real data
Settings = dict[str, Any]

_POSTER = Augment(flip=0.5, degrees=10, shift=0.06, scale=0.1)
_BICUBIC = Augment(flip=0.5, degrees=12, shift=0.08, scale=0.12, interpolation="bicubic")
_LIT = dataclasses.replace(_BICUBIC, brightness=0.15, contrast=0.2)
_FULL = {
    "emonet": ({}, Recipe(epochs=12, lr=0.02, augment=_POSTER)),
    "easynet": ({}, Recipe(epochs=28, lr=0.02, augment=_BICUBIC)),
    "facenet": ({"freeze": 0.45, "head": [], "input_size": 128}, Recipe(epochs=12, lr=0.03, augment=_LIT)),
}
_SMALL = {"trunk": "easynet", "pretrained": "none", "trunk_width": 0.5, "head": [256, 64], "dropout": 0.2}
_DEMO = {
    "emonet": ({"width": 0.125}, Recipe(epochs=5, lr=0.02, augment=_POSTER)),
    "easynet": ({"widths": [16, 32, 64], "stride": 2, "image_size": 64}, Recipe(epochs=6, augment=_POSTER)),
    "facenet": (_SMALL, Recipe(epochs=8, batch_size=32, lr=0.03, augment=_POSTER)),
}
RECIPES: dict[Profile, dict[str, tuple[Settings, Recipe]]] = {"full": _FULL, "demo": _DEMO}
GPU_BATCHES = 4  # on a GPU a batch is so much larger, and the learning rate with it (Goyal et al. 2017)
TEACHING = 0.7  # weight of the teachers' probabilities beside the label
OTHERS = ("sources", "labels", "loss_weight", "teachers", "calibrated")  # settings of `train` itself
TRAINER = ("accelerator", "devices", "num_nodes", "strategy", "precision")  # settings for Lightning
STEPS = 2**16 - 1  # from 0 to 1, in the square roots of stored probabilities
# Where the six classes stand among the words of FER+.
SIX = [[FOLDER_NAMES.get(word, word) for word in ferplus.VOTES].index(name) for name in CLASSES]


def project_root() -> Path:
    """The checkout that holds the book, found from here upwards, or else the current folder (Colab)."""
    here = Path.cwd().resolve()
    return next((f for f in (here, *here.parents) if (f / "_toc.yml").exists()), here)


@dataclass(frozen=True)
class Workspace:
    """The folders of a profile."""

    profile: Profile
    data: Path  # root of the sources as their owners publish them
    build: Path  # for everything that can be made again: the merged set, runs, demo results
    results: Path  # of results files; for the full profile, `book/results`

    @property
    def faceset(self) -> Path:
        """Folder of the merged set."""
        return self.build / "faceset"

    @property
    def runs(self) -> Path:
        """Folder of the training runs."""
        return self.build / "runs"

    def faces(self, *, again: bool = False) -> FaceSet:
        """Open the merged set; draw and merge demo faces first if there are none, or `again`."""
        if self.profile == "demo":
            self.build.mkdir(parents=True, exist_ok=True)
            with FileLock(self.build / "faces.lock"):  # `make book` runs two chapters at once
                if again or not (self.faceset / "manifest.json").exists():
                    from fer_utils.demo.layouts import write_demo

                    # The manifest first: what is killed from here on begins anew.
                    (self.faceset / "manifest.json").unlink(missing_ok=True)
                    for old in (self.faceset, self.data):
                        shutil.rmtree(old, ignore_errors=True)
                    write_demo(self.data)
                    merge(read_sources(self.data), self.faceset, progress=False)
        return FaceSet.open(self.faceset)


def workspace(profile: Profile = "demo") -> Workspace:
    """The folders of a profile; `FER_DATA` and `FER_BUILD` name others than the project's `data`, `build`."""
    if profile not in ("demo", "full"):
        raise ValueError(f"PROFILE is {profile!r}; it can be 'demo' or 'full'")
    root, get = project_root(), os.environ.get
    build = root / get("FER_BUILD", "build") / profile
    if profile == "demo":
        return Workspace(profile, build / "data", build, build / "results")
    return Workspace(profile, root / get("FER_DATA", "data"), build, root / "book" / "results")


def recipe_for(network: str, profile: Profile) -> tuple[Settings, Recipe]:
    """Options of a network, and the recipe to train it with on the device that is there."""
    if network not in RECIPES[profile]:
        raise ValueError(f"no network is called {network!r}; there are {', '.join(RECIPES[profile])}")
    options, recipe = RECIPES[profile][network]
    if profile == "full" and default_precision() != "32-true":
        batch, lr = GPU_BATCHES * recipe.batch_size, GPU_BATCHES * recipe.lr
        recipe = dataclasses.replace(recipe, batch_size=batch, lr=lr)
    return options, recipe


def processor_features() -> dict[str, Any]:
    """What the processor can do, by PyTorch's names; empty in versions of PyTorch that do not say."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def precision_for(profile: Profile) -> str:
    """The precision to train real data with: half where the device computes in it; in Lightning's words."""
    able, usual = processor_features(), default_precision()
    half = able.get("amx_bf16") or able.get("avx512_bf16")
    return "bf16-mixed" if half and (profile, usual) == ("full", "32-true") else usual


def changed(network: str, options: Settings, recipe: Recipe, settings: Settings) -> tuple[Settings, Recipe]:
    """Options and recipe with some settings changed; ``augment.x`` is the field `x` of the augmentation."""
    fields = {field.name for field in dataclasses.fields(Recipe)}
    inner = {f"augment.{field.name}" for field in dataclasses.fields(Augment)}
    own = set(inspect.signature(MODELS[network]).parameters)
    for name, value in settings.items():
        if name not in fields | inner | own:
            known = ", ".join(sorted({*fields, *inner, *own, *OTHERS, *TRAINER}))
            raise ValueError(f"{network} has no setting {name!r}; it has {known}")
        change = {name.removeprefix("augment."): value}
        try:
            if name in own:
                options = options | change
            else:
                if name in inner:
                    change = {"augment": dataclasses.replace(recipe.augment or Augment(), **change)}
                recipe = dataclasses.replace(recipe, **change)
        except TypeError:
            raise ValueError(f"{name} cannot be {value!r}") from None
    return options, recipe


def train(
    space: Workspace,
    network: str,
    *,
    seed: int = 0,
    name: str | None = None,
    sources: Sequence[str] | None = None,
    labels: Literal["own", "ferplus", "both"] = "own",
    loss_weight: float = 1.0,
    teachers: Sequence[str] = (),
    calibrated: bool = False,
    resume: bool = False,
    verbose: bool = True,
    **settings: Any,
) -> Fit:
    """Train a network on the merged set, by its recipe and the settings that differ from it.

    Writes `runs/<name>/`: `run.json`, `history.csv`, checkpoints and `model.safetensors`, the half-precision
    weights of the best epoch.

    Args:
        space: gives the profile, the merged set and the folder of runs.
        network: ``"emonet"``, ``"easynet"`` or ``"facenet"``.
        seed: of weights, order, augmentation and dropout.
        name: of the run; by default `<network>-seed<seed>`.
        sources: train, and choose the epoch, on these only.
        labels: ``"ferplus"``: train on the votes of FER+; ``"both"``: predict them as an auxiliary task.
        loss_weight: of the auxiliary task; with ``"ferplus"``, of the votes beside the label, 0–1.
        teachers: names of runs whose mean probabilities are targets beside the labels (distillation).
        calibrated: fit scale and biases of the last layer on validation.
        resume: go on from the last checkpoint; a finished run is loaded.
        verbose: print a line after each epoch.
        **settings: fields of `Recipe`, ``augment.degrees`` and the like, options of the network, `TRAINER`.
    """
    if labels not in ("own", "ferplus", "both") or (teachers and labels == "ferplus"):
        raise ValueError(f"labels is {labels!r}; it can be own, ferplus (without teachers) or both")
    options, recipe = recipe_for(network, space.profile)
    trainer = {key: settings.pop(key) for key in TRAINER if key in settings}
    options, recipe = changed(network, options, dataclasses.replace(recipe, seed=seed), settings)
    faces = space.faces()
    if sources is not None:
        faces = faces.where(faces.index["source"].isin(sources).to_numpy())
    L.seed_everything(seed, verbose=False)
    try:
        model = build(network, **options)
    except (TypeError, IndexError, RuntimeError) as error:  # what torch says of options that do not fit
        raise ValueError(f"{network} cannot be built with {options}: {error}") from None
    if isinstance(model, FaceNet):
        load_pretrained(model, faces.split("train").images)
    name = name or f"{network}-seed{seed}"
    folder, splits = space.runs / name, [faces.split(split) for split in ("train", "validation")]
    targets, noted = soft_targets(space, splits[0], labels, loss_weight, teachers)
    about = noted | {
        "name": name,
        "profile": space.profile,
        "model": describe(network, model),
        "recipe": dataclasses.asdict(recipe),
        "merged": faces.manifest["checksums"],
        "trained_on": sorted(set(faces.index["source"])),
        "calibrated": calibrated,
        "precision": trainer.setdefault("precision", precision_for(space.profile)),
        "revision": revision(),
    }
    if resume and (folder / "model.safetensors").exists():
        check_same_run(folder, about)
        return load_run(space, name, verbose=verbose)
    how = {"targets": targets, "about": about, "resume": resume, "verbose": verbose} | trainer
    # Of several processes one writes. Lightning knows which only once it trains.
    other = any(int(os.environ.get(rank, 0)) for rank in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    with nullcontext() if other else only_writer(folder):
        done = fit(model, *splits, recipe, folder, **how)
        if rank_zero_only.rank == 0:
            if calibrated:
                write_json(folder / "calibration.json", calibrate(done.model, splits[1]))
            header = about | {"network": network, "options": model.options}
            save_checkpoint(done.model, folder / "model.safetensors", header)
    return done


def describe(network: str, model: nn.Module) -> dict[str, Any]:
    """What a run notes of its network: name, options, and numbers of parameters, all and trained."""
    return {
        "name": network,
        "options": model.options,
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def load_run(space: Workspace, name: str, *, verbose: bool = False) -> Fit:
    """Load a finished run, trained on this merged set; `verbose` prints its learning curve."""
    folder = space.runs / name
    check_same_dataset(folder, space.faces())
    if not (folder / "model.safetensors").is_file():
        remedy = f"run `fer train … --name {name}`, with --resume if it was stopped"
        raise DataError("there is no such run, or it has not finished", file=folder, remedy=remedy)
    history = pd.read_csv(folder / "history.csv")
    for row in history.to_dict("records") if verbose else ():
        print_epoch(row, len(history))
    return Fit(load_model(folder / "model.safetensors"), history, folder)


def check_same_dataset(folder: Path, faces: FaceSet) -> None:
    """Raise DataError where the run of a folder was trained on another merged set than this."""
    path = folder / "run.json"
    if path.exists() and json.loads(path.read_text())["merged"] != faces.manifest["checksums"]:
        problem = "the run was trained on another merged set: its training images may be test images now"
        raise DataError(problem, file=path, remedy="train it again, or merge as before")


def votes_on(index: pd.DataFrame, root: Path, disgust: DisgustRule = "drop") -> np.ndarray:
    """Join the votes of FER+, below a root with FER2013, to the faces of an index by their origin.

    Returns int64 (N, 10), in the order of `ferplus.VOTES`, with zeros where nobody voted; with disgust angry,
    as in the merge, its votes count for anger. Raises DataError if another FER2013 was merged.
    """
    if (path := ferplus.find(root)) is None:
        raise DataError("FER+'s votes are not below this folder", file=root, remedy=ferplus.HOW_TO_GET)
    source = read_sources(root, ["fer2013"])[0]
    table = ferplus.read(path, source).assign(label=source.table["emotion"])
    mine = (index["source"] == "fer2013").to_numpy()
    rows = table.set_axis(source.table["origin"]).reindex(index.loc[mine, "origin"])
    if list(rows["label"]) != list(index.loc[mine, "emotion"]):
        remedy = "merge again with `fer merge`, or bring the older file back"
        raise DataError("the faces were merged from another file of FER2013", file=root, remedy=remedy)
    if disgust == "angry":
        rows = rows.assign(anger=rows["anger"] + rows["disgust"], disgust=0)
    counts = np.zeros((len(index), len(ferplus.VOTES)), np.int64)
    counts[mine] = rows[list(ferplus.VOTES)].to_numpy()
    return counts


def vote_shares(counts: np.ndarray) -> np.ndarray:
    """Shares of votes, float64 (N, 7): of the six classes, and of all other words; zeros without votes."""
    six, total = counts[:, SIX], counts.sum(1, keepdims=True)
    return np.hstack([six, total - six.sum(1, keepdims=True)]) / np.maximum(total, 1)


def soft_labels(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Distributions to train on, float32 (N, 6): the votes; those for other words go to the label."""
    shares, own = vote_shares(counts)[:, :6], np.eye(len(CLASSES))[labels]
    return (shares + (1 - shares.sum(1, keepdims=True)) * own).astype(np.float32)


def soft_targets(
    space: Workspace, training: FaceSet, labels: str, loss_weight: float, teachers: Sequence[str]
) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Targets for `fit` from teachers and votes, none for the labels alone, and what a run notes of them."""
    own = targets = np.eye(len(CLASSES))[training.labels]
    noted: dict[str, Any] = {"teachers": None, "labels": None}
    if teachers:
        tables = {name: teacher_predictions(space, name, training) for name in teachers}
        mean = np.mean([table.to_numpy() for table in tables.values()], axis=0, dtype=np.float32)
        targets = (1 - TEACHING) * own + TEACHING * mean
        checkpoints = {name: table.attrs["checkpoint"] for name, table in tables.items()}
        noted["teachers"] = {"share": TEACHING, "checkpoints": checkpoints}
    if labels != "own":
        counts = votes_on(training.index, space.data, training.manifest["disgust"])
        votes = sha256(ferplus.find(space.data))
        noted["labels"] = {"kind": labels, "share": float(loss_weight), "votes": votes}
        if labels == "ferplus":
            targets = (1 - loss_weight) * own + loss_weight * soft_labels(training.labels, counts)
        else:
            targets = np.hstack([targets, loss_weight * vote_shares(counts)])
    return (targets if teachers or labels != "own" else None), noted


def teacher_predictions(space: Workspace, name: str, faces: FaceSet) -> pd.DataFrame:
    """What a run predicts for faces averaged with their mirror images, for distillation (Hinton et al. 2015).

    They are kept with the results, so that the next student does not need the teacher's weights. A
    cross-validation (`crossfit/…`) has none and keeps these alone.
    """
    check_same_dataset(space.runs / name, faces)
    weights, images = space.runs / name / "model.safetensors", fingerprint(faces.index)
    checkpoint = sha256(weights) if weights.is_file() else None
    with suppress(DataError):
        kept = read_predictions(space.results, name, "train")
        if kept.attrs["images"] == images and checkpoint in (None, kept.attrs["checkpoint"]):
            return kept
    with torch.random.fork_rng(devices=[]):  # the student's random numbers must not move
        probabilities = predict(load_run(space, name).model, faces, flip=True)
    write_predictions(space.results, name, "train", faces.index, str(checkpoint), flip=probabilities)
    return read_predictions(space.results, name, "train")


def calibrate(model: nn.Module, validation: FaceSet) -> dict[str, Any]:
    """Fit scale and biases of a network's last layer on validation, change it by them, and return them.

    The accuracy after it is cross-validated: on the very images of the fit it would be too high.
    """
    labels, probabilities = validation.labels, predict(model, validation)
    corrected = np.empty_like(labels)
    folds = StratifiedKFold(min(10, max(2, np.bincount(labels).min())), shuffle=True, random_state=0)
    for fitted, judged in folds.split(labels, labels):
        parameters = fit_bias(labels[fitted], probabilities[fitted])
        corrected[judged] = apply_bias(probabilities[judged], *parameters).argmax(1)
    scale, biases = fit_bias(labels, probabilities)
    last = last_layer(model)
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.mul_(scale).add_(torch.from_numpy(biases).to(last.bias))
    accuracy = {"before": probabilities.argmax(1), "after, cross-validated": corrected}
    accuracy = {name: float(np.mean(answers == labels)) for name, answers in accuracy.items()}
    return {"images": len(labels), "scale": scale, "biases": biases.tolist(), "accuracy": accuracy}


@dataclass(frozen=True)
class Result:
    """A results file: how a run was trained, and its scores by split and variant."""

    name: str  # of the run; its file is <name>.json below the folder of results
    profile: str
    date: str
    model: dict[str, Any]  # name, options, parameters, trained_parameters
    recipe: dict[str, Any]  # fields of `Recipe`
    data: dict[str, Any]  # faceset (checksum), sources, trained_on, splits (images by "split/source")
    revision: str
    packages: dict[str, str]
    processor: str
    training_seconds: float
    images_per_second: float
    checkpoint: str  # SHA-256 of the weights
    learning_curve: list[dict[str, float]]
    validation: dict[str, dict[str, Any]]  # `metrics` by variant: fer2013, fer2013+flip, …
    test: dict[str, dict[str, Any]] = field(default_factory=dict)  # empty where it was not read
    precision: str = "32-true"
    processes: int = 1  # that shared the images; each took `batch_size` a step
    protocol: dict[str, Any] = field(default_factory=lambda: {"disgust": "drop", "other_splits": []})
    teachers: dict[str, Any] | None = None
    labels: dict[str, Any] | None = None
    calibrated: dict[str, Any] | None = None
    command: str | None = None  # that trained it, where it was not `fer train`

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Make a result of plain values, leaving out what is no field; TypeError if one is missing."""
        return cls(**{f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values})


def read_result(path: Path) -> Result:
    """Read a results file; raise DataError where it is missing, is not JSON, or lacks a field."""
    try:
        return Result.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError("there is no such results file", file=path, remedy="run `fer evaluate`") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"not a results file ({error})", file=path, remedy="write it again") from None


def settings_of(result: Result) -> Settings:
    """All settings of `train`, the seed among them, that make a run again by its results file.

    Raises ValueError where another command trained it.
    """
    if result.command:
        raise ValueError(f"{result.name} was trained by `{result.command}`, which repeats it")
    usual = dataclasses.asdict(Recipe())  # for fields that recipes once had not; others they once had
    settings = {name: result.recipe.get(name, value) for name, value in usual.items()}
    if settings["augment"] is not None:
        augment = usual["augment"] | settings.pop("augment")
        settings |= {f"augment.{name}": value for name, value in augment.items()}
    settings |= result.model["options"] | {"precision": result.precision}
    if result.processes > 1:
        settings["devices"] = result.processes
    if set(result.data["trained_on"]) != set(result.data["sources"]):
        settings["sources"] = result.data["trained_on"]
    if result.labels:
        settings |= {"labels": result.labels["kind"], "loss_weight": result.labels["share"]}
    if result.teachers:
        settings["teachers"] = list(result.teachers["checkpoints"])
    return settings | ({"calibrated": True} if result.calibrated else {})


def evaluate(space: Workspace, name: str, *, test: bool = False) -> Result:
    """Score a run on validation, and on the test split if asked; write and return its results file.

    The test split is read once for a finished run: where the results file already holds the test scores of
    these very weights and faces, they are kept and the test images are not touched, unless the predictions
    are missing or another network's. A run of another merged set is refused.
    """
    run, faces = load_run(space, name), space.faces()
    about = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    checkpoint, path = sha256(run.folder / "model.safetensors"), space.results / f"{name}.json"
    if test and not len(faces.split("test")):
        raise DataError("the merged set has no test images", file=faces.path)
    sources = faces.manifest["sources"]
    data = {
        "faceset": sha256(faces.path / "manifest.json"),
        "sources": {source["name"]: source["checksums"] for source in sources},
        "trained_on": about.pop("trained_on"),
        "splits": (faces.index["split"] + "/" + faces.index["source"]).value_counts(sort=False).to_dict(),
    }
    others = [source["name"] for source in sources if not source.get("own_splits", True)]
    notes = {source["name"]: source["notes"] for source in sources if source["notes"]}
    before: dict[str, Any] = {}
    with suppress(DataError):
        known = read_result(path)
        # A manifest may say more than that of another version about the same faces.
        same = (known.checkpoint, known.data | {"faceset": data["faceset"]}) == (checkpoint, data)
        kept = {"checkpoint": checkpoint, "images": fingerprint(faces.split("test").index)}
        if same and (not test or read_predictions(space.results, name, "test").attrs == kept):
            before = known.test
    if about.pop("calibrated"):
        about["calibrated"] = json.loads((run.folder / "calibration.json").read_text(encoding="utf-8"))
    result = Result.from_json(
        {"packages": packages(), "processor": processor()}  # unless the run notes where it was trained
        | about
        | {
            "date": datetime.now(UTC).date().isoformat(),
            "data": data,
            "protocol": {"disgust": faces.manifest["disgust"], "other_splits": others, "notes": notes},
            "training_seconds": round(float(run.history["seconds"].sum()), 1),
            "images_per_second": round(float(run.history["images_per_second"].median()), 1),
            "checkpoint": checkpoint,
            "learning_curve": run.history.to_dict("records"),
            "validation": score(space, name, run.model, checkpoint, "validation"),
            "test": score(space, name, run.model, checkpoint, "test") if test and not before else before,
        }
    )
    write_json(path, dataclasses.asdict(result))
    return result


def score(space: Workspace, name: str, model: nn.Module, checkpoint: str, split: str) -> dict[str, Any]:
    """Score a network on one split, source by source, and keep what it predicted.

    The variants beside `<source>` are `+flip`, with the mirror image averaged; `+ten-crop`, which takes long,
    for the test split alone; and `-deduplicated`, without exact copies of images of earlier splits.
    """
    part = space.faces().split(split)
    views = {"": predict(model, part), "+flip": predict(model, part, flip=True)}
    write_predictions(space.results, name, split, part.index, checkpoint, p=views[""], flip=views["+flip"])
    if split == "test":
        views["+ten-crop"] = predict(model, part, ten_crop=True)
    scores, fresh = {}, ~part.index["seen_copy"].to_numpy()
    for source, rows in sorted(part.index.groupby("source", observed=True).indices.items()):
        chosen = {variant: (probabilities, rows) for variant, probabilities in views.items()}
        if 0 < fresh[rows].sum() < len(rows):
            chosen["-deduplicated"] = views[""], rows[fresh[rows]]
        for variant, (probabilities, some) in chosen.items():
            people = part.index["subject"].iloc[some]
            people = None if people.isna().any() else people.to_numpy(str)
            scores[source + variant] = metrics(part.labels[some], probabilities[some], people)
    return scores


def fingerprint(index: pd.DataFrame) -> str:
    """SHA-256 of the hashes of some images in their order: what a set of images is known by."""
    return hashlib.sha256("".join(index["hash"]).encode()).hexdigest()


def write_predictions(
    results: Path, name: str, split: str, index: pd.DataFrame, checkpoint: str, **variants: np.ndarray
) -> None:
    """Keep what a run predicted, `p` and, or, `flip`, float (N, 6), in `predictions/<name>-<split>.npz`.

    Square roots are rounded to 16 bits, since averages over runs have near ties that half precision would
    turn. The images' index is kept once for all runs, in `<split>.parquet`, but for the training split.
    """
    kept = {}
    for variant, probabilities in variants.items():
        best = probabilities.argmax(1)
        roots = np.round(np.sqrt(probabilities) * STEPS).astype(np.uint16)
        # Rounding may make a tie of the two highest: the higher one stays the higher.
        rows = np.flatnonzero(roots.argmax(1) != best)
        roots[rows, best[rows]] += 1
        kept[variant] = np.ascontiguousarray(roots.T)
    path, images = results / "predictions" / f"{name}-{split}.npz", fingerprint(index)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, checkpoint=checkpoint, images=images, **kept)
    if split != "train":
        table = index.drop(columns="hash").reset_index(drop=True)
        table.attrs = {"images": images}
        with atomic_path(results / "predictions" / f"{split}.parquet") as aside:
            table.to_parquet(aside, index=False)


def read_predictions(results: Path, name: str, split: str) -> pd.DataFrame:
    """Read what a run predicted, one row an image; DataError if nothing is kept, or on another merged set.

    Columns are those of `FaceSet.index` but `hash` (none for ``"train"``), and float32 ``p_<class>`` and
    ``flip_<class>``; `attrs` hold `checkpoint` and `images` (`fingerprint`).
    """
    folder = results / "predictions"
    path = folder / f"{name}-{split}.npz"
    remedy = f"run `fer evaluate {name}{' --test' if split == 'test' else ''}`"
    if not path.is_file():
        raise DataError("no predictions are kept", file=path, remedy=remedy)
    images, file = None, path
    try:
        with np.load(file) as arrays:
            attrs = {key: str(arrays[key]) for key in ("checkpoint", "images")}
            kept = {v: np.square(arrays[v] / np.float32(STEPS)) for v in arrays if v not in attrs}
        table = pd.DataFrame({f"{v}_{c}": p[i] for v, p in kept.items() for i, c in enumerate(CLASSES)})
        if split != "train":
            file = folder / f"{split}.parquet"
            images = pd.read_parquet(file)
            same = images.attrs["images"] == attrs["images"]
    except Exception as error:  # zip, zlib, NumPy and Arrow have errors of many kinds
        raise DataError(f"the predictions are damaged ({error})", file=file, remedy=remedy) from None
    if images is not None:
        if not same:
            raise DataError("the predictions are on images of another merged set", file=path, remedy=remedy)
        table = pd.concat([images, table], axis=1)
    table.attrs = attrs
    return table


def revision() -> str:
    """The commit of the code, with ``+changes`` where the checkout differs from it, or ``"unknown"``."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], stderr=subprocess.PIPE)
        clean = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "."]).returncode == 0
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.decode().strip() + ("" if clean else "+changes")


def packages() -> dict[str, str]:
    """Versions of the packages that results depend on."""
    names = ("torch", "torchvision", "lightning", "numpy", "facenet-pytorch")
    return {name: version(name) for name in names}


def processor() -> str:
    """The processor's own name where the system gives it."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    named = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    return named[1].strip() if named else platform.processor() or platform.machine()
