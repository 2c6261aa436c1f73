"""The built pages, as a reader without a network has them: complete, linked, local, legible."""

import re
import shutil
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag

import axe_core_python
import pytest
import yaml
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

pytestmark = pytest.mark.book

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "build" / "demo" / "html"
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
DOCUMENTS = [TOC["root"], *(c["file"] for part in TOC["parts"] for c in part["chapters"])]
CHAPTERS = [d for d in DOCUMENTS if d.startswith("notebooks/0")]


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
    notebooks = [Path(d).name for d in DOCUMENTS if d.startswith("notebooks/")]
    assert sorted(p.stem for p in (ROOT / "notebooks").glob("*.ipynb")) == sorted(notebooks)


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
    assert re.search(r"profile:? demo", text)
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


def test_no_run_name_stands_before_a_reader_outside_methods():
    """`facenet-both-160-seed2` is a file; a reader sees "FaceNet, with votes, 160 px"."""
    name = re.compile(r"\b(emonet|easynet|facenet)(-[a-z0-9]+)*-seed\d|\bsearch/|\b(both|taught)-\w+")
    for document in set(DOCUMENTS) - {"notebooks/methods", "book/full_run"}:
        shown = parsed_copy(document)
        for code in shown.select("div.cell_input, pre, code"):
            code.decompose()
        in_house = name.search(shown.get_text())
        assert in_house is None, f"{document}: {in_house[0]}"


def parsed_copy(document: str) -> BeautifulSoup:
    """The article, to be changed."""
    return BeautifulSoup(str(article(document)), "html.parser")


LIMITS = {"notebooks/04-facenet": 2_200, "notebooks/07-labels": 2_200}


@pytest.mark.parametrize("document", CHAPTERS)
def test_a_chapter_is_read_in_a_quarter_of_an_hour(document):
    shown = parsed_copy(document)
    figures = shown.select(".cell_output img, figure img")
    for aside in shown.select("div.cell_input, div.cell_output, details, pre, table, figcaption"):
        aside.decompose()
    assert len(shown.get_text().split()) <= LIMITS.get(document, 1_800)
    assert len(figures) <= 7


@pytest.mark.parametrize("document", DOCUMENTS)
def test_figures_have_alternative_texts(document):
    for image in article(document).find_all("img"):
        text = image.get("alt", "")
        assert len(text) > 10 and not re.search(r"\.(png|svg)$|_images|^<Figure", text), str(image)[:200]


@pytest.mark.timeout(1500)  # every page in every scheme; other work may go on beside
def test_pages_suit_every_reader():
    """In Chromium, light and dark: nothing that axe-core calls serious, no table that scrolls sideways."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: pages were not looked at")
    axe = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    trouble = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            for document in DOCUMENTS:
                page.set_viewport_size({"width": 1300, "height": 900})
                page.goto((HTML / f"{document}.html").as_uri())
                page.evaluate(axe)
                trouble += [f"{document}, {scheme}: {text}" for text in page.evaluate(SERIOUS)]
                for width in (1300, 800) if scheme == "light" else ():
                    page.set_viewport_size({"width": width, "height": 900})
                    wide = page.evaluate(WIDE)
                    trouble += [f"{document} at {width}: a wide table: {text}" for text in wide]
            page.close()
        browser.close()
    assert not trouble, "\n".join(trouble)


# Tables that do not fit the column that holds them.
WIDE = """() => [...document.querySelectorAll("article table")]
    .filter(t => t.getBoundingClientRect().right > t.closest("article").getBoundingClientRect().right + 1
              || t.parentElement.scrollWidth > t.parentElement.clientWidth + 1)
    .map(t => t.innerText.slice(0, 60))"""
# What axe-core finds in the article; the rest of a page is the theme's, and so are the roles of references.
SERIOUS = """async () => (await axe.run("article", {rules: {"aria-required-children": {enabled: false}}}))
    .violations
    .filter(v => ["serious", "critical"].includes(v.impact))
    .map(v => v.id + ": " + v.nodes.slice(0, 3).map(n => n.html.slice(0, 120)).join(" | "))"""
