"""Looking below the root: what is found, read, damaged or missing; and fetching from Kaggle when asked."""

import hashlib
import sys
from types import ModuleType

import pytest
from layouts import (
    VOTES,
    affectnet_tree,
    ckplus_tree,
    expw_tree,
    fer2013_csv,
    jaffe_folder,
    pack,
    rafdb_tree,
    refused,
    save,
    write,
)

from fer_utils.datasets import READERS, fetch, find_sources, read_sources
from fer_utils.datasets import inventory as inventory_module
from fer_utils.datasets.fetch import fetch_fer2013
from fer_utils.datasets.inventory import inventory, render


@pytest.fixture
def everything(tmp_path):
    """One of each data set, below one root."""
    root = tmp_path / "data"
    write(root / "fer2013" / "fer2013.csv", fer2013_csv())
    write(root / "fer2013" / "fer2013new.csv", VOTES)
    ckplus_tree(root / "CK+", {"S005/001": (11, 3), "S010/002": (5, 7)})
    jaffe_folder(root / "jaffe")
    rafdb_tree(root / "RAF-DB")
    affectnet_tree(root / "AffectNet")
    expw_tree(root / "ExpW")
    return root


def test_sources_are_found_side_by_side_and_read_in_their_order(everything):
    assert list(find_sources(everything)) == list(READERS)
    sources = read_sources(everything)
    assert [(s.name, len(s)) for s in sources] == [
        ("fer2013", 14),
        ("ckplus", 8),
        ("jaffe", 28),
        ("rafdb", 7),
        ("affectnet", 10),
        ("expw", 7),
    ]
    assert [s.name for s in sources if s.notes] == ["rafdb"]  # its list knows no validation split
    assert [s.name for s in read_sources(everything, ["jaffe", "fer2013"])] == ["fer2013", "jaffe"]


def test_what_is_named_and_not_there_is_an_error(everything, tmp_path):
    refused(lambda: read_sources(everything, ["fer2014"]), says="name some of fer2013, ckplus")
    (everything / "jaffe").rename(tmp_path / "away")
    refused(
        lambda: read_sources(everything, ["jaffe"]), file=everything, says="JAFFE is not below this folder"
    )


def test_an_empty_root_and_a_missing_one_say_where_to_put_the_data(tmp_path):
    refused(
        lambda: read_sources(tmp_path),
        file=tmp_path,
        says="no data set below this folder. Remedy: let FER_DATA",
    )
    refused(
        lambda: read_sources(tmp_path / "x"), file=tmp_path / "x", says="the folder of the data is missing"
    )


def test_one_damaged_source_stops_the_reading(everything):
    path = write(everything / "fer2013" / "fer2013.csv", b"emotion,pixels,Usage\n3,1 2 3,Training\n")
    refused(lambda: read_sources(everything), file=path, row=2)


def test_the_inventory_counts_images_by_class(everything):
    found = inventory(everything)
    assert not found.damaged
    by_title = {row.title: row for row in found.rows}
    assert by_title["FER2013"].counts == dict.fromkeys(
        ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), 2
    )
    assert by_title["FER2013"].splits == {"train": 5, "validation": 5, "test": 4}
    text = render(found)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 110
    head = next(line for line in lines if line.startswith("data set"))
    row = next(line for line in lines if line.startswith("CK+"))
    assert head.split()[2:] == [
        "angry",
        "fear",
        "happy",
        "sad",
        "surprise",
        "neutral",
        "disgust",
        "contempt",
        "total",
    ]
    assert row.split()[-9:] == ["0", "0", "0", "0", "3", "2", "3", "0", "8"]
    assert "FER2013: fer2013/fer2013.csv (fer2013.csv; 5 train, 5 validation, 4 test)" in text
    assert "JAFFE: jaffe (flat folder)" in text
    assert "votes on 14 images, of which 1 are not faces." in text
    assert "Missing" not in text
    assert "Damaged" not in text


