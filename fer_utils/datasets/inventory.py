"""What lies below the root: which data sets, how many images a class, what is damaged, what is missing."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fer_utils.datasets import READERS, ferplus
from fer_utils.datasets.base import SPLITS, FaceSource
from fer_utils.datasets.layouts import below
from fer_utils.emotions import EMOTIONS
from fer_utils.errors import DataError

CHECK_AT_MOST = 40_000  # image files; more would take many minutes to open
SHOW_AT_MOST = 5  # damaged images of one data set
WIDTH = 110


@dataclass(frozen=True)
class Row:
    """One data set in the inventory.

    Attributes:
        title: the data set's own name.
        path: where it was found, or none.
        layout: which layout, in words; blank if it is missing or damaged.
        counts: images by emotion.
        splits: images by official split; empty where there is none.
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
    splits: Mapping[str, int] = field(default_factory=dict)
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
        counts, splits = (Counter(source.table[column].dropna()) for column in ("emotion", "split"))
        found = (source.layout, counts, splits, tuple(notes), tuple(errors))
        rows.append(Row(reader.title, path, *about, *found))
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
        joins = fer2013 is not None and fer2013.layout in ferplus.LAYOUTS
        votes = ferplus.read(path, fer2013 if joins else None)
    except DataError as error:
        return Row(title, path or root, *about, errors=(str(error),))
    blank = int((votes["name"] == "").sum())
    notes = [f"votes on {len(votes):,} images, of which {blank} are not faces"]
    if fer2013 is not None and not joins:
        notes.append(f"they cannot be joined to FER2013's {fer2013.layout}: that takes the CSV with all rows")
    return Row(title, path, *about, "votes", notes=tuple(notes))


def render(found: Inventory) -> str:
    """The inventory as plain text: a table, what is damaged, and what is missing and where to get it."""
    there = [row for row in found.rows if row.path is not None]
    if not there:
        lines = [f"No data set was found below {found.root} (FER_DATA names the folder)."]
    else:
        lines = [f"Found below {found.root}, in images a class:", "", *_table(there)]
        lines += ["", "Where", *(_item(f"{row.title}: {_where(row, found.root)}") for row in there)]
    for head, items in (
        ("Notes", [f"{row.title}: {note}." for row in there for note in row.notes]),
        ("Damaged", [f"{row.title}: {error}" for row in there for error in row.errors]),
    ):
        lines += ["", head, *map(_item, items)] if items else []
    missing = [row for row in found.rows if row.path is None]
    if missing:
        lines += ["", "Missing, and where to get it"]
        for row in missing:
            lines += [
                _item(f"{row.title}: {row.how_to_get}."),
                f"    {row.homepage}",
                f"    Licence: {row.licence}.",
            ]
    return "\n".join(lines)


def _item(text: str) -> str:
    how = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    ", **how)


def _where(row: Row, root: Path) -> str:
    assert row.path is not None
    parts = [f"{row.splits[split]:,} {split}" for split in SPLITS if split in row.splits]
    splits = f"; {', '.join(parts)}" if parts else ""
    return f"{below(row.path, root)} ({row.layout or 'damaged'}{splits})"


def _table(rows: list[Row]) -> list[str]:
    cells = [["data set", *EMOTIONS, "total"]]
    for row in rows:
        if row.counts or not row.layout:
            numbers = [*(row.counts.get(e, 0) for e in EMOTIONS), sum(row.counts.values())]
            cells.append([row.title, *(f"{n:,}" if row.counts else "" for n in numbers)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * w for w in widths])
    return [
        f"{name:{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(numbers, widths[1:], strict=True))
        for name, *numbers in cells
    ]
