"""FER+: ten new votes for each image of FER2013 (Barsoum et al., 2016, arXiv:1608.01041).

Its rows stand in the order of FER2013's rows. The number in `Image name` is not the row, and images that are
not faces have a blank name.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd

from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.layouts import SPLIT_OF_USAGE, find_tables
from fer_utils.datasets.tables import open_csv
from fer_utils.errors import DataError

VOTES = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "NF",
)
LAYOUTS = ("fer2013.csv", "icml_face_data.csv")  # forms of FER2013 with all rows in their order
HEADER = ("Usage", "Image name", *VOTES)
HOMEPAGE = "https://github.com/microsoft/FERPlus"
HOW_TO_GET = "Download fer2013new.csv from the project's page (MIT licence) and put it beside fer2013.csv"
REMEDY = "download fer2013new.csv again"


def find(root: Path) -> Path | None:
    """The file fer2013new.csv, plain or packed, anywhere below the root."""
    return next((table.path for table in find_tables(root) if table.name == "fer2013new"), None)


def read(path: Path, fer2013: FaceSource | None = None) -> pd.DataFrame:
    """Read the votes, one row an image of FER2013, in the order of its CSV.

    Args:
        path: what `find` gave.
        fer2013: FER2013, read from the CSV with all its rows, to check that they belong together.

    Returns:
        `usage` and `name` (strings; the name is blank where there is no face), and ten int64 columns of
        votes, `VOTES`, which mostly sum to 10.

    Raises:
        DataError: a damaged file, or one that does not fit to `fer2013`.
    """
    rows, lines = [], []
    with open_csv(path) as file:
        reader = csv.reader(io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline=""))
        try:
            header = [name.strip() for name in next(reader, [])]
            if header != list(HEADER):
                shown = ", ".join(header)[:80]
                raise DataError(
                    f"the header is {shown!r}, expected {', '.join(HEADER)}", file=path, row=1, remedy=REMEDY
                )
            for row in reader:
                if row:
                    rows.append(_row(path, reader.line_num, row))
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise DataError(str(error), file=path, row=reader.line_num, remedy=REMEDY) from error
    if not rows:
        raise DataError("there are no rows below the header", file=path, remedy=REMEDY)
    votes = pd.DataFrame(rows, columns=["usage", "name", *VOTES])
    if fer2013 is not None:
        _check(path, votes, lines, fer2013)
    return votes


def _row(path: Path, line: int, row: list[str]) -> list[str | int]:
    if len(row) != len(HEADER):
        problem = f"the row has {len(row)} fields, expected {len(HEADER)}"
    elif row[0].strip() not in SPLIT_OF_USAGE:
        problem = f"the Usage {row[0]!r} is unknown; known are {', '.join(SPLIT_OF_USAGE)}"
    elif bad := [vote for vote in row[2:] if not vote.strip().isdecimal() or int(vote) > 10]:
        problem = f"the vote {bad[0]!r} is not a whole number from 0 to 10"
    else:
        return [row[0].strip(), row[1].strip(), *map(int, row[2:])]
    raise DataError(problem, file=path, row=line, remedy=REMEDY)


def _check(path: Path, votes: pd.DataFrame, lines: list[int], fer2013: FaceSource) -> None:
    remedy = "use fer2013.csv or icml_face_data.csv with all its rows in their order, and fer2013new.csv"
    if fer2013.layout not in LAYOUTS:
        raise DataError(
            f"FER+ is joined by row, and FER2013 was read from {fer2013.layout}, where rows are missing or "
            "out of order",
            file=path,
            remedy=remedy,
        )
    if len(votes) != len(fer2013):
        raise DataError(
            f"FER+ has {len(votes):,} rows, FER2013 ({fer2013.layout}) has {len(fer2013):,}",
            file=path,
            remedy=remedy,
        )
    differs = votes["usage"].map(SPLIT_OF_USAGE).to_numpy(object) != fer2013.table["split"].to_numpy(object)
    if differs.any():
        row = int(differs.argmax())
        raise DataError(
            f"the Usage is {votes['usage'][row]}, but {fer2013.table['origin'][row]} is of the split "
            f"{fer2013.table['split'][row]}",
            file=path,
            row=lines[row],
            remedy=remedy,
        )
