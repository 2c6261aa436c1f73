"""How good are the labels? FER2013 against the ten people of FER+, label errors, and networks between them.

What `fer labels` and `fer crossfit` measure. Their reports are plain values, written below `labels/` of the
results; every share comes with its Wilson 95 % interval.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from fer_utils import results, runs
from fer_utils.datasets import ferplus
from fer_utils.datasets.base import SPLITS
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict, wilson_interval
from fer_utils.files import sha256, write_json, write_table
from fer_utils.models import FaceNet, build
from fer_utils.recipes import recipe_for
from fer_utils.soft import CROSSED
from fer_utils.training import Recipe, default_precision, fit
from fer_utils.votes import ANSWERS, OUTSIDE, UNDECIDED, Votes, join, read_votes, second_question
from fer_utils.weights import load_pretrained
from fer_utils.workspace import Workspace
from reading_faces.study.compare import PROBABILITIES, predictions

FOLDER = "labels"  # below the folder of results
# How much the ten agree: name, and the least and largest share of the most frequent word.
BANDS = (
    ("five or fewer of ten", 0.0, 0.5),
    ("six or seven", 0.55, 0.75),
    ("eight or nine", 0.77, 0.95),
    ("all ten", 1.0, 1.0),
)
QUALITY = "self_confidence"  # cleanlab's score: the probability that the network gives the label
FIRST = (100, 500, 1000, 2000)  # how many of the most suspicious labels are looked at
WORST = 20  # labels that the report lists
AUC_DRAWS = 200


def share(hits: np.ndarray | int, of: int | None = None) -> dict[str, Any]:
    """A share with its Wilson 95 % interval: `hits`, `of`, `share`, `interval`; none and none of nothing.

    Args:
        hits: bool (N,), or how many.
        of: how many there are, where `hits` is a number.
    """
    n = int(np.sum(hits))
    of = len(np.atleast_1d(hits)) if of is None else of
    known = {"share": n / of, "interval": list(wilson_interval(n, of))} if of else {}
    return {"hits": n, "of": of, "share": None, "interval": None} | known


def agreement(labels: np.ndarray, votes: Votes) -> dict[str, Any]:
    """How often labels say what the ten say, on the images that they voted on.

    Args:
        labels: int (N,), 0–5.
        votes: on the same N images.

    Returns:
        - `images` with votes;
        - `top`: how often the label is the ten's one top vote, of all images, and `by_class` of the label;
        - `undecided`, `outside`: shares of images whose first place is shared, or goes to none of the six;
        - `majority`: the same as `top` on images where FER+'s majority is one of the six;
        - `table`: counts, label (rows) by top vote (columns as `votes.ANSWERS`);
        - `entropy`: mean in bits, and `by_class`;
        - `top_votes`: images by the number of votes for their most frequent word, 0–10;
        - `ceiling`: as the function of that name.
    """
    labels, votes = labels[votes.voted], votes.where(votes.voted)
    top, majority, entropy = votes.top, votes.majority, votes.entropy
    table = np.zeros((len(CLASSES), len(ANSWERS)), int)
    np.add.at(table, (labels, top), 1)
    clear = majority < OUTSIDE
    by_class = [labels == i for i in range(len(CLASSES))]
    return {
        "images": len(labels),
        "top": share(top == labels)
        | {"by_class": {c: share((top == labels)[m]) for c, m in zip(CLASSES, by_class, strict=True)}},
        "undecided": share(top == UNDECIDED),
        "outside": share(top == OUTSIDE),
        "majority": share((majority == labels)[clear])
        | {
            "by_class": {
                c: share((majority == labels)[m & clear]) for c, m in zip(CLASSES, by_class, strict=True)
            }
        },
        "table": table.tolist(),
        "entropy": {
            "mean": _mean(entropy),
            "by_class": {c: _mean(entropy[m]) for c, m in zip(CLASSES, by_class, strict=True)},
        },
        "top_votes": np.bincount(np.rint(10 * votes.top_share).astype(int), minlength=11).tolist(),
        "ceiling": ceiling(labels, votes),
    }


def ceiling(labels: np.ndarray, votes: Votes) -> dict[str, float | None]:
    """What scores such labels allow.

    Args:
        labels: int (N,), 0–5.
        votes: on the same N images, each with votes.

    Returns:
        - `person_and_label`: probability that one of the ten, drawn at random, says the label;
        - `person_and_person`: probability that one of the ten says what another of them says, on images with
          two votes or more;
        - `person_and_others`: probability that one of the ten says the top vote of the other nine; of w words
          that share the first place, one counts 1/w;
        - `best_against_person`: mean share of the most frequent word. No answer can be expected to match one
          of these ten drawn at random more often than that. With ten voices it is a little too high, as the
          most frequent word is chosen after the votes are known.
    """
    if not len(votes):
        return dict.fromkeys(
            ("person_and_label", "person_and_person", "person_and_others", "best_against_person")
        )
    counts = votes.counts
    agrees = np.zeros(len(votes))
    for word in range(counts.shape[1]):
        others = counts.copy()
        others[:, word] -= 1
        leads = others == others.max(1, keepdims=True)
        agrees += counts[:, word] * leads[:, word] / leads.sum(1)
    total = counts.sum(1)
    pairs = (counts * (counts - 1)).sum(1)[total > 1] / (total * (total - 1))[total > 1]
    return {
        "person_and_label": float(votes.for_label(labels).mean()),
        "person_and_person": _mean(pairs),
        "person_and_others": float((agrees / votes.total).mean()),
        "best_against_person": float(votes.top_share.mean()),
    }


def duplicates(index: pd.DataFrame, votes: Votes) -> dict[str, Any]:
    """Exact copies of one image within the merged set, which were labelled and voted on more than once.

    Args:
        index: of a `FaceSet`.
        votes: on the same images.

    Returns:
        - `groups` of copies that have votes, and `images` in them;
        - `same_label`, `same_votes`: how many pairs of copies have the same label, and the very same votes
          (if nearly all have, people were asked once for all copies);
        - `conflicting` groups, whose labels differ;
        - `settled`: of those, how many have one top vote, their votes added up, that is one of the labels.
    """
    index, votes = index[votes.voted], votes.where(votes.voted)
    label, counts = index["label"].to_numpy(), votes.counts
    rows = [group for group in index.groupby("hash").indices.values() if len(group) > 1]
    pairs = np.array([(a, b) for group in rows for a in group for b in group if a < b]).reshape(-1, 2)
    conflicts = [group for group in rows if len(set(label[group])) > 1]
    summed = Votes(np.array([counts[group].sum(0) for group in conflicts]).reshape(-1, counts.shape[1])).top
    return {
        "groups": len(rows),
        "images": sum(map(len, rows)),
        "conflicting": len(conflicts),
        "same_label": share(label[pairs[:, 0]] == label[pairs[:, 1]]),
        "same_votes": share((counts[pairs[:, 0]] == counts[pairs[:, 1]]).all(1)),
        "settled": share(np.array([t in label[g] for t, g in zip(summed, conflicts, strict=True)], bool)),
    }


def conflicting(faces: FaceSet, votes: Votes) -> pd.DataFrame:
    """Copies whose labels differ, one row an image: `group`, `split`, `label`, and the votes in words."""
    table = faces.index.assign(row=np.arange(len(faces)))
    table = table[table.groupby("hash")["label"].transform("nunique") > 1].sort_values(["hash", "row"])
    said = [in_words(votes.counts[row]) for row in table["row"]]
    return pd.DataFrame(
        {
            "group": pd.factorize(table["hash"])[0] + 1,
            "row": table["row"].to_numpy(),
            "split": table["split"].to_numpy(),
            "label": [CLASSES[i] for i in table["label"]],
            "votes": said,
        }
    )


def in_words(counts: np.ndarray) -> str:
    """Votes on one image, int (10,), as text: ``"7 fear, 3 surprise"``, the most frequent word first."""
    order = np.argsort(-counts, kind="stable")
    return ", ".join(f"{counts[i]} {ferplus.VOTES[i]}" for i in order if counts[i]) or "no votes"


def by_agreement(labels: np.ndarray, probabilities: np.ndarray, votes: Votes) -> dict[str, Any]:
    """A network's answers between label and votes.

    Args:
        labels: int (N,), 0–5.
        probabilities: float (N, 6), the network's.
        votes: on the same N images; those without votes are left out.

    Returns:
        - `images` with votes;
        - `label`: accuracy against the labels;
        - `majority`: against FER+'s majority, on images where it is one of the six, with `recall` by class;
        - `bands`: by how much the ten agree (`BANDS`), accuracy against the `label`, and against the `top`
          vote where that is one of the six;
        - `sides`: where label and top vote differ, how often the network says the one, the other, or neither.
    """
    labels, answers = labels[votes.voted], probabilities.argmax(1)[votes.voted]
    votes = votes.where(votes.voted)
    top, majority = votes.top, votes.majority
    six, clear = top < OUTSIDE, majority < OUTSIDE
    bands = {}
    for name, low, high in BANDS:
        part = (votes.top_share >= low) & (votes.top_share <= high)
        bands[name] = {
            "label": share((answers == labels)[part]),
            "top": share((answers == top)[part & six]),
        }
    differ = six & (top != labels)
    sides = {"label": answers == labels, "top": answers == top}
    sides["neither"] = ~(sides["label"] | sides["top"])
    return {
        "images": len(labels),
        "label": share(answers == labels),
        "majority": share((answers == majority)[clear])
        | {"recall": {c: share(answers[majority == i] == i) for i, c in enumerate(CLASSES)}},
        "bands": bands,
        "sides": {name: share(said[differ]) for name, said in sides.items()},
    }


def plant(labels: np.ndarray, portion: float, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Make labels wrong on purpose: some become one of the other five classes, all of them equally likely.

    Args:
        labels: int (N,), 0–5.
        portion: of the labels that shall be wrong, 0–1.
        seed: which, and which other class.

    Returns:
        The labels, int64 (N,), and which were changed, bool (N,).
    """
    rng = np.random.default_rng(seed)
    wrong = np.zeros(len(labels), bool)
    wrong[rng.permutation(len(labels))[: round(portion * len(labels))]] = True
    step = rng.integers(1, len(CLASSES), len(labels))
    return np.where(wrong, (labels + step) % len(CLASSES), labels), wrong


