"""Fetching Kaggle's copy of FER2013 with the user's own credentials, when asked to."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fer_utils.datasets import fer2013
from fer_utils.datasets.layouts import find_tables
from fer_utils.datasets.tables import open_csv
from fer_utils.errors import DataError

CHALLENGE = "challenges-in-representation-learning-facial-expression-recognition-challenge"
# MD5 of the CSVs as Kaggle gives them, best first; torchvision checks the same ones.
CHECKSUMS = {
    "fer2013": "f8428a1edbd21e88f42c73edd2a14f95",
    "icml_face_data": "b114b9e04e6949e5fe8b6a98b3892b1d",
    "train": "3f0dfb3d3fd99c811a1299cb947e3131",
}
CHUNK = 1 << 20


def fetch_fer2013(root: Path) -> Path:
    """Fetch FER2013 from its Kaggle challenge with kagglehub and put its CSV into `root/fer2013`.

    A copy that is there already is left alone. kagglehub takes the credentials from `~/.kaggle` or from the
    environment, and keeps its own download in its cache.

    Returns:
        The CSV.

    Raises:
        DataError: kagglehub is not installed, Kaggle refuses, or the file is not the one that is known.
    """
    folder = Path(root) / "fer2013"
    for name in CHECKSUMS:
        if (folder / f"{name}.csv").is_file():
            return folder / f"{name}.csv"
    try:
        import kagglehub
    except ImportError:
        raise DataError(
            "kagglehub is not installed", remedy="run `pip install kagglehub`, or `pip install .[kaggle]`"
        ) from None
    try:
        download = Path(kagglehub.competition_download(CHALLENGE))
    except Exception as error:  # kagglehub has errors of its own, and passes those of its HTTP library on
        raise DataError(
            f"Kaggle did not give the data ({type(error).__name__}: {error})",
            remedy=(
                "put your API token into ~/.kaggle/kaggle.json or into KAGGLE_USERNAME and KAGGLE_KEY, and "
                f"accept the rules once, logged in, at {fer2013.READER.homepage}/rules"
            ),
        ) from error
    tables = {table.name: table.path for table in reversed(find_tables(download)) if table.rank < 2}
    name = next((name for name in CHECKSUMS if name in tables), None)
    if name is None:
        raise DataError(
            "the download holds none of fer2013.csv, icml_face_data.csv and train.csv",
            file=download,
            remedy="delete this folder and fetch again",
        )
    return _copy_checked(tables[name], folder / f"{name}.csv", CHECKSUMS[name])


def _copy_checked(source: Path, target: Path, expected: str) -> Path:
    """Copy a CSV, unpacked, under its name if its checksum is right; else leave nothing behind."""
    created = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open_csv(source) as packed, aside.open("wb") as file:
            while data := packed.read(CHUNK):
                digest.update(data)
                file.write(data)
        if digest.hexdigest() != expected:
            raise DataError(
                f"the download differs from the known {target.name}: its MD5 is {digest.hexdigest()}, "
                f"expected {expected}",
                file=source,
                remedy="delete this file, which is kagglehub's cached copy, and fetch again",
            )
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
        if created and not any(target.parent.iterdir()):
            target.parent.rmdir()
    return target
