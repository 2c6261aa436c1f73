"""ExpW: 91,793 faces in photos found by web search, with their boxes (Zhang et al., 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_utils.datasets.base import FaceSource, Reader, read_grey
from fer_utils.datasets.layouts import (
    below,
    face_table,
    image_folder,
    images_in,
    named_folders,
    read_lines,
    walk,
)
from fer_utils.emotions import FER2013
from fer_utils.errors import DataError

REMEDY = "unpack the photos of ExpW to image/origin and label.lst to label there"

Box = tuple[int, int, int, int]  # top, left, right, bottom, in pixels, as the data set writes it


class Crops:
    """Faces cut from photos by their boxes when asked for, so that memory stays bounded."""

    def __init__(self, photos: Sequence[Path], boxes: Sequence[Box]) -> None:
        self.photos, self.boxes = list(photos), list(boxes)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, i: int, /) -> np.ndarray:
        top, left, right, bottom = self.boxes[i]
        face = read_grey(self.photos[i])[max(top, 0) : bottom, max(left, 0) : right]
        if not face.size:
            raise DataError(
                f"the box of the face (top {top}, left {left}) lies outside the photo",
                file=self.photos[i],
                remedy="replace the photo with an intact copy, or delete its lines in label.lst",
            )
        return face


def find(root: Path) -> Path | None:
    """The file label.lst below the root, or else a folder called ExpW."""
    lists = (f for folder in walk(root) for f in folder.files if f.name.lower() == "label.lst")
    return next(lists, None) or next(
        iter(named_folders(root, r"expw.*|expression[-_ ]in[-_ ]the[-_ ]wild")), None
    )


def read(path: Path, root: Path) -> FaceSource:
    """Read `label.lst`, with lines `name face_id top left right bottom confidence label`.

    The data set names no persons. The photo stands for the subject, so that faces of one photo stay in one
    split.

    Raises:
        DataError: a bad line, or a photo that is listed and missing.
    """
    if path.is_dir():
        raise DataError("the file label.lst is missing", file=path, remedy=REMEDY)
    present = _photos(path, root)
    photos: list[Path] = []
    boxes: list[Box] = []
    emotions: list[str] = []
    origins: list[str] = []
    for line, text in read_lines(path, REMEDY):
        name, box, emotion = _parse(path, line, text)
        if name not in present:
            raise DataError(
                f"the photo {name} is missing", file=path, row=line, remedy=f"{REMEDY}, or delete the line"
            )
        photos.append(present[name])
        boxes.append(box)
        emotions.append(emotion)
        origins.append(f"{below(path, root)}:{line}")
    table = face_table(emotions, origins, subjects=[photo.name for photo in photos])
    files = (path, *dict.fromkeys(photos))
    return FaceSource("expw", "photos and boxes", table, Crops(photos, boxes), True, files)


def _photos(path: Path, root: Path) -> dict[str, Path]:
    for base in (path.parent.parent, path.parent):
        for name in ("origin", "image", "images"):
            if base.is_relative_to(root) and (folder := image_folder(base, name)):
                return {photo.name: photo for photo in images_in(folder)}
    raise DataError("the folder image/origin is missing or empty", file=path, remedy=REMEDY)


def _parse(path: Path, line: int, text: str) -> tuple[str, Box, str]:
    fields = text.rsplit(maxsplit=7)  # a photo's name may have blanks
    try:
        name, _, top, left, right, bottom, _, code = fields
        box = int(top), int(left), int(right), int(bottom)
        emotion = FER2013[int(code)]
    except (ValueError, KeyError):
        known = ", ".join(f"{c} {n}" for c, n in FER2013.items())
        raise DataError(
            f"the line is {text[:60]!r}, expected 'name face_id top left right bottom confidence label' "
            f"with a label of {known}",
            file=path,
            row=line,
            remedy="download label.lst again, or delete the line",
        ) from None
    if box[3] <= box[0] or box[2] <= box[1]:
        raise DataError(
            f"the box is empty (top {box[0]}, left {box[1]}, right {box[2]}, bottom {box[3]})",
            file=path,
            row=line,
            remedy="download label.lst again, or delete the line",
        )
    return name, box, emotion


READER = Reader(
    name="expw",
    title="ExpW (Expression in the Wild)",
    find=find,
    read=read,
    licence="non-commercial research; no redistribution",
    homepage="http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html",
    how_to_get=(
        "Download it from its page and unpack the photos to ExpW/image/origin and label.lst to ExpW/label"
    ),
)
