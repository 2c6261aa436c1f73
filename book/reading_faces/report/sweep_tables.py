"""What a search over settings says: chapter 5's tables, curves and sentences, from a file of `fer sweep`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import gammaln

from fer_utils.evaluation import wilson_interval
from fer_utils.results import summarise
from fer_utils.workspace import workspace
from reading_faces.report import plots
from reading_faces.report.notebook import NOT_YET, percent
from reading_faces.study import sweep, verdicts

TITLES = {"sgd": "SGD, Nesterov", "adam": "Adam"}
SETTINGS = {
    "lr": "learning rate",
    "momentum": "momentum",
    "weight_decay": "weight decay",
    "layers": "layers of the head",
    "fc1": "units of FC 1",
    "fc2": "units of FC 2",
    "dropout": "dropout",
    "freeze": "frozen share",
}
BINS = 6  # of the learning rate: half a power of ten each
RESAMPLES = 2_000  # of the draws, for intervals
NARROW = 3.0  # "about right": a learning rate at most so many times above or below the best draw's


def full_report(name: str = sweep.NAME) -> list[dict[str, Any]]:
    """What `fer sweep` left for the book, as a list of one; empty before the full run."""
    path = workspace("full").results / sweep.FOLDER / f"{name}.json"
    return [sweep.read(path)] if path.exists() else []


def space_table(space: Mapping[str, Any]) -> pd.DataFrame:
    """What is searched: a row a setting, a column an optimiser.

    Args:
        space: what `sweep.described` gives, or `space` of a report.
    """

    def words(kind: Mapping[str, Any]) -> str:
        if "choices" in kind:
            shares = isinstance(kind["choices"][0], float)
            return ", ".join(percent(c, 0) if shares else str(c) for c in kind["choices"])
        ends = f"{kind['low']:g} to {kind['high']:g}"
        return f"{ends}, logarithmic" if kind["log"] else ends

    columns = {t: {SETTINGS[n]: words(kind) for n, kind in space[o].items()} for o, t in TITLES.items()}
    return pd.DataFrame(columns).rename_axis("setting")


def seen(report: Mapping[str, Any]) -> str:
    """What a trial is trained on, in words."""
    budget = report["budget"]
    images = budget["batches"] * budget["batch_size"] or report["training_images"]
    return f"{images:,} images, epochs: {budget['epochs']}"


def trials(report: Mapping[str, Any]) -> pd.DataFrame:
    """All trials, a row each: `draw`, `optimizer`, the settings by name, and `value`."""
    return pd.DataFrame([t["params"] | {"draw": t["draw"], "value": t["value"]} for t in report["trials"]])


def by_rate(report: Mapping[str, Any]) -> pd.DataFrame:
    """Values by learning rate, whatever the other settings: `optimizer`, `lr`, `trials`, `median`, `best`.

    The range of each optimiser is cut into `BINS` equal parts on the logarithmic axis; `lr` is the middle.
    """
    rows = []
    for optimizer, table in trials(report).groupby("optimizer", sort=False):
        kind = report["space"][optimizer]["lr"]
        edges = np.linspace(np.log10(kind["low"]), np.log10(kind["high"]), BINS + 1)
        part = np.clip(np.searchsorted(edges, np.log10(table["lr"]), side="right") - 1, 0, BINS - 1)
        for k, values in table.groupby(part)["value"]:
            rows.append({"optimizer": optimizer, "lr": 10 ** edges[k : k + 2].mean(), "trials": len(values),
                         "median": values.median(), "best": values.max()})  # fmt: skip
    return pd.DataFrame(rows)


def reasonable(report: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Values of all trials and of ever fewer of them, by what a person might call reasonable settings."""
    table = trials(report)
    sgd = table[table["optimizer"] == "sgd"]
    off = np.abs(np.log10(sgd["lr"] / sgd.loc[sgd["value"].idxmax(), "lr"]))
    groups = {
        "anything in the space": table,
        **{f"… with {title}": table[table["optimizer"] == o] for o, title in TITLES.items()},
        "SGD, learning rate at most 10 times off": sgd[off <= 1],
        f"SGD, learning rate at most {NARROW:g} times off": sgd[off <= np.log10(NARROW)],
    }
    return {name: group["value"].to_numpy() for name, group in groups.items()}


