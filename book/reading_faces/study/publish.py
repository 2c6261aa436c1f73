"""Publishing a trained network: its weights, and a model card (Mitchell et al. 2019) of measured numbers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fer_utils import results
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.files import atomic_write, sha256
from fer_utils.recipes import command
from fer_utils.weights import SOURCES
from fer_utils.workspace import Workspace
from reading_faces.study.stats import mean_score

CARD = """# Model card: {name}

Made by `fer publish {run}` from `book/results/{run}.json`; every score below was measured.

```python
from fer_utils.weights import load_model

model = load_model("{name}")  # float images (B, 1, 64, 64), 0–1, to logits (B, 6)
```

## Model

- **Network:** {network}, {parameters:,} parameters, half precision, SHA-256 `{sha256}`.
- **Input:** grey faces of 64×64 pixels, 0–1, scaled to {side}×{side} by the network itself.
- **Training:** {sources}, revision `{revision}`, seed {seed}, {epochs} epochs ({hours:.1f} hours,
  {precision}, {processor}); the epoch that was best on validation was kept. Options and recipe stand in the
  file's header and in the results file; this trains it again:
  `{command}`
{origin}- **Classes:** {classes}.
- **Licence:** the code is MIT. {sources} was collected for research; use the weights for research.

## Intended use

Teaching and research on facial expression recognition, on frontal faces cropped as FER2013 crops them.
**Not** for judging people: the network predicts which word annotators would write beneath a face, not what
a person feels. Not for decisions about anybody, least of all at work or in education, where inferring
emotions is prohibited in the European Union (Regulation (EU) 2024/1689, article 5(1)(f)).

## Factors

What is known to move the score: the class (see the recall below), how far people agree about the face, the
framing, blur, noise and light (chapters 7 and 8 of the book). What may move it and could not be measured,
because no image says it: age, sex, skin colour and origin of the person.

## Metrics

Accuracy is the share of images whose most probable class is the label; macro-F1 is the mean of the six
classes' F1, so that rare classes count as much as frequent ones; the expected calibration error (15 bins)
is the mean distance between confidence and accuracy. `+flip` averages the answers to an image and its
mirror image, `+ten-crop` those to ten views; `-deduplicated` leaves out images that have an exact copy in
an earlier split. `+flip` and `+ten-crop` look more than once.

## Evaluation data

{evaluation}

## Scores

Six classes, single model, evaluated on {date}. The test split was read once for these weights.
Intervals are bootstrap 95 %.

{scores}

{seeds}

Recall by class on FER2013's test images:

{recall}

## Data, and what they lack

FER2013 was collected by web search in 2013. Nothing is known about the people in it, their age, origin or
consent, so no score by group can be given. Its labels are noisy, and its classes differ in size.

## Ethical considerations

The people in the training images were, as far as is known, never asked. A network that names expressions
invites being used on people who were not asked either; the law forbids part of that, and decency more.
Wrong answers are common (see the recall) and nothing shows that they are equally common for everybody.

## Caveats

