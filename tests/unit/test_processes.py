"""Several processes train as one, and go on after one of them was killed."""

import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import sys

import lightning as L
import pandas as pd
import pytest
import torch
from layouts import to_their_ends
from torch.nn.modules.batchnorm import _BatchNorm

from fer_utils.cli import main
from fer_utils.experiment import evaluate, settings_of, workspace
from fer_utils.files import sha256
from fer_utils.models import EasyNet
from fer_utils.training import Classifier, Recipe, fit

RECIPE = Recipe(epochs=2, batch_size=32, augment=None)
HALF = dataclasses.replace(RECIPE, batch_size=16)
TWO = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}
WORDS = "train easynet --profile demo --name two widths=4,8,8 hidden=16 stride=2 epochs=2 batch_size=30"
WORDS = [*WORDS.split(), *(f"{name}={value}" for name, value in TWO.items())]


def in_two_processes(run):
    """Call `run(rank)` in two processes as torchrun and Slurm do; gives their exit codes."""
    fork = multiprocessing.get_context("fork")

    def both(attempt):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        return [fork.Process(target=in_process, args=(run, rank, port), daemon=True) for rank in (0, 1)]

    return [process.exitcode for process in to_their_ends(both)]


def in_process(run, rank, port):
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(address, NODE_RANK="0", LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    sys.exit(run(rank))


@pytest.fixture
def space(toy_faces, tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "faceset").symlink_to(toy_faces.path)
    monkeypatch.setenv("FER_BUILD", str(tmp_path))
    return workspace("demo")


def test_two_processes_with_half_the_batch_end_as_one(toy_faces, tmp_path, monkeypatch):
    def train(folder, recipe, **options):
        L.seed_everything(0, verbose=False)
        net = EasyNet(widths=(4, 8, 8), hidden=16, dropout=0, stride=2)
        for module in net.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        halves = toy_faces.split("train"), toy_faces.split("validation")
        return fit(net, *halves, recipe, tmp_path / folder, verbose=False, **options)

    def half(rank):
        (tmp_path / f"validated-{rank}").unlink(missing_ok=True)
        train("two", HALF, **TWO)

    one, step = train("one", RECIPE, accelerator="cpu"), Classifier.validation_step

    def noted(self, batch, index):
        with (tmp_path / f"validated-{self.global_rank}").open("a") as file:
            file.write(f"{batch[0].sum():.2f}\n" * len(batch[0]))
        return step(self, batch, index)

    monkeypatch.setattr(Classifier, "validation_step", noted)
    assert in_two_processes(half) == [0, 0]
    validated = [(tmp_path / f"validated-{rank}").read_text().split() for rank in (0, 1)]
    assert [len(rows) for rows in validated] == [60, 60], "half of 60 images, two epochs"
    assert not set(validated[0]) & set(validated[1])
    last = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("one", "two"))
    torch.testing.assert_close(*(each["state_dict"] for each in last), rtol=0, atol=1e-5)
    history = pd.read_csv(tmp_path / "two" / "history.csv")
    columns = ["epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"]
    pd.testing.assert_frame_equal(one.history[columns], history[columns], rtol=1e-4)


def test_after_one_of_two_was_killed_both_resume_to_the_same_weights(space, tmp_path, monkeypatch, capsys):
    def train(rank, *more):
        file = os.open(tmp_path / f"printed-{rank}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.stdout = os.fdopen(1, "w")
        return main([*WORDS, *more])

    step, run = Classifier.training_step, space.runs / "two"

    def dying(self, batch, index):
        if self.current_epoch == 1 and self.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, batch, index)

    assert in_two_processes(train) == [0, 0]
    files, straight = sorted(path.name for path in run.iterdir()), sha256(run / "model.safetensors")
    kept = "best.ckpt history.csv last.ckpt model.safetensors previous.ckpt run.json writer.lock"
    assert files == kept.split()
    assert (tmp_path / "printed-0").read_text().count("best on validation") == 1
    assert "epoch" not in (tmp_path / "printed-1").read_text()
    with monkeypatch.context() as patched:
        patched.setattr(Classifier, "training_step", dying)
        first, second = in_two_processes(train)
    assert first and second == -signal.SIGKILL and not (run / "model.safetensors").exists()
    assert list(pd.read_csv(run / "history.csv")["epoch"]) == [1]
    assert main([*WORDS, "--resume", "devices=1", "strategy=auto"]) == 1
    assert "processes changed" in capsys.readouterr().err
    assert in_two_processes(lambda rank: train(rank, "--resume")) == [0, 0]
    assert sha256(run / "model.safetensors") == straight
    result = evaluate(space, "two")
    assert result.processes == json.loads((run / "run.json").read_text())["processes"] == 2
    assert settings_of(result)["devices"] == 2
