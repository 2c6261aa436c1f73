"""Which training labels do networks doubt that have not seen the image, and do the ten of FER+ agree?

``python -m reading_faces.study.crossfit easynet epochs=12`` writes `labels/issues.json` below the results
(``labels=both``: `issues-<network>-both.json`) and what can teach others (``teachers=["crossfit/…"]``):
`predictions/crossfit/<network>-seed0-train.npz`. A stopped run goes on.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from scipy.stats import bootstrap
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.evaluation import predict
from fer_utils.experiment import SIX, recipe_for, vote_shares, votes_on, workspace, write_predictions
from fer_utils.files import atomic_path
from fer_utils.models import build
from fer_utils.training import Recipe, fit
from fer_utils.weights import load_pretrained
from reading_faces.study.store import share, write_report

FOLDS = 3


def out_of_fold_predictions(
    network: str, options: dict, recipe: Recipe, faces: FaceSet, targets: np.ndarray, folder: Path, **how: Any
) -> np.ndarray:
    """Predict each training image with a network that was trained on the other folds: float32 (N, 6).

    Copies of an image, and images of one person, are in one fold; the validation images, by which the epoch
    is chosen, are in none. Finished folds are kept under a name that stands for settings, images and targets.
    """
    training, validation = faces.split("train"), faces.split("validation")
    groups = training.index["subject"].astype(object).fillna(training.index["hash"]).to_numpy(str)
    settings = json.dumps([network, options, asdict(recipe), *training.index["hash"]])
    digest = hashlib.sha256(settings.encode() + targets.tobytes()).hexdigest()[:12]
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=recipe.seed)
    predicted = np.zeros((len(training), len(CLASSES)), np.float32)
    for k, (_, held) in enumerate(splitter.split(groups, training.labels, groups)):
        own, path = np.isin(np.arange(len(groups)), held), folder / f"fold{k}-{digest}.parquet"
        if not path.exists():
            others = training.where(~own)
            L.seed_everything(recipe.seed, verbose=False)
            model = build(network, **options)
            if network == "facenet":
                load_pretrained(model, others.images)
            run = fit(model, others, validation, recipe, path.with_suffix(""), targets=targets[~own], **how)
            table = pd.DataFrame(predict(run.model, training.where(own)), columns=list(CLASSES))
            with atomic_path(path) as aside:
                table.to_parquet(aside, index=False)
        predicted[own] = pd.read_parquet(path)
    return predicted


def doubts(labels: np.ndarray, predicted: np.ndarray, votes: np.ndarray) -> dict[str, Any]:
    """Compare the labels that out-of-fold predictions, float (N, 6), doubt with the votes, int (N, 10).

    Returns:
        `images` with votes and one top word; how well the doubts meet the labels that are not that word,
        `differs`, and those that nobody chose, `unvoted`, with precision among the `first`, most suspicious
        ones; `agree`: of doubted labels with another class on top, those for which that class is predicted.
    """
    rows, best, six = np.arange(len(labels)), votes.max(1), votes[:, SIX]
    tied, own = (six.max(1) == best) & ((votes == best[:, None]).sum(1) > 1), six[rows, labels]
    kept, doubted = (best > 0) & ~tied, find_label_issues(labels, predicted, n_jobs=1)
    other = doubted & kept & (own < best) & (six.max(1) == best)

    def hit_rate(wrong: np.ndarray) -> dict[str, Any]:
        wrong, doubt, suspicion = wrong[kept], doubted[kept], -predicted[rows, labels][kept]
        order = np.argsort(-suspicion, kind="stable")
        how = {"paired": True, "vectorized": False, "n_resamples": 200, "method": "percentile", "rng": 0}
        return {
            "wrong": share(wrong),
            "doubted": int(doubt.sum()),
            "precision": share(wrong[doubt]),
            "recall": share(doubt[wrong]),
            "first": {str(n): share(wrong[order[:n]]) for n in (100, 500, 1000, 2000) if n <= len(wrong)},
            "auc": float(roc_auc_score(wrong, suspicion)),
            "auc_interval": list(bootstrap((wrong, suspicion), roc_auc_score, **how).confidence_interval),
        }

    agree = share((predicted.argmax(1) == six.argmax(1))[other])
    rates = {"differs": hit_rate(own < best), "unvoted": hit_rate(own == 0)}
    return {"images": int(kept.sum()), **rates, "agree": agree}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the folds and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=("emonet", "easynet", "facenet"))
    parser.add_argument("settings", nargs="*", help="e.g. epochs=12 precision=bf16-mixed labels=both")
    parser.add_argument("--profile", default="full")
    chosen = parser.parse_args(arguments)
    settings = dict(word.split("=", 1) for word in chosen.settings)
    both, precision = settings.pop("labels", "own") == "both", settings.pop("precision", None)
    space, network = workspace(chosen.profile), chosen.network
    options, recipe = recipe_for(network, space.profile)
    recipe = replace(recipe, **{name: json.loads(value) for name, value in settings.items()})
    faces = space.faces()
    training, name = faces.split("train"), f"crossfit/{network}-seed{recipe.seed}"
    votes = votes_on(training.index, space.data, faces.manifest["disgust"])
    targets = np.eye(len(CLASSES), dtype=np.float32)[training.labels]
    targets = np.hstack([targets, vote_shares(votes)], dtype=np.float32) if both else targets
    how = {"precision": precision, "resume": True}
    predicted = out_of_fold_predictions(network, options, recipe, faces, targets, space.runs / name, **how)
    digest = hashlib.sha256(predicted.tobytes()).hexdigest()
    write_predictions(space.results, name, "train", training.index, digest, flip=predicted)
    curves = sorted((space.runs / name).glob("fold*/history.csv"), key=lambda path: path.stat().st_mtime)
    seconds = sum(float(pd.read_csv(path)["seconds"].sum()) for path in curves[-FOLDS:])
    about = {"profile": space.profile, "name": name, "network": network, "options": options}
    about |= {"recipe": asdict(recipe), "folds": FOLDS, "labels": {"kind": "both" if both else "own"}}
    about |= {"training_seconds": seconds, "accuracy": share(predicted.argmax(1) == training.labels)}
    parts = ["issues", *[network] * (network != "easynet" or both), *["both"] * both]
    path = space.results / "labels" / f"{'-'.join(parts)}.json"
    write_report(path, about | doubts(training.labels, predicted, votes))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
