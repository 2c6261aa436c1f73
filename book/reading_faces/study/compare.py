"""Compare two networks on the same test images: best against best, seed by seed, and their ensembles.

`python -m reading_faces.study.compare` reads stored predictions, no image, and writes
`comparisons/networks.json`; with `--name votes` and other runs, `comparisons/votes.json`.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import metrics
from fer_utils.experiment import Workspace, read_predictions, read_result, workspace
from reading_faces.study.stats import pair
from reading_faces.study.store import write_report

NETWORKS = ("easynet", "facenet")  # the one expected to be better comes second
VARIANTS = ("plain", "flip", "deduplicated")
GRID = [(k / 20, 1 - k / 20) for k in range(21)]  # weights of two networks


class Answers(NamedTuple):
    """What several runs predicted on the same images."""

    labels: np.ndarray  # int (N,), 0–5
    fresh: np.ndarray  # bool (N,), false where an exact copy stands in an earlier split
    plain: np.ndarray  # float32 (R, N, 6), probabilities of each run
    flip: np.ndarray  # the same with the mirror image averaged; NaN where a run has not kept them

    def correct(self, variant: str = "plain") -> np.ndarray:
        """Bool (R, M), which images each run got right; ``"deduplicated"`` counts fresh images alone."""
        right = (self.flip if variant == "flip" else self.plain).argmax(2) == self.labels
        return right[:, self.fresh] if variant == "deduplicated" else right


def answers(space: Workspace, names: Sequence[str], split: str, source: str = "fer2013") -> Answers:
    """Collect the stored predictions of several runs on the images of one source.

    Raises:
        DataError: a run has no predictions of that source, of the weights that its results file speaks of,
            or on the same images and labels as the others.
    """
    tables = []
    for run in names:
        table = read_predictions(space.results, run, split)
        stale = table.attrs["checkpoint"] != read_result(space.results / f"{run}.json").checkpoint
        table = table[table["source"] == source]
        first = tables[0] if tables else table
        if stale or table.empty or not table[["origin", "label"]].equals(first[["origin", "label"]]):
            why = "weights than its results file" if stale else "images or labels than those asked for"
            raise DataError(
                f"the stored {split} predictions of {run} are of other {why}",
                file=space.results,
                remedy=f"run `fer evaluate {run}`, for the test split with --test",
            )
        tables.append(table)
    plain, flip = (
        np.stack([t.reindex(columns=[f"{kind}_{c}" for c in CLASSES]).to_numpy(np.float32) for t in tables])
        for kind in ("p", "flip")
    )
    return Answers(tables[0]["label"].to_numpy(), ~tables[0]["seen_copy"].to_numpy(bool), plain, flip)


def compare(
    space: Workspace, members: Mapping[str, Sequence[str]], source: str = "fer2013"
) -> dict[str, Any]:
    """Compare two networks, each with the names of its runs, on the images of a source.

    What is chosen is chosen on validation. Gives `images` by variant; `runs` by name (accuracies on
    `validation` and, by variant, `test`); the `best` by network; `pairs`, the best of both and
    each common seed, the second network first; `ensembles`. Raises DataError as `answers` does.
    """
    names = [run for own in members.values() for run in own]
    rows = {network: [names.index(run) for run in own] for network, own in members.items()}
    seen = {split: answers(space, names, split, source) for split in ("validation", "test")}
    right = {variant: seen["test"].correct(variant) for variant in VARIANTS}
    runs: dict[str, dict[str, Any]] = {}
    for i, run in enumerate(names):
        result = read_result(space.results / f"{run}.json")
        runs[run] = {
            "network": next(network for network, own in members.items() if run in own),
            "seed": result.recipe["seed"],
            "parameters": result.model["parameters"],
            "checkpoint": result.checkpoint,
            "validation": float(seen["validation"].correct()[i].mean()),
            "test": {variant: float(each[i].mean()) for variant, each in right.items()},
        }
    best = {n: max(own, key=lambda run: runs[run]["validation"]) for n, own in members.items()}
    first, second = members.values()
    matches = [("best by validation", *reversed(best.values()))]
    matches += [
        (f"seed {runs[a]['seed']}", a, b)
        for a, b in itertools.product(second, first)
        if runs[a]["seed"] == runs[b]["seed"]
    ]
    return {
        "profile": space.profile,
        "source": source,
        "images": {variant: each.shape[1] for variant, each in right.items()},
        "runs": runs,
        "best": best,
        "pairs": [
            {"what": what, "variant": variant, "runs": [a, b]}
            | pair(each[names.index(a)], each[names.index(b)])
            for what, a, b in matches
            for variant, each in right.items()
        ],
        "ensembles": ensembles(seen, names, rows, max(best.values(), key=lambda r: runs[r]["validation"])),
    }


def ensembles(
    seen: Mapping[str, Answers], names: list[str], rows: Mapping[str, list[int]], single: str
) -> list[dict[str, Any]]:
    """Average the seeds of each network, and of both with the weights of `GRID` that are best on validation.

    Returns:
        For both variants: `name`, `variant`, `weights` by run, `validation` accuracy, `test` (`metrics`), and
        what `pair` gives `against` the best single run.
    """
    report = []
    for variant in ("plain", "flip"):
        averages = {
            split: np.stack([getattr(each, variant)[own].mean(0) for own in rows.values()])
            for split, each in seen.items()
        }
        scores = {
            w: float(
                (np.tensordot(w, averages["validation"], 1).argmax(1) == seen["validation"].labels).mean()
            )
            for w in GRID
        }
        # Of several that are equally good, the one nearest to equal weights.
        chosen = max(GRID, key=lambda w: (round(scores[w], 9), -np.ptp(w)))
        for name, w in zip((*rows, " and ".join(rows)), (GRID[-1], GRID[0], chosen), strict=True):
            mixed = np.tensordot(w, averages["test"], 1)
            weights = {
                names[i]: round(v / len(own), 6)
                for v, own in zip(w, rows.values(), strict=True)
                for i in own
                if v
            }
            ours = mixed.argmax(1) == seen["test"].labels
            against = pair(ours, seen["test"].correct(variant)[names.index(single)])
            report.append(
                {"name": name, "variant": variant, "weights": weights, "validation": scores[w]}
                | {"test": metrics(seen["test"].labels, mixed), "against": {"run": single} | against}
            )
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Write `comparisons/<name>.json` and print the paired tests."""
    parser = argparse.ArgumentParser(prog="python -m reading_faces.study.compare", description=__doc__)
    parser.add_argument("--profile", choices=("demo", "full"), default="full")
    parser.add_argument("--name", default="networks", help="of the file")
    for network in NETWORKS:
        parser.add_argument(
            f"--{network}", default=network, help="its runs are called this and -seed<number>"
        )
    options = vars(parser.parse_args(arguments))
    space = workspace(options["profile"])
    members = {n: [p.stem for p in sorted(space.results.glob(f"{options[n]}-seed*.json"))] for n in NETWORKS}
    report = write_report(space.results / "comparisons" / f"{options['name']}.json", compare(space, members))
    for each in report["pairs"]:
        print(f"{each['what']}, {each['variant']}: {each['difference']:+.2%}, p = {each['p']:.2g}")


if __name__ == "__main__":
    main()
