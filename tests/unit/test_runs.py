"""From data files to a results file, by the command line and by the calls of the chapters."""

import dataclasses
import json
import shlex
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fer_utils import cli, results, runs
from fer_utils import workspace as workspace_module
from fer_utils.augment import Augment
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.files import sha256
from fer_utils.models import EasyNet, build
from fer_utils.recipes import command
from fer_utils.training import Recipe
from fer_utils.weights import SOURCES, load_model, save_checkpoint
from fer_utils.workspace import Workspace, workspace
from reading_faces.study import publish

CODES = (0, 2, 3, 4, 5, 6)  # FER2013's codes of the six classes
SMALL = ("--option", "widths=[4, 8, 8]", "--option", "hidden=16", "--epochs", "2", "--batch-size", "32")
PLAIN = ("--set", "augment=null", "--set", "label_smoothing=0", "--lr", "0.05")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with FER2013's CSV, of faces that are easy to tell apart, and with what `fer` makes of it."""
    root, rng = tmp_path_factory.mktemp("book"), np.random.default_rng(0)
    lines = ["emotion,pixels,Usage"]
    for usage, n in (("Training", 180), ("PublicTest", 60), ("PrivateTest", 60)):
        for i in range(n):
            image = rng.integers(0, 80, (48, 48))
            image[8 * (i % 6) : 8 * (i % 6) + 6, 8:40] += 150
            lines.append(f"{CODES[i % 6]},{' '.join(map(str, image.ravel()))},{usage}")
    lines.append(f"1,{' '.join(['7'] * 48**2)},Training")
    (root / "data" / "fer2013").mkdir(parents=True)
    (root / "data" / "fer2013" / "fer2013.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        go_to(root, patch)
        assert cli.main(["merge"]) == 0
        assert cli.main(["train", "easynet", "--name", "toy", *SMALL, *PLAIN]) == 0
    return root


def go_to(root, patch):
    patch.setenv("FER_DATA", str(root / "data"))
    patch.setenv("FER_BUILD", str(root / "build"))
    patch.chdir(root)


@pytest.fixture
def space(made, monkeypatch):
    go_to(made, monkeypatch)
    return workspace("full")


def refused(capsys, *arguments):
    """The one line that a command prints as it fails."""
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"fer {arguments[0]}: ") and said.count("\n") == 1, said
    assert "Traceback" not in said
    return said


def refused_elsewhere(space, capsys, *arguments):
    """The same after a merge that came out otherwise."""
    path = space.faceset / "manifest.json"
    before = path.read_bytes()
    path.write_text(
        json.dumps(json.loads(before) | {"checksums": {"images.npy": "0" * 64}}), encoding="utf-8"
    )
    try:
        return refused(capsys, *arguments)
    finally:
        path.write_bytes(before)


def test_data_says_what_was_found_and_what_is_missing(space, capsys):
    assert cli.main(["data"]) == 0
    said = capsys.readouterr().out
    assert "FER2013" in said and "301" in said and "Missing, and where to get it" in said


def test_damaged_data_are_told_by_the_exit_code(space, capsys, tmp_path):
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n9,1 2 3,Training\n", encoding="utf-8")
    assert cli.main(["data", "--data", str(tmp_path)]) == 1
    assert "Damaged" in capsys.readouterr().out


def test_merge_left_the_manifest_for_the_book(space):
    kept = json.loads((space.results / results.DATA).read_text(encoding="utf-8"))
    assert kept["images"] == 300
    assert kept["sources"][0]["dropped"]["disgust"] == 1


def test_merge_elsewhere_leaves_the_book_alone(space, capsys, tmp_path):
    before = (space.results / results.DATA).stat().st_mtime_ns
    assert cli.main(["merge", "--out", str(tmp_path / "faces"), "--disgust", "angry"]) == 0
    assert "301 faces are merged" in capsys.readouterr().out
    assert (space.results / results.DATA).stat().st_mtime_ns == before


def test_a_run_leaves_everything_to_go_on_from(space):
    folder = space.runs / "toy"
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert about["network"] == "easynet" and about["options"]["widths"] == [4, 8, 8]
    recipe = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    assert recipe["epochs"] == 2 and recipe["augment"] is None and recipe["lr"] == 0.05
    assert len(pd.read_csv(folder / "history.csv")) == 2
    assert (folder / "model.safetensors").exists() and (folder / "last.ckpt").exists()