Scores on other cameras, other framing or other people will differ. Confidence says little about faces
unlike those of FER2013, and nothing about pictures that show no face.
"""

# Where a trunk's weights come from, and what that binds a user to.
ORIGINS = {
    "vggface2": "the public {trunk} weights{files}, learnt on VGGFace2 (Cao et al. 2018): photographs of "
    "celebrities from the web, collected without asking them, for research. Use what was made of them for "
    "research only",
    "imagenet": "the public {trunk} weights{files}, learnt on ImageNet, collected for research",
}

# The files of these weights; those of other trunks have no known checksum.
FILES = {
    "mobilenet_v1": ("faceres.json", "faceres.bin"),
    "inception_resnet_v1": ("20180402-114759-vggface2.pt",),
    "efficientnet_lite0": ("efficientnet-lite0-57934424.pth",),
}

# What was learnt from beside FER2013's own labels.
LABELS = {
    "ferplus": "the votes of FER+ (Barsoum et al. 2016), with a share of {weight:g}, "
    "instead of FER2013's labels",
    "both": "FER2013's, and in training, as a second question that the published weights have forgotten, "
    "the votes of FER+ (Barsoum et al. 2016) on the training images, with a weight of {weight:g}",
}


def publish(space: Workspace, run: str, folder: Path) -> Path:
    """Copy the weights of a run that has been evaluated, and write its model card beside them.

    Args:
        space: gives runs and results.
        run: its name.
        folder: where to, as `<network>.safetensors` and `<network>.md`.

    Returns:
        The path of the weights.

    Raises:
        DataError: the run has no weights, or no results on FER2013's test images, which the card tells, or
            the results are of other weights.
    """
    weights = space.runs / run / "model.safetensors"
    if not weights.is_file():
        raise DataError(
            "the run has no weights", file=weights, remedy="finish it with `fer train … --resume`"
        )
    result = results.read(space.results / f"{run}.json")
    if result["checkpoint"] != sha256(weights):
        raise DataError(
            "the results are those of other weights",
            file=space.results / f"{run}.json",
            remedy=f"run `fer evaluate {run} --test`",
        )
    if "fer2013" not in result.get("test", {}):
        raise DataError(
            "the results do not tell a score on FER2013's test images, and a published network needs one",
            file=space.results / f"{run}.json",
            remedy=f"run `fer evaluate {run} --test` with FER2013 in the merged set",
        )
    name = result["model"]["name"]
    text = card(name, run, result, alike(space.results, run), behind(space.results, result))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.safetensors"
    aside = target.with_name(f".{target.name}")
    shutil.copyfile(weights, aside)
    aside.replace(target)
    atomic_write(folder / f"{name}.md", text)
    return target


def alike(folder: Path, run: str) -> list[dict[str, Any]]:
    """Results of a run and of all others that differ from it in the seed alone: their numbers, too."""
    found = results.read_all(folder, re.sub(r"(?<=-seed)\d+$", "*", run) + ".json")
    asked = next(_without_seed(result) for result in found if result["name"] == run)
    return [result for result in found if _without_seed(result) == asked]


def _without_seed(result: dict[str, Any]) -> dict[str, Any]:
    """What a training depends on, but for its seed."""
    same = {key: result.get(key) for key in ("model", "data", "precision", "teachers", "labels", "cached")}
    fitted = result.get("calibrated") is not None
    return same | {"recipe": result["recipe"] | {"seed": None}, "calibrated": fitted}


def behind(folder: Path, result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name, the results of a run's teachers and of itself before calibration, where there are any."""
    names = [*(result.get("teachers") or {"checkpoints": ()})["checkpoints"]]
    names += [result["calibrated"]["run"]] if result.get("calibrated") else []
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: results.read(path) for name, path in paths.items() if path.exists()}


def card(
    name: str,
    run: str,
    result: dict[str, Any],
    seeds: Sequence[dict[str, Any]],
    behind: Mapping[str, dict[str, Any]],
) -> str:
    """The model card of a result, as Markdown.

    Args:
        name: under which it is published.
        run: whose result it is.
        result: with test scores.
        seeds: the results of all seeds of its recipe, as `alike` finds them.
        behind: the results of the runs that it comes from, as `behind` finds them.
    """
    rows = [
        {
            "split": which,
            "measured on": variant,
            "images": scores["images"],
            "accuracy": f"{scores['accuracy']:.2%}",
            "95 % interval": "{:.2%} to {:.2%}".format(*scores["accuracy_interval"]),
            "macro-F1": f"{scores['macro_f1']:.3f}",
            "calibration error": f"{scores['expected_calibration_error']:.3f}",
        }
        for which in ("validation", "test")
        for variant, scores in result[which].items()
    ]
    judged, options = result["test"]["fer2013"], result["model"]["options"]
    recall = [
        {"class": c, "recall": f"{value:.1%}", "95 % interval": "{:.1%} to {:.1%}".format(*interval)}
        for c, value, interval in zip(
            CLASSES, judged["recall"].values(), judged["recall_interval"].values(), strict=True
        )
        if value is not None
    ]
    return CARD.format(
        name=name,
        origin=_origin(result, behind),
        evaluation=_evaluation(result),
        run=run,
        network=result["model"]["name"],
        parameters=result["model"]["parameters"],
        sha256=result["checkpoint"],
        sources=", ".join(result["data"]["trained_on"]),
        revision=result["revision"],
        date=result["date"],
        side=options.get("image_size") or options.get("input_size", 64),
        hours=result["training_seconds"] / 3600,
        command=command(result),
        precision=result["precision"],
        processor=result["processor"],
        seed=result["recipe"]["seed"],
        epochs=len(result["learning_curve"]),
        classes=", ".join(CLASSES),
        scores=_markdown(rows),
        seeds=_seeds(seeds),
        recall=_markdown(recall),
    )