def test_the_inventory_says_what_is_missing_and_where_to_get_it_under_which_licence(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        text = " ".join(render(inventory(root)).split())
        assert f"No data set was found below {root}" in text
        for reader in READERS.values():
            for part in (reader.title, reader.how_to_get, reader.homepage, f"Licence: {reader.licence}."):
                assert part in text
        assert "FER+" in text
        assert "fer2013new.csv" in text


def test_the_inventory_shows_all_damage_and_what_is_whole_beside_it(everything):
    write(everything / "fer2013" / "fer2013.csv", b"emotion,pixels,Usage\n3,1 2 3,Training\n")
    for path in list((everything / "jaffe").iterdir())[:7]:
        path.write_bytes(b"")
    (everything / "RAF-DB" / "Image" / "aligned" / "train_00002_aligned.jpg").unlink()
    found = inventory(everything)
    assert found.damaged
    text = render(found)
    flat = " ".join(text.split())
    assert "fer2013.csv, line 2: the row has 3 pixels, expected 2304" in flat
    assert flat.count("the image cannot be decoded") == 5
    assert "JAFFE: and 2 more images are damaged." in flat
    assert "train_00002_aligned.jpg is missing" in flat
    assert "FER2013: fer2013/fer2013.csv (damaged)" in flat
    assert "AffectNet: AffectNet (images and annotations; 8 train, 2 validation)" in flat


def test_the_inventory_opens_no_more_images_than_is_quick(everything, monkeypatch):
    monkeypatch.setattr(inventory_module, "CHECK_AT_MOST", 20)
    next((everything / "jaffe").iterdir()).write_bytes(b"")
    found = inventory(everything)
    assert not found.damaged
    assert "JAFFE: its images were not opened, since they are many." in render(found)


def test_votes_beside_class_folders_are_no_damage(tmp_path):
    save(tmp_path / "fer2013" / "train" / "happy" / "Training_1.png")
    path = write(tmp_path / "fer2013new.csv", VOTES)
    found = inventory(tmp_path)
    assert not found.damaged
    assert "they cannot be joined to FER2013's class folders" in render(found)
    write(path, VOTES[:-30])
    assert inventory(tmp_path).damaged


def test_votes_that_do_not_fit_are_damage(tmp_path):
    write(tmp_path / "fer2013.csv", fer2013_csv(12))
    write(tmp_path / "fer2013new.csv", VOTES)
    found = inventory(tmp_path)
    assert "FER+ has 14 rows, FER2013 (fer2013.csv) has 12" in found.rows[-1].errors[0]


# Fetching


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    """A stand-in for kagglehub that hands out a folder, and the checksum of what lies there."""
    cache = tmp_path / "cache"
    module = ModuleType("kagglehub")
    module.asked = []

    def competition_download(name):
        module.asked.append(name)
        return str(cache)

    module.competition_download = competition_download
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    data = fer2013_csv()
    monkeypatch.setitem(fetch.CHECKSUMS, "fer2013", hashlib.md5(data).hexdigest())
    write(cache / "fer2013.tar.gz", pack(".tar.gz", data, "fer2013/fer2013.csv"))
    write(cache / "train.csv", "emotion,pixels\n")
    module.cache, module.data = cache, data
    return module


def test_fetch_unpacks_the_best_file_and_does_not_fetch_twice(tmp_path, kaggle):
    path = fetch_fer2013(tmp_path / "data")
    assert path == tmp_path / "data" / "fer2013" / "fer2013.csv"
    assert path.read_bytes() == kaggle.data
    assert kaggle.asked == ["challenges-in-representation-learning-facial-expression-recognition-challenge"]
    assert fetch_fer2013(tmp_path / "data") == path
    assert len(kaggle.asked) == 1
    assert [p.name for p in path.parent.iterdir()] == ["fer2013.csv"]
    assert len(read_sources(tmp_path / "data")[0]) == 14


@pytest.mark.parametrize("name", ["fer2013.csv", "icml_face_data.csv", "train.csv"])
def test_fetch_leaves_what_is_there(tmp_path, kaggle, name):
    path = write(tmp_path / "fer2013" / name, "mine")
    assert fetch_fer2013(tmp_path) == path
    assert path.read_text() == "mine"
    assert not kaggle.asked


def test_fetch_keeps_no_file_with_another_checksum(tmp_path, kaggle):
    source = write(kaggle.cache / "fer2013.tar.gz", pack(".tar.gz", kaggle.data + b"\n", "fer2013.csv"))
    refused(lambda: fetch_fer2013(tmp_path / "data"), file=source, says="differs from the known fer2013.csv")
    assert not list((tmp_path / "data").rglob("*"))


def test_fetch_keeps_nothing_of_a_damaged_archive(tmp_path, kaggle):
    source = kaggle.cache / "fer2013.tar.gz"
    source.write_bytes(source.read_bytes()[:-1000])
    (tmp_path / "data" / "fer2013").mkdir(parents=True)
    refused(lambda: fetch_fer2013(tmp_path / "data"), file=source, says="damaged or incomplete")
    assert not list((tmp_path / "data" / "fer2013").iterdir())


def test_fetch_names_a_download_without_the_data(tmp_path, kaggle):
    for path in kaggle.cache.iterdir():
        path.rename(path.with_name(f"other-{path.name}.txt"))
    refused(lambda: fetch_fer2013(tmp_path / "data"), file=kaggle.cache, says="none of fer2013.csv")


def test_fetch_without_credentials_says_where_they_go(tmp_path, kaggle):
    def refuse(_name):
        raise OSError("403 Client Error: you must accept this competition's rules")

    kaggle.competition_download = refuse
    with pytest.raises(ValueError, match=r"403.*KAGGLE_USERNAME and KAGGLE_KEY.*accept the rules"):
        fetch_fer2013(tmp_path / "data")


def test_fetch_without_kagglehub_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ValueError, match=r"pip install kagglehub"):
        fetch_fer2013(tmp_path / "data")
