"""What every reader gives: `FaceSource`, the faces of one data set before the merge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.emotions import FOLDER_NAMES
from fer_utils.errors import DataError

COLUMNS = ("emotion", "subject", "split", "origin")
SPLITS = ("train", "validation", "test")
MEND = "download it again, or mend or delete what is wrong"


def read_grey(path: Path) -> np.ndarray:
    """Decode an image file to grey, uint8 (H, W), 0–255; colour by ITU-R 601-2 luma (Pillow's ``L``)."""
    try:
        with Image.open(path) as image:
            deep = image.mode.startswith(("I", "F"))
            grey = np.asarray(image.convert("L"))
    except Exception as error:  # on damaged files, Pillow's decoders raise whatever their parsers meet
        problem = f"the image cannot be decoded ({error})"
        raise DataError(problem, file=path, remedy=MEND) from error
    if deep:  # Pillow would cut the values off at 255
        raise DataError("the image has more than 8 bits a pixel", file=path, remedy="convert it to 8 bits")
    return grey


@dataclass(frozen=True)
class ImageFiles:
    """Grey images, uint8 (H, W), decoded when asked for; `boxes` (top, left, right, bottom) cut faces out."""

    paths: Sequence[Path]
    boxes: Sequence[tuple[int, int, int, int]] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int, /) -> np.ndarray:
        image = read_grey(self.paths[i])
        if self.boxes is not None:
            top, left, right, bottom = self.boxes[i]
            image = image[max(top, 0) : bottom, max(left, 0) : right]
            if not image.size:
                problem = f"the box of the face (top {top}, left {left}) lies outside the photo"
                raise DataError(problem, file=self.paths[i], remedy=MEND)
        return image


@dataclass(frozen=True)
class FaceSource:
    """The faces of one data set, as its reader made them out.

    Attributes:
        name: short name, e.g. ``"fer2013"``.
        layout: which on-disk layout it is, in words.
        table: one row an image: `emotion` (out of `EMOTIONS`), `subject` and `split` (strings, missing where
            the data set names none), `origin` (path below the data root, ``:line`` for rows of a file).
        images: the grey images, in the order of `table`.
        cropped: true where the images are face crops already; false where a face must be detected.
        files: all files that were read, for checksums.
        notes: what the reader should know, e.g. how many sequences had no label.
        own_splits: false where a split is not that of the data set's owners, though they have published one,
            so that scores on it must not be compared with others'.
    """

    name: str
    layout: str
    table: pd.DataFrame
    images: np.ndarray | ImageFiles
    cropped: bool
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    own_splits: bool = True

    def __len__(self) -> int:
        return len(self.table)


def face_table(
    emotions: Sequence[str],
    origins: Sequence[str | Path],
    root: Path,
    subjects: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The table of a `FaceSource`; `origins` are paths, or what stands for them, below the root."""
    where = [o if isinstance(o, str) else o.relative_to(root).as_posix() for o in origins]
    values = {"emotion": emotions, "subject": subjects, "split": splits, "origin": where}
    return pd.DataFrame(values, columns=COLUMNS, dtype=object)


@dataclass(frozen=True)
class Reader:
    """One data set that the book can read, and where to get it.

    `find(files, root)` gives every form of it, a file or a folder, among the files below a root, the best
    first. `read(form, files, root)` reads one, or raises a `DataError` that names what is wrong.
    """

    name: str
    title: str
    find: Callable[[list[Path], Path], list[Path]]
    read: Callable[[Path, list[Path], Path], FaceSource]
    licence: str
    homepage: str
    how_to_get: str

    def load(self, files: list[Path], root: Path) -> FaceSource | None:
        """Read the best form of the data set and note the others; none if it is absent."""
        forms = [form.relative_to(root).as_posix() for form in self.find(files, root)]
        source = self.read(root / forms[0], files, root) if forms else None
        if len(forms) > 1:
            note = f"also there and not read: {', '.join(forms[1:])}"
            source = dataclasses.replace(source, notes=(*source.notes, note))
        return source


def decode(text: str, codes: Mapping[int, str], file: Path, row: int | None = None) -> str:
    """The emotion that a code stands for, or a `DataError` that lists the known codes."""
    if text not in map(str, codes):
        known = ", ".join(f"{code} {name}" for code, name in codes.items())
        problem = f"the emotion code {text[:24]!r} is unknown; known are {known}"
        raise DataError(problem, file=file, row=row, remedy=MEND)
    return codes[int(text)]


def class_of_folder(image: Path) -> str:
    """The emotion that the folder of an image is named after, or a `DataError`."""
    if (name := image.parent.name.lower()) not in FOLDER_NAMES:
        problem = f"the class folder's name is unknown; known are {', '.join(FOLDER_NAMES)}"
        raise DataError(problem, file=image.parent, remedy="rename the folder, or take it away")
    return FOLDER_NAMES[name]


def hold_out(table: pd.DataFrame) -> str:
    """Give every eighth training image of a class to validation, in place; gives a note on that."""
    train = table[table["split"] == "train"]
    table.loc[train.index[train.groupby("emotion").cumcount() % 8 == 7], "split"] = SPLITS[1]
    count = (table["split"] == SPLITS[1]).sum()
    return f"{count:,} training images, every eighth of a class, are the validation split"
