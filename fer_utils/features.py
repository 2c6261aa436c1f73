"""What is frozen does not change: FaceNet's frozen part computed once, and only the part above it trained.

`split` cuts a FaceNet where its frozen layers end. `cache` computes what the lower part gives for every face,
plain and for a fixed number of augmented views, into memory-mapped files. `fit_cached` trains the upper part
on them and gives the whole FaceNet back.

A view of a set of faces is a folder of its own, named after the SHA-256 of everything that its content
follows from, so that views are shared by all runs that need them and a changed weight, face or size never
meets an old file. Files are computed in chunks; a stopped computation goes on where it was.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.data import Dataset, DistributedSampler
from tqdm import tqdm

from fer_utils.augment import Augment
from fer_utils.datasets.faceset import FaceSet
from fer_utils.errors import DataError
from fer_utils.files import write_json
from fer_utils.models.facenet import FaceNet, stages
from fer_utils.training import Batch, FaceData, Faces, Fit, Recipe, fit, refuse_no_images

FORMAT = 1  # raise it whenever the same ingredients give other features
CHUNK = 256  # images computed, and then noted as done, at a time
SEED = 0  # of the augmented views: the same for every run, so that runs can share them
RESERVE = 500_000_000  # bytes left free on the disk, for checkpoints

Dtype = Literal["float16", "float32"]


class FrozenPart(nn.Module):
    """FaceNet from its input to the last block, or layer of a block, that training leaves as it is."""

    def __init__(self, net: FaceNet, blocks: nn.Sequential) -> None:
        super().__init__()
        self.blocks = blocks
        self._prepare = lambda images: net.trunk.normalise(net.enlarge(images))
        self.train(False)

    @property
    def last(self) -> str:
        """Name of the last layer, as ``block8/dw_relu``."""
        return [name for name, _ in self.blocks.named_modules()][-1].replace(".", "/")

    def train(self, mode: bool = True) -> FrozenPart:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, H, W) or (B, F) of float images (B, 1, 64, 64) of 0–1."""
        return self.blocks(self._prepare(images))