def out_of_sample(
    network: str,
    training: FaceSet,
    validation: FaceSet,
    recipe: Recipe,
    options: dict[str, Any],
    folder: Path,
    *,
    folds: int = 3,
    second: np.ndarray | None = None,
    resume: bool = False,
    **fit_options: Any,
) -> np.ndarray:
    """Ask a network about each training image that it has not been trained on: K-fold cross-validation.

    Each fold's network learns from the other folds and keeps its best epoch on the validation images, which
    are in no fold: so its own fold has no say in anything. Copies of an image, and images of one person, are
    in one fold. A fold that has finished is kept as `fold<k>.npy`.

    Args:
        network: what `build` knows.
        training: the images to ask about.
        validation: on which the epoch is chosen.
        recipe: how to train.
        options: of the network.
        folder: for the folds.
        folds: how many, K.
        second: float32 (N, answers), targets of a second question, as for `training.fit`.
        resume: keep the folds that have finished, and go on with the one that was stopped.
        **fit_options: passed to `training.fit`.

    Returns:
        float32 (N, 6); rows sum to 1.

    Raises:
        DataError: resumed with other settings or images.
        ValueError: fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"{folds} folds; out-of-sample answers take at least two")
    index = training.index
    fingerprint = hashlib.sha256("".join(index["hash"]).encode() + training.labels.tobytes()).hexdigest()
    precision = fit_options.get("precision") or default_precision(fit_options.get("accelerator", "auto"))
    about = {"network": network, "options": options, "recipe": recipe.as_dict(), "folds": folds,
             "precision": precision, "images": fingerprint}  # fmt: skip
    about["second"] = None if second is None else hashlib.sha256(np.ascontiguousarray(second)).hexdigest()
    targets = None
    if second is not None:
        targets = np.hstack([np.eye(len(CLASSES), dtype=np.float32)[training.labels], second])
    _begin(folder, json.loads(json.dumps(about)), resume)
    groups = index["subject"].astype(object).where(index["subject"].notna(), index["hash"])
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=recipe.seed)
    answers = np.zeros((len(training), len(CLASSES)), np.float32)
    for k, (_, held) in enumerate(splitter.split(index, training.labels, groups.to_numpy(str))):
        path = folder / f"fold{k}.npy"
        if not path.exists():
            if fit_options.get("verbose", True):
                print(f"fold {k + 1} of {folds}", flush=True)
            mask = np.ones(len(training), bool)
            mask[held] = False
            L.seed_everything(recipe.seed, verbose=False)
            model = build(network, **options)
            others, own = training.where(mask), folder / f"fold{k}"
            if isinstance(model, FaceNet):
                load_pretrained(model, others.images)
            aims = None if targets is None else targets[mask]
            done = fit(model, others, validation, recipe, own, targets=aims, resume=resume, **fit_options)
            # Written aside, so that a fold is whole or not there.
            aside = folder / f".fold{k}.npy"
            np.save(aside, predict(done.model, training.where(~mask)))
            aside.replace(path)
        answers[np.sort(held)] = np.load(path, allow_pickle=False)
    return answers


def _begin(folder: Path, about: dict[str, Any], resume: bool) -> None:
    """Make the folder of a cross-validation ready: empty it, or check that it is the same one."""
    path = folder / "run.json"
    if resume and path.exists():
        then = json.loads(path.read_text(encoding="utf-8"))
        if changed := [key for key in about if then.get(key) != about[key]]:
            raise DataError(
                f"the cross-validation began with other settings ({', '.join(changed)} changed)",
                file=path,
                remedy="resume with the same settings, or give the new one another name",
            )
    else:
        for old in (*folder.glob("fold*.npy"), folder / "out-of-sample.parquet"):
            old.unlink(missing_ok=True)
    write_json(path, about)


def find_errors(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Which labels does confident learning doubt (Northcutt et al. 2021, arXiv:1911.00068)?

    Args:
        labels: int (N,), 0–5.
        probabilities: float (N, 6), of a network that was not trained on the image in question.

    Returns:
        One row an image: `quality` of its label, 0–1, low for a suspicious one; `doubted`, whether cleanlab
        holds it to be wrong; and `instead`, int 0–5, what the network says.
    """
    return pd.DataFrame(
        {
            "quality": get_label_quality_scores(labels, probabilities, method=QUALITY),
            "doubted": find_label_issues(labels, probabilities, n_jobs=1),
            "instead": probabilities.argmax(1),
        }
    )


