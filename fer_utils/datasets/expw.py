"""ExpW: 91,793 faces in photos found by web search, with their boxes (Zhang et al., 2015)."""

from pathlib import Path

from fer_utils.datasets.base import FaceSource, ImageFiles, Reader, decode, face_table
from fer_utils.datasets.discover import Files, images_in, read_lines
from fer_utils.emotions import FER2013
from fer_utils.errors import DataError

FOLDERS = ("origin", "image", "images")
REMEDY = "unpack the photos of ExpW to image/origin and label.lst to label there, or delete the line"


def find(files: Files, root: Path) -> list[Path]:
    """The files label.lst."""
    return [file for file in files if file.name.lower() == "label.lst"]


def read(path: Path, files: Files, root: Path) -> FaceSource:
    """Read `label.lst`, with lines `name face_id top left right bottom confidence label`.

    The photo stands for the subject, whom nothing names, so that faces of one photo stay in one split.
    """
    near = images_in(files, path.parents[1])
    present = {photo.name: photo for photo in near if photo.parent.name.lower() in FOLDERS}
    photos, boxes, emotions, origins = [], [], [], []
    for line, text in read_lines(path, REMEDY):
        name, *fields = text.rsplit(maxsplit=7)  # a photo's name may have blanks
        try:
            _, top, left, right, bottom, _, code = fields
            box = int(top), int(left), int(right), int(bottom)
        except ValueError:
            problem = (
                f"the line is {text[:60]!r}, expected name, id, top, left, right, bottom, confidence, label"
            )
            raise DataError(problem, file=path, row=line, remedy=REMEDY) from None
        if box[3] <= box[0] or box[2] <= box[1]:
            raise DataError(f"the box {box} of the face is empty", file=path, row=line, remedy=REMEDY)
        if name not in present:
            raise DataError(f"the photo {name} is missing", file=path, row=line, remedy=REMEDY)
        photos.append(present[name])
        boxes.append(box)
        emotions.append(decode(code, FER2013, path, line))
        origins.append(f"{path.relative_to(root).as_posix()}:{line}")
    table = face_table(emotions, origins, root, [photo.name for photo in photos])
    every = (path, *dict.fromkeys(photos))
    return FaceSource("expw", "photos and boxes", table, ImageFiles(photos, boxes), True, every)


LICENCE = "non-commercial research; no redistribution"
HOMEPAGE = "http://mmlab.ie.cuhk.edu.hk/projects/socialrelation/index.html"
HOW_TO_GET = "Download it from its page, the photos to ExpW/image/origin and label.lst to ExpW/label"
READER = Reader("expw", "ExpW (Expression in the Wild)", find, read, LICENCE, HOMEPAGE, HOW_TO_GET)
