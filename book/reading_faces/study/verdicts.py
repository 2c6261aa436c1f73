"""The poster's claims, one by one: the rule by which each is judged, its evidence, and the verdict.

The rules stand in `CLAIMS`, in code, and were written before the results were there. A verdict is

- ``held``: the rule is met. Where two things are compared, that is: the lower end of the difference's 95 %
  interval lies above the margin that the claim names (zero, if it names none);
- ``not held``: the rule is not met. The sentence says whether the contrary was shown or merely nothing;
- ``not testable here``: what it takes cannot be had here;
- ``not run yet``: the file that would decide is not there.

Evidence, below the folder of results. Whoever writes one of these files follows this list; accuracies are
0–1, *metrics* is what `evaluation.metrics` gives (at least `images`, `accuracy` and `confusion`), and
fields beyond these are welcome.

``easynet-seed*.json``, ``facenet-seed*.json``
    what `fer evaluate --test` writes (`fer_utils.results`).
``comparisons/networks.json``, ``comparisons/merging.json``, ``comparisons/depth.json``
    what `fer compare-all`, `fer merging` and `fer depth` write (`reading_faces.study.compare`).
``comparisons/pretraining.json``
    three starts on equal terms, what `fer pretraining` writes (`reading_faces.study.pretraining`): ``{"runs":
    [{"name", "trunk", "pretrained", "how", "seed", "validation": metrics, "test": metrics}, …]}``,
    where `pretrained` is ``"vggface2"``, ``"imagenet"`` or ``"none"``
    (random start) and `how` is ``"probe"`` (one linear layer on the frozen trunk), ``"head"`` (the fully
    connected head on the frozen trunk) or ``"all"`` (everything trained). `test` may be left out of all.
``sweeps/facenet.json``
    what `fer sweep` writes (`reading_faces.study.sweep`), a search over settings, scored on validation:
    ``{"images": n, "trials": [{"number", "params", "value"}, …], "optimizers": {"sgd": [value, …], "adam":
    [value, …]}}``: `images` of validation, `value` an accuracy (null for a trial that failed, which is left
    out), `optimizers` the values of two searches in the order in which they were tried.
``data/merged.json``
    the manifest of the real merged set; it tells whether merging can be tested.
``benchmarks/speed.json``
    what `tests/benchmarks/speed.py` writes; no claim hangs on it, but a choice does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from fer_utils import results
from fer_utils.errors import DataError
from fer_utils.results import by_protocol, read_all
from fer_utils.workspace import Workspace
from reading_faces.report.notebook import (
    NOT_YET,
    POSTER_NAMES,
    anchors,
    best,
    held_out,
    listed,
    percent,
    poster,
    search_table,
)
from reading_faces.study import compare
from reading_faces.study.stats import Z, mean_score, quantile
from reading_faces.study.stats import variance_of_mean as of_seeds

Outcome = Literal["held", "not held", "not testable here", "not run yet"]
Ruling = tuple[Outcome, str]

LARGE = 0.05  # "by a large margin": more than three times what 3,534 images leave uncertain of a score
TUNING = 0.13  # what the poster says that validating learning rate and upper layers brought
SEEDS = 3  # the fewest that a score of ours is stated with
WAYS = {"probe": "a linear probe", "head": "the head on a frozen trunk", "all": "everything trained"}


@dataclass(frozen=True)
class Gap:
    """A difference of two accuracies with its 95 % interval, all as shares."""

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return (
            f"{points(self.difference)} points ({100 * self.low:+.1f} to {100 * self.high:+.1f})"
        ).replace("-", "−")

    def reading(self, margin: float = 0.0) -> str:
        """What the interval says, in words, where the lower end is not above the margin."""
        if self.high < 0:
            return "the contrary was shown"
        if self.low > 0:
            return f"better, but not shown to be so by more than {100 * margin:.0f} points"
        return "no difference was shown: the interval holds 0"


@dataclass(frozen=True)
class Verdict:
    """A claim as it was judged.

    Attributes:
        claim: in words.
        outcome: one of `Outcome`.
        sentence: what was found.
        rule: by which it was judged.
        evidence: files below the folder of results.
    """

    claim: str
    outcome: Outcome
    sentence: str
    rule: str
    evidence: tuple[str, ...]


def points(share: float) -> str:
    """A difference in percentage points, e.g. ``+1.4``."""
    return f"{100 * share:+.1f}".replace("-", "−")


# --- Intervals ---


def gap(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Gap:
    """Difference of the mean accuracies of two sets of seeds (first − second), from their metrics alone.

    The interval adds the variance that the images leave, p (1 − p) / n for each side, and that of the means
    over seeds, s² / k, of which few seeds tell little (`quantile`). It takes the images of both sides for
    different ones; since they are the same, the true interval is narrower: what holds by this one holds. With
    one seed, s is unknown and left out.

    Raises:
        ValueError: a side is empty.
    """
    of_images, means, seeds = 0.0, [], []
    for side in (first, second):
        if not side:
            raise ValueError("there is nothing to compare")
        values = np.array([m["accuracy"] for m in side], float)
        means.append(values.mean())
        of_images += values.mean() * (1 - values.mean()) / min(m["images"] for m in side)
        seeds.append(values)
    return _gap(means[0] - means[1], of_images, *seeds)


def paired_gap(pairs: Sequence[Mapping[str, Any]]) -> Gap:
    """Mean difference over pairs of runs, one pair a seed, each on the same images.

    Args:
        pairs: what `compare.paired` gives. The variance of one pair, ((a + b) / n − d²) / n with a and b
            images that one run alone got right, is counted once and not divided by the number of seeds,
            because all pairs share their images; the seeds' own variance s² / k is added.
    """
    found = np.array([p["difference"] for p in pairs], float)
    of_images = np.mean(
        [((p["only_a"] + p["only_b"]) / p["images"] - p["difference"] ** 2) / p["images"] for p in pairs]
    )
    return _gap(found.mean(), of_images, found)


def means_gap(first: np.ndarray, second: np.ndarray) -> Gap:
    """Difference of the mean accuracies of two sets of runs on the same images (first − second).

    The variance that the images leave is that of the differences image by image, each a mean over the runs;
    the variance of the means over seeds, s² / k, is added for each side where there are several.

    Args:
        first: bool (K, N), which of N images each of K runs got right.
        second: bool (L, N), the same for L other runs.
    """
    by_image = first.mean(0) - second.mean(0)
    return _gap(by_image.mean(), by_image.var() / len(by_image), first.mean(1), second.mean(1))


def validation_gap(firsts: list[dict[str, Any]], seconds: list[dict[str, Any]]) -> str:
    """Mean accuracy on FER2013's validation images of the first runs minus the second, for the prose."""
    if not firsts or not seconds:
        return NOT_YET
    firsts, seconds = ([r["validation"]["fer2013"] for r in side] for side in (firsts, seconds))
    return f"{gap(firsts, seconds)} on PublicTest"


