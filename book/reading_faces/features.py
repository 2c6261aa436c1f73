"""What is frozen does not change: FaceNet's frozen part computed once, and only the part above it trained."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn

from fer_utils.augment import Augment
from fer_utils.datasets.faceset import FaceSet
from fer_utils.errors import DataError
from fer_utils.files import atomic_path
from fer_utils.models.facenet import FaceNet


class TrainedPart(nn.Sequential):
    """FaceNet above its frozen blocks: from their features, float (B, …), to logits (B, classes)."""

    frozen: tuple[nn.Module, ...] = ()  # some can be here: parts of a block that is not frozen as a whole

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self


def split(net: FaceNet) -> tuple[nn.Sequential, TrainedPart]:
    """Cut a FaceNet above the last block that is frozen as a whole; both parts share its modules.

    The first takes ``net.trunk.normalise(net.enlarge(images))`` and gives features, the second takes these
    and gives logits.
    """
    frozen = {module for _, module in net.frozen_layers}
    blocks = list(_blocks(net.trunk))
    below = list(takewhile(lambda b: all(m in frozen for m in b.modules() if m._parameters), blocks))
    trained = TrainedPart(*blocks[len(below) :], net.classifier)
    trained.frozen = tuple(frozen)
    return nn.Sequential(*below).eval(), trained.train()


def _blocks(row: nn.Sequential) -> Iterator[nn.Module]:
    for child in row:
        yield from _blocks(child) if type(child) is nn.Sequential else [child]


class Features:
    """Features of faces, float (N, …) by view, for `fer_utils.training.fit` in place of the faces.

    A batch has each face in a view drawn at random.
    """

    def __init__(self, views: list[np.ndarray], faces: FaceSet) -> None:
        self.views, self.labels, self.path = views, faces.labels, faces.path
        self._random = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Features of some faces, (len(rows), …)."""
        views = self._random.integers(len(self.views), size=len(rows))
        return np.stack([self.views[view][row] for view, row in zip(views, rows, strict=True)])


def compute(
    net: FaceNet, faces: FaceSet, folder: Path, *, views: int = 1, augment: Augment | None = None
) -> Features:
    """Compute what a FaceNet's frozen blocks give for some faces, where the network is; or read it again.

    The network has its final frozen weights. Of the views of each face, the first is the image itself, and
    `augment` draws the others. The folder keeps arrays, float16, by the checksum of all they follow from.
    """
    (frozen, _), arrays = split(net), []
    about = hashlib.sha256(faces.images.tobytes())
    for name, value in frozen.state_dict().items():
        about.update(f"{name} {tuple(value.shape)}".encode() + value.cpu().contiguous().numpy().tobytes())
    for view in range(views):
        what = (about.hexdigest(), net.options["trunk"], net.input_size, (view, augment) if view else None)
        path = folder / f"{hashlib.sha256(repr(what).encode()).hexdigest()}.npy"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as aside, aside.open("wb") as file:
                np.save(file, _view(net, frozen, faces, augment if view else None, seed=view))
        arrays.append(np.load(path, mmap_mode="r"))
    return Features(arrays, faces)


@torch.inference_mode()
def _view(net: FaceNet, frozen: nn.Module, faces: FaceSet, augment: Augment | None, seed: int) -> np.ndarray:
    device, parts = next(net.parameters()).device, []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for rows in np.array_split(np.arange(len(faces)), -(-len(faces) // 256)):
            images = torch.from_numpy(faces.take(rows)).unsqueeze(1).float() / 255
            images = net.enlarge((augment(images) if augment else images).to(device))
            parts.append(frozen(net.trunk.normalise(images)).half().cpu())
    if not (features := torch.cat(parts)).isfinite().all():
        raise DataError("features leave the range of half precision", remedy="check the trunk's weights")
    return features.numpy()
