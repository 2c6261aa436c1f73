"""The repository as a whole: one list of packages, one address, no machine's traces, chapters by contract."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from itertools import chain, pairwise
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

from fer_utils import results
from fer_utils.files import sha256
from reading_faces.study import publish

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def chapter(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_environment_and_project_list_the_same_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["book"], *extras["test"]]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    assert [name for name in pip if not name.startswith("--editable")] == wanted
    assert f"python{project['requires-python']}" in environment


def test_only_two_packages_are_held_back():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    everything = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    held = [name for name in everything if re.search(r"==|<", name)]
    assert sorted(held) == ["facenet-pytorch==2.5.3", "jupyter-book>=1.0.4,<2"]


@pytest.mark.parametrize(
    "weights", sorted((ROOT / "fer_utils" / "weights_data").glob("*.safetensors")), ids=lambda p: p.stem
)
def test_published_weights_are_those_of_their_results_and_their_card_says_so(weights):
    card = weights.with_suffix(".md").read_text(encoding="utf-8")
    run = re.search(r"`fer publish (\S+)`", card)[1]
    result = results.read(ROOT / "book" / "results" / f"{run}.json")
    assert result["checkpoint"] == sha256(weights)
    folder = ROOT / "book" / "results"
    seeds, before = publish.alike(folder, run), publish.behind(folder, result)
    assert card == publish.card(weights.stem, run, result, seeds, before)
    with safe_open(weights, "pt") as file:
        about = json.loads(file.metadata()["fer_utils"])
    assert about["options"] == result["model"]["options"] and about["recipe"] == result["recipe"]


def test_git_leaves_no_result_out_that_a_page_reads():
    """A figure whose file is ignored is there for its author, and missing for every reader."""
    asked = [str(path) for path in (ROOT / "book" / "results").rglob("*.json")]
    command = ["git", "check-ignore", "--no-index", *asked]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert asked and told.returncode == 1, told.stdout + told.stderr


def test_no_trace_of_a_machine_or_a_registry():
    machine = re.compile(r"/(work|root|home|farm|tmp)/[A-Za-z0-9_.-]+/|registry\.npmjs|files\.pythonhosted")
    for path in tracked():
        if path.suffix in {".py", ".md", ".yml", ".toml", ".ipynb", ".json", ".cff", ""} and path.is_file():
            found = machine.search(
                path.read_text(encoding="utf-8", errors="ignore").replace(machine.pattern, "")
            )
            assert found is None, f"{path}: {found[0]}"


def test_no_large_file_and_no_pickle_load():
    for path in tracked():
        assert path.stat().st_size < 20_000_000, path
        if path.suffix == ".py":
            for line in path.read_text(encoding="utf-8").splitlines():
                assert "torch.load" + "(" not in line or "weights_only=True" in line, path


def test_mathjax_is_the_file_that_was_published():
    folder = ROOT / "book" / "extra" / "mathjax"
    # npm package mathjax 3.2.2, es5/tex-svg.js
    assert sha256(folder / "tex-svg.js") == "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"
    assert "Apache License" in (folder / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_follows_the_contract(path):
    cells = chapter(path)["cells"]
    text = "\n".join(source(c) for c in cells if c["cell_type"] == "markdown")
    assert source(cells[0]).startswith("# ")
    assert "badges" in tags(cells[1])
    assert "In this notebook we will" in source(cells[2])
    parameters = [c for c in cells if "parameters" in tags(c)]
    assert len(parameters) == 1
    assert 'PROFILE: str = "demo"' in source(parameters[0])
    for heading in ("## What the full run gives", "## What we have seen", "## Exercises"):
        assert heading in text, heading
    assert "<details><summary>Solution 1</summary>" in text
    assert "**Next:**" in text
    colab = [source(c) for c in cells if "colab" in tags(c)]
    assert len(colab) == 1
    assert '"google.colab" in sys.modules' in colab[0]
    assert "assert REPOSITORY" in colab[0] and "%pip install" in colab[0]
    assert "--editable" not in colab[0]
    # A chapter without a cell that is compared would let nbval pass on anything.
    assert any("nbval-check-output" in tags(c) for c in cells)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_has_stored_outputs_without_errors(path):
    code = [c for c in chapter(path)["cells"] if c["cell_type"] == "code"]
    # What was not run before it was stored, nbval does not compare.
    assert all(c["execution_count"] for c in code)
    assert all(o["output_type"] != "error" for c in code for o in c["outputs"])
    assert any(o.get("data", {}).get("image/png") for c in code for o in c["outputs"])
    shown = "\n".join(
        "".join(o.get("text", "")) for c in code for o in c["outputs"] if o["output_type"] == "stream"
    )
    assert "profile: demo" in shown


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_code_cells_are_short(path):
    for cell in chapter(path)["cells"]:
        if cell["cell_type"] == "code" and "colab" not in tags(cell):
            tree = ast.parse(source(cell))
            statements = [n for n in tree.body if not isinstance(n, ast.Import | ast.ImportFrom)]
            lines = sum((n.end_lineno or n.lineno) - n.lineno + 1 for n in statements)
            assert lines <= 16, source(cell)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_figure_has_a_caption(path):
    cells = [c for c in chapter(path)["cells"] if "remove-cell" not in tags(c)]
    for cell, below in pairwise(cells):
        if cell["cell_type"] == "code" and re.search(r"notebook\.show(_real)?\(", source(cell)):
            assert re.match(r"\*\*Figure \d\.\d", source(below)), source(cell)


def test_the_address_of_the_repository_is_the_same_everywhere():
    url = CONFIG["repository"]["url"]
    for path in CHAPTERS:
        cells = chapter(path)["cells"]
        colab = next(source(c) for c in cells if "colab" in tags(c))
        assert f'REPOSITORY = "{url}"' in colab, "run `make links`"
        badges = source(cells[1])
        assert ("colab.research.google.com" in badges) == bool(url), "run `make links`"


def test_the_scores_in_the_readme_are_those_of_the_results():
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'book')!r}); import stage; "
    code += "sys.stdout.write(stage.with_scores(sys.stdin.read()))"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.count("**6") >= 1
    damaged = readme.replace("**6", "**5")
    ran = subprocess.run(
        [sys.executable, "-c", code], input=damaged, capture_output=True, text=True, check=True
    )
    assert ran.stdout == readme  # or else: make scores
