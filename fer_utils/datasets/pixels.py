"""Fast reading of the CSV form of FER2013 and its relatives: `emotion`, `pixels`, `Usage`.

Python's own `int` on each of 83 million pixels takes most of a minute and gigabytes of objects. Here, blocks
of whole lines are turned to numbers by array operations on their bytes, and a row is looked at by itself only
to say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer_utils.datasets.tables import open_csv
from fer_utils.errors import DataError

BLOCK = 1 << 19  # bytes parsed at a time: what fits into the processor's cache is parsed fastest
LINE = 1 << 16  # bytes that no header is longer than


@dataclass(frozen=True)
class PixelTable:
    """Rows of a pixel CSV.

    Attributes:
        images: uint8 (N, S, S), values 0–255.
        codes: int64 (N,), the emotion codes as they stand in the file; empty where the column is missing.
        usage: the Usage column as strings (N,), or none where the file has no such column.
        lines: int64 (N,), the line of each row in the file; the header is line 1.
    """

    images: np.ndarray
    codes: np.ndarray
    usage: np.ndarray | None
    lines: np.ndarray


def read_header(path: Path) -> list[str]:
    """Column names of a CSV, without the blanks around them and in lower case."""
    with open_csv(path) as file:
        return _names(file.readline(LINE))


def read_pixels(path: Path, codes: Mapping[int, str], size: int = 48) -> PixelTable:
    """Read a pixel CSV, plain or packed.

    Args:
        path: the file.
        codes: the emotion codes that may occur.
        size: side of the square images.

    Raises:
        DataError: with file, line and remedy: a missing column, a wrong number of pixels, a pixel that is not
            a whole number of 0–255, an unknown code, a row cut short, or no rows at all.
    """
    with open_csv(path) as file:
        names = _names(file.readline(LINE))
        _check_header(path, names)
        reader, line = _Rows(path, names, codes, size), 2
        while data := file.read(BLOCK):
            rows = (data + file.readline()).split(b"\n")
            reader.add(rows, line)
            line += len(rows) - 1
    if not reader.lines:
        raise DataError("there are no rows below the header", file=path, remedy="download it again")
    return PixelTable(
        reader.images.reshape(-1, size, size),
        np.array(reader.emotion),
        np.array(reader.usage, object) if "usage" in names else None,
        np.array(reader.lines),
    )


def _names(header: bytes) -> list[str]:
    text = header.decode("utf-8-sig", "replace")
    return [name.strip(' "\t\r\n').lower() for name in text.split(",")] if text.strip() else []


def _check_header(path: Path, names: list[str]) -> None:
    if not names:
        raise DataError("the file is empty, or its header is", file=path, row=1, remedy="download it again")
    twice = [n for n in ("emotion", "pixels", "usage") if names.count(n) > 1]
    missing = [n for n in ("emotion", "pixels") if n not in names]
    if twice or missing:
        problem = f"the column `{(twice or missing)[0]}` is {'there twice' if twice else 'missing'}"
        raise DataError(
            f"{problem}; the header is {_shown(', '.join(names).encode())}",
            file=path,
            row=1,
            remedy="use the labelled file with the columns emotion, pixels and Usage",
        )


class _Rows:
    def __init__(self, path: Path, names: list[str], codes: Mapping[int, str], size: int) -> None:
        self.path, self.names, self.codes, self.pixels = path, names, codes, size * size
        self.place = {name: i for i, name in enumerate(names)}
        self.size = size
        self.code_of = {str(code).encode(): code for code in codes}
        self.images = np.empty((0, self.pixels), np.uint8)
        self.emotion: list[int] = []
        self.usage: list[str] = []
        self.lines: list[int] = []

    def add(self, rows: list[bytes], first: int) -> None:
        """Parse the rows of one block; blank lines are passed over."""
        start, texts = len(self.lines), []
        for line, row in enumerate(rows, first):
            if not row or row.isspace():
                continue
            fields = row.split(b",")
            if len(fields) != len(self.names):
                self.fail(line, f"the row has {len(fields)} fields, the header has {len(self.names)}")
            code = fields[self.place["emotion"]].strip().strip(b'"')
            if code not in self.code_of:
                known = ", ".join(f"{c} {n}" for c, n in self.codes.items())
                self.fail(line, f"the emotion code {_shown(code)} is unknown; known are {known}")
            self.emotion.append(self.code_of[code])
            if "usage" in self.place:
                self.usage.append(fields[self.place["usage"]].strip().strip(b'"').decode("utf-8", "replace"))
            texts.append(fields[self.place["pixels"]].strip().strip(b'"'))
            self.lines.append(line)
        values = self.numbers(texts, self.lines[start:])
        # Resizing moves pages and copies nothing; blocks to concatenate would take twice the memory.
        self.images.resize((len(self.lines), self.pixels), refcheck=False)
        self.images[start:] = values.reshape(-1, self.pixels)

    def numbers(self, texts: list[bytes], lines: list[int]) -> np.ndarray:
        """Turn the pixel fields of a block to uint8, (rows × pixels,)."""
        joined = b" ".join([b"  ", *texts, b""])  # blanks before the first number, so that one can look back
        digit = np.frombuffer(joined, np.uint8) - ord("0")  # unsigned: what is below "0" wraps to above 9
        is_digit = digit < 10
        ends = np.flatnonzero(is_digit[:-1] > is_digit[1:])
        # A number's tens and hundreds are the digits before its last, as long as no blank comes between.
        tens = is_digit[ends - 1]
        hundreds = tens & is_digit[ends - 2]
        values = digit[ends] + np.uint16(10) * (tens * digit[ends - 1])
        values += np.uint16(100) * (hundreds * digit[ends - 2])
        long = hundreds & is_digit[ends - 3]
        starts = 3 + np.cumsum([0, *(len(text) + 1 for text in texts)])
        counts = np.diff(np.searchsorted(ends, starts))
        odd = joined.translate(None, b"0123456789 ")
        if odd or long.any() or (values > 255).any() or (counts != self.pixels).any():
            for text, line in zip(texts, lines, strict=True):
                self.check(text, line)
        return values.astype(np.uint8)

    def check(self, text: bytes, line: int) -> None:
        """Find what is wrong with one row, if anything is."""
        parts = text.split()
        if len(parts) != self.pixels:
            self.fail(
                line, f"the row has {len(parts)} pixels, expected {self.pixels} ({self.size}×{self.size})"
            )
        for i, part in enumerate(parts, 1):
            if not part.isdigit() or len(part) > 3 or int(part) > 255:
                self.fail(line, f"pixel {i} is {_shown(part)}, expected a whole number from 0 to 255")

    def fail(self, line: int, problem: str) -> None:
        raise DataError(
            problem, file=self.path, row=line, remedy="download the file again, or mend or delete this row"
        )


def _shown(part: bytes) -> str:
    return repr(part[:24].decode("utf-8", "replace"))
