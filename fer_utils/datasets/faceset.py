"""The merged faces on disk: memory-mapped images, an index, and a manifest that says what they are."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fer_utils.datasets.base import SPLITS
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.files import sha256

FORMAT = 1
COLUMNS = ("label", "emotion", "source", "subject", "split", "origin", "hash", "seen_copy")


class FaceSet:
    """Merged faces, or a view of some of them.

    On disk: ``images.npy`` (uint8, N×64×64, grey, 0–255), ``index.parquet`` (one row an image) and
    ``manifest.json``. The columns of the index: `label` (int8, 0–5), `emotion` (as the source named it),
    `source`, `subject` (or missing), `split` (train, validation, test), `origin` (where the image came from),
    `hash` (of the source image's pixels) and `seen_copy` (an exact copy stood in an earlier official split).

    Make one with `FaceSet.open`; `split` and `where` give views that share the images.
    """

    def __init__(
        self, path: Path, images: np.ndarray, index: pd.DataFrame, manifest: dict[str, Any], rows: np.ndarray
    ) -> None:
        self.path, self.manifest, self.index = path, manifest, index
        self._images, self._rows = images, rows

    @classmethod
    def open(cls, path: Path | str) -> FaceSet:
        """Open a merged set; images stay on disk until they are asked for.

        Raises:
            DataError: a file is missing or damaged, or the files do not belong together.
        """
        path = Path(path)
        remedy = "merge again with `fer merge`"
        for name in ("manifest.json", "images.npy", "index.parquet"):
            if not (path / name).is_file():
                raise DataError(f"not a merged set: {name} is missing", file=path, remedy=remedy)
        try:
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            images = np.load(path / "images.npy", mmap_mode="r")
            index = pd.read_parquet(path / "index.parquet")
        except (ValueError, OSError) as error:
            raise DataError(f"the merged set is damaged ({error})", file=path, remedy=remedy) from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise DataError(f"not a manifest of format {FORMAT}", file=path / "manifest.json", remedy=remedy)
        size = manifest["size"]
        if images.dtype != np.uint8 or images.shape != (len(index), size, size):
            raise DataError(
                f"images of {images.dtype} {images.shape} for {len(index)} rows of {size}×{size}",
                file=path / "images.npy",
                remedy=remedy,
            )
        if tuple(index.columns) != COLUMNS:
            raise DataError(f"columns {list(index.columns)}", file=path / "index.parquet", remedy=remedy)
        return cls(path, images, index, manifest, np.arange(len(index)))

    def verify(self) -> None:
        """Compare the checksums of images and index with the manifest's.

        Raises:
            DataError: a file differs from what the merge wrote.
        """
        for name, expected in self.manifest["checksums"].items():
            if sha256(self.path / name) != expected:
                raise DataError(
                    "the file differs from what the merge wrote",
                    file=self.path / name,
                    remedy="merge again with `fer merge`",
                )

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, 64, 64): memory-mapped for the whole set, read into memory for a view."""
        return self._images if len(self) == len(self._images) else self.take(np.arange(len(self)))

    def take(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Read some images of this view: uint8 (len(rows), 64, 64)."""
        return self._images[self._rows[np.asarray(rows)]]

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,), values 0–5 in the order of `CLASSES`."""
        return self.index["label"].to_numpy(np.int64)

    def where(self, mask: np.ndarray) -> FaceSet:
        """View of the rows where a bool array (N,) is true."""
        index = self.index[mask].reset_index(drop=True)
        return FaceSet(self.path, self._images, index, self.manifest, self._rows[mask])

    def relabelled(self, labels: np.ndarray) -> FaceSet:
        """View of the same images with other labels: what the sanity checks of chapter 2 train on.

        Args:
            labels: int (N,), values 0–5.
        """
        index = self.index.assign(label=np.asarray(labels, np.int8))
        return FaceSet(self.path, self._images, index, self.manifest, self._rows)

    def split(self, name: str, source: str | None = None) -> FaceSet:
        """View of one split, ``"train"``, ``"validation"`` or ``"test"``, of all sources or of one.

        Raises:
            ValueError: there is no such split.
        """
        if name not in SPLITS:
            raise ValueError(f"no split is called {name!r}; there are {', '.join(SPLITS)}")
        mask = self.index["split"] == name
        if source is not None:
            mask &= self.index["source"] == source
        return self.where(mask.to_numpy())

    def counts(self) -> pd.DataFrame:
        """Images by class (rows, with a total) and by source and split (columns)."""
        table = pd.crosstab(
            self.index["label"].map(dict(enumerate(CLASSES))), [self.index["source"], self.index["split"]]
        )
        columns = [
            (s, p) for s in dict.fromkeys(self.index["source"]) for p in SPLITS if (s, p) in table.columns
        ]
        table = table.reindex(index=list(CLASSES), columns=pd.MultiIndex.from_tuples(columns), fill_value=0)
        table.loc["total"] = table.sum()
        table.index.name, table.columns.names = "class", ["source", "split"]
        return table

    def export_folder(self, path: Path | str) -> None:
        """Write PNG files `<split>/<class>/<source>_<row>.png`, for torchvision's `ImageFolder` and the like.

        Raises:
            DataError: the folder exists and is not empty.
        """
        with new_folder(Path(path)) as out:
            names = []
            for row, (label, split, source) in enumerate(
                self.index[["label", "split", "source"]].itertuples(index=False)
            ):
                name = f"{split}/{CLASSES[label]}/{source}_{row:06d}.png"
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(self.take([row])[0]).save(out / name)
                names.append(name)
            table = self.index.drop(columns="hash").assign(file_name=names)
            table.to_csv(out / "metadata.csv", index=False)

    def export_hf(self, path: Path | str) -> None:
        """Write a Hugging Face data set with one part a split, for `datasets.load_from_disk`.

        Raises:
            DataError: the folder is not empty, or the library `datasets` is not installed.
        """
        try:
            import datasets
        except ImportError:
            raise DataError(
                "the library `datasets` is not installed",
                remedy='install it with `pip install "fer-utils[hf]"`',
            ) from None
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
            | {c: datasets.Value("string") for c in ("source", "subject", "origin")}
        )

        def rows(split: str) -> Iterator[dict[str, Any]]:
            part = self.split(split)
            for i, row in enumerate(part.index.itertuples()):
                subject = None if pd.isna(row.subject) else row.subject
                yield {
                    "image": Image.fromarray(part.take([i])[0]),
                    "label": int(row.label),
                    "source": row.source,
                    "subject": subject,
                    "origin": row.origin,
                }

        with new_folder(Path(path)) as out, tempfile.TemporaryDirectory() as cache:
            present = [s for s in SPLITS if (self.index["split"] == s).any()]
            datasets.DatasetDict(
                {
                    s: datasets.Dataset.from_generator(
                        rows, features=features, gen_kwargs={"split": s}, cache_dir=cache, split=s
                    )
                    for s in present
                }
            ).save_to_disk(out)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path` that takes its place when all went well, and is removed if not.

    Raises:
        DataError: `path` exists and is not an empty folder.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError("the folder is not empty", file=path, remedy="name another one, or empty it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield aside
        aside.chmod(0o755)
        if path.exists():
            path.rmdir()
        aside.rename(path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
