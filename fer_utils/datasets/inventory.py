"""What lies below the root: which data sets, how many images a class, what is damaged, what is missing."""

import textwrap
from pathlib import Path

import pandas as pd

from fer_utils.datasets import READERS, ferplus
from fer_utils.datasets.base import SPLITS, FaceSource, ImageFiles
from fer_utils.datasets.discover import files_below, packed
from fer_utils.emotions import EMOTIONS
from fer_utils.errors import DataError

CHECK_AT_MOST = 40_000  # image files of a data set; more would take many minutes to open
SHOW_AT_MOST = 5  # damaged images of a data set


def inventory(root: Path | str) -> tuple[str, bool]:
    """Report, in plain text, on every data set below the root, and say whether anything is damaged."""
    root, counts, notes, damaged, missing = Path(root), {}, [], [], []
    files, read, fer2013 = files_below(root), set(), None
    damaged += [str(error) for error in files.unreadable]
    for reader in READERS.values():
        try:
            source = reader.load(files, root)
            if source is None:
                missing.append((reader.title, reader.how_to_get, reader.homepage, reader.licence))
                continue
            read.update(source.files)
            fer2013 = source if source.name == "fer2013" else fer2013
            counts[reader.title] = source.table["emotion"].value_counts()
            splits = source.table["split"].value_counts()
            where = f"{source.layout} ({source.table['origin'][0]})"
            parts = ", ".join([where, *(f"{splits[s]:,} {s}" for s in SPLITS if s in splits)])
            notes += [f"{reader.title}: {note}." for note in (parts, *source.notes)]
            damaged += [f"{reader.title}: {error}" for error in _damaged_images(source)]
        except (DataError, OSError) as error:
            damaged.append(f"{reader.title}: {error}")
    if path := ferplus.find(root):
        read.add(path)
        try:
            joins = fer2013 is not None and fer2013.layout in ferplus.LAYOUTS
            votes = ferplus.read(path, fer2013 if joins else None)
            notes.append(f"{ferplus.TITLE}: votes on {len(votes):,} images.")
        except DataError as error:
            damaged.append(f"{ferplus.TITLE}: {error}")
    else:
        missing.append((ferplus.TITLE, ferplus.HOW_TO_GET, ferplus.HOMEPAGE, ferplus.LICENCE))
    if remedy := packed(files, read):
        notes.append(f"Not read: {remedy.rstrip('; ')}.")
    table = pd.DataFrame(counts, index=EMOTIONS).fillna(0).astype(int).T
    report = [f"Below {root} (FER_DATA names the folder), images by class:", ""]
    report.append(table.assign(total=table.sum(axis=1)).to_string() if counts else "no data set")
    wanted = [f"{title}: {how}. {page} Licence: {licence}." for title, how, page, licence in missing]
    how = {"initial_indent": "  ", "subsequent_indent": "    ", "break_on_hyphens": False}
    for title, items in (("Notes", notes), ("Damaged", damaged), ("Missing, and where to get it", wanted)):
        if items:
            report += ["", title, *(textwrap.fill(i, 110, break_long_words=False, **how) for i in items)]
    return "\n".join(report), bool(damaged)


def _damaged_images(source: FaceSource) -> list[str]:
    """What is wrong with the first few images that cannot be decoded."""
    errors = []
    if len(source) <= CHECK_AT_MOST and isinstance(source.images, ImageFiles):
        for i in range(len(source)):
            try:
                source.images[i]
            except DataError as error:
                errors.append(str(error))
    more = [f"and {len(errors) - SHOW_AT_MOST:,} more images"] if len(errors) > SHOW_AT_MOST else []
    return errors[:SHOW_AT_MOST] + more