def spread_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """Worst, one in ten, median and best of each group of `reasonable`, and how far best is above median."""
    rows = [
        {
            "what is called reasonable": name,
            "trials": len(values),
            "worst": percent(values.min()),
            "one in ten is below": percent(np.quantile(values, 0.1)),
            "median": percent(np.median(values)),
            "best": percent(values.max()),
            "best minus median": str(verdicts.above_median(values)),
        }
        for name, values in reasonable(report).items()
    ]
    return pd.DataFrame(rows).set_index("what is called reasonable")


def luck(report: Mapping[str, Any]) -> str:
    """How far a single value may be off because of the images that it was measured on, as a sentence."""
    n, top = report["images"], max(t["value"] for t in report["trials"])
    low, high = wilson_interval(round(top * n), n)
    return (
        f"Each value is measured on {n:,} images. For the best one, {percent(top)}, these leave a 95 % "
        f"interval of {100 * low:.1f} to {100 * high:.1f} %."
    )


def _weights(count: int) -> np.ndarray:
    """(count, count): row n − 1 holds, for each rank, how probably it is the best of n drawn out of count."""
    n, rank = np.arange(1, count + 1)[:, None], np.arange(1, count + 1)[None]

    def log_choose(a: np.ndarray | int, b: np.ndarray) -> np.ndarray:
        return gammaln(a + 1) - gammaln(b + 1) - gammaln(a - b + 1)

    possible = rank >= n
    below = np.where(possible, rank - 1, n - 1)
    return np.where(possible, np.exp(log_choose(below, n - 1) - log_choose(count, n)), 0.0)


