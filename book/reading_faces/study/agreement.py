"""How often do FER2013's labels, and networks, agree with the ten votes of FER+?

``python -m reading_faces.study.agreement`` writes `labels/agreement.json` below the results;
``--runs easynet-seed0 …`` writes `labels/networks.json` instead: where evaluated runs stand between the two.

Votes are int64 (N, 10), in the order of `fer_utils.datasets.ferplus.VOTES`, at least one an image. Those for
words beside the six classes are kept: without them, people would look more certain than they were.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import entropy

from fer_utils.datasets.base import SPLITS
from fer_utils.datasets.faceset import FaceSet
from fer_utils.datasets.ferplus import VOTES
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.experiment import SIX, Workspace, read_predictions, read_result, votes_on, workspace
from fer_utils.files import sha256
from reading_faces.study.store import share, write_report

OUTSIDE, UNDECIDED = 6, 7  # of `plurality` and `majority`, beside the classes 0–5
CLASS_OF = np.array([SIX.index(word) if word in SIX else OUTSIDE for word in range(len(VOTES))])
# How much the ten agree: least and largest share of the most frequent word.
BANDS = {
    "five or fewer of ten": (0.0, 0.5),
    "six or seven": (0.55, 0.75),
    "eight or nine": (0.77, 0.95),
    "all ten": (1.0, 1.0),
}


def plurality(votes: np.ndarray) -> np.ndarray:
    """Find the top word: int64 (N,), 0–5, `OUTSIDE` the six, or `UNDECIDED` where a class is tied for it."""
    first = votes == votes.max(1, keepdims=True)
    tied = first[:, SIX].any(1) & (first.sum(1) > 1)
    return np.where(tied, UNDECIDED, CLASS_OF[first.argmax(1)])


def majority(votes: np.ndarray) -> np.ndarray:
    """Find the word with over half of the votes, words with one vote taken out first: FER+'s own rule."""
    kept = np.where(votes > 1, votes, 0)
    return np.where(2 * kept.max(1) > kept.sum(1), CLASS_OF[kept.argmax(1)], UNDECIDED)


def agreement(labels: np.ndarray, votes: np.ndarray) -> dict[str, Any]:
    """Compare labels, int (N,), with the votes on the same images.

    Returns:
        - `top`: images whose label is the `plurality`, where undecided counts as no, and `by_class`;
        - `undecided`, `outside`: images by that other outcome of `plurality`;
        - `majority`: images whose label is FER+'s `majority`, of those where it is one of the six;
        - `table`: counts, label (rows) by plurality (columns: the six, outside, undecided);
        - `entropy` of the votes over ten words, bits: `mean` and `by_class`; and `ceiling`.
    """
    top, strict, bits = plurality(votes), majority(votes), entropy(votes, base=2, axis=1)
    table = np.zeros((len(CLASSES), UNDECIDED + 1), int)
    np.add.at(table, (labels, top), 1)

    def by_class(right: np.ndarray, own: np.ndarray) -> dict[str, Any]:
        return share(right) | {"by_class": {c: share(right[own == i]) for i, c in enumerate(CLASSES)}}

    clear = strict < OUTSIDE
    means = {c: float(bits[labels == i].mean()) for i, c in enumerate(CLASSES) if i in labels}
    return {
        "images": len(labels),
        "top": by_class(top == labels, labels),
        "undecided": share(top == UNDECIDED),
        "outside": share(top == OUTSIDE),
        "majority": by_class((strict == labels)[clear], labels[clear]),
        "table": table.tolist(),
        "entropy": {"mean": float(bits.mean()), "by_class": means},
        "ceiling": ceiling(labels, votes),
    }


def ceiling(labels: np.ndarray, votes: np.ndarray) -> dict[str, float]:
    """Say how often one of the ten, drawn at random, chooses what a label or others chose.

    Returns:
        - `person_and_label`: the label;
        - `person_and_person`: what another of the ten chose;
        - `person_and_others`: the top word of the other nine; of w tied words one counts 1/w;
        - `best_against_person`: the most frequent word. No prediction can match one of these ten more often;
          it is a little too high, as the word is chosen after the votes are known.
    """
    total, agrees = votes.sum(1), np.zeros(len(votes))
    for word, one in enumerate(np.eye(len(VOTES), dtype=int)):
        leads = (votes - one) == (votes - one).max(1, keepdims=True)
        agrees += votes[:, word] * leads[:, word] / leads.sum(1)
    several = votes[total > 1]
    pairs = (several * (several - 1)).sum(1) / (several.sum(1) * (several.sum(1) - 1))
    return {
        "person_and_label": float((votes[np.arange(len(votes)), np.array(SIX)[labels]] / total).mean()),
        "person_and_person": float(pairs.mean()),
        "person_and_others": float((agrees / total).mean()),
        "best_against_person": float((votes.max(1) / total).mean()),
    }


