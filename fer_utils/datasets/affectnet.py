"""AffectNet, manually annotated part: some 290,000 faces of 224×224 (Mollahosseini et al., 2017)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fer_utils.datasets.base import FaceSource, ImageFiles, Reader
from fer_utils.datasets.layouts import below, contents, face_table, images_in, named_folders, subfolders, walk
from fer_utils.emotions import AFFECTNET
from fer_utils.errors import DataError

SPLITS = {"train_set": "train", "val_set": "validation"}
REMEDY = "unpack train_set/ and val_set/ there, each with images/ and annotations/"


def find(root: Path) -> Path | None:
    """The folder below the root that holds train_set or val_set, or else one called AffectNet."""
    for folder in walk(root):
        if any(f.name.lower() in SPLITS for f in folder.folders):
            return folder.path
    return next(iter(named_folders(root, "affectnet.*")), None)


def read(path: Path, root: Path) -> FaceSource:
    """Read `train_set` and `val_set`: `images/N.jpg` with `annotations/N_exp.npy`.

    Raises:
        DataError: a folder, or an image that is annotated, is missing; a damaged annotation; a wrong code.
    """
    parts = [p for p in subfolders(path) if p.name.lower() in SPLITS]
    if not parts:
        raise DataError("the folder holds neither train_set nor val_set", file=path, remedy=REMEDY)
    images: list[Path] = []
    labels: list[Path] = []
    splits: list[str] = []
    notes = []
    for part in parts:
        for name in ("images", "annotations"):
            if not (part / name).is_dir():
                raise DataError(f"the folder {name} is missing", file=part, remedy=REMEDY)
        present = {image.stem: image for image in images_in(part / "images")}
        files = [p for p in contents(part / "annotations").files if p.name.endswith("_exp.npy")]
        if not files:
            raise DataError("there are no annotations N_exp.npy", file=part / "annotations", remedy=REMEDY)
        for file in files:
            stem = file.name.removesuffix("_exp.npy")
            if stem not in present:
                raise DataError(
                    f"its image {stem}.jpg is missing in {below(part / 'images', root)}",
                    file=file,
                    remedy="unpack the images again, or delete this file to go on without the image",
                )
            images.append(present[stem])
        labels += files
        splits += [SPLITS[part.name.lower()]] * len(files)
        if without := len(present) - len(files):
            notes.append(f"{without:,} images in {part.name} have no annotation and were left out")
    table = face_table(
        [_emotion(file) for file in labels], [below(image, root) for image in images], splits=splits
    )
    files_read = (*images, *labels)
    return FaceSource(
        "affectnet", "images and annotations", table, ImageFiles(images), True, files_read, tuple(notes)
    )


def _emotion(file: Path) -> str:
    remedy = "unpack the annotations again, or delete this file to go on without the image"
    try:
        value = np.asarray(np.load(file, allow_pickle=False))
    except Exception as error:  # NumPy's parser of headers lets errors of many kinds out
        raise DataError(f"the annotation cannot be read ({error})", file=file, remedy=remedy) from error
    text = str(value.item()).strip() if value.size == 1 else f"an array of {value.size}"
    if text not in map(str, AFFECTNET):
        known = ", ".join(f"{c} {n}" for c, n in AFFECTNET.items())
        raise DataError(f"the annotation is {text[:24]!r}, expected one of {known}", file=file, remedy=remedy)
    return AFFECTNET[int(text)]


READER = Reader(
    name="affectnet",
    title="AffectNet",
    find=find,
    read=read,
    licence="non-commercial research, on request by a principal investigator; no redistribution",
    homepage="http://mohammadmahoor.com/affectnet/",
    how_to_get="Ask its authors as its page says, and unpack train_set/ and val_set/ into AffectNet/",
)
