"""What a network's answers rest on, and when to trust them: measurements on validation, chapter 8's numbers.

The file that `main` writes holds numbers about a network and no pixel of a face: the finest thing in it is a
grid of some ten by ten cells that says where a network looks on average.
"""

import argparse
import json
from typing import Any

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradientXActivation
from PIL import Image, ImageDraw
from scipy import ndimage, stats
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from torch import nn

from fer_utils import calibration
from fer_utils.emotions import CLASSES
from fer_utils.evaluation import bootstrap_interval, predict, wilson_interval
from fer_utils.experiment import load_run, workspace
from fer_utils.files import sha256
from reading_faces.study.store import write_report

# Where the parts of a face lie in FER2013's framing: (top, bottom, left, right), ends excluded. All but the
# nose and the rest (forehead, chin, hair, background) are of about one size, so that effects can be compared.
BOXES = {
    "brows": [(10, 20, 10, 54)],
    "eyes": [(20, 30, 10, 54)],
    "nose": [(30, 43, 24, 40)],
    "mouth": [(43, 59, 18, 46)],
    "cheeks": [(30, 43, 8, 24), (30, 43, 40, 56)],
}
SHAPE = ("kernel_size", "stride", "padding")
DRAWS = {"n_resamples": 2000, "random_state": 0}

# Saliency and occlusion


def region_masks() -> dict[str, np.ndarray]:
    """Pixels of each region, bool (64, 64) by name; together they are the picture, without overlap."""
    masks = {name: np.zeros((64, 64), bool) for name in BOXES}
    for name, boxes in BOXES.items():
        for top, bottom, left, right in boxes:
            masks[name][top:bottom, left:right] = True
    return masks | {"the rest": ~np.any(list(masks.values()), axis=0)}


