"""From data files to a results file, by call and by the command line."""

import dataclasses
import functools
import io
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fer_utils import cli, experiment
from fer_utils.augment import Augment
from fer_utils.datasets import ferplus
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import predict
from fer_utils.experiment import (
    changed,
    evaluate,
    load_run,
    read_predictions,
    read_result,
    recipe_for,
    settings_of,
    soft_labels,
    train,
    vote_shares,
    votes_on,
    workspace,
    write_predictions,
)
from fer_utils.files import sha256
from fer_utils.models import build
from fer_utils.training import Recipe
from fer_utils.weights import load_model

BOOK = Path(__file__).resolve().parents[2] / "book" / "results"
CODES = (0, 2, 3, 4, 5, 6)  # FER2013's codes of the six classes
WORDS = ("anger", "fear", "happiness", "sadness", "surprise", "neutral")  # and FER+'s words for them
SMALL = {"widths": [4, 8, 8], "hidden": 16, "epochs": 2, "batch_size": 32, "lr": 0.05, "augment": None}
QUIET = SMALL | {"label_smoothing": 0.0, "verbose": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """FER2013 and FER+, of faces that are easy to tell apart, and what `fer` makes of them."""
    root, rng = tmp_path_factory.mktemp("book"), np.random.default_rng(0)
    faces, votes = ["emotion,pixels,Usage"], [",".join(ferplus.HEADER)]

    def add(usage, code, image, **counts):
        faces.append(f"{code},{' '.join(map(str, image.ravel()))},{usage}")
        votes.append(f"{usage},fer.png,{','.join(str(counts.get(w, 0)) for w in ferplus.VOTES)}")

    for usage, n in (("Training", 120), ("PublicTest", 36), ("PrivateTest", 36)):
        for i in range(n):
            image = rng.integers(0, 80, (48, 48))
            image[8 * (i % 6) : 8 * (i % 6) + 6, 8:40] += 150
            add(usage, CODES[i % 6], image, **{WORDS[i % 6]: 7, "contempt": 2, "disgust": 1})
    add("Training", 1, np.full((48, 48), 7), disgust=10)
    (root / "data").mkdir()
    (root / "data" / "fer2013.csv").write_text("\n".join(faces) + "\n", encoding="utf-8")
    (root / "data" / "fer2013new.csv").write_text("\n".join(votes) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        go_to(root, patch)
        assert cli.main(["merge"]) == 0
        words = [f"{name}={json.dumps(value)}" for name, value in SMALL.items()]
        assert cli.main(["train", "easynet", "--name", "toy", *words, "label_smoothing=0"]) == 0
    return root


def go_to(root, patch):
    patch.setenv("FER_DATA", str(root / "data"))
    patch.setenv("FER_BUILD", str(root / "build"))
    patch.chdir(root)


@pytest.fixture
def space(made, monkeypatch):
    go_to(made, monkeypatch)
    return workspace("full")


@pytest.fixture
def elsewhere(space, tmp_path):
    """The same faces, with no runs and no results."""
    (tmp_path / "faceset").symlink_to(space.faceset)
    return dataclasses.replace(space, build=tmp_path, results=tmp_path / "results")


@pytest.fixture
def merged_otherwise(space):
    """The workspace while its merged set is another one."""
    path = space.faceset / "manifest.json"
    before = path.read_bytes()
    manifest = json.loads(before)
    manifest["checksums"]["images.npy"] = "0" * 64
    path.write_text(json.dumps(manifest), encoding="utf-8")
    yield space
    path.write_bytes(before)


def refused(capsys, *arguments):
    """The one line that a command prints as it fails."""
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"fer {arguments[0]}: ") and printed.count("\n") == 1, printed
    return printed


# Every stored result is its own command.

RUNS = [
    path
    for path in sorted(BOOK.rglob("*.json"))
    if {"learning_curve", "recipe", "checkpoint"} <= json.loads(path.read_text(encoding="utf-8")).keys()
]
# What recipes once could say, and what every stored run left at that.
RETIRED = {"lr_decay": 1.0, "schedule": "onecycle", "ema": 0.0}


@functools.cache
def built(network, options):
    with torch.device("meta"):
        return build(network, **json.loads(options)).options


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.relative_to(BOOK).as_posix())
def test_every_stored_run_is_read_and_its_settings_make_it_again(path):
    stored, result = json.loads(path.read_text(encoding="utf-8")), read_result(path)
    assert (
        dataclasses.asdict(result).items()
        >= {k: v for k, v in stored.items() if k not in ("format", "cached", "validated_on")}.items()
    )
    assert result.name == path.relative_to(BOOK).with_suffix("").as_posix()
    assert stored.get("cached") is None and stored.get("validated_on") is None
    network, settings = result.model["name"], settings_of(result)
    kept = {n: settings.pop(n, None) for n in (*experiment.OTHERS, "precision", "seed")}
    assert kept["seed"] == stored["recipe"]["seed"] and kept["sources"] is None
    assert kept["precision"] == stored.get("precision", "32-true")
    assert bool(kept["calibrated"]) == bool(stored.get("calibrated"))
    labels, teachers = stored.get("labels") or {}, stored.get("teachers") or {"checkpoints": {}}
    assert (kept["labels"], kept["loss_weight"]) == (labels.get("kind"), labels.get("share"))
    assert (kept["teachers"] or []) == list(teachers["checkpoints"])
    assert teachers.get("share", experiment.TEACHING) == experiment.TEACHING
    options, recipe = experiment.RECIPES["full"][network]
    options, recipe = changed(network, options, dataclasses.replace(recipe, seed=kept["seed"]), settings)
    assert all(stored["recipe"].get(name, usual) == usual for name, usual in RETIRED.items())
    # What an older run does not note had the default.
    usual, noted = dataclasses.asdict(Recipe(augment=Augment())), stored["recipe"]
    noted = {k: v for k, v in noted.items() if k not in RETIRED}
    noted["augment"] = usual.pop("augment") | noted["augment"]
    assert dataclasses.asdict(recipe) == usual | noted
    model = built(network, json.dumps(options))
    assert stored["model"]["options"].items() <= model.items()
    assert (
        built(network, "{}").items()
        >= {k: v for k, v in model.items() if k not in stored["model"]["options"]}.items()
    )


