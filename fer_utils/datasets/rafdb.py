"""RAF-DB, basic emotions: 15,339 aligned faces of 100×100 (Li, Deng and Du, 2017)."""

from __future__ import annotations

from pathlib import Path

from fer_utils.datasets.base import FaceSource, ImageFiles, Reader, decode, face_table, hold_out
from fer_utils.datasets.discover import images_in, read_lines
from fer_utils.emotions import RAFDB
from fer_utils.errors import DataError

LIST = "list_patition_label.txt"  # as its authors spell it
REMEDY = "unpack Image/aligned and EmoLabel of RAF-DB's basic part there, or delete the line"


def find(files: list[Path], root: Path) -> list[Path]:
    """The lists of labels."""
    return [file for file in files if file.name.lower() == LIST]


def read(path: Path, files: list[Path], root: Path) -> FaceSource:
    """Read `EmoLabel/list_patition_label.txt` and the faces in `Image/aligned`."""
    present = {image.name.lower(): image for image in images_in(files, path.parents[1])}
    images, emotions, splits = [], [], []
    for line, text in read_lines(path, REMEDY):
        name, *codes = text.split()
        split, aligned = name.partition("_")[0], f"{Path(name).stem}_aligned{Path(name).suffix}"
        if split not in ("train", "test") or len(codes) != 1:
            problem = f"the line is {text[:60]!r}, expected one such as 'train_00001.jpg 5'"
            raise DataError(problem, file=path, row=line, remedy=REMEDY)
        if aligned.lower() not in present:
            raise DataError(f"the image {aligned} is missing", file=path, row=line, remedy=REMEDY)
        images.append(present[aligned.lower()])
        emotions.append(decode(codes[0], RAFDB, path, line))
        splits.append(split)
    table = face_table(emotions, images, root, splits=splits)
    note = f"its list knows no validation split: {hold_out(table)}"
    return FaceSource("rafdb", "basic, aligned", table, ImageFiles(images), True, (path, *images), (note,))


LICENCE = "non-commercial research, on request from a university address; no redistribution"
HOMEPAGE = "http://www.whdeng.cn/raf/model1.html"
HOW_TO_GET = "Ask its authors by e-mail as its page says, and unpack the basic part into RAF-DB/"
READER = Reader("rafdb", "RAF-DB (basic)", find, read, LICENCE, HOMEPAGE, HOW_TO_GET)
