"""How good are the networks of `fer predict`? `python -m reading_faces.study.exported`.

Export to ONNX and 8 bits may cost accuracy. Writes `checks/exported.json`. The test split is read once for
each file: what is there of the same file and the same faces is kept.
"""

import argparse
from contextlib import suppress
from typing import Any

from fer_utils.detector import NETWORKS
from fer_utils.errors import DataError
from fer_utils.evaluation import metrics
from fer_utils.experiment import Workspace, workspace
from fer_utils.files import sha256
from fer_utils.prediction import Predictor
from reading_faces.study.store import read_report, write_report


def scores(space: Workspace, before: dict[str, Any]) -> dict[str, Any]:
    """Metrics on FER2013's validation and test images of every network that travels with the package."""
    networks, faces = {}, space.faces()
    for path in sorted(NETWORKS.glob("*net*.onnx")):
        about = {"sha256": sha256(path), "faces": faces.manifest["checksums"]}
        known = before.get(path.stem, {})
        if any(known.get(key) != value for key, value in about.items()):
            known, network = about | {"megabytes": path.stat().st_size / 1e6}, Predictor(path)
            for split in ("validation", "test"):
                part = faces.split(split, "fer2013")
                known[split] = metrics(part.labels, network.probabilities(part.images))
        networks[path.stem] = known
    return networks


def main(arguments: list[str] | None = None) -> None:
    """Score what is new on the merged set."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(arguments)
    space = workspace("full")
    path, before = space.results / "checks" / "exported.json", {}
    with suppress(DataError):
        before = read_report(path)["networks"]
    networks = scores(space, before)
    write_report(path, {"networks": networks})
    for name, about in networks.items():
        validation, test = (about[split]["accuracy"] for split in ("validation", "test"))
        print(f"{name:20s} validation {validation:.2%}, test {test:.2%}")


if __name__ == "__main__":
    main()