def above_median(values: np.ndarray) -> Gap:
    """How far the best trial of a search is above the median one; the interval is the median's."""
    medians = np.median(np.random.default_rng(0).choice(values, (2000, len(values))), axis=1)
    top = float(values.max())
    low, high = (top - float(np.quantile(medians, q)) for q in (0.975, 0.025))
    return Gap(top - float(np.median(values)), low, high)


def _gap(difference: float, of_images: float, *seeds: np.ndarray) -> Gap:
    variance = of_images + sum(of_seeds(values) for values in seeds)
    half = quantile(of_images, *seeds) * float(np.sqrt(variance))
    return Gap(float(difference), float(difference) - half, float(difference) + half)


# --- The claims ---


def _merging(folder: Path) -> Ruling:
    report = read(folder, "comparisons/merging.json")
    if report is None:
        merged = read(folder, results.DATA)
        if merged is not None and len(merged["sources"]) == 1:
            only = merged["sources"][0]["name"]
            return "not testable here", (
                f"The real merged set here holds {only} alone. With licensed copies of CK+ or JAFFE in "
                "place, `fer merging` decides."
            )
        return NOT_YET, "`fer merging` has not been run on real data of more than one source."
    found, others = paired_gap(report["pairs"]), sorted(set(report["sources"]) - {report["alone"]})
    said = f"Adding {' and '.join(others)} changes the accuracy on {report['alone']} by {found}"
    return _by(found, 0.0, f"{said}, seeds: {len(report['pairs'])}")


def _faces_against(other: str, margin: float, ways: Sequence[str]) -> Callable[[Path], Ruling]:
    """VGGFace2's start against another one, in each of the given ways of using it."""

    def judge(folder: Path) -> Ruling:
        report = read(folder, "comparisons/pretraining.json")
        runs = report["runs"] if report else []
        split = "test" if runs and all("test" in r for r in runs) else "validation"
        found, trunks, more = {}, set(), ""
        seeds: list[set[int]] = []
        for how in ways:
            sides = [
                [r for r in runs if r["pretrained"] == p and r["how"] == how] for p in ("vggface2", other)
            ]
            if all(sides):
                found[how] = gap(*([r[split] for r in side] for side in sides))
                trunks |= {r["trunk"] for side in sides for r in side}
                seeds += [{r["seed"] for r in side} for side in sides]
                if how == "all" and any(_hardly_begun(r[split]) for r in sides[1]):
                    more += (
                        " The other start had hardly begun to learn on this budget, so this is what a known "
                        "start saves, not how much higher it ends."
                    )
        if not found:
            tried = " in this way" if runs else ""
            return NOT_YET, f"The starts have not been compared{tried} on real faces."
        said = "; ".join(f"{WAYS[how]}: {each}" for how, each in found.items())
        if len(trunks) > 1:
            more += f" The trunks differ too ({', '.join(sorted(trunks))})."
        worst = min(found.values(), key=lambda each: each.low)
        return _by(worst, margin, f"On {split} ({_seeds(min(seeds, key=len))}), {said}", more=more)

    return judge


