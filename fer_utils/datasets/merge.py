"""The merge: crop, resize, six classes, splits by subject, no image in training that is also held out."""

from __future__ import annotations

import hashlib
import json
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
from fer_utils.files import sha256

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
        raise DataError("there is nothing to merge", file=out, remedy="`fer data` shows what was found and where to get the rest")
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / "manifest.json").exists():
        raise DataError("the folder holds something other than a merged set", file=out, remedy="name another folder")

    report: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    for source in sources:
        table = source.table.assign(
            label=to_labels(source.table["emotion"], disgust), source=source.name, row=np.arange(len(source))
        )
        dropped = Counter(table.loc[table["label"] < 0, "emotion"])
        table = table[table["label"] >= 0].reset_index(drop=True)
        if table["split"].isna().any():
            table = table.assign(split=_split_by_subject(source.name, table, seed))
        tables.append(table)
        report.append(
            {
                "name": source.name,
                "layout": source.layout,
                "read": len(source),
                "dropped": {name: dropped[name] for name in sorted(dropped)},
                "notes": list(source.notes),
                "checksums": _checksums(source),
            }
        )
    if not sum(map(len, tables)):
        raise DataError("no image of the six classes is left", file=out, remedy="check the data with `fer data`")

    with _replacing(out) as aside:
        total = sum(map(len, tables))
        images = np.lib.format.open_memmap(aside / "images.tmp.npy", "w+", np.uint8, (total, size, size))
        bar = tqdm(total=total, desc="merge", unit=" faces", disable=not progress)
        start, hashes, constant = 0, [], 0
        detector = detector or FaceDetector()
        for source, table, entry in zip(sources, tables, report, strict=True):
            crops, fallback, several = images[start : start + len(table)], [], 0
            for first in range(0, len(table), CHUNK):
                part = table["row"].to_numpy()[first : first + CHUNK]
                frames = [source.images[int(i)] for i in part]
                hashes += [_pixel_hash(f) for f in frames]
                constant += sum(int(f.min() == f.max()) for f in frames)
                if source.cropped:
                    crops[first : first + len(part)] = _resize_all(frames, size)
                    bar.update(len(part))
                    continue
                for i, frame in enumerate(frames):
                    crops[first + i], found = face_image(frame, detector, size)
                    several += found > 1
                    if not found:
                        fallback.append(str(table["origin"].iloc[first + i]))
                    bar.update()
            entry["cropping"] = (
                {"detected": 0, "already_cropped": len(table), "fallback": [], "several_faces": 0}
                if source.cropped
                else {
                    "detected": len(table) - len(fallback),
                    "already_cropped": 0,
                    "fallback": fallback,
                    "several_faces": several,
                }
            )
            start += len(table)
        bar.close()

        index = pd.concat(tables, ignore_index=True).assign(hash=hashes)
        index["seen_copy"] = _seen_copies(index)
        held_out = set(index.loc[index["split"] != "train", "hash"])
        leaked = ((index["split"] == "train") & index["hash"].isin(held_out)).to_numpy()
        conflicting = index.groupby("hash")["label"].nunique().gt(1).sum()
        for source, entry in zip(sources, report, strict=True):
            mine = (index["source"] == source.name).to_numpy()
            entry["dropped"]["training copies of held-out images"] = int((leaked & mine).sum())
            kept = index[mine & ~leaked]
            entry["kept"] = {s: int((kept["split"] == s).sum()) for s in SPLITS}
            entry["seen_copies"] = {s: int(kept.loc[kept["split"] == s, "seen_copy"].sum()) for s in SPLITS[1:]}

        keep = np.flatnonzero(~leaked)
        index = index.iloc[keep].reset_index(drop=True)
        final = np.lib.format.open_memmap(aside / "images.npy", "w+", np.uint8, (len(keep), size, size))
        for first in range(0, len(keep), CHUNK):
            final[first : first + CHUNK] = images[keep[first : first + CHUNK]]
        final.flush()
        del images, final
        (aside / "images.tmp.npy").unlink()
        index = index.astype({"label": np.int8, "seen_copy": bool, "subject": "string"})[list(COLUMNS)]
        index.to_parquet(aside / "index.parquet", index=False)
        manifest = {
            "format": FORMAT,
            "made_by": f"fer_utils {fer_utils.__version__}",
            "classes": list(CLASSES),
            "size": size,
            "disgust": disgust,
            "seed": seed,
            "images": len(index),
            "before_duplicates": len(keep) + int(leaked.sum()),
            "duplicates": {
                "taken out of training": int(leaked.sum()),
                "groups with conflicting labels": int(conflicting),
            },
            "constant_images": constant,
            "sources": report,
            "checksums": {name: sha256(aside / name) for name in ("images.npy", "index.parquet")},
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (aside / "manifest.json").write_text(text, encoding="utf-8")
    return FaceSet.open(out)


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
    """Bool (N,): true where an exact copy stands in an earlier split (train before validation before test)."""
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
