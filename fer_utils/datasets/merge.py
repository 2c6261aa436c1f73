"""The merge: crop, resize, six classes, splits by subject, no image in training that is also held out."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

import fer_utils
from fer_utils.datasets.base import SPLITS, FaceSource
from fer_utils.datasets.faceset import COLUMNS, FORMAT, FaceSet, new_folder
from fer_utils.detector import Detector
from fer_utils.emotions import CLASSES, DisgustRule, to_labels
from fer_utils.errors import DataError
from fer_utils.faces import SIDE, centre_square, face_image, resize
from fer_utils.files import sha256, write_json


def merge(
    sources: list[FaceSource],
    out: Path | str,
    *,
    disgust: DisgustRule = "drop",
    seed: int = 0,
    detector: Detector | None = None,
    progress: bool = True,
) -> FaceSet:
    """Merge data sets to one set of square grey faces with six classes; same input, same bytes.

    The order of the sources is kept. An older merged set in the folder `out` is replaced once the new one is
    whole. Disgust is left out, or folded into angry; contempt is always left out. The seed is of the split by
    subject, for sources without official splits; the detector is for those that are not cropped. A DataError
    says that no image is left, subjects are too few, an image is damaged, or `out` holds something else.
    """
    out = Path(out)
    if detector is None and not all(source.cropped for source in sources):
        detector = Detector()
    tables = [_six_classes(source, disgust, seed) for source in sources]
    if not (total := sum(map(len, tables))):
        remedy = "`fer data` shows what is there and where to get the rest"
        raise DataError("there are no images of the six classes to merge", file=out, remedy=remedy)
    with new_folder(out, replaces="manifest.json") as folder:
        cropping = {}
        with (folder / "all").open("wb") as images:
            for source, table in zip(sources, tables, strict=True):
                bar = tqdm(table["row"], desc=source.name, unit=" faces", disable=not progress)
                cropping[source.name] = _write(source, table, bar, images, detector)
        index = pd.concat(tables, ignore_index=True)
        del table, tables  # a copy of the index, and so as large
        index["seen_copy"] = seen_copies(index)
        held_out = index.loc[index["split"] != "train", "hash"]
        leaked = (index["split"] == "train") & index["hash"].isin(held_out)
        _keep(folder / "all", folder / "images.npy", ~leaked.to_numpy())
        manifest = {
            "format": FORMAT,
            "made_by": f"fer_utils {fer_utils.__version__}",
            "classes": list(CLASSES),
            **{"size": SIDE, "disgust": disgust, "seed": seed},
            "images": int((~leaked).sum()),
            "six_classes": total,
            "duplicates": {
                "taken_out_of_training": int(leaked.sum()),
                "groups_with_conflicting_labels": int(index.groupby("hash")["label"].nunique().gt(1).sum()),
            },
            "constant_images": int(index["constant"].sum()),
            "sources": [_describe(source, index, leaked, cropping[source.name]) for source in sources],
        }
        index = index.loc[~leaked, list(COLUMNS)].astype({"label": np.int8, "subject": "string"})
        index.to_parquet(folder / "index.parquet", index=False)
        manifest["checksums"] = {name: sha256(folder / name) for name in ("images.npy", "index.parquet")}
        write_json(folder / "manifest.json", manifest)
    del index, leaked, held_out  # the index is about to be read again
    return FaceSet.open(out)


def pixel_hash(image: np.ndarray) -> str:
    """Hash of shape and pixels as decoded, before cropping: equal for exact copies and for nothing else."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    return digest.hexdigest()


def seen_copies(index: pd.DataFrame) -> pd.Series:
    """Whether an exact copy of each image stands in an earlier split (train, validation, test)."""
    order = index["split"].map(SPLITS.index)
    return order > order.groupby(index["hash"]).transform("min")


