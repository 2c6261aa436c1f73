"""CK+: the official tree, the repack of class folders, the CSV repack, and damage to each of them."""

import shutil

import numpy as np
import pytest
from layouts import (
    PACKINGS,
    USAGES,
    ckplus_tree,
    csv_bytes,
    fer2013_csv,
    load,
    noise,
    pack,
    refused,
    save,
    write,
)
from PIL import Image

from fer_utils.datasets import ckplus, fer2013
from fer_utils.emotions import CKPLUS, CKPLUS_CSV

FRAME = "cohn-kanade-images/{0}/{1}/{0}_{1}_{2:08d}.png"


def read(root):
    return load(ckplus, root)


def taken(source):
    """By frame, as `S005/001/11`: the emotion it was given."""
    names = [origin.rsplit("/", 1)[1].split(".")[0].split("_") for origin in source.table["origin"]]
    frames = [f"{subject}/{sequence}/{int(number)}" for subject, sequence, number in names]
    assert len(set(frames)) == len(frames)
    return dict(zip(frames, source.table["emotion"], strict=True))


def test_peak_frames_carry_the_label_and_the_first_frame_is_neutral(tmp_path):
    ckplus_tree(
        tmp_path / "CK+", {"S005/001": (11, 3), "S010/002": (5, 7), "S010/004": (6, None), "S011/001": (4, 2)}
    )
    source = read(tmp_path)
    assert taken(source) == {
        "S005/001/1": "neutral",
        **dict.fromkeys(("S005/001/9", "S005/001/10", "S005/001/11"), "disgust"),
        "S010/002/1": "neutral",
        **dict.fromkeys(("S010/002/3", "S010/002/4", "S010/002/5"), "surprise"),
        "S011/001/1": "neutral",
        **dict.fromkeys(("S011/001/2", "S011/001/3", "S011/001/4"), "contempt"),
    }
    assert source.table["subject"].tolist() == ["S005"] * 4 + ["S010"] * 4 + ["S011"] * 4
    assert source.table["split"].isna().all()
    assert source.layout == "official tree"
    assert not source.cropped
    assert source.notes == ("1 of 4 sequences have no label and were left out",)
    np.testing.assert_array_equal(
        source.images[3], np.asarray(Image.open(tmp_path / source.table["origin"][3]))
    )
    assert {p.suffix for p in source.files} == {".png", ".txt"}


@pytest.mark.parametrize("code", CKPLUS)
def test_every_code(tmp_path, code):
    ckplus_tree(tmp_path, {"S005/001": (4, code)})
    assert read(tmp_path).table["emotion"].tolist() == ["neutral", *[CKPLUS[code]] * 3]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("extended-cohn-kanade-images/cohn-kanade-images", "Emotion_labels/Emotion"),
        ("CK+/Images/cohn-kanade-images", "CK+/Labels/Emotion"),
        ("CK+/cohn-kanade-images/cohn-kanade-images", "CK+/Emotion"),
        ("Cohn-Kanade-Images", "emotion"),
    ],
)
def test_images_and_labels_as_their_archives_unpack(tmp_path, images, labels):
    ckplus_tree(tmp_path / "made", {"S005/001": (11, 3)})
    for made, place in (("cohn-kanade-images", images), ("Emotion", labels)):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / made).rename(tmp_path / place)
        write(tmp_path / place / "S005" / ".DS_Store", b"x")  # what systems leave in folders
        write(tmp_path / place / "S005" / "001" / "._S005_001_00000011.png", b"x")
    source = read(tmp_path)
    assert len(source) == 4
    assert not source.notes


@pytest.mark.parametrize("frame", [1, 5, 11])
def test_a_missing_frame_is_noted(tmp_path, frame):
    ckplus_tree(tmp_path, {"S005/001": (11, 3), "S006/001": (4, 5)})
    (tmp_path / FRAME.format("S005", "001", frame)).unlink()
    source = read(tmp_path)
    assert "the frames of 1 labelled sequences (S005/001) are not numbered from 1" in source.notes[0]
    numbers = [int(key.rsplit("/")[-1]) for key in taken(source) if key.startswith("S005")]
    assert numbers == {1: [2, 9, 10, 11], 5: [1, 9, 10, 11], 11: [1, 8, 9, 10]}[frame]