def regions(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy and label's probability lost by hiding each region, for all images and each class (95%)."""
    rows, n, plain = [], np.arange(len(labels)), predict(model, images)
    means = images.mean((1, 2), keepdims=True).round().astype(np.uint8)
    for region, mask in region_masks().items():
        hidden = predict(model, np.where(mask, means, images))
        right = [(p.argmax(1) == labels).astype(float) for p in (plain, hidden)]
        lost = np.stack([right[0] - right[1], plain[n, labels] - hidden[n, labels]], 1)
        for label in ("all", *(CLASSES[k] for k in np.unique(labels))):
            part = lost if label == "all" else lost[labels == CLASSES.index(label)]
            row = {"region": region, "area": mask.mean(), "label": label, "images": len(part)}
            ends = stats.bootstrap([part], np.mean, axis=0, batch=100, method="percentile", **DRAWS)
            for k, name in enumerate(("accuracy", "probability")):
                row |= {name: part[:, k].mean(), f"{name}_low": ends.confidence_interval.low[k]}
                row |= {f"{name}_high": ends.confidence_interval.high[k]}
            rows.append(row)
    return rows


def saliency(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Saliency maps averaged by class over the images that are predicted correctly.

    Activation times gradient, place by place, at the last block with at least 6×6 cells. Grad-CAM (Selvaraju
    et al. 2017) averages the gradients over all places first, which misplaces the evidence where fully
    connected layers follow, as in EasyNet (Draelos & Carin 2020). Each map is divided by its sum.

    Returns:
        `grids`, float (6, h, w), sum 1 or nan; `extent` of the grid on the face (left, right, top, bottom, in
        pixels of 64); `images` behind each grid; `layer`, the block's name.
    """
    name, extent, shape = last_map(model)
    block = model.get_submodule(name)
    sums, counts = np.zeros((len(CLASSES), *shape)), np.zeros(len(CLASSES), int)
    for rows in np.array_split(np.arange(len(labels)), -(-len(labels) // 128)):
        batch = torch.from_numpy(images[rows]).unsqueeze(1) / 255
        answers = model(batch).argmax(1)
        maps = LayerGradientXActivation(model, block).attribute(batch.requires_grad_(), target=answers)
        maps = maps.detach().sum(1).relu().double().numpy()
        good = (answers.numpy() == labels[rows]) & (maps.sum((1, 2)) > 0)
        np.add.at(sums, labels[rows][good], maps[good] / maps[good].sum((1, 2), keepdims=True))
        np.add.at(counts, labels[rows][good], 1)
    grids = sums / np.where(counts, counts, np.nan)[:, None, None]
    return {"grids": grids, "extent": extent, "images": counts, "layer": name.rpartition(".")[2]}


@torch.no_grad()
def last_map(model: nn.Module) -> tuple[str, tuple[float, ...], tuple[int, int]]:
    """Find the last block of convolutions with at least 6×6 cells, in a chain of convolutions.

    Centre and distance of its cells follow from kernels, strides and paddings (Araujo et al. 2019).

    Returns:
        The block's name in the model; left, right, top and bottom of the grid in pixels of the 64×64 face,
        which it need not fill; its rows and columns.
    """
    body, sizes = "trunk" if hasattr(model, "trunk") else "features", {}
    hooks = [
        module.register_forward_hook(lambda _, x, y, name=name: sizes.update({name: (x[0].shape, y.shape)}))
        for name, module in model.named_modules()
        if name.startswith(f"{body}.")
    ]
    model.eval()(torch.zeros(1, 1, 64, 64))
    for hook in hooks:
        hook.remove()
    blocks = [f"{body}.{name}" for name, _ in model.get_submodule(body).named_children()]
    last = [b for b in blocks if len(sizes[b][1]) == 4 and min(sizes[b][1][2:]) >= 6][-1]
    shape = tuple(sizes[last][1][2:])
    centre, step = 0.5, 1.0
    for name in list(sizes)[: list(sizes).index(last)]:
        layer, (given, out) = model.get_submodule(name), sizes[name]
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (np.ravel(getattr(layer, x))[0] for x in SHAPE)
            # A convolution that pads like TensorFlow says 0, and its sizes tell.
            padding = padding or max((out[-1] - 1) * stride + kernel - given[-1], 0) // 2
            centre += ((kernel - 1) / 2 - padding) * step
            step *= stride
    scale = 64 / getattr(model, "input_size", 64)
    ends = [(centre + (cells - 0.5) * step) * scale for cells in (0, shape[1], 0, shape[0])]
    return last, tuple(map(float, ends)), shape


# Corrupted images and images out of the distribution

CORRUPTIONS = {  # levels of the severities 1 to 5, and their unit
    "brightness": ((25, 50, 75, 100, 125), "grey levels, up or down"),
    "contrast": ((0.6, 0.4, 0.25, 0.12, 0.05), "share that is left"),
    "noise": ((8, 16, 32, 48, 64), "deviation in grey levels"),
    "blur": ((0.75, 1.5, 2.5, 3.5, 5), "Gaussian, pixels of 64"),
    "rotation": ((10, 20, 30, 45, 60), "degrees, left or right"),
    "occlusion": ((0.05, 0.1, 0.2, 0.35, 0.5), "share hidden by a square"),
}
OUTSIDE = ("a blank wall", "gradients", "noise", "clouds", "shapes", "shuffled faces", "heavy blur")


def corrupt(images: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Corrupt images in the manner of Hendrycks & Dietterich (2019); each gets worse in one and the same way.

    Takes uint8 (N, 64, 64), a name of `CORRUPTIONS`, and a severity of 1 to 5, or 0 for images as they are.
    Gives uint8 (N, 64, 64), the same for the same arguments.
    """
    if severity == 0:
        return images
    level, rng = CORRUPTIONS[name][0][severity - 1], np.random.default_rng([0, list(CORRUPTIONS).index(name)])
    worse, means = images.astype(np.float32), images.mean((1, 2), keepdims=True)
    match name:
        case "brightness":
            worse += level * rng.choice([-1, 1], len(images))[:, None, None]
        case "contrast":
            worse = means + (worse - means) * level
        case "noise":
            worse += level * rng.standard_normal(images.shape, dtype=np.float32)
        case "blur":
            worse = ndimage.gaussian_filter(worse, (0, level, level), mode="nearest")
        case "rotation":
            how = {"reshape": False, "order": 1, "mode": "nearest"}
            angles = level * rng.choice([-1, 1], len(images))
            worse = np.stack([ndimage.rotate(*pair, **how) for pair in zip(worse, angles, strict=True)])
        case "occlusion":
            side = round(64 * np.sqrt(level))
            corners = np.rint(rng.random((len(images), 2)) * (64 - side)).astype(int)
            for image, (top, left) in zip(worse, corners, strict=True):
                image[top : top + side, left : left + side] = image.mean()
    return np.rint(np.clip(worse, 0, 255)).astype(np.uint8)


def outside(kind: str, n: int, faces: np.ndarray) -> np.ndarray:
    """Make n images out of the distribution, uint8 (n, 64, 64): none shows a face that could be read.

    They are of a kind of `OUTSIDE`, the same for the same arguments. The last two kinds are made of faces,
    uint8 (M, 64, 64), in turn: shuffled ones are cut into 64 squares, heavy blur is of 8 pixels.
    """
    rng, chosen = np.random.default_rng([0, OUTSIDE.index(kind)]), faces[np.arange(n) % len(faces)]
    match kind:
        case "a blank wall":
            images = np.broadcast_to(rng.uniform(0, 255, (n, 1, 1)), (n, 64, 64))
        case "gradients":
            angle, (first, last) = rng.uniform(0, 2 * np.pi, (n, 1, 1)), rng.uniform(0, 255, (2, n, 1, 1))
            y, x = np.mgrid[-1:1:64j, -1:1:64j] / np.sqrt(2)
            images = first + (last - first) * (np.cos(angle) * x + np.sin(angle) * y + 1) / 2
        case "noise":
            images = rng.uniform(0, 255, (n, 64, 64))
        case "clouds":
            soft = ndimage.gaussian_filter(rng.standard_normal((n, 64, 64)), (0, 5.3, 5.3), mode="wrap")
            images = 127.5 + 50 * soft / soft.std((1, 2), keepdims=True)
        case "shapes":
            sheets = [Image.new("L", (64, 64), int(tone)) for tone in rng.integers(256, size=n)]
            for pen in map(ImageDraw.Draw, sheets):
                for _ in range(rng.integers(3, 9)):
                    ends = np.sort(rng.integers(-8, 72, (2, 2)), axis=0).ravel().tolist()
                    (pen.rectangle, pen.ellipse, pen.line)[rng.integers(3)](ends, fill=int(rng.integers(256)))
            images = np.stack(sheets)
        case "shuffled faces":
            tiles = chosen.reshape(n, 8, 8, 8, 8).swapaxes(2, 3).reshape(n, 64, 8, 8)
            mixed = np.stack([rng.permutation(face) for face in tiles]).reshape(n, 8, 8, 8, 8)
            images = mixed.swapaxes(2, 3).reshape(n, 64, 64)
        case "heavy blur":
            images = ndimage.gaussian_filter(chosen, (0, 8, 8), mode="nearest")
    return np.rint(np.clip(images, 0, 255)).astype(np.uint8)


def robustness(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy (Wilson 95%) and mean confidence by corruption and severity, from 0 (as they are) to 5."""
    rows = []
    for name, (levels, unit) in CORRUPTIONS.items():
        for severity in range(6):
            probabilities = predict(model, corrupt(images, name, severity))
            hits, n = int((probabilities.argmax(1) == labels).sum()), len(labels)
            row = {"corruption": name, "severity": severity, "level": (None, *levels)[severity], "unit": unit}
            row |= {"images": n, "accuracy": hits / n, "confidence": probabilities.max(1).mean()}
            rows.append(row | dict(zip(("low", "high"), wilson_interval(hits, n), strict=True)))
    return rows


def confidences(model: nn.Module, faces: np.ndarray, n: int) -> list[dict[str, Any]]:
    """Confidence on faces and on n images of each kind out of the distribution (Hendrycks & Gimpel 2017).

    `auroc` is the area under the ROC curve of faces against the kind; `answer` the commonest answer (0–5).
    """
    rows, own = [], predict(model, faces)
    for kind in ("faces", *OUTSIDE):
        answers = own if kind == "faces" else predict(model, outside(kind, n, faces))
        confidence, counts = answers.max(1), np.bincount(answers.argmax(1))
        truth = np.repeat([1, 0], [len(own), len(answers)])
        row = {"kind": kind, "images": len(answers), "mean": confidence.mean()}
        row |= {f"q{100 * q:02.0f}": np.quantile(confidence, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
        row |= {"auroc": roc_auc_score(truth, [*own.max(1), *confidence]), "answer": counts.argmax()}
        row |= {"answer_share": counts.max() / len(answers)}
        rows.append(row | {"histogram": np.histogram(confidence, 20, (0, 1))[0]})
    return rows


def reliability(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Fit a temperature on one half of the images, and measure it on the other, before and after scaling.

    `floor` is the calibration error that 95 of 100 perfectly calibrated networks stay below by chance.
    """
    rows = np.arange(len(labels))
    fit, measure = train_test_split(rows, test_size=0.5, random_state=0, stratify=labels)
    temperature = calibration.fit_temperature(labels[fit], probabilities[fit])
    truth, rng = labels[measure], np.random.default_rng(0)
    report = {"temperature": temperature, "fitted_on": len(fit), "measured_on": len(measure)}
    report["accuracy"] = np.mean(probabilities[measure].argmax(1) == truth)
    report |= {name: {} for name in ("error", "floor", "log_loss", "confidence", "bins")}
    for when, factor in (("before", 1.0), ("after", temperature)):
        scaled = calibration.apply_bias(probabilities[measure], 1 / factor, np.zeros(1))
        confidence = scaled.max(1)
        place = np.minimum((confidence * 15).astype(int), 14)
        drawn = [np.bincount(place, rng.random(len(truth)) < confidence, 15) for _ in range(1000)]
        chance = np.abs(np.bincount(place, confidence, 15) - drawn).sum(1) / len(truth)
        report["error"][when] = calibration.expected_calibration_error(truth, scaled)
        report["floor"][when] = np.quantile(chance, 0.95)
        report["log_loss"][when] = log_loss(truth, scaled, labels=range(len(CLASSES)))
        report["confidence"][when] = confidence.mean()
        report["bins"][when] = calibration.reliability_bins(truth, scaled).to_dict("records")
    return report


def coverage(labels: np.ndarray, probabilities: np.ndarray) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Selective prediction: accuracy on the most confident 5, 10, … 100%, and areas under risk and coverage.

    Returns:
        Rows of `coverage`, `images`, `threshold` (least confidence answered), `accuracy`, `low`, `high`; and
        the `area` (Geifman & El-Yaniv 2017), the `best` possible one, and that of a `random` order.
    """
    confidence = probabilities.max(1)
    order = np.argsort(-confidence, kind="stable")
    hits, n = np.cumsum((probabilities.argmax(1) == labels)[order]), np.arange(1, len(labels) + 1)
    rows = []
    for share in np.arange(1, 21) / 20:
        k = max(1, round(share * len(labels)))
        row = {"coverage": k / len(labels), "images": k, "threshold": confidence[order[k - 1]]}
        low, high = wilson_interval(int(hits[k - 1]), k)
        rows.append(row | {"accuracy": hits[k - 1] / k, "low": low, "high": high})
    area, best = np.mean(1 - hits / n), np.mean(1 - np.minimum(n, hits[-1]) / n)
    return rows, {"area": area, "best": best, "random": 1 - hits[-1] / n[-1]}


def inspect(model: nn.Module, images: np.ndarray, labels: np.ndarray, pictures: int) -> dict[str, Any]:
    """Measure everything, as values that JSON knows: five decimals, and None for nan."""
    probabilities = predict(model, images)
    correct = probabilities.argmax(1) == labels
    rows, risk = coverage(labels, probabilities)
    report = {"accuracy": correct.mean(), "accuracy_interval": bootstrap_interval(correct)}
    report |= {"calibration": reliability(labels, probabilities), "coverage": rows, "risk": risk}
    report |= {"regions": regions(model, images, labels), "robustness": robustness(model, images, labels)}
    report |= {"confidences": confidences(model, images, pictures)}
    report |= {"attention": saliency(model, images, labels)}
    return json.loads(pd.Series(report).to_json(double_precision=5))


def main(arguments: list[str] | None = None) -> None:
    """Inspect a finished run on FER2013's validation images: writes `<results>/inspection/<run>.json`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run")
    parser.add_argument("--profile", default="full", choices=("demo", "full"))
    options = parser.parse_args(arguments)
    space = workspace(options.profile)
    faces, run = space.faces(), load_run(space, options.run)
    part, model = faces.split("validation", "fer2013"), run.model
    data = {"faceset": sha256(faces.path / "manifest.json"), "split": "validation", "source": "fer2013"}
    about = {
        "format": 1,
        "name": options.run,
        "profile": options.profile,
        "checkpoint": sha256(run.folder / "model.safetensors"),
    }
    about |= {"network": type(model).__name__.lower(), "options": model.options}
    about["data"] = data | {"images": len(part)}
    report = inspect(model, part.images, part.labels, pictures=500)
    write_report(space.results / "inspection" / f"{options.run}.json", about | report)


if __name__ == "__main__":
    main()
