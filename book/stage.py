"""Prepares what the pages and readers need: `stage.py site RUN FOLDER | store RUN | links | scores`."""

import base64
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fer_utils.emotions import CLASSES
from fer_utils.files import atomic_write
from reading_faces.report.scores import load_scores, seed_means

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# The README's table of scores: a network, how it starts, the poster's accuracy, and its two trainings.
BOARD = {
    "EasyNet": ("from scratch", "EasyNet", "EasyNet, votes + distilled, 70 epochs"),
    "FaceNet": ("MobileNetV1, VGGFace2", "FaceNet", "FaceNet, with votes, 160 px, calibrated"),
}

# Figures of chapters that the introduction shows as pictures of its own, with an alternative text.
INTRODUCTION = {"01-data": "sample-grid", "06-results": "all-networks"}


def main(arguments: list[str]) -> None:
    """Run one of the four commands."""
    match arguments:
        case ["site", run, folder]:
            site(Path(run), Path(folder))
        case ["store", run]:
            for path in NOTEBOOKS:
                edit(path, lambda notebook, path: store(notebook, Path(run) / "notebooks" / path.name))
        case ["links"]:
            for path in NOTEBOOKS:
                edit(path, link)
        case ["scores"]:
            for path in (ROOT / "README.md", *(ROOT / "fer_utils" / "weights_data").glob("*.md")):
                atomic_write(path, with_scores(path.read_text(encoding="utf-8")))
        case _:
            raise SystemExit(__doc__)


def site(run: Path, folder: Path) -> None:
    """Put configuration, pages and the executed chapters of `run`, without what pages leave out, in `folder`.

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
    shutil.copytree(run / "notebooks", folder / "notebooks")
    for path in (folder / "notebooks").glob("*.ipynb"):
        edit(path, join_streams)
        edit(path, hide_glued)
    shutil.copytree(ROOT / "book" / "static", folder / "_static", dirs_exist_ok=True)
    shutil.rmtree(folder / "book", ignore_errors=True)
    shutil.copytree(
        ROOT / "book",
        folder / "book",
        ignore=shutil.ignore_patterns("*.py", "results", "static", "try", "reading_faces", "__pycache__"),
    )
    for chapter, name in INTRODUCTION.items():
        picture = glued_picture(folder / "notebooks" / f"{chapter}.ipynb", name)
        (folder / "book" / "images" / f"{name}.png").write_bytes(picture)


def glued_picture(path: Path, name: str) -> bytes:
    """A figure that an executed chapter stored under a name, as PNG."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if output.get("metadata", {}).get("scrapbook", {}).get("name") == name:
                kind = next(kind for kind in output["data"] if kind.endswith("image/png"))
                return base64.b64decode("".join(output["data"][kind]))
    raise SystemExit(f"{path} stores no figure called {name}")