@pytest.mark.parametrize("text", ["", "happy", "8", "-1", "3.5", "nan", "3 3", b"\xff\xfe\x00", b"\x00" * 9])
def test_a_label_that_is_none_is_named(tmp_path, text):
    ckplus_tree(tmp_path, {"S005/001": (11, 3), "S006/001": (4, 5)})
    label = write(tmp_path / "Emotion" / "S006" / "001" / "S006_001_00000004_emotion.txt", text)
    refused(lambda: read(tmp_path), file=label)


def test_two_labels_of_a_sequence_are_refused_and_so_is_one_without_images(tmp_path):
    ckplus_tree(tmp_path, {"S005/001": (11, 3), "S006/001": (4, 5)})
    shutil.rmtree(tmp_path / "cohn-kanade-images" / "S006")
    label = tmp_path / "Emotion" / "S006" / "001" / "S006_001_00000004_emotion.txt"
    refused(lambda: read(tmp_path), file=label, says="S006/001 has no images")
    second = write(tmp_path / "Emotion" / "S005" / "001" / "S005_001_00000012_emotion.txt", "3")
    refused(lambda: read(tmp_path), file=second, says="two labels")


@pytest.mark.parametrize("name", ["S005_001.png", "frame11.png", "S005_001_00000011 (1).png"])
def test_a_frame_with_another_name_is_refused(tmp_path, name):
    ckplus_tree(tmp_path, {"S005/001": (11, 3)})
    path = save(tmp_path / "cohn-kanade-images" / "S005" / "001" / name)
    refused(lambda: read(tmp_path), file=path, says="as S010_004_00000017 does")


# The repacks: class folders, and a CSV

REPACK = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
EMOTIONS = ("angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")


def repack(root, suffix=".png"):
    for i, name in enumerate(REPACK):
        for frame in (15, 16, 17):
            save(root / name / f"S{10 + i:03d}_004_{frame:08d}{suffix}", seed=frame + 100 * i)
    return root


@pytest.mark.parametrize("place", ["CK+48", "archive/CK+48", "archive", ""])
@pytest.mark.parametrize("suffix", [".PNG", ".jpg"])
def test_the_repack_wherever_it_lies(tmp_path, place, suffix):
    repack(tmp_path / place, suffix)
    write(tmp_path / "__MACOSX" / "CK+48" / "anger" / "._S010_004_00000015.png", b"x")
    source = read(tmp_path)
    assert source.table["emotion"].tolist() == [e for e in EMOTIONS for _ in range(3)]
    assert source.table["subject"].tolist() == [f"S{10 + i:03d}" for i in range(7) for _ in range(3)]
    assert source.cropped
    assert source.own_splits is (suffix == ".PNG") is not bool(source.notes)
    assert load(fer2013, tmp_path) is None


def test_a_repack_with_an_unknown_class_or_without_subjects_is_refused(tmp_path):
    path = save(repack(tmp_path / "CK+48") / "fear" / "17.png")
    refused(lambda: read(tmp_path), file=path, says="does not give subject")
    path.unlink()
    (tmp_path / "CK+48" / "fear").rename(tmp_path / "CK+48" / "panic")
    refused(lambda: read(tmp_path), file=tmp_path / "CK+48" / "panic", says="known are angry")


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", ["ckextended.csv", "ckplus/CK+48.csv"])
def test_the_csv_repack(tmp_path, packing, name):
    data = csv_bytes(noise(8), range(8), [USAGES[i % 3] for i in range(8)])
    path = write(tmp_path / f"{name}{packing}", pack(packing, data, name.split("/")[-1]))
    source = read(tmp_path)
    assert source.table["emotion"].tolist() == list(CKPLUS_CSV.values())
    assert source.table["split"].tolist() == [["train", "validation", "test"][i % 3] for i in range(8)]
    assert source.notes == (
        "this repack names no subjects: its splits may have the same person on both sides",
    )
    np.testing.assert_array_equal(source.images, noise(8))
    data = csv_bytes(noise(2), [7, 8], USAGES[:2])
    write(path, pack(packing, data, name.split("/")[-1]))
    refused(lambda: read(tmp_path), file=path, row=3, says="known are 0 angry")


def test_the_official_tree_is_preferred_and_the_others_are_named(tmp_path):
    ckplus_tree(tmp_path, {"S005/001": (11, 3)})
    repack(tmp_path / "CK+48")
    write(tmp_path / "ckextended.csv", fer2013_csv())
    source = read(tmp_path)
    assert source.layout == "official tree"
    assert source.notes == ("also there and not read: CK+48, ckextended.csv",)
