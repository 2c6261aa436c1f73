"""A search over settings: the same trials whoever trains them, however often it is stopped; found again."""

import contextlib
import itertools
import json
import multiprocessing
import os
import shlex
import signal
import time

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from optuna.trial import TrialState

from fer_utils import cli, runs
from fer_utils.datasets.faceset import FaceSet
from fer_utils.errors import DataError
from fer_utils.models import FaceNet
from fer_utils.recipes import RECIPES
from fer_utils.workspace import Workspace
from reading_faces.report import notebook, sweep_tables
from reading_faces.study import sweep, verdicts

SMALL = {"trials": 2, "epochs": 2, "batches": 4}
OPTIONS = ["sweep", "--profile", "demo", "--trials", "2", "--set", "epochs=2", "--set", "batches=4"]
QUIET = {"verbose": False}


def make_space(faces, root):
    """A workspace below a folder that FER_BUILD can name."""
    build = root / "demo"
    build.mkdir(parents=True)
    (build / "faceset").symlink_to(faces.path)
    return Workspace("demo", root, build, build / "results")


@pytest.fixture(scope="module")
def made(toy_faces, tmp_path_factory):
    """A finished search, what it found, and the splits that it looked at."""
    space, opened, split = make_space(toy_faces, tmp_path_factory.mktemp("sweep")), set(), FaceSet.split
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "SEEDS", 1)
        patch.setattr(sweep, "RESAMPLES", 2)
        patch.setattr(FaceSet, "split", lambda self, name: opened.add(name) or split(self, name))
        return space, sweep.run(space, budget_changes=SMALL, **QUIET), opened


pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(sweep, "SEEDS", 1)
    monkeypatch.setattr(sweep, "RESAMPLES", 2)
    monkeypatch.setattr(sweep, "HEARTBEAT", 1)
    monkeypatch.setattr(sweep, "GRACE", 2)


def values(report):
    """All that does not depend on when and how fast something was trained."""
    trials = [{k: v for k, v in t.items() if k != "seconds"} for t in report["trials"]]
    return [trials, report["optimizers"], report["best"], report["importance"]]


def known(optimizer, draw, seed):
    """What an imagined training gives."""
    return 0.5 + 0.1 * np.sin(1e3 * draw["lr"] + seed) + 0.05 * (optimizer == "sgd")


def trials(space, kind, *states):
    url = f"sqlite:///{space.build / 'sweeps' / 'facenet.db'}"
    return optuna.load_study(study_name=f"facenet/{kind}", storage=url).get_trials(states=states or None)


def in_process(space, train, **options):
    """Search in a process of its own, where `train` stands in for the training."""

    def work():
        sweep.Bench.__call__ = lambda self, *a: train(*a)
        sweep.run(space, **QUIET | options)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


# --- Draws ---


