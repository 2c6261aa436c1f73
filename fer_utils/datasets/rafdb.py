"""RAF-DB, basic emotions: 15,339 aligned faces of 100×100 (Li, Deng and Du, 2017)."""

from __future__ import annotations

from pathlib import Path

from fer_utils.datasets.base import FaceSource, ImageFiles, Reader
from fer_utils.datasets.layouts import (
    below,
    face_table,
    hold_out,
    image_folder,
    images_in,
    named_folders,
    read_lines,
    walk,
)
from fer_utils.emotions import RAFDB
from fer_utils.errors import DataError

LIST = "list_patition_label.txt"  # as its authors spell it
REMEDY = "unpack Image/aligned and EmoLabel of RAF-DB's basic part there"


def find(root: Path) -> Path | None:
    """The list of labels below the root, or else a folder called RAF-DB."""
    lists = (f for folder in walk(root) for f in folder.files if f.name.lower() == LIST)
    return next(lists, None) or next(iter(named_folders(root, r"raf[-_ ]?db.*|raf")), None)


def read(path: Path, root: Path) -> FaceSource:
    """Read `EmoLabel/list_patition_label.txt` and the faces in `Image/aligned`.

    Raises:
        DataError: a bad line, or an image that is listed and missing.
    """
    if path.is_dir():
        raise DataError(f"the file {LIST} is missing", file=path, remedy=REMEDY)
    folder = _aligned(path, root)
    present = {image.name.lower(): image for image in images_in(folder)}
    images: list[Path] = []
    emotions: list[str] = []
    splits: list[str] = []
    for line, text in read_lines(path, REMEDY):
        name, *rest = text.split()
        part = name.partition("_")[0]
        if part not in ("train", "test") or len(rest) != 1 or rest[0] not in map(str, RAFDB):
            known = ", ".join(f"{c} {n}" for c, n in RAFDB.items())
            raise DataError(
                f"the line is {text[:60]!r}, expected one such as 'train_00001.jpg 5' with a code of {known}",
                file=path,
                row=line,
                remedy=REMEDY,
            )
        aligned = f"{Path(name).stem}_aligned{Path(name).suffix}"
        if aligned.lower() not in present:
            raise DataError(
                f"the image {aligned} is missing in {below(folder, root)}",
                file=path,
                row=line,
                remedy=f"{REMEDY}, or delete the line",
            )
        images.append(present[aligned.lower()])
        emotions.append(RAFDB[int(rest[0])])
        splits.append(part)
    note = f"its list knows no validation split: {hold_out(emotions, splits)}"
    table = face_table(emotions, [below(image, root) for image in images], splits=splits)
    return FaceSource("rafdb", "basic, aligned", table, ImageFiles(images), True, (path, *images), (note,))


def _aligned(path: Path, root: Path) -> Path:
    for base in (path.parent.parent, path.parent):
        if base.is_relative_to(root) and (folder := image_folder(base, "aligned")):
            return folder
    raise DataError("the folder Image/aligned is missing or empty", file=path, remedy=REMEDY)


READER = Reader(
    name="rafdb",
    title="RAF-DB (basic)",
    find=find,
    read=read,
    licence="non-commercial research, on request from a university address; no redistribution",
    homepage="http://www.whdeng.cn/raf/model1.html",
    how_to_get="Ask its authors by e-mail as its page says, and unpack the basic part into RAF-DB/",
)
