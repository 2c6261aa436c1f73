"""What a network looks at: Grad-CAM averaged by class, and what hiding a region of the face costs.

Grad-CAM (Selvaraju et al. 2017) asks which places of a late feature map speak for an answer; hiding a region
(Zeiler & Fergus 2014) asks what the answer needs. The first is cheap and suggestive, the second is a
measurement with an interval. The package grad-cam is not used: it would be one more dependency (and OpenCV
with it) for twenty lines, and it stretches every map over the whole picture, which is the wrong place where
convolutions are not padded, or not alike on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from fer_utils.emotions import CLASSES
from fer_utils.evaluation import mean_intervals, predict
from fer_utils.models.backbones import EasyTrunk, MobileNetV1, SameConv2d, Trunk

SIDE = 64  # pixels of a face
LEAST = 6  # cells a side below which a map of a face says next to nothing

Box = tuple[int, int, int, int]  # top, bottom, left, right: rows and columns of a 64×64 face, ends excluded

# Where a face's parts lie in FER2013's framing and in the drawn faces that follow it: on the mean of either
# set's validation faces, the eyes are darkest in row 22 or 23 and the line of the lips in row 50 or 51.
# Brows, eyes, mouth and cheeks are of about one size, so that the cheeks show what hiding that much skin
# costs.
BOXES: Mapping[str, tuple[Box, ...]] = MappingProxyType(
    {
        "brows": ((10, 20, 10, 54),),
        "eyes": ((20, 30, 10, 54),),
        "nose": ((30, 43, 24, 40),),
        "mouth": ((43, 59, 18, 46),),
        "cheeks": ((30, 43, 8, 24), (30, 43, 40, 56)),
    }
)
SURROUND = "the rest"  # forehead, chin, hair and background
REGIONS = (*BOXES, SURROUND)


class Maps(NamedTuple):
    """Grad-CAM maps averaged by class.

    Attributes:
        grids: float (6, h, w), by class: the mean share of attention in each cell, sums to 1; not-a-number
            for a class without an image.
        extent: left, right, top and bottom of the grid in pixels of the 64×64 face; it need not fill it.
        images: int (6,), how many images each is the mean of.
        layer: name of the block whose output is looked at.
    """

    grids: np.ndarray
    extent: tuple[float, float, float, float]
    images: np.ndarray
    layer: str


def region_masks() -> dict[str, np.ndarray]:
    """Which pixels each region covers, bool (64, 64) by name; together they are the face, without overlap."""
    masks = {}
    for name, boxes in BOXES.items():
        masks[name] = np.zeros((SIDE, SIDE), bool)
        for top, bottom, left, right in boxes:
            masks[name][top:bottom, left:right] = True
    return masks | {SURROUND: ~np.any(list(masks.values()), axis=0)}


def hide(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fill the pixels of a mask with each image's own mean.

    Args:
        images: uint8 (N, 64, 64).
        mask: bool (64, 64), true where to fill.

    Returns:
        uint8 (N, 64, 64), a copy.
    """
    means = images.mean((1, 2)).round().astype(np.uint8)
    return np.where(mask, means[:, None, None], images)


