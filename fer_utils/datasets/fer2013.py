"""FER2013: 35,887 grey faces of 48×48, found by web search (Goodfellow et al., 2013, arXiv:1307.0414).

Its official splits: Usage Training = train, PublicTest = validation, PrivateTest = test.
"""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress
from pathlib import Path

from PIL import Image

from fer_utils.datasets.base import SPLITS, FaceSource, ImageFiles, Reader
from fer_utils.datasets.layouts import (
    SPLIT_OF_USAGE,
    Folder,
    below,
    class_folders,
    face_table,
    find_tables,
    hold_out,
    named_folders,
    read_pixel_csv,
    subfolders,
    unwrapped,
    walk,
)
from fer_utils.datasets.pixels import read_header
from fer_utils.emotions import CLASSES, FER2013, FOLDER_NAMES
from fer_utils.errors import DataError

REMEDY = "put fer2013.csv, icml_face_data.csv, or train/ and test/ with a folder for each class there"
SIZE = (48, 48)
SPLIT_OF_FOLDER = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "publictest": "validation",
    "test": "test",
    "privatetest": "test",
}
# Folders of the same form that belong to other data sets.
OTHERS = re.compile(r"affect|raf|expw|jaffe|ck|cohn")
# Which layout is the best, if there are several; a damaged archive only where nothing else is.
OFFICIAL, ICML, FOLDERS, TRAIN, TEST, DAMAGED, EMPTY = range(7)
TABLES = {"fer2013": OFFICIAL, "icml_face_data": ICML, "train": TRAIN, "test": TEST}


def _candidates(root: Path) -> list[tuple[int, Path]]:
    """Whatever may be FER2013 below the root, best first, each with its layout."""
    found: list[tuple[int, Path]] = []
    for table in find_tables(root):
        kind = TABLES.get(table.name)
        if kind is None or (kind in (TRAIN, TEST) and (table.rank == 2 or not _is_ours(table.path, kind))):
            continue
        found.append((DAMAGED if table.rank == 2 else kind, table.path))
    found += [(FOLDERS, folder.path) for folder in walk(root) if _is_tree(folder, root)]
    if not found:
        # FER+ may lie in FER2013's folder by itself.
        homes = {table.path.parent for table in find_tables(root) if table.name == "fer2013new"}
        found = [(EMPTY, f) for f in named_folders(root, r"fer[-_ ]?2013") if f not in homes]
    best = sorted(found, key=lambda candidate: candidate[0])
    return list({path: (kind, path) for kind, path in reversed(best)}.values())[::-1]


def _is_ours(path: Path, kind: int) -> bool:
    """Whether a file with a name as common as train.csv or test.csv is FER2013's, as far as one can tell."""
    try:
        names = read_header(path)
    except DataError:
        return True
    return not names or (names == ["pixels"] if kind == TEST else bool({"emotion", "pixels"} & set(names)))


def _is_tree(folder: Folder, root: Path) -> bool:
    above = [part.lower() for part in folder.path.relative_to(root).parts]
    if any(OTHERS.match(part) for part in above) or (above and above[-1] in SPLIT_OF_FOLDER):
        return False
    return any(f.name.lower() in FOLDER_NAMES for part in _parts(folder.folders) for f in subfolders(part))


def _parts(folders: list[Path]) -> list[Path]:
    return [unwrapped(f) for f in folders if f.name.lower() in SPLIT_OF_FOLDER]


def find(root: Path) -> Path | None:
    """The best form of FER2013 below the root: fer2013.csv, icml_face_data.csv, class folders, train.csv."""
    return next((path for _, path in _candidates(root)), None)


