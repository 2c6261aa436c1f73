"""What chapter 7 shows of the reports of `fer labels` and `fer crossfit`: tables, figures, and sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fer_utils import results
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.votes import ANSWERS, OUTSIDE, Votes, read_votes
from fer_utils.workspace import Workspace, workspace
from reading_faces.report import plots
from reading_faces.report.notebook import NOT_YET, best, full_report, full_results, percent
from reading_faces.study import labels, verdicts

_CEILING = {
    "person_and_label": "one of the ten says FER2013's label",
    "person_and_person": "one of the ten says what another of the ten says",
    "person_and_others": "one of the ten says the top vote of the other nine",
    "best_against_person": "the ten's own top vote, against one of them",
}
_KINDS = {"own": "FER2013's labels", "ferplus": "votes of FER+", "both": "labels, and votes beside them"}


def with_votes(space: Workspace) -> Workspace:
    """The workspace, or the one of drawn faces where the real data have no votes that fit to them."""
    try:
        read_votes(space.data)
    except DataError as error:
        if space.profile == "demo":
            raise
        print(f"No votes on the real faces, so drawn faces take their place: {error.problem}.")
        return workspace("demo")
    return space


def full(name: str) -> dict[str, Any] | None:
    """A report on real data below `book/results/labels`: ``"agreement"``, ``"networks"`` and others there."""
    return full_report(f"{labels.FOLDER}/{name}.json")


def ratio(share: dict[str, Any]) -> str:
    """A share of a report in words: ``61.8 % (60.2 to 63.4 %)``, or a dash where nothing was counted."""
    if share["share"] is None:
        return "–"
    low, high = share["interval"]
    return f"{percent(share['share'])} ({100 * low:.1f} to {100 * high:.1f} %)"


def crossed_facts(report: dict[str, Any] | None) -> dict[str, str]:
    """How often a cross-validation's answer is the label, by glue name."""
    return {"crossed-agree": ratio(report["accuracy"]) if report else NOT_YET}


def not_yet() -> pd.DataFrame:
    """A table that says that the full run has not been made."""
    return pd.DataFrame([{"": NOT_YET}], ["–"])


def agreement_table(splits: dict[str, dict[str, Any]] | None) -> pd.DataFrame:
    """How often the label is the top vote, by class (rows) and split (columns), with intervals.

    Args:
        splits: by split, what `labels.agreement` gives; none before the full run.
    """
    if not splits:
        return not_yet()
    rows = {}
    for split, found in splits.items():
        column = {c: ratio(found["top"]["by_class"][c]) for c in CLASSES}
        column |= {
            "all": ratio(found["top"]),
            "(first place shared)": percent(found["undecided"]["share"]),
            "(another word than the six)": percent(found["outside"]["share"]),
            "(of clear majorities of the six)": ratio(found["majority"]),
            "images": f"{found['images']:,}",
        }
        rows[split] = column
    return pd.DataFrame(rows).rename_axis("label is the top vote")


def agreement_figure(splits: dict[str, dict[str, Any]]) -> Figure:
    """The same as a figure, without the rows in brackets."""
    shares = {
        split: {c: _triple(found["top"]["by_class"][c]) for c in CLASSES} for split, found in splits.items()
    }
    return plots.share_intervals(shares, CLASSES, label="label is the top vote")


def entropy_table(splits: dict[str, dict[str, Any]] | None) -> pd.DataFrame:
    """Mean entropy of the votes in bits, by class (rows) and split (columns)."""
    if splits is None:
        return not_yet()
    bits = {split: found["entropy"]["by_class"] | {"all": found["entropy"]["mean"]}
            for split, found in splits.items()}  # fmt: skip
    return pd.DataFrame(bits).map("{:.2f}".format).rename_axis("mean entropy, bits")


def table_figure(found: dict[str, Any]) -> Figure:
    """Labels by top votes, from what `labels.agreement` gives."""
    return plots.label_votes(np.array(found["table"]), ANSWERS)


def ceiling_table(splits: dict[str, dict[str, Any]] | None) -> pd.DataFrame:
    """What scores the labels and votes allow, by split."""
    if not splits:
        return not_yet()
    rows = {
        split: {text: percent(found["ceiling"][key]) for key, text in _CEILING.items()}
        | {"FER2013's label is the ten's top vote": percent(found["top"]["share"])}
        for split, found in splits.items()
    }
    return pd.DataFrame(rows).rename_axis("how often")


def duplicates_table(found: dict[str, Any] | None) -> pd.DataFrame:
    """Exact copies: how many, and do labels and votes agree on them?"""
    if found is None:
        return not_yet()
    rows = {
        "groups of exact copies": f"{found['groups']:,}",
        "images in them": f"{found['images']:,}",
        "groups with different labels": f"{found['conflicting']:,}",
        "(before the merge took copies out of training)": f"{found['conflicting_before_merge']:,}",
        "pairs of copies with the same label": ratio(found["same_label"]),
        "pairs of copies with the very same votes": ratio(found["same_votes"]),
        "conflicts where the top vote is one of the labels": ratio(found["settled"]),
    }
    return pd.Series(rows).to_frame("exact copies")


