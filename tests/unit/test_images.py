"""Logo and favicon are what `book/draw_images.py` draws."""

import importlib.util
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

BOOK = Path(__file__).resolve().parents[2] / "book"


@pytest.fixture(scope="module")
def drawn():
    spec = importlib.util.spec_from_file_location("draw_images", BOOK / "draw_images.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pictures(file):
    with Image.open(file) as icon:
        return {size: np.asarray(icon.ico.getimage(size).convert("RGBA")) for size in icon.ico.sizes()}


def test_the_logo_is_what_the_script_draws(drawn):
    assert (BOOK / "images" / "logo.svg").read_text(encoding="utf-8") == drawn.logo()


def test_the_favicon_is_what_the_script_draws(drawn):
    there, anew = pictures(BOOK / "images" / "favicon.ico"), pictures(io.BytesIO(drawn.favicon()))
    assert sorted(there) == sorted(anew) == [(16, 16), (32, 32), (48, 48)]
    for size, image in there.items():
        # Pillow's polygons may differ by a few of the 256 fine pixels of a pixel from release to release.
        np.testing.assert_allclose(image.astype(int), anew[size].astype(int), atol=12, err_msg=str(size))


def test_the_logo_is_self_contained_and_names_the_book(drawn):
    root = ElementTree.fromstring(drawn.logo())
    assert root.find("{*}title").text == "Reading Faces"
    assert "href" not in drawn.logo() and "<text" not in drawn.logo()


def test_drawing_twice_gives_the_same_files(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(drawn, "IMAGES", tmp_path / "images")
    drawn.main()
    first = {p.name: p.read_bytes() for p in drawn.IMAGES.iterdir()}
    drawn.main()
    assert first == {p.name: p.read_bytes() for p in drawn.IMAGES.iterdir()}
    assert sorted(first) == ["favicon.ico", "logo.svg"]
