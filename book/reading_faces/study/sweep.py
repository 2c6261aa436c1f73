"""The search over FaceNet's settings, scored on validation: `python -m reading_faces.study.sweep`, chapter 5.

Settings are drawn at random from a stated space (Bergstra & Bengio 2012). SGD with Nesterov momentum and Adam
get the same draws, but for ranges of their own of learning rate and weight decay. Every draw is trained on
features of the frozen layers, which are computed once, for the same short while and with the same seed. None
is stopped early: the values are a fair sample of the space. Then the best draw of each optimiser is trained
with other seeds, since the best of many is partly chance.

Optuna (Akiba et al. 2019) keeps the trials in an SQLite file of the workspace: a stopped search goes on when
the command is given again, several processes share a search, and the draw of one that died is trained again.
Several machines share one in a PostgreSQL database: `--storage postgresql+psycopg://user@machine/database`.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import optuna
import sqlalchemy
import torch
from filelock import FileLock
from optuna.distributions import distribution_to_json
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from fer_utils.experiment import Workspace, changed, recipe_for, workspace
from fer_utils.files import sha256
from fer_utils.models import build
from fer_utils.training import default_precision, fit
from fer_utils.weights import load_pretrained
from reading_faces import features
from reading_faces.study.store import write_report

OPTIMIZERS = ("sgd", "adam")
# Three powers of ten for each optimiser's learning rate and weight decay, about what it is mostly used with.
RATES = {"sgd": (1e-3, 1.0), "adam": (3e-5, 3e-2)}
DECAYS = {"sgd": (1e-5, 1e-2), "adam": (1e-4, 1e-1)}
WIDTHS = {"demo": ((32, 512), (16, 128)), "full": ((256, 4096), (64, 1024))}
# Shares of the trunk's layers: few, since each has features of its own. The poster froze 100 of 175 layers.
FREEZES = {"demo": (100 / 175, 1.0), "full": (100 / 175, 5 / 6, 1.0)}
BUDGET = {"trials": 100, "epochs": 1, "batches": 144, "batch_size": 64, "input_size": 96}
SEEDS = (1, 2, 3)  # that the best draws are trained with again
RETRY = {"heartbeat_interval": 5, "grace_period": 60}  # seconds after which a silent process counts as dead

Settings = dict[str, Any]


def suggest(trial: optuna.trial.BaseTrial, optimizer: str, profile: str) -> Settings:
    """Draw one point of the search space: settings as `fer_utils.experiment.train` takes them."""
    first, second = WIDTHS[profile]
    settings = {
        "optimizer": optimizer,
        "lr": trial.suggest_float("lr", *RATES[optimizer], log=True),
        "momentum": trial.suggest_float("momentum", 0.8, 0.99),  # Adam's first beta
        "weight_decay": trial.suggest_float("weight_decay", *DECAYS[optimizer], log=True),
    }
    layers = trial.suggest_categorical("layers", (0, 1, 2))  # below the last one; the poster has 2
    units = [trial.suggest_int("fc1", *first, log=True), trial.suggest_int("fc2", *second, log=True)]
    return settings | {
        "head": units[:layers],
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "freeze": trial.suggest_categorical("freeze", FREEZES[profile]),
    }


def draws(optimizer: str, profile: str, count: int) -> list[Settings]:
    """Draw so many points of the space, by Optuna's names; continuous ones keep three digits.

    Draw k of one optimiser has the same place in its ranges as draw k of the other.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    for trial in trials:
        suggest(trial, optimizer, profile)
    smooth = ("lr", "momentum", "weight_decay", "dropout")
    return [t.params | {n: float(f"{t.params[n]:.3g}") for n in smooth} for t in trials]


class Bench:
    """Trains settings one after the other; faces, pretrained trunk and features are loaded once."""

    def __init__(self, space: Workspace, budget: dict[str, int], precision: str) -> None:
        faces, self.space, self.budget, self.precision = space.faces(), space, budget, precision
        self.faces = faces.split("train"), faces.split("validation")
        self.trunk: dict[str, torch.Tensor] | None = None
        self.features: dict[float, list[features.Features]] = {}  # by frozen share

    def __call__(self, settings: Settings, seed: int = 0) -> float:
        """Train settings of `suggest`; returns the accuracy on validation, 0 to 1, of the best epoch."""
        options, recipe = recipe_for("facenet", self.space.profile)
        changes = settings | {name: value for name, value in self.budget.items() if name != "trials"}
        options, recipe = changed("facenet", options, recipe, changes | {"seed": seed})
        if self.trunk is None:  # of seed 0, whatever a search that goes on trains first
            L.seed_everything(0, verbose=False)
            load_pretrained(net := build("facenet", **options), self.faces[0].images)
            self.trunk = net.trunk.state_dict()
        L.seed_everything(seed, verbose=False)
        net = build("facenet", **options)
        net.trunk.load_state_dict(self.trunk)
        freeze, how = settings["freeze"], {"devices": 1, "precision": self.precision}
        if freeze not in self.features:
            place = self.space.build / "features"
            self.features[freeze] = [features.compute(net, faces, place) for faces in self.faces]
        with tempfile.TemporaryDirectory() as folder:
            run = fit(features.split(net)[1], *self.features[freeze], recipe, folder, verbose=False, **how)
        return float(run.best["val_accuracy"])


@contextmanager
def alone(engine: sqlalchemy.Engine) -> Iterator[None]:
    """Wait until no other process is here: by a lock of PostgreSQL, or of a file beside SQLite's."""
    if engine.dialect.name == "sqlite":
        with FileLock(Path(engine.url.database).with_suffix(".lock")):
            yield
    else:
        with engine.begin() as connection:  # at whose end, also by death, the lock is given back
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(0)"))
            yield