def test_evaluate_reads_the_test_split_only_when_asked_and_only_once(space, capsys, monkeypatch):
    splits, score = [], results.evaluate
    monkeypatch.setattr(results, "evaluate", lambda m, f, split: splits.append(split) or score(m, f, split))

    assert cli.main(["evaluate", "toy"]) == 0
    said = capsys.readouterr().out
    assert splits == ["validation"] and "fer2013+flip" in said and "test " not in said
    path = space.results / "toy.json"
    assert "test" not in results.read(path)

    assert cli.main(["evaluate", "toy", "--test"]) == 0
    assert splits == ["validation", "validation", "test"]
    first = results.read(path)
    assert first["test"]["fer2013"]["images"] == 60
    assert first["validation"]["fer2013"]["accuracy"] > 0.5

    def predict(model, faces, **options):
        assert "test" not in set(faces.index["split"]), "the test images were touched again"
        return real(model, faces, **options)

    real = results.predict
    monkeypatch.setattr(results, "predict", predict)
    for arguments in (["--test"], []):
        assert cli.main(["evaluate", "toy", *arguments]) == 0
        assert results.read(path)["test"] == first["test"]
    assert "test " in capsys.readouterr().out


def test_test_scores_of_other_weights_are_not_kept(space):
    path = runs.evaluate(space, "toy", test=True)
    other = results.read(path) | {"checkpoint": "0" * 64}
    results.write(other, path)
    assert "test" not in results.read(runs.evaluate(space, "toy"))
    assert "test" in results.read(runs.evaluate(space, "toy", test=True))


def test_training_by_call_gives_what_the_command_gives(space, tmp_path):
    elsewhere = dataclasses.replace(space, build=tmp_path, results=tmp_path / "results")
    (tmp_path / "faceset").symlink_to(space.faceset)
    changes = {"epochs": 2, "batch_size": 32, "augment": None, "label_smoothing": 0.0, "lr": 0.05}
    options = {"widths": [4, 8, 8], "hidden": 16}
    run = runs.train(
        elsewhere, "easynet", name="toy", recipe_changes=changes, model_options=options, verbose=False
    )
    columns = ["epoch", "train_loss", "val_loss", "val_accuracy", "lr"]
    there = pd.read_csv(space.runs / "toy" / "history.csv")
    pd.testing.assert_frame_equal(run.history[columns], there[columns], check_exact=False, atol=1e-5)


def test_a_finished_real_run_is_loaded_and_not_trained_again(space, monkeypatch):
    monkeypatch.setattr(runs, "train", lambda *a, **o: pytest.fail("it was trained again"))
    run = runs.train_or_load(space, "easynet", name="toy")
    assert run.model.options["widths"] == [4, 8, 8] and len(run.history) == 2
    assert not run.model.training


def test_a_stopped_real_run_goes_on_and_a_demo_run_starts_anew(space, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "train", lambda *a, **options: asked.append(options["resume"]))
    runs.train_or_load(space, "easynet", name="another")
    runs.train_or_load(dataclasses.replace(space, profile="demo"), "easynet", name="toy")
    assert asked == [True, False]


class Stop(Exception):
    pass


def test_a_new_run_does_not_pass_off_the_weights_of_an_old_one(space, monkeypatch, tmp_path):
    elsewhere = Workspace("full", space.data, tmp_path, tmp_path / "results")
    (tmp_path / "faceset").symlink_to(space.faceset)
    folder = elsewhere.runs / "toy"
    folder.mkdir(parents=True)
    save_checkpoint(EasyNet(), folder / "model.safetensors", {"network": "easynet", "options": {}})

    def stopped(*arguments, **options):
        raise Stop

    monkeypatch.setattr(runs, "fit", stopped)
    with pytest.raises(Stop):
        runs.train(elsewhere, "easynet", name="toy")
    with pytest.raises(DataError, match="missing or has not finished"):
        runs.evaluate(elsewhere, "toy")


