"""Small data sets in every layout, written by NumPy and Pillow, and what else several tests use."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from multiprocessing import Process
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from fer_utils.datasets import ferplus
from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.discover import files_below
from fer_utils.emotions import FER2013, JAFFE, RAFDB
from fer_utils.errors import DataError

USAGES = ("Training", "PublicTest", "PrivateTest")
SPLITS = ("train", "validation", "test")
PACKINGS = ("", ".gz", ".zip", ".tar.gz", ".tgz", ".tar")


def noise(n: int, size: int = 48, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)


def csv_bytes(
    images: np.ndarray,
    codes: Sequence[int],
    usages: Sequence[str],
    columns: Sequence[str] = ("emotion", "pixels", "Usage"),
) -> bytes:
    """A pixel CSV; a column's name may have blanks around it, and columns of other names hold ``x``."""
    lines = [",".join(columns)]
    for image, code, usage in zip(images, codes, usages, strict=True):
        values = {"emotion": str(code), "pixels": " ".join(map(str, image.ravel())), "usage": usage}
        lines.append(",".join(values.get(column.strip().lower(), "x") for column in columns))
    return ("\n".join(lines) + "\n").encode()


def fer2013_csv(n: int = 14, columns: Sequence[str] = ("emotion", "pixels", "Usage")) -> bytes:
    """`n` noise images: codes 0 to 6 in turn, the usages in three blocks."""
    return csv_bytes(noise(n), [i % 7 for i in range(n)], [USAGES[3 * i // n] for i in range(n)], columns)


def pack(packing: str, data: bytes, name: str = "fer2013.csv", more: dict[str, bytes] | None = None) -> bytes:
    """The bytes of a file, plain or packed; `more` are other members of an archive."""
    out = io.BytesIO()
    members = (more or {}) | {name: data}
    if packing == ".gz":
        return gzip.compress(data, mtime=0)
    if packing == ".zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return out.getvalue()
    if packing.startswith((".t", ".tar")):
        with tarfile.open(fileobj=out, mode="w" if packing == ".tar" else "w:gz") as tar:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return out.getvalue()
    return data


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def save(path: Path, image: np.ndarray | None = None, seed: int = 0) -> Path:
    """Write an image, noise of 48×48 by default; what is no image's suffix to Pillow is written as BMP."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
    Image.fromarray(noise(1, seed=seed)[0] if image is None else image).save(path, None if known else "BMP")
    return path


def ckplus_tree(root: Path, sequences: dict[str, tuple[int, int | None]]) -> Path:
    """The official tree: by `S005/001`, the number of frames and the code, or none for no label."""
    for seed, (sequence, (frames, code)) in enumerate(sequences.items()):
        stem = sequence.replace("/", "_")
        for frame in range(1, frames + 1):
            save(root / "cohn-kanade-images" / sequence / f"{stem}_{frame:08d}.png", seed=100 * seed + frame)
        if code is not None:
            text = f"   {code:.7e}\n"
            write(root / "Emotion" / sequence / f"{stem}_{frames:08d}_emotion.txt", text)
    return root


VOTES_HEAD = ",".join(ferplus.HEADER)
# The number in a name is not the row, and an image that is not a face has no name.
VOTES_ROWS = [
    f"{USAGES[3 * i // 14]},{'' if i == 6 else f'fer{i + i // 7:07d}.png'},"
    + ("0,0,0,0,0,0,0,0,0,10" if i == 6 else f"{i % 3},{9 - i % 3},0,0,0,0,0,0,1,0")
    for i in range(14)
]
VOTES = "\n".join([VOTES_HEAD, *VOTES_ROWS]) + "\n"


JAFFE_NAMES = [f"{who}.{code}{take}" for who in ("KA", "KL") for code in JAFFE for take in (1, 2)]


def jaffe_folder(folder, suffix=".tiff"):
    for i, name in enumerate(JAFFE_NAMES):
        save(folder / f"{name}.{i + 1}{suffix}", noise(1, 256, i)[0])
    return folder


def rafdb_tree(root, suffix=".jpg"):
    lines = []
    for i, code in enumerate(RAFDB):
        part = "train" if i < 5 else "test"
        name = f"{part}_{i:05d}"
        save(root / "Image" / "aligned" / f"{name}_aligned{suffix}", noise(1, 100, i)[0])
        lines.append(f"{name}.jpg {code}")
    write(root / "EmoLabel" / "list_patition_label.txt", "\n".join(lines) + "\n")
    return root


def affectnet_tree(root):
    for part, numbers in (("train_set", range(8)), ("val_set", range(8, 10))):
        for i in numbers:
            save(root / part / "images" / f"{i}.jpg", noise(1, 64, i)[0])
            annotation(root / part / "annotations" / f"{i}_exp.npy", np.array(str(i % 8)))
            annotation(root / part / "annotations" / f"{i}_val.npy", np.array("0.5"))
    return root


def annotation(path, value):
    out = io.BytesIO()
    np.save(out, value)
    return write(path, out.getvalue())


def expw_tree(root, photos="image/origin"):
    lines = []
    for i, code in enumerate(FER2013):
        save(root / photos / f"photo {i // 2}.jpg", noise(1, 60, i // 2)[0])
        lines.append(f"photo {i // 2}.jpg {i % 2} {10 + i} {5 + i} 45 50 {30.5 + i} {code}")
    write(root / "label" / "label.lst", "\n".join(lines) + "\n")
    return root


def to_their_ends(make: Callable[[int], list[Process]]) -> list[Process]:
    """Start the processes that an attempt makes, and wait until all have ended.

    One that was forked from threads may wait for a lock that nobody holds: then all begin anew.
    """
    for attempt in range(4):
        made = make(attempt)
        for process in made:
            process.start()
        for process in made:
            process.join(60)
        if all(process.exitcode is not None for process in made):
            return made
        for process in made:
            process.kill()
            process.join()
    raise AssertionError("no process came to its end")


def load(module: ModuleType, root: Path) -> FaceSource | None:
    """What a reader makes of the files below a root."""
    return module.READER.load(files_below(root), root)


def refused(
    call: Callable[[], object], *, file: Path | None = None, row: int | None = None, says: str = ""
) -> DataError:
    """The one clear error that a call raises: with a file, a remedy, and perhaps a row and some words."""
    with pytest.raises(DataError) as caught:
        call()
    error = caught.value
    assert error.remedy
    assert error.file is not None
    assert len(str(error)) < 600
    if file is not None:
        assert Path(error.file) == file
    assert row is None or error.row == row
    assert says in str(error)
    return error