def errors_table(rates: dict[str, dict[str, Any]] | None) -> pd.DataFrame:
    """How well doubted labels are wrong ones, by what counts as wrong.

    Args:
        rates: by what counts as wrong, what `labels.hit_rate` gives; none before the full run.
    """
    if rates is None:
        return not_yet()
    columns = {}
    for name, rate in rates.items():
        column = {
            "labels": f"{rate['wrong']['of']:,}",
            "wrong among them": ratio(rate["wrong"]),
            "doubted": f"{rate['doubted']:,}",
            "precision: doubted ones that are wrong": ratio(rate["precision"]),
            "recall: wrong ones that are doubted": ratio(rate["recall"]),
        }
        column |= {f"wrong among the {n} most suspicious": ratio(s) for n, s in rate["first"].items()}
        if rate["auc"] is not None:
            low, high = rate["auc_interval"]
            column["area under the ROC curve"] = f"{rate['auc']:.3f} ({low:.3f} to {high:.3f})"
        columns[name] = column
    return pd.DataFrame(columns).fillna("–").rename_axis("a label is wrong if")


def issues_table(report: dict[str, Any] | None) -> pd.DataFrame:
    """`errors_table` of the real report, for both of its meanings of wrong."""
    if report is None:
        return not_yet()
    return errors_table({"the top vote differs": report["differs"], "nobody said it": report["unsaid"]})


def issues_reading(report: dict[str, Any] | None) -> str:
    """A sentence that says how the real report was made."""
    if report is None:
        return f"The cross-validation on real faces: {NOT_YET}."
    recipe = report["recipe"]
    return (
        f"Run on {report['date']} with revision {report['revision']}: {report['folds']} folds, "
        f"{recipe['epochs']} epochs each, {report['training_seconds'] / 3600:.1f} hours on "
        f"{report['processor']}. Out of sample, the networks' answer is the label of "
        f"{ratio(report['accuracy'])} of the training images. Where a label is doubted and the ten say "
        f"another of the six words, the networks propose that very word in {ratio(report['agree'])}."
    )


def networks_table(report: dict[str, Any] | None, split: str = "test") -> pd.DataFrame:
    """Runs between labels and votes, a row each: accuracy on either, and whom they follow where they differ.

    Args:
        report: what `labels.write_networks` gives; none before the full run.
        split: runs that have not been scored on it are left out.
    """
    rows = []
    for name, run in (report or {"runs": {}})["runs"].items():
        if split not in run["splits"]:
            continue
        found = run["splits"][split]
        rows.append(
            {
                "run": name,
                "trained on": _KINDS[run["labels"]],
                "on FER2013's labels": ratio(found["label"]),
                "on FER+'s majorities": ratio(found["majority"]),
                "images with a majority": f"{found['majority']['of']:,}",
                "where they differ: label": percent(found["sides"]["label"]["share"] or 0),
                "… top vote": percent(found["sides"]["top"]["share"] or 0),
                "… neither": percent(found["sides"]["neither"]["share"] or 0),
            }
        )
    return pd.DataFrame(rows).set_index("run") if rows else not_yet()


def soft_table(report: dict[str, Any] | None, split: str = "test") -> pd.DataFrame:
    """Scores by label and by majority: mean and deviation over the seeds of each kind of run.

    Args:
        report: what `labels.write_networks` gives; none before the full run.
        split: runs that have not been scored on it are left out.
    """
    kinds: dict[str, list[dict[str, Any]]] = {}
    for name, run in (report or {"runs": {}})["runs"].items():
        if split in run["splits"]:
            kinds.setdefault(_kind(name), []).append(run)
    rows = {}
    for kind, runs in kinds.items():
        own, majority = (
            results.summarise([run["splits"][split][key]["share"] for run in runs])
            for key in ("label", "majority")
        )
        rows[kind] = {
            "aimed at": _KINDS[runs[0]["labels"]],
            "seeds": own["seeds"],
            "on FER2013's labels": _spread(own),
            "on FER+'s majorities": _spread(majority),
        }
    return pd.DataFrame(rows).T.rename_axis("runs") if rows else not_yet()


def _kind(name: str) -> str:
    """What the seeds of a configuration have in common in their names."""
    return re.sub(r"-seed\d+$", "", name)


def soft_reading(report: dict[str, Any] | None, first: str, second: str, split: str = "test") -> str:
    """What one kind of run gains and loses against another, by label and by majority, in words.

    Args:
        report: what `labels.write_networks` gives; none before the full run.
        first: name of the runs without ``-seed<n>``.
        second: of those that they are held against.
        split: runs that have not been scored on it are left out.

    Returns:
        Differences between means with 95 % intervals, for images (as if the two had not seen the same
        ones, which makes them wide) and seeds.
    """
    said = []
    for key, by in (("label", "FER2013's labels"), ("majority", "FER+'s majorities")):
        sides: dict[str, list[dict[str, Any]]] = {first: [], second: []}
        for name, run in (report or {"runs": {}})["runs"].items():
            if _kind(name) in sides and split in run["splits"]:
                found = run["splits"][split][key]
                sides[_kind(name)].append({"accuracy": found["share"], "images": found["of"]})
        if not all(sides.values()):
            return NOT_YET
        said.append(f"{verdicts.gap(sides[first], sides[second])} on {by}")
    return " and ".join(said)


