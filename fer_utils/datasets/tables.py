"""Opening a CSV that may be plain or packed, as a stream of bytes."""

from __future__ import annotations

import gzip
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from fer_utils.errors import DataError

PACKED = (".csv", ".csv.gz", ".zip", ".tar.gz", ".tgz", ".tar")


@contextmanager
def open_csv(path: Path) -> Iterator[IO[bytes]]:
    """Open `x.csv`, `x.csv.gz`, or a `.zip` or `.tar.gz` with a single CSV inside, without unpacking it.

    Raises:
        DataError: the file is missing or damaged, or holds no CSV or several.
    """
    try:
        with ExitStack() as stack:
            yield _open(path, stack)
    except FileNotFoundError:
        raise DataError("the file is missing", file=path, remedy="download it again") from None
    except (EOFError, OSError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        raise DataError(
            f"the file is damaged or incomplete ({error})", file=path, remedy="download it again"
        ) from error


def _open(path: Path, stack: ExitStack) -> IO[bytes]:
    name = path.name.lower()
    if name.endswith((".tar.gz", ".tgz", ".tar")):
        tar = stack.enter_context(tarfile.open(path))  # noqa: SIM115 - the stack closes it
        member = _single(path, [m.name for m in tar.getmembers() if m.isfile()])
        file = tar.extractfile(member)
        assert file is not None  # a regular file, as asked for above
        return stack.enter_context(file)
    if name.endswith(".zip"):
        archive = stack.enter_context(zipfile.ZipFile(path))
        return stack.enter_context(archive.open(_single(path, archive.namelist())))
    if name.endswith(".gz"):
        return stack.enter_context(gzip.open(path, "rb"))
    return stack.enter_context(path.open("rb"))


def _single(path: Path, names: list[str]) -> str:
    tables = [n for n in names if n.lower().endswith(".csv") and not Path(n).name.startswith("._")]
    if len(tables) != 1:
        found = ", ".join(tables) or "none"
        raise DataError(
            f"the archive should hold one CSV, it holds {len(tables)} ({found})",
            file=path,
            remedy="unpack it and keep the one with emotion, pixels and Usage",
        )
    return tables[0]
