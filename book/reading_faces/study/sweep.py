"""The search over FaceNet's settings, scored on validation: what `fer sweep` runs and chapter 5 reads.

Settings are drawn at random from a stated space (Bergstra & Bengio 2012), as many for SGD with Nesterov
momentum as for Adam, and the same draws for both: only the ranges of learning rate and weight decay are each
optimiser's own. Every draw is trained on cached features, for the same short while and with the same seed.
None is stopped early, so that the values spread as they do in the space. Then the best draw of each optimiser
is trained again with other seeds, since the best of many is partly luck.

Optuna (Akiba et al. 2019) keeps the trials in a database that several workers may share. All draws are laid
down in it before the first is trained, so that the trials are the same however many workers there are and
however often they are stopped; a trial whose worker was killed fails, and its draw is trained anew.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import optuna
import torch
from filelock import FileLock
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.exceptions import ExperimentalWarning
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from fer_utils import features, results, runs
from fer_utils.errors import DataError
from fer_utils.files import sha256
from fer_utils.models import build
from fer_utils.recipes import POSTER_FREEZE, given, recipe_for
from fer_utils.training import Fit, default_precision
from fer_utils.workspace import Profile, Workspace

FORMAT = 1
FOLDER = "sweeps"  # below the folder of results
NETWORK = NAME = "facenet"
OPTIMIZERS = ("sgd", "adam")
AGAIN = "again"  # the best draws with other seeds
SEEDS = 3  # how many others
RESAMPLES = 40  # of the trials, for the intervals of importance
HEARTBEAT, GRACE = 5, 60  # seconds between signs of life of a worker, and after which it counts as dead

# Three powers of ten for each optimiser's learning rate and weight decay, about what it is mostly used with.
RATES = {"sgd": (1e-3, 1.0), "adam": (3e-5, 3e-2)}
DECAYS = {"sgd": (1e-5, 1e-2), "adam": (1e-4, 1e-1)}
# Fully connected layers below the last one (the poster: 2), and how wide they are if they are there.
LAYERS = (0, 1, 2)
WIDTHS: dict[Profile, tuple[tuple[int, int], tuple[int, int]]] = {
    "demo": ((32, 512), (16, 128)),
    "full": ((256, 4096), (64, 1024)),
}
# Shares of the trunk's layers: few, since each has cached features of its own.
FREEZES: dict[Profile, tuple[float, ...]] = {
    "demo": (POSTER_FREEZE, 1.0),
    "full": (POSTER_FREEZE, 5 / 6, 1.0),
}
# Of a trial: passes, batches of each (0: all images), and views of each image. On real faces, every image is
# seen once and as it is, so that one view serves all.
BUDGETS: dict[Profile, dict[str, int]] = {
    "demo": {"trials": 12, "epochs": 4, "batches": 0, "batch_size": 32, "views": 2, "input_size": 64},
    "full": {"trials": 100, "epochs": 1, "batches": 0, "batch_size": 64, "views": 1, "input_size": 96},
}

Draw = dict[str, Any]  # of settings, by name

_NUMBER = {"type": "number"}
_SHARES = {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}, "minItems": 1}


def _of_both(value: dict[str, Any]) -> dict[str, Any]:
    return results.fields(**dict.fromkeys(OPTIMIZERS, value))


_TRIAL = results.fields(
    number={"type": "integer"},
    draw={"type": "integer", "minimum": 0},
    params=results.fields(optimizer={"enum": list(OPTIMIZERS)}, lr=_NUMBER),
    value={"type": "number", "minimum": 0, "maximum": 1},
    seconds=_NUMBER,
)
SCHEMA = results.fields(
    format={"const": FORMAT},
    name={"type": "string"},
    profile={"enum": ["demo", "full"]},
    date={"type": "string"},
    revision={"type": "string"},
    packages={"type": "object"},
    processor={"type": "string"},
    threads={"type": "string"},
    precision={"type": "string"},
    faceset={"type": "string"},
    seed={"type": "integer"},
    space=_of_both({"type": "object"}),
    budget=results.fields(**{name: {"type": "integer", "minimum": 0} for name in BUDGETS["full"]}),
    images={"type": "integer", "minimum": 1},
    training_images={"type": "integer", "minimum": 1},
    seconds=_NUMBER,
    trials={"type": "array", "items": _TRIAL, "minItems": 2},
    optimizers=_of_both(_SHARES),
    importance=_of_both({"type": "object", "additionalProperties": {"type": "array", "items": _NUMBER}}),
    best=_of_both(
        results.fields(
            draw={"type": "integer"},
            value=_NUMBER,
            params={"type": "object"},
            seeds={"type": "array", "items": {"type": "integer"}},
            again=_SHARES,
            command={"type": "string"},
        )
    ),
) | {"title": "file of a sweep", "command": "fer sweep"}  # fmt: skip


# --- The space and its draws ---


def search_space(profile: Profile, optimizer: str) -> dict[str, BaseDistribution]:
    """What is searched, by name: the same for both optimisers but for `lr` and `weight_decay`."""
    first, second = WIDTHS[profile]
    return {
        "lr": FloatDistribution(*RATES[optimizer], log=True),
        "momentum": FloatDistribution(0.8, 0.99),
        "weight_decay": FloatDistribution(*DECAYS[optimizer], log=True),
        "layers": CategoricalDistribution(LAYERS),
        "fc1": IntDistribution(*first, log=True),
        "fc2": IntDistribution(*second, log=True),
        "dropout": FloatDistribution(0.0, 0.7),
        "freeze": CategoricalDistribution(FREEZES[profile]),
    }


def described(profile: Profile) -> dict[str, Any]:
    """The space of both optimisers in plain values, by name: `low`, `high` and `log`, or `choices`."""

    def plain(distribution: BaseDistribution) -> dict[str, Any]:
        kind = json.loads(distribution_to_json(distribution))["attributes"]
        return {name: value for name, value in kind.items() if name != "step"}

    return {o: {name: plain(d) for name, d in search_space(profile, o).items()} for o in OPTIMIZERS}


def draws(profile: Profile, optimizer: str, count: int, seed: int = 0) -> list[Draw]:
    """Settings drawn from the space; more draws begin with the same ones.

    Draw k of one optimiser has the same place in its ranges as draw k of the other. Numbers are rounded to
    three digits, so that commands can be read.
    """
    space = search_space(profile, optimizer)
    with _quiet():
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        drawn = [study.ask(space).params for _ in range(count)]
    smooth = [n for n, d in space.items() if isinstance(d, FloatDistribution)]
    return [draw | {name: float(f"{draw[name]:.3g}") for name in smooth} for draw in drawn]


def settings(optimizer: str, draw: Mapping[str, Any], seed: int, budget: Mapping[str, int]) -> dict[str, Any]:
    """What `runs.train` is given to train a draw as the sweep does."""
    recipe = {name: draw[name] for name in ("lr", "momentum", "weight_decay")}
    recipe |= {name: budget[name] for name in ("epochs", "batches", "batch_size")}
    return {
        "seed": seed,
        "recipe_changes": {"optimizer": optimizer} | recipe,
        "model_options": {
            "head": [draw["fc1"], draw["fc2"]][: draw["layers"]],
            "dropout": draw["dropout"],
            "freeze": draw["freeze"],
            "input_size": budget["input_size"],
        },
        "cached": budget["views"],
    }


def command(name: str, how: Mapping[str, Any], profile: Profile, precision: str) -> str:
    """The command line that trains like `settings`."""
    words = ["fer", "train", NETWORK, "--profile", profile, "--name", name, "--seed", how["seed"]]
    words += given("--set", how["recipe_changes"]) + given("--option", how["model_options"])
    words += ["--cache", how["cached"], "--precision", precision]
    return shlex.join(map(str, words))


# --- Training ---


class Bench:
    """Trains draws one after the other; faces, pretrained trunk and features are loaded once.

    Args:
        space: gives faces and features.
        budget: as in `BUDGETS`.
        seed: of the trunk where none is pretrained; it is the same one for all draws, whatever their seed.
        precision: for `lightning.Trainer`.
        verbose: announce what is computed for the cache.
    """

    def __init__(
        self, space: Workspace, budget: Mapping[str, int], seed: int, precision: str, *, verbose: bool = True
    ) -> None:
        self.space, self.budget, self.seed = space, budget, seed
        self.precision, self.verbose = precision, verbose
        faces = space.faces()
        self.training, self.validation = faces.split("train"), faces.split("validation")
        self._trunk: dict[str, torch.Tensor] | None = None
        self._stores: dict[float, features.Cached] = {}

    def __call__(self, optimizer: str, draw: Draw, seed: int, folder: Path) -> float:
        """Accuracy on validation, 0–1, of the best epoch, as `runs.train` would reach it.

        Args:
            optimizer: ``"sgd"`` or ``"adam"``.
            draw: of settings.
            seed: of weights, order and dropout.
            folder: for the checkpoints; removed afterwards.
        """
        how = settings(optimizer, draw, seed, self.budget)
        options, recipe = recipe_for(NETWORK, self.space.profile)
        recipe = runs.change(dataclasses.replace(recipe, seed=seed), how["recipe_changes"])
        if self._trunk is None:
            L.seed_everything(self.seed, verbose=False)
            # Loading may look at faces in the size of the input.
            first = build(NETWORK, **options | {"input_size": self.budget["input_size"]})
            first.load_pretrained(self.training)
            self._trunk = first.trunk.state_dict()
        L.seed_everything(seed, verbose=False)
        net = build(NETWORK, **options | how["model_options"])
        net.load_trunk(self._trunk)
        if draw["freeze"] not in self._stores:
            self._stores[draw["freeze"]] = features.cache(
                net,
                self.training,
                self.validation,
                self.space.build / "features",
                views=how["cached"],
                augment=recipe.augment,
                device="cpu" if default_precision() == "32-true" else "cuda",
                verbose=self.verbose,
            )
        try:
            done = features.fit_cached(
                net,
                self.training,
                self.validation,
                recipe,
                folder,
                self._stores[draw["freeze"]],
                verbose=False,
                devices=1,
                precision=self.precision,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return float(done.best["val_accuracy"])


class Queue:
    """Draws of one kind, and the trials in which they are trained, in a database that workers share.

    Args:
        study: Optuna's. Its trials say what they are about: `draw`, a key, `optimizer` and `seed`.
        profile: of the space that the settings are from.
        lock: held while draws are laid down.
    """

    def __init__(self, study: optuna.Study, profile: Profile, lock: FileLock) -> None:
        self.study, self.profile, self.lock = study, profile, lock
        self.wanted: dict[str, tuple[str, Draw, int]] = {}

    def trials(self, *states: TrialState) -> dict[str, FrozenTrial]:
        """Trials about what is wanted, by its key."""
        found = self.study.get_trials(deepcopy=False, states=states)
        return {t.user_attrs["draw"]: t for t in found if t.user_attrs.get("draw") in self.wanted}

    def wants(self, trial: optuna.Trial) -> bool:
        """Whether a trial is about a draw that is wanted and that no other trial has, or is at already.

        Optuna serves whatever waits: a draw left over from a larger search, too, or one that two machines,
        whose locks do not know each other, have both laid down.
        """
        about = trial.user_attrs.get("draw")
        twins = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.COMPLETE))
        return about in self.wanted and not any(
            twin.user_attrs.get("draw") == about
            and twin.number != trial.number
            and (twin.number < trial.number or twin.state == TrialState.COMPLETE)
            for twin in twins
        )

    @property
    def waiting(self) -> int:
        """How many draws nobody has begun."""
        return len(self.trials(TrialState.WAITING))

    @property
    def running(self) -> int:
        """How many draws are being trained, by whomever."""
        return len(self.trials(TrialState.RUNNING))

    @property
    def done(self) -> dict[str, FrozenTrial]:
        """Finished trials by draw, in the order in which they are wanted."""
        finished = self.trials(TrialState.COMPLETE)
        return {key: finished[key] for key in self.wanted if key in finished}

    def fill(self) -> None:
        """Fail the trials of dead workers, and lay down every draw that no trial is about."""
        with self.lock:
            optuna.storages.fail_stale_trials(self.study)
            for trial in self.trials(TrialState.RUNNING).values():
                # Killed after taking the draw and before the first sign of life, which Optuna looks for.
                quiet = (datetime.now() - trial.datetime_start).total_seconds()
                if "begun" not in trial.user_attrs and quiet > GRACE:
                    self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            known = self.trials(TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
            for key, (optimizer, draw, seed) in self.wanted.items():
                if key not in known:
                    self.study.add_trial(
                        optuna.create_trial(
                            state=TrialState.WAITING,
                            params=draw,
                            distributions=search_space(self.profile, optimizer),
                            user_attrs={"draw": key, "optimizer": optimizer, "seed": seed},
                        )
                    )


def work(queues: Sequence[Queue], bench: Bench, folder: Path, *, verbose: bool = True) -> None:
    """Train until everything that is wanted has a value, whoever trained it.

    Args:
        queues: the fullest is served first, so that all advance alike.
        bench: trains.
        folder: for the checkpoints of the draw in training.
        verbose: print a line after each draw.
    """

    def train(trial: optuna.Trial) -> float:
        about = trial.user_attrs
        # Such as one that Optuna drew itself, because another worker took the last in this very moment.
        if not fullest.wants(trial):
            raise optuna.TrialPruned
        where = {"revision": results.revision(), "processor": results.processor()}
        trial.set_user_attr("begun", where | {"threads": torch.get_num_threads()})
        place = folder / about["optimizer"] / f"{about['draw']}-{trial.number}"
        value = bench(about["optimizer"], trial.params, about["seed"], place)
        if verbose:
            taken = (datetime.now() - trial.datetime_start).total_seconds()
            left = sum(q.waiting for q in queues)
            print(
                f"{about['optimizer']:4s} {about['draw']:>4s}, seed {about['seed']}: {value:.1%} right "
                f"({taken:.0f} s, {left} waiting)",
                flush=True,
            )
        return value

    told = not verbose
    while True:
        for queue in queues:
            queue.fill()
        fullest = max(queues, key=lambda queue: queue.waiting)
        if fullest.waiting:
            fullest.study.optimize(train, n_trials=1)
        elif any(queue.running for queue in queues):
            if not told:
                print(f"other workers are at the last trials; any that is dead is given up after {GRACE} s")
            told = True
            time.sleep(1)
        else:
            for optimizer in OPTIMIZERS:  # checkpoints of workers that were killed
                shutil.rmtree(folder / optimizer, ignore_errors=True)
            return


def run(
    space: Workspace,
    *,
    name: str = NAME,
    seed: int = 0,
    budget_changes: Mapping[str, int] | None = None,
    precision: str | None = None,
    storage: str | None = None,
    anew: bool = False,
    verbose: bool = True,
) -> dict[str, Any]:
    """Search, or go on with a search that was stopped, or help one that runs, and write what was found.

    The file is `sweeps/<name>.json` below the results. It holds the values of all draws, so that the test is
    not read and the settings that are published can be chosen from it. A finished search is written again
    without training, and one of more trials begins with those of the smaller one.

    Args:
        space: gives the merged set and the folder of results.
        name: of the search.
        seed: of the draws and of all their trainings.
        budget_changes: to `BUDGETS` of the profile.
        precision: for `lightning.Trainer`; by default as in `fit`.
        storage: address of the database, as Optuna takes it; by default, SQLite in the workspace's `sweeps`.
        anew: forget an earlier search of this name in the workspace.
        verbose: print sizes and a line after each draw.

    Returns:
        What is in the file, of the form of `SCHEMA`.

    Raises:
        ValueError: a budget of something that has none, or too small a one, or `anew` with a `storage`.
        DataError: the database holds a search of this name with other settings.
    """
    budget = _budget(space.profile, budget_changes or {})
    precision = precision or default_precision()
    place, folder = space.build / FOLDER / f"{name}.db", space.runs / FOLDER / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if anew and storage:
        raise ValueError("an earlier search is forgotten in the workspace only: give this one another name")
    if anew:
        place.unlink(missing_ok=True)
    settled = _settled(space, seed, budget, precision)
    with _quiet():
        with FileLock(place.with_suffix(".lock")) as lock:
            database = _database(storage or f"sqlite:///{place}")
            queues = {
                kind: Queue(_study(database, f"{name}/{kind}", settled), space.profile, lock)
                for kind in (*OPTIMIZERS, AGAIN)
            }
        again, bench = queues.pop(AGAIN), Bench(space, budget, seed, precision, verbose=verbose)
        for optimizer, queue in queues.items():
            drawn = draws(space.profile, optimizer, budget["trials"], seed)
            queue.wanted = {str(k): (optimizer, draw, seed) for k, draw in enumerate(drawn)}
        work(list(queues.values()), bench, folder, verbose=verbose)
        done = {optimizer: queue.done for optimizer, queue in queues.items()}
        best = {o: max(trials, key=lambda key: trials[key].value) for o, trials in done.items()}
        for o, key in best.items():
            for other in range(seed + 1, seed + 1 + SEEDS):
                again.wanted[f"{o}-{key}-{other}"] = (o, done[o][key].params, other)
        work([again], bench, folder / AGAIN, verbose=verbose)
        done[AGAIN] = again.done
        report = _about(space, name, bench, settled, done) | {
            "budget": budget,
            **_found(space.profile, done),
            "best": {
                o: _best(space.profile, name, o, key, done, settled | {"budget": budget})
                for o, key in best.items()
            },
        }
    results.write(report, space.results / FOLDER / f"{name}.json", SCHEMA)
    return report


def read(path: Path) -> dict[str, Any]:
    """Read and validate a file of `run`.

    Raises:
        DataError: the file is missing, is not JSON, or lacks a field.
    """
    return results.read(path, SCHEMA)


def retrain(space: Workspace, report: Mapping[str, Any], optimizer: str, **fit_options: Any) -> Fit:
    """Train the best draw of an optimiser again by `runs.train`, as the `command` in the file does.

    On the same machine, with as many threads, its best accuracy on validation is the draw's.

    Args:
        space: that was searched.
        report: what `run` found.
        optimizer: ``"sgd"`` or ``"adam"``.
        **fit_options: for `fit`.
    """
    how = settings(optimizer, report["best"][optimizer]["params"], report["seed"], report["budget"])
    name, precision = f"{FOLDER}/{report['name']}-{optimizer}", report["precision"]
    return runs.train(space, NETWORK, name=name, precision=precision, **how, **fit_options)


def _budget(profile: Profile, changes: Mapping[str, int]) -> dict[str, int]:
    known = BUDGETS[profile]
    for name, value in changes.items():
        if name not in known:
            raise ValueError(f"a budget has no {name!r}; it has {', '.join(known)}")
        least = {"trials": 2, "batches": 0}.get(name, 1)
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value!r}; it must be a whole number from {least}")
    return known | dict(changes)


def _settled(space: Workspace, seed: int, budget: Mapping[str, int], precision: str) -> dict[str, Any]:
    """All that the value of a draw follows from; workers and later searches must agree on it."""
    options, recipe = recipe_for(NETWORK, space.profile)
    settled = {
        "seed": seed,
        "budget": {name: n for name, n in budget.items() if name != "trials"},
        "precision": precision,
        "space": described(space.profile),
        "faceset": sha256(space.faces().path / "manifest.json"),
        "options": options,
        "recipe": recipe.as_dict(),
    }
    return json.loads(json.dumps(settled))


def _database(url: str) -> optuna.storages.RDBStorage:
    # SQLite lets one worker write at a time; the others wait, for longer than by default.
    patience = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None
    try:
        return optuna.storages.RDBStorage(url, patience, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
    except (SQLAlchemyError, ImportError, RuntimeError) as error:
        raise DataError(
            f"the database of the search cannot be opened ({str(error).splitlines()[0]})",
            file=url,
            remedy="give its address as Optuna takes it (sqlite:///file.db, say), or delete a damaged file",
        ) from None


def _study(database: optuna.storages.RDBStorage, name: str, settled: dict[str, Any]) -> optuna.Study:
    study = optuna.create_study(
        storage=database,
        study_name=name,
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(),
        load_if_exists=True,
    )
    before = study.user_attrs.get("settled")
    if before is None:
        study.set_user_attr("settled", settled)
    elif before != settled:
        changed = sorted(k for k in settled.keys() | before.keys() if settled.get(k) != before.get(k))
        raise DataError(
            f"a search of this name was begun with other settings ({', '.join(changed)} changed)",
            file=name,
            remedy="give the new one another name (--name), or forget the old one (--anew)",
        )
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Optuna's line after each trial and its notes on what is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)


# --- What was found ---


def _about(
    space: Workspace,
    name: str,
    bench: Bench,
    settled: Mapping[str, Any],
    done: Mapping[str, Mapping[str, FrozenTrial]],
) -> dict[str, Any]:
    """Where the values come from; a search may have been trained on several days and machines."""
    trials = [t for kind in done.values() for t in kind.values()]
    where = [t.user_attrs["begun"] for t in trials]
    return {
        "format": FORMAT,
        "name": name,
        "profile": space.profile,
        "date": max(t.datetime_complete for t in trials).date().isoformat(),
        **{k: ", ".join(sorted({str(w[k]) for w in where})) for k in where[0]},
        "packages": {p: version(p) for p in ("torch", "lightning", "numpy", "optuna", "scikit-learn")},
        **{k: settled[k] for k in ("precision", "faceset", "seed", "space")},
        "images": len(bench.validation),
        "training_images": len(bench.training),
        "seconds": round(sum(t.duration.total_seconds() for t in trials), 1),
    }


def _found(profile: Profile, done: Mapping[str, Mapping[str, FrozenTrial]]) -> dict[str, Any]:
    """The values: of both optimisers' draws in turn, and of each by itself."""
    pairs = zip(*(done[o].items() for o in OPTIMIZERS), strict=True)
    rows = [(o, *pair) for both in pairs for o, pair in zip(OPTIMIZERS, both, strict=True)]
    return {
        "trials": [
            {
                "number": number,
                "draw": int(key),
                "params": {"optimizer": o} | t.params,
                "value": t.value,
                "seconds": round(t.duration.total_seconds(), 2),
            }
            for number, (o, key, t) in enumerate(rows)
        ],
        "optimizers": {o: [t.value for t in done[o].values()] for o in OPTIMIZERS},
        "importance": {
            o: importance(
                search_space(profile, o), [(t.params, t.value) for t in done[o].values()], RESAMPLES
            )
            for o in OPTIMIZERS
        },
    }


