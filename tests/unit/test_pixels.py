"""The pixel CSV: every way to write the same table reads back equal, and damage never passes for data."""

import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import PACKINGS, USAGES, csv_bytes, fer2013_csv, noise, pack, refused, write

from fer_utils.datasets import pixels
from fer_utils.datasets.pixels import read_pixels
from fer_utils.datasets.tables import open_csv
from fer_utils.emotions import FER2013
from fer_utils.errors import DataError

SIZE = 3  # of the images here, so that many can be tried


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pixels")


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(pixels, "BLOCK", 100)  # so that rows cross the borders of blocks


def read(path: Path):
    return read_pixels(path, FER2013, SIZE)


def slow(data: bytes):
    """What `read` should give, in plain Python: codes, usages and images, or none if a row is wrong."""
    head, *rows = data.decode("utf-8-sig", "replace").encode().split(b"\n")
    names = [name.strip(b' "\r\t').lower() for name in head.split(b",")]
    table = []
    for row in filter(bytes.strip, rows):
        fields = [f.strip().strip(b'"') for f in row.split(b",")]
        if len(fields) != len(names):
            return None
        of = dict(zip(names, fields, strict=True))
        numbers = of[b"pixels"].split()
        if of[b"emotion"] not in [b"%d" % code for code in FER2013] or len(numbers) != SIZE**2:
            return None
        if not all(n.isdigit() and len(n) < 4 and int(n) < 256 for n in numbers):
            return None
        table.append((int(of[b"emotion"]), of[b"usage"].decode("utf-8", "replace"), [*map(int, numbers)]))
    return table or None


def rows_of(table):
    images = table.images.reshape(len(table.images), -1).tolist()
    return [*zip(table.codes.tolist(), table.usage.tolist(), images, strict=True)]


pixel_rows = st.lists(st.integers(0, 255), min_size=SIZE**2, max_size=SIZE**2)
table_rows = st.tuples(st.sampled_from([*FER2013]), st.sampled_from(USAGES), pixel_rows)
tables = st.lists(table_rows, min_size=1, max_size=6)


def as_csv(table, columns=("emotion", "pixels", "Usage"), **how):
    images = np.array([p for *_, p in table], np.uint8).reshape(-1, SIZE, SIZE)
    return csv_bytes(images, [c for c, *_ in table], [u for _, u, _ in table], columns, **how)


@settings(max_examples=120, deadline=None)
@given(
    table=tables,
    columns=st.permutations(["emotion", "pixels", "Usage", "index"]),
    extra=st.booleans(),
    blanks=st.tuples(st.sampled_from(["", " ", "  "]), st.sampled_from(["", " "])),
    packing=st.sampled_from(PACKINGS),
    how=st.fixed_dictionaries(
        {
            "quote": st.sampled_from(["", '"']),
            "end": st.sampled_from(["\n", "\r\n"]),
            "bom": st.booleans(),
            "last_end": st.booleans(),
        }
    ),
)
def test_a_table_reads_back_equal_however_it_is_written(folder, table, columns, extra, blanks, packing, how):
    columns = [blanks[0] + c + blanks[1] for c in columns if extra or c != "index"]
    path = write(folder / f"t.csv{packing}", pack(packing, as_csv(table, columns, **how)))
    got = read(path)
    assert rows_of(got) == table
    assert got.images.dtype == np.uint8
    assert got.lines.tolist() == [*range(2, len(table) + 2)]


telling = st.sampled_from([b" ", b"0", b"9", b"\t", b"\n", b"\r", b",", b".", b"-", b'"'])
change = st.tuples(
    st.sampled_from(["cut", "replace", "insert", "delete"]),
    st.integers(0, 2000),
    st.one_of(telling, st.binary(min_size=1, max_size=30)),
)


def damaged(data: bytes, change) -> bytes:
    how, place, what = change
    place %= len(data) + 1
    return {
        "cut": data[:place],
        "replace": data[:place] + what + data[place + len(what) :],
        "insert": data[:place] + what + data[place:],
        "delete": data[:place] + data[place + len(what) :],
    }[how]


@settings(max_examples=250, deadline=None)
@given(table=tables, changes=st.lists(change, min_size=1, max_size=2))
def test_a_damaged_plain_file_reads_as_plain_python_reads_it_or_is_refused(folder, table, changes):
    data = head = as_csv(table)
    for each in changes:
        data = damaged(data, each)
    path = write(folder / "plain.csv", data)
    if not data.startswith(head[: head.index(b"\n") + 1]):  # a damaged header
        try:
            got = read(path)
        except DataError:
            return
        assert got.usage is None or rows_of(got) == slow(data)
        return
    expected = slow(data)
    if expected is None:
        refused(lambda: read(path), file=path)
    else:
        assert rows_of(read(path)) == expected


