"""JAFFE: 213 posed images of ten Japanese women, 256×256 grey (Lyons et al., 1998)."""

import re
from pathlib import Path

from fer_utils.datasets.base import JPEG, FaceSource, ImageFiles, Reader, face_table
from fer_utils.datasets.discover import Files, images_in
from fer_utils.emotions import JAFFE
from fer_utils.errors import DataError

NAME = re.compile(r"([A-Z]{2}\.([A-Z]{2})\d*\.\d+)\.(tiff?(\.bmp)?|png|jpe?g|bmp)", re.IGNORECASE)


def find(files: Files, root: Path) -> list[Path]:
    """The folders with images named as JAFFE's."""
    return list(dict.fromkeys(file.parent for file in files if NAME.fullmatch(file.name)))


def read(path: Path, files: Files, root: Path) -> FaceSource:
    """Read a flat folder of images such as `KA.AN1.39.tiff`: subject, code and take, running number."""
    images: dict[str, Path] = {}
    everything = [image for image in images_in(files) if image.parent == path]
    # Where an image is there in several formats, the lossless one counts.
    for image in sorted(everything, key=lambda image: image.suffix.lower() in JPEG):
        match = NAME.fullmatch(image.name)
        if not match or match[2].upper() not in JAFFE:
            problem = "the file name does not give subject, emotion and number, as KA.AN1.39.tiff does"
            if match:
                problem = f"the emotion code {match[2]!r} is unknown; known are {', '.join(JAFFE)}"
            raise DataError(problem, file=image, remedy="give the file its original name, or take it away")
        images.setdefault(match[1].upper(), image)
    copies, kept = len(everything) - len(images), tuple(images.values())
    notes = (f"{copies} images are there in several file formats; each was read once",) if copies else ()
    emotions, subjects = [JAFFE[name[3:5]] for name in images], [name[:2] for name in images]
    table = face_table(emotions, kept, root, subjects)
    return FaceSource("jaffe", "flat folder", table, ImageFiles(kept), False, kept, notes)


LICENCE = "non-commercial research only; no redistribution, and no faces in print without permission"
HOMEPAGE = "https://zenodo.org/records/3451524"
HOW_TO_GET = "Ask for access on the Zenodo record 3451524 and unpack the images into jaffe/"
READER = Reader("jaffe", "JAFFE", find, read, LICENCE, HOMEPAGE, HOW_TO_GET, lossless=True)
