"""What the readers share: looking for a data set below the root, and reading tables and class folders."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from fer_utils.datasets.base import COLUMNS, FaceSource, unreadable
from fer_utils.datasets.pixels import read_pixels
from fer_utils.datasets.tables import PACKED, names_inside
from fer_utils.emotions import FOLDER_NAMES
from fer_utils.errors import DataError

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
DEPTH = 3  # levels below the root that are looked at
CROWD = 5_000  # a folder with more entries holds images, and no tables or data sets
LEAVES = frozenset(FOLDER_NAMES) | {
    "aligned",
    "annotations",
    "cohn-kanade-images",
    "emotion",
    "facs",
    "landmarks",
    "origin",
    "original",
}

HELD_OUT = 8  # of a class's training images, the share of one in so many is about the size of PublicTest

SPLIT_OF_USAGE: Mapping[str, str] = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}


class Folder(NamedTuple):
    """A folder and what is in it, sorted by name, without hidden entries and `__MACOSX`."""

    path: Path
    files: list[Path]
    folders: list[Path]


class Table(NamedTuple):
    """A CSV below the root.

    Attributes:
        path: the file, plain or packed.
        name: the CSV's name, in lower case and without suffix; of an archive, its own or one inside.
        rank: 0 plain, 1 packed, 2 an archive that is damaged or does not hold exactly one CSV.
    """

    path: Path
    name: str
    rank: int


def walk(root: Path, depth: int = DEPTH) -> Iterator[Folder]:
    """Folders from the root downwards, level by level, without going into trees of images.

    Raises:
        DataError: a folder cannot be read.
    """
    level = [root]
    for _ in range(depth + 1):
        below: list[Path] = []
        for path in level:
            folder = contents(path, CROWD)
            yield folder
            below += [f for f in folder.folders if f.name.lower() not in LEAVES]
        level = below


def contents(path: Path, crowd: int | None = None) -> Folder:
    """What is in a folder; one that is missing, or that has more entries than `crowd`, counts as empty.

    Raises:
        DataError: the folder cannot be read.
    """
    files: list[Path] = []
    folders: list[Path] = []
    try:
        with os.scandir(path) as entries:
            for count, entry in enumerate(entries):
                if count == crowd:
                    return Folder(path, [], [])
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    (folders if entry.is_dir() else files).append(path / entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise unreadable(path, error) from error
    return Folder(path, sorted(files), sorted(folders))


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, sorted by name."""
    return [p for p in contents(folder).files if p.suffix.lower() in IMAGES]


def subfolders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted by name."""
    return contents(folder).folders


def unwrapped(folder: Path) -> Path:
    """A folder, or the one of the same name in it: some archives nest it in itself."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def image_folder(base: Path, name: str) -> Path | None:
    """The first folder of that name, in lower case, below another one that holds images; or none."""
    found = [unwrapped(f) for folder in walk(base, 2) for f in folder.folders if f.name.lower() == name]
    return next((place for place in found if images_in(place)), None)


def class_folders(path: Path, codes: Mapping[int, str], remedy: str) -> list[tuple[Path, str]]:
    """The images of a folder with one folder a class, each with its emotion.

    Raises:
        DataError: there are no class folders, one has an unknown name, or one holds no images.
    """
    folders = subfolders(path)
    if not folders:
        raise DataError("the folder holds no class folders", file=path, remedy=remedy)
    faces: list[tuple[Path, str]] = []
    for folder in folders:
        emotion = FOLDER_NAMES.get(folder.name.lower())
        if emotion is None:
            raise DataError(
                f"the class folder's name is unknown; known are {', '.join(codes.values())}",
                file=folder,
                remedy="rename the folder, or take it away",
            )
        images = images_in(folder)
        if not images:
            raise DataError(
                "the class folder holds no images",
                file=folder,
                remedy="unpack the data set again, or delete the folder to go on without the class",
            )
        faces += [(image, emotion) for image in images]
    return faces


def below(path: Path, root: Path) -> str:
    """A path as it stands below the root, with forward slashes."""
    return path.relative_to(root).as_posix()


