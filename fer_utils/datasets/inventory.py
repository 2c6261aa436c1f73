"""What lies below the root: which data sets, how many images a class, what is damaged, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer_utils.datasets import READERS, ferplus
from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.layouts import below
from fer_utils.emotions import EMOTIONS
from fer_utils.errors import DataError

CHECK_AT_MOST = 40_000  # image files; more would take many minutes to open
SHOW_AT_MOST = 5  # damaged images of one data set


@dataclass(frozen=True)
class Row:
    """One data set in the inventory.

    Attributes:
        title: the data set's own name.
        path: where it was found, or none.
        layout: which layout, in words; blank if it is missing or damaged.
        counts: images by emotion.
        notes: what the reader should know.
        errors: what is damaged.
        licence: one line on what may be done with it.
        homepage: where it comes from.
        how_to_get: whom to ask, what to download, where to put it.
    """

    title: str
    path: Path | None
    licence: str
    homepage: str
    how_to_get: str
    layout: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inventory:
    """All data sets that the book can read, there or not, with FER+ as the last."""

    root: Path
    rows: tuple[Row, ...]

    @property
    def damaged(self) -> bool:
        """Whether a data set is there and cannot be read."""
        return any(row.errors for row in self.rows)


def inventory(root: Path | str) -> Inventory:
    """Look for every data set below the root, read what is there, and open its images.

    Damage does not stop it: it is in the rows' `errors`. Image files of a data set with more than 40,000 are
    not opened.
    """
    root = Path(root)
    rows = []
    fer2013: FaceSource | None = None
    for name, reader in READERS.items():
        about = (reader.licence, reader.homepage, reader.how_to_get)
        path = None
        try:
            path = reader.find(root)
            if path is None:
                rows.append(Row(reader.title, None, *about))
                continue
            source = reader.read(path, root)
        except DataError as error:
            rows.append(Row(reader.title, path or root, *about, errors=(str(error),)))
            continue
        if name == "fer2013":
            fer2013 = source
        notes = list(source.notes)
        errors: list[str] = []
        if isinstance(source.images, np.ndarray):
            pass  # decoded while reading
        elif len(source) <= CHECK_AT_MOST:
            errors = _damaged_images(source)
        else:
            notes.append("its images were not opened, since they are many")
        counts = Counter(source.table["emotion"])
        rows.append(Row(reader.title, path, *about, source.layout, counts, tuple(notes), tuple(errors)))
    return Inventory(root, (*rows, _ferplus(root, fer2013)))


def _damaged_images(source: FaceSource) -> list[str]:
    errors = []
    for i in range(len(source)):
        try:
            source.images[i]
        except DataError as error:
            errors.append(str(error))
    hidden = len(errors) - SHOW_AT_MOST
    return errors if hidden <= 0 else [*errors[:SHOW_AT_MOST], f"and {hidden:,} more images are damaged."]


def _ferplus(root: Path, fer2013: FaceSource | None) -> Row:
    title, about = "FER+ (votes on FER2013)", ("MIT", ferplus.HOMEPAGE, ferplus.HOW_TO_GET)
    path = None
    try:
        path = ferplus.find(root)
        if path is None:
            return Row(title, None, *about)
        votes = ferplus.read(path, fer2013)
    except DataError as error:
        return Row(title, path or root, *about, errors=(str(error),))
    blank = int((votes["name"] == "").sum())
    notes = (f"votes on {len(votes):,} images, of which {blank} are not faces",)
    return Row(title, path, *about, "votes", notes=notes)


def render(found: Inventory) -> str:
    """The inventory as plain text: a table, what is damaged, and what is missing and where to get it."""
    there = [row for row in found.rows if row.path is not None]
    if not there:
        lines = [f"No data set was found below {found.root} (FER_DATA names the folder)."]
    else:
        lines = [f"Found below {found.root}:", "", *_table(found.root, there)]
        notes = [f"  {row.title}: {note}" for row in there for note in row.notes]
        lines += ["", "Notes", *notes] if notes else []
    if found.damaged:
        errors = [f"  {row.title}: {error}" for row in there for error in row.errors]
        lines += ["", "Damaged", *errors]
    missing = [row for row in found.rows if row.path is None]
    if missing:
        lines += ["", "Missing, and where to get it"]
        for row in missing:
            lines += [
                f"  {row.title}: {row.how_to_get}.",
                f"    {row.homepage}",
                f"    Licence: {row.licence}.",
            ]
    return "\n".join(lines)


def _table(root: Path, rows: list[Row]) -> list[str]:
    head = ["data set", "where", "layout", *EMOTIONS, "total"]
    cells = [head]
    for row in rows:
        assert row.path is not None
        numbers = [f"{row.counts.get(e, 0):,}" for e in EMOTIONS] + [f"{sum(row.counts.values()):,}"]
        layout = "damaged" if row.errors else row.layout
        cells.append(
            [row.title, below(row.path, root), layout, *(numbers if row.counts else [""] * len(numbers))]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return [line.rstrip() for line in lines]