def region_sensitivity(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, *, draws: int = 2000
) -> pd.DataFrame:
    """What hiding each region costs, on the very same images, with paired bootstrap intervals.

    Args:
        model: as for `predict`.
        images: uint8 (N, 64, 64).
        labels: int (N,), values 0–5.
        draws: bootstrap samples of an interval.

    Returns:
        One row a region and class, and for each region one of the ``"all"`` images: `region`, `area` (its
        share of the pixels), `label`, `images`; `accuracy`, the drop of the accuracy, with the ends
        `accuracy_low` and `accuracy_high` of its 95 % interval; `probability`, the drop of the label's mean
        probability, with `probability_low` and `probability_high`. Drops are −1 to 1: plain minus hidden.
        Classes without an image have no row.
    """
    rows, n = [], np.arange(len(labels))
    plain = predict(model, images)
    for region, mask in region_masks().items():
        hidden = predict(model, hide(images, mask))
        right = [(answer.argmax(1) == labels).astype(float) for answer in (plain, hidden)]
        change = np.stack((right[0] - right[1], plain[n, labels] - hidden[n, labels]), 1)
        for label, chosen in _by_class(labels):
            (accuracy, probability), ends = change[chosen].mean(0), mean_intervals(change[chosen], draws)
            rows.append(
                {"region": region, "area": mask.mean(), "label": label, "images": int(chosen.sum()),
                 "accuracy": accuracy, "accuracy_low": ends[0, 0], "accuracy_high": ends[0, 1],
                 "probability": probability, "probability_low": ends[1, 0], "probability_high": ends[1, 1]}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _by_class(labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Names and rows of all images and of each class that has any."""
    parts = [("all", np.ones(len(labels), bool)), *((c, labels == i) for i, c in enumerate(CLASSES))]
    return [(name, chosen) for name, chosen in parts if chosen.any()]


def class_maps(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    averaged: bool = False,
    least: int = LEAST,
    batch_size: int = 128,
) -> Maps:
    """Grad-CAM of the answer, averaged by class over the images that are answered rightly.

    Looked at is the last block of convolutions whose map has at least `least` cells a side: EasyNet's third
    convolution, or in MobileNetV1 at 96 pixels the eleventh of thirteen blocks, since after that a face is
    3×3 cells. Each image's map is divided by its sum before averaging, so that all images count alike.

    Args:
        model: one of `fer_utils.models`.
        images: uint8 (N, 64, 64).
        labels: int (N,), values 0–5.
        averaged: as for `grad_cam`.
        least: cells a side.
        batch_size: images a step.

    Raises:
        ValueError: no block's map is that large.
    """
    was_training, device = model.training, next(model.parameters()).device
    model.eval()
    name, block, shape = _block(model, least, device)
    sums, counts = np.zeros((len(CLASSES), *shape)), np.zeros(len(CLASSES), int)
    with _output_of(block) as kept:
        for start in range(0, len(labels), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
            logits = model(batch.to(device).unsqueeze(1).float() / 255)
            cams = grad_cam(logits.amax(1), kept[0], averaged=averaged).double().cpu().numpy()
            said, right = logits.argmax(1).cpu().numpy(), labels[start : start + batch_size]
            # Where nothing speaks for the answer, there is no map to average.
            good = (said == right) & (cams.sum((1, 2)) > 0)
            np.add.at(sums, right[good], cams[good] / cams[good].sum((1, 2), keepdims=True))
            np.add.at(counts, right[good], 1)
    model.train(was_training)
    grids = np.full(sums.shape, np.nan)
    grids[counts > 0] = sums[counts > 0] / counts[counts > 0, None, None]
    return Maps(grids, _extent(model, block, shape), counts, name)


def grad_cam(scores: Tensor, features: Tensor, *, averaged: bool = False) -> Tensor:
    """Grad-CAM: what each place of a feature map adds to a score.

    Selvaraju et al. (2017, eqs. 1 and 2) average the slope of each channel over all places before multiplying
    it with the map. That changes nothing where the network itself goes on with the mean over all places.
    EasyNet goes on with fully connected layers, in which each place has weights of its own, and averaging
    then misplaces what the network sees, or leaves nothing of it. So, unless asked for, slopes are kept place
    by place (HiResCAM, Draelos & Carin 2020).

    Args:
        scores: float (B,), what is explained, one a picture.
        features: float (B, C, h, w) that the scores were computed from.
        averaged: average the slopes as the first paper does.

    Returns:
        float (B, h, w), 0 and above.
    """
    (slopes,) = torch.autograd.grad(scores.sum(), features)
    weights = slopes.mean((2, 3), keepdim=True) if averaged else slopes
    return (weights * features.detach()).sum(1).relu()


@contextmanager
def _output_of(block: nn.Module) -> Any:
    """A list whose only entry is the block's latest output, as a leaf: no gradient is needed before it."""
    kept: list[Tensor] = [torch.empty(0)]

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept[0] = output.detach().requires_grad_()
        return kept[0]

    hook = block.register_forward_hook(keep)
    try:
        yield kept
    finally:
        hook.remove()


def _body(model: nn.Module) -> nn.Sequential:
    return model.trunk if hasattr(model, "trunk") else model.features


@torch.no_grad()
def _block(model: nn.Module, least: int, device: torch.device) -> tuple[str, nn.Module, tuple[int, int]]:
    """Name, block and map size of the last block of the body whose map is large enough."""
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [
        child.register_forward_hook(lambda _m, _i, out, name=name: shapes.update({name: tuple(out.shape)}))
        for name, child in _body(model).named_children()
    ]
    try:
        model(torch.zeros(1, 1, SIDE, SIDE, device=device))
    finally:
        for hook in hooks:
            hook.remove()
    fine = [name for name, shape in shapes.items() if len(shape) == 4 and min(shape[2:]) >= least]
    if not fine:
        raise ValueError(f"no block of the network has a map of at least {least}×{least} cells")
    return fine[-1], _body(model).get_submodule(fine[-1]), shapes[fine[-1]][2:]


def _extent(model: nn.Module, block: nn.Module, shape: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where the cells of a map lie on the face, from the centres of what they see.

    For a chain of convolutions and poolings, the centre of the first cell and the distance of two follow from
    kernels, strides and paddings (Araujo et al. 2019). In networks with branches, the map is taken to cover
    the face.
    """
    body = _body(model)
    if isinstance(body, Trunk) and not isinstance(body, EasyTrunk | MobileNetV1):
        return 0.0, float(SIDE), 0.0, float(SIDE)
    side = getattr(model, "input_size", SIDE)
    centre, step, size = 0.5, 1.0, side
    last = list(block.modules())[-1]
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (_first(v) for v in (layer.kernel_size, layer.stride, layer.padding))
            if isinstance(layer, SameConv2d):
                padding = max((-(-size // stride) - 1) * stride + kernel - size, 0) // 2
                size = -(-size // stride)
            else:
                size = (size + 2 * padding - kernel) // stride + 1
            centre += ((kernel - 1) / 2 - padding) * step
            step *= stride
        if layer is last:
            break
    scale = SIDE / side
    first = (centre - step / 2) * scale
    return first, first + shape[1] * step * scale, first, first + shape[0] * step * scale


def _first(value: int | tuple[int, ...]) -> int:
    return value[0] if isinstance(value, tuple) else value