def _hardly_begun(scores: Mapping[str, Any]) -> bool:
    """Whether a network is right little more often than one that always names the largest class."""
    largest = max(map(sum, scores["confusion"])) / scores["images"]
    return bool(scores["accuracy"] < largest + LARGE)


def _nesterov(folder: Path) -> Ruling:
    report = read(folder, "sweeps/facenet.json")
    if report is None or not all(report.get("optimizers", {}).get(o) for o in ("sgd", "adam")):
        return NOT_YET, "The two optimisers have not been tuned on equal budgets."
    # The same number of trials of each, the first ones; a failed trial counts among them.
    tried = min(len(report["optimizers"][o]) for o in ("sgd", "adam"))
    sgd, adam = (_finite(report["optimizers"][o][:tried]) for o in ("sgd", "adam"))
    top = gap(*([{"accuracy": v.max(), "images": report["images"]}] for v in (sgd, adam)))
    typical = points(float(np.median(sgd) - np.median(adam)))
    said = (
        f"After {tried} trials each, the best with Nesterov momentum is at {percent(sgd.max())}, the best "
        f"with Adam at {percent(adam.max())}: {top}, the luck of the images counted for each by itself; the "
        f"median trials differ by {typical} points"
    )
    again = [report.get("best", {}).get(o, {}).get("again") or [] for o in ("sgd", "adam")]
    more = ""
    if all(again):
        with_sgd, with_adam = (percent(float(np.mean(values))) for values in again)
        more = (
            f" Trained again with {len(again[0])} other seeds, the two best settings reach {with_sgd} "
            f"(Nesterov) and {with_adam} (Adam) on average."
        )
    return _by(top, 0.0, said, more=more)


def _tuning(folder: Path) -> Ruling:
    report = read(folder, "sweeps/facenet.json")
    if report is None:
        return NOT_YET, "The search over settings has not been run."
    values = _finite(t["value"] for t in report["trials"])
    top, found = float(values.max()), above_median(values)
    far = float(np.mean(values < top - TUNING))
    tenth = percent(float(np.quantile(values, 0.1)))
    sentence = (
        f"The best of {len(values)} trials is at {percent(top)}, which is {found} above the median; one "
        f"trial in ten is below {tenth}, and {percent(far)} of them lie more than {100 * TUNING:.0f} points "
        "below the best"
    )
    sgd, adam = (above_median(_finite(report["optimizers"][o])) for o in ("sgd", "adam"))
    sentence += f". Among one optimiser's trials alone it is {sgd} with Nesterov and {adam} with Adam"
    return ("held" if found.low > TUNING else "not held"), f"{sentence}."


def _depth(first: str, second: str) -> Callable[[Path], Ruling]:
    def judge(folder: Path) -> Ruling:
        report = read(folder, "comparisons/depth.json")
        if report is None:
            return NOT_YET, "`fer depth` has not been run on real faces."
        found = _between(report, first, second)
        return _by(found, 0.0, f"{_called(report, first)} against {_called(report, second)}, "
                   f"{_budget(report)}: {found} on {report['split']}")  # fmt: skip

    return judge


def _care(folder: Path) -> Ruling:
    report = read(folder, "comparisons/depth.json")
    if report is None:
        return NOT_YET, "`fer depth` has not been run on real faces."
    easy = {r["key"] for r in report["runs"] if r["network"] == "easynet"}
    scores = {
        k: np.mean([r["validation"]["accuracy"] for r in report["runs"] if r["key"] == k]) for k in easy
    }
    top = max(scores, key=lambda key: (scores[key], key))
    found = _between(report, "mobilenet", top)
    sentence = (
        f"{_called(report, 'mobilenet')} (27 convolutions) against {_called(report, top)}, "
        f"{_budget(report)}: {found} on {report['split']}."
    )
    return ("not held" if found.low > 0 else "held"), sentence