def test_resuming_another_network_or_other_options_is_refused(space, capsys):
    assert "options changed" in refused(
        capsys, "train", "easynet", "--name", "toy", "--resume", *SMALL, *PLAIN, "--option", "hidden=8"
    )
    said = refused(capsys, "train", "emonet", "--name", "toy", "--resume", "--option", "width=0.125")
    assert "network, options changed" in said
    # A finished run stays finished, whatever was asked of it.
    before = sha256(space.runs / "toy" / "model.safetensors")
    again = ("train", "easynet", "--name", "toy", "--resume", *SMALL, *PLAIN)
    assert "another recipe (epochs changed)" in refused(capsys, *again, "--epochs", "9")
    assert "(merged changed)" in refused_elsewhere(space, capsys, *again)
    last = space.runs / "toy" / "last.ckpt"
    last.rename(last.with_suffix(".away"))  # to save room, say
    assert "another recipe (epochs changed)" in refused(capsys, *again, "--epochs", "9")
    last.with_suffix(".away").rename(last)
    assert sha256(space.runs / "toy" / "model.safetensors") == before


@pytest.mark.parametrize(
    "wrong", [("--precision", "bf16mixed"), ("--accelerator", "abacus"), ("--set", "lr_decay=0.5")]
)
def test_what_cannot_begin_takes_nothing_away(space, capsys, wrong):
    folder = space.runs / "toy"
    before = {path.name: sha256(path) for path in folder.iterdir()}
    refused(capsys, "train", "easynet", "--name", "toy", *SMALL, *PLAIN, *wrong)
    assert {path.name: sha256(path) for path in folder.iterdir()} == before


def test_no_images_to_choose_by_take_nothing_away(space, monkeypatch):
    folder = space.runs / "toy"
    before = {path.name: sha256(path) for path in folder.iterdir()}
    keep = lambda faces, sources: faces.where((faces.index["split"] != "validation").to_numpy())  # noqa: E731
    monkeypatch.setattr(runs, "of_sources", keep)
    with pytest.raises(DataError, match="no validation images"):
        runs.train(space, "easynet", name="toy")
    assert {path.name: sha256(path) for path in folder.iterdir()} == before


def test_no_test_images_are_no_test_score(space, monkeypatch):
    faces = space.faces()
    few = faces.where((faces.index["split"] != "test").to_numpy())
    monkeypatch.setattr(type(space), "faces", lambda space: few)
    with pytest.raises(DataError, match="has no test images"):
        runs.evaluate(space, "toy", test=True)


def test_scores_on_other_splits_are_kept_apart(space):
    result = results.read(runs.evaluate(space, "toy", test=True))
    (space.results / "toy.json").unlink()
    assert result["protocol"] == {"disgust": "drop", "other_splits": []}
    mixed = result | {"protocol": {"disgust": "drop", "other_splits": ["fer2013"]}}
    angry = result | {"protocol": {"disgust": "angry", "other_splits": []}}
    elsewhere = result | {"validation": {"ckplus": result["validation"]["fer2013"]}}
    only = result | {"test": {"jaffe": result["test"]["fer2013"]}}
    kept = results.by_protocol([result, mixed, angry, elsewhere, only])
    assert kept[0] is result and len(kept) == 2 and "test" not in kept[1]
    real = result | {"profile": "full"}
    card = publish.card("net", "net", real, [], {})
    assert "PublicTest is *validation*" in card and "without *disgust*" in card
    told = publish.card("net", "net", real | {"protocol": mixed["protocol"]}, [], {})
    assert "No score here is one on PrivateTest" in told and "PublicTest is" not in told
    told = publish.card("net", "net", real | {"protocol": angry["protocol"]}, [], {})
    assert "count as *angry*" in told and "without *disgust*" not in told
    assert "Faces drawn by a program" in publish.card("net", "net", real | {"profile": "demo"}, [], {})


def test_no_teacher_of_another_merged_set(space):
    path = space.runs / "toy" / "run.json"
    whole = path.read_bytes()
    path.write_text(json.dumps(json.loads(whole) | {"merged": "0" * 64}), encoding="utf-8")
    try:
        with pytest.raises(DataError, match=r"toy/run.json: the run was trained on another merged set"):
            runs.train(space, "easynet", name="pupil", teachers=["toy"])
    finally:
        path.write_bytes(whole)


def test_resuming_a_finished_run_leaves_its_weights_as_they_are(space, capsys, monkeypatch):
    before = sha256(space.runs / "toy" / "model.safetensors")
    monkeypatch.setattr(results, "revision", lambda: "another")
    assert cli.main(["train", "easynet", "--name", "toy", "--resume", *SMALL, *PLAIN]) == 0
    assert sha256(space.runs / "toy" / "model.safetensors") == before


