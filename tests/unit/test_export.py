"""What `fer export onnx` writes is the same network, calibrated, and small."""

import numpy as np
import torch

from fer_utils.cli import main
from fer_utils.models import build
from fer_utils.models.backbones import MobileNetV1
from fer_utils.prediction import Predictor
from fer_utils.weights import save_checkpoint


def test_an_exported_network_answers_as_before(tmp_path, toy_faces, monkeypatch):
    torch.manual_seed(0)
    for name in ("CHANNELS", "STRIDES"):  # a MobileNet of one block is exported sooner
        monkeypatch.setattr(MobileNetV1, name, getattr(MobileNetV1, name)[:1])
    model = build("facenet", trunk_width=0.5, pretrained="none", head=[], input_size=48)
    model(torch.rand(64, 1, 64, 64))  # batch norm sees something
    about = {"network": "facenet", "options": model.options}
    save_checkpoint(model.eval(), tmp_path / "mine.safetensors", about)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "faceset").symlink_to(toy_faces.path)
    monkeypatch.setenv("FER_BUILD", str(tmp_path))
    weights = str(tmp_path / "mine.safetensors")
    assert main(["export", "onnx", str(tmp_path / "out"), "--network", weights, "--profile", "demo"]) == 0

    images = toy_faces.split("test").images[:20]
    predictor = Predictor(tmp_path / "out" / "mine.onnx", threads=1)
    with torch.inference_mode():
        logits = model(torch.from_numpy(images[:, None].astype(np.float32) / 255))
    want = (logits / predictor._temperature).softmax(1).numpy()
    np.testing.assert_allclose(predictor.probabilities(images), want, atol=2e-3)  # half precision in between
    coarse = Predictor(tmp_path / "out" / "mine-int8.onnx", threads=1)
    assert coarse._temperature == predictor._temperature != 1
    np.testing.assert_allclose(coarse.probabilities(images), want, atol=0.1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine-int8.onnx", "mine.onnx"]
