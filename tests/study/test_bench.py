"""The comparison with other packages, without them: what is timed, counted and written."""

import io
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_utils.cli import main
from fer_utils.detector import Detector
from fer_utils.errors import DataError
from reading_faces.study import bench
from reading_faces.study.store import read_report

WHATS = ("wall", "processor", "megabytes", "faces")


@pytest.mark.parametrize("number", range(3))
def test_photos_show_the_faces_that_are_counted(number):
    pixels, faces = bench.photo(number)
    assert pixels.shape == (480, 640, 3)
    assert pixels.dtype == np.uint8
    assert faces == number + 1
    assert np.array_equal(pixels, bench.photo(number)[0])
    assert (Detector(1).detect(pixels)[:, 4] > 0.9).sum() == faces


def test_our_answer_has_a_marker_for_each_face(tmp_path, capsys):
    Image.fromarray(bench.photo(1)[0]).save(tmp_path / "photo.png")
    *_, command, form = bench.ours().command
    assert main([command, form, "--network", "easynet", str(tmp_path / "photo.png")]) == 0
    assert capsys.readouterr().out.count(bench.ours().marker) == 2


def test_a_run_is_measured_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = (
        "import os, sys, time; block = bytearray(150_000_000); block[::4096] = b'1' * len(block[::4096])\n"
        "while time.process_time() < 0.2: pass\n"
        "print(*['face'] * len(sys.argv[1:])); assert os.environ['GIVEN'] != os.getcwd()\n"
        "assert 'OMP_NUM_THREADS' not in os.environ"
    )
    tool = bench.Tool([sys.executable, "-c", code], "face", {"GIVEN": str(Path.cwd())})
    about = tool.run([tmp_path / "a", tmp_path / "b"])
    assert about["faces"] == 2
    assert about["wall"] >= 0.2
    assert about["processor"] >= 0.2
    assert 150 <= about["megabytes"] < 200
    with pytest.raises(subprocess.CalledProcessError) as caught:
        bench.Tool([sys.executable, "-c", "raise SystemExit('no face here')"], "").run([])
    assert b"no face here" in caught.value.stderr


def test_a_tool_that_fails_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "PHOTOS", 1)
    monkeypatch.setattr(bench, "REPEATS", 1)
    codes = {"ours": "print('face')", "other": "import sys; sys.exit('first\\nlast')"}
    tools = {name: bench.Tool([sys.executable, "-S", "-c", code], "face") for name, code in codes.items()}
    missing = {}
    runs = bench.photographs(tools, tmp_path, missing)
    assert missing == {"other": "last"}
    assert list(runs["one_photo"]) == list(runs["all_photos"]) == ["ours"]
    assert runs["all_photos"]["ours"][0]["faces"] == runs["faces"] == 1


def test_rates_are_images_a_processor_second(monkeypatch):
    monkeypatch.setattr(bench, "SECONDS", 0.05)
    sizes = []

    def classify(crops):
        sizes.append(len(crops))
        start = time.process_time()
        while time.process_time() - start < 0.002:
            pass

    rates = bench.measure(classify, np.zeros((64, 1, 1), np.uint8))
    assert set(sizes) == {1, 64}
    assert 100 < rates["1"] <= 500
    assert 64 * 100 < rates["64"] <= 64 * 500


def test_ratios_are_those_of_the_same_turn():
    one = {"ours": [2.0, 1.0, 4.0], "fer": [4.0, 3.0, 16.0]}
    runs = {name: [dict.fromkeys(WHATS, v) for v in values] for name, values in one.items()}
    gained = bench.ratios({"one_photo": runs, "all_photos": {"ours": runs["fer"], "fer": runs["ours"]}})
    assert list(gained) == ["fer"]
    assert gained["fer"]["one_photo, wall"] == [2, 3, 4]
    assert gained["fer"]["all_photos, megabytes"] == [0.25, 0.33, 0.5]