def test_a_run_is_not_scored_on_another_merged_set(space, capsys):
    path = runs.evaluate(space, "toy")
    before = path.read_bytes()
    assert "trained on another merged set" in refused_elsewhere(space, capsys, "evaluate", "toy", "--test")
    assert path.read_bytes() == before
    # A manifest that differs in nothing but its date, say, is of the same set.
    manifest = space.faceset / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_text(json.dumps(json.loads(whole) | {"made_by": "a later version"}), encoding="utf-8")
    runs.evaluate(space, "toy")
    manifest.write_bytes(whole)


def test_chapters_do_not_load_a_run_of_another_merged_set(space):
    manifest = space.faceset / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_text(json.dumps(json.loads(whole) | {"checksums": {}}), encoding="utf-8")
    with pytest.raises(DataError, match="trained on another merged set"):
        runs.train_or_load(space, "easynet", name="toy")
    manifest.write_bytes(whole)


def test_a_gpu_gets_larger_batches_and_a_rate_to_match(monkeypatch):
    _, here = runs.recipe_for("facenet", "full")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    _, there = runs.recipe_for("facenet", "full")
    assert there.batch_size == 4 * here.batch_size and there.lr == 4 * here.lr
    assert dataclasses.replace(there, batch_size=here.batch_size, lr=here.lr) == here
    _, demo = runs.recipe_for("facenet", "demo")
    assert demo.batch_size == 32, "few images need many steps"


def test_a_recipe_is_changed_field_by_field():
    recipe = runs.change(Recipe(augment=None), {"lr": 1, "augment.degrees": 5, "schedule": "cosine"})
    assert recipe.lr == 1 and recipe.schedule == "cosine"
    assert recipe.augment == Augment(degrees=5)
    assert runs.change(recipe, {"augment": None}).augment is None
    assert runs.change(recipe, {}) == recipe


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("learning_rate", 0.1, "no field 'learning_rate'"),
        ("augment.angle", 5, "no field 'augment.angle'"),
        ("recipe.lr", 5, "no field 'recipe.lr'"),
        ("lr", "much", "must be a number"),
        ("lr", True, "must be a number"),
        ("epochs", 2.5, "must be a whole number"),
        ("epochs", 0, "whole number of at least 1"),
        ("batch_size", -1, "whole number of at least 1"),
        ("lr", float("nan"), "at least 0"),
        ("clip", -1, "at least 0"),
        ("label_smoothing", 2, "at least 0 and at most 1"),
        ("ema", 1.5, "at least 0 and at most 1"),
        ("schedule", "step", "one of onecycle, cosine, constant"),
        ("optimizer", "lion", "one of sgd, adam"),
        ("augment", 5, "augment.flip=0"),
    ],
)
def test_a_recipe_refuses_what_it_does_not_know(name, value, says):
    with pytest.raises(ValueError, match=says):
        runs.change(Recipe(), {name: value})


def test_export_as_folder_and_as_data_set(space, capsys, tmp_path):
    assert cli.main(["export", "folder", str(tmp_path / "png")]) == 0
    assert "300 faces are exported" in capsys.readouterr().out
    assert len(list((tmp_path / "png").rglob("*.png"))) == 300
    assert sorted(p.name for p in (tmp_path / "png" / "test").iterdir()) == sorted(CLASSES)
    assert "the folder is not empty" in refused(capsys, "export", "folder", tmp_path / "png")


def test_what_has_no_test_score_is_not_published(space, capsys, tmp_path):
    (space.results / "toy.json").unlink(missing_ok=True)
    path = runs.evaluate(space, "toy")
    says = refused(capsys, "publish", "toy", "--out", str(tmp_path / "weights"))
    assert "do not tell a score on FER2013's test images" in says and not (tmp_path / "weights").exists()
    path.unlink()


def test_publish_puts_weights_and_a_card_with_the_measured_scores(space, capsys, tmp_path):
    path = runs.evaluate(space, "toy", test=True)
    assert cli.main(["publish", "toy", "--out", str(tmp_path / "weights")]) == 0
    result = results.read(path)
    name = result["model"]["name"]
    published = tmp_path / "weights" / f"{name}.safetensors"
    assert published.read_bytes() == (space.runs / "toy" / "model.safetensors").read_bytes()
    card = (tmp_path / "weights" / f"{name}.md").read_text(encoding="utf-8")
    for split in ("validation", "test"):
        assert f"{result[split]['fer2013']['accuracy']:.2%}" in card
    assert "**Start:**" not in card and "**Teachers:**" not in card
    # Results of other weights must not stand on the card.
    results.write(result | {"checkpoint": "0" * 64}, path)
    assert cli.main(["publish", "toy", "--out", str(tmp_path / "weights")]) == 1
    assert "those of other weights" in capsys.readouterr().err
    path.unlink()