def shares_reading(report: dict[str, Any] | None, runs: Sequence[str], split: str = "test") -> str:
    """How often some runs answer the label, and how often the majority of the ten, in words.

    Args:
        report: what `labels.write_networks` gives; none before the full run.
        runs: names of the runs.
        split: on which they have been scored.
    """
    if report is None:
        return NOT_YET
    scores = [report["runs"][run]["splits"][split] for run in runs]
    by_label, by_majority = (" and ".join(ratio(s[key]) for s in scores) for key in ("label", "majority"))
    return f"{by_label} by the label, and {by_majority} by FER+'s majorities"


def scored(report: dict[str, Any] | None, network: str) -> list[dict[str, Any]]:
    """Results of the runs of a network that a report of `labels.write_networks` holds."""
    names = report["runs"] if report else {}
    return [result for result in full_results(f"{network}-*.json") if result["name"] in names]


def bands_figure(report: dict[str, Any], runs: Sequence[str], split: str = "test") -> Figure:
    """Accuracy of some runs by how much the ten agree, against the label and against the top vote.

    Args:
        report: what `labels.write_networks` gives.
        runs: names of the runs.
        split: on which they have been scored.
    """
    shares = {}
    for run in runs:
        bands = report["runs"][run]["splits"][split]["bands"]
        names = [f"{name}\n{band['label']['of']:,} images" for name, band in bands.items()]
        for key, text in (("label", "by FER2013's label"), ("top", "by the top vote")):
            shares[f"{run}, {text}"] = {
                shown: _triple(band[key]) for shown, band in zip(names, bands.values(), strict=True)
            }
    return plots.share_intervals(shares, names, label="accuracy")


def facts(report: dict[str, Any] | None) -> dict[str, str]:
    """Numbers about the real labels for the prose, by glue name, from `fer labels`."""
    names = ("test", "fear", "sad", "easiest", "easiest-share", "hardest", "hardest-share", "hardest-said",
             "neutral", "person", "pair", "conflicts", "copies")  # fmt: skip
    if report is None:
        return {f"labels-{name}": NOT_YET for name in names}
    test, copies = report["splits"]["test"], report["duplicates"]
    by_class = {c: s["share"] for c, s in test["top"]["by_class"].items()}
    table, (low, *_, high) = np.array(test["table"]), sorted(by_class, key=lambda c: by_class[c])
    hardest, neutral = table[CLASSES.index(low)], table[:, CLASSES.index("neutral")]
    values = (
        ratio(test["top"]),
        percent(by_class["fear"]),
        percent(by_class["sad"]),
        high,
        percent(by_class[high]),
        low,
        percent(by_class[low]),
        f"{ANSWERS[hardest.argmax()]} ({percent(hardest.max() / hardest.sum())} of the row)",
        percent(1 - neutral[CLASSES.index("neutral")] / neutral.sum()),
        percent(test["ceiling"]["person_and_label"]),
        percent(test["ceiling"]["person_and_person"]),
        f"{copies['conflicting_before_merge']:,}",
        percent(copies["same_votes"]["share"]),
    )
    return {f"labels-{name}": value for name, value in zip(names, values, strict=True)}


def habits(report: dict[str, Any] | None, found: list[dict[str, Any]]) -> str:
    """A sentence that holds a network against the ten's top vote, both as readers of FER2013's test labels.

    Args:
        report: of `fer labels` on real data; none before the full run.
        found: results of networks; those that have not been scored on the test split are left out.
    """
    found = [result for result in found if "test" in result]
    if report is None or not found:
        return f"A network beside the ten on FER2013's own test labels: {NOT_YET}."
    network, people = best(found), report["splits"]["test"]["top"]
    own = network["test"]["fer2013"]["accuracy"]
    points = 100 * (own - people["share"])
    return (
        f"On the same test labels, {network['name']} scores {percent(own)}, {abs(points):.1f} points "
        f"{'more' if points >= 0 else 'less'} than the ten people's top vote ({percent(people['share'])})."
    )


def clear_and_unclear(votes: Votes, n: int = 6) -> np.ndarray:
    """Rows of some faces on which the ten agree, and of some on which they do not; the first of each.

    Args:
        votes: on the faces.
        n: how many of each.

    Returns:
        int64 (2 n,) or fewer, clear ones first.
    """
    known = votes.voted & (votes.top != OUTSIDE)
    clear = np.flatnonzero(known & (votes.top_share >= 0.9))[:n]
    return np.concatenate([clear, np.flatnonzero(known & (votes.top_share <= 0.5))[:n]])


def _triple(share: dict[str, Any]) -> tuple[float, float, float] | None:
    return None if share["share"] is None else (share["share"], *share["interval"])


def _spread(summary: dict[str, float]) -> str:
    if summary["seeds"] < 2:
        return percent(summary["mean"])
    return f"{percent(summary['mean'])} ± {100 * summary['std']:.1f} points"
