"""Draws the book's logo and favicon: `python book/draw_images.py` writes both to `book/images/`.

An open book looks back: the upper edges of its pages are brows, the gutter is the nose, and the eyes and the
smile stand on the pages. One geometry serves both files; the small icon has bolder features.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw

IMAGES = Path(__file__).resolve().parent / "images"

# Middle tones: a contrast of 4:1 or so with white and with the dark theme's background alike.
LEFT, RIGHT, WORDS, FEATURES = "#2f7fbf", "#3f93d4", "#3b86c6", "#ffffff"

Point = tuple[float, float]

# Left page in a field of 96 × 80: upper and lower edge as cubic Bézier curves, joined by straight lines. The
# right page is its mirror image at the gutter.
GUTTER = 48.0
PAGE: tuple[tuple[Point, ...], ...] = (
    ((45.6, 18.5), (39, 9), (19, 5), (5, 9.5)),
    ((5, 64.5), (19, 60), (39, 63), (45.6, 73)),
)
ROUNDING = 1.5  # radius of the pages' corners, drawn around the outline
EYE: Point = (27, 29)
SMILE: tuple[Point, ...] = ((28, 48), (38, 58), (58, 58), (68, 48))

# Letters as strokes with round ends: path data (baseline at 0), advance. x-height 20, capitals 32.
LETTERS = {
    "R": ("M0 0V-32H9A8.5 8.5 0 0 1 9-15H0M9.5-15L18.5 0", 18.5),
    "F": ("M0 0V-32H17M0-16H14", 15.5),
    "a": ("M20-10A10 10 0 1 0 0-10A10 10 0 1 0 20-10M20-20V0", 20),
    "c": ("M17-17.1A10 10 0 1 0 17-2.9", 17),
    "d": ("M20-10A10 10 0 1 0 0-10A10 10 0 1 0 20-10M20-34V0", 20),
    "e": ("M0.6-10H20A10 10 0 1 0 17.4-3.2", 20),
    "g": ("M20-10A10 10 0 1 0 0-10A10 10 0 1 0 20-10M20-20V0A9.6 9.6 0 0 1 2.4 5.4", 20),
    "i": ("M0-20V0M0-30.5V-30.4", 0),
    "n": ("M0 0V-20M0-11A9 9 0 0 1 18-11V0", 18),
    "s": ("M11.6-17.2A5.8 5.1 0 1 0 6.3-10.1A6.2 5.1 0 1 1 0.4-3.2", 12.4),
}
SPACING = 7


def logo() -> str:
    """The mark with the words beside it, as SVG."""
    lines = "".join(_words(text, 113, y) for text, y in (("Reading", 41), ("Faces", 85)))
    eyes = "".join(f'<circle cx="{x:g}" cy="{EYE[1]:g}" r="5.2"/>' for x in (EYE[0], 2 * GUTTER - EYE[0]))
    smile = f"M{_pair(SMILE[0])}C{' '.join(map(_pair, SMILE[1:]))}"
    ends = 'stroke-linecap="round" stroke-linejoin="round"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 276 96" role="img">\n'
        "<title>Reading Faces</title>\n"
        f'<g transform="translate(-2 8)" {ends}>\n'
        f"{_page(PAGE, LEFT)}{_page(_mirrored(PAGE), RIGHT)}"
        f'<g fill="{FEATURES}">{eyes}</g>\n'
        f'<path fill="none" stroke="{FEATURES}" stroke-width="4.6" d="{smile}"/>\n'
        "</g>\n"
        f'<g fill="none" stroke="{WORDS}" stroke-width="4.4" {ends}>\n{lines}</g>\n'
        "</svg>\n"
    )


def icon(size: int) -> Image.Image:
    """The mark alone on a transparent square of `size` pixels, with eyes and smile bold enough for it."""
    fine = 16  # drawn larger and scaled down, since Pillow's drawing has no antialiasing
    scale = size * fine / 96
    image = Image.new("RGBA", (size * fine,) * 2)
    draw = ImageDraw.Draw(image)

    def place(points: Iterable[Point]) -> list[Point]:
        return [(x * scale, (y + 7) * scale) for x, y in points]

    def disc(centre: Point, radius: float, colour: str = FEATURES) -> None:
        ((x, y),) = place([centre])
        r = radius * scale
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    bold = 1.0 + 8 / size
    for page, colour in ((PAGE, LEFT), (_mirrored(PAGE), RIGHT)):
        outline = [point for curve in page for point in _points(curve)]
        draw.polygon(place(outline), fill=colour)
        draw.line(
            place([*outline, outline[0]]), fill=colour, width=round(2 * ROUNDING * scale), joint="curve"
        )
    # Eyes sit on corners of pixels: at 16 pixels they are four pixels each rather than a smudge.
    across = round(EYE[0] * size / 96) * 96 / size
    down = round((EYE[1] + 7) * size / 96) * 96 / size - 7
    for x in (across, 2 * GUTTER - across):
        disc((x, down), 5.2 * bold)
    for point in _points(SMILE, steps=400):
        disc(point, 2.3 * bold)
    return image.resize((size, size), Image.Resampling.BOX)


def favicon(sizes: tuple[int, ...] = (16, 32, 48)) -> bytes:
    """The icon in several sizes, as the bytes of an ICO file."""
    icons = [icon(size) for size in sorted(sizes, reverse=True)]
    file = io.BytesIO()
    icons[0].save(file, "ICO", sizes=[i.size for i in icons], append_images=icons[1:])
    return file.getvalue()


def _words(text: str, x: float, y: float) -> str:
    paths = []
    for letter in text:
        data, advance = LETTERS[letter]
        paths.append(f'<path transform="translate({x:g} {y:g})" d="{data}"/>\n')
        x += advance + SPACING
    return "".join(paths)


def _mirrored(page: tuple[tuple[Point, ...], ...]) -> tuple[tuple[Point, ...], ...]:
    return tuple(tuple((2 * GUTTER - x, y) for x, y in curve) for curve in page)


def _page(page: tuple[tuple[Point, ...], ...], colour: str) -> str:
    edges = "L".join(f"{_pair(edge[0])}C{' '.join(map(_pair, edge[1:]))}" for edge in page)
    paint = f'fill="{colour}" stroke="{colour}" stroke-width="{2 * ROUNDING:g}"'
    return f'<path {paint} d="M{edges}Z"/>\n'


def _pair(point: Point) -> str:
    return f"{point[0]:g} {point[1]:g}"


def _points(curve: tuple[Point, ...], steps: int = 60) -> list[Point]:
    """Points along a cubic Bézier curve."""
    shares = [i / steps for i in range(steps + 1)]
    weights = [[math.comb(3, k) * (1 - t) ** (3 - k) * t**k for k in range(4)] for t in shares]
    return [
        tuple(sum(w * point[axis] for w, point in zip(row, curve, strict=True)) for axis in (0, 1))
        for row in weights
    ]


def main() -> None:
    """Write both files."""
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / "logo.svg").write_text(logo(), encoding="utf-8")
    (IMAGES / "favicon.ico").write_bytes(favicon())


if __name__ == "__main__":
    main()