def read(path: Path, root: Path) -> FaceSource:
    """Read any form of FER2013.

    Raises:
        DataError: a damaged file, an unknown code, class or Usage, no labels, or no images.
    """
    candidates = _candidates(root)
    kind = next((kind for kind, candidate in candidates if candidate == path), EMPTY)
    source = _read_folders(path, root) if path.is_dir() else _read_csv(path, root, kind)
    others = [below(other, root) for other_kind, other in candidates if other != path and other_kind != TEST]
    unlabelled = [below(other, root) for other_kind, other in candidates if other_kind == TEST]
    notes = [*source.notes]
    if absent := [split for split in SPLITS if split not in set(source.table["split"])]:
        notes.append(f"no images for {' and '.join(absent)}")
    if others:
        notes.append(f"also found and not read: {', '.join(others)}")
    if unlabelled:
        notes.append(f"not read, since it has no labels: {', '.join(unlabelled)}")
    return dataclasses.replace(source, notes=tuple(notes))


def _read_csv(path: Path, root: Path, kind: int) -> FaceSource:
    if kind == TEST:
        raise DataError(
            "the file has no labels: it is the challenge's test.csv",
            file=path,
            remedy="put fer2013.csv, icml_face_data.csv or train.csv beside it",
        )
    layout = {ICML: "icml_face_data.csv", TRAIN: "train.csv"}.get(kind, "fer2013.csv")
    return read_pixel_csv(path, root, FER2013, name="fer2013", layout=layout, usage_needed=kind != TRAIN)


def _read_folders(path: Path, root: Path) -> FaceSource:
    parts = _parts(subfolders(path))
    if not parts:
        raise DataError("the folder holds FER2013 in no known layout", file=path, remedy=REMEDY)
    faces = [
        (image, emotion, part) for part in parts for image, emotion in class_folders(part, FER2013, REMEDY)
    ]
    splits, undivided = [], 0
    for image, _, part in faces:
        usage = image.name.partition("_")[0]
        undivided += usage not in SPLIT_OF_USAGE and part.name.lower() == "test"
        splits.append(SPLIT_OF_USAGE.get(usage, SPLIT_OF_FOLDER[part.name.lower()]))
    emotions = [emotion for _, emotion, _ in faces]
    notes = []
    if undivided:
        notes.append(
            f"{undivided:,} images in test/ do not say by their names whether they are of the public or the "
            "private test set (together 7,178 images): all of them are the test split"
        )
        if "validation" not in splits:
            notes.append(f"so {hold_out(emotions, splits)}")
    if missing := sorted(set(CLASSES) - set(emotions)):
        notes.append(f"no images of {', '.join(missing)}")
    images = [image for image, *_ in faces]
    _check_size(path, faces)
    table = face_table(emotions, [below(image, root) for image in images], splits=splits)
    return FaceSource(
        "fer2013",
        "class folders",
        table,
        ImageFiles(images),
        True,
        tuple(images),
        tuple(notes),
        not undivided,
    )


def _check_size(path: Path, faces: list[tuple[Path, str, Path]]) -> None:
    """Refuse folders of another data set: the first image of each class and split tells."""
    first = {(emotion, part): image for image, emotion, part in reversed(faces)}
    sizes = set()
    for image in first.values():
        with suppress(OSError), Image.open(image) as opened:
            sizes.add(opened.size)
    if sizes and SIZE not in sizes:
        width, height = sorted(sizes)[0]
        raise DataError(
            f"FER2013's images are 48 by 48 pixels, and these are others ({width} by {height}, say)",
            file=path,
            remedy="is this another data set? Put it elsewhere, or below a folder with its name, and FER2013 "
            "as it was published here",
        )


READER = Reader(
    name="fer2013",
    title="FER2013",
    find=find,
    read=read,
    licence="for research, under the rules of the Kaggle challenge; the photos were found by web search",
    homepage=(
        "https://www.kaggle.com/c/challenges-in-representation-learning-facial-expression-recognition-challenge"
    ),
    how_to_get=(
        "Log in to Kaggle, accept the rules of the challenge, download its data and put fer2013.tar.gz or "
        "icml_face_data.csv into fer2013/; or let `fer fetch` do it with your Kaggle credentials"
    ),
)
