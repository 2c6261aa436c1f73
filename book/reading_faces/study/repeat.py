"""Does a training repeat its learning curve? `python -m reading_faces.study.repeat STORED=AGAIN …`.

STORED is a results file, AGAIN a run of `fer train --like STORED`, which may not have ended. Writes
`checks/repeated.json`: both learning curves and those of STORED's other seeds, to compare with.
"""

import argparse
import json
from typing import Any

import pandas as pd

from fer_utils.errors import DataError
from fer_utils.experiment import Workspace, read_result, workspace
from reading_faces.study.store import write_report

VALUES = ["train_loss", "val_accuracy"]


def repeated(space: Workspace, stored: str, again: str) -> dict[str, Any]:
    """Compare two learning curves, as far as the later one goes, by the mean distance of their values.

    Raises DataError where one of them is missing.
    """
    first, folder = read_result(space.results / f"{stored}.json"), space.runs / again
    if not (folder / "history.csv").is_file():
        remedy = f"run `fer train --like {stored} --name {again}` for an epoch at least"
        raise DataError("the run has no learning curve", file=folder, remedy=remedy)
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    own = pd.read_csv(folder / "history.csv")[VALUES]
    seeds = sorted(space.results.glob(f"{stored.rpartition('-seed')[0]}-seed*.json"))
    curves = {path.stem: pd.DataFrame(read_result(path).learning_curve)[VALUES][: len(own)] for path in seeds}
    return {
        "stored": stored,
        "again": again,
        "epochs": {"done": len(own), "of": first.recipe["epochs"]},
        "precision": {"stored": first.precision, "again": about["precision"]},
        "revision": {"stored": first.revision, "again": about["revision"]},
        "curves": {name: curve.to_dict("list") for name, curve in ({again: own} | curves).items()},
        "mean_distance": {name: (own - curve).abs().mean().to_dict() for name, curve in curves.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    """Compare some runs with what is stored of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="STORED=AGAIN")
    space = workspace("full")
    runs = [repeated(space, *pair.split("=")) for pair in parser.parse_args(arguments).pairs]
    write_report(space.results / "checks" / "repeated.json", {"runs": runs})
    for run in runs:
        for name, distance in run["mean_distance"].items():
            loss, accuracy = distance["train_loss"], distance["val_accuracy"]
            away = f"training loss {loss:.4f} and accuracy {accuracy:.2%} away from {name}"
            print(f"{run['again']}, {run['epochs']['done']} epochs: {away}")


if __name__ == "__main__":
    main()
