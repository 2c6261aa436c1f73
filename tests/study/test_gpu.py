"""Fifteen minutes of a GPU: what travels, what is kept when time is short, and what becomes of it at home."""

import json
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from layouts import csv_bytes, write
from torch import nn

from fer_utils.datasets import ferplus, read_sources
from fer_utils.datasets.merge import merge
from fer_utils.errors import DataError
from fer_utils.experiment import TEACHING, evaluate, read_predictions, settings_of, workspace
from fer_utils.training import Recipe
from reading_faces.study import gpu
from reading_faces.study.gpu import Configuration, FromScratch, Pupil

QUICK, SMALL = Recipe(epochs=1, batch_size=24, mixup=0.2), {"widths": [4, 8, 8], "hidden": 16}
TOY = {
    "pupil": Configuration("easynet", SMALL, QUICK, taught=True),
    "endless": Configuration("easynet", SMALL, Recipe(epochs=10**6, batch_size=24, augment=None)),
    "vgg": Configuration("vgg", {"side": 16}, QUICK),
}


@pytest.fixture
def space(tmp_path, monkeypatch):
    """FER2013 and FER+ of noise, merged, and configurations that take no time."""
    images = np.random.default_rng(0).integers(0, 256, (84, 48, 48), dtype=np.uint8)
    usages = np.repeat(["Training", "PublicTest", "PrivateTest"], [48, 18, 18]).tolist()
    write(
        tmp_path / "data/fer2013.csv",
        csv_bytes(images, [(0, 2, 3, 4, 5, 6)[i % 6] for i in range(84)], usages),
    )
    votes = [f"{usage},fer.png,{i % 5},0,0,0,0,0,0,1,0,0" for i, usage in enumerate(usages)]
    write(tmp_path / "data/fer2013new.csv", "\n".join([",".join(ferplus.HEADER), *votes]))
    for name in ("data", "build"):
        monkeypatch.setenv(f"FER_{name.upper()}", str(tmp_path / name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gpu, "CONFIGURATIONS", TOY)
    monkeypatch.setitem(gpu.cfgs, "D", [4, "M", 512, "M"])
    space = workspace("full")
    merge(read_sources(space.data), space.faceset, progress=False)
    return space


def test_from_the_merged_set_to_a_results_file(space, tmp_path, monkeypatch, capsys):
    file, out = tmp_path / "faces.npz", tmp_path / "gpu"
    gpu.main(["pack", str(file)])
    _, faces, targets = gpu.unpack(file)
    kept = space.faces().where((space.faces().index["split"] != "test").to_numpy())
    assert faces.index.equals(kept.index[["label", "split"]]) and len(faces) == 66
    np.testing.assert_array_equal(faces.images, kept.images)
    assert (targets[:, :6].argmax(1) == kept.labels).all()
    np.testing.assert_allclose(targets[3, 6:], [0, 0, 0, 0, 0, 3 / 4, 1 / 4])  # neutral, and contempt

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "save_checkpoint", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            gpu.main(["train", str(file), str(out), "--only", "vgg"])
    trained = (out / "vgg/last.ckpt").read_bytes()
    gpu.main(["train", str(file), str(out), "--minutes", "0"])
    gpu.main(["train", str(file), str(out)])
    printed = capsys.readouterr().out
    assert "pupil is left out: DataError" in printed and "endless is left out: TimeoutError" in printed
    assert trained and [path.parent.name for path in out.glob("*/probabilities.npz")] == ["vgg"]
    assert [path.name for path in out.glob("*/*.ckpt")].count(
        "last.ckpt"
    ) == 1  # of what goes on another time
    weights = (out / "vgg/model.safetensors").stat().st_mtime_ns
    gpu.main(["train", str(file), str(out), "--only", "vgg", "pupil"])
    assert (out / "vgg/model.safetensors").stat().st_mtime_ns == weights

    run = json.loads((out / "pupil/run.json").read_text())
    assert list(run["teachers"]["checkpoints"]) == ["vgg"] and run["command"].endswith("--only vgg pupil")
    (out / "pupil/run.json").write_text(json.dumps(run | {"processor": "NVIDIA H100"}))
    gpu.main(["collect", str(out)])
    assert {path.name for path in space.runs.iterdir()} == {"pupil"}
    result = evaluate(space, "pupil")
    best = pd.read_csv(out / "pupil/history.csv")["val_accuracy"].max()
    assert result.validation["fer2013"]["accuracy"] == pytest.approx(best, abs=0.06)
    assert result.processor == "NVIDIA H100" and not result.test
    with pytest.raises(ValueError, match="gpu train FILE FOLDER --only vgg pupil"):
        settings_of(result)
    for name in ("vgg", "pupil"):
        told, there = (
            read_predictions(space.results, name, "train"),
            np.load(out / name / "probabilities.npz"),
        )
        np.testing.assert_allclose(told.to_numpy(), there["train"], atol=1e-3)
        assert there["train"].dtype == np.float16 and there["validation"].shape == (18, 6)

    (space.faceset / "manifest.json").write_text(
        (space.faceset / "manifest.json").read_text().replace('"images.npy": "', '"images.npy": "0')
    )
    with pytest.raises(DataError, match="another merged set"):
        gpu.main(["collect", str(out)])


def test_teachers_answer_the_batch_that_the_pupil_sees():
    teacher = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 6)).eval()
    pupil = Pupil(nn.Linear(1, 13), Recipe(mixup=1.0), 7, teachers=[teacher, teacher])
    images, targets = torch.rand(8, 1, 4, 4), torch.eye(13)[:8]
    torch.manual_seed(0)
    mixed, answered = pupil.mix(images, targets)
    torch.manual_seed(0)
    pupil.teachers = []
    alone, own = pupil.mix(images, targets)
    assert not torch.equal(mixed, images) and torch.equal(mixed, alone)
    torch.testing.assert_close(
        answered[:, :6], (1 - TEACHING) * own[:, :6] + TEACHING * teacher(mixed).softmax(1)
    )
    assert torch.equal(answered[:, 6:], own[:, 6:]) and "teachers" not in str(pupil.state_dict().keys())


def test_the_vgg_has_thirteen_convolutions():
    with torch.device("meta"):
        network = FromScratch("vgg", 48)
        assert network(torch.rand(2, 1, 64, 64)).shape == (2, 6)
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 13
