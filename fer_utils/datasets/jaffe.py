"""JAFFE: 213 posed images of ten Japanese women, 256×256 grey (Lyons et al., 1998)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fer_utils.datasets.base import FaceSource, ImageFiles, Reader
from fer_utils.datasets.layouts import below, face_table, images_in, named_folders, walk
from fer_utils.emotions import JAFFE
from fer_utils.errors import DataError

PATTERN = re.compile(r"([A-Z]{2})\.([A-Z]{2})\d*\.(\d+)\.(tiff?(\.bmp)?|png|jpe?g|bmp)", re.IGNORECASE)

LOSSY = (".jpg", ".jpeg")


def _candidates(root: Path) -> Iterator[Path]:
    for folder in walk(root):
        if any(PATTERN.fullmatch(file.name) for file in folder.files):
            yield folder.path


def find(root: Path) -> Path | None:
    """The first folder below the root with images named as JAFFE's, or else a folder called jaffe."""
    return next(_candidates(root), None) or next(iter(named_folders(root, "jaffe.*")), None)


def read(path: Path, root: Path) -> FaceSource:
    """Read a flat folder of images such as `KA.AN1.39.tiff`: subject, code and take, running number.

    Raises:
        DataError: no images, or an image's name that does not follow the pattern.
    """
    images: dict[tuple[str, str, str], Path] = {}
    copies = 0
    # Where an image is there in several formats, the lossless one counts.
    for image in sorted(images_in(path), key=lambda image: image.suffix.lower() in LOSSY):
        match = PATTERN.fullmatch(image.name)
        if not match or match[2].upper() not in JAFFE:
            codes = ", ".join(JAFFE)
            raise DataError(
                "the file name does not tell subject, emotion and number, as KA.AN1.39.tiff does"
                if not match
                else f"the emotion code {match[2]!r} is unknown; known are {codes}",
                file=image,
                remedy="give the file its original name, or take it away",
            )
        subject, take, number, _ = image.name.upper().split(".", 3)
        key = subject, take, number
        copies += key in images
        images.setdefault(key, image)
    if not images:
        raise DataError(
            "the folder holds no images",
            file=path,
            remedy="put the images into it as they come, KA.AN1.39.tiff and so on",
        )
    notes = []
    if copies:
        notes.append(f"{copies} images are there in several file formats; each was read once")
    if others := [below(other, root) for other in _candidates(root) if other != path]:
        notes.append(f"also found and not read: {', '.join(others)}")
    table = face_table(
        [JAFFE[take[:2]] for _, take, _ in images],
        [below(image, root) for image in images.values()],
        subjects=[subject for subject, *_ in images],
    )
    files = tuple(images.values())
    return FaceSource("jaffe", "flat folder", table, ImageFiles(files), False, files, tuple(notes))


READER = Reader(
    name="jaffe",
    title="JAFFE",
    find=find,
    read=read,
    licence="non-commercial research only; no redistribution, and no faces in print without permission",
    homepage="https://zenodo.org/records/3451524",
    how_to_get="Ask for access on the Zenodo record 3451524 and unpack the images into jaffe/",
)
