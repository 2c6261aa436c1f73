"""Boxes, answers and bars drawn on a picture."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_utils.emotions import CLASSES
from fer_utils.faces import Box
from fer_utils.prediction import Face

BEST, OTHER, TEXT, GROUND = (255, 176, 0), (140, 170, 205), (255, 255, 255), (20, 24, 32)
COVER = 0.72  # how much of the picture a panel hides


def annotate(pixels: np.ndarray, faces: Sequence[Face], numbers: Sequence[int] | None = None) -> np.ndarray:
    """Draw a box around each face, and beside it the answer and a bar for each of the six probabilities.

    Takes uint8 (H, W, 3), RGB, and gives a new one; boxes are in its pixels. Numbers, of tracks in a video,
    stand before the answers. Letters are as large as the face and the picture allow. Each panel stands inside
    the picture where it hides least of the faces and of other panels.
    """
    image = Image.fromarray(pixels)
    draw, longer = ImageDraw.Draw(image), max(image.size)
    line = max(1, round(longer / 400))
    for face in faces:
        for colour, outset in ((GROUND, line), (BEST, 0)):
            left, top, right, bottom = (round(edge) for edge in face.box)
            draw.rectangle((left - outset, top - outset, right + outset, bottom + outset), None, colour, line)
    taken = [face.box for face in faces]
    least = max(11, longer / 90)
    for place, face in enumerate(faces):
        title = f"{face.emotion} {face.probabilities.max():.0%}"
        title = title if numbers is None else f"{numbers[place]} · {title}"
        full = min(max((face.box[3] - face.box[1]) / 9, least), longer / 40)
        for size in (full, (full + least) / 2, least):  # smaller letters where there is no room
            panel = _panel(face, title, round(size))
            spot, hidden = _spot(face.box, panel.size, image.size, taken, 2 * line)
            if not hidden:
                break
        image.paste(panel.convert("RGB"), spot, panel.getchannel("A"))
        taken.append((*spot, spot[0] + panel.width, spot[1] + panel.height))
    return np.asarray(image)


def _panel(face: Face, title: str, size: int) -> Image.Image:
    """The answer and six bars, RGBA, in letters of a size in pixels."""
    font, small = _font(size), _font(max(9, round(0.8 * size)))
    row, edge = round(1.25 * small.size), round(0.35 * size)
    names = max(small.getlength(name) for name in CLASSES)
    width = round(max(names + 3.5 * size + 3 * edge, font.getlength(title) + 2 * edge))
    head = round(1.35 * size)
    panel = Image.new("RGBA", (width, head + row * len(CLASSES) + edge), (*GROUND, round(255 * COVER)))
    draw = ImageDraw.Draw(panel)
    draw.text((edge, head / 2), title, (*BEST, 255), font, "lm")
    start = 2 * edge + names
    for number, (name, chance) in enumerate(zip(CLASSES, face.probabilities, strict=True)):
        middle = head + (number + 0.5) * row
        colour = BEST if name == face.emotion else OTHER
        draw.text((edge, middle), name, (*TEXT, 255), small, "lm")
        end = start + float(chance) * (width - edge - start)
        draw.rectangle((start, middle - 0.3 * row, end, middle + 0.3 * row), (*colour, 255))
    return panel


_font = lru_cache(ImageFont.load_default)


def _spot(
    box: Box, panel: tuple[int, int], picture: tuple[int, int], taken: Sequence[Box], gap: int
) -> tuple[tuple[int, int], float]:
    """Where a panel hides least, and how much: right of the box, left of it, below or above it."""
    left, top, right, bottom = box
    wide, high = panel
    beside = (right + gap, top), (left - gap - wide, top), (left, bottom + gap), (left, top - gap - high)
    last_x, last_y = max(picture[0] - wide, 0), max(picture[1] - high, 0)
    spots = [(round(min(max(x, 0), last_x)), round(min(max(y, 0), last_y))) for x, y in beside]
    hidden = [sum(shared_area((x, y, x + wide, y + high), other) for other in taken) for x, y in spots]
    return spots[int(np.argmin(hidden))], min(hidden)


def shared_area(first: Box, second: Box) -> float:
    """Area that two boxes share, in pixels."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    return max(wide, 0) * max(high, 0)