def test_a_card_tells_where_the_weights_began_and_who_taught(space):
    result = results.read(runs.evaluate(space, "toy", test=True))
    options = result["model"]["options"] | {"trunk": "mobilenet_v1", "pretrained": "vggface2"}
    taught = {"share": 0.7, "checkpoints": {"one": "1", "two": "2"}}
    card = publish.card("facenet", "run", result | {"model": result["model"] | {"options": options},
                                                    "teachers": taught}, [result], {})  # fmt: skip
    assert "mobilenet_v1 weights" in card and "learnt on VGGFace2" in card and "research only" in card
    assert all(SOURCES[name].sha256 in card for name in ("faceres.json", "faceres.bin"))
    assert "one, two, with a share of 0.7" in card and "**Labels:**" not in card
    for kind, says in (("both", "have forgotten"), ("ferplus", "instead of FER2013's labels")):
        card = publish.card("easynet", "run", result | {"labels": {"kind": kind, "share": 0.25}}, [], {})
        assert "**Labels:**" in card and says in card and "0.25" in card
    (space.results / "toy.json").unlink()


def test_a_card_tells_what_its_teachers_began_with_and_whether_the_test_was_read_before(space):
    result = results.read(runs.evaluate(space, "toy", test=True))
    (space.results / "toy.json").unlink()
    began = result["model"]["options"] | {"trunk": "mobilenet_v1", "pretrained": "vggface2"}
    teacher = result | {"name": "one", "model": result["model"] | {"options": began}}
    fitted = {"run": "plain", "images": 9, "accuracy": {"before": 0.5, "after": 0.6}, "biases": [0.0] * 6}
    taught = result | {"teachers": {"share": 0.7, "checkpoints": {"one": "1"}}, "calibrated": fitted}
    untested = {key: value for key, value in result.items() if key != "test"}
    for name, plain in (("plain", result), ("plain", untested)):
        for told in (teacher, plain | {"name": name}):
            results.write(told, space.results / f"{told['name']}.json")
        found = publish.behind(space.results, taught)
        assert list(found) == ["one", "plain"]
        card = publish.card("net", "net", taught, [], found)
        assert card.count("learnt on VGGFace2") == 1 and "**Start:**" not in card
        score = f"as well: {result['test']['fer2013']['accuracy']:.2%} (`plain`)"
        assert (score in card) == ("test" in plain) and ("was not scored on" in card) == ("test" not in plain)
    for name in found:
        (space.results / f"{name}.json").unlink()
    assert publish.behind(space.results, taught) == {}
    assert "Teachers started" not in publish.card("net", "net", taught, [], {})


@pytest.mark.parametrize(("trunk", "side"), [("resnet50", 32), ("inception_resnet_v1", 80)])
def test_larger_trunks_go_the_whole_way(space, tmp_path, trunk, side):
    how = ["--option", f"trunk={trunk}", "--option", "pretrained=none", "--option", "head=[8]"]
    how += ["--option", f"input_size={side}", "--option", "freeze=0.9", "--set", "batches=2", "--epochs", "1"]
    assert cli.main(["train", "facenet", "--name", trunk, "--batch-size", "8", "--cache", "1", *how]) == 0
    assert cli.main(["evaluate", trunk, "--test"]) == 0
    assert cli.main(["publish", trunk, "--out", str(tmp_path)]) == 0
    result = results.read(space.results / f"{trunk}.json")
    assert result["test"]["fer2013"]["images"] == 60 and result["cached"]["views"] == 1
    assert load_model(tmp_path / "facenet.safetensors").options["trunk"] == trunk
    (space.results / f"{trunk}.json").unlink()


def test_a_results_file_tells_its_command(space):
    how = ["--set", "augment.degrees=5", "--set", "optimizer=adam", "--set", "mixup=0.1"]
    how += ["--teachers", "toy", "--share", "0.25", *SMALL]
    assert cli.main(["train", "easynet", "--name", "told", "--seed", "3", *how]) == 0
    told = command(results.read(runs.evaluate(space, "told")))
    assert told.startswith("fer train easynet --name told --seed 3 ") and "'widths=[4, 8, 8]'" in told
    again = [word.replace("told", "again") for word in shlex.split(told)[1:]]
    assert cli.main(again) == 0
    weights, other = (load_model(space.runs / n / "model.safetensors") for n in ("told", "again"))
    assert all(torch.equal(a, b) for a, b in zip(weights.parameters(), other.parameters(), strict=True))
    (space.results / "told.json").unlink()


