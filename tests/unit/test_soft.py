"""Soft labels, and learning from teachers."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fer_utils import runs, soft
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.files import sha256
from fer_utils.models import EasyNet
from fer_utils.weights import load_model, save_checkpoint
from fer_utils.workspace import Workspace

SMALL = {
    "model_options": {"widths": [4, 8, 8], "hidden": 16},
    "recipe_changes": {"epochs": 2, "batch_size": 32, "augment": None, "lr": 0.05},
}


@pytest.fixture(scope="module")
def space(toy_faces, tmp_path_factory):
    root = tmp_path_factory.mktemp("soft")
    (root / "faceset").symlink_to(toy_faces.path)
    space = Workspace("demo", root / "data", root, root / "results")
    for seed in (0, 1):
        runs.train(space, "easynet", seed=seed, verbose=False, **SMALL)
    return space


@given(share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_blend_lies_between_label_and_distribution(share, seed):
    rng = np.random.default_rng(seed)
    labels, given_ = rng.integers(0, 6, 9), rng.dirichlet(np.ones(6), 9)
    blended = soft.blend(labels, given_, share)
    np.testing.assert_allclose(blended.sum(1), 1, rtol=1e-6)
    own, theirs = blended[np.arange(9), labels], given_[np.arange(9), labels]
    assert (own >= theirs - 1e-6).all() and (own <= 1 + 1e-6).all()
    np.testing.assert_allclose(soft.blend(labels, given_, 0), np.eye(6)[labels])
    np.testing.assert_allclose(soft.blend(labels, given_, 1), given_, rtol=1e-6)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_beyond_the_whole_is_refused(share):
    with pytest.raises(ValueError, match="from 0 to 1"):
        soft.blend(np.zeros(1, int), np.full((1, 6), 1 / 6), share)


def test_answers_are_the_mean_over_teachers_and_mirror_images_and_asked_for_once(
    toy_faces, tmp_path, monkeypatch
):
    space, names = Workspace("demo", tmp_path, tmp_path, tmp_path / "results"), ["search/one", "two"]
    paths = [space.runs / name / "model.safetensors" for name in names]
    for path in paths:
        path.parent.mkdir(parents=True)
        model = EasyNet(widths=(2, 2, 2), hidden=4)
        save_checkpoint(model, path, {"network": "easynet", "options": model.options})
    some = toy_faces.split("test")
    expected = sum(predict(load_model(path), some, flip=True) for path in paths) / 2
    torch.manual_seed(7)
    told, checkpoints = soft.answers(space, names, some)
    drawn = torch.rand(3)
    np.testing.assert_allclose(told, expected, rtol=1e-5)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3)), "asking must not move the student's start"
    assert checkpoints == {name: sha256(path) for name, path in zip(names, paths, strict=True)}

    asked = []
    monkeypatch.setattr(
        soft, "predict", lambda model, faces, **o: asked.append(faces) or predict(model, faces, **o)
    )
    np.testing.assert_allclose(soft.answers(space, names, some)[0], expected, rtol=1e-5)
    assert not asked
    other = EasyNet(widths=(2, 2, 2), hidden=4)
    save_checkpoint(other, paths[0], {"network": "easynet", "options": other.options})
    _, newer = soft.answers(space, names, some)
    assert len(asked) == 1, "new weights must be asked anew"
    assert newer["two"] == checkpoints["two"] and newer["search/one"] != checkpoints["search/one"]
    paths[1].unlink()
    soft.answers(space, names, some)
    assert len(asked) == 1, "kept answers are enough"
    with pytest.raises(DataError, match=r"nor left answers to these faces.*--name two"):
        soft.answers(space, names, toy_faces.split("validation"))
    assert len(asked) == 2, "other faces must be asked about anew"


def test_a_student_aims_at_its_teachers(space, monkeypatch):
    names, seen = ["easynet-seed0", "easynet-seed1"], {}
    fit = runs.fit

    def watched(*arguments, targets, **options):
        seen["targets"] = targets
        return fit(*arguments, targets=targets, **options)

    monkeypatch.setattr(runs, "fit", watched)
    done = runs.train(space, "easynet", name="student", teachers=names, share=0.6, verbose=False, **SMALL)
    training = space.faces().split("train")
    told = [predict(load_model(space.runs / n / "model.safetensors"), training, flip=True) for n in names]
    expected = 0.4 * np.eye(6)[training.labels] + 0.6 * np.mean(told, 0)
    np.testing.assert_allclose(seen["targets"], expected, rtol=1e-5)
    about = json.loads((done.folder / "run.json").read_text(encoding="utf-8"))
    assert about["teachers"]["share"] == 0.6
    assert about["teachers"]["checkpoints"] == {
        n: sha256(space.runs / n / "model.safetensors") for n in names
    }
    result = runs.results.read(runs.evaluate(space, "student"))
    assert result["teachers"] == about["teachers"]


def test_a_teacher_must_have_finished(space):
    for name, command in (("nobody", "train"), ("crossfit/nobody", "crossfit")):
        with pytest.raises(DataError, match=rf"teacher has not finished.*fer {command} … --name {name}"):
            runs.train(space, "easynet", name="student", teachers=[name], **SMALL)


def test_a_student_does_not_resume_with_other_teachers(space):
    options = {"name": "changing", "verbose": False, **SMALL}
    runs.train(space, "easynet", teachers=["easynet-seed0"], **options)
    with pytest.raises(DataError, match="teachers changed"):
        runs.train(space, "easynet", teachers=["easynet-seed1"], resume=True, **options)
