"""The drawn faces: deterministic, in the official layouts, expressive, and faces in the eyes of MTCNN."""

import dataclasses
from collections import defaultdict
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from fer_utils.datasets import read_sources
from fer_utils.datasets.base import FaceSource, read_grey
from fer_utils.datasets.merge import merge
from fer_utils.demo import layouts
from fer_utils.demo.drawn_face import NEUTRAL, PROTOTYPES, ActionUnits, Identity, View, draw_face
from fer_utils.demo.layouts import demo_faces, write_demo
from fer_utils.detector import Detector
from fer_utils.emotions import EMOTIONS
from fer_utils.files import sha256


class NoDetector(Detector):
    """Finds nothing, at once: what is tested with it does not depend on the crop."""

    def detect(self, picture: np.ndarray, *given: float) -> np.ndarray:
        return np.empty((0, 5))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demo data of few people."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    write_demo(folder, fer2013=20, ckplus=2, jaffe=1)
    return folder


def sketch(*arguments: object) -> np.ndarray:
    """Squares that the arguments decide in place of a face, for what does not depend on its looks."""
    tones = np.random.default_rng(crc32(repr(arguments).encode())).integers(0, 256, (8, 8), np.uint8)
    return np.asarray(Image.fromarray(tones).resize(arguments[-1][::-1], Image.Resampling.NEAREST))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FaceSource]:
    """Sketches of all the people, with few FER2013 rows."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layouts, "draw_face", sketch)
        patch.setattr(layouts, "_photo", lambda drawn, *_, **__: drawn)
        write_demo(folder, fer2013=400)
    return {source.name: source for source in read_sources(folder)}


@pytest.fixture(scope="module")
def person() -> Identity:
    return Identity.draw(np.random.default_rng(8))


def checksums(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_seed_decides_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "draw_face", sketch)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_demo(tmp_path / name, seed=seed, fer2013=20, ckplus=1, jaffe=1)
    first, again, other = (checksums(tmp_path / name) for name in "abc")
    assert first == again
    same = {name for name in first.keys() & other.keys() if first[name] == other[name]}
    assert all(name.endswith("_emotion.txt") for name in same)


def test_layouts(drawn):
    assert [source.name for source in read_sources(drawn)] == ["fer2013", "ckplus", "jaffe"]
    assert (drawn / "fer2013" / "fer2013.csv").read_text().startswith("emotion,pixels,Usage\n")
    label = next((drawn / "CK+" / "Emotion" / "S005" / "001").iterdir())
    assert label.read_text() == "   5.0000000e+00\n"
    frame = drawn / "CK+/cohn-kanade-images/S005/001" / f"{label.name.removesuffix('_emotion.txt')}.png"
    assert read_grey(frame).shape == (490, 640)
    with Image.open(next((drawn / "jaffe").glob("KA.AN1.*.tiff"))) as image:
        assert (image.format, image.mode, image.size) == ("TIFF", "L", (256, 256))


def test_fer2013_traps(sources):
    """Copies across splits, copies with another label, constant images: as many as are promised."""
    source = sources["fer2013"]
    groups = defaultdict(list)
    for i in range(len(source)):
        groups[np.asarray(source.images[i]).tobytes()].append(i)
    copied = [source.table.iloc[rows] for rows in groups.values() if len(rows) > 1]
    assert len(copied) == 6
    assert sum(group["split"].nunique() > 1 for group in copied) == 3
    assert 1 <= sum(group["emotion"].nunique() > 1 for group in copied) <= 2
    flat = [i for i in range(len(source)) if source.images[i].min() == source.images[i].max()]
    assert len(flat) == 2 and set(source.table["split"].iloc[flat]) == {"train"}


def test_faces_are_never_flat_by_accident():
    images = demo_faces(EMOTIONS * 5, seed=5)
    assert images.shape == (40, 48, 48) and images.dtype == np.uint8
    assert images.std(axis=(1, 2)).min() > 8
    assert len({image.tobytes() for image in images}) == 40
    np.testing.assert_array_equal(images, demo_faces(EMOTIONS * 5, seed=5))


def test_sequences_go_from_neutral_to_peak(drawn):
    """The change against the first frame grows, but for the last frames, where the peak is reached."""
    for sequence in ("S005/001", "S005/002", "S010/001"):
        paths = sorted((drawn / "CK+" / "cohn-kanade-images" / sequence).iterdir())
        frames = [read_grey(path).astype(float) for path in paths]
        change = [np.abs(frame - frames[0]).mean() for frame in frames]
        assert len(change) >= 5
        assert change[1] > 0
        assert all(np.diff(change[:-1]) > 0)
        assert change[-1] >= change[-2]


def test_every_split_of_every_source_has_every_class(sources, tmp_path):
    faces = merge(list(sources.values()), tmp_path / "set", detector=NoDetector(), progress=False)
    counts = faces.index.groupby(["source", "split", "label"]).size().unstack()
    assert counts.shape == (9, 6)
    assert counts.notna().all(axis=None)
    assert faces.manifest["duplicates"]["taken_out_of_training"] > 0


def test_mtcnn_finds_the_large_faces(drawn):
    detector = Detector(threads=1)
    for source in read_sources(drawn)[1:]:
        faces = [len(detector.detect(source.images[i], 48)) for i in range(0, len(source), len(source) // 5)]
        assert np.mean([count == 1 for count in faces]) >= 0.8, source.name


@pytest.mark.parametrize("field", dataclasses.fields(ActionUnits), ids=lambda field: field.name)
def test_every_unit_moves_its_part_of_the_face(person, field):
    """Units of brows and lids change the picture above the nose's tip, those of the mouth below it."""
    view = View(span=1.5, centre=(0, 0.25))
    size = 150
    with_mouth = ActionUnits(au25=0.5) if field.name in ("au10", "au20") else NEUTRAL
    rest = draw_face(person, with_mouth, view, (size, size)).astype(float)
    units = dataclasses.replace(with_mouth, **{field.name: 1.0})
    change = np.abs(draw_face(person, units, view, (size, size)) - rest)
    assert change.max() > 20
    tip = int((0.5 - 0.25 + 1.5) / 3 * size)
    upper, lower = change[:tip].sum(), change[tip:].sum()
    if field.name in ("au1", "au2", "au4", "au5", "au7", "au43"):
        assert upper > 10 * lower
    if field.name in ("au14", "au15", "au17", "au20", "au23", "au25", "au26"):
        assert lower > 3 * upper


def test_emotions_differ(person):
    """What a network can learn from: no two prototypes give nearly the same picture."""
    view = View(span=1.2)
    faces = {
        name: draw_face(person, kinds[0], view, (48, 48)).astype(float) for name, kinds in PROTOTYPES.items()
    }
    for a in EMOTIONS:
        for b in EMOTIONS:
            assert a == b or np.abs(faces[a] - faces[b]).mean() > 0.5, (a, b)
