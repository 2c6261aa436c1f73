"""Looking below the root: what is there, damaged or missing."""

import os
import shutil
from pathlib import Path

import layouts as made
import pytest

from fer_utils.datasets import READERS, read_sources
from fer_utils.datasets import inventory as inventory_module
from fer_utils.datasets.inventory import inventory


@pytest.fixture
def everything(tmp_path):
    """One of each data set, below one root."""
    root = tmp_path / "data"
    made.write(root / "fer2013" / "fer2013.csv", made.fer2013_csv())
    made.write(root / "fer2013" / "fer2013new.csv", made.VOTES)
    made.ckplus_tree(root / "CK+", {"S005/001": (11, 3), "S010/002": (5, 7)})
    made.jaffe_folder(root / "jaffe")
    made.rafdb_tree(root / "RAF-DB")
    made.affectnet_tree(root / "AffectNet")
    made.expw_tree(root / "ExpW")
    return root


def test_sources_are_found_side_by_side_and_read_in_their_order(everything):
    sources = read_sources(everything)
    assert [s.name for s in sources] == list(READERS)
    assert [len(s) for s in sources] == [14, 8, 28, 7, 10, 7]
    assert [s.name for s in sources if s.notes] == ["fer2013", "rafdb"]  # its counts, and no validation split
    assert [s.name for s in read_sources(everything, ["jaffe", "fer2013"])] == ["fer2013", "jaffe"]


def test_what_is_named_and_not_there_is_an_error(everything, tmp_path):
    made.refused(lambda: read_sources(everything, ["fer2014"]), says="name some of fer2013, ckplus")
    (everything / "jaffe").rename(tmp_path / "away")
    made.refused(lambda: read_sources(everything, ["jaffe"]), file=everything, says="JAFFE is not below this")
    (tmp_path / "empty").mkdir()
    made.refused(
        lambda: read_sources(tmp_path / "empty"), says="no data set below this folder. Remedy: let FER_"
    )
    made.refused(lambda: read_sources(tmp_path / "x"), file=tmp_path / "x", says="no data set below")


def test_the_inventory_counts_images_by_class(everything):
    text, damaged = inventory(everything)
    assert not damaged
    ckplus = next(line for line in text.splitlines() if line.startswith("CK+"))
    assert ckplus.split()[-9:] == ["0", "0", "0", "0", "3", "2", "3", "0", "8"]
    assert "FER2013: fer2013.csv (fer2013/fer2013.csv:2), 5 train, 5 validation, 4 test." in text
    assert "votes on 14 images" in text
    assert "Missing" not in text and "Damaged" not in text


def test_the_inventory_says_what_is_missing_and_where_to_get_it_under_which_licence(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        text = " ".join(inventory(root)[0].split())
        assert f"Below {root}" in text and "no data set" in text and "fer2013new.csv" in text
        for reader in READERS.values():
            for part in (reader.title, reader.how_to_get, reader.homepage, f"Licence: {reader.licence}."):
                assert part in text


def test_the_inventory_shows_all_damage_and_what_is_whole_beside_it(everything, monkeypatch):
    for path in list((everything / "jaffe").iterdir())[:7]:
        path.write_bytes(b"")
    monkeypatch.setattr(inventory_module, "CHECK_AT_MOST", 20)  # no more than is quick are opened
    assert not inventory(everything)[1]
    monkeypatch.undo()
    made.write(everything / "fer2013" / "fer2013.csv", b"emotion,pixels,Usage\n3,1 2 3,Training\n")
    (everything / "RAF-DB" / "Image" / "aligned" / "train_00002_aligned.jpg").unlink()
    text, damaged = inventory(everything)
    assert damaged
    flat = " ".join(text.split())
    assert "fer2013.csv, line 2: the row has 3 pixels, expected 2304" in flat
    assert flat.count("no picture that can be read") == 5
    assert "JAFFE: and 2 more images" in flat
    assert "train_00002_aligned.jpg is missing" in flat
    assert "AffectNet: images and annotations" in flat


def test_a_folder_that_cannot_be_read_spoils_only_what_is_in_it(everything, monkeypatch):
    scandir = os.scandir

    def closed(path):
        if Path(path).name in ("lost+found", "Emotion"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)  # root may read everything
    (everything / "lost+found").mkdir()
    text, damaged = inventory(everything)
    words = " ".join(text.split())  # lines are wrapped
    assert damaged and words.count("the folder cannot be read") == 3  # of both, and of CK+
    assert "JAFFE: flat folder" in text and "FER2013: fer2013.csv" in text
    made.refused(lambda: read_sources(everything), file=everything / "CK+" / "Emotion", says="permissions")
    with pytest.warns(UserWarning, match=r"lost\+found.*left out"):
        assert len(read_sources(everything, ["jaffe"])[0]) == 28


def test_an_archive_that_must_be_unpacked_is_named(tmp_path):
    made.jaffe_folder(tmp_path / "faces")
    shutil.make_archive(str(tmp_path / "data" / "jaffe"), "zip", tmp_path / "faces")
    made.write(tmp_path / "data" / "fer2013.zip", made.pack(".zip", made.fer2013_csv()))
    text, _ = inventory(tmp_path / "data")
    assert "Not read: unpack jaffe.zip, if a data set" in text and "unpack fer2013.zip" not in text
    made.refused(lambda: read_sources(tmp_path / "data", ["jaffe"]), says="Remedy: unpack ")


def test_votes_beside_class_folders_are_no_damage_and_those_that_do_not_fit_are(tmp_path):
    made.save(tmp_path / "fer2013" / "train" / "happy" / "Training_1.png")
    path = made.write(tmp_path / "fer2013new.csv", made.VOTES)
    assert not inventory(tmp_path)[1]
    made.write(path, made.VOTES[:-30])
    assert inventory(tmp_path)[1]
    made.write(path, made.VOTES)
    made.write(tmp_path / "fer2013.csv", made.fer2013_csv(12))
    assert "FER+ has 14 rows, FER2013 (fer2013.csv) has 12" in " ".join(inventory(tmp_path)[0].split())
