"""Kills at random moments: does the next run complete, and equal an undisturbed one?

Each operation runs once undisturbed. Then its process group is killed (SIGKILL) at moments drawn uniformly
over the time that this took, the same command is given again, and the files that it leaves are compared; one
too many is a fault. Faces are drawn. Processes are forked from one that has imported PyTorch, so that kills
meet work and not imports; `make book`, with one chapter to run, follows one that has been made here.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fer_utils import cli
from fer_utils.augment import Augment
from fer_utils.demo.layouts import demo_faces, write_demo
from fer_utils.emotions import CLASSES
from fer_utils.experiment import project_root, workspace
from fer_utils.models import build
from reading_faces import features
from reading_faces.study import sweep
from reading_faces.study.store import write_report

ROOT, CHAPTER = project_root(), "build/demo/run/notebooks/methods.ipynb"
TRAIN = ("train", "easynet", "--name=toy", "widths=[4,8,8]", "hidden=16", "epochs=6", "batch_size=32")
SEARCH = {"trials": 2, "epochs": 1, "batches": 4, "batch_size": 32, "input_size": 32}
VARIES = {"date", "seconds", "training_seconds", "images_per_second"}  # from run to run
PRIVATE = {".ckpt", ".db", ".js", ".inv", ".ipynb"}  # endings of files that say the same in other bytes


def _fer(*words: str) -> None:
    sys.exit(cli.main(list(words)))


def _draw() -> None:
    write_demo("data", fer2013=150, ckplus=4, jaffe=3)
    Path("pictures").mkdir()
    for number, face in enumerate(demo_faces(CLASSES, size=240)):
        Image.fromarray(face).save(f"pictures/{number}.png")


def _predict() -> None:
    os.dup2(os.open("faces.csv", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    _fer("predict", "pictures", "--csv", "--annotate", "annotated")


def _cache() -> None:
    torch.manual_seed(0)
    net = build("facenet", trunk="easynet", pretrained="none", trunk_width=0.5, freeze=1.0, input_size=64)
    features.compute(net, workspace("full").faces(), Path("features"), views=6, augment=Augment(flip=0.5))


def _search() -> None:
    sweep.RETRY, sweep.SEEDS = {"heartbeat_interval": 1, "grace_period": 2}, (1,)
    sweep.importance = lambda trials: {}  # of two trials there is none
    sweep.run(dataclasses.replace(workspace("full"), profile="demo"), **SEARCH)


def _checkout() -> None:
    left_out = shutil.ignore_patterns(".git", ".venv", "dist", "features", "html", "site", "peers", "tools")
    shutil.copytree(ROOT, Path(), dirs_exist_ok=True, ignore=left_out)
    Path(CHAPTER).unlink()
    for part in Path(sys.prefix).iterdir():  # the environment, as it is
        Path(".venv", part.name).parent.mkdir(exist_ok=True)
        Path(".venv", part.name).symlink_to(part)
    Path(".venv", ".ready").unlink(missing_ok=True)
    shutil.copy2("pyproject.toml", ".venv/.ready")  # whose time is all that make asks for


def _book() -> None:
    del os.environ["FER_BUILD"]
    sys.exit(subprocess.run(["make", "book"]).returncode)


# The function that does it, what is done before it, and how often it is killed.
OPERATIONS: dict[str, tuple[Callable[[], None], str, int]] = {
    "draw": (_draw, "nothing", 0),
    "older": (partial(_fer, "merge", "--seed=1"), "draw", 0),
    "merge": (partial(_fer, "merge"), "older", 14),
    "train": (partial(_fer, *TRAIN, "--resume"), "merge", 14),
    "evaluate": (partial(_fer, "evaluate", "toy"), "train", 10),
    "predict": (_predict, "draw", 10),
    "features": (_cache, "merge", 8),
    "search": (_search, "merge", 8),
    "checkout": (_checkout, "nothing", 0),
    "book": (_book, "checkout", 3),
}


def start(name: str, folder: Path) -> multiprocessing.Process:
    """Begin an operation in a folder, which has what it needs if it is new, in a process group of its own."""

    def work() -> None:
        os.setpgrp()
        os.chdir(folder)
        os.environ |= {"FER_DATA": "data", "FER_BUILD": "build"}
        for stream in (1, 2):
            os.dup2(os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
        OPERATIONS[name][0]()

    if not folder.exists():
        shutil.copytree(folder.with_name(OPERATIONS[name][1]), folder, symlinks=True)
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    os.setpgid(process.pid, process.pid)  # this process or the child, whichever comes first
    return process


def left(folder: Path) -> dict[str, str]:
    """Digests of the files below a folder, without what varies; of a checkout, of the built pages."""

    def same(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: same(each) for key, each in value.items() if key not in VARIES}
        return [same(each) for each in value] if isinstance(value, list) else value

    def content(path: Path) -> bytes:
        if path.suffix == ".json":
            return json.dumps(same(json.loads(path.read_text(encoding="utf-8")))).encode()
        if path.name == "history.csv":
            return pd.read_csv(path).drop(columns=VARIES, errors="ignore").to_csv().encode()
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return b"".join(key.encode() + arrays[key].tobytes() for key in sorted(arrays))
        return b"" if path.suffix in PRIVATE else path.read_bytes()

    below = folder / "build" / "demo" / "html" if (folder / "Makefile").exists() else folder
    found = {str(path.relative_to(below)): path for path in below.rglob("*") if path.is_file()}
    return {n: hashlib.sha256(content(p)).hexdigest() for n, p in found.items() if p.suffix != ".lock"}


def undisturbed(name: str, folder: Path) -> float:
    """Run an operation, and first what it needs, in folders of their own; returns its seconds."""
    if not folder.with_name(needed := OPERATIONS[name][1]).exists():
        undisturbed(needed, folder.with_name(needed))
    begin, process = time.monotonic(), start(name, folder)
    process.join()
    assert not process.exitcode, folder.with_suffix(".log").read_text()
    return time.monotonic() - begin


def examine(name: str, root: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Kill an operation as often as `OPERATIONS` says, and tell what its next runs came to."""
    seconds, kills, faults = undisturbed(name, root / name), OPERATIONS[name][2], []
    expected, made = left(root / name), 0
    while made < kills:
        folder, moment = root / "again", rng.uniform(0, seconds)
        process = start(name, folder)
        process.join(moment)
        if process.exitcode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
            made += 1
            (again := start(name, folder)).join()
            found = left(folder)
            differ = sorted(n for n in expected | found if expected.get(n) != found.get(n))
            if again.exitcode or differ:
                faults.append({"at": round(moment / seconds, 3), "code": again.exitcode, "differ": differ})
                print(name, faults[-1], folder.with_suffix(".log").read_text()[-2000:], file=sys.stderr)
        shutil.rmtree(folder)
    return {"seconds": round(seconds, 1), "kills": kills, "equal": kills - len(faults), "faults": faults}


def main(names: list[str]) -> None:
    """Kill the operations that are named, or all and write the report."""
    done = {}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "nothing").mkdir()
        for name in names or [name for name, (_, _, kills) in OPERATIONS.items() if kills]:
            done[name] = examine(name, Path(folder), np.random.default_rng([0, *name.encode()]))
            print(name, done[name], flush=True)
    if not names:
        sums = {key: sum(each[key] for each in done.values()) for key in ("kills", "equal")}
        path = workspace("full").results / "reliability" / "kills.json"
        write_report(path, {"seed": 0, **sums, "operations": done})


if __name__ == "__main__":
    main(sys.argv[1:])