def copies(index: pd.DataFrame, votes: np.ndarray) -> dict[str, Any]:
    """Compare the labels and votes of exact copies of one image, from the index of a `FaceSet`.

    Returns:
        `groups` of copies and `images` in them; of the pairs of copies, those with the `same_label` and with
        the `same_votes`; `conflicting` groups, whose labels differ, and of these `settled` ones, where the
        plurality of all their votes is one of the labels.
    """
    label = index["label"].to_numpy()
    groups = [rows for rows in index.groupby("hash").indices.values() if len(rows) > 1]
    a, b = np.array([(a, b) for rows in groups for a in rows for b in rows if a < b], int).reshape(-1, 2).T
    conflicts = [rows for rows in groups if len(set(label[rows])) > 1]
    settled = [plurality(votes[rows].sum(0, keepdims=True))[0] in label[rows] for rows in conflicts]
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "conflicting": len(conflicts),
        "same_label": share(label[a] == label[b]),
        "same_votes": share((votes[a] == votes[b]).all(1)),
        "settled": share(np.array(settled, bool)),
    }


def between(labels: np.ndarray, predicted: np.ndarray, votes: np.ndarray) -> dict[str, Any]:
    """Compare a network's predictions, int (N,), with labels, int (N,), and votes on the same images.

    Returns:
        - accuracy by the `label`, and by FER+'s `majority` where it is one of the six;
        - `bands` by how much the ten agree: accuracy by the `label`, and by the `top` word of the six;
        - `sides`: where label and top word differ, how often the prediction is either, or `neither`.
    """
    top, strict, most = plurality(votes), majority(votes), votes.max(1) / votes.sum(1)
    six, by_label, by_top = top < OUTSIDE, predicted == labels, predicted == top
    bands = {name: (most >= low) & (most <= high) for name, (low, high) in BANDS.items()}
    sides = {"label": by_label, "top": by_top, "neither": ~(by_label | by_top)}
    return {
        "images": len(labels),
        "label": share(by_label),
        "majority": share((predicted == strict)[strict < OUTSIDE]),
        "bands": {n: {"label": share(by_label[m]), "top": share(by_top[m & six])} for n, m in bands.items()},
        "sides": {name: share(side[six & (top != labels)]) for name, side in sides.items()},
    }


def run_between(space: Workspace, faces: FaceSet, votes: np.ndarray, name: str) -> dict[str, Any]:
    """Score a run `between` labels and votes, by split, from its stored predictions: no image is read.

    Raises:
        DataError: the run has not been evaluated, or on other images than these.
    """
    result, scores = read_result(space.results / f"{name}.json"), {}
    for split in ("validation", "test") if result.test else ("validation",):
        table = read_predictions(space.results, name, split).query("source == 'fer2013'")
        part = faces.index["split"].eq(split).to_numpy()
        if table["origin"].tolist() != faces.index["origin"][part].tolist():
            problem = f"{name} was evaluated on other {split} images"
            raise DataError(problem, file=faces.path, remedy=f"run `fer evaluate {name}` again")
        predicted = table[[f"p_{c}" for c in CLASSES]].to_numpy().argmax(1)
        scores[split] = between(faces.labels[part], predicted, votes[part])
    kind = (result.labels or {"kind": "own"})["kind"]
    about = {"network": result.model["name"], "labels": kind, "checkpoint": result.checkpoint}
    return about | {"splits": scores}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one of the two reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="full")
    parser.add_argument("--runs", nargs="+", help="evaluated runs: are they nearer to labels or to votes?")
    options = parser.parse_args(arguments)
    space = workspace(options.profile)
    faces = space.faces()
    faces = faces.where((faces.index["source"] == "fer2013").to_numpy())
    votes, split = (
        votes_on(faces.index, space.data, faces.manifest["disgust"]),
        faces.index["split"].to_numpy(),
    )
    report = {"profile": space.profile, "faceset": sha256(space.faceset / "manifest.json")}
    if options.runs:
        report["runs"] = {name: run_between(space, faces, votes, name) for name in options.runs}
    else:
        report["splits"] = {s: agreement(faces.labels[split == s], votes[split == s]) for s in SPLITS}
        before = faces.manifest["duplicates"]["groups_with_conflicting_labels"]
        report["duplicates"] = copies(faces.index, votes) | {"conflicting_before_merge": before}
    path = space.results / "labels" / f"{'networks' if options.runs else 'agreement'}.json"
    write_report(path, report)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
