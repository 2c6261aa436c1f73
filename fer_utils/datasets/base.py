"""What every reader gives: `FaceSource`, the faces of one data set before the merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from fer_utils.emotions import EMOTIONS
from fer_utils.errors import DataError

COLUMNS = ("emotion", "subject", "split", "origin")
SPLITS = ("train", "validation", "test")


class Images(Protocol):
    """Anything that gives a grey image, uint8 of shape (H, W) and values 0–255, for a row number."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> np.ndarray: ...


class ImageFiles:
    """Image files decoded only when asked for, so that memory stays bounded."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> np.ndarray:
        return read_grey(self.paths[i])


def read_grey(path: Path, *, upright: bool = False) -> np.ndarray:
    """Decode an image file to grey.

    Args:
        path: the file.
        upright: turn it as its EXIF note on orientation says, as phones leave it to the viewer to do.

    Returns:
        uint8 array (H, W), values 0–255; colour is converted with ITU-R 601-2 luma (Pillow's mode ``L``).

    Raises:
        DataError: the file is missing, truncated or not an image, or has more than 8 bits a pixel.
    """
    remedy = "replace the file with an intact copy, or delete it to go on without it"
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            grey = np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("L"))
    except FileNotFoundError:
        raise DataError("the image file is missing", file=path, remedy="unpack the data set again") from None
    except PermissionError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # on damaged files, Pillow's decoders raise whatever their parsers meet
        raise DataError(f"the image cannot be decoded ({error})", file=path, remedy=remedy) from error
    if deep:  # Pillow would cut the values off at 255
        raise DataError("the image has more than 8 bits a pixel", file=path, remedy="convert it to 8 bits")
    return grey


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that the system does not let us read."""
    return DataError(f"it cannot be read ({error.strerror})", file=path, remedy="check its permissions")


@dataclass(frozen=True)
class FaceSource:
    """The faces of one data set, as its reader found them.

    Attributes:
        name: short name, e.g. ``"fer2013"``; the `source` column of the merged set.
        layout: which on-disk layout was found, in words.
        table: one row an image: `emotion` (a name out of `EMOTIONS`), `subject` (string, or missing where
            the data set names none), `split` (``"train"``, ``"validation"``, ``"test"``, or missing where
            the data set has no official split), `origin` (path below the data root, with ``:line`` for rows
            of a CSV).
        images: the grey images, in the order of `table`.
        cropped: true where the images are face crops already; false where a face must be detected.
        files: the files that the table was read from, for checksums.
        notes: what the reader should know, e.g. how many sequences had no label.
        own_splits: false where a split is not that of the data set's owners, though they have published one,
            so that scores on it must not be compared with others'.
    """

    name: str
    layout: str
    table: pd.DataFrame
    images: Images
    cropped: bool
    files: tuple[Path, ...]
    notes: tuple[str, ...] = field(default=())
    own_splits: bool = True

    def __post_init__(self) -> None:
        if tuple(self.table.columns) != COLUMNS:
            raise ValueError(f"{self.name}: columns {tuple(self.table.columns)}, expected {COLUMNS}")
        if len(self.table) != len(self.images):
            raise ValueError(f"{self.name}: {len(self.table)} rows, {len(self.images)} images")
        unknown = set(self.table["emotion"]) - set(EMOTIONS)
        if unknown:
            raise ValueError(f"{self.name}: unknown emotions {sorted(unknown)}")

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Reader:
    """One data set that the book can read: how to find it, how to read it, where to get it.

    Attributes:
        name: short name, e.g. ``"ckplus"``.
        title: the data set's own name.
        find: gives the path of the data set below a root folder (file or folder), or none if it is absent.
        read: reads what `find` gave. The second argument is the root, for the `origin` column.
        licence: one line on what may be done with it.
        homepage: where it comes from.
        how_to_get: one or two sentences: whom to ask, what to download, where to put it.
    """

    name: str
    title: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path, Path], FaceSource]
    licence: str
    homepage: str
    how_to_get: str