def test_peers_are_installed_once_and_missing_ones_are_named(tmp_path, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("fer_utils/cli.py"))
    calls = []

    def call(command, folder=None):
        calls.append(command[0])
        if command[0] == "npm":
            raise FileNotFoundError("npm is not there")
        if "pip" in command:
            raise subprocess.CalledProcessError(1, "pip", stderr=b"trying\nno network\n")
        return packed.getvalue()

    monkeypatch.setattr(bench, "_call", call)
    monkeypatch.setattr(bench.venv, "create", lambda folder, with_pip: folder.mkdir(parents=True))
    tools, crops, missing = bench.peers(tmp_path)
    assert list(tools) == ["earlier"]
    assert crops == {}
    assert missing == {"fer": "no network", "emotion": "npm is not there"}
    assert (tmp_path / "earlier" / "fer_utils" / "cli.py").exists()
    monkeypatch.setattr(bench, "_call", lambda *_, **__: pytest.fail("installed again"))
    (tmp_path / "fer" / ".ready").touch()
    (tmp_path / "emotion" / ".ready").touch()
    tools, crops, missing = bench.peers(tmp_path)
    assert list(tools) == ["fer", "earlier"]
    assert list(crops) == ["fer", "emotion"]
    assert missing == {}


@pytest.mark.parametrize("real", [False, True])
def test_the_report_says_what_is_missing(tmp_path, monkeypatch, real):
    # Of 66 images, validation has those behind 12 others, and test these; a pixel is the label.
    labels = np.arange(66) % 6
    pixels = np.repeat(labels, 48 * 48).reshape(-1, 48, 48).astype(np.uint8)
    origins = pd.Series([f"fer2013.csv:{line}" for line in range(66)], name="origin")
    source = SimpleNamespace(table=origins.to_frame(), images=pixels)

    def split(name, source):
        rows = slice(12, None) if name == "validation" else slice(12)
        own = origins.to_frame()[rows]
        return SimpleNamespace(images=pixels[rows], labels=labels[rows], index=own)

    def faces():
        if not real:
            raise DataError("there is no merged set", remedy="merge")
        return SimpleNamespace(split=split)

    reads = "import json, sys; c = open(sys.argv[1], 'rb').read()[::4096]\nprint(json.dumps("
    reads += "{'rates': {'1': 10, '64': 20}, 'answers': [min(v, 4) for v in c]}))"  # never neutral
    peers = {}, {"peer": [sys.executable, "-c", reads]}, {"fer": "no network"}
    (tmp_path / "peers" / "peer").mkdir(parents=True)
    predictor = SimpleNamespace(probabilities=lambda crops: np.eye(6)[crops[:, 0, 0] % 6])
    space = SimpleNamespace(results=tmp_path, faces=faces, data=tmp_path)
    values = {
        "PHOTOS": 2,
        "REPEATS": 2,
        "SECONDS": 0.001,
        "NETWORKS": ("easynet",),
        "peers": lambda folder: peers,
        "read_sources": lambda root, names: [source],
    }
    monkeypatch.setattr(bench.Tool, "run", lambda self, photos: dict.fromkeys(WHATS, len(photos)))
    values |= {"workspace": lambda profile: space, "Predictor": lambda name, threads: predictor}
    values |= {"peers_folder": lambda: tmp_path / "peers"}
    for name, value in values.items():
        monkeypatch.setattr(bench, name, value)
    bench.main([])
    photos, crops = (read_report(tmp_path / "benchmarks" / f"{part}.json") for part in ("photos", "crops"))
    assert photos["faces"] == 3
    assert photos["all_photos"] == {"ours": [dict.fromkeys(WHATS, 2)] * 2}
    assert photos["one_photo"] == {"ours": [dict.fromkeys(WHATS, 1)] * 2}
    assert crops["networks"]["peer"]["images_per_second"] == {"1": [10, 10], "64": [20, 20]}
    assert len(crops["networks"]["easynet"]["images_per_second"]["64"]) == 2
    keys = ("accuracy", "test_accuracy")
    scores = [[network.get(key) for key in keys] for network in crops["networks"].values()]
    assert scores == ([[1, None], [45 / 54, 10 / 12]] if real else [[None, None]] * 2)
    assert crops["missing"].keys() == photos["missing"].keys() == ({"fer"} if real else {"fer", "accuracy"})


def test_a_part_is_measured_alone(tmp_path, monkeypatch):
    space = SimpleNamespace(results=tmp_path)
    monkeypatch.setattr(bench, "workspace", lambda profile: space)
    monkeypatch.setattr(bench, "peers", lambda folder: ({}, {}, {}))
    monkeypatch.setattr(bench, "classifiers", lambda *_: {"easynet": {}})
    monkeypatch.setattr(bench, "score", lambda *_: None)
    bench.main(["crops"])
    assert [path.name for path in (tmp_path / "benchmarks").iterdir()] == ["crops.json"]
