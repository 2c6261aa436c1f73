"""Claims are judged by fixed rules, two networks are compared from kept answers, and depth on one budget."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fer_utils import cli, results, runs
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.evaluation import bootstrap_interval, mcnemar, metrics, paired_interval
from fer_utils.models import EasyNet, FaceNet, build
from fer_utils.weights import save_checkpoint
from fer_utils.workspace import Workspace
from reading_faces.report import notebook, plots
from reading_faces.study import compare, speed, verdicts
from reading_faces.study.stats import Z, mean_score, quantile

TINY = {"epochs": 1, "batch_size": 16, "lr": 0.05, "augment": None}
SMALL = {"widths": [2, 4, 4], "hidden": 8}
HEAD = {"trunk_width": 0.25, "head": [8], "input_size": 64}
RUNS = {
    "easynet": ["easynet-seed0", "easynet-seed1"],
    "facenet": ["facenet-seed0", "facenet-seed1"],
}


@pytest.fixture(scope="module")
def space(three_sources, tmp_path_factory):
    root = tmp_path_factory.mktemp("verdicts")
    (root / "faceset").symlink_to(three_sources.path)
    space = Workspace("demo", root / "data", root, root / "results")
    for network, options in (("easynet", SMALL), ("facenet", {"trunk_width": 0.25, "head": [8]})):
        for seed in (0, 1):
            run = runs.train(
                space, network, seed=seed, recipe_changes=TINY, model_options=options, verbose=False
            )
            runs.evaluate(space, run.folder.name, test=True)
    return space


@pytest.fixture(scope="module")
def report(space):
    return compare.networks(space)


def kept(space, run, split="test", source="fer2013"):
    table = pd.read_parquet(results.predictions_path(space.results, run, split))
    return table[table["source"] == source]


# --- two networks ---


def test_the_report_is_what_the_kept_answers_say(space, report):
    assert json.loads((space.results / "comparisons" / "networks.json").read_text()) == report
    for network, names in RUNS.items():
        on_validation = {}
        for run in names:
            result = results.read(space.results / f"{run}.json")
            listed = report["runs"][run]
            assert listed["network"] == network and listed["seed"] == int(run[-1])
            assert listed["test"]["plain"] == pytest.approx(result["test"]["fer2013"]["accuracy"])
            assert listed["test"]["flip"] == pytest.approx(result["test"]["fer2013+flip"]["accuracy"])
            on_validation[run] = result["validation"]["fer2013"]["accuracy"]
            assert listed["validation"] == pytest.approx(on_validation[run])
        assert on_validation[report["best"][network]] == max(on_validation.values())
        mean = np.mean([report["runs"][run]["test"]["plain"] for run in names])
        found = report["means"]["plain"][network]
        assert found["accuracy"] == pytest.approx(mean) and found["seeds"] == 2
        assert found["interval"][0] <= mean <= found["interval"][1]
    assert report["images"]["plain"] == 48


def test_pairs_are_best_against_best_and_seed_by_seed_facenet_first(space, report):
    told = [(p["what"], p["variant"]) for p in report["pairs"]]
    kinds = ["best by validation", "seed 0", "seed 1"]
    assert told == [(k, v) for k in kinds for v in ("plain", "flip", "deduplicated")]
    for pair in report["pairs"]:
        assert [report["runs"][r]["network"] for r in pair["runs"]] == ["facenet", "easynet"]
    flip = next(p for p in report["pairs"] if (p["what"], p["variant"]) == ("seed 1", "flip"))
    right = [
        kept(space, run)[compare.FLIPPED].to_numpy().argmax(1) == kept(space, run)["label"].to_numpy()
        for run in flip["runs"]
    ]
    assert {k: flip[k] for k in ("only_a", "only_b", "p", "difference")} == mcnemar(*right)
    assert flip == {"what": "seed 1", "variant": "flip"} | compare.paired(
        space, *flip["runs"], variant="flip"
    )


def test_ensembles_are_chosen_on_validation_and_reported_apart(space, report):
    names = ["easynet", "facenet", "easynet and facenet"]
    assert [m["name"] for m in report["ensembles"]] == names * 2
    means, labels = {}, {}
    for split in ("validation", "test"):
        labels[split] = kept(space, "easynet-seed0", split)["label"].to_numpy()
        means[split] = [
            np.mean([kept(space, r, split)[compare.PROBABILITIES].to_numpy() for r in names_], axis=0)
            for names_ in RUNS.values()
        ]
    both = report["ensembles"][2]
    assert sum(both["weights"].values()) == pytest.approx(1)
    share = sum(w for run, w in both["weights"].items() if run.startswith("facenet"))
    easy, face = means["validation"]
    scores = [
        np.mean(((1 - w) * easy + w * face).argmax(1) == labels["validation"]) for w in np.linspace(0, 1, 21)
    ]
    assert both["validation"] == pytest.approx(max(scores))
    mixed = (1 - share) * means["test"][0] + share * means["test"][1]
    assert both["test"]["accuracy"] == pytest.approx(np.mean(mixed.argmax(1) == labels["test"]))
    assert both["against"]["run"] in report["best"].values()


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_grid_covers_the_simplex(parts):
    grid = compare.simplex(parts, 0.25)
    assert len(set(grid)) == len(grid) == {1: 1, 2: 5, 3: 15}[parts]
    assert all(sum(weights) == pytest.approx(1) and min(weights) >= 0 for weights in grid)


def test_answers_of_other_weights_are_refused(space, report):
    path = space.results / "easynet-seed1.json"
    written = path.read_text()
    result = json.loads(written)
    path.write_text(json.dumps(result | {"checkpoint": "0" * 64}))
    with pytest.raises(DataError, match=r"not of the weights that its results.*fer evaluate easynet-seed1"):
        compare.networks(space)
    result["test"]["fer2013"]["accuracy"] += 0.01
    path.write_text(json.dumps(result))
    with pytest.raises(DataError, match="do not give the same accuracy"):
        compare.networks(space)
    path.write_text(written)
    with pytest.raises(DataError, match="no results of facenet"):
        compare.networks(space, {"easynet": RUNS["easynet"], "facenet": []})
    # What is named of one network holds, and the other one's default with it.
    some = compare.networks(space, {"easynet": ["easynet-seed1"], "facenet": None}, name="some")
    assert set(some["runs"]) == {"easynet-seed1"} | {n for n in report["runs"] if n.startswith("facenet")}


def test_lost_or_old_answers_are_made_again_when_the_test_is_asked_for(space):
    name = "easynet-seed0"
    path, before = results.predictions_path(space.results, name, "test"), kept(space, name)
    path.unlink()
    runs.evaluate(space, name)
    assert not path.exists()
    runs.evaluate(space, name, test=True)
    pd.testing.assert_frame_equal(kept(space, name), before)
    shutil.copy(results.predictions_path(space.results, "easynet-seed1", "test"), path)
    with pytest.raises(DataError, match="not of the weights"):
        compare.predictions(space, name)
    runs.evaluate(space, name, test=True)
    pd.testing.assert_frame_equal(compare.predictions(space, name), pd.read_parquet(path))


def test_the_tables_and_the_command_say_what_the_report_says(space, report, capsys, monkeypatch):
    table = verdicts.networks_table(report)
    pair = report["pairs"][0]
    assert table["FaceNet"].iloc[0] == notebook.percent(pair["accuracy"][0])
    assert table["only EasyNet right"].iloc[0] == pair["only_b"]
    mixed = verdicts.ensembles_table(report)
    assert list(mixed["networks"])[:2] == [2, 2] and "easynet 1.00" in mixed["weights"].iloc[0]
    monkeypatch.setattr(cli, "_workspace", lambda options: space)
    assert cli.main(["compare-all"]) == 0
    said = capsys.readouterr().out
    assert f"{pair['accuracy'][0]:.2%}" in said and "ensemble  easynet and facenet, flip" in said
    found = {n: [results.read(space.results / f"{r}.json") for r in names] for n, names in RUNS.items()}
    variants = verdicts.variants_table(found)
    assert {"fer2013", "fer2013+flip", "ckplus", "jaffe+flip"} <= set(variants.index)
    mean = np.mean([r["test"]["jaffe"]["accuracy"] for r in found["facenet"]])
    assert variants.loc["jaffe", "facenet"].startswith(notebook.percent(mean))
    facts = verdicts.choice_facts(found["easynet"], found["facenet"], report, None)
    assert "seeds: 2" in facts["choice-easynet"] and "with" in facts["choice-ensemble"]
    assert facts["choice-facenet-time"] == notebook.NOT_YET
    assert set(facts) == set(verdicts.choice_facts([], [], None, None))
    assert set(verdicts.choice_facts([], [], None, None).values()) == {notebook.NOT_YET}


def test_sets_of_runs_are_held_against_each_other_in_words(space, report):
    first, second = (
        [results.read(space.results / f"{name}.json") for name in RUNS[network]]
        for network in ("facenet", "easynet")
    )
    said = verdicts.means_reading(space, first, second)
    alone = verdicts.means_reading(space, first[:1], second)
    for split, name in (("validation", "PublicTest"), ("test", "PrivateTest")):
        tables = [kept(space, run, split) for run in (*RUNS["facenet"], *RUNS["easynet"])]
        shares = [
            float((t[compare.PROBABILITIES].to_numpy().argmax(1) == t["label"].to_numpy()).mean())
            for t in tables
        ]
        pairs = [verdicts.points(a - b) for a, b in zip(shares[:2], shares[2:], strict=True)]
        assert f"{verdicts.points(np.mean(shares[:2]) - np.mean(shares[2:]))} points (" in said
        assert f"on {name}, seed by seed {pairs[0]} and {pairs[1]}" in said
        assert f"{verdicts.points(shares[0] - np.mean(shares[2:]))} points (" in alone
    assert (
        "(seeds: 2 and 2)" in said and "(seeds: 1 and 2; the luck of a single start is not counted)" in alone
    )
    assert (
        verdicts.means_reading(space, first, [{"name": "nobody", "recipe": {"seed": 0}}]) == notebook.NOT_YET
    )
    assert verdicts.means_reading(space, [], second) == notebook.NOT_YET


def test_a_difference_of_means_counts_images_and_seeds():
    rng, truth, held = np.random.default_rng(0), 0.05, []
    one = verdicts.means_gap(np.array([[True] * 70 + [False] * 30]), np.array([[True] * 60 + [False] * 40]))
    assert (one.low + one.high) / 2 == pytest.approx(0.1)
    assert one.high - one.difference == pytest.approx(Z * (0.1 * 0.9 / 100) ** 0.5)
    for _ in range(400):
        hard = rng.random(1000)  # of each image, shared by all runs
        first, second = (
            hard < (base + 0.01 * rng.normal(size=(3, 1)) + 0.05 * rng.normal(size=(3, 1000)))
            for base in (0.6 + truth, 0.6)
        )
        found = verdicts.means_gap(first, second)
        held.append(found.low < truth < found.high)
    assert 0.92 < np.mean(held) < 0.99


def test_tables_of_what_was_not_run_say_so():
    for make in (verdicts.networks_table, verdicts.ensembles_table, verdicts.speed_table):
        assert make(None).index[0] == notebook.NOT_YET
    assert verdicts.variants_table({"EasyNet": []}).index[0] == notebook.NOT_YET


# --- depth ---


@pytest.fixture(scope="module")
def deep(space):
    options = {key: SMALL for key in ("easynet-2", "easynet-3", "easynet-4")} | {"mobilenet": HEAD}
    return compare.depth(space, seeds=(0, 1), recipe_changes=TINY, model_options=options, verbose=False)


def test_depth_compares_on_one_budget_and_leaves_the_test_alone(space, deep):
    assert json.loads((space.results / "comparisons" / "depth.json").read_text()) == deep
    assert [r["key"] for r in deep["runs"]] == [k for k, *_ in compare.DEPTHS for _ in range(2)]
    recipes = []
    for run in deep["runs"]:
        result = results.read(space.results / f"{run['run']}.json")
        assert "test" not in result
        assert not results.predictions_path(space.results, run["run"], "test").exists()
        assert run["validation"] == result["validation"]["fer2013"]
        recipes.append(result["recipe"] | {"seed": 0})
    assert all(recipe == recipes[0] for recipe in recipes) and recipes[0]["epochs"] == deep["epochs"] == 1
    assert [r["options"].get("depth", 3) for r in deep["runs"][:6]] == [2, 2, 3, 3, 4, 4]
    means = {k: np.mean([r["validation"]["accuracy"] for r in deep["runs"] if r["key"] == k])
             for k, *_ in compare.DEPTHS}  # fmt: skip
    assert len(deep["differences"]) == 6
    for pair in deep["differences"]:
        assert pair["difference"] == pytest.approx(means[pair["first"]] - means[pair["second"]])
        assert pair["interval"][0] <= pair["difference"] <= pair["interval"][1]


def test_depth_refuses_runs_of_another_budget(space, deep, monkeypatch):
    monkeypatch.setattr(runs, "train_or_load", lambda *a, **o: None)
    with pytest.raises(DataError, match=r"epochs is 1, not 3"):
        compare.depth(space, epochs=3, recipe_changes={"batch_size": 16})


@pytest.mark.parametrize("profile", ["demo", "full"])
def test_all_networks_are_told_every_setting_of_easynets_recipe(space, profile):
    changes = compare._as_changes(dataclasses.replace(space, profile=profile))
    easynet = runs.recipe_for("easynet", profile)[1]
    for key, _, network, options in compare.DEPTHS:
        theirs, recipe = runs.recipe_for(network, profile)
        assert runs.change(recipe, changes) == easynet
        built = build(network, **theirs | options | ({} if network == "easynet" else {"head": [8]}))
        assert all(p.requires_grad for p in built.parameters()), key


def test_the_command_for_depth_says_the_scores(space, deep, capsys, monkeypatch):
    asked = {}
    monkeypatch.setattr(compare, "depth", lambda space, **options: asked.update(options) or deep)
    assert cli.main(["depth", "--profile", "demo", "--epochs", "2", "--seeds", "0", "1"]) == 0
    assert asked == {"seeds": [0, 1], "epochs": 2, "precision": None}
    first = deep["runs"][0]
    said = f"{first['parameters']:,} parameters, validation {first['validation']['accuracy']:.2%}"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("depth", "kernels"), [(2, [5, 5]), (3, [5, 5, 4]), (4, [5, 5, 4, 3])])
def test_easynet_can_be_shallower_and_deeper(depth, kernels):
    model = EasyNet(widths=(4, 8, 16), hidden=8, depth=depth)
    assert [m.kernel_size[0] for m in model.modules() if isinstance(m, torch.nn.Conv2d)] == kernels
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 6)
    again = EasyNet(**model.options)
    again.load_state_dict(model.state_dict())


def test_easynet_as_it_was_stays_as_it_was():
    assert "depth" not in EasyNet().options  # or else stopped runs could not go on
    torch.manual_seed(0)
    plain = EasyNet(widths=(4, 8, 16)).state_dict()
    torch.manual_seed(0)
    said = EasyNet(widths=(4, 8, 16), depth=3).state_dict()
    assert list(plain) == list(said) and all(torch.equal(plain[k], said[k]) for k in plain)
    assert "features.conv3.0.weight" in plain and "features.conv4.0.weight" not in plain
    with pytest.raises(ValueError, match="2, 3 or 4"):
        EasyNet(depth=5)


# --- intervals ---


@given(n=st.integers(50, 3000), p=st.floats(0.2, 0.95), q=st.floats(0.2, 0.95), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_the_gap_from_metrics_is_no_narrower_than_the_paired_one(n, p, q, seed):
    """Networks that are right on the same images more often than by chance, as real ones are."""
    luck = np.random.default_rng(seed).random(n)
    a, b = luck < p, luck < q
    wide = verdicts.gap([{"accuracy": a.mean(), "images": n}], [{"accuracy": b.mean(), "images": n}])
    low, high = paired_interval(a, b)
    assert wide.difference == pytest.approx(a.mean() - b.mean())
    assert wide.low <= low + 3 / n and wide.high >= high - 3 / n
    assert low - 1e-9 <= wide.difference <= high + 1e-9


def test_the_paired_interval_is_that_of_drawing_images():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.7, rng.random(400) < 0.6
    drawn = [np.mean((a.astype(int) - b)[rng.integers(0, 400, 400)]) for _ in range(4000)]
    assert paired_interval(a, b) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)
    assert paired_interval(a, a) == (0, 0)
    with pytest.raises(ValueError, match="at least one"):
        paired_interval(a[:0], b[:0])


def test_the_paired_gap_covers_images_and_seeds():
    rng = np.random.default_rng(0)
    a, b = rng.random(2000) < 0.7, rng.random(2000) < 0.68
    pair = mcnemar(a, b) | {"images": 2000}
    one = verdicts.paired_gap([pair])
    assert (one.low, one.high) == pytest.approx(paired_interval(a, b), abs=0.003)
    moved = [pair | {"difference": pair["difference"] + d} for d in (-0.05, 0, 0.05)]
    several = verdicts.paired_gap(moved)
    assert several.high - several.low > 2 * 1.96 * 0.05 / 3**0.5
    assert verdicts.paired_gap([pair, pair]).high - one.difference == pytest.approx(one.high - one.difference)


@given(
    of_images=st.floats(1e-6, 1e-3),
    values=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=6), min_size=1, max_size=2),
)
def test_few_seeds_make_an_interval_no_narrower_than_many_would(of_images, values):
    found = quantile(of_images, *map(np.array, values))
    several = [len(own) for own in values if len(own) > 1]
    widest = stats.t.ppf(0.975, min(several) - 1) if several else Z
    assert Z - 1e-9 <= found <= widest + 1e-6


@pytest.mark.parametrize("of_images", [0.0, 0.1, 1.0, 10.0])
def test_the_interval_of_a_mean_over_three_seeds_holds_the_truth_as_often_as_it_says(of_images):
    rng, held = np.random.default_rng(0), []
    for _ in range(2000):
        values = 0.7 + 0.01 * np.sqrt(of_images / 3) * rng.normal() + 0.01 * rng.normal(size=3)
        half = quantile(1e-4 * of_images / 3, values)
        half *= np.sqrt(1e-4 * of_images / 3 + values.var(ddof=1) / 3)
        held.append(abs(values.mean() - 0.7) < half)
    assert np.mean(held) > 0.92


def test_a_mean_score_is_as_sure_as_images_and_seeds_let_it():
    right = np.arange(3534) < 0.7 * 3534
    one = mean_score([{"accuracy": right.mean(), "images": 3534}])
    assert (one["low"], one["high"]) == pytest.approx(bootstrap_interval(right), abs=0.002)
    three = mean_score([{"accuracy": v, "images": 3534} for v in (0.68, 0.7, 0.72)])
    assert three["low"] < one["low"] and three["std"] == pytest.approx(0.02) and three["seeds"] == 3
    perfect = mean_score([{"accuracy": 1.0, "images": 12}])
    assert perfect["high"] == 1 and perfect["low"] < 0.8


# --- claims ---


def write(folder, name, report):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report))


def verdict(folder, text):
    found = [v for v in verdicts.judge(folder) if text in v.claim]
    assert len(found) == 1, [v.claim for v in found]
    return found[0]


def score(accuracy, images=3534):
    return {"accuracy": accuracy, "images": images}


def start(pretrained, how, *accuracies, trunk="mobilenet_v1"):
    return [
        {"name": f"{pretrained}-{how}-{seed}", "trunk": trunk, "pretrained": pretrained, "how": how,
         "seed": seed, "validation": score(a, 3533) | {"confusion": [[883], *[[530]] * 5]}}
        for seed, a in enumerate(accuracies)
    ]  # fmt: skip


def test_without_files_nothing_is_claimed(tmp_path):
    found = verdicts.judge(tmp_path)
    assert {v.outcome for v in found} == {notebook.NOT_YET} and len(found) == len(verdicts.CLAIMS)
    table = verdicts.claims_table(found)
    assert set(table["verdict"]) == {notebook.NOT_YET}
    text = verdicts.claims_text(found)
    assert text.count("*Not run yet.*") == text.count("\n  Held if: ") == len(found)
    assert all(claim.rule in text and f"`{claim.evidence[0]}`" in text for claim in verdicts.CLAIMS)


def merging_report(*differences, n=3534, disagree=0.1):
    pairs = []
    for seed, d in enumerate(differences):
        only_a, only_b = round(n * (disagree + d) / 2), round(n * (disagree - d) / 2)
        pairs.append({"seed": seed, "images": n, "only_a": only_a, "only_b": only_b,
                      "difference": (only_a - only_b) / n, "accuracy": [0.7 + d, 0.7], "p": 0.5})  # fmt: skip
    return {"alone": "fer2013", "sources": {"fer2013": 27629, "ckplus": 900}, "pairs": pairs}


@pytest.mark.parametrize(
    ("differences", "outcome", "says"),
    [
        ((0.03, 0.035, 0.031), "held", "changes the accuracy on fer2013 by +3.2 points"),
        ((0.001, -0.002, 0.003), "not held", "no difference was shown"),
        ((0.03, -0.05, 0.09), "not held", "no difference was shown"),
        ((-0.03, -0.035, -0.031), "not held", "the contrary was shown"),
    ],
)
def test_merging_is_judged_by_images_and_seeds(tmp_path, differences, outcome, says):
    write(tmp_path, "comparisons/merging.json", merging_report(*differences))
    found = verdict(tmp_path, "Merging")
    assert found.outcome == outcome and says in found.sentence


def test_merging_cannot_be_tested_on_one_source(tmp_path):
    write(tmp_path, results.DATA, {"sources": [{"name": "fer2013"}]})
    found = verdict(tmp_path, "Merging")
    assert found.outcome == "not testable here" and "fer2013 alone" in found.sentence
    write(tmp_path, results.DATA, {"sources": [{"name": "fer2013"}, {"name": "jaffe"}]})
    assert verdict(tmp_path, "Merging").outcome == notebook.NOT_YET


def test_starts_are_judged_in_every_way_that_was_tried(tmp_path):
    runs_ = [*start("vggface2", "all", 0.70, 0.705, 0.702), *start("none", "all", 0.60, 0.605, 0.602),
             *start("vggface2", "probe", 0.52), *start("imagenet", "probe", 0.46, trunk="lite0"),
             *start("imagenet", "all", 0.66, 0.67, trunk="lite0")]  # fmt: skip
    write(tmp_path, "comparisons/pretraining.json", {"runs": runs_})
    better, large = verdict(tmp_path, "than ImageNet's"), verdict(tmp_path, "… by a large margin")
    assert better.outcome == "held" and "a linear probe: +6.0 points" in better.sentence
    assert "lite0, mobilenet_v1" in better.sentence
    assert large.outcome == "not held" and "not shown to be so by more than 5 points" in large.sentence
    scratch = verdict(tmp_path, "from scratch")
    assert scratch.outcome == "held" and "trunks" not in scratch.sentence and "begun" not in scratch.sentence
    slow = [r for r in runs_ if r["pretrained"] != "none"] + start("none", "all", 0.29)
    write(tmp_path, "comparisons/pretraining.json", {"runs": slow})
    scratch = verdict(tmp_path, "from scratch")
    assert scratch.outcome == "held" and "had hardly begun to learn" in scratch.sentence
    worse = [r for r in runs_ if r["how"] == "all"] + start("vggface2", "probe", 0.46) + [runs_[-3]]
    write(tmp_path, "comparisons/pretraining.json", {"runs": worse})
    assert verdict(tmp_path, "than ImageNet's").outcome == "not held"
    write(tmp_path, "comparisons/pretraining.json", {"runs": runs_[:6]})
    assert verdict(tmp_path, "than ImageNet's").outcome == notebook.NOT_YET
    probes = [r for r in runs_ if r["how"] == "probe"]
    write(tmp_path, "comparisons/pretraining.json", {"runs": probes})
    scratch = verdict(tmp_path, "from scratch")
    assert scratch.outcome == notebook.NOT_YET and "compared in this way" in scratch.sentence


def sweep(values, sgd=(0.6,), adam=(0.6,)):
    trials = [{"number": i, "params": {}, "value": v} for i, v in enumerate(values)]
    return {"images": 3533, "trials": trials, "optimizers": {"sgd": list(sgd), "adam": list(adam)}}


def test_tuning_is_judged_against_the_median_trial(tmp_path):
    wide = [*np.linspace(0.3, 0.55, 60), *np.linspace(0.55, 0.7, 10), None]
    write(tmp_path, "sweeps/facenet.json", sweep(wide, sgd=(0.4, 0.5, 0.7), adam=(0.3, 0.35, None, 0.6)))
    found = verdict(tmp_path, "13 %")
    assert found.outcome == "held" and "best of 70 trials is at 70.0 %" in found.sentence
    alone = found.sentence.split("alone it is ")[1]
    assert alone.startswith("+20.0 points (") and ") with Nesterov and +25.0 points (" in alone
    narrow = np.linspace(0.58, 0.7, 70).tolist()
    write(tmp_path, "sweeps/facenet.json", sweep(narrow))
    found = verdict(tmp_path, "13 %")
    assert found.outcome == "not held" and "0.0 % of them lie more than 13 points" in found.sentence


def test_runs_that_have_not_been_tested_are_compared_on_validation():
    firsts, seconds = (
        [{"validation": {"fer2013": score(v)}} for v in side] for side in ((0.7, 0.72), (0.69,))
    )
    assert verdicts.validation_gap(firsts, seconds).startswith("+2.0 points (")
    assert verdicts.validation_gap(firsts, []) == notebook.NOT_YET


def test_optimisers_are_judged_on_equal_budgets(tmp_path):
    write(tmp_path, "sweeps/facenet.json", sweep([0.6], sgd=[0.6, 0.7, 0.69], adam=[0.5, 0.66, 0.65]))
    assert verdict(tmp_path, "Nesterov").outcome == "held"
    # The winning trial came after Adam's budget was spent, so that it does not count.
    write(tmp_path, "sweeps/facenet.json", sweep([0.6], sgd=[0.6, 0.66, 0.7], adam=[0.5, 0.66]))
    found = verdict(tmp_path, "Nesterov")
    assert found.outcome == "not held" and "After 2 trials each" in found.sentence
    write(tmp_path, "sweeps/facenet.json", sweep([0.6], sgd=[0.6, 0.66], adam=[None, 0.7]))
    sentence = verdict(tmp_path, "Nesterov").sentence
    assert "the contrary was shown" in sentence and "counted for each by itself" in sentence
    report = sweep([0.6], sgd=[0.6, 0.66], adam=[None, 0.7])
    report["best"] = {"sgd": {"again": [0.61, 0.63]}, "adam": {"again": [0.69, 0.73]}}
    write(tmp_path, "sweeps/facenet.json", report)
    assert "with 2 other seeds, the two best settings reach 62.0 % (Nesterov) and 71.0 % (Adam)" in (
        verdict(tmp_path, "Nesterov").sentence
    )


def depth_report(**accuracies):
    runs_ = [
        {"key": k, "name": k, "run": f"depth/{k}", "seed": seed, "parameters": 10, "validation": score(v),
         "network": "facenet" if k == "mobilenet" else "easynet"}
        for k, values in accuracies.items() for seed, v in enumerate(values)
    ]  # fmt: skip
    means = {k: np.mean(v) for k, v in accuracies.items()}
    keys = list(means)
    pairs = [
        {"first": b, "second": a, "difference": means[b] - means[a],
         "interval": [means[b] - means[a] - 0.01, means[b] - means[a] + 0.01]}
        for i, a in enumerate(keys) for b in keys[i + 1 :]
    ]  # fmt: skip
    return {"epochs": 12, "split": "validation", "runs": runs_, "differences": pairs}


def test_depth_and_care_are_judged_apart(tmp_path):
    names = ("easynet-2", "easynet-3", "easynet-4", "mobilenet")

    def judge(*values):
        write(tmp_path, "comparisons/depth.json", depth_report(**dict(zip(names, values, strict=True))))
        return [verdict(tmp_path, text).outcome for text in ("four convolutions", "only with care")]

    assert judge([0.6], [0.64], [0.65], [0.55]) == ["held", "held"]
    assert judge([0.6], [0.64], [0.605], [0.7]) == ["not held", "not held"]
    assert judge([0.6], [0.64], [0.62], [0.645]) == ["held", "held"]
    # The same means, but the seeds scatter.
    assert judge([0.5, 0.7], [0.64, 0.64], [0.66, 0.58], [0.6, 0.69]) == ["not held", "held"]
    found = verdicts.depth_intervals(json.loads((tmp_path / "comparisons/depth.json").read_text()))
    assert list(found["name"]) == list(names) and found["value"].tolist() == pytest.approx(
        [0.6, 0.64, 0.62, 0.645]
    )
    plots.intervals(found)


@pytest.fixture
def seeds(tmp_path):
    """Results files of seeds with given accuracies on 3,534 test images."""
    rng = np.random.default_rng(0)

    def make(network, *accuracies, test=True, options=None):
        for seed, accuracy in enumerate(accuracies):
            labels = np.arange(3534) % 6
            wrong = rng.permutation(3534) >= round(accuracy * 3534)
            answers = np.eye(6)[np.where(wrong, (labels + 1) % 6, labels)]
            scores = {"fer2013": metrics(labels, answers)}
            result = {
                "format": results.FORMAT, "name": f"{network}-seed{seed}", "profile": "full",
                "date": "2026-01-01",
                "model": {"name": network, "options": options or {}, "parameters": 1_000_000},
                "recipe": {"seed": seed, "epochs": 1, "batch_size": 64, "lr": 0.1},
                "data": {"faceset": "", "sources": {}, "splits": {}}, "revision": "", "packages": {},
                "processor": "", "training_seconds": 1.0, "images_per_second": 1.0, "checkpoint": "",
                "learning_curve": [{"epoch": 1}], "validation": scores,
            } | ({"test": scores} if test else {})  # fmt: skip
            results.write(result, tmp_path / f"{network}-seed{seed}.json")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("accuracies", "outcome", "says"),
    [
        ((0.70, 0.69, 0.71), "held", "1.1 points above the poster's 68.9 %"),
        ((0.66, 0.65, 0.67), "not held", "2.9 points below"),
        ((0.685, 0.68, 0.69), "not held", "which the interval holds"),
        ((0.72, 0.73), "not run yet", "3 seeds are asked for"),
    ],
)
def test_the_posters_figures_take_three_seeds(seeds, accuracies, outcome, says):
    found = verdict(seeds("easynet", *accuracies), "EasyNet reaches")
    assert found.outcome == outcome and says in found.sentence


def test_a_miss_on_another_trunk_is_called_that(seeds):
    folder = seeds("facenet", 0.71, 0.72, 0.715, options={"trunk": "mobilenet_v1"})
    found = verdict(folder, "FaceNet reaches")
    assert found.outcome == "not held" and "does not refute" in found.sentence
    folder = seeds("easynet", 0.7, test=False)
    assert verdict(folder, "EasyNet reaches").outcome == notebook.NOT_YET


def test_facenet_must_win_on_the_same_images(tmp_path):
    def judge(only_a, only_b):
        p = {"what": "best by validation", "variant": "plain", "runs": ["f", "e"], "images": 3534}
        a, b = np.zeros(3534, bool), np.zeros(3534, bool)
        a[:only_a], b[only_a : only_a + only_b] = True, True
        p |= mcnemar(a, b) | {"interval": list(paired_interval(a, b))}
        write(tmp_path, "comparisons/networks.json", {"pairs": [p]})
        return verdict(tmp_path, "better than EasyNet")

    assert judge(400, 300).outcome == "held"
    assert judge(350, 340).outcome == "not held"
    assert "the contrary was shown" in judge(300, 400).sentence


def test_evidence_of_another_form_is_named(tmp_path):
    write(tmp_path, "comparisons/depth.json", {"runs": []})
    with pytest.raises(DataError, match=r"depth\.json.*Depth helps|Depth helps.*depth\.json"):
        verdicts.judge(tmp_path)
    (tmp_path / "comparisons" / "depth.json").write_text("[1")
    with pytest.raises(DataError, match="not a JSON object"):
        verdicts.judge(tmp_path)


# --- previous work, size and speed ---


def test_previous_work_stands_beside_ours_with_its_protocol(seeds):
    folder = seeds("easynet", 0.70, 0.69, 0.71)
    found = verdicts.comparison({"EasyNet": results.read_all(folder), "FaceNet": []})
    own = found[found["group"] == "own"]
    assert list(own["name"]) == ["EasyNet"] and own["note"].iloc[0].endswith("mean of 3 seeds")
    assert len(found) == 1 + len(notebook.anchors()) and found["note"].notna().all()
    plots.intervals(found)


def test_anchors_name_works_that_the_bibliography_knows():
    known = (notebook.project_root() / "book" / "references.bib").read_text(encoding="utf-8")
    for source in set(notebook.anchors()["source"]) - {"poster", "fer"}:
        assert f"{{{source}," in known, source


def test_speed_is_measured_for_each_batch_and_thread_count(tmp_path):
    before = torch.get_num_threads()
    model = FaceNet("easynet", "none", trunk_width=0.25, head=[8])
    path = tmp_path / "model.safetensors"
    save_checkpoint(model, path, {"network": "facenet", "options": model.options})
    found = speed.describe("facenet-seed0", path, batches=(1, 4), threads=(1,), repeats=5)
    assert torch.get_num_threads() == before
    assert found["megabytes"] == round(path.stat().st_size / 1e6, 2) and found["network"] == "FaceNet"
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert [(t["batch"], t["threads"]) for t in found["milliseconds"]] == [(1, 1), (4, 1)]
    assert all(0 < t["low"] <= t["median"] <= t["high"] for t in found["milliseconds"])
    assert "1 a call, 1 thread" in str(verdicts.speed_table({"networks": [found]}).index.tolist())


def test_costs_take_only_networks_that_were_timed(seeds):
    folder = seeds("easynet", 0.7, 0.71)
    timed = {"run": "easynet-seed1", "parameters": 5, "megabytes": 1.0,
             "milliseconds": [{"batch": 1, "threads": 1, "median": 2.5, "low": 2, "high": 3}]}  # fmt: skip
    table = verdicts.costs(results.read_all(folder), {"networks": [timed, timed | {"run": "emonet-seed0"}]})
    assert table["name"].tolist() == ["easynet-seed1"] and table["milliseconds"].tolist() == [2.5]
    assert table["accuracy"].tolist() == pytest.approx([0.71], abs=0.001)
    figure = plots.costs(table)
    assert len(figure.axes) == 2
    assert verdicts.costs(results.read_all(folder), None).empty
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.costs(table.iloc[:0])


def test_matrices_and_recalls_are_those_of_the_best_seed_by_validation(seeds):
    folder = seeds("easynet", 0.7, 0.72)
    found = {"EasyNet": results.read_all(folder), "FaceNet": []}
    matrices = verdicts.confusions(found)
    assert list(matrices) == ["EasyNet on PrivateTest"]
    assert np.trace(matrices["EasyNet on PrivateTest"]) == round(0.72 * 3534)
    assert list(verdicts.confusions(found, "demo")) == ["EasyNet on drawn faces"]
    value, low, high = verdicts.recalls(found)["EasyNet"]["happy"]
    assert low < value < high and 0.6 < value < 0.85
    assert verdicts.confusions({"EasyNet": []}) == verdicts.recalls({"EasyNet": []}) == {}


def test_the_classes_that_are_read_worst_are_named(seeds):
    found = results.read_all(seeds("easynet", 0.7))
    for result in found:
        result["test"]["fer2013"]["recall"] = dict(zip(CLASSES, (0.6, 0.4, 0.9, 0.5, 0.8, None), strict=True))
    facts = verdicts.choice_facts(found, [], None, None)
    assert facts["choice-easynet-weak"] == f"{CLASSES[1]}, of which 40.0 % are named rightly"
    found[0]["training_seconds"] = 5400
    assert verdicts.choice_facts(found, [], None, None)["choice-easynet-hours"] == "1.5 hours"