def hit_rate(errors: pd.DataFrame, wrong: np.ndarray) -> dict[str, Any]:
    """How well doubted labels are wrong ones.

    Args:
        errors: what `find_errors` gave, N rows.
        wrong: bool (N,), the labels that are wrong, from another source.

    Returns:
        `wrong`: their share, which is the precision of doubting at random; `precision` and `recall` of the
        doubted labels; `first`: precision among the most suspicious ones, by how many (`FIRST`); `auc` of the
        ranking by quality, with a bootstrap 95 % interval `auc_interval`, and its `average_precision`; none
        where no label, or every label, is wrong.
    """
    doubted, suspicion = errors["doubted"].to_numpy(), -errors["quality"].to_numpy()
    order = np.argsort(-suspicion, kind="stable")
    report = {
        "wrong": share(wrong),
        "doubted": int(doubted.sum()),
        "precision": share(wrong[doubted]),
        "recall": share(doubted[wrong]),
        "first": {str(n): share(wrong[order[:n]]) for n in FIRST if n <= len(wrong)},
        "auc": None,
        "auc_interval": None,
        "average_precision": None,
    }
    if 0 < wrong.sum() < len(wrong):
        rng, draws = np.random.default_rng(0), []
        for _ in range(AUC_DRAWS):
            some = rng.integers(len(wrong), size=len(wrong))
            if 0 < wrong[some].sum() < len(some):
                draws.append(roc_auc_score(wrong[some], suspicion[some]))
        report["auc"] = float(roc_auc_score(wrong, suspicion))
        report["auc_interval"] = np.quantile(draws, [0.025, 0.975]).tolist()
        report["average_precision"] = float(average_precision_score(wrong, suspicion))
    return report