@pytest.mark.parametrize("packing", [".gz", ".zip", ".tar.gz"])
@settings(max_examples=150, deadline=None)
@given(changes=st.lists(change, min_size=1, max_size=2))
def test_a_damaged_archive_gives_the_same_data_or_is_refused(folder, packing, changes):
    table = [(i, USAGES[i % 3], [(17 * i + j) % 256 for j in range(9)]) for i in range(6)]
    data = pack(packing, as_csv(table))
    for each in changes:
        data = damaged(data, each)
    path = write(folder / f"a.csv{packing}", data)
    with suppress(DataError):
        assert rows_of(read(path)) == table


GOOD = "3,1 2 3 4 5 6 7 8 9,Training"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("3,1 2 3 4 5 6 7 8,Training", "8 pixels, expected 9"),
        ("3,1 2 3 4 5 6 7 8 9 10,Training", "10 pixels, expected 9"),
        ("3,1 2 3 4 5 6 7", "2 fields, the header has 3"),
        ("3", "1 fields"),
        ("3,1 2 3 4 5 6 7 8 9,Training,x", "4 fields"),
        ("3,1 2 3 4 5 6 7 8 256,Training", "pixel 9 is '256'"),
        ("3,1 2 3 4 1000 6 7 8 9,Training", "pixel 5 is '1000'"),
        ("3,1 2 3 4 0005 6 7 8 9,Training", "pixel 5 is '0005'"),
        ("3,1 2.0 3 4 5 6 7 8 9,Training", "pixel 2 is '2.0'"),
        ("3,1 -2 3 4 5 6 7 8 9,Training", "pixel 2 is '-2'"),
        ("3,1 x 3 4 5 6 7 8 9,Training", "pixel 2 is 'x'"),
        ("3,1 2e1 3 4 5 6 7 8 9,Training", "pixel 2 is '2e1'"),
        ("3,1 \x00 3 4 5 6 7 8 9,Training", "pixel 2"),
        ("3,,Training", "0 pixels"),
        ("7,1 2 3 4 5 6 7 8 9,Training", "code '7' is unknown; known are 0 angry"),
        ("-1,1 2 3 4 5 6 7 8 9,Training", "code '-1'"),
        ("3.0,1 2 3 4 5 6 7 8 9,Training", "code '3.0'"),
        ("happy,1 2 3 4 5 6 7 8 9,Training", "code 'happy'"),
        (",1 2 3 4 5 6 7 8 9,Training", "code ''"),
    ],
)
@pytest.mark.parametrize("before", [0, 1, 7])
def test_a_wrong_row_is_named_by_its_line(tmp_path, row, says, before):
    lines = ["emotion,pixels,Usage", *[GOOD] * before, row, GOOD]
    path = write(tmp_path / "fer2013.csv", "\n".join(lines))
    refused(lambda: read(path), file=path, row=before + 2, says=says)


def test_a_pixel_too_many_here_and_too_few_there_do_not_cancel(tmp_path):
    rows = ["3,1 2 3 4 5 6 7 8 9 9,Training", "3,1 2 3 4 5 6 7 8,Training"]
    path = write(tmp_path / "fer2013.csv", "\n".join(["emotion,pixels,Usage", *rows]))
    refused(lambda: read(path), row=2, says="10 pixels")


