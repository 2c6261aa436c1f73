"""Fast reading of the CSV form of FER2013 and its relatives: `emotion`, `pixels`, `Usage`.

Python's own `int` on each of 83 million pixels takes most of a minute and gigabytes of objects. Here, blocks
of whole lines are turned to numbers by array operations on their bytes, and a row is looked at by itself only
to say what is wrong with it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from fer_utils.datasets.tables import open_csv
from fer_utils.errors import DataError

BLOCK = 8 << 20  # bytes read at a time


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
        return _names(file.readline())


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
        names = _names(file.readline())
        if "emotion" not in names or "pixels" not in names:
            missing = " and ".join(f"`{n}`" for n in ("emotion", "pixels") if n not in names)
            raise DataError(
                f"the column {missing} is missing; the header is {names}",
                file=path,
                row=1,
                remedy="use the labelled file with the columns emotion, pixels and Usage",
            )
        reader = _Rows(path, names, codes, size)
        blocks = [reader.block(text, line) for text, line in _blocks(file)]
    if not any(len(images) for images, *_ in blocks):
        raise DataError("there are no rows below the header", file=path, remedy="download it again")
    images, emotion, usage, lines = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return PixelTable(images, emotion, usage if "usage" in names else None, lines)


def _names(header: bytes) -> list[str]:
    text = header.decode("utf-8-sig", "replace")
    return [name.strip().strip('"').lower() for name in text.split(",")] if text.strip() else []


def _blocks(file: IO[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Whole lines, some megabytes at a time, each block with the number of its first line."""
    line, rest = 2, b""
    while data := file.read(BLOCK):
        data = rest + data
        cut = data.rfind(b"\n") + 1
        rest = data[cut:]
        if cut:
            rows = io.BytesIO(data[:cut]).readlines()
            yield rows, line
            line += len(rows)
    if rest:
        yield [rest], line


class _Rows:
    def __init__(self, path: Path, names: list[str], codes: Mapping[int, str], size: int) -> None:
        self.path, self.names, self.codes, self.pixels = path, names, codes, size * size
        self.place = {name: i for i, name in enumerate(names)}
        self.size = size
        self.code_of = {str(code).encode(): code for code in codes}

    def block(self, rows: list[bytes], first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Parse the rows of one block; blank lines are passed over."""
        emotion, usage, lines, texts = [], [], [], []
        for line, row in enumerate(rows, first):
            if not row.strip():
                continue
            fields = row.split(b",")
            if len(fields) != len(self.names):
                self.fail(line, f"the row has {len(fields)} fields, the header has {len(self.names)}")
            code = fields[self.place["emotion"]].strip().strip(b'"')
            if code not in self.code_of:
                known = ", ".join(f"{c} {n}" for c, n in self.codes.items())
                self.fail(line, f"the emotion code {_shown(code)} is unknown; known are {known}")
            emotion.append(self.code_of[code])
            if "usage" in self.place:
                usage.append(fields[self.place["usage"]].strip().strip(b'"').decode("utf-8", "replace"))
            texts.append(fields[self.place["pixels"]].strip().strip(b'"'))
            lines.append(line)
        images = self.numbers(texts, lines).reshape(-1, self.size, self.size)
        return images, np.array(emotion, np.int64), np.array(usage, object), np.array(lines, np.int64)

    def numbers(self, texts: list[bytes], lines: list[int]) -> np.ndarray:
        """Turn the pixel fields of a block to uint8, (rows × pixels,)."""
        joined = np.frombuffer(b" ".join(texts) + b" ", np.uint8)
        digit = joined - ord("0")  # unsigned: everything below "0" wraps to more than 9
        is_digit = digit < 10
        ends = np.flatnonzero(is_digit[:-1] & ~is_digit[1:])
        values = digit[ends].astype(np.uint16)
        # A number's tens and hundreds are the digits before its last, as long as no blank comes between.
        tens = is_digit[ends - 1] & (ends > 0)
        values += np.where(tens, digit[ends - 1], 0).astype(np.uint16) * 10
        hundreds = tens & is_digit[ends - 2] & (ends > 1)
        values += np.where(hundreds, digit[ends - 2], 0).astype(np.uint16) * 100
        plain = bool((is_digit | (joined == ord(" "))).all())
        long = hundreds & (ends > 2) & is_digit[ends - 3]
        counts_fit = len(values) == len(texts) * self.pixels
        if not plain or not counts_fit or long.any() or (values > 255).any() or not self.counts_agree(texts):
            for text, line in zip(texts, lines, strict=True):
                self.check(text, line)
        return values.astype(np.uint8)

    def counts_agree(self, texts: list[bytes]) -> bool:
        """Whether every row has its number of pixels, judged by its blanks."""
        return all(text.count(b" ") == self.pixels - 1 for text in texts)

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
