"""Opening a CSV that may be plain or packed, as a stream of bytes."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from fer_utils.datasets.base import unreadable
from fer_utils.errors import DataError

PACKED = (".csv", ".csv.gz", ".zip", ".tar.gz", ".tgz", ".tar")
CHUNK = 1 << 20
EARLY = 4 << 20  # bytes of a tar that are unpacked to learn the name of the CSV inside


@contextmanager
def open_csv(path: Path) -> Iterator[IO[bytes]]:
    """Open `x.csv`, `x.csv.gz`, or a `.zip` or `.tar.gz` with a single CSV inside, without unpacking it.

    Raises:
        DataError: the file is missing or damaged, or holds no CSV or several.
    """
    try:
        with ExitStack() as stack:
            yield _open(path, stack)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError("the file is missing", file=path, remedy="download it again") from None
    except PermissionError as error:
        raise unreadable(path, error) from error
    except Exception as error:  # on damaged archives, the unpackers raise whatever their parsers meet
        raise DataError(
            f"the file is damaged or incomplete ({error})", file=path, remedy="download it again"
        ) from error


def names_inside(path: Path) -> list[str]:
    """Names of the CSVs in a `.zip`, or of the first one in a `.tar.gz`; empty where there are none.

    Raises:
        Exception: of many kinds, where the archive is damaged.
    """
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            return _csvs(archive.namelist())
    with tarfile.open(path, "r|*") as tar:
        for member in tar:
            if found := _csvs([member.name]):
                return found
            if tar.offset > EARLY:
                break
    return []


def _open(path: Path, stack: ExitStack) -> IO[bytes]:
    name = path.name.lower()
    if name.endswith((".tar.gz", ".tgz", ".tar")):
        tar = stack.enter_context(tarfile.open(path))  # noqa: SIM115 - the stack closes it
        member = _single(path, [m.name for m in tar.getmembers() if m.isfile()])
        while tar.fileobj.read(CHUNK):  # to the end, where gzip keeps its checksum
            pass
        return stack.enter_context(tar.extractfile(member))
    if name.endswith(".zip"):
        archive = stack.enter_context(zipfile.ZipFile(path))
        return stack.enter_context(archive.open(_single(path, archive.namelist())))
    if name.endswith(".gz"):
        return stack.enter_context(gzip.open(path, "rb"))
    return stack.enter_context(path.open("rb"))


def _csvs(names: list[str]) -> list[str]:
    # Apple's archiver adds a hidden ._x.csv for each x.csv.
    return [n for n in names if n.lower().endswith(".csv") and not Path(n).name.startswith("._")]


def _single(path: Path, names: list[str]) -> str:
    tables = _csvs(names)
    if len(tables) != 1:
        found = ", ".join(tables) or "none"
        raise DataError(
            f"the archive should hold one CSV, it holds {len(tables)} ({found})",
            file=path,
            remedy="unpack it and keep the one with emotion, pixels and Usage",
        )
    return tables[0]