def test_a_results_file_is_all_settings_of_a_command(space, monkeypatch, capsys):
    asked = []

    def watched(space, network, **options):
        asked.append((network, options))
        raise ValueError("enough")

    monkeypatch.setattr(experiment, "train", watched)
    stored = BOOK / "facenet-both-160-calibrated-seed1.json"
    refused(capsys, "train", "--like", stored, "epochs=1", "--name", "again")
    network, options = asked.pop()
    assert network == "facenet" and options["name"] == "again" and options["seed"] == 1
    assert options["epochs"] == 1 and options["input_size"] == 160 and options["augment.degrees"] == 12
    assert options["calibrated"] and options["labels"] == "both" and options["precision"] == "bf16-mixed"
    printed = refused(capsys, "train", "easynet", "--like", stored)
    assert "is of facenet, not of easynet" in printed
    assert "there is no such results file" in refused(capsys, "train", "--like", "nothing")
    refused(capsys, "train", "easynet", "widths=4,8,8", "teachers=a", "sources=jaffe,ckplus", "seed=3")
    _, options = asked.pop()
    assert options["widths"] == [4, 8, 8] and options["teachers"] == ["a"] and options["seed"] == 3
    assert options["sources"] == ["jaffe", "ckplus"] and options["name"] is None


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["easynet", "epoch=1"], r"no setting 'epoch'.*augment.degrees.*dropout.*epochs.*teachers"),
        (["easynet", "epochs"], "'epochs' is not of the form name=value"),
        (["easynet", "lr=fast"], "lr cannot be 'fast'"),
        (["easynet", "augment.interpolation=cubic"], "bilinear or bicubic"),
        (["easynet", "widths=5"], "cannot be built"),
        (["easynet", "labels=votes"], "own, ferplus"),
        (["easynet", "sources=jaffe"], "there are no images"),
        (["easynet", "teachers=nobody"], "there is no such run, or it has not finished"),
        (["alexnet"], "emonet, easynet, facenet"),
        ([], "name a network"),
    ],
)
def test_settings_that_cannot_be_are_named(space, capsys, words, problem):
    printed = refused(capsys, "train", *words, "--name", "bad")
    assert pd.Series([printed]).str.contains(problem, regex=True).all(), printed
    assert not (space.runs / "bad" / "run.json").exists()


# Training.


def test_a_run_leaves_everything_to_go_on_from(space):
    folder = space.runs / "toy"
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert about["model"]["name"] == "easynet" and about["model"]["options"]["widths"] == [4, 8, 8]
    assert about["recipe"]["epochs"] == 2 and about["recipe"]["augment"] is None
    assert len(pd.read_csv(folder / "history.csv")) == 2
    assert (folder / "model.safetensors").exists() and (folder / "last.ckpt").exists()


