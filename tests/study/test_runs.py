"""Chapters share their runs."""

from types import SimpleNamespace

from reading_faces import runs


def test_the_chapters_share_runs(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "train", lambda *a, resume=False, **o: asked.append(resume))
    monkeypatch.setattr(runs, "load_run", lambda space, name, verbose: asked.append(name))
    real = SimpleNamespace(profile="full", runs=tmp_path / "full")
    runs.train_or_load(real, "easynet", name="x", seed=3)
    (real.runs / "x" / "model.safetensors").touch()
    runs.train_or_load(real, "easynet", name="x", seed=3)
    assert asked == [True, "x"], "a real run that was stopped goes on; a finished one is loaded"
    demo = SimpleNamespace(profile="demo", runs=tmp_path / "demo")
    for _ in range(2):
        runs.train_or_load(demo, "easynet")
    assert asked[2:] == [False, True], "a demo run is shared while the code is the same"
    (demo.runs / "easynet-seed0" / "code").write_text("another")
    runs.train_or_load(demo, "easynet")
    assert asked[4:] == [False]
