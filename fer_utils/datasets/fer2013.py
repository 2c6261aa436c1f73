"""FER2013: 35,887 grey faces of 48×48, collected by web search (Goodfellow et al., 2013, arXiv:1307.0414).

Its official splits: Usage Training = train, PublicTest = validation, PrivateTest = test.
"""

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd

from fer_utils.datasets import base
from fer_utils.datasets.base import MEND, FaceSource, ImageFiles, StoredImages, face_table
from fer_utils.datasets.discover import Files, Table, open_csv, tables_in
from fer_utils.emotions import FER2013, FOLDER_NAMES
from fer_utils.errors import DataError
from fer_utils.files import atomic_path

SIZE = 48
LINE = 1 << 20  # bytes, beyond which no row goes
FORMS = ("fer2013", "icml_face_data", "class folders", "train", "test")  # the best first
SPLIT_OF_USAGE: Mapping[str, str] = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
OFFICIAL = pd.DataFrame(  # images as published
    {
        "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
        "validation": (467, 56, 496, 895, 653, 415, 607),
        "test": (491, 55, 528, 879, 594, 416, 626),
    },
    index=list(FER2013.values()),
)
SWAPPED = 5  # images of a class: copies of the official splits differ by less, other splits by more
# Class folders of other data sets.
OTHERS = re.compile(r"(^|/)(affect|raf|expw|jaffe|ck|cohn|(train|test)_\d+_aligned)")
CHALLENGE = "challenges-in-representation-learning-facial-expression-recognition-challenge"


def find(files: Files, root: Path) -> list[Path]:
    """Every form of FER2013; damaged archives last."""
    tables = [table for table in tables_in(files) if _is_ours(table)]
    forms = [(9 * (table.rank == 2) + FORMS.index(table.name), table.path) for table in tables]
    trees = base.class_trees(files, root, FOLDER_NAMES, lambda path: not OTHERS.search(path))
    forms += [(2, tree) for tree in trees]
    return list(dict.fromkeys(path for _, path in sorted(forms, key=lambda form: form[0])))


def _is_ours(table: Table) -> bool:
    """Whether a CSV is FER2013's: train.csv and test.csv are common names, so that their header tells."""
    if table.name in ("train", "test"):
        with suppress(DataError), open_csv(table.path) as file:
            return "pixels" in _header(file)
    return table.name in FORMS[:2]


def read(path: Path, files: Files, root: Path) -> FaceSource:
    """Read any form of FER2013, and say in what its splits differ from the official ones."""
    tree = path.is_dir()
    source = _read_tree(path, files, root) if tree else read_pixel_csv(path, root, FER2013, "fer2013")
    counts = pd.crosstab(source.table["emotion"], source.table["split"])
    counts = counts.reindex_like(OFFICIAL).fillna(0).astype(int)
    differs, own = [], source.own_splits
    for split, wanted in OFFICIAL.items():
        found, all_found, all_wanted = counts[split], counts[split].sum(), wanted.sum()
        if all_found != all_wanted:
            differs.append(f"{split} {all_found:,} ({all_wanted:,})")
        else:
            differs += [f"{split} {c} {found[c]:,} ({n:,})" for c, n in wanted.items() if found[c] != n]
        own = own and all_found == all_wanted and (found - wanted).abs().max() < SWAPPED
    words = f"{'nearly' if own else 'not'} the official splits, whose numbers are in brackets"
    notes = (f"{words}: {', '.join(differs)}",) if differs else ()
    return replace(source, notes=source.notes + notes, own_splits=bool(own))


def read_pixel_csv(path: Path, root: Path, codes: Mapping[int, str], name: str) -> FaceSource:
    """Read a CSV file, plain or packed, with `emotion`, `pixels` of 48×48 and, but for train.csv, `Usage`.

    A `DataError` names the line: missing columns, wrong pixels, an unknown code or Usage, a row cut short.
    """
    images, emotions, splits, origins = StoredImages(SIZE), [], [], []
    where = path.relative_to(root).as_posix()
    with open_csv(path) as file:
        names = _header(file)
        if missing := [column for column in ("pixels", "emotion") if names.count(column) != 1]:
            problem = f"there is not one column `{missing[0]}`; the header is {', '.join(names)[:80]!r}"
            if names == ["pixels"]:
                problem = "the file has no labels: it is the challenge's test.csv"
            raise DataError(problem, file=path, row=1, remedy="use the file with emotion, pixels and Usage")
        for line, row in enumerate(iter(lambda: file.readline(LINE), b""), 2):
            if row.isspace():
                continue
            values = [value.strip().strip(b'"') for value in row.split(b",")]
            if len(values) != len(names):
                problem = f"the row has {len(values)} fields, the header has {len(names)}"
                raise DataError(problem, file=path, row=line, remedy=MEND)
            fields = dict(zip(names, values, strict=True))
            usage = fields.get("usage", b"Training").decode("utf-8", "replace")
            if usage not in SPLIT_OF_USAGE:
                problem = f"the Usage {usage[:24]!r} is unknown; known are {', '.join(SPLIT_OF_USAGE)}"
                raise DataError(problem, file=path, row=line, remedy=MEND)
            emotions.append(base.decode(fields["emotion"].decode("utf-8", "replace"), codes, path, line))
            splits.append(SPLIT_OF_USAGE[usage])
            origins.append(f"{where}:{line}")
            images.append(_pixels(fields["pixels"], path, line))
    if not emotions:
        raise DataError("there are no rows below the header", file=path, remedy="download it again")
    notes = () if "usage" in names else ("no images for validation and test",)
    layout = "train.csv" if notes else "icml_face_data.csv" if names[-1] == "pixels" else "fer2013.csv"
    table = face_table(emotions, origins, root, splits=splits)
    return FaceSource(name, layout, table, images, True, (path,), notes)