def _best(
    profile: Profile,
    name: str,
    optimizer: str,
    key: str,
    done: Mapping[str, Mapping[str, FrozenTrial]],
    settled: Mapping[str, Any],
) -> dict[str, Any]:
    trial = done[optimizer][key]
    others = {
        t.user_attrs["seed"]: t.value for k, t in done[AGAIN].items() if k.startswith(f"{optimizer}-{key}-")
    }
    how = settings(optimizer, trial.params, settled["seed"], settled["budget"])
    return {
        "draw": int(key),
        "value": trial.value,
        "params": trial.params,
        "seeds": list(others),
        "again": list(others.values()),
        "command": command(f"{FOLDER}/{name}-{optimizer}", how, profile, settled["precision"]),
    }


def importance(
    space: Mapping[str, BaseDistribution], rows: Sequence[tuple[Draw, float]], resamples: int
) -> dict[str, list[float]]:
    """Share of the variance of the values that each setting makes alone (fANOVA, Hutter et al. 2014).

    What is missing to 1 is made by settings together, and by chance.

    Args:
        space: that was searched.
        rows: draws and their values.
        resamples: of the rows, drawn with replacement; for each a forest is grown.

    Returns:
        Median over the resamples and ends of the middle 95 % of them, 0–1, by name.
    """

    def shares(chosen: Iterable[int]) -> dict[str, float]:
        study = optuna.create_study(direction="maximize")
        made = {"distributions": dict(space), "state": TrialState.COMPLETE}
        study.add_trials([optuna.create_trial(params=rows[i][0], value=rows[i][1], **made) for i in chosen])
        try:
            return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0), normalize=False)
        except RuntimeError:  # all values are alike, so that nothing makes a difference
            return dict.fromkeys(space, 0.0)

    rng = np.random.default_rng(0)
    grown = [shares(rng.integers(len(rows), size=len(rows))) for _ in range(resamples)]
    quantiles = {n: np.quantile([each[n] for each in grown], (0.5, 0.025, 0.975)) for n in space}
    return {name: [round(float(v), 4) for v in found] for name, found in quantiles.items()}