def test_commands_tell_sources_votes_and_caches(space):
    result = results.read(runs.evaluate(space, "toy"))
    (space.results / "toy.json").unlink()
    more = {
        "validated_on": ["fer2013"],
        "labels": {"kind": "both", "share": 0.5},
        "cached": {"views": 4, "dtype": "float32"},
    }
    more["data"] = result["data"] | {"sources": {"fer2013": {}, "jaffe": {}}}
    told = command(result | more)
    for words in ("--sources fer2013", "--validate-on fer2013", "--labels both --share 0.5",
                  "--cache 4 --cache-dtype float32",
                  "--set augment=null"):  # fmt: skip
        assert words in told


def test_a_card_tells_what_all_seeds_of_a_recipe_reach(space):
    first = results.read(runs.evaluate(space, "toy", test=True))
    judged = first["test"]["fer2013"]
    other = first | {"test": {"fer2013": judged | {"accuracy": abs(judged["accuracy"] - 0.1)}}}
    for name, result in (("net-seed0", first), ("net-seed12", other), ("net-both-seed0", other)):
        results.write(result | {"name": name}, space.results / f"{name}.json")
    alike = publish.alike(space.results, "net-seed0")
    assert [result["name"] for result in alike] == ["net-seed0", "net-seed12"]
    assert "one seed of 2" in (card := publish.card("net", "net-seed0", first, alike, {}))
    assert f"{np.mean([result['test']['fer2013']['accuracy'] for result in (first, other)]):.2%}" in card
    alone = publish.alike(space.results, "net-both-seed0")
    assert "No other seed" in publish.card("net", "net-both-seed0", other, alone, {})
    # Another recipe under the same name is another network.
    results.write(other | {"name": "net-seed2", "recipe": first["recipe"] | {"lr": 9.0}},
                  space.results / "net-seed2.json")  # fmt: skip
    assert publish.alike(space.results, "net-seed0") == alike
    for name in ("toy", "net-seed0", "net-seed12", "net-seed2", "net-both-seed0"):
        (space.results / f"{name}.json").unlink()


