"""A network as a table of layers: what the chapters print and `reading_faces.report.plots.architecture` draws."""

from __future__ import annotations

from itertools import chain

import pandas as pd
import torch
from torch import Tensor, nn

Part = tuple[nn.Module, list[nn.Parameter]]


def layer_table(model: nn.Module, image_size: int = 64) -> pd.DataFrame:
    """Layers of a network in the order in which they compute.

    A row is a named child of the network's `features` (or of FaceNet's `trunk`) or `classifier`, with its
    batch normalisation and activation; dropout and lone activations have no row of their own. A block that
    is frozen in part gives a row for each part.

    Args:
        model: takes float images (B, 1, `image_size`, `image_size`).
        image_size: side of the input in pixels.

    Returns:
        `layer` (its name), `kind` (words), `output` ((C, H, W) or (units,)), `parameters` (their sum is that
        of the model) and `trained` (false for frozen layers and for those without parameters).
    """
    body = model.trunk if hasattr(model, "trunk") else model.features
    rows, shapes, hooks = [], {}, []

    def note_shape(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[module] = tuple(output.shape[1:])

    for name, child in chain(body.named_children(), model.classifier.named_children()):
        parts = [] if isinstance(child, nn.Dropout | nn.ReLU) else _parts(child)
        for last, parameters in parts:
            hooks.append(last.register_forward_hook(note_shape))
            trained = any(p.requires_grad for p in parameters)
            part = "" if len(parts) == 1 else " trained" if trained else " frozen"
            rows.append((name + part, kind(child), last, sum(p.numel() for p in parameters), trained))
    was_training = model.training
    with torch.no_grad():
        model.eval()(torch.zeros(1, 1, image_size, image_size, device=next(model.parameters()).device))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    table = pd.DataFrame(rows, columns=["layer", "kind", "output", "parameters", "trained"])
    return table.assign(output=[shapes[module] for module in table["output"]])


def kind(module: nn.Module) -> str:
    """What a layer or block does, in words: ``"conv 5×5"``, ``"max pool 3×3 /2"``, ``"fully connected"``.

    A block says it itself by an attribute `kind`; another container is called after its first layer.
    """
    match module:
        case nn.Module(kind=str(words)):
            return words
        case nn.Conv2d(kernel_size=(height, width), stride=(stride, _)):
            name = "depthwise conv" if module.groups == module.in_channels > 1 else "conv"
        case nn.MaxPool2d(kernel_size=height, stride=stride):
            name, width = "max pool", height
        case nn.Linear():
            return "fully connected"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return "batch norm"
        case nn.AdaptiveAvgPool2d():
            return "global mean"
        case _:
            first = next(module.children(), None)
            return kind(first) if first else type(module).__name__.lower()
    return f"{name} {height}×{width}" + (f" /{stride}" if stride > 1 else "")


def _parts(block: nn.Module) -> list[Part]:
    """Cut a block where frozen layers end and trained ones begin: the last layer and parameters of each."""
    parts: list[Part] = []
    for leaf in (m for m in block.modules() if next(m.children(), None) is None):
        own = list(leaf.parameters())
        before = parts[-1][1] if parts else None
        if before is None or (own and before and own[0].requires_grad != before[0].requires_grad):
            parts.append((leaf, own))
        else:
            parts[-1] = (leaf, before + own)
    return [*parts[:-1], (block, parts[-1][1])]
