"""Does merging help? `python -m reading_faces.study.merging` writes `comparisons/merging.json`.

EasyNet is trained on all sources and on FER2013 alone, for as many steps, and tested on FER2013's images.
"""

from typing import Any

from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.experiment import Workspace, evaluate, read_predictions, recipe_for, workspace
from reading_faces.runs import train_or_load
from reading_faces.study.stats import pair
from reading_faces.study.store import write_report

ALONE = "fer2013"


def merging(space: Workspace, seeds: tuple[int, ...] = (0, 1, 2), **settings: Any) -> dict[str, Any]:
    """Train a pair of runs for each seed, by settings of both alike, and compare them by McNemar's test."""
    faces = space.faces()
    sources = {source: len(faces.split("train", source)) for source in sorted(set(faces.index["source"]))}
    if len(sources) < 2 or ALONE not in sources:
        remedy = "put CK+ or JAFFE below FER_DATA and run `fer merge` again"
        raise DataError(f"merged is {', '.join(sources)} only", file=space.faceset, remedy=remedy)
    settings = {"batches": sources[ALONE] // recipe_for("easynet", space.profile)[1].batch_size} | settings
    pairs = []
    for seed in seeds:
        right = {}
        for name, trained_on in ((f"merging/all-seed{seed}", None), (f"merging/{ALONE}-seed{seed}", [ALONE])):
            train_or_load(space, "easynet", seed=seed, name=name, sources=trained_on, **settings)
            result = evaluate(space, name, test=True)
            table = read_predictions(space.results, name, "test").query(f"source == '{ALONE}'")
            predicted = table[[f"p_{c}" for c in CLASSES]].to_numpy().argmax(1)
            right[name] = predicted == table["label"].to_numpy()
        pairs.append({"seed": seed, "runs": list(right)} | pair(*right.values()))
    steps = result.recipe["batches"] * result.recipe["epochs"]
    report = {"network": "easynet", "alone": ALONE, "sources": sources, "steps": steps, "pairs": pairs}
    return write_report(space.results / "comparisons" / "merging.json", {"profile": space.profile} | report)


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison on the real merged set, which takes licensed copies of CK+ or JAFFE."""
    merging(workspace("full"))


if __name__ == "__main__":
    main()
