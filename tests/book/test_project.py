"""The repository as a whole: packages held back, one address, no machine's traces, chapters by contract."""

import ast
import json
import re
import subprocess
import tomllib
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

import stage
from fer_utils.files import sha256

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "fer_utils" / "weights_data"
PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHAPTERS = [path for path in PAGES if path.stem[0].isdigit()]
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


def test_only_two_packages_are_held_back():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    everything = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    held = [name for name in everything if re.search(r"==|<", name)]
    assert sorted(held) == ["facenet-pytorch==2.5.3", "jupyter-book>=1.0.4,<2"]


@pytest.mark.parametrize("weights", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda p: p.stem)
def test_published_weights_are_those_of_their_results_and_their_card_says_so(weights):
    card = weights.with_suffix(".md").read_text(encoding="utf-8")
    run = re.search(r"`fer train --like (\S+)`", card)[1]
    result = json.loads((ROOT / run).read_text(encoding="utf-8"))
    assert result["checkpoint"] == sha256(weights) and result["checkpoint"] in card
    assert f"<!-- scores {result['name']} -->" in card
    with safe_open(weights, "pt") as file:
        about = json.loads(file.metadata()["fer_utils"])
    assert about["options"] == result["model"]["options"] and about["recipe"] == result["recipe"]


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(WEIGHTS.glob("*.md"))], ids=lambda p: p.stem)
def test_tables_of_scores_are_those_of_the_results(path):
    text = path.read_text(encoding="utf-8")
    damaged = re.sub(r"(?s)(<!-- scores.*?)\b[67](\d\.\d)%", r"\g<1>5\2%", text)
    assert damaged != text and stage.with_scores(damaged) == text  # or else: make scores


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
            text = path.read_text(encoding="utf-8", errors="ignore").replace(machine.pattern, "")
            assert not machine.findall(text), path


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
def test_chapter_follows_the_template(path):
    cells = chapter(path)["cells"]
    text = "\n".join(source(c) for c in cells if c["cell_type"] == "markdown")
    assert source(cells[0]).startswith("# ")
    assert "badges" in tags(cells[1])
    parameters = [c for c in cells if "parameters" in tags(c)]
    assert len(parameters) == 1
    assert 'PROFILE: str = "demo"' in source(parameters[0])
    assert "## Exercises" in text and "<details><summary>Solution 1</summary>" in text
    assert "**Next:**" in text
    colab = [source(c) for c in cells if "colab" in tags(c)]
    assert len(colab) == 1
    assert '"google.colab" in sys.modules' in colab[0]
    assert "assert REPOSITORY" in colab[0] and "%pip install" in colab[0]
    assert "--editable" not in colab[0]
    # A chapter without a cell that is compared would let nbval pass on anything.
    assert any("nbval-check-output" in tags(c) for c in cells)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_chapter_has_stored_outputs_without_errors(path):
    code = [c for c in chapter(path)["cells"] if c["cell_type"] == "code" and source(c).strip()]
    # What was not run before it was stored, nbval does not compare.
    assert all(c["execution_count"] for c in code)
    assert all(o["output_type"] != "error" for c in code for o in c["outputs"])


def test_notebooks_show_their_code_in_cells_that_fit_a_screen():
    lengths = {path: [] for path in PAGES}
    for path, own in lengths.items():
        for cell in chapter(path)["cells"]:
            if cell["cell_type"] == "code" and "colab" not in tags(cell):
                own.append(len(source(cell).splitlines()))
                assert own[-1] <= 40, f"{path.name}: {source(cell)}"
    assert 1_400 <= sum(sum(own) for path, own in lengths.items() if path in CHAPTERS) <= 2_000


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_figure_is_captioned_and_referred_to(path):
    """A cell that stores a figure is followed by its directive; another sentence speaks of its number."""
    cells = chapter(path)["cells"]
    prose = [source(c) for c in cells if c["cell_type"] == "markdown"]
    code = "\n".join(source(c) for c in cells if c["cell_type"] == "code")
    for name in re.findall(r'caption\([^()]*, "([\w-]+)"\)', code):
        shown = [text for text in prose if re.search(rf":::\{{glue:figure\}} {name}\s*$", text, re.MULTILINE)]
        assert len(shown) == 1, f"{path.name}: {name} is shown {len(shown)} times"
        number = re.search(r"Figure (\d\.\d+)", shown[0])
        assert number and ":alt:" in shown[0], f"{path.name}: {name} has no number or no alt text"
        elsewhere = re.compile(rf"[Ff]igures? [\d., and]*{re.escape(number[1])}\b")
        spoken = [t for t in prose if elsewhere.search(re.sub(r"(?s)\*\*Figure.*?:::", "", t))]
        assert spoken, f"{path.name}: no sentence reads figure {number[1]}"


def test_every_function_has_another_caller_than_one_cell():
    """What one chapter needs stands in that chapter."""
    folders = (ROOT / "fer_utils", ROOT / "book")
    code = {p: p.read_text(encoding="utf-8") for folder in folders for p in folder.rglob("*.py")}
    used = Counter(re.findall(r"\w+", "\n".join(code.values())))
    cells = {p.name: set(re.findall(r"\w+", "\n".join(map(source, chapter(p)["cells"])))) for p in PAGES}
    for path, own in code.items():
        for node in ast.parse(own).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                readers = [page for page, words in cells.items() if node.name in words]
                assert used[node.name] > 1 or len(readers) != 1, (
                    f"{path.name}: {node.name} serves {readers[0]} alone"
                )


def test_the_address_of_the_repository_is_the_same_everywhere():
    url = CONFIG["repository"]["url"]
    for path in CHAPTERS:
        cells = chapter(path)["cells"]
        colab = next(source(c) for c in cells if "colab" in tags(c))
        assert f'REPOSITORY = "{url}"' in colab, "run `make links`"
        badges = source(cells[1])
        assert ("colab.research.google.com" in badges) == bool(url), "run `make links`"