def test_a_call_trains_what_the_command_trains_and_a_finished_run_is_loaded(space, elsewhere, monkeypatch):
    run = train(elsewhere, "easynet", name="toy", **QUIET)
    columns = ["epoch", "train_loss", "val_loss", "val_accuracy", "lr"]
    there = pd.read_csv(space.runs / "toy" / "history.csv")
    pd.testing.assert_frame_equal(run.history[columns], there[columns], check_exact=False, atol=1e-5)
    monkeypatch.setattr(experiment, "fit", lambda *a, **o: pytest.fail("it was trained again"))
    loaded = train(elsewhere, "easynet", name="toy", resume=True, **QUIET)
    assert len(loaded.history) == 2 and not loaded.model.training
    with pytest.raises(DataError, match=r"other settings \(epochs changed\)"):
        train(elsewhere, "easynet", name="toy", resume=True, **QUIET | {"epochs": 3})


def test_a_run_of_another_merged_set_is_refused(merged_otherwise, capsys):
    for arguments in (["evaluate", "toy"], ["train", "easynet", "teachers=toy", "--name", "student"]):
        assert "another merged set" in refused(capsys, *arguments)
    with pytest.raises(DataError, match="another merged set"):
        load_run(merged_otherwise, "toy")


def test_calibration_changes_the_last_layer_and_notes_what_was_fitted(elsewhere):
    done = train(elsewhere, "easynet", name="c", calibrated=True, **QUIET)
    fitted, validation = (
        json.loads((done.folder / "calibration.json").read_text()),
        elsewhere.faces().split("validation"),
    )
    plain = build("easynet", **done.model.options).eval()
    state = torch.load(done.folder / "best.ckpt", weights_only=True)["state_dict"]
    plain.load_state_dict({name.removeprefix("model."): value for name, value in state.items()})
    logits = torch.from_numpy(predict(plain, validation)).log()
    expected = (logits * fitted["scale"] + torch.tensor(fitted["biases"])).softmax(1).numpy()
    np.testing.assert_allclose(
        predict(load_model(done.folder / "model.safetensors"), validation), expected, atol=2e-3
    )
    assert abs(sum(fitted["biases"])) < 1e-6 and fitted["images"] == 36
    before = np.mean(predict(plain, validation).argmax(1) == validation.labels)
    assert fitted["accuracy"]["before"] == pytest.approx(before)
    assert 0 <= fitted["accuracy"]["after, cross-validated"] <= 1
    result = evaluate(elsewhere, "c")
    assert result.calibrated == fitted and settings_of(result)["calibrated"] is True


# Votes and teachers.


def test_votes_are_joined_by_origin(space):
    part = space.faces().split("validation")
    backwards = part.index.iloc[::-1].assign(source=["jaffe", *["fer2013"] * 35])
    counts = votes_on(backwards, space.data)
    assert counts.shape == (36, 10) and not counts[0].any(), "nobody voted on another source"
    column = {word: i for i, word in enumerate(ferplus.VOTES)}
    assert counts[-1, column["anger"]] == 7 and counts[-1, column["disgust"]] == 1
    assert votes_on(part.index, space.data, "angry")[0, column["anger"]] == 8
    with pytest.raises(DataError, match="another file of FER2013"):
        votes_on(part.index.assign(emotion="sad"), space.data)
    with pytest.raises(DataError, match="FER\\+'s votes are not below"):
        votes_on(part.index, space.results)
    shares = vote_shares(counts)
    np.testing.assert_allclose(shares[-1], [0.7, 0, 0, 0, 0, 0, 0.3])
    assert not shares[0].any()
    soft = soft_labels(np.array([1]), counts[-1:])
    np.testing.assert_allclose(soft, [[0.7, 0.3, 0, 0, 0, 0]], atol=1e-6)


def test_targets_of_votes_and_teachers(space, monkeypatch):
    training, seen = space.faces().split("train"), []
    own = np.eye(6)[training.labels]
    told = predict(load_model(space.runs / "toy" / "model.safetensors"), training, flip=True)
    targets, noted = experiment.soft_targets(space, training, "both", 0.5, ["toy"])
    np.testing.assert_allclose(targets[:, :6], 0.3 * own + 0.7 * told, atol=1e-3)
    np.testing.assert_allclose(targets[:, 6:], 0.5 * vote_shares(votes_on(training.index, space.data)))
    assert noted["teachers"] == {
        "share": 0.7,
        "checkpoints": {"toy": sha256(space.runs / "toy/model.safetensors")},
    }
    assert noted["labels"]["kind"] == "both" and noted["labels"]["share"] == 0.5
    targets, _ = experiment.soft_targets(space, training, "ferplus", 0.5, [])
    np.testing.assert_allclose(
        targets, 0.5 * own + 0.5 * soft_labels(training.labels, votes_on(training.index, space.data))
    )
    assert experiment.soft_targets(space, training, "own", 1.0, []) == (
        None,
        {"teachers": None, "labels": None},
    )
    monkeypatch.setattr(experiment, "predict", lambda *a, **o: seen.append(a))
    kept = experiment.teacher_predictions(space, "toy", training)
    elsewhere = dataclasses.replace(space, build=space.results)
    monkeypatch.setattr(type(space), "faces", lambda self: training)
    assert kept.equals(experiment.teacher_predictions(elsewhere, "toy", training)), "without its weights"
    assert not seen, "what a teacher predicted is kept"
    part = training.where(np.arange(len(training)) < 50)
    with pytest.raises(DataError, match="no such run"):
        experiment.teacher_predictions(elsewhere, "toy", part)