def named_folders(root: Path, pattern: str) -> list[Path]:
    """Folders below the root whose name, in lower case, matches a pattern."""
    return [
        f for folder in walk(root, DEPTH - 1) for f in folder.folders if re.fullmatch(pattern, f.name.lower())
    ]


def find_tables(root: Path) -> list[Table]:
    """CSV files below the root, plain or packed; plain ones first, then by level and name."""
    tables = [table for folder in walk(root) for path in folder.files for table in _tables(path)]
    return sorted(tables, key=lambda table: table.rank)


def _tables(path: Path) -> Iterator[Table]:
    name = path.name.lower()
    suffix = next((s for s in PACKED if name.endswith(s)), None)
    if suffix is None:
        return
    stem = name.removesuffix(suffix).removesuffix(".csv")
    if suffix in (".csv", ".csv.gz"):
        yield Table(path, stem, int(suffix != ".csv"))
        return
    try:
        inside = [Path(name).stem.lower() for name in names_inside(path)]
    except Exception:  # it is damaged, which its reader will say, if its name makes it one of ours
        inside = []
    rank = 1 if len(inside) == 1 else 2
    for each in dict.fromkeys([stem, *inside]):
        yield Table(path, each, rank)


def face_table(
    emotions: Sequence[str],
    origins: Sequence[str],
    subjects: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The table of a `FaceSource`; subject and split are missing where they are not given."""
    values = {"emotion": emotions, "subject": subjects, "split": splits, "origin": origins}
    return pd.DataFrame({name: values[name] for name in COLUMNS}, dtype=object)


def read_pixel_csv(
    path: Path, root: Path, codes: Mapping[int, str], *, name: str, layout: str, usage_needed: bool = True
) -> FaceSource:
    """Read a CSV with `emotion`, `pixels` and `Usage`, whose images are 48×48 and cropped.

    Args:
        path: the file, plain or packed.
        root: for the `origin` column.
        codes: the emotion codes of the data set.
        name: of the data set.
        layout: in words.
        usage_needed: whether Usage must be there; if it need not and is not, every row is for training.

    Raises:
        DataError: as `read_pixels`; or Usage is missing, or is none of Training, PublicTest and PrivateTest.
    """
    table = read_pixels(path, codes)
    if table.usage is None and usage_needed:
        raise DataError(
            "the column `Usage` is missing",
            file=path,
            row=1,
            remedy="use the file with the columns emotion, pixels and Usage, which tells the splits apart",
        )
    usage = ["Training"] * len(table.codes) if table.usage is None else table.usage.tolist()
    for value, line in zip(usage, table.lines, strict=True):
        if value not in SPLIT_OF_USAGE:
            raise DataError(
                f"the Usage {value!r} is unknown; known are {', '.join(SPLIT_OF_USAGE)}",
                file=path,
                row=int(line),
                remedy="download the file again, or mend or delete this row",
            )
    where = below(path, root)
    faces = face_table(
        [codes[code] for code in table.codes.tolist()],
        [f"{where}:{line}" for line in table.lines],
        splits=[SPLIT_OF_USAGE[value] for value in usage],
    )
    return FaceSource(name, layout, faces, table.images, cropped=True, files=(path,))


def hold_out(emotions: Sequence[str], splits: list[str]) -> str:
    """Give every eighth training image of a class to validation, so that no choice needs the test split.

    Args:
        emotions: of the images, in an order that does not change.
        splits: of the images, without any validation; changed in place.

    Returns:
        What was done, as a note for the merged set.
    """
    seen: Counter[str] = Counter()
    for i, emotion in enumerate(emotions):
        if splits[i] == "train":
            seen[emotion] += 1
            if seen[emotion] % HELD_OUT == 0:
                splits[i] = "validation"
    count = splits.count("validation")
    return f"{count:,} training images, every eighth of a class, are the validation split"


def read_text(path: Path) -> str:
    """A text file, with bytes that are not UTF-8 replaced.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise unreadable(path, error) from error


def read_lines(path: Path, remedy: str) -> Iterator[tuple[int, str]]:
    """Lines of a text file that are not blank, stripped, with their numbers from 1.

    Raises:
        DataError: there is none, or the file cannot be read.
    """
    lines = read_text(path).split("\n")
    found = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise DataError("the file is empty", file=path, remedy=remedy)
    return iter(found)
