"""Prediction on onnxruntime: the same boxes and the same answers as PyTorch's, without PyTorch."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from facenet_pytorch import MTCNN
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_utils import predict
from fer_utils.demo.drawn_face import PROTOTYPES, Identity, View, draw_face
from fer_utils.detector import NETWORKS, Detector
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.faces import crop_square, resize
from fer_utils.prediction import Predictor, crop_face
from fer_utils.video import overlap
from fer_utils.weights import load_model


@pytest.fixture(scope="module")
def people():
    """Four drawn people, grey, and the same in false colours."""
    rng = np.random.default_rng(3)
    units = [
        units for emotion in ("happy", "surprise", "neutral", "angry") for units in PROTOTYPES[emotion][:1]
    ]
    return [draw_face(Identity.draw(rng), one, View(span=2.4), (200, 260)) for one in units]


@pytest.fixture(scope="module")
def group(people):
    """A picture of 240×320 with three faces of different sizes, in colours."""
    picture = np.full((240, 320), 140, np.uint8)
    for person, side, y, x in ((people[0], 110, 15, 10), (people[1], 60, 150, 30), (people[2], 80, 100, 210)):
        small = np.asarray(Image.fromarray(person[:, 30:230]).resize((side, side)))
        picture[y : y + side, x : x + side] = small
    return np.stack([picture, (picture * 0.9).astype(np.uint8), (picture * 0.8).astype(np.uint8)], 2)


# --- The detector ---


def test_boxes_are_those_of_facenet_pytorch(people, group):
    reference, detector = MTCNN(keep_all=True, min_face_size=20), Detector(threads=1)
    for picture in [*people[:2], group, group[::2, ::-2], group[:, :, 1]]:
        rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)
        with torch.inference_mode():
            boxes, scores = reference.detect(Image.fromarray(rgb))
        found = detector.detect(picture, min_confidence=0)
        assert len(found) == len(boxes) > 0
        for box, score in zip(boxes, scores, strict=True):
            best = max(found, key=lambda row, box=box: overlap(row, box))
            assert overlap(best, box) > 0.98 and abs(best[4] - score) < 1e-3


def test_faces_down_to_20_pixels_and_1_percent_of_the_longer_side_are_found(people):
    detector = Detector(threads=1)
    for longer, height in ((640, 22), (4200, 60)):
        face = Image.fromarray(people[0][20:190, 45:215])
        side = round(height / 0.62)  # the box is about so high
        picture = np.full((longer * 3 // 4, longer), 140, np.uint8)
        picture[100 : 100 + side, 300 : 300 + side] = np.asarray(face.resize((side, side)))
        found = detector.detect(picture, min_confidence=0)
        assert len(found) == 1 and overlap(found[0], (300, 100, 300 + side, 100 + side)) > 0.2
        assert found[0, 3] - found[0, 1] < 1.35 * height


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (19, 19), (64, 64, 3), (480, 640)])
def test_where_there_is_no_face_there_is_no_box(shape):
    assert Detector(threads=1).detect(np.full(shape, 90, np.uint8)).shape == (0, 5)


# --- Networks ---


@pytest.mark.parametrize("name", ["easynet", "easynet-small", "facenet"])
def test_networks_answer_as_in_pytorch(name, people):
    rng = np.random.default_rng(0)
    corners = rng.uniform((75, 35), (105, 65), (12, 2))
    crops = np.stack([crop_face(people[i % 4], (x, y, x + 90, y + 100)) for i, (x, y) in enumerate(corners)])
    images = crops[:, None].astype(np.float32) / 255
    with torch.inference_mode():
        logits = load_model(name)(torch.from_numpy(images)).numpy()
    predictor = Predictor(name, threads=1)
    np.testing.assert_allclose(predictor._network.run(None, {"images": images})[0], logits, atol=1e-4)
    fine, coarse = (p.probabilities(crops) for p in (predictor, Predictor(f"{name}-int8", threads=1)))
    np.testing.assert_allclose(fine.sum(1), 1, atol=1e-5)
    assert np.abs(coarse - fine).mean() < 0.05


def test_an_unknown_network_is_refused_by_name():
    with pytest.raises(DataError, match="one of easynet, easynet-int8, easynet-small, easynet-small-int8, "):
        Predictor("resnet")


@given(st.floats(-20, 120), st.floats(-20, 120), st.floats(2, 150))
@settings(max_examples=40, deadline=None)
def test_crops_are_those_that_networks_were_trained_on(left, top, side):
    grey = np.random.default_rng(0).integers(0, 256, (90, 130), dtype=np.uint8)
    box = (left, top, left + 0.8 * side, top + side)
    want = resize(crop_square(grey, box)[None])[0]
    assert np.abs(crop_face(grey, box).astype(int) - want).max() <= 1  # another order of sums


# --- Pictures ---


def test_every_face_is_told_the_largest_first(group):
    faces = predict(group, network="easynet")
    heights = [face.box[3] - face.box[1] for face in faces]
    assert heights == sorted(heights, reverse=True)
    assert len(faces) == 3 and len(predict(group, network="easynet", largest=True)) == 1
    assert len(predict([group, group], network="easynet")) == 6
    for shape in ((300, 300), (1, 1), (19, 90), (4, 300)):
        assert predict(np.full(shape, 80, np.uint8)) == []
    row = faces.to_frame().iloc[0]
    assert row["emotion"] == faces[0].emotion and row[list(CLASSES)].sum() == pytest.approx(1, abs=1e-3)
    assert len(predict(group, min_face=55, network="easynet")) == 1
    assert len(predict(group, min_confidence=1.0, network="easynet")) == 0


def test_what_is_cropped_already_is_taken_as_it_is(people):
    small = crop_face(people[0], (85, 40, 175, 160))
    for crop in (small, np.asarray(Image.fromarray(small).resize((48, 48)))):
        (face,) = predict(crop, network="easynet")
        assert face.confidence is None and face.box == (0, 0, *crop.shape)
    np.testing.assert_array_equal(predict(small)[0].crop, small)
    head = crop_square(people[0], predict(people[0], network="easynet")[0].box)
    large = np.asarray(Image.fromarray(head).resize((300, 300)))
    (found,) = predict(large, network="easynet")
    (whole,) = predict(large, network="easynet", cropped=True)
    assert found.box == whole.box == (0, 0, 300, 300) and found.confidence > 0.9
    assert predict(large, network="easynet", cropped=False)[0].box != whole.box


def test_one_predictor_serves_many_threads(group, people):
    predictor, pictures = Predictor("easynet", threads=1), [group, *people] * 2
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(predictor.predict, pictures))
    for faces, picture in zip(together, pictures, strict=True):
        assert [face.row() for face in faces] == [face.row() for face in predictor.predict(picture)]


def test_prediction_needs_none_of_the_libraries_for_training():
    code = (
        "import sys, numpy, fer_utils.cli, fer_utils\n"
        "fer_utils.predict(numpy.zeros((64, 64), 'uint8'))\n"
        "heavy = {'torch', 'lightning', 'pandas', 'sklearn', 'scipy', 'facenet_pytorch', 'onnx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "name", "detector"])
def test_what_is_no_network_is_refused_by_name(tmp_path, damage):
    path, whole = tmp_path / "mine.onnx", (NETWORKS / "easynet-int8.onnx").read_bytes()
    changed = {
        "empty": b"",
        "cut": whole[:-9999],
        "text": b"<html>",
        "name": whole.replace(b"images", b"imag\xff\xff"),
    }
    changed["detector"] = (NETWORKS / "mtcnn-p.onnx").read_bytes()
    path.write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"mine\.onnx: this is no network.*export it again") as caught:
        Predictor(path, threads=1)
    assert len(str(caught.value)) < 600
