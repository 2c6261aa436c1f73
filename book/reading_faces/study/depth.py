"""Does depth help? `python -m reading_faces.study.depth` writes `comparisons/depth.json`.

EasyNet with 2, 3 and 4 convolutions, and MobileNetV1 from random weights, by EasyNet's recipe for the same
number of epochs, scored on validation. A finished run is kept, and one that was stopped goes on.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from fer_utils.evaluation import bootstrap_interval, predict
from fer_utils.experiment import Workspace, evaluate, recipe_for, workspace
from reading_faces.runs import train_or_load
from reading_faces.study.store import write_report

EPOCHS, SOURCE = 8, "fer2013"
MOBILENET = {"trunk": "mobilenet_v1", "pretrained": "none", "freeze": 0}
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"easynet-{n}": (f"EasyNet, {n} convolutions", "easynet", {"depth": n}) for n in (2, 3, 4)},
    "mobilenet": ("MobileNetV1, random start", "facenet", MOBILENET),
}


def depth(space: Workspace, seeds: tuple[int, ...] = (0,), **settings: Any) -> dict[str, Any]:
    """Train each network with each seed, by settings of all alike, and compare them image by image."""
    recipe = dataclasses.asdict(recipe_for("easynet", space.profile)[1]) | {"epochs": EPOCHS}
    augment, _ = recipe.pop("augment"), recipe.pop("seed")
    recipe |= {f"augment.{name}": value for name, value in augment.items()}
    faces, runs, right = space.faces().split("validation", SOURCE), [], {}
    for (key, (title, network, options)), seed in itertools.product(NETWORKS.items(), seeds):
        name = f"depth/{key}-seed{seed}"
        run = train_or_load(space, network, seed=seed, name=name, **recipe | options | settings)
        result = evaluate(space, name)
        about = {"key": key, "name": title, "network": network, "run": name, "seed": seed}
        about |= {name: result.model[name] for name in ("options", "parameters")}
        about |= {"train_accuracy": result.learning_curve[-1]["train_accuracy"]}
        runs.append(about | {"seconds": result.training_seconds, "validation": result.validation[SOURCE]})
        right.setdefault(key, []).append(predict(run.model, faces).argmax(1) == faces.labels)
    pairs = [(second, first) for first, second in itertools.combinations(right, 2)]
    values = np.column_stack([np.mean(right[a], 0) - np.mean(right[b], 0) for a, b in pairs])
    ends_of_all = np.transpose(bootstrap_interval(values, draws=2000))
    differences = [
        {"first": first, "second": second, "difference": float(mean), "interval": ends.tolist()}
        for (first, second), mean, ends in zip(pairs, values.mean(0), ends_of_all, strict=True)
    ]
    about = {"profile": space.profile, "source": SOURCE, "split": "validation", "images": len(faces)}
    report = about | {"epochs": result.recipe["epochs"], "runs": runs, "differences": differences}
    return write_report(space.results / "comparisons" / "depth.json", report)


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison on the real merged set."""
    depth(workspace("full"))


if __name__ == "__main__":
    main()
