"""The built pages, as a reader without a network has them: complete, linked, local."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from bs4 import BeautifulSoup

pytestmark = pytest.mark.book

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "build" / "demo" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
DOCUMENTS = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
CHAPTERS = [d for d in DOCUMENTS if d.startswith("notebooks/")]


@cache
def parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def page(document: str) -> BeautifulSoup:
    return parsed(HTML / f"{document}.html")


def article(document: str) -> BeautifulSoup:
    found = page(document).find("article")
    assert found is not None
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_page_has_a_title_and_content(document):
    assert article(document).find("h1") is not None
    assert len(article(document).get_text().split()) > 50


def test_every_chapter_is_in_the_table_of_contents():
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("[0-9]*.ipynb")) == sorted(
        Path(d).name for d in CHAPTERS
    )


def test_the_start_page_leads_to_the_introduction():
    assert "book/intro.html" in (HTML / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_within_the_book_lead_somewhere(document):
    here = HTML / f"{document}.html"
    for link in page(document).find_all("a", href=True):
        target, fragment = urldefrag(link["href"])
        if re.match(r"[a-z]+:", target):
            continue
        path = (here.parent / unquote(target)).resolve() if target else here
        if path.is_dir():
            path /= "index.html"
        assert path.is_file(), f"{document} links to {link['href']}"
        if fragment and path.suffix == ".html":
            assert parsed(path).find(id=unquote(fragment)), f"{document} links to {link['href']}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_is_loaded_from_elsewhere(document):
    here = HTML / f"{document}.html"
    loads = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
    for tag, attribute in loads.items():
        for element in page(document).find_all(tag, attrs={attribute: True}):
            if tag == "link" and not set(element.get("rel", [])) & {
                "stylesheet",
                "preload",
                "icon",
                "modulepreload",
            }:
                continue
            address = element[attribute]
            if address.startswith("data:"):
                continue
            assert not re.match(r"(https?:)?//", address), f"{document} loads {address}"
            path = (here.parent / unquote(address.split("?")[0])).resolve()
            assert path.is_file(), f"{document} loads {address}, which is missing"
    for script in page(document).find_all("script", src=False):
        assert not re.search(r"import\(.https?:|\.src\s*=\s*.https?:", script.get_text()), document


@pytest.mark.parametrize("document", CHAPTERS)
def test_chapters_show_their_figures_and_no_error(document):
    found = article(document)
    assert found.find("img") is not None
    text = found.get_text()
    for trouble in ("Traceback (most recent call last)", "An Exception was encountered", "Warning", "NaN"):
        assert trouble not in text
    assert "profile: demo" in text
    assert not found.select(".stderr"), found.select(".stderr")[0].get_text()[:500]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_markup_was_understood(document):
    text = re.sub(r"\s+", " ", article(document).get_text())
    for leftover in ("{glue", "{cite", ":::{", "**Figure", "{doc}"):
        assert leftover not in text, leftover


def test_no_button_leads_nowhere_while_the_repository_is_not_set():
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    buttons = page(CHAPTERS[0]).find_all("a", href=re.compile(r"colab|mybinder|/edit/"))
    assert bool(buttons) == bool(config["repository"]["url"])


@pytest.mark.parametrize("document", CHAPTERS)
def test_short_cells_of_tables_are_not_broken_but_lists_are(document):
    cells = article(document).select(".cell_output table.dataframe tbody td")
    for cell in cells:
        text, marked = cell.get_text(), "short" in cell.get("class", [])
        if text and not cell.find():
            assert marked == (len(text) <= 20 and ", " not in text), text
