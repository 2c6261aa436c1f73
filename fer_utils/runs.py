"""A training run from its name to its results file: what `fer train` and the chapters call."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import lightning as L
import numpy as np
import pandas as pd
from filelock import FileLock
from torch import nn

from fer_utils import results, soft
from fer_utils.augment import Augment
from fer_utils.datasets.base import read_grey
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.faces import FaceDetector, face_image
from fer_utils.files import sha256, write_json, write_table
from fer_utils.models import FaceNet, build
from fer_utils.recipes import recipe_for
from fer_utils.training import (
    Fit,
    Recipe,
    check_recipe,
    check_settings,
    default_precision,
    fit,
    refuse_no_images,
)
from fer_utils.votes import LabelKind, join, read_votes, second_question, soft_labels
from fer_utils.weights import load_model, load_pretrained, save_checkpoint
from fer_utils.workspace import Workspace


def train(
    space: Workspace,
    network: str,
    *,
    seed: int = 0,
    name: str | None = None,
    sources: list[str] | None = None,
    validate_on: list[str] | None = None,
    recipe_changes: dict[str, Any] | None = None,
    model_options: dict[str, Any] | None = None,
    teachers: list[str] | None = None,
    labels: LabelKind = "own",
    share: float | None = None,
    resume: bool = False,
    **fit_options: Any,
) -> Fit:
    """Train a network on the merged set of a workspace, by its recipe.

    Writes `runs/<name>/`: `run.json`, `recipe.json`, `history.csv`, Lightning's checkpoints and
    `model.safetensors`, the half-precision weights of the best epoch.

    Args:
        space: gives the profile, the merged set and the folder of runs.
        network: ``"emonet"``, ``"easynet"`` or ``"facenet"``.
        seed: of weights, order, augmentation and dropout.
        name: of the run; by default ``<network>-seed<seed>``.
        sources: train on these sources only.
        validate_on: choose the epoch on these sources only; by default, on those that are trained on.
        recipe_changes: fields of `Recipe` to change; ``augment.degrees`` and the like reach into `Augment`.
        model_options: options of the network to change.
        teachers: names of runs; the network learns from their mean answer (`fer_utils.soft.answers`) as well
            as from the label.
        labels: ``"ferplus"`` to learn from the votes of FER+ (`fer_utils.votes.soft_labels`) where there are
            some; ``"both"`` to learn from the labels and, as a second question that is forgotten after
            training, from the votes (`fer_utils.votes.second_question`). The epoch is chosen by the sources'
            own labels all the same.
        share: weight of the teachers' answer, or of the votes, in that, 0–1; by default 0.7, or 1. With
            ``"both"`` it is the weight of the second question, and teachers have theirs, 0.7.
        resume: go on from the last checkpoint; a finished run is loaded as it is.
        **fit_options: passed to `fit`.

    Raises:
        DataError: nothing merged, no images of the sources, no votes that fit, or a resumed run of another
            network.
        ValueError: an unknown network, recipe field, option or kind of label, teachers and votes for one
            question, or a cache for what has no frozen part.
    """
    if labels not in get_args(LabelKind) or (teachers and labels == "ferplus"):
        raise ValueError(
            f"labels is {labels!r}; it must be one of {', '.join(get_args(LabelKind))}, "
            "and not ferplus with teachers"
        )
    if "seed" in (recipe_changes or {}):
        raise ValueError("the seed is no setting to change: give it as --seed, which also names the run")
    if share is not None and labels == "own" and not teachers:
        raise ValueError("a share belongs to teachers or votes, and there are neither")
    options, recipe = recipe_for(network, space.profile)
    recipe = change(dataclasses.replace(recipe, seed=seed), recipe_changes or {})
    faces = space.faces()
    training = of_sources(faces, sources).split("train")
    validation = of_sources(faces, validate_on or sources).split("validation")
    refuse_no_images(training, validation)
    L.seed_everything(seed, verbose=False)
    options = options | (model_options or {})
    try:
        model = build(network, **options)
    except (TypeError, IndexError, RuntimeError) as error:  # what torch says of options that do not fit
        raise ValueError(f"{network} cannot be built with {options}: {error}") from None
    if isinstance(model, FaceNet):
        load_pretrained(model, training.images)
    name = name or f"{network}-seed{seed}"
    folder = space.runs / name
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "name": name,
        "profile": space.profile,
        "network": network,
        "options": model.options,
        "sources": sources,
        "validate_on": validate_on,
        "merged": _merged(faces),
        "teachers": None,
        "labels": None,
        "cached": None,
        "precision": fit_options.get("precision")
        or default_precision(fit_options.get("accelerator", "auto")),
        "revision": results.revision(),
    }
    targets = None
    for teacher in teachers or ():
        refuse_another_set(space.runs / teacher, faces)
    if teachers:
        told, checkpoints = soft.answers(space, teachers, training)
        teaching = 0.7 if share is None or labels == "both" else share
        about["teachers"] = {"share": teaching, "checkpoints": checkpoints}
        targets = soft.blend(training.labels, told, teaching)
    if labels != "own":
        table, votes_file = read_votes(space.data)
        votes = join(training.index, table, faces.manifest["disgust"])
        share = 1.0 if share is None else share
        about["labels"] = {"kind": labels, "share": share, "votes": sha256(votes_file)}
        if labels == "ferplus":
            targets = soft_labels(training.labels, votes, share)
        else:
            first = np.eye(len(CLASSES))[training.labels] if targets is None else targets
            targets = np.hstack([first, second_question(votes, share)])
    if resume:
        _check_same_run(folder / "run.json", about)
        check_recipe(folder, recipe)
        if (folder / "model.safetensors").exists():
            return _finished(folder, faces)
    check_settings(model, recipe, fit_options)
    # Weights of an earlier run must not pass for those of this one, should it be stopped.
    (folder / "model.safetensors").unlink(missing_ok=True)
    write_json(folder / "run.json", about)
    done = fit(model, training, validation, recipe, folder, targets=targets, resume=resume, **fit_options)
    save_checkpoint(done.model, folder / "model.safetensors", about | {"recipe": recipe.as_dict()})
    return done


def of_sources(faces: FaceSet, sources: list[str] | None) -> FaceSet:
    """The faces of some sources, or all of them.

    Raises:
        DataError: the merged set holds no faces of one of them; names those that it holds.
    """
    if sources is None:
        return faces
    held = sorted(faces.index["source"].unique())
    if missing := sorted(set(sources) - set(held)):
        raise DataError(
            f"no faces of a source {missing[0]!r}",
            file=faces.path,
            remedy=f"name one of {', '.join(held)}, or merge the other one first",
        )
    return faces.where(faces.index["source"].isin(sources).to_numpy())


def train_or_load(space: Workspace, network: str, *, seed: int = 0, **options: Any) -> Fit:
    """What the chapters call: `train`, or the finished run of that name on real data.

    On demo faces the network is always trained, since that takes a minute or two. On real data a run that has
    finished is loaded, and one that was stopped goes on.

    Args:
        space: as for `train`.
        network: as for `train`.
        seed: as for `train`.
        **options: passed to `train`.
    """
    folder = space.runs / (options.get("name") or f"{network}-seed{seed}")
    faces, full = space.faces(), space.profile == "full"
    folder.parent.mkdir(parents=True, exist_ok=True)
    # `make book` runs two chapters at once, and they share networks. The processes of one training, which
    # Lightning starts, must not wait for each other.
    alone = "LOCAL_RANK" not in os.environ
    with FileLock(folder.with_name(f".{folder.name}.lock")) if alone else nullcontext():
        if full and (folder / "model.safetensors").exists():
            return _finished(folder, faces)
        return train(space, network, seed=seed, resume=full, **options)


def _merged(faces: FaceSet) -> str:
    """What the images, labels and splits of a merged set are known by."""
    return hashlib.sha256(json.dumps(faces.manifest["checksums"], sort_keys=True).encode()).hexdigest()


def refuse_another_set(folder: Path, faces: FaceSet) -> None:
    """Raise DataError where a run notes another merged set than this; older runs note none."""
    path = folder / "run.json"
    about = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if about.get("merged") not in (None, _merged(faces)):
        name = about.get("name", folder.name)
        raise DataError(
            "the run was trained on another merged set: images that it learnt from may be test images now",
            file=path,
            remedy=f"train it again (`fer train … --name {name}`, or remove its folder), or merge as before",
        )


def _finished(folder: Path, faces: FaceSet) -> Fit:
    refuse_another_set(folder, faces)
    return Fit(load_model(folder / "model.safetensors"), pd.read_csv(folder / "history.csv"), folder)


def _check_same_run(path: Path, now: dict[str, Any]) -> None:
    then = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
    settings = ("network", "options", "sources", "precision", "teachers", "labels", "cached")
    changed = [key for key in settings if then.get(key) != now[key]]
    # Runs from before these two were noted can still go on.
    changed += [key for key in ("validate_on", "merged") if then.get(key, now[key]) != now[key]]
    if changed:
        raise DataError(
            f"the run began with other settings ({', '.join(changed)} changed)",
            file=path,
            remedy="resume with the same settings, or give the new run another name",
        )


# What fields of a recipe can be, beside being numbers.
RANGES = {
    "epochs": (1, math.inf),
    "batch_size": (1, math.inf),
    "batches": (0, math.inf),
    "lr": (0, math.inf),
    "momentum": (0, 1),
    "weight_decay": (0, math.inf),
    "warmup": (0, 1),
    "label_smoothing": (0, 1),
    "mixup": (0, math.inf),
    "ema": (0, 1),
    "clip": (0, math.inf),
}


def change(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """A recipe with some fields changed; ``augment.x`` changes the field `x` of its augmentation.

    Raises:
        ValueError: there is no such field, or the value is not of its kind.
    """
    for name, value in changes.items():
        target, _, inner = name.partition(".")
        known = get_type_hints(Augment if inner else Recipe)
        if (inner or name) not in known or (inner and target != "augment"):
            raise ValueError(f"a recipe has no field {name!r}; it has {', '.join(sorted(known))}")
        _check_value(name, value, known[inner or name])
        if inner:
            recipe = dataclasses.replace(
                recipe, augment=dataclasses.replace(recipe.augment or Augment(), **{inner: value})
            )
        else:
            recipe = dataclasses.replace(recipe, **{name: value})
    return recipe


def _check_value(name: str, value: Any, kind: Any) -> None:
    if get_origin(kind) is Literal:
        fits, wanted = value in get_args(kind), "one of " + ", ".join(get_args(kind))
    elif kind in (int, float):
        fits = isinstance(value, (int, kind)) and not isinstance(value, bool)
        wanted = "a whole number" if kind is int else "a number"
        least, most = RANGES.get(name, (-math.inf, math.inf))
        if fits and not least <= value <= most:  # which not-a-number is not either
            fits = False
            wanted += f" of at least {least:g}" + (f" and at most {most:g}" if most < math.inf else "")
    else:
        fits, wanted = (
            value is None or isinstance(value, Augment),
            "null, or given as augment.flip=0 and so on",
        )
    if not fits:
        raise ValueError(f"{name} is {value!r}; it must be {wanted}")


def evaluate(space: Workspace, name: str, *, test: bool = False) -> Path:
    """Score a run and write its results file.

    The test split is read once for a finished run: where the results file already holds the test scores of
    these very weights and faces, they are kept and the test images are not touched, unless the answers are
    missing or another network's. Answers go to `predictions/<name>-<split>.parquet` below the results, so
    that comparisons can be made again without the images.

    Args:
        space: gives the runs, the merged set and the folder of results.
        name: of the run.
        test: read the test split as well as validation.

    Returns:
        The path of the results file.

    Raises:
        DataError: there is no such run, it has not finished, or it was trained on another merged set, whose
            training images may be test images now.
    """
    folder = space.runs / name
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
        history = pd.read_csv(folder / "history.csv")
        model = load_model(folder / "model.safetensors")
    except FileNotFoundError as error:
        raise DataError(
            f"the run is missing or has not finished ({Path(str(error.filename)).name} is not there)",
            file=folder,
            remedy=f"run `fer train … --name {name}`, with --resume if it was stopped",
        ) from None
    faces = space.faces()
    refuse_another_set(folder, faces)
    if test and not len(faces.split("test")):
        raise DataError(
            "the merged set has no test images",
            file=faces.path,
            remedy="score on validation alone (without --test), or merge sources that have a test split",
        )
    out = space.results / f"{name}.json"
    result = results.describe_run(
        name, space.profile, model, about, recipe, history, faces, folder / "model.safetensors"
    )

    def score(split: str) -> None:
        result[split], answers = results.evaluate(model, faces, split)
        answers.attrs["checkpoint"] = result["checkpoint"]
        path = results.predictions_path(space.results, name, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, answers)

    score("validation")
    before = results.read(out) if out.exists() else {}
    same = all(before.get(k) == result[k] for k in ("checkpoint", "data"))
    kept = results.predictions_path(space.results, name, "test")
    stale = not kept.exists() or pd.read_parquet(kept).attrs.get("checkpoint") != result["checkpoint"]
    if same and "test" in before and not (test and stale):
        result["test"] = before["test"]
    elif test:
        score("test")
    results.write(result, out)
    return out


def predict_files(
    paths: list[Path], checkpoint: str | Path, *, model: nn.Module | None = None
) -> pd.DataFrame:
    """Find the largest face in each image file and classify it.

    Args:
        paths: image files that Pillow reads.
        checkpoint: for `fer_utils.weights.load_model`; ignored where `model` is given.
        model: a network that is loaded already.

    Returns:
        One row an image: `file`, `face` (``"found"``, or ``"centre crop"`` where no face was found),
        `emotion`, and a probability for each class.

    Raises:
        DataError: a file is missing or is not an image.
    """
    model = model or load_model(checkpoint)
    detector, rows = FaceDetector(), []
    for path in paths:
        image, found = face_image(read_grey(path, upright=True), detector)
        probabilities = predict(model, image[None])[0]
        rows.append(
            {
                "file": str(path),
                "face": "found" if found else "centre crop",
                "emotion": CLASSES[int(probabilities.argmax())],
            }
            | {c: round(float(p), 3) for c, p in zip(CLASSES, probabilities, strict=True)}
        )
    return pd.DataFrame(rows)
