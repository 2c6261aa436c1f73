"""FER+: ten people's votes for each image of FER2013 (Barsoum et al., 2016, arXiv:1608.01041).

Exact copies of an image carry the same votes: people were asked about each picture once, not about each row.
Its rows stand in the order of FER2013's rows. The number in `Image name` is not the row, and images that are
not faces have a blank name.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.discover import files_below, open_csv, tables_in
from fer_utils.datasets.fer2013 import SPLIT_OF_USAGE
from fer_utils.errors import DataError

VOTES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
VOTES += ("unknown", "NF")  # not known, no face
LAYOUTS = ("fer2013.csv", "icml_face_data.csv")  # forms of FER2013 with all rows in their order
HEADER = ("Usage", "Image name", *VOTES)
TITLE, LICENCE, HOMEPAGE = "FER+ (votes on FER2013)", "MIT", "https://github.com/microsoft/FERPlus"
HOW_TO_GET = "Download fer2013new.csv from the project's page (MIT licence) and put it beside fer2013.csv"
REMEDY = "download fer2013new.csv again, and use fer2013.csv or icml_face_data.csv with all rows in order"


def find(root: Path) -> Path | None:
    """The file fer2013new.csv, plain or packed, anywhere below the root."""
    return next((t.path for t in tables_in(files_below(root)) if t.name == "fer2013new"), None)


def read(path: Path, fer2013: FaceSource | None = None) -> pd.DataFrame:
    """Read the votes, one row an image of FER2013, in the order of its CSV.

    Columns: `usage` and `name` (strings; the name is blank where there is no face), and ten of votes, `VOTES`
    (int64, which mostly sum to 10). A `DataError` names damage, or the row that does not fit to `fer2013`.
    """
    how = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False, "skipinitialspace": True}
    with open_csv(path) as file:
        votes = pd.read_csv(file, encoding="utf-8-sig", encoding_errors="replace", **how)
    if list(votes.columns) != list(HEADER):
        problem = f"the header is {', '.join(votes.columns)[:80]!r}, expected {', '.join(HEADER)}"
        raise DataError(problem, file=path, row=1, remedy=REMEDY)
    votes = (
        votes.fillna("").set_axis(["usage", "name", *VOTES], axis=1).set_index(np.arange(2, len(votes) + 2))
    )
    votes = votes[(votes != "").any(axis=1)]
    counts = [str(count) for count in range(11)]
    for columns, known in ((["usage"], list(SPLIT_OF_USAGE)), (list(VOTES), counts)):
        wrong = ~votes[columns].isin(known)
        if wrong.any(axis=None):
            line = wrong.any(axis=1).idxmax()
            column = wrong.loc[line].idxmax()
            problem = f"{column} is {votes[column][line][:24]!r}, expected one of {', '.join(known)}"
            raise DataError(problem, file=path, row=int(line), remedy=REMEDY)
    if votes.empty:
        raise DataError("there are no rows below the header", file=path, remedy=REMEDY)
    if fer2013 is not None:
        _check(path, votes, fer2013)
    return votes.astype(dict.fromkeys(VOTES, np.int64)).reset_index(drop=True)


def _check(path: Path, votes: pd.DataFrame, fer2013: FaceSource) -> None:
    """Refuse votes that cannot be joined to FER2013 row by row; their index is the line in the file."""
    row, problem = None, ""
    if fer2013.layout not in LAYOUTS:
        problem = f"FER+ is joined by row; FER2013 was read from {fer2013.layout}, without all rows in order"
    elif len(votes) != len(fer2013):
        problem = f"FER+ has {len(votes):,} rows, FER2013 ({fer2013.layout}) has {len(fer2013):,}"
    elif (differs := votes["usage"].map(SPLIT_OF_USAGE).ne(fer2013.table["split"].tolist())).any():
        row, face = int(differs.idxmax()), fer2013.table[differs.tolist()].iloc[0]
        problem = f"the Usage is {votes['usage'][row]}, but {face['origin']} is of the split {face['split']}"
    if problem:
        raise DataError(problem, file=path, row=row, remedy=REMEDY)
