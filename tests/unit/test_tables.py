"""The tables that chapters print from results files."""

import copy

from reading_faces.report import notebook
from reading_faces.study import verdicts

SCORES = {"images": 3533, "accuracy": 0.6, "accuracy_interval": [0.584, 0.616], "macro_f1": 0.5}


def run(name, accuracy, *, options=None, recipe=None, augment=None, **others):
    return {
        "name": name,
        "model": {"options": {"widths": [64, 128, 256], "stride": 2} | (options or {})},
        "recipe": {"epochs": 6, "lr": 0.02, "seed": 0, "augment": augment or {"flip": 0.5}} | (recipe or {}),
        "images_per_second": 261.4,
        "learning_curve": [
            {"epoch": 1, "train_accuracy": 0.3, "val_accuracy": 0.5},
            {"epoch": 2, "train_accuracy": 0.591, "val_accuracy": 0.6},
            {"epoch": 3, "train_accuracy": 0.7, "val_accuracy": 0.55},
        ],
        "validation": {"fer2013": SCORES | {"accuracy": accuracy}},
    } | others


def test_a_search_tells_what_each_run_changed():
    found = [
        run("search/base", 0.597),
        run("search/wide", 0.604, options={"widths": [64, 192, 384]}),
        run("search/averaged", 0.588, recipe={"lr": 0.05, "ema": 0.998, "seed": 1}, precision="bf16-mixed"),
        run("search/plain", 0.55, recipe={"augment": None, "batches": 0}),
        run("search/votes", 0.58, labels={"kind": "ferplus", "share": 0.5}),
        run("search/both", 0.62, labels={"kind": "both", "share": 1.0}),
        run("search/taught", 0.61, teachers={"share": 0.7, "checkpoints": {"a": "1", "b": "2"}}),
    ]
    table = notebook.search_table(found, "search/base")
    assert list(table.index) == ["both", "taught", "wide", "base", "averaged", "votes", "plain"]
    assert table["changed"].to_dict() == {
        "both": "votes as a second question, weight 1",
        "taught": "taught by 2 teachers",
        "votes": "votes in the label's place, share 0.5",
        "wide": "widths [64, 192, 384]",
        "base": "nothing: the others are compared with this one",
        "averaged": "ema 0.998, lr 0.05, precision bf16-mixed",
        "plain": "augment none",
    }
    assert table.loc["wide", "accuracy, PublicTest"] == "60.4 %"
    assert table.loc["wide", "training accuracy"] == "59.1 %" and table.loc["wide", "epochs"] == 3


def test_an_ablation_tells_what_each_change_brought():
    found = [
        run("search/base", 0.597),
        run("search/wide", 0.617, options={"widths": [64, 192, 384]}),
        run("search/longer", 0.65, recipe={"epochs": 9}),
    ]
    table = verdicts.ablation_table(found, "search/base")
    assert list(table.index) == ["wide", "base"]  # a longer run changes more than one thing
    expected = verdicts.gap(*([found[i]["validation"]["fer2013"]] for i in (1, 0)))
    assert table["difference, points"].tolist() == [str(expected).replace(" points", ""), ""]
    assert table.loc["wide", "difference, points"].startswith("+2.0 (")
    assert verdicts.ablation_table([], "search/base").index[0] == notebook.NOT_YET


def test_what_calibration_brought_is_told_for_all_seeds():
    found = [
        run("a", 0.7, calibrated={"accuracy": {"before": 0.70, "after, cross-validated": 0.71}, "biases": b})
        for b in ([-0.1, 0.1, 0.2, 0.3, -0.2, 0.0], [-0.2, -0.1, 0.1, 0.1, -0.1, 0.1])
    ]
    facts = notebook.calibrated_facts("net", found)
    assert facts["net-crossed"] == "from 70.0 % to 71.0 %"
    assert facts["net-raised"] == "happy and sad" and facts["net-lowered"] == "angry and surprise"
    assert set(notebook.calibrated_facts("net", [])) == set(facts)


def test_results_tell_what_was_learnt_from():
    scores = SCORES | {"macro_f1": 0.5}
    common = {"training_seconds": 60, "date": "2026-01-01", "revision": "abc"}
    taught = {"share": 0.7, "checkpoints": {"a": "1", "b": "2"}}
    found = [
        run("own", 0.6, **common),
        run("votes", 0.6, labels={"kind": "ferplus", "share": 1.0}, **common),
        run("both", 0.6, labels={"kind": "both", "share": 1.0}, teachers=taught, **common),
        run("later", 0.6, calibrated={"run": "own"}, **common),
        run("crossed", 0.6, teachers={"share": 0.7, "checkpoints": {"crossfit/a": "1"}}, **common),
    ]
    table = notebook.results_table([r | {"validation": {"fer2013": scores}} for r in found])
    assert list(table["PublicTest (validation)"]) == [f"60.0 % ({notebook.interval(scores)})"] * 5
    assert list(table["PrivateTest (test)"]) == ["not read"] * 5
    assert list(table["revision"]) == ["abc"] * 5
    assert list(table["learnt from"]) == [
        "labels",
        "votes",
        "labels, votes, 2 teachers",
        "labels; calibrated",
        "labels, 1 cross-fitted teacher",
    ]


