"""The poster's claims, judged from stored reports by rules that were fixed before the results were there.

`python -m reading_faces.study.claims` writes `comparisons/claims.json`.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer_utils.experiment import project_root, workspace
from reading_faces.study.stats import (
    Difference,
    Z,
    difference_of,
    mean_score,
    quantile,
    unpaired_difference,
    variance_of_mean,
)
from reading_faces.study.store import read_report, write_report

LARGE = 0.05  # "by a large margin": more than three times what 3,534 images leave uncertain of a score
TUNING = 0.13  # what the poster says that validating learning rate and upper layers brought
SEEDS = 3  # the fewest that a score of ours is stated with
WAYS = ("probe", "head", "all")  # a linear layer or the head on the frozen trunk, everything trained
MERGING, NETWORKS = "comparisons/merging.json", "comparisons/networks.json"
STARTS, DEPTH, SEARCH = "comparisons/pretraining.json", "comparisons/depth.json", "sweeps/facenet.json"
Report = dict[str, Any]
Measured = tuple[Difference, dict[str, Any]]  # what decides, and further numbers


def merging(report: Report) -> Measured:
    """All sources minus FER2013 alone; the images, which all pairs share, are counted once."""
    pairs = pd.DataFrame(report["pairs"])
    differing = (pairs["only_a"] + pairs["only_b"]) / pairs["images"]
    of_images = (differing - pairs["difference"] ** 2) / pairs["images"]
    values = pairs["difference"].to_numpy()
    return difference_of(values.mean(), of_images.mean(), values), {"seeds": len(values)}


def start(report: Report, other: str, ways: Sequence[str]) -> Measured:
    """The start from VGGFace2 minus another one, on validation, in the way of using it where it is worst."""
    by_way = {}
    for how in ways:
        scores: dict[str, list[Any]] = {"vggface2": [], other: []}
        for run in report["runs"]:
            if run["how"] == how and run["pretrained"] in scores:
                scores[run["pretrained"]].append(run["validation"])
        if all(scores.values()):
            by_way[how] = unpaired_difference(*scores.values())
    return min(by_way.values(), key=lambda each: each.low), {"ways": by_way}


def nesterov(report: Report) -> Measured:
    """Best trial with Nesterov momentum minus the best with Adam, of the same number of trials each."""
    tried = min(len(report["optimizers"][o]) for o in ("sgd", "adam"))
    sgd, adam = (finite(report["optimizers"][o][:tried]) for o in ("sgd", "adam"))
    top = unpaired_difference(*([{"accuracy": v.max(), "images": report["images"]}] for v in (sgd, adam)))
    return top, {"trials": tried}


def tuning(report: Report) -> Measured:
    """Best trial of the search minus the median one."""
    values = finite(trial["value"] for trial in report["trials"])
    return above_median(values), {"trials": len(values)}


def depth(report: Report, first: str, second: str = "") -> Measured:
    """One network minus another, by default the best EasyNet, on one recipe and budget."""
    runs = pd.DataFrame([r | {"accuracy": r["validation"]["accuracy"]} for r in report["runs"]])
    means = runs[runs["network"] == "easynet"].groupby("key")["accuracy"].mean()
    second = second or str(means.idxmax())
    known = next(d for d in report["differences"] if (d["first"], d["second"]) == (first, second))
    value, ends = known["difference"], np.array(known["interval"])
    own = (
        runs.pivot(index="seed", columns="key", values="accuracy").eval(f"`{first}` - `{second}`").to_numpy()
    )
    times = quantile(((ends[1] - ends[0]) / 2 / Z) ** 2, own) / Z
    below, above = times * np.hypot(ends - value, Z * np.sqrt(variance_of_mean(own)))
    more = {"networks": [first, second], "epochs": report["epochs"], "seeds": len(own)}
    return Difference(value, value - float(below), value + float(above)), more


def facenet(report: Report) -> Measured:
    """FaceNet minus EasyNet, the best run of each by validation."""
    best = next(p for p in report["pairs"] if (p["what"], p["variant"]) == ("best by validation", "plain"))
    return Difference(best["difference"], *best["interval"]), {"p": best["p"], "images": best["images"]}


def reached(report: Report, network: str) -> Measured:
    """Mean over seeds on PrivateTest minus the poster's figure."""
    figures = pd.read_csv(project_root() / "book" / "anchors.csv").query("source == 'poster'")
    figure = float(figures.set_index("network")["accuracy"][network])
    images, runs = report["images"]["plain"], report["runs"].values()
    own = [r["test"]["plain"] for r in runs if r["network"] == network.lower()]
    score = mean_score([{"accuracy": accuracy, "images": images} for accuracy in own])
    return Difference(*(score[key] - figure for key in ("accuracy", "low", "high"))), score | {
        "poster": figure
    }


