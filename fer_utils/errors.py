"""The error that a reader of the book can meet and mend."""

from __future__ import annotations

from pathlib import Path


class DataError(ValueError):
    """Input that cannot be used, with its place and its remedy.

    Args:
        problem: what is wrong, in one sentence without a full stop.
        file: the file or folder.
        row: the line, as a text editor counts them (the header is line 1).
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


def unreadable(path: Path, error: OSError) -> DataError:
    """The error for a file or folder that the system does not let us read."""
    return DataError(f"it cannot be read ({error.strerror})", file=path, remedy="check its permissions")
