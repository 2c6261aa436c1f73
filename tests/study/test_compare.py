"""Two networks are compared from stored predictions; what the book stores is what its predictions give."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from fer_utils.errors import DataError
from fer_utils.evaluation import metrics
from fer_utils.experiment import Workspace, read_result, write_predictions
from fer_utils.files import write_json
from reading_faces.report.scores import RESULTS
from reading_faces.study import compare
from reading_faces.study.stats import mcnemar
from reading_faces.study.store import read_report

MEMBERS = {"easynet": ["easynet-seed0", "easynet-seed1"], "facenet": ["facenet-seed0", "facenet-seed1"]}
RUNS = [*MEMBERS["easynet"], *MEMBERS["facenet"]]
PUBLISHED = {
    "networks": {"easynet": "easynet", "facenet": "facenet"},
    "votes": {"easynet": "easynet-both-taught-70", "facenet": "facenet-both-160-calibrated"},
}


def keep(space, name, images=240, sharpness=1.0):
    """Made-up predictions and results of a run, the sharper the better."""
    rng = np.random.default_rng(sum(name.encode()))
    template = read_result(RESULTS / "easynet-seed0.json")
    result = {"name": name, "checkpoint": name, "recipe": {"seed": int(name[-1])}}
    for split in ("validation", "test"):
        index = pd.DataFrame(
            {
                "label": np.arange(images) % 6,
                "source": np.where(np.arange(images) < images - 60, "fer2013", "jaffe"),
                "origin": [f"{split}:{i}" for i in range(images)],
                "hash": [f"{split}:{i}" for i in range(images)],
                "seen_copy": np.arange(images) % 9 == 0,
            }
        )
        variants = {}
        for variant in ("p", "flip"):
            logits = rng.normal(size=(images, 6)) + sharpness * np.eye(6)[index["label"]]
            variants[variant] = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        write_predictions(space.results, name, split, index, name, **variants)
        own = (index["source"] == "fer2013").to_numpy()
        result[split] = {"fer2013": metrics(index["label"].to_numpy()[own], variants["p"][own])}
    write_json(space.results / f"{name}.json", dataclasses.asdict(dataclasses.replace(template, **result)))


@pytest.fixture
def space(tmp_path):
    space = Workspace("demo", tmp_path, tmp_path, tmp_path / "results")
    for network, names in MEMBERS.items():
        for name in names:
            keep(space, name, sharpness={"easynet": 1.0, "facenet": 1.6}[network])
    return space


def test_the_report_is_what_the_predictions_say(space):
    report = compare.compare(space, MEMBERS)
    seen = compare.answers(space, RUNS, "test")
    assert report["images"] == {"plain": 180, "flip": 180, "deduplicated": 160}
    for network, names in MEMBERS.items():
        known = {name: read_result(space.results / f"{name}.json") for name in names}
        for name, result in known.items():
            assert report["runs"][name]["network"] == network
            assert report["runs"][name]["seed"] == int(name[-1])
            assert report["runs"][name]["test"]["plain"] == result.test["fer2013"]["accuracy"]
        assert report["best"][network] == max(names, key=lambda n: known[n].validation["fer2013"]["accuracy"])
    what = [(pair["what"], pair["variant"]) for pair in report["pairs"]]
    assert what == [(w, v) for w in ("best by validation", "seed 0", "seed 1") for v in compare.VARIANTS]
    pair = next(p for p in report["pairs"] if (p["what"], p["variant"]) == ("seed 1", "deduplicated"))
    right = [seen.plain[i][seen.fresh].argmax(1) == seen.labels[seen.fresh] for i in (3, 1)]
    assert pair["runs"] == ["facenet-seed1", "easynet-seed1"]
    assert {key: pair[key] for key in mcnemar(*right)} == mcnemar(*right)


def test_ensembles_are_chosen_on_validation_and_scored_on_the_test(space):
    report = compare.compare(space, MEMBERS)
    seen = {s: compare.answers(space, RUNS, s) for s in ("validation", "test")}
    assert [(e["name"], e["variant"]) for e in report["ensembles"]] == [
        (name, variant)
        for variant in ("plain", "flip")
        for name in ("easynet", "facenet", "easynet and facenet")
    ]
    for mixed in report["ensembles"]:
        weights = np.array([mixed["weights"].get(name, 0) for name in RUNS])
        assert weights.sum() == pytest.approx(1, abs=1e-5)
        scores = {}
        for split, each in seen.items():
            probabilities = np.tensordot(weights, getattr(each, mixed["variant"]), 1)
            scores[split] = np.mean(probabilities.argmax(1) == each.labels)
        assert mixed["validation"] == pytest.approx(scores["validation"])
        assert mixed["test"]["accuracy"] == pytest.approx(scores["test"])
        assert mixed["against"]["run"] in report["best"].values()
    for variant in (0, 3):
        easy, face, both = report["ensembles"][variant : variant + 3]
        assert both["validation"] >= max(easy["validation"], face["validation"])


@pytest.mark.parametrize("damage", ["weights", "images", "source"])
def test_predictions_that_do_not_belong_together_are_refused(space, damage):
    names, source = ["easynet-seed0", "easynet-seed1"], "fer2013"
    if damage == "weights":
        path = space.results / "easynet-seed1.json"
        write_json(path, json.loads(path.read_text()) | {"checkpoint": "other"})
        problem = "easynet-seed1 are of other weights"
    elif damage == "images":
        keep(space, "easynet-seed1", images=120)
        problem = "another merged set"
    else:
        source, problem = "kdef", "other images or labels"
    with pytest.raises(DataError, match=rf"{problem}.*fer evaluate easynet-seed"):
        compare.answers(space, names, "test", source)


def test_the_command_writes_the_report_and_prints_the_pairs(space, capsys, monkeypatch):
    monkeypatch.setattr(compare, "workspace", lambda profile: space)
    compare.main(["--profile", "demo", "--name", "some", "--easynet", "easynet", "--facenet", "facenet"])
    report = read_report(space.results / "comparisons" / "some.json")
    again = compare.compare(space, MEMBERS)
    assert report["best"] == again["best"] and report["pairs"] == again["pairs"]
    assert f"seed 1, plain: {report['pairs'][6]['difference']:+.2%}" in capsys.readouterr().out


@pytest.mark.parametrize("name", PUBLISHED)
def test_stored_predictions_give_the_stored_comparison(name):
    space = Workspace("full", RESULTS, RESULTS, RESULTS)
    members = {n: [f"{stem}-seed{seed}" for seed in range(3)] for n, stem in PUBLISHED[name].items()}
    again = json.loads(json.dumps(compare.compare(space, members)))
    stored = read_report(RESULTS / "comparisons" / f"{name}.json")
    for part in ("images", "runs", "best", "pairs"):
        assert again[part] == stored[part], part
    for ours, theirs in zip(again["ensembles"], stored["ensembles"], strict=True):
        assert ours | {"test": None} == theirs | {"test": None}
        # Sixteen bits move the log loss in the sixth place and nothing that counts images.
        assert ours["test"]["confusion"] == theirs["test"]["confusion"]
        assert ours["test"]["log_loss"] == pytest.approx(theirs["test"]["log_loss"], abs=1e-5)


def test_stored_predictions_give_the_accuracies_of_their_results():
    for path in sorted((RESULTS / "predictions").glob("*-test.npz")):
        run = path.stem.removesuffix("-test")
        space, result = Workspace("full", RESULTS, RESULTS, RESULTS), read_result(RESULTS / f"{run}.json")
        for split, scores in (("validation", result.validation), ("test", result.test)):
            seen = compare.answers(space, [run], split)
            assert seen.correct().mean() == pytest.approx(scores["fer2013"]["accuracy"], abs=1e-12), run
            alone = scores["fer2013-deduplicated"]["accuracy"]
            assert seen.correct("deduplicated").mean() == pytest.approx(alone, abs=1e-12), run