def _between(report: dict[str, Any], first: str, second: str) -> Gap:
    """Difference of two networks of `compare.depth`; its interval is widened by the seeds' own variance."""
    for pair in report["differences"]:
        if (pair["first"], pair["second"]) == (first, second):
            by_seed = {(r["key"], r["seed"]): r["validation"]["accuracy"] for r in report["runs"]}
            own = [by_seed[first, seed] - by_seed[second, seed] for key, seed in by_seed if key == first]
            difference, (low, high) = pair["difference"], pair["interval"]
            seeds = Z * np.sqrt(of_seeds(np.array(own)))
            times = quantile(((high - low) / 2 / Z) ** 2, np.array(own)) / Z
            wide = [times * float(np.hypot(end - difference, seeds)) for end in (low, high)]
            return Gap(difference, difference - wide[0], difference + wide[1])
    raise KeyError(f"difference of {first} and {second}")


def _budget(report: dict[str, Any]) -> str:
    """What all runs of `compare.depth` were given, in words."""
    return f"{report['epochs']} epochs each, {_seeds({r['seed'] for r in report['runs']})}"


def _seeds(seeds: Collection[int]) -> str:
    """How many seeds there were; of one, what its interval leaves out."""
    return f"seeds: {len(seeds)}" if len(seeds) > 1 else "one seed, so that luck of the start is not counted"


def _called(report: dict[str, Any], key: str) -> str:
    return next(r["name"] for r in report["runs"] if r["key"] == key)


def _reached(network: str) -> Callable[[Path], Ruling]:
    """Our mean over seeds against the poster's figure."""

    def judge(folder: Path) -> Ruling:
        found = [r for r in by_protocol(read_all(folder, f"{network}-seed*.json")) if "test" in r]
        if not found:
            return NOT_YET, f"No seed of {POSTER_NAMES[network]} has been scored on PrivateTest."
        goal, score = poster(POSTER_NAMES[network]), mean_score([r["test"]["fer2013"] for r in found])
        away = score["accuracy"] - goal
        sentence = (
            f"{percent(score['accuracy'])} ({100 * score['low']:.1f} to {100 * score['high']:.1f} %) on "
            f"PrivateTest, seeds: {len(found)}; {abs(100 * away):.1f} points "
            f"{'above' if away >= 0 else 'below'} the poster's {percent(goal)}"
        )
        if away < 0 <= score["high"] - goal:
            sentence += ", which the interval holds"
        trunks = sorted({str(r["model"]["options"].get("trunk", "")) for r in found} - {"", "resnet50"})
        if trunks and away < 0:
            sentence += (
                f". The trunk is {', '.join(trunks)} and not the poster's ResNet-50, whose weights are not "
                "at hand: a miss of this book's network, which does not refute the poster's"
            )
        if len(found) < SEEDS:
            return NOT_YET, f"{sentence}. {SEEDS} seeds are asked for."
        return ("held" if away >= 0 else "not held"), f"{sentence}."

    return judge


def _facenet_beats_easynet(folder: Path) -> Ruling:
    report = read(folder, "comparisons/networks.json")
    if report is None:
        return NOT_YET, "`fer compare-all` has not been run."
    pair = next(p for p in report["pairs"] if p["what"] == "best by validation" and p["variant"] == "plain")
    found = Gap(pair["difference"], *pair["interval"])
    said = f"{pair['runs'][0]} against {pair['runs'][1]} on the same {pair['images']:,} images: {found}"
    outcome, sentence = _by(found, 0.0, f"{said}; McNemar's p {p_value(pair['p'])}")
    return ("not held" if pair["p"] >= 0.05 else outcome), sentence


def _by(found: Gap, margin: float, said: str, more: str = "") -> Ruling:
    """Held if the interval's lower end lies above the margin."""
    if found.low > margin:
        return "held", f"{said}.{more}"
    return "not held", f"{said}; {found.reading(margin)}.{more}"


def _finite(values: Any) -> np.ndarray:
    kept = np.array([np.nan if v is None else v for v in values], float)
    kept = kept[np.isfinite(kept)]
    if not len(kept):
        raise ValueError("no trial has a value")
    return kept


@dataclass(frozen=True)
class Claim:
    """A claim of the poster's, and how it is judged."""

    text: str
    rule: str
    evidence: tuple[str, ...]
    judge: Callable[[Path], Ruling]