def split_by_subject(table: pd.DataFrame, seed: int = 0) -> np.ndarray:
    """A split for each row of a table with `label` and `subject`, so that no subject is in two of them.

    Five folds, stratified by class: one for test, one for validation, three for training.
    """
    subjects, without = table["subject"].nunique(), table["subject"].isna().sum()
    if subjects < 3 or without:
        problem = f"{subjects} subjects, and {without} images without one, cannot be split by subject"
        remedy = "bring images of at least three subjects, or leave this source out of the merge"
        raise DataError(problem, remedy=remedy)
    folds = StratifiedGroupKFold(min(5, subjects), shuffle=True, random_state=seed)
    parts = folds.split(np.zeros(len(table)), table["label"], table["subject"])
    split = np.full(len(table), "train", dtype=object)
    for name in ("test", "validation"):
        split[next(parts)[1]] = name
    return split


def _six_classes(source: FaceSource, disgust: DisgustRule, seed: int) -> pd.DataFrame:
    """The rows of a source that are of the six classes, with label, source, split and their row there."""
    table = source.table.assign(label=to_labels(source.table["emotion"], disgust), source=source.name)
    table = table.assign(row=np.arange(len(source)))[table["label"] >= 0].reset_index(drop=True)
    if table["split"].isna().any():
        table["split"] = split_by_subject(table, seed)
    return table


def _keep(everything: Path, path: Path, kept: np.ndarray) -> None:
    """Move the images that are kept to a NumPy file, one after the other: all may not fit in memory."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (int(kept.sum()), SIDE, SIDE)}
    with everything.open("rb") as images, path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for keep in kept:
            image = images.read(SIDE * SIDE)
            if keep:
                file.write(image)
    everything.unlink()


def _write(
    source: FaceSource, table: pd.DataFrame, rows: Iterable[int], file: IO[bytes], detector: Detector | None
) -> dict[str, Any]:
    """Crop, resize and write the images of a table, add their hashes to it, and describe the cropping."""
    hashes, constant, counts = (np.zeros(len(table), kind) for kind in ("S32", bool, int))
    for place, row in enumerate(rows):
        frame = source.images[row]
        hashes[place] = pixel_hash(frame)
        constant[place] = frame.min() == frame.max()
        if source.cropped:
            face = resize(centre_square(frame)[None])[0]
        else:
            face, counts[place] = face_image(frame, detector)
        file.write(face.tobytes())
    table["hash"], table["constant"] = pd.array(pa.array(hashes), dtype="str"), constant
    return {
        "already_cropped": len(table) if source.cropped else 0,
        "detected": int((counts > 0).sum()),
        "several_faces": int((counts > 1).sum()),
        "centre_crop": [] if source.cropped else table["origin"][counts == 0].tolist(),
    }


def _describe(source: FaceSource, index: pd.DataFrame, leaked: pd.Series, cropping: dict) -> dict[str, Any]:
    """What the manifest has about a source: what was read, dropped and kept, and from which files."""
    table = index.loc[index["source"] == source.name, ["row", "label", "split", "seen_copy"]]
    dropped = source.table["emotion"].drop(table["row"]).value_counts().sort_index().to_dict()
    leaked = leaked[table.index]
    kept = {name: table[(table["split"] == name) & ~leaked] for name in SPLITS}
    return {
        "name": source.name,
        "layout": source.layout,
        "read": len(source),
        "dropped": dropped | {"training copy of a held-out image": int(leaked.sum())},
        "notes": list(source.notes),
        "own_splits": source.own_splits,
        "checksums": _checksums(source.files),
        "cropping": cropping,
        "kept": {name: len(part) for name, part in kept.items()},
        "classes": {
            name: {c: int((part["label"] == i).sum()) for i, c in enumerate(CLASSES)}
            for name, part in kept.items()
        },
        "copies_of_earlier_splits": {name: int(kept[name]["seen_copy"].sum()) for name in SPLITS[1:]},
    }


def _checksums(files: tuple[Path, ...]) -> dict[str, str]:
    """SHA-256 of a single file; of a folder's files, one digest over their names, sizes and checksums."""
    if len(files) == 1:
        return {files[0].name: sha256(files[0])}
    digest = hashlib.sha256()
    common = Path(os.path.commonpath(files)) if files else Path()
    for path in sorted(files):
        line = f"{path.relative_to(common).as_posix()} {path.stat().st_size} {sha256(path)}\n"
        digest.update(line.encode())
    return {f"{len(files)} files": digest.hexdigest()}
