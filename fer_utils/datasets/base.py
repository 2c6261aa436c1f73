"""What every reader gives: `FaceSource`, the faces of one data set before the merge."""

import dataclasses
import re
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.datasets.discover import TABLES, Files, images_in
from fer_utils.emotions import FOLDER_NAMES
from fer_utils.errors import DataError
from fer_utils.pictures import read_picture

COLUMNS = ("emotion", "subject", "split", "origin")
SPLITS = ("train", "validation", "test")
Box = tuple[int, int, int, int]  # top, left, right, bottom in pixels
MEND = "download it again, or mend or delete what is wrong"
JPEG = (".jpg", ".jpeg")
JPEG_CHANGES = "at a quality of 75, this changes 8 to 11% of the networks' answers"
SPLIT_OF_FOLDER = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "publictest"), "validation"),
    **dict.fromkeys(("test", "privatetest"), "test"),
}


def read_grey(path: Path) -> np.ndarray:
    """Read an image file by `read_picture`, as grey: uint8 (H, W), 0–255, by ITU-R 601-2 luma."""
    return np.asarray(Image.fromarray(read_picture(path)).convert("L"))


@dataclass(frozen=True)
class ImageFiles:
    """Grey images, uint8 (H, W), decoded when asked for; `boxes` cut faces out."""

    paths: Sequence[Path]
    boxes: Sequence[Box] | None = None

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


class StoredImages:
    """Square grey images, uint8 (size, size), kept in a temporary file instead of memory."""

    def __init__(self, size: int) -> None:
        self.size, self.count = size, 0
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (closed when nobody needs it)

    def __del__(self) -> None:
        self.file.close()

    def append(self, pixels: bytes) -> None:
        """Add an image, row by row."""
        self.file.write(pixels)
        self.count += 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int, /) -> np.ndarray:
        self.file.seek(range(self.count)[i] * self.size**2)
        return np.frombuffer(self.file.read(self.size**2), np.uint8).reshape(self.size, self.size)


@dataclass(frozen=True)
class FaceSource:
    """The faces of one data set, as its reader made them out.

    The table has one row an image: `emotion` (out of `EMOTIONS`), `subject` and `split` (strings, missing
    where the data set names none), `origin` (path below the data root, ``:line`` for rows of a file).
    """

    name: str  # a short one, e.g. ``"fer2013"``
    layout: str  # which on-disk layout it is, in words
    table: pd.DataFrame
    images: np.ndarray | ImageFiles | StoredImages  # grey, in the order of `table`
    cropped: bool  # the images are face crops already; otherwise a face must be detected
    files: tuple[Path, ...]  # all that were read, for checksums
    notes: tuple[str, ...] = ()  # what users should know, e.g. how many sequences had no label
    # False where splits or images are not those that the data set's owners published, so that scores must not
    # be compared with others'; `notes` say what differs.
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
    first. `read(form, files, root)` reads one, or raises a `DataError` that names what is wrong. `lossless`
    says that its owners' images are, so that JPEGs are somebody else's copies.
    """

    name: str
    title: str
    find: Callable[[Files, Path], list[Path]]
    read: Callable[[Path, Files, Path], FaceSource]
    licence: str
    homepage: str
    how_to_get: str
    lossless: bool = False

    def load(self, files: Files, root: Path) -> FaceSource | None:
        """Read the best form of the data set and note the others; none if it is absent."""
        forms = [form.relative_to(root).as_posix() for form in self.find(files, root)]
        if not forms:
            return None
        best = root / forms[0]
        whole = "/" not in forms[0] or best.name.lower().endswith(TABLES)
        for error in files.unreadable:  # part of the data set may be there
            if Path(error.file).is_relative_to(best if whole else best.parent):
                raise error
        source = self.read(best, files, root)
        notes, jpegs = list(source.notes), sum(file.suffix.lower() in JPEG for file in source.files)
        if len(forms) > 1:
            notes.append(f"also there and not read: {', '.join(forms[1:])}")
        if self.lossless and jpegs:
            notes.append(f"{jpegs:,} images are JPEGs, but the owners' are not: {JPEG_CHANGES}")
        own = source.own_splits and not (self.lossless and jpegs)
        return dataclasses.replace(source, notes=tuple(notes), own_splits=own)


def decode(text: str, codes: Mapping[int, str], file: Path, row: int | None = None) -> str:
    """The emotion that a code, such as 3, 3.0 or 3.0e+00, stands for; a `DataError` lists the known codes."""
    known = {str(code): name for code, name in codes.items()}
    if (code := re.sub(r"\.0*(e\+00)?$", "", text)) not in known:
        some = ", ".join(f"{code} {name}" for code, name in known.items())
        problem = f"the emotion code {text[:24]!r} is unknown; known are {some}"
        raise DataError(problem, file=file, row=row, remedy=MEND)
    return known[code]


def class_trees(files: Files, root: Path, names: Container[str], ours: Callable[[str], Any]) -> list[Path]:
    """Folders with images in train/NAME/, test/NAME/ or the like whose path, in lower case, is `ours`."""
    trees = []
    for image in images_in(files):
        parts = image.relative_to(root).as_posix().lower().split("/")
        if len(parts) > 2 and parts[-2] in names and parts[-3] in SPLIT_OF_FOLDER and ours("/".join(parts)):
            nested = parts[-4:-3] == parts[-3:-2]  # some archives nest a folder in itself
            trees.append(image.parents[2 + nested])
    return list(dict.fromkeys(trees))


def read_class_tree(path: Path, files: Files, codes: Mapping[int, str] | None = None) -> list[tuple]:
    """Image, emotion and split, by their names, of all images in train/, test/ and the like in a folder."""
    parts = [(image, image.relative_to(path).parts[0].lower()) for image in images_in(files, path)]
    parts = [(image, SPLIT_OF_FOLDER[part]) for image, part in parts if part in SPLIT_OF_FOLDER]
    return [(image, class_of_folder(image, codes), split) for image, split in parts]


def class_of_folder(image: Path, codes: Mapping[int, str] | None = None) -> str:
    """The emotion that the folder of an image is named after, in words or by code, or a `DataError`."""
    names = FOLDER_NAMES | {key: name for code, name in (codes or {}).items() for key in (str(code), name)}
    if (name := image.parent.name.lower()) not in names:
        problem = f"the class folder's name is unknown; known are {', '.join(names)}"
        raise DataError(problem, file=image.parent, remedy="rename the folder, or take it away")
    return names[name]


def hold_out(table: pd.DataFrame) -> str:
    """Give every eighth training image of a class to validation, in place; gives a note on that."""
    train = table[table["split"] == "train"]
    table.loc[train.index[train.groupby("emotion").cumcount() % 8 == 7], "split"] = SPLITS[1]
    count = (table["split"] == SPLITS[1]).sum()
    return f"{count:,} training images, every eighth of a class, are the validation split"