def search(
    url: str, name: str, drawn: Sequence[Settings], objective: Callable[[optuna.Trial], float]
) -> list[FrozenTrial]:
    """Have every draw trained once, by this process or another, and return their trials in order.

    The URL is of a database, SQLite's or PostgreSQL's, as SQLAlchemy takes it, and the name of the search in
    it. The draws are those of `draws`, and the objective trains what a trial suggests.
    """

    def trials(*states: TrialState) -> dict[int, FrozenTrial]:
        known = study.get_trials(deepcopy=False, states=states)
        return {t.user_attrs["draw"]: t for t in known if t.user_attrs.get("draw", len(drawn)) < len(drawn)}

    def train(trial: optuna.Trial) -> float:
        if "draw" not in trial.user_attrs:  # another process took the last one in this moment
            raise optuna.TrialPruned
        return objective(trial)

    engine = sqlalchemy.create_engine(url)
    with alone(engine):
        retry = RetryHeartbeatStaleTrialCallback()
        storage = RDBStorage(url, heartbeat_stale_trial_callback=retry, **RETRY)
        known = {"storage": storage, "study_name": name, "load_if_exists": True}
        study = optuna.create_study(direction="maximize", **known)
        # By number and state, since `skip_if_exists` would skip a draw that failed.
        laid = trials(TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
        for number in sorted(set(range(len(drawn))) - laid.keys()):
            study.enqueue_trial(drawn[number], user_attrs={"draw": number})
    ask = study.ask

    def ask_alone() -> optuna.Trial:
        with alone(engine):  # SQLite does not keep two processes from taking the same waiting trial
            # A process that died before its first sign of life would leave a trial that is never stale.
            for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING,))[:1]:
                storage.record_heartbeat(trial._trial_id)
            return ask()

    study.ask = ask_alone
    while len(done := trials(TrialState.COMPLETE)) < len(drawn):
        if trials(TrialState.WAITING):
            study.optimize(train, n_trials=1)
        else:  # other processes are at the last draws
            fail_stale_trials(study)
            time.sleep(1)
    return [done[number] for number in range(len(drawn))]


def importance(trials: Sequence[FrozenTrial], resamples: int = 40) -> dict[str, list[float]]:
    """Share of the variance that each setting makes alone, with its interval (fANOVA, Hutter et al. 2014)."""
    rng, grown = np.random.default_rng(0), []
    for _ in range(resamples):
        study = optuna.create_study(direction="maximize")
        study.add_trials([trials[i] for i in rng.integers(len(trials), size=len(trials))])
        evaluator = FanovaImportanceEvaluator(seed=0)
        grown.append(get_param_importances(study, evaluator=evaluator, normalize=False))
    names, quantiles = trials[0].params, (0.5, 0.025, 0.975)
    return {n: np.quantile([each[n] for each in grown], quantiles).round(4).tolist() for n in names}


def run(
    space: Workspace, precision: str | None = None, storage: str | None = None, **budget: int
) -> dict[str, Any]:
    """Search, or go on with a search that was stopped, or help one that runs, and write the report.

    The trials are in the database `storage`, by default SQLite's file `sweeps/facenet.db` of the workspace;
    `budget` changes that of the trials, `BUDGET`.
    """
    budget, precision = BUDGET | budget, precision or default_precision()
    path, checksum = space.build / "sweeps" / "facenet.db", sha256(space.faceset / "manifest.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{path}"
    settled = {"precision": precision, "faceset": checksum, "budget": budget | {"trials": None}}
    bench, done, best, ranges = Bench(space, budget, precision), {}, {}, {}
    for o in OPTIMIZERS:
        drawn = draws(o, space.profile, budget["trials"])
        objective = lambda trial, o=o: bench(suggest(trial, o, space.profile))  # noqa: E731
        done[o] = search(url, json.dumps([o, settled]), drawn, objective)
        top = max(done[o], key=lambda trial: trial.value)
        settings = suggest(FixedTrial(top.params), o, space.profile)
        about = {"draw": top.user_attrs["draw"], "value": top.value, "params": top.params}
        best[o] = about | {"seeds": SEEDS, "again": [bench(settings, seed) for seed in SEEDS]}
        ranges[o] = {
            n: json.loads(distribution_to_json(d))["attributes"] for n, d in top.distributions.items()
        }
    report = settled | {
        "profile": space.profile,
        "threads": str(torch.get_num_threads()),
        "space": ranges,
        "budget": budget,
        "images": len(bench.faces[1]),
        "training_images": len(bench.faces[0]),
        "seconds": sum(t.duration.total_seconds() for trials in done.values() for t in trials),
        "trials": [
            {"draw": t.user_attrs["draw"], "params": {"optimizer": o} | t.params, "value": t.value}
            for pair in zip(*done.values(), strict=True)
            for o, t in zip(done, pair, strict=True)
        ],
        "optimizers": {o: [trial.value for trial in trials] for o, trials in done.items()},
        "importance": {o: importance(trials) for o, trials in done.items()},
        "best": best,
    }
    return write_report(space.results / "sweeps" / "facenet.json", report)


def main(arguments: list[str] | None = None) -> None:
    """Search on the real merged set; start it twice for two processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", help="bf16-mixed, say")
    parser.add_argument("--storage", metavar="URL", help="of a database that several machines share")
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # the heartbeat is one
    asked = parser.parse_args(arguments)
    run(workspace("full"), asked.precision, asked.storage)


if __name__ == "__main__":
    main()