def test_a_search_without_its_base_was_not_run_yet():
    assert notebook.search_table([run("search/wide", 0.6)], "search/base").index[0] == notebook.NOT_YET
    assert notebook.search_table([], "search/base").index[0] == notebook.NOT_YET


PAIR = {
    "seed": 0,
    "images": 345,
    "accuracy": [0.87, 0.832],
    "only_a": 22,
    "only_b": 10,
    "difference": 0.038,
    "p": 0.0501,
}
REPORT = {"alone": "fer2013", "pairs": [PAIR], "difference": {"mean": 0.038, "std": float("nan"), "seeds": 1}}


def test_merging_is_read_with_its_uncertainty():
    report = copy.deepcopy(REPORT)
    report["pairs"].append(PAIR | {"seed": 1, "difference": -0.01, "p": 0.0004})
    report["difference"] = {"mean": 0.014, "std": 0.034, "seeds": 2}
    table = notebook.merging_table(report)
    assert list(table["p (McNemar)"]) == ["0.050", "< 0.001"]
    assert list(table["difference"]) == ["+3.8 points", "-1.0 points"]
    said = notebook.merging_reading(report)
    assert "+1.4 points (standard error 2.4)" in said and "with 1 of 2 seeds" in said


def test_without_a_second_source_nothing_is_claimed():
    table = notebook.merging_table(None)
    assert "not run yet" in table.index[0] and "more than one source" in table.index[0]


CACHING = {
    "processor": "a processor",
    "threads": 2,
    "images": 8000,
    "epochs": 3,
    "cases": [
        {
            "case": "head only",
            "frozen_layers": 84,
            "last_frozen": "pool/flatten",
            "batch": 256,
            "epoch_seconds": {"uncached": [20.0, 21.0, 25.0], "cached": [1.0, 1.2, 1.1]},
            "speedup": 19.09,
            "speedup_range": [17.5, 22.73],
            "bound": 25.0,
            "share_of_bound": 0.764,
            "validation_accuracy": {"uncached": 0.551, "cached": 0.548},
            "mcnemar": {"p": 0.71},
            "cache": {"bytes": 90_000_000, "views": 4},
        },
        {
            "case": "poster's share",
            "frozen_layers": 48,
            "last_frozen": "block8",
            "batch": 64,
            "epoch_seconds": {"uncached": [20.0], "cached": [10.0]},
            "speedup": 2.0,
            "speedup_range": [2.0, 2.0],
            "bound": 2.5,
            "share_of_bound": 0.8,
            "validation_accuracy": {"uncached": 0.601, "cached": 0.588},
            "mcnemar": {"p": 0.044},
            "cache": {"bytes": 9_000_000, "views": 4},
        },
    ],
}


def test_caching_is_told_with_its_spread_and_its_bound():
    row = notebook.caching_table(CACHING).loc["the poster's head alone"]
    assert row["seconds an epoch"] == "21.0" and row["with the cache"] == "1.1"
    assert row["times as fast"] == "19.09 (17.50 to 22.73)" and row["reached"] == "76 %"
    assert row["accuracy"] == "55.1 %" and row["accuracy with the cache"] == "54.8 %"
    facts = notebook.caching_facts(CACHING)
    assert facts["caching-how"].startswith("up to 8,000 images of each split, 3 epochs")
    assert facts["caching-size"] == "0.1 GB" and facts["caching-views"] == "4"
    assert facts["caching-heads"] == "19.1 times with the poster's head and 256 images a batch (reached)"
    assert facts["caching-share"] == "80 %"
    assert facts["caching-differ"].startswith("with all above block8 and 64 images a batch, where")
    assert facts["caching-differ"].endswith("(p = 0.04)")
    slower = CACHING | {"cases": [case | {"speedup": 14.9} for case in CACHING["cases"]]}
    assert notebook.caching_facts(slower)["caching-heads"].endswith("(missed)")
    assert notebook.caching_table(None).index[0] == notebook.NOT_YET
    assert set(notebook.caching_facts(None)) == set(facts)


def test_the_best_run_is_named_by_validation():
    assert notebook.best_name([run("a", 0.60), run("b", 0.62), run("c", 0.61)]) == "b"
    assert notebook.best_name([]) == notebook.NOT_YET


def test_throughput_names_its_machine(tmp_path, monkeypatch):
    measured = {
        "threads": 2,
        "processor": "EPYC",
        "images_per_second": {"48 px, 32-96-192, bf16-mixed": 930.4},
    }
    monkeypatch.setattr(notebook, "full_report", lambda name: measured)
    facts = notebook.throughput_facts()
    assert facts["easynet-rate"] == "930" and facts["easynet-rate-64"] == notebook.NOT_YET
    assert facts["throughput-machine"] == "2 threads of an EPYC"
    monkeypatch.setattr(notebook, "full_report", lambda name: None)
    assert set(notebook.throughput_facts().values()) == {notebook.NOT_YET}
