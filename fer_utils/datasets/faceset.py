"""The merged faces on disk: memory-mapped images, an index, and a manifest that says what they are."""

import json
import mmap
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from fer_utils.datasets.base import SPLITS
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.files import naming, only_writer, sha256

FORMAT = 1
COLUMNS = ("label", "emotion", "source", "subject", "split", "origin", "hash", "seen_copy")
REMEDY = "merge again with `fer merge`"


@dataclass(frozen=True, eq=False)
class FaceSet:
    """Merged faces, or a view of some of them. Make one with `FaceSet.open`."""

    path: Path  # the folder, with ``images.npy``, ``index.parquet`` and ``manifest.json``
    stored: np.ndarray  # uint8 (M, 64, 64), grey, 0–255: all images, memory-mapped
    table: pd.DataFrame  # the index of all images
    manifest: dict[str, Any]  # sources, what was dropped and why, checksums
    rows: np.ndarray  # int (N,), this view's rows of `stored` and `table`

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a merged set, or raise a `DataError` if files are missing, damaged or of different sets."""
        path, pool = Path(path), pa.default_memory_pool()
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            images = np.load(path / "images.npy", mmap_mode="r")
            pool.release_unused()  # memory that Arrow keeps for its next tables
            index = pd.read_parquet(path / "index.parquet")
            pool.release_unused()
            size, number = manifest["size"], manifest["format"]
            if sha256(path / "index.parquet") != manifest["checksums"]["index.parquet"]:
                raise ValueError("index.parquet has another checksum than at the merge")
        except Exception as error:  # NumPy and Arrow have errors of many kinds for damaged files
            raise DataError(f"no merged set, or a damaged one ({error})", file=path, remedy=REMEDY) from None
        if number != FORMAT or images.shape != (len(index), size, size) or tuple(index.columns) != COLUMNS:
            raise DataError("its files do not belong together", file=path, remedy=REMEDY)
        return cls(path, images, index, manifest, np.arange(len(index)))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, 64, 64): memory-mapped for the whole set, read into memory for a view."""
        return self.stored if len(self) == len(self.stored) else self.stored[self.rows]

    def take(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read some images of this view: uint8 (len(rows), 64, 64)."""
        images = self.stored[self.rows[np.asarray(rows)]]
        if hasattr(self.stored.base, "madvise"):  # the file's pages stay in the system's cache, not in here
            self.stored.base.madvise(mmap.MADV_DONTNEED)
        return images

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row an image of this view.

        Columns are `label` (int8, 0–5), `emotion` (as the source named it), `source`, `subject` (or missing),
        `split`, `origin` (where it came from), `hash` (of the source image's pixels) and `seen_copy` (an
        exact copy stands in an earlier split).
        """
        whole = len(self) == len(self.table)
        return self.table if whole else self.table.iloc[self.rows].reset_index(drop=True)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 (N,), values 0–5 in the order of `CLASSES`."""
        return self.table["label"].to_numpy(np.int64)[self.rows]

    def where(self, mask: np.ndarray) -> Self:
        """View of the rows where a bool array (N,) is true."""
        return replace(self, rows=self.rows[mask])

    def split(self, name: str, source: str | None = None) -> Self:
        """View of one split, ``"train"``, ``"validation"`` or ``"test"``, of all sources or of one."""
        if name not in SPLITS:
            raise ValueError(f"no split is called {name!r}; there are {', '.join(SPLITS)}")
        mine = source is None or self.index["source"] == source
        return self.where(((self.index["split"] == name) & mine).to_numpy())

    def counts(self) -> pd.DataFrame:
        """Images by class (rows, with a total) and by source and split (columns)."""
        names = self.index["label"].map(dict(enumerate(CLASSES))).rename("class")
        table = pd.crosstab(names, [self.index["source"], self.index["split"]])
        order = [(s, p) for s in self.index["source"].unique() for p in SPLITS if (s, p) in table.columns]
        table = table.reindex(index=pd.Index(CLASSES, name="class"), fill_value=0)[order]
        table.loc["total"] = table.sum()
        return table

    def export_folder(self, path: Path | str) -> None:
        """Write PNG files `<split>/<class>/…` that torchvision and `datasets` read, and `metadata.csv`."""
        rows = self.index.itertuples()
        names = [f"{r.split}/{CLASSES[r.label]}/{r.source}_{r.Index:06d}.png" for r in rows]
        with new_folder(Path(path)) as out:
            for row, name in enumerate(names):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(self.take([row])[0]).save(out / name)
            people = self.index["source"] + "-" + self.index["subject"]  # JAFFE's NA reads as missing alone
            table = self.index.drop(columns="hash").assign(file_name=names, subject=people)
            table.to_csv(out / "metadata.csv", index=False)


@contextmanager
def new_folder(path: Path, replaces: str | None = None) -> Iterator[Path]:
    """Give a temporary folder beside `path` that takes its place when all went well, and is removed if not.

    A `DataError` is raised where `path` is not empty, unless it has a file called `replaces`, and while
    another process writes it. What a killed one left is removed, but for what it was about to replace.
    """
    aside = path.with_name(f".{path.name}.new")
    old = replaces is not None and (path / replaces).is_file()
    if path.exists() and not old and (not path.is_dir() or any(path.iterdir())):
        raise DataError("the folder is not empty", file=path, remedy="name another one, or empty it first")
    with only_writer(aside):
        new, before = aside / "new", aside / "old"
        if before.exists() and not path.exists():
            before.rename(path)
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            with naming(path):
                yield new
            shutil.rmtree(before, ignore_errors=True)
            if path.exists():
                path.rename(before)
            new.rename(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
