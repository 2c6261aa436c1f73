#!/usr/bin/env bash
# Optuna 5.0.0 with heartbeats, SQLite: the trial of a process that dies before its first heartbeat runs for ever.
#
# Guess: with `heartbeat_interval` and `grace_period`, `fail_stale_trials` fails the trial of every dead process, and
#   `RetryHeartbeatStaleTrialCallback` queues it again.
# Seen: `ask` marks a trial as running; the first heartbeat comes later, from a thread that `optimize` starts. A process
#   killed in between leaves a trial without a heartbeat, and those are never stale: workers that wait for all trials to
#   end wait for ever. The trial of a process killed after its first heartbeat is failed as one would guess.
#   A call of `storage.record_heartbeat` for the trial before `ask` closes the gap.
#
# Prints the states 3 s after the deaths, with a grace of 1 s. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "optuna==5.0.0" 2> pip.log || { cat pip.log; exit 2; }
cat > early.py <<'PYTHON'
import multiprocessing
import os
import signal
import time
import warnings

import optuna
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import TrialState

warnings.simplefilter("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_study(url):
    storage = RDBStorage(url, heartbeat_interval=1, grace_period=1)
    return storage, optuna.create_study(study_name="x", storage=storage, load_if_exists=True)


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def early(url, marked):
    storage, study = open_study(url)
    if marked:
        storage.record_heartbeat(study.get_trials(states=(TrialState.WAITING,))[0]._trial_id)
    study.ask()
    die()


def late(url):
    _, study = open_study(url)
    study.optimize(lambda trial: time.sleep(0.5) or die(), n_trials=1)


def state_after(name, worker, *more):
    url = f"sqlite:///{name}.db"
    _, study = open_study(url)
    study.enqueue_trial({"x": 1.0})
    process = multiprocessing.Process(target=worker, args=(url, *more))
    process.start()
    process.join()
    time.sleep(3)
    fail_stale_trials(study)
    return study.get_trials(deepcopy=False)[0].state.name


if __name__ == "__main__":
    states = state_after("early", early, False), state_after("late", late), state_after("marked", early, True)
    told = "killed before the first heartbeat {}, after it {}, before it but marked by hand {}"
    print(f"optuna {optuna.__version__}: " + told.format(*states))
    raise SystemExit(states != ("RUNNING", "FAIL", "FAIL"))
PYTHON
env/bin/python early.py