def expected_best(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Mean best value of 1, 2, … of the trials, drawn at random (Dodge et al. 2019, without replacement).

    Args:
        values: of trials, or rows of them, (…, N).

    Returns:
        Float (…, N).
    """
    values = np.sort(np.asarray(values, float))
    return values @ _weights(values.shape[-1]).T


def _raced(report: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By optimiser, the expected best, (N,), and that of the draws drawn anew, alike for both, (B, N)."""
    count = min(len(values) for values in report["optimizers"].values())
    rows = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    found = {o: np.array(report["optimizers"][o][:count]) for o in TITLES}
    return {o: (expected_best(values), expected_best(values[rows])) for o, values in found.items()}


def race(report: Mapping[str, Any]) -> pd.DataFrame:
    """Expected best by trials tried: `optimizer`, `trials`, `value`, and `low` and `high` of its interval."""
    tables = []
    for optimizer, (value, drawn) in _raced(report).items():
        low, high = np.quantile(drawn, (0.025, 0.975), axis=0)
        columns = {"trials": np.arange(1, len(value) + 1), "value": value, "low": low, "high": high}
        tables.append(pd.DataFrame(columns).assign(optimizer=optimizer))
    return pd.concat(tables, ignore_index=True)


def race_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """Who is ahead after 1, 2, 4, … trials each, and after all, with the difference and its interval."""
    (sgd, sgd_drawn), (adam, adam_drawn) = _raced(report).values()
    count, rows = len(sgd), []
    for n in sorted({*(2**k for k in range(count.bit_length())), count}):
        low, high = np.quantile(sgd_drawn[:, n - 1] - adam_drawn[:, n - 1], (0.025, 0.975))
        gap = verdicts.Gap(sgd[n - 1] - adam[n - 1], low, high)
        best = {TITLES["sgd"]: percent(sgd[n - 1]), TITLES["adam"]: percent(adam[n - 1])}
        rows.append({"trials of each": n} | best | {"SGD minus Adam": str(gap)})
    return pd.DataFrame(rows).set_index("trials of each")


def best_table(report: Mapping[str, Any]) -> pd.DataFrame:
    """The best draw of each optimiser: its settings, its value, and what it gives with other seeds."""
    columns = {}
    for o, title in TITLES.items():
        best = report["best"][o]
        unused = ({"fc1", "fc2", "dropout"}, {"fc2"}, set())[best["params"]["layers"]]
        named = {"number of the draw": str(best["draw"])} | {
            SETTINGS[n]: "–" if n in unused else percent(v, 0) if n == "freeze" else f"{v:g}"
            for n, v in best["params"].items()
        }
        columns[title] = named | {
            f"value, seed {report['seed']}": percent(best["value"]),
            "other seeds": ", ".join(percent(v) for v in best["again"]),
            "their mean": _mean(best["again"]),
        }
    return pd.DataFrame(columns).rename_axis("best draw")


def _mean(values: Sequence[float]) -> str:
    found = summarise(values)
    spread = f" ± {100 * found['std']:.1f} (standard deviation)" if len(values) > 1 else ""
    return percent(found["mean"]) + spread


def rates_figure(report: Mapping[str, Any]) -> Figure:
    """Values against learning rates."""
    return plots.learning_rates(trials(report), by_rate(report), TITLES)


def spread_figure(report: Mapping[str, Any]) -> Figure:
    """Values in order, with what the poster says of tuning as a line."""
    values = {title: np.array(report["optimizers"][o]) for o, title in TITLES.items()}
    return plots.spread(values, below=verdicts.TUNING)


def importance_figure(report: Mapping[str, Any]) -> Figure:
    """Shares of the variance by setting."""
    lines = {name: title.replace(" ", "\n", 1) for name, title in SETTINGS.items()}
    shares = {
        title: {line: tuple(report["importance"][o][name]) for name, line in lines.items()}
        for o, title in TITLES.items()
    }
    return plots.share_intervals(shares, list(lines.values()), label="share of the variance")


def race_figure(report: Mapping[str, Any]) -> Figure:
    """Expected best by trials tried."""
    return plots.expected_best(race(report), TITLES)


def facts(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What the search on real faces found, for the prose of chapter 5, by glue name.

    Args:
        found: what `full_report` gives.
    """
    names = ("what", "rates", "spread", "narrow", "luck", "matters", "race", "again")
    if not found:
        return {f"tuning-{name}": NOT_YET for name in names}
    report = found[0]
    budget, groups = report["budget"], reasonable(report)
    everything, narrow = groups["anything in the space"], list(groups.values())[-1]
    last = race_table(report).iloc[-1]
    best = {title: report["best"][o] for o, title in TITLES.items()}
    values = (
        f"{budget['trials']} draws for each optimiser; each is trained on {seen(report)}; "
        f"{report['seconds'] / 3600:.1f} hours of training on {report['processor']}, threads: "
        f"{report['threads']}; {report['date']}, revision {report['revision']}",
        "; ".join(f"{title}: {_inside(report, o)}" for o, title in TITLES.items()),
        f"the worst of all {len(everything)} trials is at {percent(everything.min())}, one in ten is below "
        f"{percent(np.quantile(everything, 0.1))}, the median is at {percent(np.median(everything))} and the "
        f"best at {percent(everything.max())}: best minus median is {verdicts.above_median(everything)}",
        f"best minus median is {verdicts.above_median(narrow)} among the {len(narrow)} trials with SGD whose "
        f"learning rate is at most {NARROW:g} times off",
        luck(report),
        "; ".join(f"with {title}, {_matters(report['importance'][o])}" for o, title in TITLES.items()),
        f"after {budget['trials']} trials each, the best with SGD is at {last[TITLES['sgd']]} and the best "
        f"with Adam at {last[TITLES['adam']]}: a difference of {last['SGD minus Adam']}",
        "; ".join(
            f"{title}: {percent(b['value'])} with the seed of the search, {_mean(b['again'])} with "
            f"{len(b['again'])} others"
            for title, b in best.items()
        ),
    )
    return {f"tuning-{name}": value for name, value in zip(names, values, strict=True)}


def _inside(report: Mapping[str, Any], optimizer: str) -> str:
    """Where in its range the learning rate of the best draw lies."""
    rate, ends = report["best"][optimizer]["params"]["lr"], report["space"][optimizer]["lr"]
    away = min(np.log10(rate / ends["low"]), np.log10(ends["high"] / rate))
    return f"{rate:g}, {away:.1f} powers of ten from the nearer end"


def _matters(shares: Mapping[str, Sequence[float]]) -> str:
    """The two settings that alone make most of the variance."""
    first = sorted(shares, key=lambda name: -shares[name][0])[:2]
    return " and ".join(
        f"the {SETTINGS[n]} alone accounts for {percent(shares[n][0], 0)} of the variance "
        f"({100 * shares[n][1]:.0f} to {100 * shares[n][2]:.0f} %)"
        for n in first
    )