_START, _SWEEP, _DEPTH = "comparisons/pretraining.json", "sweeps/facenet.json", "comparisons/depth.json"
_ABOVE = "lower end of the difference's 95 % interval above {}"
CLAIMS = (
    Claim(
        "Merging FER2013, CK+ and JAFFE helps.",
        _ABOVE.format("0")
        + ": all sources minus FER2013 alone, on FER2013's test images, same steps and seeds",
        ("comparisons/merging.json", results.DATA),
        _merging,
    ),
    Claim(
        "Features learnt on faces serve better than ImageNet's.",
        _ABOVE.format("0") + ", in every way of using the trunk that was tried",
        (_START,),
        _faces_against("imagenet", 0.0, tuple(WAYS)),
    ),
    Claim(
        "… by a large margin.",
        _ABOVE.format(f"{100 * LARGE:.0f} points") + ", in every way that was tried",
        (_START,),
        _faces_against("imagenet", LARGE, tuple(WAYS)),
    ),
    Claim(
        "A start from face features beats training from scratch by a large margin.",
        _ABOVE.format(f"{100 * LARGE:.0f} points") + ", everything trained, same trunk and budget",
        (_START,),
        _faces_against("none", LARGE, ("all",)),
    ),
    Claim(
        "Nesterov momentum beats Adam.",
        _ABOVE.format("0") + ": the best trials of two searches with equal budgets",
        (_SWEEP,),
        _nesterov,
    ),
    Claim(
        "Tuning is worth more than 13 %.",
        _ABOVE.format(f"{100 * TUNING:.0f} points") + ": best trial minus median trial",
        (_SWEEP,),
        _tuning,
    ),
    Claim(
        "Depth helps: four convolutions beat two.",
        _ABOVE.format("0") + ", on validation, same recipe and epochs",
        (_DEPTH,),
        _depth("easynet-4", "easynet-2"),
    ),
    Claim(
        "… but only with care: a far deeper network from a random start does not beat EasyNet.",
        "lower end of the 95 % interval of MobileNetV1 minus the best EasyNet not above 0, same recipe and "
        "epochs",
        (_DEPTH,),
        _care,
    ),
    Claim(
        "FaceNet reads faces better than EasyNet.",
        _ABOVE.format("0") + " and McNemar's p below 0.05, best run of each by validation, plain scores",
        ("comparisons/networks.json",),
        _facenet_beats_easynet,
    ),
    Claim(
        "EasyNet reaches 68.9 % on FER2013.",
        f"mean of {SEEDS} seeds or more on PrivateTest, six classes, no averaging, at least that",
        ("easynet-seed*.json",),
        _reached("easynet"),
    ),
    Claim(
        "FaceNet reaches 76.5 % on FER2013.",
        f"mean of {SEEDS} seeds or more on PrivateTest, six classes, no averaging, at least that",
        ("facenet-seed*.json",),
        _reached("facenet"),
    ),
)


def judge(folder: Path) -> list[Verdict]:
    """Judge every claim by the files that are there.

    Args:
        folder: of the results files.

    Raises:
        DataError: a file is there, but lacks what a claim is judged by.
    """
    found = []
    for claim in CLAIMS:
        try:
            outcome, sentence = claim.judge(folder)
        except (KeyError, TypeError, ValueError, IndexError, StopIteration) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"the claim “{claim.text}” cannot be judged by it ({type(error).__name__}: {error})",
                file=folder / claim.evidence[0],
                remedy="write the file anew in the form that reading_faces.study.verdicts describes",
            ) from None
        found.append(Verdict(claim.text, outcome, sentence, claim.rule, claim.evidence))
    return found


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """A report below the folder of results, or none where it has not been written.

    Raises:
        DataError: it is not a JSON object.
    """
    path = folder / name
    if not path.exists():
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report, dict):
            raise ValueError(f"a {type(report).__name__}")
    except ValueError as error:
        raise DataError(f"not a JSON object ({error})", file=path, remedy="write it anew") from None
    return report


# --- Tables ---


def claims_table(found: Sequence[Verdict]) -> pd.DataFrame:
    """Each claim and its verdict."""
    return pd.DataFrame([{"claim": v.claim, "verdict": v.outcome} for v in found]).set_index("claim")


def claims_text(found: Sequence[Verdict]) -> str:
    """Each claim with its verdict, what was found, the rule and the evidence, as a list in Markdown."""
    return "\n".join(
        f"- **{v.claim}** *{v.outcome[0].upper()}{v.outcome[1:]}.* {v.sentence}\n"
        f"  Held if: {v.rule}. Evidence: {', '.join(f'`{name}`' for name in v.evidence)}."
        for v in found
    )


