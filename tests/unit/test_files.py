"""Files and folders after a kill, on a full disk, and while another process writes them."""

import multiprocessing
import os
import resource
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import merged

from fer_utils.datasets.faceset import new_folder
from fer_utils.errors import DataError
from fer_utils.experiment import write_predictions
from fer_utils.files import atomic_path, only_writer, write_json
from fer_utils.training import Checkpoints
from fer_utils.weights import save_checkpoint


@contextmanager
def full_disk(room=1024):
    """No file of this process may grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def in_a_child(work):
    """Do something in a forked process, which ends there and then as if it were killed."""
    if not (pid := os.fork()):
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def predictions(path):
    index = pd.DataFrame({"hash": [f"{i:032x}" for i in range(999)], "split": "validation"})
    shares = np.random.default_rng(0).dirichlet(np.ones(6), len(index))
    write_predictions(path.parents[1], "run", "validation", index, "0" * 64, p=shares)


WRITERS = {
    "report.json": lambda path: write_json(path, list(range(9999))),
    "model.safetensors": lambda path: save_checkpoint(torch.nn.Linear(99, 99), path, {}),
    "last.ckpt": lambda path: Checkpoints().save_checkpoint({"w": torch.zeros(9999)}, path),
    "predictions/run-validation.npz": predictions,
    "faceset/manifest.json": lambda path: merged(path.parents[1], ("fer2013", 12, 80, 150, 0)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_an_error_names_the_file_and_what_was_there_stays(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("before")
    with full_disk(), pytest.raises(OSError, match=f"too large.*{name.split('.')[0].split('/')[0]}"):
        WRITERS[name](path)
    left = {p for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {path} and path.read_text() == "before"


def test_what_killed_processes_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "a[1].json"

    def killed():
        with atomic_path(path) as aside:
            aside.write_text("half")
            os._exit(1)

    in_a_child(killed)
    mine = tmp_path / f".{path.name}.{os.getppid()}"  # of a process that runs
    mine.touch()
    assert len(list(tmp_path.iterdir())) == 2
    write_json(path, 1)
    assert set(tmp_path.iterdir()) == {path, mine}


@pytest.mark.parametrize("moment", ["while it was written", "between the two renames"])
def test_a_folder_of_a_killed_process_is_made_anew_and_the_one_before_is_brought_back(
    tmp_path, monkeypatch, moment
):
    path, rename = tmp_path / "out", Path.rename
    path.mkdir()
    (path / "whole").write_text("before")

    def killed():
        with new_folder(path, replaces="whole") as new:
            (new / "half").touch()
            if moment == "while it was written":
                os._exit(1)
            monkeypatch.setattr(Path, "rename", lambda *names: rename(*names) and os._exit(1))

    in_a_child(killed)
    assert path.exists() == (moment == "while it was written")
    with pytest.raises(RuntimeError), new_folder(path, replaces="whole"):
        raise RuntimeError("the second try fails, too")
    assert (path / "whole").read_text() == "before" and list(tmp_path.iterdir()) == [path]
    with new_folder(path, replaces="whole") as new:
        (new / "whole").write_text("after")
    assert [p.name for p in path.iterdir()] == ["whole"] and list(tmp_path.iterdir()) == [path]


def test_the_second_of_two_is_refused_until_the_first_ends_or_dies(tmp_path):
    held, done = (multiprocessing.get_context("fork").Event() for _ in range(2))

    def hold():
        with only_writer(tmp_path):
            held.set()
            done.wait(30)

    first = multiprocessing.get_context("fork").Process(target=hold, daemon=True)
    first.start()
    assert held.wait(30)
    with pytest.raises(DataError, match=r"another process writes here.*wait"), only_writer(tmp_path):
        pass
    first.kill()
    first.join(30)
    with only_writer(tmp_path):
        pass


def test_numpy_that_runs_out_of_room_is_understood(tmp_path):
    path = tmp_path / "features.npy"
    full = pytest.raises(OSError, match=r"full\?: '.*features\.npy")
    with full_disk(), full, atomic_path(path) as aside, aside.open("wb") as file:
        np.save(file, np.zeros(999))
    assert list(tmp_path.iterdir()) == []
