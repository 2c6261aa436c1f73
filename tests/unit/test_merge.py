"""The merge: six classes, no leak between splits, subjects kept apart, the same bytes each time."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import noise
from PIL import Image

from fer_utils.datasets.base import FaceSource, ImageFiles
from fer_utils.datasets.merge import merge
from fer_utils.emotions import CLASSES, EMOTIONS, to_labels
from fer_utils.errors import DataError
from fer_utils.faces import resize


def source(emotions, images, *, splits=None, subjects=None, name="fer2013", cropped=True, files=()):
    table = pd.DataFrame(
        {
            "emotion": list(emotions),
            "subject": subjects,
            "split": splits,
            "origin": [f"{name}.csv:{i + 2}" for i in range(len(images))],
        }
    )
    return FaceSource(name, "made by a test", table, images, cropped=cropped, files=tuple(files))


def posed(subjects=10, each=12, name="jaffe", seed=1):
    """A source without official splits: every subject shows every emotion."""
    n = subjects * each
    who = [f"P{i // each:02d}" for i in range(n)]
    return source([EMOTIONS[i % 7] for i in range(n)], noise(n, seed=seed), subjects=who, name=name)


def official(n=60, seed=0):
    splits = ["train"] * (n - 20) + ["validation"] * 10 + ["test"] * 10
    return source([EMOTIONS[i % 7] for i in range(n)], noise(n, seed=seed), splits=splits)


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def test_six_classes_and_every_dropped_image_is_counted(tmp_path):
    emotions = [*CLASSES, "disgust", "contempt", "contempt"]
    faces = merge([source(emotions, noise(9), splits=["train"] * 9)], tmp_path / "m", progress=False)
    assert faces.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert faces.images.shape == (6, 64, 64)
    assert faces.images.dtype == np.uint8
    entry = faces.manifest["sources"][0]
    assert entry["read"] == 9
    assert entry["dropped"] == {"contempt": 2, "disgust": 1, "training copy of a held-out image": 0}
    assert entry["kept"] == {"train": 6, "validation": 0, "test": 0}


def test_disgust_can_be_folded_into_angry(tmp_path):
    emotions = ["angry", "disgust", "contempt"]
    faces = merge(
        [source(emotions, noise(3), splits=["train"] * 3)], tmp_path / "m", disgust="angry", progress=False
    )
    assert faces.labels.tolist() == [0, 0]
    assert faces.index["emotion"].tolist() == ["angry", "disgust"]


def test_copies_of_held_out_images_leave_training(tmp_path):
    images = noise(8)
    images[1] = images[5]  # training copy of a validation image
    images[2] = images[6]  # training copy of a test image
    images[7] = images[5]  # test copy of a validation image: stays, but is marked
    images[3] = images[0]  # two training images alike: both stay
    splits = ["train"] * 5 + ["validation", "test", "test"]
    emotions = ["happy"] * 4 + ["sad"] * 4
    faces = merge([source(emotions, images, splits=splits)], tmp_path / "m", progress=False)
    assert faces.index["origin"].tolist() == [f"fer2013.csv:{line}" for line in (2, 5, 6, 7, 8, 9)]
    assert faces.index["seen_copy"].tolist() == [False, False, False, True, True, True]
    assert faces.manifest["six_classes"] == 8
    assert faces.manifest["duplicates"] == {
        "taken_out_of_training": 2,
        "groups_with_conflicting_labels": 2,
    }
    entry = faces.manifest["sources"][0]
    assert entry["dropped"]["training copy of a held-out image"] == 2
    assert entry["copies_of_earlier_splits"] == {"validation": 1, "test": 2}


@given(st.integers(0, 1000), st.integers(3, 12), st.lists(st.booleans(), min_size=30, max_size=30))
@settings(max_examples=15, deadline=None)
def test_no_leak_and_no_shared_subject_whatever_the_input(tmp_path_factory, seed, subjects, repeat):
    rng = np.random.default_rng(seed)
    images = noise(30, size=6, seed=seed)
    for i in np.flatnonzero(repeat):
        images[i] = images[rng.integers(30)]
    one = source(
        rng.choice(EMOTIONS, 30), images, splits=list(rng.choice(["train", "validation", "test"], 30))
    )
    n = subjects * 7
    two = source(
        [EMOTIONS[i % 7] for i in range(n)],
        noise(n, size=6, seed=seed + 1),
        subjects=[f"P{i // 7}" for i in range(n)],
        name="jaffe",
    )
    out, unasked = tmp_path_factory.mktemp("m") / "set", object()  # a detector takes time to load
    faces = merge([one, two], out, seed=seed, detector=unasked, progress=False)
    index = faces.index
    train, held_out = index[index["split"] == "train"], index[index["split"] != "train"]
    assert not set(train["hash"]) & set(held_out["hash"])
    by_subject = index.dropna(subset="subject").groupby("subject")["split"].nunique()
    assert (by_subject == 1).all()
    # Nothing gets lost unseen: what was read is kept or counted as dropped.
    for entry in faces.manifest["sources"]:
        assert entry["read"] == sum(entry["kept"].values()) + sum(entry["dropped"].values())
    expected = to_labels(index["emotion"])
    assert (index["label"].to_numpy() == expected).all()


def test_merging_twice_gives_identical_bytes(tmp_path):
    merge([official(), posed()], tmp_path / "a", progress=False)
    merge([official(), posed()], tmp_path / "b", progress=False)
    merge([official(), posed()], tmp_path / "a", progress=False)  # over an older set
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_images_are_never_all_in_memory(tmp_path):
    class Made:
        def __getitem__(self, i):
            return np.full((64, 64), 100, np.uint8) + np.eye(64, dtype=np.uint8) * (i // 100) + i % 100

    n = 3000
    splits = ["train"] * (n - 20) + ["validation"] * 10 + ["test"] * 10
    parts = [pd.Series(values) for values in (splits, [CLASSES[i % 6] for i in range(n)])]
    table = pd.DataFrame({"emotion": parts[1], "subject": None, "split": parts[0], "origin": parts[1]})
    made = FaceSource("fer2013", "made by a test", table, Made(), cropped=True, files=())
    merge([official()], tmp_path / "first", progress=False)  # imports what it needs
    tracemalloc.start()
    faces = merge([made], tmp_path / "m", progress=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(faces) == n and peak < n * 64 * 64 / 2


def test_frames_are_cropped_to_the_largest_face_or_to_their_centre(tmp_path):
    class Detector:
        def detect(self, frame, min_face):
            found = [(10.0, 20.0, 30.0, 40.0, 1.0), (0.0, 0.0, 5.0, 5.0, 1.0)] if frame[0, 0] else []
            return np.array(found).reshape(-1, 5)

    frames = np.zeros((60, 50, 80), np.uint8)
    frames[::2, 0, 0] = 1  # the detector finds faces in every other frame
    frames[:, 20:40, 10:30] = 200
    frames += np.arange(60, dtype=np.uint8)[:, None, None]
    frames[1::2, 0, 0] = 0
    who = [f"P{i % 10}" for i in range(60)]
    posed_frames = source(
        [CLASSES[i % 6] for i in range(60)], frames, subjects=who, name="ckplus", cropped=False
    )
    faces = merge([posed_frames], tmp_path / "m", detector=Detector(), progress=False)
    cropping = faces.manifest["sources"][0]["cropping"]
    assert (cropping["detected"], cropping["several_faces"], len(cropping["centre_crop"])) == (30, 30, 30)
    assert cropping["centre_crop"][0] == "ckplus.csv:3"
    found = faces.images[faces.index["origin"].eq("ckplus.csv:2").to_numpy()][0]
    assert (np.abs(found.astype(int) - 200) <= 1).all()  # the bright square and nothing else
    centre = faces.images[faces.index["origin"].eq("ckplus.csv:3").to_numpy()][0]
    np.testing.assert_array_equal(centre, resize(frames[1:2, :, 15:65])[0])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no images of the six classes"),
        ([source(["contempt"], noise(1), splits=["train"])], "no images of the six classes"),
        ([posed(subjects=2)], "2 subject"),
        ([source(["happy"], noise(1))], "images without one"),
    ],
)
def test_what_cannot_be_merged_is_refused_and_leaves_nothing_behind(tmp_path, sources, message):
    with pytest.raises(DataError, match=message):
        merge(sources, tmp_path / "m", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_image_stops_the_merge_and_the_old_set_stays(tmp_path):
    merge([official()], tmp_path / "m", progress=False)
    before = files_of(tmp_path / "m")
    paths = []
    for i in range(3):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(noise(1, seed=i)[0]).save(paths[-1])
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    bad = source(["happy"] * 3, ImageFiles(paths), splits=["train"] * 3)
    with pytest.raises(DataError, match=r"1\.png: the picture is damaged"):
        merge([bad], tmp_path / "m", progress=False)
    assert files_of(tmp_path / "m") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.png", "1.png", "2.png", "m"]


def test_a_folder_with_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear to me")
    with pytest.raises(DataError, match="not empty"):
        merge([official()], tmp_path, progress=False)
    assert (tmp_path / "thesis.txt").read_text() == "dear to me"


def test_the_manifest_names_the_files_that_were_read(tmp_path):
    (tmp_path / "fer2013.csv").write_text("x")
    made = source(["happy"], noise(1), splits=["train"], files=[tmp_path / "fer2013.csv"])
    faces = merge([made], tmp_path / "m", progress=False)
    manifest = json.loads((tmp_path / "m" / "manifest.json").read_text())
    assert manifest == faces.manifest
    assert manifest["sources"][0]["checksums"] == {
        "fer2013.csv": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    }
