"""The error that a reader of the book can meet and mend."""

from pathlib import Path


class DataError(ValueError):
    """Input that cannot be used: what is wrong, where, and what the reader can do about it.

    `row` is the line as a text editor counts them; problem and remedy are sentences without a full stop.
    """

    def __init__(
        self, problem: str, *, file: Path | str | None = None, row: int | None = None, remedy: str = ""
    ) -> None:
        self.problem, self.file, self.row, self.remedy = problem, file, row, remedy
        place = "" if file is None else f"{file}: " if row is None else f"{file}, line {row}: "
        super().__init__(f"{place}{problem}." + (f" Remedy: {remedy}." if remedy else ""))
