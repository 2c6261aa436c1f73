"""Prepares what the pages and readers need: `stage.py site FOLDER | pages FOLDER | links | scores | tidy`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
# The README's table of scores: network, and the runs of its columns with what must be said of them.
BOARD = {
    "EasyNet": (
        "from scratch",
        {"easynet-seed*": "", "easynet-both-taught-70-seed*": "; taught by two FaceNets, 70 epochs"},
    ),
    "FaceNet": (
        "MobileNetV1, VGGFace2",
        {"facenet-seed*": "", "facenet-both-160-calibrated-seed*": "; larger faces, calibrated"},
    ),
}
# Cells of tables that must not be broken: short ones, but for lists, which may be after a comma.
SHORT = re.compile(r"<td>((?![^<]*, )[^<]{1,20})</td>")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def main(arguments: list[str]) -> None:
    """Run one of the five commands."""
    match arguments:
        case ["site", folder]:
            site(Path(folder))
        case ["pages", folder]:
            pages(Path(folder))
        case ["links"]:
            for path in NOTEBOOKS:
                edit(path, link)
        case ["scores"]:
            path = ROOT / "README.md"
            path.write_text(with_scores(path.read_text(encoding="utf-8")), encoding="utf-8")
        case ["tidy"]:
            for path in NOTEBOOKS:
                edit(path, tidy)
        case _:
            raise SystemExit(__doc__)


def site(folder: Path) -> None:
    """Put configuration and pages beside the executed chapters in `folder`.

    Launch and edit buttons are switched on only where the repository is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    if config["repository"]["url"]:
        config["html"] |= {"use_edit_page_button": True, "use_repository_button": True}
        config["launch_buttons"] = {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        }
    else:
        del config["repository"]
    (folder / "_config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    shutil.copy(ROOT / "_toc.yml", folder)
    for path in (folder / "notebooks").glob("*.ipynb"):
        edit(path, join_streams)
        edit(path, hide_figures)
    shutil.copytree(ROOT / "book" / "static", folder / "_static", dirs_exist_ok=True)
    shutil.rmtree(folder / "book", ignore_errors=True)
    shutil.copytree(
        ROOT / "book",
        folder / "book",
        ignore=shutil.ignore_patterns("*.py", "results", "static", "__pycache__"),
    )


def repository() -> tuple[str, str]:
    """Address and branch of the repository as `_config.yml` has them; the address may be empty."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    return settings["url"].rstrip("/"), settings["branch"]


def edit(path: Path, change: Any) -> None:
    """Apply a change to a notebook file."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook, path)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def link(notebook: dict[str, Any], path: Path) -> None:
    """Write the row of badges below the title and the address in the Colab cell."""
    url, branch = repository()
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "badges" in tags:
            cell["source"] = badges(url, branch, path).splitlines(keepends=True)
        if "colab" in tags:
            cell["source"] = [
                f'REPOSITORY = "{url}"\n' if line.startswith("REPOSITORY = ") else line
                for line in cell["source"]
            ]


def badges(url: str, branch: str, path: Path) -> str:
    """Links to open a chapter elsewhere, or a line that says how to open it, while no repository is set."""
    if not url:
        return f"`notebooks/{path.name}` · open it with `jupyter lab` from a clone of the book"
    name = url.removeprefix("https://github.com/")
    place = f"{name}/blob/{branch}/notebooks/{path.name}"
    return (
        f"[Open in Colab](https://colab.research.google.com/github/{place}) · "
        f"[Open in Binder](https://mybinder.org/v2/gh/{name}/{branch}?labpath=notebooks/{path.name}) · "
        f"[Source]({url}/blob/{branch}/notebooks/{path.name})"
    )


def with_scores(readme: str) -> str:
    """The README with its table written anew from the results files."""
    from reading_faces.report.notebook import poster
    from reading_faces.study.stats import mean_score

    from fer_utils.results import read_all

    rows = ["| | FER2013's labels alone | and FER+'s votes | the poster |", "|---|---|---|---|"]
    for name, (start, columns) in BOARD.items():
        cells = []
        for pattern, note in columns.items():
            runs = [r for r in read_all(ROOT / "book" / "results", f"{pattern}.json") if "test" in r]
            score = mean_score([run["test"]["fer2013"] for run in runs])
            low, high = 100 * score["low"], 100 * score["high"]
            cells.append(f"**{score['accuracy']:.1%}** ({low:.1f} to {high:.1f} %; seeds: {len(runs)}{note})")
        rows.append(f"| {name}, {start} | " + " | ".join([*cells, f"{poster(name):.1%}"]) + " |")
    table = re.sub(r"(\d)%", r"\1 %", "\n".join(rows))
    found = re.sub(r"(?s)(<!-- scores -->\n).*(<!-- end of scores -->)", rf"\1{table}\n\2", readme)
    if table not in found:
        raise SystemExit("README.md: the two lines between which the table of scores belongs are not there")
    return found


def join_streams(notebook: dict[str, Any], path: Path) -> None:
    """Make one output of lines that a cell printed one after the other."""
    for cell in notebook["cells"]:
        outputs: list[dict[str, Any]] = []
        for output in cell.get("outputs", []):
            before = outputs[-1] if outputs else {}
            if output["output_type"] == before.get("output_type") == "stream" and (
                output["name"] == before["name"]
            ):
                before["text"] = "".join(before["text"]) + "".join(output["text"])
            else:
                outputs.append(output)
        if "outputs" in cell:
            cell["outputs"] = outputs


def hide_figures(notebook: dict[str, Any], path: Path) -> None:
    """Leave figures that `caption` showed to the directives that print them with caption and alt text."""
    prefix = "application/papermill.record/"
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            glued = output.get("metadata", {}).get("scrapbook", {"mime_prefix": prefix})
            if not glued["mime_prefix"] and "image/png" in output["data"]:
                glued["mime_prefix"] = prefix
                output["data"] = {prefix + kind: value for kind, value in output["data"].items()}


def pages(folder: Path) -> None:
    """Mark, in the built pages, cells of tables that must not be broken (`SHORT`): numbers, intervals."""
    for path in folder.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        path.write_text(SHORT.sub(r'<td class="short">\1</td>', page), encoding="utf-8")


def tidy(notebook: dict[str, Any], path: Path) -> None:
    """Take out what differs from machine to machine: kernel names, versions, times."""
    join_streams(notebook, path)
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}


if __name__ == "__main__":
    main(sys.argv[1:])
