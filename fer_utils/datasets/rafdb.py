"""RAF-DB, basic emotions: 15,339 aligned faces of 100×100 (Li, Deng and Du, 2017)."""

import re
from pathlib import Path

from fer_utils.datasets import base
from fer_utils.datasets.base import FaceSource, ImageFiles, Reader, decode
from fer_utils.datasets.discover import Files, images_in, read_lines
from fer_utils.emotions import FOLDER_NAMES, RAFDB
from fer_utils.errors import DataError

LIST = "list_patition_label.txt"  # as its authors spell it
OURS = re.compile(r"(^|/)(raf|(train|test)_\d+_aligned)")  # paths of class folders
REMEDY = "unpack Image/aligned and EmoLabel of RAF-DB's basic part there, or delete the line"


def find(files: Files, root: Path) -> list[Path]:
    """The lists of labels, and class folders."""
    names = {*FOLDER_NAMES, *map(str, RAFDB)}
    lists = [file for file in files if file.name.lower() == LIST]
    return lists + base.class_trees(files, root, names, OURS.search)


def read(path: Path, files: Files, root: Path) -> FaceSource:
    """Read the list of labels and the aligned faces near it, or folders such as train/1 or test/surprise."""
    listed = path.is_file()
    rows = _read_list(path, files) if listed else base.read_class_tree(path, files, RAFDB)
    images, emotions, splits = zip(*rows, strict=True)
    table = base.face_table(emotions, images, root, splits=splits)
    notes = () if "validation" in splits else (f"it has no validation split: {base.hold_out(table)}",)
    layout, every = ("basic, aligned", (path, *images)) if listed else ("class folders", images)
    return FaceSource("rafdb", layout, table, ImageFiles(images), True, every, notes)


def _read_list(path: Path, files: Files) -> list[tuple[Path, str, str]]:
    faces = [image for image in images_in(files) if image.stem.lower().endswith("_aligned")]
    near = ([face for face in faces if face.is_relative_to(folder)] for folder in path.parents)
    present = {image.name.lower(): image for image in next(filter(None, near), [])}
    rows = []
    for line, text in read_lines(path, REMEDY):
        name, *codes = text.split()
        split, aligned = name.partition("_")[0], f"{Path(name).stem}_aligned{Path(name).suffix}"
        if split not in ("train", "test") or len(codes) != 1:
            problem = f"the line is {text[:60]!r}, expected one such as 'train_00001.jpg 5'"
            raise DataError(problem, file=path, row=line, remedy=REMEDY)
        if aligned.lower() not in present:
            raise DataError(f"the image {aligned} is missing", file=path, row=line, remedy=REMEDY)
        rows.append((present[aligned.lower()], decode(codes[0], RAFDB, path, line), split))
    return rows


LICENCE = "non-commercial research, on request from a university address; no redistribution"
HOMEPAGE = "http://www.whdeng.cn/raf/model1.html"
HOW_TO_GET = "Ask its authors by e-mail as its page says, and unpack the basic part into RAF-DB/"
READER = Reader("rafdb", "RAF-DB (basic)", find, read, LICENCE, HOMEPAGE, HOW_TO_GET)