def write_agreement(space: Workspace) -> dict[str, Any]:
    """What the ten say of the labels, by split; writes `labels/agreement.json` below the results.

    Returns:
        What is in the file: `votes` (checksum of FER+'s file), `splits` (of FER2013, each as `agreement`
        says) and `duplicates`.

    Raises:
        DataError: nothing is merged, or FER+ is not there or does not fit.
    """
    faces = space.faces()
    table, path = read_votes(space.data)
    votes = join(faces.index, table, faces.manifest["disgust"])
    of_split = {name: (faces.index["split"] == name).to_numpy() for name in SPLITS}
    report = _about(space, faces) | {
        "votes": {path.name: sha256(path)},
        "splits": {
            name: agreement(faces.labels[mask], votes.where(mask))
            for name, mask in of_split.items()
            if votes.voted[mask].any()
        },
        "duplicates": duplicates(faces.index, votes)
        | {"conflicting_before_merge": faces.manifest["duplicates"]["groups_with_conflicting_labels"]},
    }
    _write(space, "agreement", report)
    return report


def write_networks(space: Workspace, names: Sequence[str]) -> dict[str, Any]:
    """Where evaluated runs stand between labels and votes; writes `labels/networks.json` below the results.

    The answers are those that `fer evaluate` kept, so no image is read again; the test split is in the report
    of a run that has been scored on it.

    Args:
        space: gives the runs.
        names: of the runs.

    Returns:
        What is in the file: by run, `labels` that it was trained on, `checkpoint` and, by split, what
        `by_agreement` gives for FER2013.

    Raises:
        DataError: a run has not been evaluated, or FER+ is not there or does not fit.
    """
    faces = space.faces()
    table, path = read_votes(space.data)
    found: dict[str, Any] = {}
    for name in names:
        parts = {"validation": predictions(space, name, "validation")}
        if results.predictions_path(space.results, name, "test").exists():
            parts["test"] = predictions(space, name, "test")
        about = results.read(space.results / f"{name}.json")
        entry = found[name] = {
            "network": about["model"]["name"],
            "labels": (about.get("labels") or {"kind": "own"})["kind"],
            "checkpoint": about["checkpoint"],
            "splits": {},
        }
        for split, part in parts.items():
            part = part[part["source"] == "fer2013"]
            votes = join(part, table, faces.manifest["disgust"])
            entry["splits"][split] = by_agreement(
                part["label"].to_numpy(), part[PROBABILITIES].to_numpy(), votes
            )
    report = _about(space, faces) | {"votes": {path.name: sha256(path)}, "runs": found}
    _write(space, "networks", report)
    return report


