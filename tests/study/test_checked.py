"""`fer check`: from a merged set to the file that chapter 2 reads, and to the chapter's tables."""

import copy
import json
import shutil

import numpy as np
import pandas as pd
import pytest

from fer_utils import cli, results
from fer_utils.emotions import CLASSES
from fer_utils.errors import DataError
from fer_utils.files import sha256
from fer_utils.workspace import workspace
from reading_faces.report import notebook
from reading_faces.study import checked, checks
from reading_faces.study.describe import image_statistics

SHORT = ("--epochs", "2", "--steps", "50", "--option", "width=0.04", "--option", "dropout=0.1")
PLAIN = ("--set", "augment=null", "--set", "label_smoothing=0", "--set", "batch_size=24", "--set", "lr=0.03")
SWAPS = ("--swap", "ckplus", "sad", "happy", "--swap", "jaffe", "fear", "surprise")


def place(faces, root, patch):
    """Make a folder the project of a full profile whose merged set is this one."""
    patch.setenv("FER_BUILD", str(root / "build"))
    patch.chdir(root)
    space = workspace("full")
    if not space.faceset.exists():
        shutil.copytree(faces.path, space.faceset)
    return space


@pytest.fixture(scope="module")
def root(three_sources, tmp_path_factory):
    """A project in which `fer check` has been run once, and what it said."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        place(three_sources, folder, patch)
        code = cli.main(["check", *SHORT, *PLAIN, *SWAPS])
        path = workspace("full").results / "checks" / "emonet-checks.json"
        assert code == (0 if all(c["passed"] for c in checked.read(path)["checks"]) else 1)
    return folder


@pytest.fixture
def space(root, three_sources, monkeypatch):
    return place(three_sources, root, monkeypatch)


@pytest.fixture
def result(space):
    return checked.read(space.results / "checks" / "emonet-checks.json")


def test_the_file_says_how_it_was_made(result, space):
    assert result["profile"] == "full" and result["name"] == "emonet-checks"
    assert result["model"]["options"]["width"] == 0.04 and result["model"]["name"] == "emonet"
    assert result["recipe"]["epochs"] == 2 and result["recipe"]["augment"] is None
    assert result["steps"] == 50 and result["threads"] >= 1 and result["wall_seconds"] > 0
    assert result["data"]["faceset"] == sha256(space.faceset / "manifest.json")
    assert result["data"]["splits"]["test/jaffe"] == 24
    assert set(result["data"]["sources"]) == {"fer2013", "ckplus", "jaffe"}
    assert pd.Timestamp(result["date"]) and result["revision"] and result["processor"]


def test_the_checks_pass_on_sound_faces_and_swaps_are_named(result):
    assert [c["name"] for c in result["checks"]] == [
        "the sources are lit alike",
        "faces stand alike in the frame",
        "every source has every class",
        "100 images learnt by heart",
        "shuffled labels teach nothing",
        "every source can be read",
        "the sources use the same codes",
    ]
    assert all(c["value"] and c["threshold"] for c in result["checks"])
    # The second source's bars were made with little ink.
    assert not result["checks"][0]["passed"] and result["checks"][0]["value"].endswith("not so: ckplus")
    # All bars of a class look alike, so shuffled labels can hit whole classes by luck; see `checks.shuffled`.
    assert all(c["passed"] for c in result["checks"][1:] if not c["name"].startswith("shuffled")), result
    first, second = result["swaps"]
    assert (first["source"], first["classes"]) == ("ckplus", ["sad", "happy"])
    assert first["named"] and first["found"] == {"ckplus": {"happy": "sad", "sad": "happy"}}
    assert second["named"] and second["found"] == {"jaffe": {"fear": "surprise", "surprise": "fear"}}
    assert set(result["sensitivity"]) == {"fer2013", "ckplus", "jaffe"}
    assert all(s["named"] + len(s["missed"]) == s["of"] == 15 for s in result["sensitivity"].values())


def test_the_matrix_in_the_file_agrees_with_its_confusions(result):
    matrix, sources = result["matrix"], ["fer2013", "ckplus", "jaffe"]
    assert matrix["trained_on"] == [*sources, checks.ALL] and matrix["tested_on"] == sources
    for i, trained_on in enumerate(matrix["trained_on"]):
        for k, tested_on in enumerate(sources):
            confusion = np.array(matrix["confusions"][trained_on][tested_on])
            assert matrix["accuracy"][i][k] == confusion.trace() / confusion.sum()
            low, high = matrix["intervals"][i][k]
            assert low <= matrix["accuracy"][i][k] <= high
            own = trained_on in (tested_on, checks.ALL)
            assert confusion.sum() == (0.2 if own else 0.8) * {"fer2013": 240}.get(tested_on, 120)


def test_statistics_and_balance_are_those_of_the_images_and_no_more(result, three_sources):
    table = image_statistics(three_sources)
    for (source, quantity), values in table.groupby(["source", "quantity"])["value"]:
        summary = result["statistics"][source][quantity]
        assert summary["images"] == len(values) == {"fer2013": 192}.get(source, 96)
        assert summary["quantiles"][10] == pytest.approx(values.median(), abs=1e-3)
        assert summary["quantiles"][1] == pytest.approx(values.quantile(0.05), abs=1e-3)
    counted = checked.counts(result)
    pd.testing.assert_frame_equal(counted, three_sources.counts().loc[list(CLASSES)], check_dtype=False)
    # Counts, shares, quantiles and names: nothing as long as a face.
    longest = max(len(line) for line in json.dumps(result, indent=1).splitlines())
    assert longest < 200
    assert max(_lengths(result)) <= len(checked.LEVELS)


def _lengths(value):
    if isinstance(value, list):
        yield len(value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _lengths(inner)


def test_boxes_of_the_quantiles_are_boxes_of_the_images(result, three_sources):
    def drawn(table):
        figure = notebook.plots.statistics_by_source(table)
        return [np.asarray(line.get_xdata(), float) for axes in figure.axes for line in axes.get_lines()]

    lines, expected = drawn(checked.statistics(result)), drawn(image_statistics(three_sources))
    assert len(lines) == len(expected) > 9
    for line, other in zip(lines, expected, strict=True):
        # A whisker ends at the last image within, a quantile may lie between two images.
        np.testing.assert_allclose(line, other, rtol=0.02, atol=0.5)


def test_the_chapter_shows_what_the_file_says(result, space):
    found = notebook.full_checks()
    assert found == [result]
    found[0]["checks"][0]["passed"] = found[0]["checks"][4]["passed"] = True
    verdicts = notebook.checked_verdicts(found)
    assert list(verdicts["verdict"]) == ["passed"] * 7
    assert verdicts.loc["the sources use the same codes", "measured"] == "no swapped classes"
    failed = copy.deepcopy(found)
    failed[0]["checks"][4]["passed"] = False
    assert notebook.checked_verdicts(failed)["verdict"].iloc[4] == "FAILED"
    assert "6 of 7 checks passed; failed: shuffled" in notebook.checked_facts(failed)["checks-passed"]

    balance = notebook.checked_balance(found)
    assert (
        balance.loc["images", ("jaffe", "train")] == "72"
        and balance.loc["sad", ("jaffe", "train")] == "16.7 %"
    )
    matrix = notebook.checked_matrix(found)
    assert matrix.shape == (5, 3) and matrix.iloc[-1, 0] == "16.7 %"
    facts = notebook.checked_facts(found)
    assert facts["checks-passed"] == "7 of 7 checks passed"
    assert "of 2 that were trained, 2" in facts["checks-proof"]
    assert result["revision"] in facts["checks-how"] and "training: 2;" in facts["checks-how"]
    assert len(notebook.statistics_figure(result).axes) == 3


def test_before_the_full_run_the_chapter_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = notebook.full_checks()
    assert found == []
    for table in (notebook.checked_verdicts, notebook.checked_balance, notebook.checked_matrix):
        assert notebook.NOT_YET in table(found).to_html()
    assert set(notebook.checked_facts(found).values()) == {notebook.NOT_YET}


def test_shares_of_classes_add_up_in_every_column(three_sources):
    for by_split, columns in ((False, 3), (True, 9)):
        table = notebook.balance_table(three_sources.counts(), by_split=by_split)
        assert table.shape == (7, columns) and list(table.index) == [*CLASSES, "images"]
        shares = table.iloc[:6].map(lambda text: float(text.removesuffix(" %")))
        np.testing.assert_allclose(shares.sum(), 100, atol=0.3)
    whole = notebook.balance_table(three_sources.counts())
    assert list(whole.columns) == ["fer2013", "ckplus", "jaffe"] and whole.loc["images", "fer2013"] == "240"


def test_tables_of_proofs_name_what_was_missed():
    proofs = [
        checks.Proof("jaffe", ("fear", "sad"), {"jaffe": {"fear": "sad", "sad": "fear"}}, home=0.5),
        checks.Proof("ckplus", ("fear", "sad"), {}, home=0.25),
        checks.Proof("fer2013", ("fear", "sad"), {}, compared=False),
    ]
    table = notebook.proofs_table(proofs)
    assert list(table["verdict"]) == ["noticed", "MISSED", "not compared"]
    assert list(table["at home"]) == ["50.0 %", "25.0 %", "–"]
    assert list(table["named"])[:2] == ["jaffe: fear and sad", "no swapped classes"]
    noticed = {"jaffe": {("angry", "sad"): True, ("fear", "sad"): False}, "ckplus": {("angry", "sad"): True}}
    table = notebook.sensitivity_table(noticed)
    assert table.loc["jaffe"].tolist() == [2, 1, "fear and sad"] and table.loc["ckplus", "not named"] == "–"
    assert "nothing to compare" in notebook.sensitivity_table({}).to_html()


def test_one_source_is_checked_without_a_comparison(toy_faces, tmp_path, monkeypatch, capsys):
    space = place(toy_faces, tmp_path, monkeypatch)
    for name in ("memorised", "shuffled"):  # they do not ask for the source; the run above has made them
        monkeypatch.setattr(checks, name, lambda *arguments, name=name: checks.Check(name, "1", "1", True))
    swap = ("--swap", "fer2013", "happy", "sad")
    assert cli.main(["check", "--name", "one", *SHORT, *PLAIN, *swap]) == 0
    said = capsys.readouterr().out
    assert "not compared  swapped in fer2013: happy and sad; named: one source only" in said
    result = checked.read(space.results / "checks" / "one.json")
    assert result["matrix"]["trained_on"] == result["matrix"]["tested_on"] == ["fer2013"]
    assert result["sensitivity"] == {}
    (swap,) = result["swaps"]
    assert swap["named"] is None and not swap["compared"] and swap["found"] == {} and swap["home"] is None
    assert "one source only (fer2013)" in notebook.checked_facts([result])["checks-proof"]
    assert "nothing to compare" in result["checks"][6]["value"]
    said = notebook.checked_facts([result])["checks-passed"]
    assert (
        said.endswith("of 4 checks passed; not compared: the sources are lit alike, faces stand alike in the "
                      "frame, the sources use the same codes")
        or "; failed: " in said
    )  # fmt: skip
    assert notebook.checked_verdicts([result])["verdict"].iloc[6] == "not compared"


@pytest.fixture
def untrained(monkeypatch):
    """Trainings and checks by the clock of a test of what surrounds them."""

    def refuse(*arguments, **options):
        raise AssertionError("something was trained")

    for name in ("memorised", "shuffled", "source_matrix", "prove"):
        monkeypatch.setattr(checks, name, refuse)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--swap", "rafdb", "happy", "sad"), "no faces of a source 'rafdb'"),
        (("--swap", "jaffe", "happy", "disgust"), "'disgust' cannot be exchanged; name two of angry"),
        (("--swap", "jaffe", "sad", "sad"), "cannot be exchanged"),
        (("--set", "speed=3"), "a recipe has no field 'speed'"),
        (("--epochs", "0"), "epochs is 0; it must be a whole number of at least 1"),
        (("--option", "depth=3"), "emonet has no option 'depth'"),
        (("--option", "width=wide"), "emonet cannot be built with"),
        (("--option", "width"), "'width' is not of the form name=value"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_trained(
    space, untrained, capsys, arguments, problem
):
    assert cli.main(["check", "--name", "refused", *arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("fer check: ") and problem in said and said.count("\n") == 1
    assert not (space.results / "checks" / "refused.json").exists()


def test_without_a_merged_set_the_remedy_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FER_BUILD", str(tmp_path / "build"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check"]) == 1
    assert "run `fer merge`" in capsys.readouterr().err


@pytest.mark.parametrize("trouble", ["check", "swap"])
def test_a_failed_check_or_a_missed_swap_is_told_by_the_exit_code(space, monkeypatch, capsys, trouble):
    def run(space, *, report, **options):
        report(checks.Check("sources", "they differ", "agreement", trouble != "check"))
        report(checks.Proof("jaffe", ("fear", "sad"), {} if trouble == "swap" else {"jaffe": pair}))
        return space.results / "file.json"

    pair = {"fear": "sad", "sad": "fear"}
    monkeypatch.setattr(checked, "run", run)
    assert cli.main(["check"]) == 1
    said = capsys.readouterr().out
    assert ("FAILED" in said) == (trouble == "check") and ("MISSED" in said) == (trouble == "swap")


def test_a_file_of_another_form_is_refused(result, tmp_path):
    path = tmp_path / "checks.json"
    with pytest.raises(DataError, match=r"no such file of checks.*run `fer check`"):
        checked.read(path)
    path.write_text(json.dumps(result)[:-50], encoding="utf-8")
    with pytest.raises(DataError, match=r"not JSON.*again with `fer check`"):
        checked.read(path)
    for field in ("checks", "matrix", "statistics", "balance", "swaps", "recipe", "data", "revision"):
        with pytest.raises(DataError, match=f"{field!r} is a required property"):
            results.validate({k: v for k, v in result.items() if k != field}, schema=checked.SCHEMA)
    broken = copy.deepcopy(result)
    broken["matrix"]["accuracy"][0][0] = 1.5
    with pytest.raises(DataError, match="greater than the maximum"):
        results.validate(broken, schema=checked.SCHEMA)
