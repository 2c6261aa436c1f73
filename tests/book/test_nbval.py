"""`pytest notebooks`: what must fail fails, on a small chapter in a folder of its own."""

import copy
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[2] / "notebooks" / "conftest.py"


def cell(source, count, *outputs, tags=()):
    return new_code_cell(source, execution_count=count, outputs=list(outputs), metadata={"tags": list(tags)})


def printed(text):
    return new_output("stream", name="stdout", text=text)


@pytest.fixture
def chapter():
    number = new_output("execute_result", {"text/plain": "4"}, execution_count=3)
    return new_notebook(
        cells=[
            new_markdown_cell("# A chapter"),
            cell("PROFILE = 'demo'", 1, tags=["parameters"]),
            cell("import time; time.time()", 2, printed("12.5\n")),
            cell("print('a'); 2 + 2", 3, printed("a\n"), number, tags=["nbval-check-output"]),
        ]
    )


@pytest.fixture
def compare(pytester, chapter):
    """Counts of outcomes for the stored chapter and what its run changed; no run where that is none."""
    pytester.mkdir("notebooks")
    shutil.copy(CONFTEST, pytester.path / "notebooks")
    nbformat.write(chapter, pytester.path / "notebooks" / "01-one.ipynb")

    def outcomes(change):
        if change is not None:
            ran = copy.deepcopy(chapter)
            ran.cells.insert(2, cell("PROFILE = 'demo'", 2, tags=["injected-parameters"]))
            change(ran.cells)
            folder = pytester.path / "build" / "demo" / "run" / "notebooks"
            folder.mkdir(parents=True)
            nbformat.write(ran, folder / "01-one.ipynb")
        # Hypothesis's plugin would be loaded anew each time, which takes seconds.
        done = pytester.runpytest_inprocess("notebooks", "-pno:cacheprovider", "-pno:hypothesispytest")
        return done.ret, done.parseoutcomes(), done.stdout.str()

    return outcomes


def test_what_is_not_tagged_may_differ(compare):
    def other_time(cells):
        cells[3].outputs = [printed("13.5\n")]
        # The same text, as two prints leave it.
        cells[4].outputs[:1] = [printed("a"), printed("\n")]

    assert compare(other_time)[:2] == (0, {"passed": 3})


def _other_text(cells):
    cells[-1].outputs[0].text = "b\n"


def _other_value(cells):
    cells[-1].outputs[1].data["text/plain"] = "5"


def _less(cells):
    del cells[-1].outputs[1]


def _more(cells):
    cells[-1].outputs.append(printed("c\n"))


@pytest.mark.parametrize("change", [_other_text, _other_value, _less, _more])
def test_a_checked_output_that_differs_fails(compare, change):
    code, counts, said = compare(change)
    assert code == 1 and counts == {"passed": 2, "failed": 1}
    assert "Cell outputs differ" in said


def test_a_cell_that_raises_fails_and_so_does_what_was_not_run(compare):
    def leave(cells):  # papermill takes `sys.exit(0)` for a success
        cells[3].outputs = [new_output("error", ename="SystemExit", evalue="0", traceback=["SystemExit: 0"])]
        cells[4].outputs, cells[4].execution_count = [], None

    code, counts, said = compare(leave)
    assert code == 1 and counts == {"passed": 1, "failed": 2}
    assert "SystemExit: 0" in said and "ended before this cell" in said


def _other_source(cells):
    cells[3].source = "import time; time.monotonic()"


@pytest.mark.parametrize("change", [None, _other_source, lambda cells: cells.pop()])
def test_no_run_or_that_of_another_version_fails(compare, change):
    code, counts, said = compare(change)
    assert code != 0 and counts == {"errors": 1}
    assert "is no run of this chapter" in said