@settings(deadline=None, max_examples=20)
@given(
    profile=st.sampled_from(["demo", "full"]),
    count=st.integers(1, 12),
    more=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_draws_are_in_the_space_begin_alike_and_are_the_same_for_both(profile, count, more, seed):
    both = {o: sweep.draws(profile, o, count, seed) for o in sweep.OPTIMIZERS}
    for optimizer, drawn in both.items():
        space = sweep.search_space(profile, optimizer)
        assert all(draw.keys() == space.keys() for draw in drawn)
        assert all(d._contains(d.to_internal_repr(draw[n])) for draw in drawn for n, d in space.items())
        assert sweep.draws(profile, optimizer, count + more, seed)[:count] == drawn
    for sgd, adam in zip(*both.values(), strict=True):
        own = {"lr": sweep.RATES, "weight_decay": sweep.DECAYS}
        assert {n: v for n, v in sgd.items() if n not in own} == {
            n: v for n, v in adam.items() if n not in own
        }
        for name, ranges in own.items():  # three digits are kept of each
            places = [np.log10(d[name] / ranges[o][0]) for o, d in (("sgd", sgd), ("adam", adam))]
            assert places[0] == pytest.approx(places[1], abs=0.01)


def test_both_optimisers_have_ranges_of_equal_width():
    for ranges in (sweep.RATES, sweep.DECAYS):
        assert {round(np.log10(high / low), 9) for low, high in ranges.values()} == {3.0}


# --- The search ---


def test_the_file_says_what_was_tried_on_equal_budgets(made):
    space, report, opened = made
    assert sweep.read(space.results / "sweeps" / "facenet.json") == json.loads(json.dumps(report))
    assert report["images"] == 60 and report["training_images"] == 300
    assert opened == {"train", "validation"}
    assert [t["number"] for t in report["trials"]] == [0, 1, 2, 3]
    assert [t["params"]["optimizer"] for t in report["trials"]] == ["sgd", "adam"] * 2
    for o in sweep.OPTIMIZERS:
        own = [t for t in report["trials"] if t["params"]["optimizer"] == o]
        assert [t["value"] for t in own] == report["optimizers"][o]
        assert [t["params"] for t in own] == [{"optimizer": o} | d for d in sweep.draws("demo", o, 2)]
        best = report["best"][o]
        assert best["value"] == max(report["optimizers"][o]) == report["optimizers"][o][best["draw"]]
        assert best["seeds"] == [1] and len(best["again"]) == 1
    assert len(set(report["optimizers"]["sgd"] + report["optimizers"]["adam"])) > 1
    for trial in trials(space, "sgd"):
        assert trial.state == TrialState.COMPLETE
    assert not (space.runs / "sweeps").exists() or not list((space.runs / "sweeps").rglob("*.ckpt"))


def test_the_verdicts_read_the_file(made):
    space, _, _ = made
    judged = {v.claim: v for v in verdicts.judge(space.results)}
    assert judged["Nesterov momentum beats Adam."].outcome in ("held", "not held")
    assert "The best of 4 trials" in judged["Tuning is worth more than 13 %."].sentence


def test_the_best_is_found_again_by_the_command_and_by_the_call(made, monkeypatch, capsys):
    space, report, _ = made
    monkeypatch.setenv("FER_BUILD", str(space.build.parent))
    for o in sweep.OPTIMIZERS:
        best = report["best"][o]
        assert float(sweep.retrain(space, report, o, verbose=False).best["val_accuracy"]) == best["value"]
    words = shlex.split(report["best"]["sgd"]["command"])
    assert words[:3] == ["fer", "train", "facenet"]
    assert cli.main(words[1:]) == 0
    history = pd.read_csv(space.runs / "sweeps" / "facenet-sgd" / "history.csv")
    assert history["val_accuracy"].max() == report["best"]["sgd"]["value"]


def test_the_trunk_is_the_one_that_fer_train_starts_from(toy_faces, tmp_path, monkeypatch):
    """Even if loading depends on the size of the input, which is not that of the recipe."""
    space, (options, recipe) = make_space(toy_faces, tmp_path), RECIPES["demo"]["facenet"]
    monkeypatch.setitem(RECIPES["demo"], "facenet", (options | {"input_size": 80}, recipe))

    @torch.no_grad()
    def load(self, faces):
        for parameter in self.trunk.parameters():
            parameter.add_(self.input_size / 1e4)

    monkeypatch.setattr(FaceNet, "load_pretrained", load)
    budget, draw = sweep.BUDGETS["demo"] | SMALL, sweep.draws("demo", "sgd", 1)[0]
    value = sweep.Bench(space, budget, 0, "32-true", **QUIET)("sgd", draw, 0, tmp_path / "trial")
    views = sorted(path.name for path in (space.build / "features").iterdir())
    done = runs.train(space, "facenet", **sweep.settings("sgd", draw, 0, budget), **QUIET)
    assert float(done.best["val_accuracy"]) == value
    # Views are named after the weights and the size, among others: no other was computed.
    assert sorted(path.name for path in (space.build / "features").iterdir()) == views


def test_a_finished_search_is_written_again_without_training(made, monkeypatch, capsys):
    space, report, _ = made
    monkeypatch.setenv("FER_BUILD", str(space.build.parent))
    monkeypatch.setattr(sweep.Bench, "__call__", lambda *a: pytest.fail("trained again"))
    path = space.results / "sweeps" / "facenet.json"
    before = path.read_bytes()
    path.unlink()
    assert cli.main(OPTIONS) == 0
    assert path.read_bytes() == before
    assert report["best"]["adam"]["command"] in capsys.readouterr().out


def test_what_is_not_found_again_is_told_by_the_exit_code(made, monkeypatch, capsys):
    space, report, _ = made
    monkeypatch.setenv("FER_BUILD", str(space.build.parent))
    changed = json.loads(json.dumps(report))
    changed["best"]["adam"]["value"] = 0.123
    monkeypatch.setattr(sweep, "read", lambda path: changed)
    found = {o: pd.Series({"val_accuracy": report["best"][o]["value"]}) for o in sweep.OPTIMIZERS}
    monkeypatch.setattr(sweep, "retrain", lambda s, r, o, **k: type("Fit", (), {"best": found[o]}))
    assert cli.main([*OPTIONS, "--retrain"]) == 1
    assert "adam: 12.3000 % in the search" in capsys.readouterr().out.replace("%", " %")


def test_a_killed_worker_is_not_counted_and_its_draw_is_trained_anew(made, toy_faces, tmp_path):
    space = make_space(toy_faces, tmp_path)
    (space.build / "features").symlink_to(made[0].build / "features")

    def hang(*arguments):
        (tmp_path / "begun").touch()
        time.sleep(600)

    killed, deadline = in_process(space, hang, budget_changes=SMALL), time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline and killed.is_alive()
        time.sleep(0.05)
    killed.kill()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    assert [t.state for t in trials(space, "sgd")].count(TrialState.RUNNING) == 1
    report = sweep.run(space, budget_changes=SMALL, **QUIET)
    assert values(report) == values(made[1])
    assert [t.user_attrs["draw"] for t in trials(space, "sgd", TrialState.FAIL)] == ["0"]
    assert sorted(t.user_attrs["draw"] for t in trials(space, "sgd", TrialState.COMPLETE)) == ["0", "1"]


def test_a_worker_that_died_before_its_first_sign_of_life_is_given_up(made, toy_faces, tmp_path, monkeypatch):
    space = make_space(toy_faces, tmp_path)
    monkeypatch.setattr(sweep.Bench, "__call__", lambda self, o, d, s, f: known(o, d, s))
    first = sweep.run(space, budget_changes=SMALL, **QUIET)
    with pytest.MonkeyPatch.context() as patch:  # one more draw of each, and the first of them is taken
        patch.setattr(sweep, "work", lambda queues, *a, **k: [queue.fill() for queue in queues])
        sweep.run(space, budget_changes=SMALL | {"trials": 3}, **QUIET)
    url = f"sqlite:///{space.build / 'sweeps' / 'facenet.db'}"
    optuna.load_study(study_name="facenet/adam", storage=url).ask()
    assert [t.user_attrs["draw"] for t in trials(space, "adam", TrialState.RUNNING)] == ["2"]
    report = sweep.run(space, budget_changes=SMALL | {"trials": 3}, **QUIET)
    assert values(report)[0][:4] == values(first)[0] and len(report["optimizers"]["adam"]) == 3
    assert [t.user_attrs["draw"] for t in trials(space, "adam", TrialState.FAIL)] == ["2"]


def laid_down(space, count):
    """Lay down draws without training any."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep, "work", lambda queues, *a, **k: [queue.fill() for queue in queues])
        with contextlib.suppress(ValueError):  # no best one yet
            sweep.run(space, budget_changes=SMALL | {"trials": count}, **QUIET)


def test_a_search_with_fewer_trials_trains_no_more_than_those(toy_faces, tmp_path, monkeypatch):
    space, trained = make_space(toy_faces, tmp_path), []
    laid_down(space, 5)
    monkeypatch.setattr(
        sweep.Bench, "__call__", lambda self, o, d, s, f: trained.append((o, s)) or known(o, d, s)
    )
    report = sweep.run(space, budget_changes=SMALL, **QUIET)
    assert [len(report["optimizers"][o]) for o in sweep.OPTIMIZERS] == [2, 2]
    assert sorted(trained) == sorted((o, seed) for o in sweep.OPTIMIZERS for seed in (0, 0, 1))


def test_a_draw_that_two_machines_laid_down_is_trained_once(toy_faces, tmp_path, monkeypatch):
    space, trained = make_space(toy_faces, tmp_path), []
    laid_down(space, 2)
    url = f"sqlite:///{space.build / 'sweeps' / 'facenet.db'}"
    study = optuna.load_study(study_name="facenet/sgd", storage=url)
    for twin in study.get_trials():
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=twin.params,
                distributions=twin.distributions,
                user_attrs=twin.user_attrs,
            )
        )
    monkeypatch.setattr(
        sweep.Bench, "__call__", lambda self, o, d, s, f: trained.append((o, s)) or known(o, d, s)
    )
    sweep.run(space, budget_changes=SMALL, **QUIET)
    assert trained.count(("sgd", 0)) == 2 == trained.count(("adam", 0))
    assert len(trials(space, "sgd", TrialState.WAITING)) == 0


def test_two_workers_share_the_trials_and_none_is_trained_twice(toy_faces, tmp_path):
    spaces = [make_space(toy_faces, tmp_path / name) for name in ("shared", "alone")]
    log = tmp_path / "log"
    log.mkdir()

    def train(optimizer, draw, seed, folder):
        key = folder.name.rpartition("-")[0]
        (log / f"{folder.parent.parent.name}-{optimizer}-{key}-{os.getpid()}").touch(exist_ok=False)
        time.sleep(0.1)
        return known(optimizer, draw, seed)

    budget = SMALL | {"trials": 8}
    both = [in_process(spaces[0], train, budget_changes=budget) for _ in range(2)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    names = [path.name.rsplit("-", 1) for path in log.iterdir()]
    assert len(names) == len({name for name, _ in names}) == 2 * 8 + 2
    assert len({worker for _, worker in names}) == 2
    alone = in_process(spaces[1], lambda o, d, s, f: known(o, d, s), budget_changes=budget)
    alone.join(120)
    reports = [sweep.read(space.results / "sweeps" / "facenet.json") for space in spaces]
    assert values(reports[0]) == values(reports[1])
    assert [len(v) for v in reports[0]["optimizers"].values()] == [8, 8]


def test_a_trial_that_fails_stops_the_worker_and_is_tried_again(toy_faces, tmp_path, monkeypatch):
    space = make_space(toy_faces, tmp_path)

    def failing(self, optimizer, draw, seed, folder):
        if folder.name.startswith("1-"):
            raise DataError("the disk is full", file=folder, remedy="free some room")
        return known(optimizer, draw, seed)

    monkeypatch.setattr(sweep.Bench, "__call__", failing)
    with pytest.raises(DataError, match="the disk is full"):
        sweep.run(space, budget_changes=SMALL, **QUIET)
    assert not (space.results / "sweeps").exists()
    monkeypatch.setattr(sweep.Bench, "__call__", lambda self, o, d, s, f: known(o, d, s))
    report = sweep.run(space, budget_changes=SMALL, **QUIET)
    assert report["optimizers"]["sgd"] == [known("sgd", d, 0) for d in sweep.draws("demo", "sgd", 2)]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"seed": 1}, r"seed changed"),
        ({"precision": "bf16-mixed"}, r"precision changed"),
        ({"budget_changes": SMALL | {"epochs": 1}}, r"budget changed"),
        ({"budget_changes": {"epoch": 1}}, r"a budget has no 'epoch'"),
        ({"budget_changes": {"epochs": 0}}, r"epochs is 0"),
        ({"budget_changes": {"trials": 1}}, r"a whole number from 2"),
        ({"storage": "nonsense"}, r"cannot be opened"),
        ({"storage": "sqlite://", "anew": True}, r"another name"),
    ],
)
def test_what_does_not_fit_is_refused(made, changed, says):
    with pytest.raises(ValueError, match=says):
        sweep.run(made[0], **{"budget_changes": SMALL} | QUIET | changed)


def test_a_damaged_database_is_told_and_a_search_can_be_begun_anew(toy_faces, tmp_path, monkeypatch):
    space = make_space(toy_faces, tmp_path)
    place = space.build / "sweeps" / "facenet.db"
    place.parent.mkdir()
    place.write_text("this is no database, however long one looks at it")
    with pytest.raises(DataError, match="cannot be opened"):
        sweep.run(space, budget_changes=SMALL, **QUIET)
    monkeypatch.setattr(sweep.Bench, "__call__", lambda self, o, d, s, f: known(o, d, s))
    assert sweep.run(space, budget_changes=SMALL, anew=True, **QUIET)["images"] == 60


def test_a_file_that_lacks_something_is_refused(made, tmp_path):
    report = json.loads(json.dumps(made[1]))
    del report["best"]["adam"]["command"]
    path = tmp_path / "facenet.json"
    path.write_text(json.dumps(report))
    with pytest.raises(DataError, match="command"):
        sweep.read(path)


# --- What was found ---


def imagined(count=40):
    """A report of a search in which little but the learning rate matters, and in which SGD is ahead."""
    rng, report = np.random.default_rng(0), {"trials": [], "optimizers": {}, "importance": {}, "best": {}}
    for o in sweep.OPTIMIZERS:
        drawn, middle = sweep.draws("full", o, count), np.sqrt(np.prod(sweep.RATES[o]))
        off = np.array([np.log10(d["lr"] / middle) for d in drawn])
        found = (0.6 + 0.05 * (o == "sgd") - 0.08 * off**2 + rng.normal(0, 0.005, count)).tolist()
        report["optimizers"][o] = found
        rows = [
            {"draw": k, "params": {"optimizer": o} | d, "value": v, "seconds": 1.0}
            for k, (d, v) in enumerate(zip(drawn, found, strict=True))
        ]
        report["trials"] += rows
        space = sweep.search_space("full", o)
        report["importance"][o] = sweep.importance(space, list(zip(drawn, found, strict=True)), 3)
        best = max(rows, key=lambda row: row["value"])
        report["best"][o] = {k: best[k] for k in ("draw", "value", "params")} | {
            "params": drawn[best["draw"]],
            "seeds": [1, 2],
            "again": [best["value"] - 0.01, best["value"] - 0.03],
        }
    return report | {
        "images": 3533,
        "training_images": 27629,
        "seed": 0,
        "seconds": 7200.0,
        "processor": "a processor",
        "threads": "1",
        "date": "2026-01-01",
        "revision": "abc",
        "budget": sweep.BUDGETS["full"] | {"trials": count},
        "space": sweep.described("full"),
    }


@pytest.fixture(scope="module")
def report():
    return imagined()


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_the_expected_best_is_the_mean_over_all_ways_to_draw(found):
    expected = [
        np.mean([max(chosen) for chosen in itertools.combinations(found, n)])
        for n in range(1, len(found) + 1)
    ]
    np.testing.assert_allclose(sweep_tables.expected_best(found), expected, atol=1e-9)
    rows = sweep_tables.expected_best([found, sorted(found)])
    np.testing.assert_allclose(rows, [expected, expected], atol=1e-9)


def test_the_expected_best_of_many_trials_stays_a_number():
    curve = sweep_tables.expected_best(np.linspace(0, 1, 1000))
    assert np.all(np.diff(curve) > 0) and curve[0] == pytest.approx(0.5) and curve[-1] == pytest.approx(1)


def test_importance_names_what_matters(report):
    for shares in report["importance"].values():
        assert max(shares, key=lambda name: shares[name][0]) == "lr" and shares["lr"][0] > 0.7
        assert all(low <= high and 0 <= share <= 1 for share, low, high in shares.values())
    drawn = sweep.draws("full", "sgd", 5)
    alike = sweep.importance(sweep.search_space("full", "sgd"), [(d, 0.5) for d in drawn], 1)
    assert set(map(tuple, alike.values())) == {(0.0, 0.0, 0.0)}


def test_tables_say_what_was_found(report, made):
    space = sweep_tables.space_table(report["space"])
    assert space.loc["learning rate"].tolist() == ["0.001 to 1, logarithmic", "3e-05 to 0.03, logarithmic"]
    assert space.loc["frozen share", "Adam"] == "57 %, 83 %, 100 %"
    spread = sweep_tables.spread_table(report)
    assert spread["trials"].tolist()[:3] == [80, 40, 40]
    # Rates within ten times of the best, then within three: each holds the next, and the last the best.
    assert spread["trials"].iloc[0] > spread["trials"].iloc[3] >= spread["trials"].iloc[4] > 0
    top = max(max(v) for v in report["optimizers"].values())
    assert spread["best"].iloc[0] == spread["best"].iloc[-1] == notebook.percent(top)
    table = sweep_tables.race_table(report)
    assert table.index.tolist() == [1, 2, 4, 8, 16, 32, 40]
    assert table.loc[40, "Adam"] == notebook.percent(max(report["optimizers"]["adam"]))
    assert table.loc[1, "SGD, Nesterov"] == notebook.percent(np.mean(report["optimizers"]["sgd"]))
    assert table.loc[8, "SGD minus Adam"].startswith("+")
    bins = sweep_tables.by_rate(report)
    assert bins["trials"].sum() == 80 and bins.groupby("optimizer")["best"].max()["adam"] == max(
        report["optimizers"]["adam"]
    )
    assert sweep_tables.best_table(made[1]).loc["their mean"].str.endswith("%").all()  # of one other seed
    for o, title in sweep_tables.TITLES.items():
        draw, shown = report["best"][o]["params"], sweep_tables.best_table(report)[title]
        for name, least in {"fc1": 1, "fc2": 2, "dropout": 1}.items():
            wanted = f"{draw[name]:g}" if draw["layers"] >= least else "–"
            assert shown[sweep_tables.SETTINGS[name]] == wanted
    assert sweep_tables.best_table(report).loc["their mean"].str.contains("standard deviation").all()


@pytest.mark.parametrize("draw", ["rates_figure", "spread_figure", "importance_figure", "race_figure"])
def test_figures_are_drawn_of_what_was_found(report, made, draw):
    for each in (report, made[1]):
        assert isinstance(getattr(sweep_tables, draw)(each), Figure)


def test_bands_hold_their_curve_and_narrow_with_more_trials(report):
    curve = sweep_tables.race(report)
    assert (curve["low"] <= curve["value"] + 1e-9).all() and (curve["value"] <= curve["high"] + 0.02).all()
    few = sweep_tables.race(imagined(10))
    width = lambda c: (c["high"] - c["low"])[c["trials"] == 1].mean()  # noqa: E731
    assert width(curve) < width(few)


def test_facts_are_said_or_said_to_be_missing(report, made):
    said = sweep_tables.facts([report])
    assert set(sweep_tables.facts([])) == set(said)
    assert set(sweep_tables.facts([]).values()) == {notebook.NOT_YET}
    assert "learning rate alone accounts for" in said["tuning-matters"] and "40 draws" in said["tuning-what"]
    best = report["best"]["sgd"]["params"]["lr"]
    nearer = min(np.log10(best / 1e-3), np.log10(1.0 / best))
    assert f"{best:g}, {nearer:.1f} powers of ten from the nearer end" in said["tuning-rates"]
    for text in (*said.values(), *sweep_tables.facts([made[1]]).values()):
        assert "nan" not in text