def test_blank_lines_are_passed_over_and_counted(tmp_path):
    path = write(tmp_path / "fer2013.csv", f"emotion,pixels,Usage\n\n{GOOD}\n  \r\n{GOOD}\n\n")
    assert read(path).lines.tolist() == [3, 5]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"emotion,pixels,Usage", "no rows"),
        (b"emotion,pixels,Usage\n\n", "no rows"),
        (b"emotion,Usage\n3,Training\n", "column `pixels` is missing"),
        (b"pixels,Usage\n1 2,Training\n", "column `emotion` is missing"),
        (b"emotion,pixels,emotion\n3,1,3\n", "column `emotion` is there twice"),
        (b"emotion;pixels;Usage\n3;1 2;Training\n", "column `emotion` is missing"),
        ("emotion,pixels,Usage\n".encode("utf-16"), "column `emotion` is missing"),
        (b"emotion,pixels,Usage\r3,1 2,Training\r", "no rows"),
        (GOOD.encode(), "column `emotion` is missing"),
        (bytes(range(256)) * 1000, "column `emotion` is missing"),
        (b"\x00" * 200_000, "column `emotion` is missing"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_a_few_words(tmp_path, data, says):
    path = write(tmp_path / "fer2013.csv", data)
    refused(lambda: read(path), file=path, says=says)


@pytest.mark.parametrize(
    ("packing", "members", "says"),
    [
        (".zip", {"fer2013new.csv": b"x"}, "holds 2 (fer2013new.csv, fer2013.csv)"),
        (".tar.gz", {"a/b.csv": b"x"}, "holds 2 (a/b.csv, fer2013.csv)"),
    ],
)
def test_an_archive_with_two_csvs_is_refused(tmp_path, packing, members, says):
    path = write(tmp_path / f"fer2013{packing}", pack(packing, fer2013_csv(), more=members))
    refused(lambda: read_pixels(path, FER2013), file=path, says=says)


@pytest.mark.parametrize("packing", [".zip", ".tar.gz"])
def test_an_archive_without_a_csv_is_refused(tmp_path, packing):
    path = write(tmp_path / f"fer2013{packing}", pack(packing, b"hello", name="readme.txt"))
    refused(lambda: read(path), file=path, says="holds 0 (none)")


@pytest.mark.parametrize("packing", [".zip", ".tar.gz"])
def test_what_apple_adds_to_an_archive_is_passed_over(tmp_path, packing):
    more = {"__MACOSX/._fer2013.csv": b"\x00\x05\x16\x07", "README": b"x"}
    path = write(tmp_path / f"fer2013{packing}", pack(packing, fer2013_csv(), more=more))
    assert len(read_pixels(path, FER2013).images) == 14


@pytest.mark.parametrize("name", ["t.csv.gz", "t.zip", "t.tar.gz", "t.tar"])
@pytest.mark.parametrize("content", [b"", b"emotion,pixels,Usage\n", b"\x1f\x8b\x08garbage", bytes(5000)])
def test_an_archive_that_is_none_is_refused(tmp_path, name, content):
    path = write(tmp_path / name, content)
    refused(lambda: read(path), file=path)


@pytest.mark.parametrize(("offset", "value"), [(6, 1), (8, 99)])
def test_a_zip_with_a_password_or_an_unknown_compression_is_refused(tmp_path, offset, value):
    data = bytearray(pack(".zip", fer2013_csv()))
    for start, place in ((0, offset), (data.index(b"PK\x01\x02"), offset + 2)):
        struct.pack_into("<H", data, start + place, value)
    path = write(tmp_path / "fer2013.zip", bytes(data))
    refused(lambda: read(path), file=path, says="damaged or incomplete")


@pytest.mark.parametrize("packing", [".gz", ".tar.gz"])
def test_the_checksum_at_the_end_of_gzip_is_compared(tmp_path, packing):
    data = bytearray(pack(packing, fer2013_csv()))
    data[-8] ^= 1
    path = write(tmp_path / f"fer2013.csv{packing}", bytes(data))
    refused(lambda: read_pixels(path, FER2013), file=path, says="CRC")


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = write(tmp_path / "fer2013.csv", fer2013_csv())

    def deny(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    refused(lambda: read(path), file=path, says="check its permissions")


def test_a_missing_file_is_named(tmp_path):
    refused(lambda: read(tmp_path / "fer2013.csv"), file=tmp_path / "fer2013.csv", says="missing")


def test_an_error_of_the_caller_keeps_its_kind_of_message(tmp_path):
    path = write(tmp_path / "x.csv", b"a")
    with pytest.raises(DataError, match="its own"), open_csv(path):
        raise DataError("its own", file=path)


def test_memory_stays_near_the_size_of_the_images(tmp_path, monkeypatch):
    monkeypatch.undo()  # blocks of the usual size
    n = 3000
    row = csv_bytes(noise(1), [3], ["Training"]).split(b"\n")[1]
    path = write(tmp_path / "fer2013.csv", b"emotion,pixels,Usage\n" + (row + b"\n") * n)
    size = path.stat().st_size
    tracemalloc.start()
    table = read_pixels(path, FER2013)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(table.images[-1], noise(1)[0])
    assert peak < 2 * table.images.nbytes + 16 * 2**20 < size + 16 * 2**20
