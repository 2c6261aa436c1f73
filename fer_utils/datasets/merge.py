"""The merge: crop, resize, six classes, splits by subject, no image in training that is also held out."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

import fer_utils
from fer_utils.datasets.base import SPLITS, FaceSource
from fer_utils.datasets.faceset import COLUMNS, FORMAT, FaceSet, new_folder
from fer_utils.emotions import CLASSES, DisgustRule, to_labels
from fer_utils.errors import DataError
from fer_utils.faces import FaceDetector, centre_square, face_image, resize
from fer_utils.files import sha256, write_json

FOLDS = 5  # one for test, one for validation, three for training
CHUNK = 1024


def merge(
    sources: list[FaceSource],
    out: Path | str,
    *,
    disgust: DisgustRule = "drop",
    size: int = 64,
    seed: int = 0,
    detector: FaceDetector | None = None,
    progress: bool = True,
) -> FaceSet:
    """Merge data sets to one set of square grey faces with six classes.

    Official splits stay. Sources without one are split by subject (5 folds: three train, one validation,
    one test; stratified by class). A training image whose exact copy stands in validation or test is taken
    out. The same input gives the same bytes.

    Args:
        sources: what the readers gave; the order is kept.
        out: folder of the merged set. An older merged set there is replaced once the new one is whole.
        disgust: leave disgust out, or fold it into angry. Contempt is always left out.
        size: side of the faces in pixels.
        seed: of the split by subject.
        detector: for sources that are not cropped; by default MTCNN on the processor.
        progress: show a progress bar.

    Raises:
        DataError: no source or no image is left, too few subjects to split, an image that cannot be decoded,
            or a folder `out` that holds something else.
    """
    out = Path(out)
    if not sources:
        raise DataError(
            "there is nothing to merge",
            file=out,
            remedy="`fer data` shows what was found and where to get the rest",
        )
    if out.exists() and not (out / "manifest.json").exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(
            "the folder holds something other than a merged set", file=out, remedy="name another folder"
        )
    tables = [_labelled(source, disgust, seed) for source in sources]
    if not sum(map(len, tables)):
        raise DataError(
            "no image of the six classes is left", file=out, remedy="check the data with `fer data`"
        )

    with _replacing(out) as aside:
        report, index, images = [], pd.concat(tables, ignore_index=True), aside / "all.npy"
        faces = np.lib.format.open_memmap(images, "w+", np.uint8, (len(index), size, size))
        with tqdm(total=len(index), desc="merge", unit=" faces", disable=not progress) as bar:
            writer = _Writer(faces, detector or FaceDetector(), bar)
            for source, table in zip(sources, tables, strict=True):
                report.append(_describe(source, table) | {"cropping": writer.add(source, table)})
        index["hash"] = writer.hashes
        index["seen_copy"] = _seen_copies(index)
        held_out = set(index.loc[index["split"] != "train", "hash"])
        leaked = ((index["split"] == "train") & index["hash"].isin(held_out)).to_numpy()
        conflicts = int(index.groupby("hash")["label"].nunique().gt(1).sum())
        for entry in report:
            mine = (index["source"] == entry["name"]).to_numpy()
            _count(entry, index[mine], leaked[mine])

        keep = np.flatnonzero(~leaked)
        final = np.lib.format.open_memmap(aside / "images.npy", "w+", np.uint8, (len(keep), size, size))
        for first in range(0, len(keep), CHUNK):
            final[first : first + CHUNK] = faces[keep[first : first + CHUNK]]
        final.flush()
        images.unlink()
        index = index.iloc[keep].astype({"label": np.int8, "seen_copy": bool, "subject": "string"})
        index[list(COLUMNS)].to_parquet(aside / "index.parquet", index=False)
        manifest = {
            "format": FORMAT,
            "made_by": f"fer_utils {fer_utils.__version__}",
            "classes": list(CLASSES),
            "size": size,
            "disgust": disgust,
            "seed": seed,
            "images": len(keep),
            "six_classes": len(leaked),
            "duplicates": {
                "taken_out_of_training": int(leaked.sum()),
                "groups_with_conflicting_labels": conflicts,
            },
            "constant_images": writer.constant,
            "sources": report,
            "checksums": {name: sha256(aside / name) for name in ("images.npy", "index.parquet")},
        }
        write_json(aside / "manifest.json", manifest)
    return FaceSet.open(out)


def _labelled(source: FaceSource, disgust: DisgustRule, seed: int) -> pd.DataFrame:
    """The rows of a source that are of the six classes, with label, source, split and their row there."""
    table = source.table.assign(
        label=to_labels(source.table["emotion"], disgust), source=source.name, row=np.arange(len(source))
    )
    table = table[table["label"] >= 0].reset_index(drop=True)
    if table["split"].isna().any():
        table["split"] = _split_by_subject(source.name, table, seed)
    return table


def _describe(source: FaceSource, table: pd.DataFrame) -> dict[str, Any]:
    """What the manifest says about a source before duplicates are looked for."""
    dropped = Counter(source.table["emotion"].drop(table["row"]))
    return {
        "name": source.name,
        "layout": source.layout,
        "read": len(source),
        "dropped": {name: dropped[name] for name in sorted(dropped)},
        "notes": list(source.notes),
        "own_splits": source.own_splits,
        "checksums": _checksums(source),
    }


def _count(entry: dict[str, Any], index: pd.DataFrame, leaked: np.ndarray) -> None:
    """Add to a source's entry what was left of it."""
    kept = index[~leaked]
    entry["dropped"]["training copy of a held-out image"] = int(leaked.sum())
    entry["kept"] = {s: int((kept["split"] == s).sum()) for s in SPLITS}
    counts = pd.crosstab(kept["split"], kept["label"]).reindex(
        index=SPLITS, columns=range(len(CLASSES)), fill_value=0
    )
    entry["classes"] = {s: dict(zip(CLASSES, counts.loc[s].tolist(), strict=True)) for s in SPLITS}
    entry["copies_of_earlier_splits"] = {
        s: int(kept["seen_copy"][kept["split"] == s].sum()) for s in SPLITS[1:]
    }