def _header(file: IO[bytes]) -> list[str]:
    """Column names, without the blanks around them and in lower case."""
    names = file.readline(LINE).decode("utf-8-sig", "replace").split(",")
    return [name.strip(' "\t\r\n').lower() for name in names]


def _pixels(text: bytes, path: Path, line: int) -> bytes:
    """The pixels of one row, a byte each."""
    values = np.zeros(0, np.int64)
    if not (odd := text.translate(None, b"0123456789 \t")):
        values = np.fromstring(text, np.int64, sep=" ")  # much faster than Python's own `int`
    if odd:
        number, part = next((i, p) for i, p in enumerate(text.split(), 1) if not p.isdigit())
        problem = f"pixel {number} is {part[:24].decode('utf-8', 'replace')!r}"
    elif len(values) != SIZE * SIZE:
        problem = f"the row has {len(values)} pixels, expected {SIZE * SIZE}"
    elif values.max() > 255:
        problem = f"pixel {values.argmax() + 1} is {values.max()}"
    else:
        return values.astype(np.uint8).tobytes()
    raise DataError(f"{problem}, expected whole numbers from 0 to 255", file=path, row=line, remedy=MEND)


def _read_tree(path: Path, files: Files, root: Path) -> FaceSource:
    images, emotions, splits = map(list, zip(*base.read_class_tree(path, files), strict=True))
    usages = [image.name.partition("_")[0] for image in images]  # the true split, where names still carry it
    splits = [SPLIT_OF_USAGE.get(usage, split) for usage, split in zip(usages, splits, strict=True)]
    if (shape := base.read_grey(images[0]).shape) != (SIZE, SIZE):
        problem = f"FER2013's images are of 48 by 48 pixels, and this one is of {shape[1]} by {shape[0]}"
        remedy = "is it another data set? Put it elsewhere, or below a folder with its name"
        raise DataError(problem, file=images[0], remedy=remedy)
    if "contempt" in emotions:
        problem = "FER2013 has no class contempt: these folders have other labels, such as FER+'s majority"
        remedy = "bring FER2013 with its own labels, and fer2013new.csv for the votes of FER+"
        raise DataError(problem, file=images[emotions.index("contempt")].parent, remedy=remedy)
    table, notes = face_table(emotions, images, root, splits=splits), ()
    if "test" in splits and "validation" not in splits:
        notes = (
            f"{splits.count('test'):,} images in test/ do not say by their names whether they are of the "
            "public or the private test set (together 7,178 images): all of them are the test split",
            f"so {base.hold_out(table)}",
        )
    return FaceSource("fer2013", "class folders", table, ImageFiles(images), True, tuple(images), notes)


def fetch(root: Path) -> None:
    """Download FER2013 from its Kaggle challenge into `root/fer2013`, with the user's own credentials."""
    try:
        import kagglehub

        download = kagglehub.competition_download(CHALLENGE)
    except Exception as error:  # kagglehub passes errors of many kinds on
        remedy = f"pip install kagglehub, put your API token into ~/.kaggle, and accept {HOMEPAGE}/rules"
        raise DataError(f"Kaggle did not give the data ({error})", remedy=remedy) from error
    shutil.copytree(download, root / "fer2013", copy_function=_copy, dirs_exist_ok=True)


def _copy(source: str, target: str) -> None:
    with atomic_path(Path(target)) as aside:
        shutil.copyfile(source, aside)


LICENCE = "for research, under the rules of the Kaggle challenge; the photos were found by web search"
HOMEPAGE = f"https://www.kaggle.com/c/{CHALLENGE}"
HOW_TO_GET = (
    "Log in to Kaggle, accept the rules of the challenge, download its data and put fer2013.tar.gz or "
    "icml_face_data.csv into fer2013/; or let `fer data --fetch` do it with your Kaggle credentials"
)
READER = base.Reader("fer2013", "FER2013", find, read, LICENCE, HOMEPAGE, HOW_TO_GET, lossless=True)