def p_value(p: float) -> str:
    """A p-value as the tables show it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def means_reading(
    space: Workspace, first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]
) -> str:
    """The mean accuracies of two sets of runs against each other on the same images of FER2013, in words.

    Args:
        space: gives the results and the answers that were kept.
        first: results of runs that differ in their seed alone.
        second: results of the runs that they are held against.

    Returns:
        Differences on validation and test, whose intervals count images and, where a side has several seeds,
        these (`means_gap`); the number of seeds, and where they are the same on both sides the difference of
        each; or that a run has not been made.
    """
    if not first or not second:
        return NOT_YET
    sides = [[result["recipe"]["seed"] for result in side] for side in (first, second)]
    said, pairs = [], sides[0] == sides[1] and len(first) > 1
    alone = "" if len(first) > 1 and len(second) > 1 else "; the luck of a single start is not counted"
    for split, name in (("validation", "PublicTest"), ("test", "PrivateTest")):
        try:
            names = [result["name"] for result in (*first, *second)]
            right = compare.answers(space, names, split, "fer2013").correct("plain")
        except DataError:
            return NOT_YET
        one, other = right[: len(first)], right[len(first) :]
        by_seed = f", seed by seed {listed(points(d) for d in one.mean(1) - other.mean(1))}" if pairs else ""
        said.append(f"{means_gap(one, other)} on {name}{by_seed}")
    return f"{(', and ' if pairs else ' and ').join(said)} (seeds: {len(first)} and {len(second)}{alone})"


def networks_table(report: Mapping[str, Any] | None) -> pd.DataFrame:
    """What `compare.networks` found in pairs: one row a pair and way of scoring."""
    if report is None:
        return pd.DataFrame([{"pair": NOT_YET, "": ""}]).set_index("pair")
    first, second = report["pairs"][0]["runs"]
    names = [POSTER_NAMES.get(report["runs"][run]["network"], run) for run in (first, second)]
    rows = [
        {
            "pair": f"{pair['what']}, {pair['variant']}",
            "images": f"{pair['images']:,}",
            **{n: percent(a) for n, a in zip(names, pair["accuracy"], strict=True)},
            "difference, points": str(Gap(pair["difference"], *pair["interval"])).replace(" points", ""),
            f"only {names[0]} right": pair["only_a"],
            f"only {names[1]} right": pair["only_b"],
            "p (McNemar)": p_value(pair["p"]),
        }
        for pair in report["pairs"]
    ]
    return pd.DataFrame(rows).set_index("pair")


def ensembles_table(report: Mapping[str, Any] | None) -> pd.DataFrame:
    """Ensembles, which are never mixed with single networks: members, weights, score, gain."""
    if report is None or not report["ensembles"]:
        return pd.DataFrame([{"ensemble": NOT_YET, "": ""}]).set_index("ensemble")
    rows = []
    for mixed in report["ensembles"]:
        shares: dict[str, float] = {}
        for run, weight in mixed["weights"].items():
            network = report["runs"][run]["network"]
            shares[network] = shares.get(network, 0) + weight
        test, against = mixed["test"], mixed["against"]
        rows.append(
            {
                "ensemble": f"{mixed['name']}, {mixed['variant']}",
                "networks": len(mixed["weights"]),
                "weights": ", ".join(f"{n} {w:.2f}" for n, w in shares.items()),
                "accuracy": f"{percent(test['accuracy'])} ({100 * test['accuracy_interval'][0]:.1f} to "
                f"{100 * test['accuracy_interval'][1]:.1f} %)",
                f"minus {against['run']}, points": str(
                    Gap(against["difference"], *against["interval"])
                ).replace(" points", ""),
                "p (McNemar)": p_value(against["p"]),
            }
        )
    return pd.DataFrame(rows).set_index("ensemble")


def ablation_table(found: list[dict[str, Any]], base: str) -> pd.DataFrame:
    """Runs that changed one thing of another run each, and the difference it made on FER2013's PublicTest.

    Args:
        found: results of a search; those of as many epochs as the base count.
        base: the run that they changed.
    """
    by_name = {result["name"]: result for result in found}
    if base not in by_name:
        return search_table(found, base)
    epochs = by_name[base]["recipe"]["epochs"]
    alike = [result for result in found if result["recipe"]["epochs"] == epochs]
    table = search_table(alike, base)
    public = {name.split("/")[-1]: [result["validation"]["fer2013"]] for name, result in by_name.items()}
    against = public[base.split("/")[-1]]
    told = [str(gap(public[run], against)).replace(" points", "") for run in table.index]
    own = table.index == base.split("/")[-1]
    return table.drop(columns=["epochs", "95 % interval"]).assign(
        **{"difference, points": np.where(own, "", told)}
    )


def variants_table(found: Mapping[str, Sequence[Mapping[str, Any]]], split: str = "test") -> pd.DataFrame:
    """Accuracy by what it was measured on (rows) and network (columns): mean over seeds with interval.

    Args:
        found: results by name of the network; those that have not read the split are left out.
        split: of the results.
    """
    columns: dict[str, dict[str, str]] = {}
    images: dict[str, int] = {}
    for name, runs in found.items():
        scored = [r[split] for r in runs if split in r]
        for variant in dict.fromkeys(v for s in scored for v in s):
            score = mean_score([s[variant] for s in scored if variant in s])
            images[variant] = score["images"]
            columns.setdefault(name, {})[variant] = (
                f"{percent(score['accuracy'])} ({100 * score['low']:.1f} to {100 * score['high']:.1f} %)"
            )
    if not columns:
        return pd.DataFrame([{"measured on": NOT_YET, "": ""}]).set_index("measured on")
    table = pd.DataFrame(columns).reindex(images).fillna("–")
    table.insert(0, "images", [f"{n:,}" for n in images.values()])
    return table.rename_axis("measured on")


def confusions(found: Mapping[str, Sequence[Mapping[str, Any]]], profile: str = "full") -> dict[str, Any]:
    """Confusion matrices of the best seed by validation of each network, as `plots.confusion_matrices` takes.

    Args:
        found: results by name of the network; a network without any is left out.
        profile: of the results; drawn faces have no PrivateTest.
    """
    matrices = {}
    for name, runs in found.items():
        if runs:
            split, scores = held_out(best(list(runs)))
            where = split if profile == "full" else "drawn faces"
            matrices[f"{name} on {where}"] = scores["confusion"]
    return matrices


def recalls(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Recall by class of each network's best seed by validation, as `plots.recall_intervals` takes it."""
    named = {}
    for name, runs in found.items():
        if runs:
            _, scores = held_out(best(list(runs)))
            named[name] = {
                c: None if value is None else (value, *scores["recall_interval"][c])
                for c, value in scores["recall"].items()
            }
    return named