def test_a_student_does_not_notice_whether_its_teacher_was_asked(elsewhere, space, monkeypatch):
    (elsewhere.runs).mkdir()
    (elsewhere.runs / "toy").symlink_to(space.runs / "toy")
    short = QUIET | {"epochs": 1, "batches": 2, "teachers": ["toy"], "labels": "both"}
    asked, kept = (train(elsewhere, "easynet", name=name, **short) for name in ("asked", "kept"))
    assert asked.history["train_loss"].equals(kept.history["train_loss"])
    about = json.loads((asked.folder / "run.json").read_text())
    assert about["teachers"]["checkpoints"].keys() == {"toy"} and asked.model.classifier.fc2.out_features == 6


# Evaluation.


def test_evaluate_reads_the_test_split_only_when_asked_and_only_once(space, capsys, monkeypatch):
    splits, ask = [], experiment.predict

    def watched(model, faces, **options):
        splits.extend(set(faces.index["split"]))
        return ask(model, faces, **options)

    monkeypatch.setattr(experiment, "predict", watched)
    assert cli.main(["evaluate", "toy"]) == 0
    printed = capsys.readouterr().out
    assert set(splits) == {"validation"} and "fer2013+flip" in printed
    assert "fer2013 must not be compared with published scores: not the official splits" in printed
    path = space.results / "toy.json"
    assert read_result(path).test == {}
    assert cli.main(["evaluate", "toy", "--test"]) == 0
    first = read_result(path)
    assert "test" in splits and first.test["fer2013"]["images"] == 36
    assert set(first.test) == {"fer2013", "fer2013+flip", "fer2013+ten-crop"}
    splits.clear()
    for test in (True, False):
        assert evaluate(space, "toy", test=test).test == first.test
    manifest = space.faceset / "manifest.json"
    before = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(before) | {"made_by": "a later version"}))
    assert evaluate(space, "toy", test=True).test == first.test
    manifest.write_text(before)
    assert "test" not in splits, "the test images were touched again"
    (space.results / "predictions" / "toy-test.npz").unlink()
    assert evaluate(space, "toy", test=True).test == first.test and "test" in splits
    other = dataclasses.replace(first, checkpoint="0" * 64)
    path.write_text(json.dumps(dataclasses.asdict(other)))
    assert evaluate(space, "toy").test == {}, "scores of other weights are not kept"


def test_a_results_file_says_what_was_done(space):
    result = evaluate(space, "toy")
    assert result == read_result(space.results / "toy.json")
    assert result.data["splits"] == {"train/fer2013": 120, "validation/fer2013": 36, "test/fer2013": 36}
    assert result.data["trained_on"] == ["fer2013"] and result.protocol["disgust"] == "drop"
    assert result.protocol["other_splits"] == ["fer2013"]
    assert "train 121 (28,709)" in result.protocol["notes"]["fer2013"][0]
    assert result.model["parameters"] == sum(
        p.numel() for p in load_model(space.runs / "toy/model.safetensors").parameters()
    )
    assert len(result.learning_curve) == 2 and result.recipe["batch_size"] == 32 and result.processor
    kept = read_predictions(space.results, "toy", "validation")
    assert kept.attrs["checkpoint"] == result.checkpoint
    correct = kept[[f"p_{c}" for c in CLASSES]].to_numpy().argmax(1) == kept["label"]
    assert correct.mean() == result.validation["fer2013"]["accuracy"]


@pytest.mark.parametrize("text", ["not JSON", "[]", '{"name": "x"}'])
def test_what_is_no_results_file_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="not a results file"):
        read_result(tmp_path / "x.json")


