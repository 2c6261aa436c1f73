"""The merged set on disk: opening, views, exports, and damage that is found."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError


@pytest.fixture
def copy(toy_faces, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for path in toy_faces.path.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_images_stay_on_disk(toy_faces):
    faces = FaceSet.open(toy_faces.path)
    assert isinstance(faces.images, np.memmap)
    assert not faces.images.flags.writeable


def test_views_keep_images_and_index_together(toy_faces):
    test = toy_faces.split("test")
    assert len(test) == len(test.index) == len(test.images) == len(test.labels) == 60
    rows = np.flatnonzero(toy_faces.index["split"] == "test")
    np.testing.assert_array_equal(test.images, toy_faces.images[rows])
    np.testing.assert_array_equal(test.take([3, 1]), toy_faces.images[rows[[3, 1]]])
    happy = test.where(test.labels == CLASSES.index("happy"))
    assert len(happy) == 10
    np.testing.assert_array_equal(happy.images, toy_faces.images[rows[test.labels == 2]])
    assert len(toy_faces.split("test", "jaffe")) == 0


def test_counts_add_up(toy_faces):
    counts = toy_faces.counts()
    assert list(counts.index) == [*CLASSES, "total"]
    assert counts.loc["total"].to_dict() == {
        ("fer2013", "train"): 300,
        ("fer2013", "validation"): 60,
        ("fer2013", "test"): 60,
    }
    assert (counts.loc[list(CLASSES), ("fer2013", "test")] == 10).all()


def test_export_as_image_folder_is_read_by_torchvision(toy_faces, tmp_path):
    faces = toy_faces.split("test")
    replace(faces, table=faces.table.assign(subject="NA")).export_folder(tmp_path / "out")  # of JAFFE
    folder = ImageFolder(tmp_path / "out" / "test")
    assert sorted(folder.classes) == sorted(CLASSES)
    assert len(folder) == 60
    table = pd.read_csv(tmp_path / "out" / "metadata.csv")
    assert (table["subject"] == table["source"] + "-NA").all()
    for row in (0, 17, 59):
        image = np.asarray(Image.open(tmp_path / "out" / table["file_name"][row]))
        np.testing.assert_array_equal(image, toy_faces.split("test").take([row])[0])
    with pytest.raises(DataError, match="not empty"):
        toy_faces.export_folder(tmp_path / "out")


def test_the_export_is_read_by_hugging_face_too(toy_faces, tmp_path):
    datasets = pytest.importorskip("datasets")
    toy_faces.export_folder(tmp_path / "out")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "c")
    )
    assert {name: len(part) for name, part in loaded.items()} == {"train": 300, "validation": 60, "test": 60}
    record = loaded["test"][31]
    assert loaded["test"].features["label"].names == sorted(CLASSES)
    image = np.asarray(record["image"].convert("L"))
    assert (toy_faces.split("test").images == image).all(axis=(1, 2)).sum() == 1


@pytest.mark.parametrize("name", ["images.npy", "index.parquet", "manifest.json"])
def test_a_missing_or_truncated_file_is_found_when_opened(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"damaged.*fer merge"):
        FaceSet.open(copy)
    (copy / name).unlink()
    with pytest.raises(DataError, match=rf"{name}.*fer merge"):
        FaceSet.open(copy)


def test_an_index_that_was_changed_is_found_when_opened(copy):
    pd.read_parquet(copy / "index.parquet").assign(label=np.int8(0)).to_parquet(copy / "index.parquet")
    with pytest.raises(DataError, match=r"another checksum.*fer merge"):
        FaceSet.open(copy)


def test_files_of_two_sets_or_of_another_format_do_not_mix(copy):
    images = np.load(copy / "images.npy")
    np.save(copy / "images.npy", images[:-1])
    with pytest.raises(DataError, match="do not belong together"):
        FaceSet.open(copy)
    np.save(copy / "images.npy", images)
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(DataError, match="do not belong together"):
        FaceSet.open(copy)
