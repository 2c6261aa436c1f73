"""Videos: times, orientation, damage, tracks, smoothing and annotation, on clips that are made here."""

import wave
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_utils.annotate import BEST, annotate
from fer_utils.demo.drawn_face import PROTOTYPES, Identity, View, draw_face
from fer_utils.errors import DataError
from fer_utils.prediction import Face, Predictor
from fer_utils.video import PATIENCE, Frame, Tracker, annotate_video, overlap, predict_video, read_video

av = pytest.importorskip("av")

RIGHT, LEFT = (10, 10, 50, 60), (110, 10, 150, 60)


def write_clip(path: Path, frames: list, times=None, matrix=None, aspect=None, **options) -> Path:
    """Write RGB frames, 25 a second or at the times given in milliseconds."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("h264", rate=25, options={"crf": "12", "bf": "0" if times else "2"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.codec_context.time_base = Fraction(1, 1000)
        if matrix:
            stream.set_display_matrix([v * 65536 for v in (*matrix[:2], 0, *matrix[2:], 0, 0, 0)] + [1 << 30])
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = times[number] if times else 40 * number, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_a_title_in_another_encoding_does_no_harm(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "title in ASCII"
        stream = container.add_stream("h264", rate=25)
        stream.height, stream.width = 48, 80
        container.mux(stream.encode(av.VideoFrame.from_ndarray(levels(1)[0], format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"title in ASCII", b"title in \xc4\xd6\xdc!!"))
    assert len(list(read_video(path))) == 1


def levels(count: int) -> list[np.ndarray]:
    """Plain frames, each lighter than the one before, with noise that no encoder can leave out."""
    noise = np.random.default_rng(0).integers(0, 30, (count, 48, 80, 1))
    steps = np.linspace(20, 200, count).astype(int)[:, None, None, None]
    return list(np.repeat(steps + noise, 3, 3).astype(np.uint8))


def face(box, probabilities=(1, 0, 0, 0, 0, 0)) -> Face:
    return Face("", box, 1.0, np.array(probabilities, np.float32), np.zeros((64, 64), np.uint8))


def moved(box, dx: float, dy: float = 0) -> tuple[float, ...]:
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def portrait(emotion: str, seed: int = 3) -> np.ndarray:
    drawn = draw_face(
        Identity.draw(np.random.default_rng(seed)), PROTOTYPES[emotion][0], View(span=1.9), (120, 120)
    )
    return np.repeat(drawn[..., None], 3, 2)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor("easynet", threads=1)


def test_times_are_those_of_the_frames(tmp_path):
    """The rate varies: count divided by rate would be wrong by seconds."""
    times = [500, 540, 580, 1000, 3000, 3040]
    clip = write_clip(tmp_path / "clip.mp4", levels(6), times)
    frames = list(read_video(clip))
    assert [f.number for f in frames] == [0, 1, 2, 3, 4, 5]
    assert [f.seconds for f in frames] == pytest.approx([(t - 500) / 1000 for t in times])
    assert [f.pixels.mean() for f in frames] == pytest.approx([f.mean() for f in levels(6)], abs=3)
    some = list(read_video(clip, every=4))
    assert [f.number for f in some] == [0, 4]
    assert some[1].seconds == pytest.approx(2.5)


def test_a_stream_without_times_goes_by_its_rate(tmp_path):
    clip = write_clip(tmp_path / "clip.h264", levels(4))
    assert [f.seconds for f in read_video(clip)] == pytest.approx([0, 0.04, 0.08, 0.12])


# How the stored picture is turned or mirrored to be seen upright, by the display matrix a, b, c, d.
UPRIGHT = {
    (1, 0, 0, 1): lambda p: p,
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),  # a phone held upright: clockwise
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1],
    (0, -1, 1, 0): np.rot90,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda p: p.swapaxes(0, 1),
    (0, -1, -1, 0): lambda p: p[::-1, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", UPRIGHT, ids=str)
def test_frames_are_turned_as_the_file_says(tmp_path, matrix):
    y, x = np.mgrid[:48, :80]
    stored = np.stack([3 * x, 5 * y, 0 * x], -1).astype(np.uint8)
    (frame,) = read_video(write_clip(tmp_path / "clip.mp4", [stored], matrix=matrix))
    expected = UPRIGHT[matrix](stored)
    assert frame.pixels.shape == expected.shape
    assert np.abs(frame.pixels.astype(int) - expected).mean() < 5


def test_wide_pixels_are_made_square(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", levels(1), aspect=Fraction(3, 2))
    assert next(read_video(clip)).pixels.shape == (48, 120, 3)


@pytest.mark.parametrize(("name", "options"), [("clip.mp4", {"movflags": "faststart"}), ("clip.mkv", {})])
def test_frames_before_a_damage_are_kept(tmp_path, name, options):
    frames = levels(60)
    clip = write_clip(tmp_path / name, frames, **options)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    kept = []
    with pytest.raises(DataError, match=r"damaged after \d\.\d s, \d+ frames .*get the file again") as caught:
        kept.extend(read_video(clip))
    assert (
        15 < len(kept) < 45 and f" {len(kept)} frames" in str(caught.value) and str(clip) in str(caught.value)
    )
    assert [f.pixels.mean() for f in kept] == pytest.approx([f.mean() for f in frames[: len(kept)]], abs=3)


def test_what_is_no_video_is_refused(tmp_path):
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16000))
    (tmp_path / "notes.txt").write_text("no frames here\n" * 50)
    (tmp_path / "empty.mp4").touch()
    moov_lost = write_clip(tmp_path / "cut.mp4", levels(9))
    moov_lost.write_bytes(moov_lost.read_bytes()[:-300])
    for name, problem in {
        "sound.wav": "no video in this file",
        "notes.txt": "no video in this file",
        "empty.mp4": "no video, or a damaged one",
        "cut.mp4": "no video, or a damaged one",
        "missing.mp4": "No such file",
        ".": "cannot be read",
    }.items():
        with pytest.raises(DataError, match=f"{problem}.*Remedy") as caught:
            list(read_video(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(DataError, match="camera 77"):
        list(read_video(77))


def test_one_frame_and_gif(tmp_path):
    assert len(list(read_video(write_clip(tmp_path / "clip.mp4", levels(1))))) == 1
    pictures = [Image.fromarray(pixels) for pixels in levels(3)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 300, 100])
    assert [f.seconds for f in read_video(tmp_path / "a.gif")] == pytest.approx([0, 0.1, 0.4])


def test_overlap():
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0


def test_smoothing_is_by_time_and_not_by_frame():
    """After a step, what is left of the old answer depends on the time that passed alone."""
    for step in (0.04, 0.1):
        tracker = Tracker(smoothing=0.5)
        tracker.update([face(RIGHT)], 0.0)
        for k in range(1, round(1 / step) + 1):
            ((_, seen),) = tracker.update([face(RIGHT, (0, 1, 0, 0, 0, 0))], k * step)
        assert seen.probabilities == pytest.approx([np.exp(-2), 1 - np.exp(-2), 0, 0, 0, 0], abs=1e-6)
        assert seen.probabilities.dtype == np.float32
    plain = Tracker(smoothing=0)
    plain.update([face(RIGHT)], 0.0)
    ((_, seen),) = plain.update([face(RIGHT, (0, 1, 0, 0, 0, 0))], 0.01)
    assert seen.probabilities.tolist() == [0, 1, 0, 0, 0, 0]


def test_tracks_do_not_depend_on_the_order_of_the_faces():
    tracker = Tracker()
    assert [n for n, _ in tracker.update([face(RIGHT), face(LEFT)], 0.0)] == [0, 1]
    assert [n for n, _ in tracker.update([face(LEFT), face(RIGHT)], 0.04)] == [1, 0]


def test_a_face_that_returns_soon_is_the_same():
    for hidden, number in ((0.9 * PATIENCE, 0), (1.5 * PATIENCE, 1)):
        tracker = Tracker()
        tracker.update([face(RIGHT)], 0.0)
        tracker.update([], 0.04)
        assert tracker.update([face(RIGHT)], hidden)[0][0] == number


def test_few_frames_a_minute_keep_their_tracks():
    tracker = Tracker()
    assert [tracker.update([face(RIGHT)], 20.0 * k)[0][0] for k in range(3)] == [0, 0, 0]


def test_two_faces_that_cross_keep_their_numbers():
    """The one behind is hidden in the middle, and returns on the other side."""
    rng, tracker, seen = np.random.default_rng(0), Tracker(), []
    for k in range(26):
        front, behind = moved(RIGHT, 5 * k, rng.normal()), moved(moved(RIGHT, 130), -5 * k, rng.normal())
        visible = [front, behind] if overlap(front, behind) < 0.15 else [front]
        places = {0: "front", 1: "behind"}
        answers = tracker.update([face(box) for box in visible], k / 25)
        seen += [(places[place], number) for place, (number, _) in enumerate(answers)]
    assert 26 < len(seen) < 52
    assert set(seen) == {("front", 0), ("behind", 1)}


def test_two_drawn_faces_one_goes_and_returns(tmp_path, predictor):
    happy, surprised = portrait("happy"), portrait("surprise", 5)
    both, one = np.hstack([happy, surprised]), np.hstack([happy, np.full_like(happy, 150)])
    clip = write_clip(tmp_path / "clip.mp4", [both, both, one, one, both, both])
    answers = list(predict_video(clip, predictor))
    assert [len(tracks) for _, tracks in answers] == [2, 2, 1, 1, 2, 2]
    for frame, tracks in answers:
        for _, found in tracks:
            left = found.box[0] < 120
            assert found.emotion == ("happy" if left else "surprise")
            assert found.source == str(clip) and frame.pixels.shape == (120, 240, 3)
    assert {(number, found.box[0] < 120) for _, tracks in answers for number, found in tracks} in (
        {(0, True), (1, False)},
        {(1, True), (0, False)},
    )
    sure = list(predict_video(clip, predictor, every=3, largest=True, min_confidence=0.5))
    assert [(f.number, len(tracks)) for f, tracks in sure] == [(0, 1), (3, 1)]


def answers_of(count: int, damaged: bool = False):
    for k, pixels in enumerate(levels(count)):
        yield Frame(k, 0.1 * k**2, np.ascontiguousarray(pixels[:47, :79])), [(7, face((10, 10, 30, 34)))]
    if damaged:
        raise DataError("damaged")


def test_annotated_video_keeps_the_times(tmp_path):
    out = tmp_path / "out.mp4"
    assert [frame.number for frame, _ in annotate_video(answers_of(5), out)] == [0, 1, 2, 3, 4]
    written = list(read_video(out))
    assert [f.seconds for f in written] == pytest.approx([0, 0.1, 0.4, 0.9, 1.6], abs=1e-3)
    with av.open(str(out)) as container:
        assert container.duration > 1.6 * av.time_base  # or else players stop before the end
    assert written[0].pixels.shape == (48, 80, 3)
    plain, _ = next(answers_of(1))
    assert np.abs(written[0].pixels[:47, :79].astype(int) - plain.pixels).max() > 60


def test_annotated_video_of_what_came_before_the_end(tmp_path):
    out = tmp_path / "out.mp4"
    with pytest.raises(DataError, match="damaged"):
        list(annotate_video(answers_of(4, damaged=True), out))
    assert len(list(read_video(out))) == 4
    stopped = annotate_video(answers_of(9), out)
    next(stopped), next(stopped)
    stopped.close()
    assert len(list(read_video(out))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]
    assert list(annotate_video(iter(()), tmp_path / "none.mp4")) == []
    assert not (tmp_path / "none.mp4").exists()
    with pytest.raises(DataError, match="end"):
        next(annotate_video(answers_of(1), tmp_path / "out.txt"))


def bar_lengths(before: np.ndarray, after: np.ndarray) -> int:
    """Pixels that have the colour of the best answer."""
    return int(((after == BEST).all(-1) & (before != after).any(-1)).sum())


@pytest.mark.parametrize("side", [200, 640, 1600])
def test_annotations_show_box_and_probabilities(side):
    plain = np.full((side * 3 // 4, side, 3), 90, np.uint8)
    box = (0.1 * side, 0.1 * side, 0.3 * side, 0.35 * side)
    drawn = annotate(plain, [face(box, (0.6, 0.4, 0, 0, 0, 0))])
    assert drawn.shape == plain.shape and drawn.dtype == np.uint8 and (plain == 90).all()
    edges = [(round(box[0]), round(box[1] + 5)), (round(box[2]), round(box[3] - 5))]
    assert all((drawn[y, x] == BEST).all() for x, y in edges)
    inside = drawn[round(box[1]) + side // 50 : round(box[3]) - side // 50]
    assert (inside[:, round(box[0]) + side // 50 : round(box[2]) - side // 50] == 90).all()  # face not hidden
    surer = annotate(plain, [face(box, (0.95, 0.05, 0, 0, 0, 0))])
    assert bar_lengths(plain, surer) > bar_lengths(plain, drawn) * 1.1
    rows = np.flatnonzero((drawn != 90).any((1, 2)))
    assert rows.max() - rows.min() > 70  # a panel with seven lines of at least ten pixels
    assert not (annotate(plain, [face(box)], [5]) == annotate(plain, [face(box)], [8])).all()


def test_panels_keep_clear_of_faces_and_of_each_other():
    plain = np.full((480, 640, 3), 90, np.uint8)
    boxes = [(40, 100, 140, 220), (400, 100, 500, 220), (540, 300, 630, 420)]
    drawn = annotate(plain, [face(box) for box in boxes])
    for left, top, right, bottom in boxes:
        assert (drawn[top + 5 : bottom - 5, left + 5 : right - 5] == 90).all()


def test_odd_boxes_are_drawn():
    plain = np.full((40, 30, 3), 90, np.uint8)
    for box in ((-20, -20, 60, 70), (5, 5, 5, 5), (0, 0, 30, 40), (100, 100, 120, 130)):
        assert annotate(plain, [face(box)]).shape == plain.shape
    assert (annotate(plain, []) == plain).all()