def test_predictions_survive_sixteen_bits(tmp_path, space):
    index, rng = space.faces().split("validation").index, np.random.default_rng(0)
    p, flip = rng.dirichlet(np.ones(6), (2, len(index)))
    p[0] = [0.3, 0.3 + 1e-7, 0.1, 0.1, 0.1, 0.1 - 1e-7]
    write_predictions(tmp_path, "deep/run", "validation", index, "abc", p=p, flip=flip)
    kept = read_predictions(tmp_path, "deep/run", "validation")
    for name, values in (("p", p), ("flip", flip)):
        back = kept[[f"{name}_{c}" for c in CLASSES]].to_numpy()
        assert (back.argmax(1) == values.argmax(1)).all() and np.abs(back - values).max() < 3e-5
    pd.testing.assert_frame_equal(kept[index.columns.drop("hash")], index.drop(columns="hash"))
    with pytest.raises(DataError, match=r"`fer evaluate deep/run --test`"):
        read_predictions(tmp_path, "deep/run", "test")
    for name in ("deep/run-validation.npz", "validation.parquet"):
        path = tmp_path / "predictions" / name
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], b"", whole[:9] + bytes(99) + whole[108:]):
            path.write_bytes(damaged)
            with pytest.raises(
                DataError, match=rf"{name}: the predictions are damaged.*fer evaluate deep/run"
            ):
                read_predictions(tmp_path, "deep/run", "validation")
        path.write_bytes(whole)
    write_predictions(tmp_path, "other", "validation", index[:5], "abc", p=p[:5])
    with pytest.raises(DataError, match="another merged set"):
        read_predictions(tmp_path, "deep/run", "validation")


# The rest of the command line.


def test_data_and_merge(space, capsys, tmp_path):
    assert cli.main(["data"]) == 0
    assert "FER2013" in capsys.readouterr().out
    kept = json.loads((space.results / "data" / "merged.json").read_text(encoding="utf-8"))
    assert kept["images"] == 192 and kept["sources"][0]["dropped"]["disgust"] == 1
    before = (space.results / "data" / "merged.json").stat().st_mtime_ns
    assert cli.main(["merge", "--out", str(tmp_path / "faces"), "--disgust", "angry"]) == 0
    assert "193 faces are merged" in capsys.readouterr().out
    assert (space.results / "data" / "merged.json").stat().st_mtime_ns == before


def test_damaged_data_are_told_by_the_exit_code(space, capsys, tmp_path, monkeypatch):
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n9,1 2 3,Training\n", encoding="utf-8")
    monkeypatch.setenv("FER_DATA", str(tmp_path))
    assert cli.main(["data"]) == 1
    assert "Damaged" in capsys.readouterr().out


def test_a_terminal_may_lack_letters(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    monkeypatch.setenv("FER_DATA", str(tmp_path / "łódź ×"))
    assert cli.main(["data"]) == 0
    assert b"\\u0142\xf3d\\u017a \xd7" in sys.stdout.buffer.getvalue()


def test_export_and_evaluate_refuse_what_is_not_there(space, capsys, tmp_path):
    assert cli.main(["export", "faces", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").rglob("*.png"))) == 192
    assert "not empty" in refused(capsys, "export", "faces", tmp_path / "out")
    assert "no such run" in refused(capsys, "evaluate", "nothing")
    (space.runs / "begun").mkdir(exist_ok=True)
    assert "--resume" in refused(capsys, "evaluate", "begun")


def test_recipes_grow_on_a_gpu(monkeypatch):
    _, slow = recipe_for("easynet", "full")
    monkeypatch.setattr(experiment, "default_precision", lambda: "16-mixed")
    _, fast = recipe_for("easynet", "full")
    assert (fast.batch_size, fast.lr) == (4 * slow.batch_size, 4 * slow.lr)
    assert recipe_for("easynet", "demo")[1].batch_size == 64
    with pytest.raises(ValueError, match="PROFILE"):
        workspace("real")


@pytest.mark.parametrize(
    ("able", "usual", "profile", "expected"),
    [
        ({"amx_bf16": True}, "32-true", "full", "bf16-mixed"),
        ({"avx512_bf16": True}, "32-true", "full", "bf16-mixed"),
        ({"avx512_f": True, "amx_bf16": False}, "32-true", "full", "32-true"),
        ({"architecture": "aarch64"}, "32-true", "full", "32-true"),
        ({"amx_bf16": True}, "32-true", "demo", "32-true"),  # the same numbers on any processor
        ({"amx_bf16": True}, "16-mixed", "full", "16-mixed"),
    ],
)
def test_real_data_are_trained_in_half_precision_where_it_is_fast(
    monkeypatch, able, usual, profile, expected
):
    monkeypatch.setattr(experiment, "default_precision", lambda: usual)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert experiment.precision_for(profile) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # as in older versions
    assert experiment.precision_for(profile) == usual
