"""The data sets: one reader for each, found below one root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fer_utils.datasets import affectnet, ckplus, expw, fer2013, jaffe, rafdb
from fer_utils.datasets.base import FaceSource, Reader
from fer_utils.errors import DataError

READERS: dict[str, Reader] = {
    module.READER.name: module.READER for module in (fer2013, ckplus, jaffe, rafdb, affectnet, expw)
}


def find_sources(root: Path | str) -> dict[str, Path]:
    """Where each data set lies below the root; those that are not there are left out."""
    root = Path(root)
    found = {name: reader.find(root) for name, reader in READERS.items()}
    return {name: path for name, path in found.items() if path is not None}


def read_sources(root: Path | str, names: Sequence[str] | None = None) -> list[FaceSource]:
    """Read the data sets below the root, all of them or those that are named, in the order of `READERS`.

    Raises:
        DataError: a name is unknown, a named data set is not there, there is none at all, or one is damaged.
    """
    root = Path(root)
    for name in names or ():
        if name not in READERS:
            raise DataError(
                f"no data set is called {name!r}", file=root, remedy=f"name some of {', '.join(READERS)}"
            )
    found = find_sources(root)
    for name in names or ():
        if name not in found:
            raise DataError(
                f"{READERS[name].title} is not below this folder",
                file=root,
                remedy=f"{READERS[name].how_to_get}. FER_DATA names the folder",
            )
    if not found:
        raise DataError(
            "there is no data set below this folder"
            if root.is_dir()
            else "the folder of the data is missing",
            file=root,
            remedy="let FER_DATA name the folder of your data sets; `fer data` tells where to get them",
        )
    return [READERS[name].read(path, root) for name, path in found.items() if not names or name in names]
