"""AffectNet, manually annotated part: some 290,000 faces of 224×224 (Mollahosseini et al., 2017)."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.datasets import base
from fer_utils.datasets.base import MEND, FaceSource, ImageFiles, Reader, decode
from fer_utils.datasets.discover import Files, images_in, open_csv, tables_in
from fer_utils.emotions import AFFECTNET, FOLDER_NAMES
from fer_utils.errors import DataError

SPLITS = {"train_set": "train", "val_set": "validation"}
TABLES = {"training": "train", "validation": "validation"}
NO_EMOTION = ("none", "uncertain", "no face")
CODES = AFFECTNET | dict(enumerate(NO_EMOTION, len(AFFECTNET)))
END = "_exp.npy"
COLUMNS = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "expression"]


def find(files: Files, root: Path) -> list[Path]:
    """Folders with train_set/annotations or val_set/annotations, with training.csv, or with class folders."""
    labels = [file for file in files if file.name.endswith(END) and file.parents[1].name.lower() in SPLITS]
    names = {*FOLDER_NAMES, *map(str, CODES), *NO_EMOTION}
    trees = base.class_trees(files, root, names, re.compile(r"(^|/)affect").search)
    forms = [*(file.parents[2] for file in labels), *(path.parent for path in _lists(files)), *trees]
    return list(dict.fromkeys(forms))


def _lists(files: Files) -> dict[Path, str]:
    """The tables of annotations among some files, with the split of each."""
    lists = {}
    for table in tables_in(files):
        if table.name in TABLES:
            with suppress(DataError), open_csv(table.path) as file:
                if COLUMNS[0].encode() in file.readline(1 << 16):
                    lists[table.path] = TABLES[table.name]
    return lists


def read(path: Path, files: Files, root: Path) -> FaceSource:
    """Read a folder that `find` gives; what shows no face or no emotion of the eight is left out."""
    labels = [file for file in files if file.name.endswith(END) and file.parents[2] == path]
    lists = {table: split for table, split in _lists(files).items() if table.parent == path}
    notes = []
    if labels:
        layout, rows = "images and annotations", [_annotated(file) for file in labels]
        present = [i for i in files if i.parent.name == "images" and i.parents[2] == path]
        if without := len(present) - len(rows):
            notes.append(f"{without:,} images have no annotation and were left out")
    elif lists:
        layout, rows, labels = "CSV of annotations", _listed(lists, files), list(lists)
    else:
        layout, rows = "class folders", base.read_class_tree(path, files, CODES)
    kept = [row for row in rows if row[1] not in NO_EMOTION]
    if left := len(rows) - len(kept):
        notes.append(f"{left:,} images show no face or none of the eight emotions and were left out")
    if not kept:
        raise DataError("it has no image of an emotion", file=path, remedy="download it again")
    images, emotions, splits, *more = map(list, zip(*kept, strict=True))
    table = base.face_table(emotions, images, root, splits=splits)
    faces = ImageFiles(images, *more)
    return FaceSource("affectnet", layout, table, faces, True, (*images, *labels), tuple(notes))


def _annotated(file: Path) -> tuple[Path, str, str]:
    """Image, emotion and split of `annotations/N_exp.npy`."""
    image = file.parents[1] / "images" / f"{file.name.removesuffix(END)}.jpg"
    if not image.is_file():
        raise DataError(f"its image images/{image.name} is missing", file=file, remedy=MEND)
    try:
        value = np.asarray(np.load(file, allow_pickle=False))
        code = str(value.item()).strip() if value.size == 1 else f"array of {value.size}"
    except Exception as error:  # NumPy's parser of headers lets errors of many kinds out
        raise DataError(f"the annotation cannot be read ({error})", file=file, remedy=MEND) from error
    return image, decode(code, CODES, file), SPLITS[file.parents[1].name.lower()]


def _listed(lists: dict[Path, str], files: Files) -> list[tuple[Path, str, str, base.Box]]:
    """Image, emotion, split and box of the face for each line of tables."""
    present, rows = {image.parts[-2:]: image for image in images_in(files)}, []
    for path, split in lists.items():
        with open_csv(path) as file:
            table = pd.read_csv(file, usecols=COLUMNS, dtype=str, keep_default_na=False)[COLUMNS]
        for line, (name, *box, code) in enumerate(table.itertuples(index=False), 2):
            image = present.get(Path(name).parts[-2:])
            if image is None or not all(number.isdecimal() for number in box):
                problem = f"there is no image {name[:80]}, or no box of a face: {', '.join(box)[:80]}"
                raise DataError(problem, file=path, row=line, remedy=MEND)
            left, top, width, height = map(int, box)
            rows.append(
                (image, decode(code, CODES, path, line), split, (top, left, left + width, top + height))
            )
    return rows


LICENCE = "non-commercial research, on request by a principal investigator; no redistribution"
HOMEPAGE = "http://mohammadmahoor.com/affectnet/"
HOW_TO_GET = "Ask its authors as its page says, and unpack train_set/ and val_set/ into AffectNet/"
READER = Reader("affectnet", "AffectNet", find, read, LICENCE, HOMEPAGE, HOW_TO_GET)
