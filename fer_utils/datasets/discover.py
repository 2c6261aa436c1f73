"""Looking for data sets below one root: files by their names, and CSV files that may be packed."""

import gzip
import os
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from fer_utils.errors import DataError

IMAGES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
PACKINGS = {".zip": "zip", ".tar.gz": "tar", ".tgz": "tar", ".tar": "tar", ".csv.gz": "gzip", ".csv": ""}
TABLES = tuple(PACKINGS)
ARCHIVES = (*TABLES[:4], ".tar.bz2", ".tar.xz", ".7z", ".rar")
DEPTH = 7  # levels of folders below the root
LARGEST = 1 << 30  # bytes of an unpacked CSV; FER2013's has 300 million


class Files(list[Path]):
    """Files below a root, and an error for each folder there that cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: list[DataError] = []


class Table(NamedTuple):
    """A CSV file; an archive counts under its own name and under those of the CSVs in it."""

    name: str  # in lower case, without suffix
    path: Path
    rank: int  # 0 plain, 1 packed, 2 an archive that is damaged or does not hold exactly one CSV


def files_below(root: Path) -> Files:
    """All files below the root, by level and name, without hidden ones and `__MACOSX`."""
    files = Files()

    def note(error: OSError) -> None:
        problem = f"the folder cannot be read ({error.strerror})"
        files.unreadable.append(DataError(problem, file=error.filename, remedy="check its permissions"))

    for folder, folders, names in os.walk(root, onerror=note, followlinks=True) if root.is_dir() else ():
        path = Path(folder)
        deep = len(path.relative_to(root).parts) == DEPTH
        folders[:] = [n for n in folders if not deep and not n.startswith(".") and n != "__MACOSX"]
        files += [path / name for name in names if not name.startswith(".")]
    files.sort(key=lambda file: (len(file.parts), file))
    return files


def images_in(files: list[Path], folder: Path | None = None) -> list[Path]:
    """The image files among some files, of all or of those in or below a folder."""
    images = (file for file in files if file.suffix.lower() in IMAGES)
    return [image for image in images if folder is None or image.is_relative_to(folder)]


def read_lines(path: Path, remedy: str) -> list[tuple[int, str]]:
    """Lines of a text file that are not blank, stripped, with their numbers from 1; at least one."""
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError("the file is empty", file=path, remedy=remedy)
    return lines


def tables_in(files: list[Path]) -> list[Table]:
    """The CSV files among some files, plain ones first."""
    tables = []
    for path in files:
        name, names, rank = path.name.lower(), [], 2
        suffix = next((s for s in TABLES if name.endswith(s)), None)
        packing = _packing(path) if suffix else ""
        if packing in ("zip", "tar"):
            with suppress(Exception):  # it is damaged, which its reader will say if its name is one of ours
                names = [Path(inside).stem.lower() for inside in _csvs_inside(path)]
        if packing not in ("zip", "tar") or len(names) == 1:
            rank = int(packing != "")
        if suffix:
            names.insert(0, name.removesuffix(suffix).removesuffix(".csv"))
        tables += [Table(each, path, rank) for each in dict.fromkeys(names)]
    return sorted(tables, key=lambda table: table.rank)


def _packing(path: Path) -> str:
    """What a file is packed by, as its name says; a CSV may be an archive that lost its name."""
    name = path.name.lower()
    if name.endswith(".csv"):
        with suppress(Exception):  # reading it will say what is wrong
            if tarfile.is_tarfile(path) or zipfile.is_zipfile(path):
                return "tar" if tarfile.is_tarfile(path) else "zip"
            with path.open("rb") as file:
                return "gzip" if file.read(2) == b"\x1f\x8b" else ""
    return next(packing for suffix, packing in PACKINGS.items() if name.endswith(suffix))


def _csvs_inside(path: Path) -> list[str]:
    if _packing(path) == "zip":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    else:
        with tarfile.open(path) as tar:
            names = [member.name for member in tar if member.isfile()]
            while tar.fileobj.read(1 << 20):  # to the end, where gzip keeps its checksum
                pass
    # Apple's archiver adds a hidden ._x.csv for each x.csv.
    return [n for n in names if n.lower().endswith(".csv") and not Path(n).name.startswith("._")]


def packed(files: list[Path], read: Collection[Path] = ()) -> str:
    """What to do with the archives among some files but those that were read; nothing if there are none."""
    archives = [file.name for file in files if file.name.lower().endswith(ARCHIVES) and file not in read]
    names = f"{', '.join(archives[:5])}{', …' if len(archives) > 5 else ''}"
    return f"unpack {names}, if a data set of folders is in there; " if archives else ""


@contextmanager
def open_csv(path: Path) -> Iterator[IO[bytes]]:
    """Open a CSV, plain, gzipped or alone in an archive; damage while it is read is a `DataError` too."""
    try:
        with ExitStack() as stack:
            packing = _packing(path)
            if packing in ("zip", "tar"):
                names, zipped = _csvs_inside(path), packing == "zip"
                if len(names) != 1:
                    problem = f"the archive should hold one CSV, it holds {', '.join(names) or 'none'}"
                    raise DataError(problem, file=path, remedy="unpack it and keep the right one")
                archive = stack.enter_context((zipfile.ZipFile if zipped else tarfile.open)(path))
                file = archive.open(names[0]) if zipped else archive.extractfile(names[0])
            else:
                file = (gzip.open if packing else open)(path, "rb")
            file, size = stack.enter_context(file), 0
            while packing and (part := file.read(1 << 20)):
                size += len(part)
                if size > LARGEST:  # a few kB may unpack to more than fits into memory
                    problem = f"it unpacks to more than {LARGEST:,} bytes, as no data set's CSV does"
                    raise DataError(problem, file=path, remedy="download it again")
            file.seek(0)
            yield file
    except DataError:
        raise
    except Exception as error:  # on damaged archives, the unpackers raise whatever their parsers meet
        problem = f"the file is missing, damaged or incomplete ({error})"
        raise DataError(problem, file=path, remedy="download it again") from error