def test_predict_reads_the_largest_face_or_the_centre(space, capsys, tmp_path):
    image = np.random.default_rng(0).integers(0, 80, (60, 90), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    checkpoint = space.runs / "toy" / "model.safetensors"
    assert cli.main(["predict", str(tmp_path / "a.png"), "--checkpoint", str(checkpoint)]) == 0
    assert "centre crop" in capsys.readouterr().out
    table = runs.predict_files([tmp_path / "a.png"] * 2, checkpoint)
    assert list(table.columns) == ["file", "face", "emotion", *CLASSES]
    assert table[list(CLASSES)].sum(axis=1).to_numpy() == pytest.approx([1, 1], abs=0.01)
    assert (table["emotion"] == table[list(CLASSES)].idxmax(axis=1)).all()


def test_photos_are_turned_as_their_camera_says(made, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (90, 60), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(np.rot90(image)).save(tmp_path / "sideways.png", exif=exif)
    table = runs.predict_files([tmp_path / "upright.png", tmp_path / "sideways.png"], "none", model=EasyNet())
    assert table.loc[0, list(CLASSES)].tolist() == table.loc[1, list(CLASSES)].tolist()


def test_the_smallest_images_are_answered_too(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, shape in zip(paths, ((20, 20), (60, 23), (4200, 300)), strict=True):
        Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    assert runs.predict_files(paths, "none", model=EasyNet())["face"].tolist() == ["centre crop"] * 3


def test_drawn_faces_are_never_put_in_the_place_of_data(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "fer2013.csv").write_text("rare", encoding="utf-8")
    space = Workspace("demo", tmp_path / "mine", tmp_path / "build", tmp_path / "results")
    with pytest.raises(DataError, match="draws its own faces"):
        space.faces()
    assert (tmp_path / "mine" / "fer2013.csv").read_text(encoding="utf-8") == "rare"


def test_chapters_that_begin_at_once_draw_faces_once(tmp_path, monkeypatch):
    drawn, write = [], workspace_module.write_demo
    monkeypatch.setattr(workspace_module, "write_demo", lambda root: (drawn.append(root), write(root)))
    space = Workspace("demo", tmp_path / "data", tmp_path, tmp_path / "results")
    with ThreadPoolExecutor(2) as pool:
        sets = list(pool.map(lambda _: space.faces(), range(2)))
    assert len(drawn) == 1 and len(sets[0]) == len(sets[1]) > 0


def test_a_loaded_network_predicts_without_a_checkpoint(tmp_path):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    assert len(runs.predict_files([tmp_path / "a.png"], "none", model=EasyNet().eval())) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["merge", "--sources", "fer2014"], "no data set is called 'fer2014'"),
        (["merge", "--sources", "jaffe"], "JAFFE is not below this folder"),
        (["merge", "--data", "nowhere"], "the folder of the data is missing"),
        (["merge", "--out", "data"], "something other than a merged set"),
        (["train", "easynet", "--sources", "fer2013", "jaffe"], "no faces of a source 'jaffe'"),
        (["train", "easynet", "--profile", "demo", "--data", "data"], "draws its own faces"),
        (["train", "easynet", "--set", "seed=3"], "give it as --seed"),
        (["train", "easynet", "--share", "0.5"], "there are neither"),
        (["publish", "toy", "--profile", "demo"], "with --out"),
        (["train", "easynet", "--set", "lr"], "'lr' is not of the form name=value"),
        (["train", "easynet", "--set", "rate=1"], "no field 'rate'"),
        (["train", "easynet", "--set", "augment.turn=1"], "no field 'augment.turn'"),
        (["train", "easynet", "--set", "schedule=step"], "one of onecycle"),
        (["train", "easynet", "--epochs", "0"], "at least 1"),
        (["train", "easynet", "--option", "height=3"], "easynet has no option 'height'"),
        (["train", "easynet", "--option", "dropout=much"], "cannot be built"),
        (["train", "easynet", "--option", "widths=[4, 8]"], "cannot be built"),
        (["train", "easynet", "--option", "image_size=4"], "cannot be built"),
        (["train", "easynet", "--name", "x", "--accelerator", "abacus"], "abacus"),
        (["train", "easynet", "--name", "x", "--devices", "some"], "--devices is 'some'"),
        (["train", "easynet", "--name", "x", "--devices", "0"], "devices='0'"),
        (["evaluate", "nobody"], "missing or has not finished"),
        (["predict", "none.png", "--checkpoint", "none.safetensors"], "no such checkpoint"),
        (["export", "folder", "data"], "the folder is not empty"),
        (["export", "folder", "data/fer2013/fer2013.csv/x"], "File exists"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_are_one_line_and_exit_code_1(space, capsys, arguments, says):
    assert says in refused(capsys, *arguments)


def test_missing_and_damaged_images_are_one_line(space, capsys, tmp_path):
    checkpoint = ["--checkpoint", space.runs / "toy" / "model.safetensors"]
    assert "the image file is missing" in refused(capsys, "predict", tmp_path / "none.png", *checkpoint)
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    assert "cannot be decoded" in refused(capsys, "predict", tmp_path / "text.png", *checkpoint)
    (tmp_path / "text.safetensors").write_text("no weights", encoding="utf-8")
    said = refused(capsys, "predict", tmp_path / "text.png", "--checkpoint", tmp_path / "text.safetensors")
    assert "not a whole safetensors file" in said


def test_nothing_merged_is_told_with_its_remedy(capsys, monkeypatch, tmp_path):
    go_to(tmp_path, monkeypatch)
    for arguments in (["train", "easynet"], ["export", "folder", "out"]):
        assert "run `fer merge`" in refused(capsys, *arguments)


def test_a_damaged_results_file_is_not_overwritten(space, capsys):
    path = runs.evaluate(space, "toy")
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[:100], encoding="utf-8")
    assert "delete it" in refused(capsys, "evaluate", "toy")
    assert path.read_text(encoding="utf-8") == whole[:100]
    path.write_text(whole, encoding="utf-8")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["train", "vgg"], ["merge", "--disgust", "keep"]])
def test_what_is_no_command_prints_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2 and "usage: fer" in capsys.readouterr().err


def test_networks_and_options_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="no network is called 'vgg'; there are emonet, easynet, facenet"):
        build("vgg")
    with pytest.raises(ValueError, match="emonet has no option 'depth'; it has width"):
        build("emonet", depth=3)