class _Writer:
    """Crops, resizes and writes the faces of one source after the other."""

    def __init__(self, faces: np.ndarray, detector: FaceDetector, bar: tqdm) -> None:
        self.faces, self.detector, self.bar = faces, detector, bar
        self.hashes: list[str] = []
        self.constant = 0

    def add(self, source: FaceSource, table: pd.DataFrame) -> dict[str, Any]:
        """Write the rows of a source's table and say how they were cropped."""
        fallback: list[str] = []
        several, size = 0, self.faces.shape[1]
        for first in range(0, len(table), CHUNK):
            part = table.iloc[first : first + CHUNK]
            frames = [source.images[row] for row in part["row"]]
            start = len(self.hashes)
            self.hashes += [_pixel_hash(frame) for frame in frames]
            self.constant += sum(int(frame.min() == frame.max()) for frame in frames)
            if source.cropped:
                self.faces[start : len(self.hashes)] = _resize_all(frames, size)
                self.bar.update(len(part))
                continue
            for place, (frame, origin) in enumerate(zip(frames, part["origin"], strict=True), start):
                self.faces[place], found = face_image(frame, self.detector, size)
                several += found > 1
                if not found:
                    fallback.append(origin)
                self.bar.update()
        if source.cropped:
            return {"already_cropped": len(table), "detected": 0, "several_faces": 0, "centre_crop": []}
        return {
            "already_cropped": 0,
            "detected": len(table) - len(fallback),
            "several_faces": several,
            "centre_crop": fallback,
        }


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Write a folder aside; on success it takes the place of the old one, on failure the old one stays."""
    new, old = (out.with_name(f".{out.name}.{which}.{os.getpid()}") for which in ("new", "old"))
    with new_folder(new) as aside:
        yield aside
    if out.exists():
        out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _resize_all(frames: list[np.ndarray], size: int) -> np.ndarray:
    """Resize crops in batches of equal shape; crops that are not square are cut to their centre square."""
    out = np.empty((len(frames), size, size), np.uint8)
    squares = [centre_square(f) for f in frames]
    sides = np.array([len(s) for s in squares])
    for side in np.unique(sides):
        rows = np.flatnonzero(sides == side)
        out[rows] = resize(np.stack([squares[i] for i in rows]), size)
    return out


def _pixel_hash(image: np.ndarray) -> str:
    """Hash of shape and pixels as decoded, before cropping: equal for exact copies and for nothing else."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    return digest.hexdigest()


def _seen_copies(index: pd.DataFrame) -> np.ndarray:
    """Bool (N,): true where an exact copy stands in an earlier split (train, validation, test)."""
    order = index["split"].map({name: i for i, name in enumerate(SPLITS)})
    return (order > order.groupby(index["hash"]).transform("min")).to_numpy()


def _split_by_subject(name: str, table: pd.DataFrame, seed: int) -> np.ndarray:
    """Splits for a source without official ones: no subject in two of them."""
    if table["subject"].isna().any():
        raise DataError(
            f"{name}: images without a subject cannot be split by subject",
            remedy="use a layout whose file names carry the subject",
        )
    subjects = table["subject"].nunique()
    if subjects < 3:
        raise DataError(
            f"{name}: {subjects} subject(s) cannot be split into train, validation and test",
            remedy="bring images of at least three subjects, or leave this source out with --sources",
        )
    folds = StratifiedGroupKFold(min(FOLDS, subjects), shuffle=True, random_state=seed)
    split = np.full(len(table), "train", dtype=object)
    parts = folds.split(np.zeros(len(table)), table["label"], table["subject"])
    for which in ("test", "validation"):
        split[next(parts)[1]] = which
    return split


def _checksums(source: FaceSource) -> dict[str, str]:
    """SHA-256 of a single file; of a folder's files, one digest over their names, sizes and checksums."""
    if len(source.files) == 1:
        return {source.files[0].name: sha256(source.files[0])}
    digest = hashlib.sha256()
    common = Path(os.path.commonpath(source.files)) if source.files else Path()
    for path in sorted(source.files):
        line = f"{path.relative_to(common).as_posix()} {path.stat().st_size} {sha256(path)}\n"
        digest.update(line.encode())
    return {f"{len(source.files)} files": digest.hexdigest()}