def crossfit(
    space: Workspace,
    network: str = "easynet",
    *,
    seed: int = 0,
    folds: int = 3,
    name: str | None = None,
    sources: list[str] | None = None,
    recipe_changes: dict[str, Any] | None = None,
    model_options: dict[str, Any] | None = None,
    votes_too: bool = False,
    resume: bool = False,
    **fit_options: Any,
) -> dict[str, Any]:
    """Out-of-sample answers on the training images, the labels that they doubt, and whether FER+ agrees.

    Writes `runs/<name>/out-of-sample.parquet` (the index of the training images, probabilities, and what
    `find_errors` gives) and `labels/issues.json` below the results. That is for EasyNet and own labels; other
    reports have the network in their name, and `both` if it learnt votes: `labels/issues-facenet-both.json`.
    Such a run can teach others (`fer_utils.soft.answers`).

    Args:
        space: gives the merged set.
        network: ``"emonet"``, ``"easynet"`` or ``"facenet"``.
        seed: of folds, weights, order, augmentation and dropout.
        folds: how many.
        name: of the run, below ``crossfit/``; by default ``crossfit/<network>-seed<seed>``.
        sources: of these only.
        recipe_changes: fields of `Recipe` to change, as for `runs.train`.
        model_options: options of the network to change.
        votes_too: learn the votes on the other folds' images as a second question. A network that knows how
            people vote is no independent witness to whether they agree with its doubts, but a better teacher.
        resume: go on with what is there.
        **fit_options: passed to `training.fit`.

    Returns:
        What is in the file: settings, `accuracy` of the answers against the labels, and what `issues` gives.

    Raises:
        DataError: nothing merged, FER+ is not there or does not fit, or resumed with other settings.
        ValueError: an unknown network, recipe field or option.
    """
    faces = space.faces()
    votes_table, votes_file = read_votes(space.data)  # asked for now, and not after an hour of training
    chosen = runs.of_sources(faces, sources)
    training = chosen.split("train")
    options, recipe = recipe_for(network, space.profile)
    options = options | (model_options or {})
    recipe = runs.change(recipe, (recipe_changes or {}) | {"seed": seed})
    name = f"{CROSSED}{(name or f'{network}-seed{seed}').removeprefix(CROSSED)}"
    folder = space.runs / name
    votes = join(training.index, votes_table, faces.manifest["disgust"])
    answers = out_of_sample(
        network, training, chosen.split("validation"), recipe, options, folder,
        folds=folds, second=second_question(votes) if votes_too else None, resume=resume, **fit_options,
    )  # fmt: skip
    errors = find_errors(training.labels, answers)
    kept = pd.concat(
        [training.index.reset_index(drop=True), pd.DataFrame(answers, columns=PROBABILITIES), errors], axis=1
    )
    write_table(folder / "out-of-sample.parquet", kept)
    report = _about(space, faces) | {
        "name": name,
        "network": network,
        "options": options,
        "recipe": recipe.as_dict(),
        "folds": folds,
        "labels": {"kind": "both", "share": 1.0, "votes": sha256(votes_file)} if votes_too else None,
        "processor": results.processor(),
        "training_seconds": round(_seconds(folder), 1),
        "accuracy": share(answers.argmax(1) == training.labels),
        **issues(training.index, answers, errors, votes),
    }
    told = [network] * (network != "easynet" or votes_too) + ["both"] * votes_too
    _write(space, "-".join(["issues", *told]), report)
    return report


