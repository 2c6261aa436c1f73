"""`fer predict` on photos, folders, patterns, videos and damaged files."""

import csv
import io
import json
import subprocess
import sys

import av
import numpy as np
import pytest
from PIL import Image

from fer_utils.cli import main
from fer_utils.demo.drawn_face import PROTOTYPES, Identity, View, draw_face
from fer_utils.emotions import CLASSES


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """Two people, one of them in a folder below, a wall, a damaged file and one that is no picture."""
    folder, rng = tmp_path_factory.mktemp("album — été"), np.random.default_rng(3)
    (folder / "below").mkdir()
    for name, emotion in (("anna.png", "happy"), ("below/anna.jpg", "surprise")):
        face = draw_face(Identity.draw(rng), PROTOTYPES[emotion][0], View(span=2.2), (150, 200))
        Image.fromarray(face).save(folder / name)
    Image.new("L", (200, 150), 120).save(folder / "wall.png")
    (folder / "broken.jpg").write_bytes((folder / "below" / "anna.jpg").read_bytes()[:700])
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def told(capsys):
    """Runs the command: exit code, standard output, lines of standard error."""
    capsys.readouterr()

    def run(*arguments):
        code = main(["predict", "--network", "easynet", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return run


def test_a_folder_is_read_to_the_bottom_and_a_damaged_file_loses_no_other(album, told):
    code, out, errors = told(album, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    names = [row["file"].removeprefix(f"{album}/") for row in rows]
    assert code == 1 and names == ["anna.png", "below/anna.jpg", "wall.png"]
    assert len(errors) == 1 and "broken.jpg" in errors[0] and "damaged" in errors[0]
    assert rows[2]["emotion"] == "" and rows[0]["emotion"] in CLASSES
    for row in rows[:2]:
        assert sum(float(row[name]) for name in CLASSES) == pytest.approx(1, abs=1e-3)
        assert 0 < float(row["left"]) < float(row["right"]) < 200 and float(row["confidence"]) > 0.9


def test_the_three_forms_say_the_same(album, told):
    file = album / "anna.png"
    (row,) = csv.DictReader(io.StringIO(told(file, "--csv")[1]))
    (line,) = told(file, "--jsonl")[1].splitlines()
    assert {k: str(v) for k, v in json.loads(line).items()} == row
    table = told(file)[1]
    assert row["emotion"] in table and f"{float(row['happy']):.3f}" in table and "anna.png" in table


def test_patterns_and_what_gives_nothing(album, told, tmp_path):
    code, out, errors = told(album / "*.png", "--jsonl")
    assert code == 0 and len(out.splitlines()) == 2 and not errors
    code, out, errors = told(
        tmp_path, tmp_path / "x*.png", tmp_path / "absent.png", album / "notes.txt", "--jsonl"
    )
    assert code == 1 and not out
    for word, error in zip(
        ("no pictures", "no file matches", "no such file", "no picture"), errors, strict=True
    ):
        assert word in error


def test_annotated_copies_are_told_apart_by_number(album, told, tmp_path):
    code, _, _ = told(album / "anna.png", album / "below", "--annotate", tmp_path / "out")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["anna-2.png", "anna.png"]
    copy, original = (
        np.asarray(Image.open(p).convert("RGB")) for p in (tmp_path / "out/anna.png", album / "anna.png")
    )
    assert copy.shape == original.shape and (copy != original).any()


def test_a_video_is_told_by_seconds_and_track_and_annotated(album, told, tmp_path):
    face = np.asarray(Image.open(album / "anna.png").convert("RGB"))
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 200, 150, "yuv420p"
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(face, format="rgb24")))
        container.mux(stream.encode(None))
    code, out, errors = told(
        tmp_path / "clip.mp4", "--csv", "--every", 2, "--annotate", tmp_path / "seen.mp4"
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, errors) == (0, []) and [row["seconds"] for row in rows] == ["0.0", "0.2", "0.4"]
    assert {row["track"] for row in rows} == {"0"}
    with av.open(str(tmp_path / "seen.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3


@pytest.mark.parametrize(
    "wrong", ["--network=alexnet", "--min-confidence=2", "--every=0", "--min-face=0", "no path"]
)
def test_settings_out_of_range_are_refused(album, told, wrong):
    code, out, errors = told("--jsonl", *[album / "wall.png", wrong] * (wrong != "no path"))
    assert code == 1 and not out and len(errors) == 1


def test_a_reader_that_has_enough_is_no_error_and_the_locale_does_not_matter(album):
    program = "import sys; from fer_utils.cli import main; sys.exit(main())"
    paths = f"'{album / 'anna.png'}' '{album / 'below'}'"
    command = f"{sys.executable} -c '{program}' predict {paths} --jsonl | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONUTF8": "0"},
    )
    assert done.stderr == b"" and "été" in json.loads(done.stdout.decode("utf-8"))["file"]
