"""AffectNet, manually annotated part: some 290,000 faces of 224×224 (Mollahosseini et al., 2017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fer_utils.datasets.base import MEND, FaceSource, ImageFiles, Reader, decode, face_table
from fer_utils.emotions import AFFECTNET
from fer_utils.errors import DataError

SPLITS = {"train_set": "train", "val_set": "validation"}
END = "_exp.npy"


def find(files: list[Path], root: Path) -> list[Path]:
    """The folders that hold train_set/annotations or val_set/annotations."""
    labels = [file for file in files if file.name.endswith(END) and file.parents[1].name.lower() in SPLITS]
    return list(dict.fromkeys(file.parents[2] for file in labels))


def read(path: Path, files: list[Path], root: Path) -> FaceSource:
    """Read `train_set` and `val_set`: `images/N.jpg` with `annotations/N_exp.npy`."""
    inside = [file for file in files if file.is_relative_to(path) and len(file.relative_to(path).parts) == 3]
    labels = [file for file in inside if file.name.endswith(END) and file.parents[1].name.lower() in SPLITS]
    images, splits = [], [SPLITS[file.parents[1].name.lower()] for file in labels]
    for file in labels:
        image = file.parents[1] / "images" / f"{file.name.removesuffix(END)}.jpg"
        if not image.is_file():
            raise DataError(f"its image images/{image.name} is missing", file=file, remedy=MEND)
        images.append(image)
    without = sum(file.parent.name == "images" for file in inside) - len(images)
    notes = (f"{without:,} images have no annotation and were left out",) if without else ()
    table = face_table([_emotion(file) for file in labels], images, root, splits=splits)
    every = (*images, *labels)
    return FaceSource("affectnet", "images and annotations", table, ImageFiles(images), True, every, notes)


def _emotion(file: Path) -> str:
    try:
        value = np.asarray(np.load(file, allow_pickle=False))
    except Exception as error:  # NumPy's parser of headers lets errors of many kinds out
        raise DataError(f"the annotation cannot be read ({error})", file=file, remedy=MEND) from error
    return decode(str(value.item()).strip() if value.size == 1 else f"array of {value.size}", AFFECTNET, file)


LICENCE = "non-commercial research, on request by a principal investigator; no redistribution"
HOMEPAGE = "http://mohammadmahoor.com/affectnet/"
HOW_TO_GET = "Ask its authors as its page says, and unpack train_set/ and val_set/ into AffectNet/"
READER = Reader("affectnet", "AffectNet", find, read, LICENCE, HOMEPAGE, HOW_TO_GET)