def issues(index: pd.DataFrame, answers: np.ndarray, errors: pd.DataFrame, votes: Votes) -> dict[str, Any]:
    """Do the ten of FER+ doubt the labels that the network doubts?

    Args:
        index: of the images, N rows.
        answers: float (N, 6), out-of-sample probabilities.
        errors: what `find_errors` gave.
        votes: on the same images; those without votes, or where the ten have no one top vote, are left out.

    Returns:
        - `images` that are left;
        - `differs`: `hit_rate` if a label counts as wrong where the top vote is another word;
        - `unsaid`: `hit_rate` if it does where not one of the ten said it;
        - `agree`: of doubted labels where the top vote is another one of the six, how many the network would
          replace by that very one;
        - `by_class`: `wrong`, `precision` and `recall` as in `differs`;
        - `worst`: the most suspicious labels, by their rows in FER2013.
    """
    decided = votes.voted & (votes.top != UNDECIDED)
    labels, top = index["label"].to_numpy(np.int64), votes.top
    differs, unsaid = (top != labels)[decided], (votes.for_label(labels) == 0)[decided]
    part = errors[decided].reset_index(drop=True)
    doubted, label = part["doubted"].to_numpy(), labels[decided]
    instead = (errors["doubted"].to_numpy() & (top != labels) & (top < OUTSIDE))[decided]
    order = errors["quality"].to_numpy().argsort(kind="stable")[:WORST]
    return {
        "images": int(decided.sum()),
        "differs": hit_rate(part, differs),
        "unsaid": hit_rate(part, unsaid),
        "agree": share((part["instead"].to_numpy() == top[decided])[instead]),
        "by_class": {
            c: {
                "wrong": share(differs[label == i]),
                "precision": share(differs[doubted & (label == i)]),
                "recall": share(doubted[differs & (label == i)]),
            }
            for i, c in enumerate(CLASSES)
        },
        "worst": [
            {
                "origin": index["origin"].iloc[row],
                "label": CLASSES[labels[row]],
                "network": CLASSES[int(answers[row].argmax())],
                "probability": round(float(answers[row].max()), 4),
                "votes": in_words(votes.counts[row]),
            }
            for row in order
        ],
    }


def _seconds(folder: Path) -> float:
    """Training time of all folds, from their learning curves."""
    return sum(pd.read_csv(path)["seconds"].sum() for path in folder.glob("fold*/history.csv"))


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _about(space: Workspace, faces: FaceSet) -> dict[str, Any]:
    return {
        **results.stamp(),
        "profile": space.profile,
        "faceset": sha256(faces.path / "manifest.json"),
    }


def _write(space: Workspace, name: str, report: dict[str, Any]) -> None:
    write_json(space.results / FOLDER / f"{name}.json", report)
