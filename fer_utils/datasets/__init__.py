"""The data sets: one reader for each, found below one root."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from fer_utils.datasets import affectnet, ckplus, expw, fer2013, jaffe, rafdb
from fer_utils.datasets.base import FaceSource, Reader
from fer_utils.datasets.discover import files_below, packed
from fer_utils.errors import DataError

READERS: dict[str, Reader] = {
    module.READER.name: module.READER for module in (fer2013, ckplus, jaffe, rafdb, affectnet, expw)
}


def read_sources(root: Path | str, names: Sequence[str] | None = None) -> list[FaceSource]:
    """Read the data sets below the root, all of them or those that are named, in the order of `READERS`.

    Raises:
        DataError: a name is unknown, a named data set is not there, there is none at all, or one is damaged.
    """
    root, sources, files = Path(root), [], files_below(Path(root))
    for error in files.unreadable:
        warnings.warn(f"{error} What is in it is left out.", stacklevel=2)
    if unknown := [name for name in names or () if name not in READERS]:
        remedy = f"name some of {', '.join(READERS)}"
        raise DataError(f"no data set is called {unknown[0]!r}", file=root, remedy=remedy)
    for reader in READERS.values():
        if not names or reader.name in names:
            source = reader.load(files, root)
            sources += [source] if source else []
            if names and not source:
                remedy = f"{packed(files)}{reader.how_to_get}. FER_DATA names the folder"
                raise DataError(f"{reader.title} is not below this folder", file=root, remedy=remedy)
    if not sources:
        remedy = "let FER_DATA name the folder of your data sets; `fer data` shows where to get them"
        raise DataError("there is no data set below this folder", file=root, remedy=packed(files) + remedy)
    return sources