def depth_intervals(report: Mapping[str, Any]) -> pd.DataFrame:
    """What `compare.depth` found, as `plots.intervals` takes it: mean over seeds of each network."""
    rows = []
    for key in dict.fromkeys(r["key"] for r in report["runs"]):
        own = [r for r in report["runs"] if r["key"] == key]
        score = mean_score([r["validation"] for r in own])
        note = f"{own[0]['parameters'] / 1e6:.2f} million parameters"
        rows.append({"name": own[0]["name"], "value": score["accuracy"], "low": score["low"],
                     "high": score["high"], "group": "own", "note": note})  # fmt: skip
    return pd.DataFrame(rows)


def comparison(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """The poster's figure 6: our networks beside all of `book/anchors.csv`, as `plots.intervals` takes it.

    Args:
        found: results by the name that the figure shows; those that have not read the test are left out.
    """
    rows = []
    for name, runs in found.items():
        scored = [r["test"]["fer2013"] for r in runs if "test" in r]
        if scored:
            score = mean_score(scored)
            seeds = f", mean of {score['seeds']} seeds" if score["seeds"] > 1 else ", one seed"
            rows.append({"name": name, "value": score["accuracy"], "low": score["low"], "high": score["high"],
                         "group": "own", "note": f"PrivateTest, 6 classes{seeds}"})  # fmt: skip
    for a in anchors().itertuples():
        rows.append({"name": a.system, "value": a.accuracy, "low": np.nan, "high": np.nan, "group": "other",
                     "note": a.protocol})  # fmt: skip
    return pd.DataFrame(rows)


def costs(
    found: Sequence[Mapping[str, Any]], speed: Mapping[str, Any] | None, split: str = "test"
) -> pd.DataFrame:
    """Accuracy against size and time, as `plots.costs` takes it.

    Args:
        found: results.
        speed: what `tests/benchmarks/speed.py` writes; networks that it did not time are left out.
        split: whose FER2013 accuracy counts.

    Returns:
        `name`, `parameters`, `milliseconds` (a single face, one thread), `accuracy`, `low`, `high`.
    """
    by_name = {r["name"]: r for r in found if split in r}
    rows = []
    for timed in speed["networks"] if speed else ():
        if timed["run"] in by_name:
            score = by_name[timed["run"]][split]["fer2013"]
            low, high = score["accuracy_interval"]
            rows.append({"name": timed["run"], "parameters": timed["parameters"],
                         "milliseconds": _median(timed, 1, 1), "accuracy": score["accuracy"], "low": low,
                         "high": high})  # fmt: skip
    return pd.DataFrame(rows, columns=["name", "parameters", "milliseconds", "accuracy", "low", "high"])


def _median(timed: Mapping[str, Any], batch: int, threads: int) -> float:
    return next(t["median"] for t in timed["milliseconds"] if (t["batch"], t["threads"]) == (batch, threads))


def speed_table(speed: Mapping[str, Any] | None) -> pd.DataFrame:
    """Parameters, size and milliseconds a face, one row a network."""
    if speed is None:
        return pd.DataFrame([{"network": NOT_YET, "": ""}]).set_index("network")
    rows = []
    for timed in speed["networks"]:
        times = {
            f"ms a face: {t['batch']} a call, {t['threads']} thread{'s' * (t['threads'] > 1)}": (
                f"{t['median']:.2f}"
            )
            for t in timed["milliseconds"]
        }
        rows.append({"network": timed["run"], "parameters": f"{timed['parameters']:,}",
                     "file": f"{timed['megabytes']:.1f} MB", **times})  # fmt: skip
    return pd.DataFrame(rows).set_index("network").T


def choice_facts(
    easynet: Sequence[Mapping[str, Any]],
    facenet: Sequence[Mapping[str, Any]],
    report: Mapping[str, Any] | None,
    speed: Mapping[str, Any] | None,
) -> dict[str, str]:
    """What a choice between the networks hangs on, for the prose, by glue name.

    Args:
        easynet: results of its seeds; empty before the full run.
        facenet: of FaceNet's.
        report: what `compare.networks` writes, or none.
        speed: what `tests/benchmarks/speed.py` writes, or none.
    """
    facts = {}
    for network, found in (("easynet", easynet), ("facenet", facenet)):
        scored = [r["test"]["fer2013"] for r in found if "test" in r]
        timed = next((t for t in (speed or {}).get("networks", ()) if t["run"].startswith(network)), None)
        score = mean_score(scored) if scored else None
        facts[f"choice-{network}"] = NOT_YET if score is None else (
            f"{percent(score['accuracy'])} ({100 * score['low']:.1f} to {100 * score['high']:.1f} %, "
            f"seeds: {score['seeds']})"
        )  # fmt: skip
        facts[f"choice-{network}-size"] = (
            f"{found[0]['model']['parameters'] / 1e6:.1f} million parameters" if found else NOT_YET
        )
        hours = [r["training_seconds"] / 3600 for r in found]
        facts[f"choice-{network}-hours"] = f"{np.mean(hours):.1f} hours" if found else NOT_YET
        facts[f"choice-{network}-time"] = (
            f"{_median(timed, 1, 1):.1f} milliseconds a face" if timed else NOT_YET
        )
        facts[f"choice-{network}-weak"] = _weakest(scored) if scored else NOT_YET
    facts["choice-detector"] = f"{speed['detector']['median']:.0f} milliseconds" if speed else NOT_YET
    return facts | report_facts("choice", report)


def report_facts(prefix: str, report: Mapping[str, Any] | None) -> dict[str, str]:
    """What `compare.networks` found, for the prose, by glue name.

    Args:
        prefix: of the names.
        report: what it wrote, or none.
    """
    names = ("pair", "difference", "means", "ensemble")
    if report is None:
        return {f"{prefix}-{name}": NOT_YET for name in names}
    pair = next(p for p in report["pairs"] if p["what"] == "best by validation" and p["variant"] == "plain")
    means = report["means"]["plain"]
    seeds = " and ".join(str(means[network]["seeds"]) for network in reversed(report["best"]))
    last = next(m for m in reversed(report["ensembles"]) if m["variant"] == "plain")
    gain = Gap(last["against"]["difference"], *last["against"]["interval"])
    low, high = last["test"]["accuracy_interval"]
    values = (
        " against ".join(
            f"{run} ({percent(a)})" for run, a in zip(pair["runs"], pair["accuracy"], strict=True)
        ),
        _difference_in_words(pair),
        f"{Gap(means['difference']['difference'], *means['difference']['interval'])} between the means of "
        f"{seeds} runs (drawing images anew, for these very runs)",
        f"{percent(last['test']['accuracy'])} (95 % interval {100 * low:.1f} to {100 * high:.1f} %) with "
        f"{len(last['weights'])} networks, {gain} against the best single one of them",
    )
    return {f"{prefix}-{name}": value for name, value in zip(names, values, strict=True)}


def _weakest(scored: Sequence[Mapping[str, Any]]) -> str:
    """The class with the lowest mean recall, and that recall."""
    recalls = {
        c: np.mean([s["recall"][c] for s in scored]) for c, r in scored[0]["recall"].items() if r is not None
    }
    name = min(recalls, key=lambda c: recalls[c])
    return f"{name}, of which {percent(float(recalls[name]))} are named rightly"


def _difference_in_words(pair: Mapping[str, Any]) -> str:
    """Is the difference between two networks real?"""
    found = Gap(pair["difference"], *pair["interval"])
    real = (
        "is more than luck of the images"
        if found.low > 0 or found.high < 0
        else "could be luck of the images"
    )
    return f"{found}, McNemar's p {p_value(pair['p'])}: the difference {real}"