def _seeds(seeds: Sequence[dict[str, Any]]) -> str:
    """Lines on what the recipe gives, of which the published network is one draw."""
    scored = [result["test"]["fer2013"] for result in seeds if "test" in result]
    if len(scored) < 2:
        return "No other seed of this recipe was scored, so how lucky its start was is not known."
    mean = mean_score(scored)
    return (
        f"These are the scores of one seed of {mean['seeds']}. Their mean on FER2013's test images is\n"
        f"{mean['accuracy']:.2%} ({mean['low']:.2%} to {mean['high']:.2%}, for images and seeds): expect "
        "that of a training like it."
    )


def _evaluation(result: dict[str, Any]) -> str:
    """Lines on the images that the scores were measured on."""
    chosen = "epoch, recipe and run were chosen on it, so its scores are a little\ntoo high."
    if result["profile"] == "demo":
        return (
            f"Faces drawn by a program. *Validation*: {chosen} The scores say nothing about faces of people."
        )
    if results.own_splits(result):
        lines = f"FER2013's PublicTest is *validation*: {chosen} PrivateTest is *test*."
    else:
        lines = (
            "The copy of FER2013 did not tell PublicTest and PrivateTest apart: *test* is both of them, and\n"
            f"*validation* was held out of its training images: {chosen} No score here is one on PrivateTest."
        )
    kept = "Both without *disgust*, the seventh class."
    return f"{lines} {kept if results.disgust(result) == 'drop' else 'Images of *disgust* count as *angry*.'}"


def _start(options: Mapping[str, Any]) -> str | None:
    """What a network's training started from, if not from a random draw."""
    if options.get("pretrained") not in ORIGINS:
        return None
    trunk = options["trunk"]
    files = "; ".join(f"{SOURCES[n].url}, SHA-256 `{SOURCES[n].sha256}`" for n in FILES.get(trunk, ()))
    return ORIGINS[options["pretrained"]].format(trunk=trunk, files=f" ({files})" if files else "")


def _origin(result: dict[str, Any], behind: Mapping[str, dict[str, Any]]) -> str:
    """Lines on the weights that training started from, on teachers and on votes, where there were any."""
    teachers, labels, lines = result.get("teachers"), result.get("labels"), ""
    if start := _start(result["model"]["options"]):
        lines += f"- **Start:** {start}.\n"
    if teachers:
        names = ", ".join(teachers["checkpoints"])
        lines += f"- **Teachers:** {names}, with a share of {teachers['share']:g} in what was to be learnt.\n"
        known = [behind[n]["model"]["options"] for n in teachers["checkpoints"] if n in behind]
        for start in sorted({_start(options) or "" for options in known} - {""}):
            lines += f"  Teachers started from {start}.\n"
    if labels:
        lines += f"- **Labels:** {LABELS[labels['kind']].format(weight=labels['share'])}.\n"
    if fitted := result.get("calibrated"):
        before, after = (f"{value:.2%}" for value in fitted["accuracy"].values())
        lines += (
            f"- **Calibration:** scale and biases of the last layer were fitted to {fitted['images']:,} "
            f"validation images (`fer calibrate {fitted['run']}`), so that the validation scores below may "
            f"be a little too high: cross-validated, {before} became {after}."
            f"{_tested_before(behind.get(fitted['run']))}\n"
        )
    return lines


def _tested_before(result: dict[str, Any] | None) -> str:
    """Whether the network before calibration was scored on the test split as well, if that is known."""
    if result is None:
        return ""
    if "fer2013" not in result.get("test", {}):
        return " The network before that was not scored on the test split."
    told = f"{result['test']['fer2013']['accuracy']:.2%}"
    return f" The network before that was scored on the test split as well: {told} (`{result['name']}`)."


def _markdown(rows: list[dict[str, Any]]) -> str:
    table = pd.DataFrame(rows).astype(str)
    lines = [list(table.columns), ["---"] * len(table.columns), *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
