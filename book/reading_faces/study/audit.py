"""Audit of group differences: is a network right less often about some people than about others?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import permutation_test

from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import wilson_interval


def group_differences(
    groups: Sequence[Any],
    labels: Sequence[int],
    predicted: Sequence[int],
    people: Sequence[Any] | None = None,
) -> pd.DataFrame:
    """Accuracy and recall of each class by group, with Wilson's 95% intervals and permutation tests.

    Takes, (N,) each, the group of every image, its label and the network's answer, int, 0–5 in the order of
    `CLASSES`, and maybe who it shows: then whole people are shuffled over the groups, which supposes about
    as many images of each; the intervals still take images as independent.

    Gives one row a measure (`accuracy`, `recall …`) and group that has images of it: `images`; `share` of
    right answers with `low` and `high`; `gap`, the largest share minus the smallest; its `p`; and `p_holm`,
    for the recalls corrected for testing six classes (Holm 1979). No p where only one group has images. A
    DataError says that there are no two groups, one or a person is missing, or a person is in two.
    """
    table = pd.DataFrame({"group": np.asarray(groups), "label": np.asarray(labels)})
    table["right"] = table["label"] == np.asarray(predicted)
    table["person"] = table.index if people is None else np.asarray(people)
    if table.isna().any(axis=None) or table["group"].nunique() < 2:
        raise DataError("a group or a person is missing", remedy="name two groups or more, and everybody's")
    if (table.groupby("person")["group"].nunique() > 1).any():
        raise DataError("a person is in two groups", remedy="give each person one group")
    parts = {"accuracy": table} | {f"recall {c}": table[table["label"] == i] for i, c in enumerate(CLASSES)}
    shares = pd.concat({m: p.groupby("group")["right"].agg(["size", "mean"]) for m, p in parts.items()})
    shares = shares.rename_axis(["measure", "group"]).set_axis(["images", "share"], axis=1)
    shares[["low", "high"]] = [wilson_interval(round(n * share), int(n)) for n, share in shares.to_numpy()]
    tests = shares.groupby("measure", sort=False)["share"].agg(gap=np.ptp, groups="size").query("groups > 1")
    tests["p"] = [p_value(parts[measure]) for measure in tests.index]
    recalls = tests["p"].drop("accuracy").sort_values()
    holm = (recalls * np.arange(len(recalls), 0, -1)).cummax().clip(upper=1)
    tests["p_holm"] = pd.concat([tests["p"][:1], holm])
    return shares.join(tests[["gap", "p", "p_holm"]], on="measure")


def p_value(table: pd.DataFrame) -> float:
    """Share of shuffles of people over the groups whose chi-square is as large as measured (or exact)."""
    people = table.groupby("person").agg({"group": "first", "right": ["size", "sum"]})
    sums, mean = people["right"].to_numpy(float).T, table["right"].mean()

    def statistic(group: np.ndarray, axis: int) -> np.ndarray:  # chi-square times a constant
        images, hits = (np.stack([(group == g) @ x for g in range(group.max() + 1)]) for x in sums)
        return ((hits - images * mean) ** 2 / images).sum(0)

    options = {"permutation_type": "pairings", "alternative": "greater", "vectorized": True, "batch": 200}
    codes = (people[("group", "first")].factorize()[0],)
    return permutation_test(codes, statistic, **options, random_state=0).pvalue
