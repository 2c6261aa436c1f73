"""Scores of the stored runs as one tidy table, with names that a reader would use."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.emotions import CLASSES
from fer_utils.experiment import Result, read_predictions, read_result
from reading_faces.study.stats import mean_score

RESULTS = Path(__file__).resolve().parents[2] / "results"  # of real data, as they come with the book
# The runs behind the book's scores, below RESULTS.
RUNS = ("*-seed*.json", "labels/*-seed*.json", "small/*-seed*.json")
RUN_NAMES = {
    "emonet": "EmoNet",
    "easynet": "EasyNet",
    "easynet-both": "EasyNet, with votes",
    "easynet-taught": "EasyNet, distilled",
    "easynet-both-taught": "EasyNet, votes + distilled",
    "easynet-both-taught-calibrated": "EasyNet, votes + distilled, calibrated",
    "easynet-both-taught-70": "EasyNet, votes + distilled, 70 epochs",
    "small/easynet-16": "EasyNet, small",
    "small/easynet-12": "EasyNet, small, 12 filters",
    "small/easynet": "EasyNet, small, steps of two",
    "labels/easynet-ferplus": "EasyNet, votes only",
    "facenet": "FaceNet",
    "facenet-poster": "FaceNet, the poster's head",
    "facenet-taught": "FaceNet, distilled",
    "facenet-both": "FaceNet, with votes",
    "facenet-both-160": "FaceNet, with votes, 160 px",
    "facenet-both-160-calibrated": "FaceNet, with votes, 160 px, calibrated",
}
VARIANTS = {"": "plain", "+flip": "flip", "+ten-crop": "ten-crop", "-deduplicated": "deduplicated"}


def load_scores(*patterns: str, folder: Path = RESULTS) -> pd.DataFrame:
    """Read the results files in a folder that fit patterns and are `comparable`, as a table like `tidy`'s.

    Runs are in the order of `RUN_NAMES`, then others, by seed.
    """
    results = (read_result(path) for pattern in patterns or RUNS for path in sorted(folder.glob(pattern)))
    table = tidy(result for result in results if comparable(result))
    if table.empty:
        return table
    order = list(RUN_NAMES.values())
    place = [order.index(name) if name in order else len(order) for name in table["training"]]
    return table.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)


def comparable(result: Result) -> bool:
    """Whether a run was scored on data as their owners publish them, with disgust left out."""
    return result.protocol["disgust"] == "drop" and not result.protocol["other_splits"]


def tidy(results: Iterable[Result]) -> pd.DataFrame:
    """Make a table of results: one row a run, split, source and variant, which is one of `VARIANTS`.

    `training` is the reader's name of a run, `low` and `high` are the ends of accuracy's 95% interval, `ece`
    is the calibration error; shares are 0–1. `confusion` is int (6, 6), labels down, predictions across.
    """
    rows = []
    for result in results:
        about = _about(result)
        for split, known in (("validation", result.validation), ("test", result.test)):
            for key, scores in known.items():
                source, suffix = re.fullmatch(r"(\w+)([-+].+)?", key).groups()
                rows.append(
                    about
                    | {"split": split, "source": source, "variant": VARIANTS[suffix or ""]}
                    | {name: scores[name] for name in ("images", "accuracy", "macro_f1")}
                    | dict(zip(("low", "high"), scores["accuracy_interval"], strict=True))
                    | {
                        "ece": scores["expected_calibration_error"],
                        "confusion": np.array(scores["confusion"]),
                    }
                )
    return pd.DataFrame(rows)


def seed_means(scores: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds: one row a training, split, source and variant, in the order of the scores.

    `low` and `high` are for images and seeds, `std` is missing for one seed; `confusion` is the sum.
    """
    keys = ["network", "training", "split", "source", "variant"]
    rows = [
        dict(zip(keys, key, strict=True))
        | mean_score(group[["accuracy", "images"]].to_dict("records"))
        | group[["macro_f1", "parameters", "hours"]].mean().to_dict()
        | {"confusion": sum(group["confusion"])}
        for key, group in scores.groupby(keys, sort=False)
    ]
    return pd.DataFrame(rows)


def published() -> pd.DataFrame:
    """Read others' figures: accuracies 0–1, with the `network` of ours and the `source` in the references."""
    return pd.read_csv(RESULTS.parent / "anchors.csv")


def _about(result: Result) -> dict[str, Any]:
    """What is the same in all rows of a run."""
    stem = re.sub(r"-seed\d+$", "", result.name)
    curve = pd.DataFrame(result.learning_curve)
    return {
        "run": result.name,
        "network": {"emonet": "EmoNet", "easynet": "EasyNet", "facenet": "FaceNet"}[result.model["name"]],
        "training": RUN_NAMES.get(stem) or RUN_NAMES.get(stem.split("/")[-1], stem),
        "seed": result.recipe["seed"],
        "parameters": result.model["parameters"],
        "trained_parameters": result.model.get("trained_parameters"),
        "epochs": len(curve),
        "best_epoch": int(curve["epoch"][curve["val_accuracy"].idxmax()]),
        "hours": result.training_seconds / 3600,
        "calibrated": bool(result.calibrated),
    }


def correct_by_run(runs: Iterable[str], split: str) -> np.ndarray:
    """Whether stored runs classified FER2013's images of a split correctly: bool (runs, images)."""
    tables = [read_predictions(RESULTS, run, split).query("source == 'fer2013'") for run in runs]
    answers = [table[[f"p_{name}" for name in CLASSES]].to_numpy().argmax(axis=1) for table in tables]
    return np.array([answer == table["label"] for answer, table in zip(answers, tables, strict=True)])