def repository() -> tuple[str, str]:
    """Address and branch of the repository as `_config.yml` has them; the address may be empty."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]
    return settings["url"].rstrip("/"), settings["branch"]


def edit(path: Path, change: Any) -> None:
    """Apply a change to a notebook file."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    change(notebook, path)
    atomic_write(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


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


def with_scores(text: str) -> str:
    """A README or model card with its table of scores written again from the results files."""
    scores = load_scores()
    marked = re.search(r"(?s)(<!-- scores ?(\S*) -->\n).*(<!-- end of scores -->)", text)
    if not marked:
        raise SystemExit("the two lines between which the table of scores belongs are missing")
    table = card(scores[scores["run"] == marked[2]]) if marked[2] else board(seed_means(scores))
    return text[: marked.start()] + marked[1] + table + marked[3] + text[marked.end() :]


def board(means: Any) -> str:
    """The README's table."""
    plain = means.query("split == 'test' and source == 'fer2013' and variant == 'plain'").set_index(
        "training"
    )
    anchors = pd.read_csv(ROOT / "book" / "anchors.csv").set_index("system")["accuracy"]
    rows = ["| | labels alone | best training | the poster |", "|---|---|---|---|"]
    for network, (start, *trainings) in BOARD.items():
        cells = [
            f"**{row.accuracy:.1%}** ({row.low:.1%} to {row.high:.1%}, {row.seeds} seeds)"
            for row in plain.loc[trainings].itertuples()
        ]
        rows.append(f"| {network}, {start} | {' | '.join(cells)} | {anchors[f'{network}, the poster']:.1%} |")
    return "\n".join(rows) + "\n"


def card(scores: Any) -> str:
    """A model card's tables: its scores, and recall by class on the test images."""
    rows = [
        "| split | measured | images | accuracy | macro-F1 | calibration error |",
        "|---|---|---|---|---|---|",
    ]
    for row in scores.sort_values("split", ascending=False, kind="stable").itertuples():
        spread = f"{row.accuracy:.1%} ({row.low:.1%} to {row.high:.1%})"
        rows.append(
            f"| {row.split} | {row.variant} | {row.images} | {spread} | {row.macro_f1:.3f} | {row.ece:.3f} |"
        )
    test = scores.query("split == 'test' and variant == 'plain'").iloc[0]
    recall = zip(CLASSES, test["confusion"].diagonal() / test["confusion"].sum(1), strict=True)
    rows += ["", f"Recall on the test images: {', '.join(f'{name} {share:.1%}' for name, share in recall)}."]
    means = seed_means(load_scores()).query("split == 'test' and variant == 'plain'").set_index("training")
    mean = means.loc[test["training"]]
    if mean.seeds > 1:
        several = f"Mean of {mean.seeds} seeds: {mean.accuracy:.1%} ({mean.low:.1%} to {mean.high:.1%})"
        rows += [f"{several}; expect that of a training like it."]
    return "\n".join(rows) + "\n"


def join_streams(notebook: dict[str, Any], path: Path) -> None:
    """Make one output of lines that a cell printed one after the other."""
    for cell in notebook["cells"]:
        outputs = cell.get("outputs", [])
        for place in range(len(outputs) - 1, 0, -1):
            before, output = outputs[place - 1 : place + 1]
            if (output["output_type"], output.get("name")) == ("stream", before.get("name")):
                before["text"] = "".join([*before["text"], *output["text"]])
                del outputs[place]


def hide_glued(notebook: dict[str, Any], path: Path) -> None:
    """Leave glued values and figures to the sentences and directives of a page that print them.

    The cell that papermill injects repeats the one above it, and is left out.
    """
    notebook["cells"] = [
        cell for cell in notebook["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])
    ]
    prefix = "application/papermill.record/"
    for cell in notebook["cells"]:
        names, kept = set(), []
        for output in cell.get("outputs", []):
            glued = output.get("metadata", {}).get("scrapbook")
            if glued:
                names.add(glued["name"])
            if glued and not glued["mime_prefix"] and "image/png" in output["data"]:
                glued["mime_prefix"] = prefix
                output["data"] = {prefix + kind: value for kind, value in output["data"].items()}
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                lines = "".join(output["text"]).splitlines(keepends=True)
                output["text"] = [line for line in lines if line.split(": ")[0] not in names]
            if output.get("text", True):
                kept.append(output)
        if "outputs" in cell:
            cell["outputs"] = kept


def store(notebook: dict[str, Any], executed: Path) -> None:
    """Take over the outputs of an executed copy, without what differs from machine to machine."""
    ran = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    ran = [cell for cell in ran if "injected-parameters" not in cell["metadata"].get("tags", [])]
    if ["".join(cell["source"]) for cell in ran] != ["".join(cell["source"]) for cell in notebook["cells"]]:
        raise SystemExit(f"{executed} is no run of this chapter")
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell, copy in zip(notebook["cells"], ran, strict=True):
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key == "tags"}
        if cell["cell_type"] == "code":
            cell |= {"outputs": copy["outputs"], "execution_count": copy["execution_count"]}
    join_streams(notebook, executed)


if __name__ == "__main__":
    main(sys.argv[1:])