class TrainedPart(nn.Module):
    """FaceNet above its `FrozenPart`; modules, their parameters and their names are FaceNet's own."""

    def __init__(self, net: FaceNet, blocks: nn.Sequential) -> None:
        super().__init__()
        self.trunk, self.classifier = blocks, net.classifier
        # A block that is cut inside and cannot be taken apart has frozen layers up here.
        self._held = [layer.module for layer in net.frozen_layers if layer.module is not None]
        self.train()

    def train(self, mode: bool = True) -> TrainedPart:
        """Set training or evaluation mode; frozen layers stay in evaluation mode."""
        super().train(mode)
        for module in self._held:
            module.eval()
        return self

    def stages(self) -> list[list[nn.Parameter]]:
        """Parameters by depth: of each block from the cut up, then of the head."""
        return stages(self.trunk, self.classifier)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, num_classes) of what `FrozenPart` gives."""
        return self.classifier(self.trunk(features))


def split(net: FaceNet) -> tuple[FrozenPart, TrainedPart]:
    """Cut a FaceNet where its frozen layers end; both parts share its modules.

    One after the other they are the network: ``trained(frozen(images)) == net(images)``. Rows of layers are
    cut anywhere, and layers without parameters go with the ones they follow. Inception blocks and bottlenecks
    stay whole: one that is frozen in part goes with the trained part, its frozen layers unchanged.

    Raises:
        ValueError: nothing that computes is frozen.
    """
    held = {layer.module for layer in net.frozen_layers if layer.module is not None}
    lower, upper = _cut(net.trunk, held)
    if not any(True for _ in lower.parameters()):
        raise ValueError(
            f"with freeze={net.options['freeze']!r} no whole layer or block is frozen, so that nothing can "
            "be computed once: freeze more of the trunk, or train without a cache"
        )
    return FrozenPart(net, lower), TrainedPart(net, upper)


def _cut(row: nn.Sequential, held: set[nn.Module]) -> tuple[nn.Sequential, nn.Sequential]:
    lower, upper = nn.Sequential(), nn.Sequential()
    for name, child in row.named_children():
        if len(upper):
            upper.add_module(name, child)
        elif all(_is_still(module, held) for module in child.modules()):
            lower.add_module(name, child)
        elif type(child).forward is nn.Sequential.forward:
            below, above = _cut(child, held)
            if len(below):
                lower.add_module(name, below)
            upper.add_module(name, above)
        else:
            upper.add_module(name, child)
    return lower, upper


def _is_still(module: nn.Module, held: set[nn.Module]) -> bool:
    """Whether a module (its children aside) does the same to an image in every epoch."""
    state = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return (module in held or not state) and not isinstance(module, _DropoutNd)


@dataclass(frozen=True)
class View:
    """One view of a set of faces, computed or still to be computed.

    Attributes:
        faces: the images.
        augment: how they are changed first, or none.
        ingredients: plain values from which the features follow.
        shape: of one image's features as stored: (H, W, C) or (F,).
        root: folder of all views.
    """

    faces: FaceSet
    augment: Augment | None
    ingredients: dict[str, Any]
    shape: tuple[int, ...]
    root: Path

    @property
    def key(self) -> str:
        """SHA-256 of the ingredients, 64 hexadecimal digits."""
        return hashlib.sha256(json.dumps(self.ingredients, sort_keys=True).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Where the computed view is."""
        return self.root / self.key

    @property
    def aside(self) -> Path:
        """Where it is while it is being computed."""
        return self.root / f"{self.key}.partial"

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Of the whole array, images first."""
        return (len(self.faces), *self.shape)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return int(np.prod(self.array_shape)) * np.dtype(self.ingredients["dtype"]).itemsize

    def open(self) -> np.ndarray | None:
        """The features, memory-mapped, or none if they are not (all) there."""
        features = self._map(self.folder, "r")
        return features if features is not None and (self.folder / "meta.json").is_file() else None

    def _map(self, folder: Path, mode: Literal["r", "r+"]) -> np.ndarray | None:
        try:
            features = np.load(folder / "features.npy", mmap_mode=mode)
        except (OSError, ValueError):  # missing, or cut off by a full disk
            return None
        fits = features.shape == self.array_shape and features.dtype == self.ingredients["dtype"]
        return features if fits else None

    def progress(self) -> tuple[np.ndarray | None, dict[str, Any]]:
        """What a stopped computation left: the array, and `chunks` done and `seconds` taken until then."""
        features = self._map(self.aside, "r+")
        try:
            return features, json.loads((self.aside / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return features, {"chunks": 0, "seconds": 0.0}

    def about(self) -> dict[str, Any]:
        """What `meta.json` of the computed view says: ingredients, size and seconds."""
        return json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Cached:
    """Features of training and validation faces.

    Attributes:
        train: an array for each view, (N, H, W, C) or (N, F), memory-mapped.
        validation: of the plain validation faces.
        about: `layer` (the last frozen one), `dtype`, `bytes`, and `seconds` of computing, whenever that was.
    """

    train: list[np.ndarray]
    validation: np.ndarray
    about: dict[str, Any]


def plan(
    net: FaceNet,
    train: FaceSet,
    validation: FaceSet,
    root: Path,
    *,
    views: int = 1,
    augment: Augment | None = None,
    dtype: Dtype = "float16",
) -> list[View]:
    """The views that `cache` computes or opens: those of the training faces, then the one for validation.

    Takes and raises what `cache` does.
    """
    if views < 1:
        raise ValueError(f"{views} views of each face; at least 1 is needed")
    if views > 1 and augment is None:
        raise ValueError(f"{views} views of each face, but without augmentation all are alike: ask for 1")
    refuse_no_images(train, validation)
    frozen, _ = split(net)
    image = torch.zeros(1, 1, *train.take([0]).shape[1:])
    shape = _features(frozen, image, next(frozen.parameters()).device).shape[1:]
    common, wanted = _common_ingredients(net, frozen, dtype), []
    for faces, numbers in ((train, range(views)), (validation, range(1))):
        ingredients = common | {"images": len(faces), "faces": _manifest(faces), "pixels": _pixels(faces)}
        for number in numbers:
            drawn = {"augment": dataclasses.asdict(augment), "seed": SEED} if number else {}
            changed = augment if number else None
            wanted.append(View(faces, changed, ingredients | {"view": number} | drawn, tuple(shape), root))
    return wanted


def cache(
    net: FaceNet,
    train: FaceSet,
    validation: FaceSet,
    root: Path,
    *,
    views: int = 1,
    augment: Augment | None = None,
    dtype: Dtype = "float16",
    device: str | torch.device = "cpu",
    verbose: bool = True,
    progress: bool = False,
) -> Cached:
    """Compute what the frozen part of a FaceNet gives for faces, or open it where it is there.

    View 0 is the plain image, the others are drawn by `augment`, which may mirror it. What is missing is
    announced with its size and time, room for all of it is made sure of, and then it is computed. Processes
    that ask for the same view at once wait for the first of them.

    Args:
        net: with its final frozen weights.
        train: training faces, of which all views are made.
        validation: validation faces, of which the plain view is made.
        root: folder of all views.
        views: how many of each training face.
        augment: for views 1 and up.
        dtype: ``"float16"``, or ``"float32"`` for twice the room and no rounding.
        device: where to compute.
        verbose: print the announcement.
        progress: show a text progress bar.

    Raises:
        ValueError: there is nothing to compute once, or all views would be alike.
        DataError: no images, not enough room on the disk, or features that half precision cannot hold.
    """
    wanted = plan(net.to(device), train, validation, root, views=views, augment=augment, dtype=dtype)
    root.mkdir(parents=True, exist_ok=True)
    frozen, _ = split(net)
    missing = [view for view in wanted if view.open() is None]
    if missing:
        if verbose:
            print(_announcement(missing, wanted, frozen, device), flush=True)
        _make_sure_of_room(missing, root)
        images = sum(len(view.faces) for view in missing)
        with tqdm(total=images, unit=" images", disable=not progress, desc="frozen part") as bar:
            for view in missing:
                _compute(view, frozen, device, bar)
    net.cpu()
    arrays = [view.open() for view in wanted]
    seconds = round(sum(view.about()["seconds"] for view in wanted), 2)
    about = {"layer": frozen.last, "dtype": dtype, "bytes": sum(v.size for v in wanted), "seconds": seconds}
    return Cached(arrays[:-1], arrays[-1], about)


def _common_ingredients(net: FaceNet, frozen: FrozenPart, dtype: Dtype) -> dict[str, Any]:
    """What all views of a FaceNet have in common."""
    digest = hashlib.sha256()
    for name, tensor in frozen.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "format": FORMAT,
        "trunk": net.options["trunk"],
        "last_layer": frozen.last,
        "weights": digest.hexdigest(),
        "input_size": net.input_size,
        "dtype": dtype,
        "chunk": CHUNK,
    }


def _manifest(faces: FaceSet) -> str:
    return hashlib.sha256(json.dumps(faces.manifest, sort_keys=True).encode()).hexdigest()


def _pixels(faces: FaceSet) -> str:
    """Of the very images: the manifest says what they should be."""
    digest = hashlib.sha256()
    for start in range(0, len(faces), 4096):
        digest.update(faces.take(np.arange(start, min(start + 4096, len(faces)))).tobytes())
    return digest.hexdigest()


def _left(view: View) -> int:
    """Bytes of disk that a view still needs: what its file, which may have holes, has not taken yet."""
    if view.progress()[0] is None:
        return view.size
    return max(0, view.size - (view.aside / "features.npy").stat().st_blocks * 512)


def _make_sure_of_room(missing: list[View], root: Path) -> None:
    needed, free = sum(map(_left, missing)), shutil.disk_usage(root).free
    if needed + RESERVE > free:
        raise DataError(
            f"the features need {needed / 1e9:.2f} GB (and {RESERVE / 1e9:.1f} GB should stay free), "
            f"but {free / 1e9:.2f} GB are free",
            file=root,
            remedy="ask for fewer views, freeze more layers (features get smaller further up), delete old "
            "features in this folder, or name a larger disk in FER_BUILD",
        )


def _announcement(missing: list[View], wanted: list[View], frozen: FrozenPart, device: Any) -> str:
    sample = missing[0].faces.take(np.arange(min(64, len(missing[0].faces))))
    start = 0.0
    for _ in range(2):  # the first call is slower
        start = time.perf_counter()
        _features(frozen, torch.from_numpy(sample).unsqueeze(1).float() / 255, device)
    rate = len(sample) / (time.perf_counter() - start)
    root = missing[0].root
    left = [len(v.faces) - min(v.progress()[1]["chunks"] * CHUNK, len(v.faces)) for v in missing]
    shape, dtype = "×".join(map(str, missing[0].shape)), missing[0].ingredients["dtype"]
    return (
        f"The frozen part, up to {frozen.last}, is computed once: {len(missing)} of {len(wanted)} views are "
        f"missing, {sum(left):,} images to {shape} numbers of {dtype}, "
        f"{sum(v.size for v in missing) / 1e9:.3g} GB in {root.parent.name}/{root.name}. "
        f"It takes about {sum(left) / rate / 60:.1f} minutes ({rate:,.0f} images a second)."
    )


def _compute(view: View, frozen: FrozenPart, device: Any, bar: tqdm) -> None:
    """Compute a view from where it was left, and put it in its place when it is whole."""
    with FileLock(view.root / f"{view.key}.lock"):
        if view.open() is not None:  # by another process, meanwhile
            bar.update(len(view.faces))
            return
        view.aside.mkdir(exist_ok=True)
        features, done = view.progress()
        if features is None or not done["chunks"]:
            # A note of what is no longer there must not outlive the next stop.
            (view.aside / "progress.json").unlink(missing_ok=True)
            features, done = _lay_out(view), {"chunks": 0, "seconds": 0.0}
        bar.update(min(done["chunks"] * CHUNK, len(view.faces)))
        for chunk in range(done["chunks"], -(-len(view.faces) // CHUNK)):
            start = time.perf_counter()
            rows = np.arange(chunk * CHUNK, min((chunk + 1) * CHUNK, len(view.faces)))
            try:
                features[rows[0] : rows[-1] + 1] = _chunk(view, frozen, rows, chunk, device)
            except DataError:  # going on would end here again, so its room is free for another one
                del features
                shutil.rmtree(view.aside)
                raise
            features.flush()
            done = {"chunks": chunk + 1, "seconds": done["seconds"] + time.perf_counter() - start}
            write_json(view.aside / "progress.json", done)
            bar.update(len(rows))
        meta = view.ingredients | {"shape": view.array_shape, "bytes": view.size}
        meta |= {"seconds": round(done["seconds"], 2), "torch": torch.__version__}
        write_json(view.aside / "meta.json", meta)
        del features
        shutil.rmtree(view.folder, ignore_errors=True)  # damaged, or it would have been opened
        view.aside.rename(view.folder)


def _lay_out(view: View) -> np.ndarray:
    """An empty array on disk, with all its room taken, so that the disk cannot be full half-way."""
    path = view.aside / "features.npy"
    features = np.lib.format.open_memmap(path, "w+", view.ingredients["dtype"], view.array_shape)
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except AttributeError:  # not on this system
        pass
    except OSError as error:
        if error.errno == errno.ENOSPC:
            del features
            shutil.rmtree(view.aside)
            raise DataError(
                f"there is no room for {view.size / 1e9:.2f} GB of features",
                file=view.root,
                remedy="ask for fewer views, or free some room",
            ) from None
    return features


def _chunk(view: View, frozen: FrozenPart, rows: np.ndarray, chunk: int, device: Any) -> np.ndarray:
    images = torch.from_numpy(view.faces.take(rows)).unsqueeze(1).float() / 255
    if view.augment is not None:
        # Drawn on the processor and from numbers of its own, so that it does not matter who computes the
        # chunk, and when, and so that nothing else notices.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed((SEED * 1_000 + view.ingredients["view"]) * 1_000_000 + chunk)
            images = view.augment(images)
    exact = _features(frozen, images, device)
    stored = exact.to(getattr(torch, view.ingredients["dtype"]))
    if not stored.isfinite().all():
        if exact.isfinite().all():
            raise DataError(
                f"features of up to {exact.abs().max():.3g} leave the range of half precision (65,504)",
                file=view.root,
                remedy="keep them in single precision (--cache-dtype float32)",
            )
        raise DataError(
            "the frozen part gives numbers that are not finite", remedy="check the weights of the trunk"
        )
    return stored.numpy()


@torch.inference_mode()
def _features(frozen: FrozenPart, images: Tensor, device: Any) -> Tensor:
    return _stored(frozen(images.to(device))).cpu()


def _stored(features: Tensor) -> Tensor:
    """Channels last, the layout in which they were computed and in which the next layer wants them."""
    return features.permute(0, 2, 3, 1) if features.ndim == 4 else features


class CachedFaces(Dataset[Batch]):
    """Features in place of images: hands out whole batches of features, labels and targets, as `Faces` does.

    Args:
        views: arrays (N, H, W, C) or (N, F), one a view.
        faces: give labels and targets.
    """

    def __init__(self, views: list[np.ndarray], faces: Faces) -> None:
        if any(len(view) != len(faces) for view in views):
            raise ValueError(f"features of {[len(v) for v in views]} images for {len(faces)} faces")
        self.views, self.faces, self.answers = views, faces, faces.answers

    def __len__(self) -> int:
        return len(self.faces)

    def __getitems__(self, places: list[int]) -> Batch:
        """Fetch a batch; image `row` in view `v` is at ``v * len(self) + row``."""
        numbers, rows = np.divmod(np.asarray(places), len(self))
        out = np.empty((len(rows), *self.views[0].shape[1:]), self.views[0].dtype)
        for number in np.unique(numbers):
            chosen = numbers == number
            out[chosen] = self.views[number][rows[chosen]]
        features = torch.from_numpy(out)
        labels, targets = self.faces.labels_and_targets(rows.tolist())
        return features.permute(0, 3, 1, 2) if features.ndim == 4 else features, labels, targets


class ViewSampler(DistributedSampler):
    """Every image once an epoch, in another view each time.

    Each image begins with a view of its own, drawn from the seed, and goes on to the next in each epoch: so
    an epoch has all views in equal shares, and an image comes in all of its views before one comes again.
    """

    def __init__(self, faces: CachedFaces, **options: Any) -> None:
        super().__init__(faces, **options)
        self.first = np.random.default_rng(self.seed).integers(len(faces.views), size=len(faces))

    def __iter__(self) -> Iterator[int]:
        """Places as `CachedFaces` understands them."""
        rows = np.fromiter(super().__iter__(), np.int64)
        views = (self.first[rows] + self.epoch) % len(self.dataset.views)
        return iter((views * len(self.dataset) + rows).tolist())


class FeatureData(FaceData):
    """Batches of cached features; a view is picked for each image and epoch, validation is plain.

    Args:
        train: training faces, for their labels.
        validation: validation faces, for their labels.
        recipe: gives batch size and seed.
        cached: what `cache` gave for these faces.
        targets: of the training faces, as for `Faces`.
    """

    def __init__(
        self,
        train: FaceSet,
        validation: FaceSet,
        recipe: Recipe,
        cached: Cached,
        targets: np.ndarray | None = None,
    ) -> None:
        super().__init__(train, validation, recipe, targets)
        self.train_faces = CachedFaces(cached.train, self.train_faces)
        self.validation_faces = CachedFaces([cached.validation], self.validation_faces)

    def _sampler(self, **options: Any) -> ViewSampler:
        return ViewSampler(self.train_faces, **options)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Make features single precision; they were augmented before they were computed."""
        features, labels, targets = batch
        return features.float(), labels, targets


def refuse_blends(recipe: Recipe) -> None:
    """Raise ValueError for a recipe that blends images: a cache does not have them."""
    if recipe.mixup:
        raise ValueError("mixup blends images, and a cache holds features: set mixup=0, or leave the cache")


def fit_cached(
    net: FaceNet,
    train: FaceSet,
    validation: FaceSet,
    recipe: Recipe,
    folder: Path | str,
    cached: Cached,
    *,
    targets: np.ndarray | None = None,
    **options: Any,
) -> Fit:
    """`fit` for a FaceNet whose frozen part has been computed; takes and gives what that does.

    Args:
        net: as it was given to `cache`.
        train: as for `fit`.
        validation: as for `fit`.
        recipe: as for `fit`; its augmentation was applied by `cache`.
        folder: as for `fit`.
        cached: what `cache` gave.
        targets: as for `fit`.
        **options: as for `fit`.

    Raises:
        ValueError: the recipe blends images, which are not there to be blended.
    """
    refuse_blends(recipe)
    data = FeatureData(train, validation, recipe, cached, targets)
    done = fit(split(net)[1], train, validation, recipe, folder, data=data, **options)
    return dataclasses.replace(done, model=net.cpu().eval())
