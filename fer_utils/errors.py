"""The errors that a reader of the book can meet and mend."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """Input that cannot be used, with its place and its remedy.

    Args:
        problem: what is wrong, in one sentence without a full stop.
        file: the file or folder it was found in.
        row: the row, counted as a text editor counts lines (the header is line 1), or none.
        remedy: what the reader can do about it, in one sentence without a full stop.
    """

    def __init__(
        self,
        problem: str,
        *,
        file: Path | str | None = None,
        row: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.file, self.row, self.remedy = problem, file, row, remedy
        place = "" if file is None else f"{file}: " if row is None else f"{file}, line {row}: "
        super().__init__(f"{place}{problem}." + (f" Remedy: {remedy}." if remedy else ""))
