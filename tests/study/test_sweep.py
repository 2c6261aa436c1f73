"""A search over settings: the same draws whoever trains them, however often it is stopped."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from layouts import to_their_ends
from optuna.trial import FixedTrial, TrialState

from fer_utils.datasets.faceset import FaceSet
from fer_utils.errors import DataError
from fer_utils.experiment import Workspace
from reading_faces.study import sweep
from reading_faces.study.store import read_report

STORED = Path(__file__).resolve().parents[2] / "book" / "results" / "sweeps" / "facenet.json"
SMALL = {"trials": 2, "epochs": 1, "batches": 4, "batch_size": 32, "input_size": 32}
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sweep, "SEEDS", (1,))
    monkeypatch.setattr(sweep, "RETRY", {"heartbeat_interval": 1, "grace_period": 2})
    monkeypatch.setattr(
        sweep, "importance", lambda trials: {name: [0.5, 0.4, 0.6] for name in trials[0].params}
    )


@pytest.fixture
def space(toy_faces, tmp_path):
    (tmp_path / "faceset").symlink_to(toy_faces.path)
    return Workspace("demo", tmp_path, tmp_path, tmp_path / "results")


def own_params(report, optimizer):
    """Params of one optimiser's trials, in the order of the file."""
    trials = [dict(t["params"]) for t in report["trials"]]
    return [t for t in trials if t.pop("optimizer") == optimizer]


# --- Draws ---


@pytest.mark.parametrize("optimizer", sweep.OPTIMIZERS)
def test_the_stored_search_trained_the_draws_that_are_made_today(optimizer):
    report = read_report(STORED)
    assert own_params(report, optimizer) == sweep.draws(optimizer, "full", 100)
    best = report["best"][optimizer]
    assert best["value"] == max(report["optimizers"][optimizer])
    assert best["params"] == own_params(report, optimizer)[best["draw"]]


@pytest.mark.parametrize("profile", ["demo", "full"])
def test_draws_are_in_the_space_begin_alike_and_are_the_same_for_both(profile):
    sgd, adam = (sweep.draws(o, profile, 12) for o in sweep.OPTIMIZERS)
    assert sweep.draws("sgd", profile, 5) == sgd[:5]
    for one, other in zip(sgd, adam, strict=True):
        assert {k: v for k, v in one.items() if k not in ("lr", "weight_decay")}.items() <= other.items()
        for name, ranges in (("lr", sweep.RATES), ("weight_decay", sweep.DECAYS)):
            places = [np.log10(d[name] / ranges[o][0]) for o, d in (("sgd", one), ("adam", other))]
            assert places[0] == pytest.approx(places[1], abs=0.01)  # three digits are kept of each
        settings = sweep.suggest(FixedTrial(one), "sgd", profile)
        assert len(settings["head"]) == one["layers"] and settings["optimizer"] == "sgd"


# --- The whole search ---


def test_the_file_says_what_was_tried_and_a_finished_search_trains_no_draw_again(space, monkeypatch):
    opened, split, trained = set(), FaceSet.split, []
    monkeypatch.setattr(FaceSet, "split", lambda self, name: opened.add(name) or split(self, name))
    report = sweep.run(space, **SMALL)
    assert read_report(space.results / "sweeps" / "facenet.json") == report
    assert opened == {"train", "validation"}
    assert set(read_report(STORED)) - set(report) <= {"format", "name", "packages", "seed"}
    for o in sweep.OPTIMIZERS:
        assert own_params(report, o) == sweep.draws(o, "demo", 2)
        values = report["optimizers"][o]
        assert [t["value"] for t in report["trials"] if t["params"]["optimizer"] == o] == values
        assert report["best"][o]["value"] == max(values) and len(report["best"][o]["again"]) == 1
    assert len({value for values in report["optimizers"].values() for value in values}) > 1

    monkeypatch.setattr(sweep.Bench, "__call__", lambda self, settings, seed=0: trained.append(seed) or 0.5)
    assert sweep.run(space, **SMALL)["trials"] == report["trials"] and trained == [1, 1]
    longer = sweep.run(space, **SMALL | {"trials": 3})
    assert [values[:2] for values in longer["optimizers"].values()] == list(report["optimizers"].values())
    assert trained.count(0) == 2
    assert len(sweep.run(space, **SMALL | {"epochs": 2})["trials"]) == 4 and trained.count(0) == 6


def test_a_training_is_the_same_whatever_was_trained_before_it(space):
    """A search that goes on begins with another training than one that begins."""
    drawn = FixedTrial(sweep.draws("sgd", "demo", 1)[0])
    settings, budget = sweep.suggest(drawn, "sgd", "demo"), SMALL | {"batches": 1}
    goes_on, begins = (sweep.Bench(space, budget, "32-true") for _ in range(2))
    begins(settings, 0)
    assert begins(settings, 1) == goes_on(settings, 1)
    for name, value in begins.trunk.items():
        torch.testing.assert_close(value, goes_on.trunk[name], rtol=0, atol=0)


