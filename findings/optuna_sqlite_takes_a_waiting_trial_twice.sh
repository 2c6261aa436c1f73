#!/usr/bin/env bash
# Optuna 5.0.0, SQLAlchemy 2, SQLite, Linux: two processes that share a study can be handed the same enqueued trial.
#
# Guess: `study.ask()` hands a waiting trial to one process; the storage's transaction sees to that.
# Seen: three processes that empty a queue of 120 waiting trials get some of them twice (4 of 40 in a first run). The
#   second process trains for nothing and then fails at `tell` with UpdateFinishedTrialError or ValueError, or its value is lost.
#   With a file lock around `ask` alone no trial is taken twice. PostgreSQL locks the row; SQLite has no such lock.
# The same happens in `study.optimize`, which asks by the same way.
#
# Prints both counts. Exit code 1 if this is no longer so.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet "optuna==5.0.0" "filelock>=3.12" 2> pip.log || { cat pip.log; exit 2; }
cat > race.py <<'PYTHON'
import collections
import contextlib
import multiprocessing

import filelock
import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
WAITING = (optuna.trial.TrialState.WAITING,)


def empty_the_queue(url, lock, queue):
    study, taken = optuna.load_study(study_name="x", storage=optuna.storages.RDBStorage(url)), []
    while study.get_trials(deepcopy=False, states=WAITING):
        with filelock.FileLock(lock) if lock else contextlib.nullcontext():
            trial = study.ask()
        taken.append(trial.number)
        with contextlib.suppress(Exception):
            study.tell(trial, 0.0)
    queue.put(taken)


def taken_twice(lock):
    url = f"sqlite:///trials-{bool(lock)}.db"
    study = optuna.create_study(study_name="x", storage=url)
    for number in range(120):
        study.enqueue_trial({"x": float(number)})
    queue = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=empty_the_queue, args=(url, lock, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    counts = collections.Counter(number for _ in processes for number in queue.get(timeout=300))
    return sum(count > 1 for number, count in counts.items() if number < 120)


if __name__ == "__main__":
    bare, locked = taken_twice(None), taken_twice("lock")
    print(f"optuna {optuna.__version__}: of 120 waiting trials, {bare} taken twice; with a lock around ask, {locked}")
    raise SystemExit(not (bare > 0 and locked == 0))
PYTHON
env/bin/python race.py
