"""Files written whole or not at all, and their checksums."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

from fer_utils.errors import DataError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error name the file or folder that was written, which that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        what = error.strerror or f"{error}; is the disk full?"  # numpy counts what it has written
        raise OSError(error.errno or errno.EIO, what, str(path)) from None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes its place if all went well, and is removed if not.

    Its permissions are those that the umask gives, whatever the writer's own.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    for left in path.parent.glob(f".{escape(path.name)}.*") if Path("/proc/self").exists() else ():
        if left.suffix[1:].isdigit() and not Path("/proc", left.suffix[1:]).exists():  # it was killed
            left.unlink(missing_ok=True)
    try:
        with naming(path):
            aside.touch()
            mode = aside.stat().st_mode
            yield aside
            aside.chmod(mode)
            aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Make a folder if need be, and hold it; raise DataError where another process holds it."""
    from filelock import FileLock, Timeout  # prediction does without

    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / "writer.lock").acquire(timeout=0)
    except Timeout:
        raise DataError("another process writes here", file=folder, remedy="wait until it is done") from None
    with lock:
        yield


def atomic_write(path: Path, text: str) -> None:
    """Write a UTF-8 text file, so that nobody ever sees half of it."""
    with atomic_path(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON like `atomic_write`, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