def test_importance_finds_the_setting_that_matters(monkeypatch):
    monkeypatch.undo()
    trials = []
    for draw in sweep.draws("sgd", "full", 30):
        study = optuna.create_study()
        study.enqueue_trial(draw)
        study.optimize(lambda trial: sweep.suggest(trial, "sgd", "full")["dropout"], n_trials=1)
        trials.append(study.trials[0])
    shares = sweep.importance(trials, resamples=3)
    assert max(shares, key=shares.get) == "dropout" and shares["dropout"][0] > 0.8
    assert all(low <= middle <= high for middle, low, high in shares.values())


# --- Several processes ---

DRAWN = [{"x": float(n)} for n in range(6)]


def find(folder, train, url=None):
    url = url or f"sqlite:///{folder / 'trials.db'}"
    return sweep.search(url, str(folder), DRAWN, lambda trial: train(trial.suggest_float("x", 0, 9)))


def in_processes(tmp_path, train, count, url=None):
    """Run `find` in forked processes to their ends; gives them and the folder of their database."""
    folders, fork = [], multiprocessing.get_context("fork")

    def searches(attempt):
        folders.append(tmp_path / str(attempt))
        folders[-1].mkdir()
        given = folders[-1], partial(train, folders[-1]), url
        return [fork.Process(target=find, args=given, daemon=True) for _ in range(count)]

    return to_their_ends(searches), folders[-1]


def test_two_processes_share_the_draws_and_none_is_trained_twice(tmp_path):
    def train(folder, x):
        (folder / f"{x:g}-{os.getpid()}").touch(exist_ok=False)
        time.sleep(0.3)
        return x

    both, folder = in_processes(tmp_path, train, 2)
    assert [process.exitcode for process in both] == [0, 0]
    names = [path.name.split("-") for path in folder.glob("?-*")]
    assert sorted(x for x, _ in names) == [f"{n}" for n in range(6)]
    assert len({process for _, process in names}) == 2
    done = find(folder, lambda x: pytest.fail("trained again"))
    assert [(t.user_attrs["draw"], t.value) for t in done] == [(n, float(n)) for n in range(6)]


@pytest.mark.parametrize("moment", ["while training", "before the first sign of life"])
def test_the_draw_of_a_killed_process_is_trained_again(tmp_path, monkeypatch, moment):
    def die(*given, **known):
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        if moment == "before the first sign of life":
            patched.setattr("optuna.study._optimize.get_heartbeat_thread", die)
        (killed,), folder = in_processes(tmp_path, die, 1)
    assert killed.exitcode == -signal.SIGKILL
    assert [t.value for t in find(folder, lambda x: x)] == [0, 1, 2, 3, 4, 5]
    study = optuna.load_study(study_name=str(folder), storage=f"sqlite:///{folder / 'trials.db'}")
    assert [t.user_attrs["draw"] for t in study.get_trials(states=(TrialState.FAIL,))] == [0]


@pytest.fixture
def postgres():
    """URL of a server of Debian's PostgreSQL, which is started for the test and reached by a socket."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed", exc_type=ImportError)
    programs = max(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), default=None)
    if programs is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to be root's
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # a socket's path must be short

    def call(program, *options):
        command = [programs.with_name(program), "-D", folder / "data", *options]
        subprocess.run(command, user=user, cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL)

    try:
        if user:
            shutil.chown(folder, user)
        call("initdb", "--auth=trust", "--username=fer", "--no-sync", "--no-locale", "--encoding=UTF8")
        call(
            "pg_ctl", "-o", f"-k {folder} -c listen_addresses='' -c fsync=off", "-l", folder / "log", "start"
        )
        yield f"postgresql+psycopg://fer@/postgres?host={folder}"
        call("pg_ctl", "--mode=immediate", "stop")
    finally:
        shutil.rmtree(folder)


def test_on_postgresql_two_workers_of_which_one_is_killed_train_all_draws_once(tmp_path, postgres):
    def train(folder, x):
        (folder / f"{os.getpid()}-{x:g}").touch()
        time.sleep(0.2)
        if len(list(folder.glob(f"{os.getpid()}-*"))) == 2:
            with suppress(FileExistsError), (folder / "killed").open("x") as file:
                print(f"{x:g}", end="", file=file, flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
        (folder / f"done-{x:g}").touch(exist_ok=False)
        return x

    both, folder = in_processes(tmp_path, train, 2, postgres)
    assert sorted(process.exitcode for process in both) == [-signal.SIGKILL, 0]
    begun = Counter(path.name.split("-")[1] for path in folder.glob("[0-9]*-*"))
    assert begun == Counter("012345") + Counter((folder / "killed").read_text())
    done = find(folder, lambda x: pytest.fail("trained again"), postgres)
    assert [(t.user_attrs["draw"], t.value) for t in done] == [(n, float(n)) for n in range(6)]


def test_a_draw_that_fails_stops_the_search_and_is_tried_again(tmp_path):
    def fail(x):
        if x == 1:
            raise DataError("the disk is full", file=tmp_path, remedy="free some room")
        return x

    with pytest.raises(DataError, match="the disk is full"):
        find(tmp_path, fail)
    trained = []
    done = find(tmp_path, lambda x: trained.append(x) or x)
    assert [t.value for t in done] == [0, 1, 2, 3, 4, 5] and sorted(trained) == [1, 2, 3, 4, 5]
