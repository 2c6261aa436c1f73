"""Learning curves are compared with their own seed's and with the others'."""

import json

import pandas as pd
import pytest

from fer_utils.errors import DataError
from fer_utils.experiment import Workspace, workspace
from reading_faces.study import repeat
from reading_faces.study.store import read_report

STORED = "facenet-both-seed0"


def test_a_curve_is_compared_with_every_seed_as_far_as_it_goes(tmp_path, monkeypatch, capsys):
    results = workspace("full").results
    for path in results.glob("facenet-both-seed*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    space = Workspace("full", tmp_path, tmp_path, tmp_path)
    monkeypatch.setattr(repeat, "workspace", lambda profile: space)
    with pytest.raises(DataError, match=r"no learning curve.*fer train --like facenet-both-seed0"):
        repeat.main([f"{STORED}=again"])
    folder = space.runs / "again"
    folder.mkdir(parents=True)
    curve = pd.DataFrame(json.loads((results / f"{STORED}.json").read_text())["learning_curve"])[:5]
    curve["val_accuracy"] += [0.01, -0.01, 0.01, -0.01, 0]
    curve.to_csv(folder / "history.csv", index=False)
    (folder / "run.json").write_text(json.dumps({"precision": "32-true", "revision": "now"}))

    repeat.main([f"{STORED}=again"])
    (run,) = read_report(tmp_path / "checks" / "repeated.json")["runs"]
    assert run["epochs"] == {"done": 5, "of": 12}
    assert run["mean_distance"][STORED] == pytest.approx({"train_loss": 0, "val_accuracy": 0.008})
    assert set(run["mean_distance"]) == {f"facenet-both-seed{seed}" for seed in range(3)}
    assert all(distance["train_loss"] > 0 for run, distance in run["mean_distance"].items() if run != STORED)
    assert {len(curve["val_accuracy"]) for curve in run["curves"].values()} == {5}
    assert f"loss 0.0000 and accuracy 0.80% away from {STORED}" in capsys.readouterr().out