def above_median(values: np.ndarray) -> Difference:
    """How far the best trial of a search is above the median one, with the median's bootstrap interval."""
    medians = np.median(np.random.default_rng(0).choice(values, (2000, len(values))), axis=1)
    top = float(values.max())
    return Difference(top - float(np.median(values)), *(top - np.quantile(medians, [0.975, 0.025])).tolist())


def finite(values: Iterable[float | None]) -> np.ndarray:
    """The values of the trials that did not fail."""
    kept = np.array([np.nan if v is None else v for v in values], float)
    return kept[np.isfinite(kept)]


@dataclass(frozen=True)
class Claim:
    """A claim, what is compared, and the report that decides.

    It holds if the 95 % interval lies above the margin, unless `holds` says otherwise.
    """

    text: str
    compared: str
    report: str
    measure: Callable[[Report], Measured]
    margin: float = 0.0
    holds: Callable[[Difference, Mapping[str, Any]], bool | None] | None = None


BEST, NOT = "best run of each by validation, p < 0.05", "same recipe and epochs, not above 0"
SCORED = f"mean of {SEEDS} or more seeds, at least that"
EASYNET, FACENET = partial(reached, network="EasyNet"), partial(reached, network="FaceNet")
FACES, ALL = partial(start, other="imagenet", ways=WAYS), partial(start, other="none", ways=WAYS[2:])
SHALLOW, DEEP = partial(depth, first="easynet-4", second="easynet-2"), partial(depth, first="mobilenet")


def at_least(value: Difference, more: Mapping[str, Any]) -> bool | None:
    """The mean of enough seeds reaches the poster's figure."""
    return value.value >= 0 if more["seeds"] >= SEEDS else None


def not_above(value: Difference, _: Mapping[str, Any]) -> bool:
    """The first network does not beat the second."""
    return value.low <= 0


def paired(value: Difference, more: Mapping[str, Any]) -> bool:
    """The first network beats the second, by McNemar's test as well."""
    return value.low > 0 and more["p"] < 0.05


CLAIMS = (
    Claim("Merging FER2013, CK+ and JAFFE helps", "all sources minus FER2013 alone", MERGING, merging),
    Claim("Features learnt on faces serve better than ImageNet's", "every way of using them", STARTS, FACES),
    Claim("… by a large margin", "every way of using them", STARTS, FACES, LARGE),
    Claim("A start from face features beats a random one by far", "everything trained", STARTS, ALL, LARGE),
    Claim("Nesterov momentum beats Adam", "best trials of two equal searches", SEARCH, nesterov),
    Claim("Tuning is worth more than 13 points", "best trial minus median trial", SEARCH, tuning, TUNING),
    Claim("Depth helps: four convolutions beat two", "same recipe and epochs", DEPTH, SHALLOW),
    Claim("… with care: MobileNet from a random start does not beat EasyNet", NOT, DEPTH, DEEP, 0, not_above),
    Claim("FaceNet reads faces better than EasyNet", BEST, NETWORKS, facenet, 0, paired),
    Claim("EasyNet reaches 68.9% on FER2013", SCORED, NETWORKS, EASYNET, 0, at_least),
    Claim("FaceNet reaches 76.5% on FER2013", SCORED, NETWORKS, FACENET, 0, at_least),
)


def judge(folder: Path) -> list[dict[str, Any]]:
    """Judge every claim by the reports below a folder of results; raise DataError where one is no report.

    Gives one row a claim: `claim`, `compared`, `margin`, `evidence`; `verdict`, which is held, not held or
    not tested (no such report, or too few seeds); and `difference`, `low`, `high` and `more` (numbers).
    """
    rows = []
    for claim in CLAIMS:
        row = {"claim": claim.text, "compared": claim.compared, "margin": claim.margin}
        row |= {"evidence": claim.report, "verdict": "not tested"}
        if (folder / claim.report).exists():
            value, more = claim.measure(read_report(folder / claim.report))
            held = claim.holds(value, more) if claim.holds else value.low > claim.margin
            row["verdict"] = {True: "held", False: "not held", None: "not tested"}[held]
            row |= dict(zip(("difference", "low", "high"), value, strict=True)) | {"more": more}
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `comparisons/claims.json` and print the verdicts."""
    parser = argparse.ArgumentParser(prog="python -m reading_faces.study.claims", description=__doc__)
    parser.add_argument("--profile", choices=("demo", "full"), default="full")
    folder = workspace(parser.parse_args(arguments).profile).results
    report = write_report(folder / "comparisons" / "claims.json", {"claims": judge(folder)})
    for row in report["claims"]:
        print(f"{row['verdict']:<10}  {row['claim']}")


if __name__ == "__main__":
    main()
