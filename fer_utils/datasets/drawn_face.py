"""Faces drawn from parameters: who it is, what the facial muscles do, and how the camera sees it.

A face is a height field (dome, nose, cheeks, lips, wrinkles) and a map of how light its surface is (skin,
hair, brows, lips). Directional light on the first times the second gives the picture; eyes, teeth and hair
are laid over it. All lengths are in head units: 1 is half the width of the head, the origin lies between the
eyes, x points right and y down in the picture.

The expression is given as action units after the Facial Action Coding System (Ekman, Friesen and Hager,
2002), and the emotions as their combinations in the spirit of EMFACS.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image

Window = tuple[slice, slice]

HAIR = ("crop", "parted", "fringe", "long", "curly", "tied", "receding", "bob")
# How far hair stands off the head, and how wide and how low it falls behind it.
FULL = dict(zip(HAIR, (1.0, 1.15, 1.1, 1.1, 1.5, 0.6, 0.35, 1.1), strict=True))
BEHIND = {"long": (0.1, 2.7), "bob": (0.12, 1.35), "curly": (0.08, 1.0)}
MOUTH, CHIN = 0.84, 1.38  # heights of the closed mouth and of the chin
DENSITY = 36.0  # least pixels a head unit while drawing; below it lids would be too thin


@dataclass(frozen=True)
class ActionUnits:
    """How far each group of facial muscles is contracted, 0–1; the numbers are those of FACS."""

    au1: float = 0.0  # inner brow raised
    au2: float = 0.0  # outer brow raised
    au4: float = 0.0  # brows lowered and drawn together
    au5: float = 0.0  # upper lids raised
    au6: float = 0.0  # cheeks raised
    au7: float = 0.0  # lids tightened
    au9: float = 0.0  # nose wrinkled
    au10: float = 0.0  # upper lip raised
    au12: float = 0.0  # lip corners pulled up
    au14: float = 0.0  # one lip corner tightened and raised
    au15: float = 0.0  # lip corners pulled down
    au17: float = 0.0  # chin raised
    au20: float = 0.0  # lips stretched
    au23: float = 0.0  # lips tightened and pressed
    au25: float = 0.0  # lips parted
    au26: float = 0.0  # jaw dropped; at 1 the mouth is stretched open (AU27)
    au43: float = 0.0  # upper lids drooping

    def mixed(self, other: ActionUnits, share: float) -> ActionUnits:
        """Go a share of the way (0–1) to another expression."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return ActionUnits(*(a + share * (b - a) for a, b in zip(mine, theirs, strict=True)))

    def varied(self, rng: np.random.Generator, spread: float) -> ActionUnits:
        """Scale each unit by a random factor of mean 1, and contract all a little at random."""
        values = np.array(dataclasses.astuple(self))
        values = values * rng.normal(1, spread, len(values)) + np.abs(
            rng.normal(0, 0.15 * spread, len(values))
        )
        return ActionUnits(*np.clip(values, 0, 1).tolist())


NEUTRAL = ActionUnits()
# The ways in which people show each emotion; the first is the commonest.
PROTOTYPES: Mapping[str, tuple[ActionUnits, ...]] = MappingProxyType(
    {
        "angry": (
            ActionUnits(au4=1, au5=0.45, au7=0.6, au23=0.9, au17=0.5),
            ActionUnits(au4=1, au5=0.5, au7=0.6, au10=0.5, au25=0.7, au26=0.3, au20=0.1),
            ActionUnits(au4=0.9, au7=0.8, au23=0.8, au15=0.3),
        ),
        "disgust": (
            ActionUnits(au4=0.4, au6=0.3, au7=0.5, au9=1, au10=0.7, au17=0.6, au15=0.3),
            ActionUnits(au4=0.4, au7=0.5, au9=1, au10=1, au25=0.6, au26=0.15),
        ),
        "fear": (
            ActionUnits(au1=1, au2=0.5, au4=0.6, au5=0.9, au20=0.9, au25=0.6, au26=0.25),
            ActionUnits(au1=0.9, au2=0.4, au4=0.7, au5=1, au20=0.7, au25=0.3),
        ),
        "happy": (
            ActionUnits(au6=0.8, au12=1, au25=0.6, au26=0.1),
            ActionUnits(au6=0.6, au12=0.8),
            ActionUnits(au6=1, au12=1, au25=0.9, au26=0.45),
        ),
        "sad": (
            ActionUnits(au1=0.9, au4=0.5, au15=0.9, au17=0.5, au43=0.35),
            ActionUnits(au1=0.7, au4=0.3, au15=1, au43=0.5),
        ),
        "surprise": (
            ActionUnits(au1=0.9, au2=1, au5=0.8, au25=0.6, au26=0.9),
            ActionUnits(au1=0.8, au2=0.9, au5=0.6, au25=0.4, au26=0.45),
        ),
        "neutral": (NEUTRAL,),
        "contempt": (ActionUnits(au14=1, au2=0.15), ActionUnits(au14=0.9, au12=0.15, au7=0.2)),
    }
)


@dataclass(frozen=True)
class Identity:
    """What stays the same in all pictures of one person. Factors are about 1, shares 0–1, tones 0–1 grey."""

    length: float  # of the head, as a factor
    jaw: float  # exponent of the outline below the eyes: 2 is round, 3 is square
    taper: float  # how much narrower the head gets towards the chin
    skin: float  # tone
    age: float  # share of the depth of wrinkles
    hair: str  # one of HAIR
    hair_tone: float
    volume: float  # thickness of the hair above the head, in head units
    side: int  # of the parting and of the stronger half of the face, −1 or 1
    beard: float  # tone of beard and moustache against the skin, 0 for none
    glasses: bool
    brow: float  # thickness, as a factor
    brow_y: float  # resting height above the eyes
    brow_angle: float  # resting slope; positive is inner end low
    eye: float  # size, as a factor
    opening: float  # of the lids at rest, as a factor
    slant: float  # of the eyes; positive is outer corner high
    apart: float  # half the distance of the eyes
    iris: float  # tone
    nose: float  # width, as a factor
    nose_y: float  # height of the tip
    mouth: float  # half width
    lips: float  # fullness, as a factor
    corners: float  # resting height of the lip corners; positive is up
    lip_tone: float  # of lips against skin
    clothes: float  # tone
    texture: int  # seed of hair and skin grain

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Identity:
        """Draw a person at random."""
        skin = float(rng.choice([rng.uniform(0.62, 0.74), rng.uniform(0.5, 0.62), rng.uniform(0.34, 0.5)]))
        age = float(rng.beta(1.6, 2.4))
        hair = str(rng.choice(HAIR, p=[0.2, 0.17, 0.1, 0.15, 0.1, 0.1, 0.1 * age + 0.03, 0.15 - 0.1 * age]))
        dark = rng.uniform(0.06, 0.2)
        fair = rng.uniform(0.2, 0.55) if skin > 0.6 else dark
        short = hair in ("crop", "parted", "receding")
        return cls(
            length=rng.normal(1, 0.035),
            jaw=float(np.clip(rng.normal(2.45 if short else 2.2, 0.15), 2, 2.9)),
            taper=rng.uniform(0.03, 0.13) + (0 if short else 0.03),
            skin=skin,
            age=age,
            hair=hair,
            hair_tone=float(rng.choice([dark, fair]) * (1 - age**3) + 0.6 * age**3),
            volume=rng.uniform(0.08, 0.2),
            side=int(rng.choice([-1, 1])),
            beard=rng.uniform(0.1, 0.75) if short and rng.random() < 0.45 else 0.0,
            glasses=bool(rng.random() < 0.1),
            brow=rng.normal(1.1 if short else 0.85, 0.15),
            brow_y=rng.normal(0.31, 0.025),
            brow_angle=rng.normal(0, 0.02),
            eye=rng.normal(1.04, 0.05),
            opening=rng.normal(1, 0.1),
            slant=rng.normal(0.01, 0.02),
            apart=rng.normal(0.43, 0.018),
            iris=rng.uniform(0.08, 0.4) if skin > 0.6 else rng.uniform(0.06, 0.16),
            nose=rng.normal(1.08, 0.11) + 0.25 * (0.62 - skin),
            nose_y=rng.normal(0.5, 0.03),
            mouth=rng.normal(0.37, 0.022),
            lips=float(np.clip(rng.normal(1, 0.18) + 0.6 * (0.6 - skin), 0.6, 1.5)),
            corners=rng.normal(0, 0.018),
            lip_tone=rng.uniform(0.7, 0.85) if short else rng.uniform(0.55, 0.78),
            clothes=float(rng.choice([rng.uniform(0.08, 0.35), rng.uniform(0.45, 0.85)])),
            texture=int(rng.integers(2**31)),
        )


@dataclass(frozen=True)
class View:
    """Pose, frame and light of one picture.

    Attributes:
        roll: rotation in the picture plane, in radians.
        yaw: shift of the features to the right as the head turns, in head units; about −0.2 to 0.2.
        pitch: the same downwards.
        centre: the point of the head in the middle of the picture, (x, y).
        span: half the height of the picture, in head units.
        light: direction the light comes from, (x, y); (0, 0) is the camera.
        ambient: share of the light that comes from everywhere.
        background: tone, 0–1.
        clutter: contrast of blurred things in the background, 0–1.
    """

    roll: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    centre: tuple[float, float] = (0.0, 0.25)
    span: float = 2.0
    light: tuple[float, float] = (-0.35, -0.5)
    ambient: float = 0.45
    background: float = 0.6
    clutter: float = 0.0


def draw_face(identity: Identity, units: ActionUnits, view: View, shape: tuple[int, int]) -> np.ndarray:
    """Draw a person with an expression.

    Args:
        identity: the person.
        units: the expression, on top of the person's resting face.
        view: pose, frame and light.
        shape: height and width in pixels.

    Returns:
        uint8 (height, width), grey, 0–255.
    """
    over = max(1, math.ceil(DENSITY * 2 * view.span / shape[0]))
    picture = _Painter(identity, units, view, (shape[0] * over, shape[1] * over)).paint()
    pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return np.asarray(Image.fromarray(pixels).reduce(over))


def _fall(distance: np.ndarray, width: float) -> np.ndarray:
    """Bell curve of a distance: 1 at 0, 1/e at the width."""
    scaled = distance * (1 / width)
    return np.exp(-scaled * scaled)


def _step(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step: 0 up to `low`, 1 from `high`."""
    t = np.clip((value - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


class _Painter:
    """The canvas of one picture: coordinates, heights and tones, float32 (H, W)."""

    def __init__(self, identity: Identity, units: ActionUnits, view: View, shape: tuple[int, int]) -> None:
        self.who, self.au, self.view = identity, units, view
        self.shape, self.k = shape, shape[0] / (2 * view.span)
        self.cos, self.sin = math.cos(view.roll), math.sin(view.roll)
        column = (np.arange(shape[1], dtype=np.float32) + 0.5 - shape[1] / 2) / self.k
        row = ((np.arange(shape[0], dtype=np.float32) + 0.5 - shape[0] / 2) / self.k)[:, None]
        self.x = self.cos * column + self.sin * row + view.centre[0]
        self.y = self.cos * row - self.sin * column + view.centre[1]
        # A turned head: features move most where the head is nearest to the camera, its outline stays.
        depth = np.sqrt(np.clip(1.05 - self.x**2 - (0.62 * self.y) ** 2, 0, None))
        self.u, self.v = self.x - view.yaw * depth, self.y - view.pitch * depth
        self.jaw = 0.34 * units.au26
        self.rng = np.random.default_rng(identity.texture)

    # Tools: where on the canvas, and what shape.

    def at(self, x: float, y: float, reach: float) -> Window:
        """The part of the canvas within a reach around a point of the face."""
        depth = math.sqrt(max(0.0, 1.05 - x**2 - (0.62 * y) ** 2))
        x, y = (
            x + self.view.yaw * depth - self.view.centre[0],
            y + self.view.pitch * depth - self.view.centre[1],
        )
        middle = (self.sin * x + self.cos * y, self.cos * x - self.sin * y)
        slices = []
        for place, size in zip(middle, self.shape, strict=True):
            first = int((place - reach * 1.15) * self.k + size / 2)
            last = int((place + reach * 1.15) * self.k + size / 2) + 2
            slices.append(slice(min(max(first, 0), size), min(max(last, 0), size)))
        return slices[0], slices[1]

    def edge(self, distance: np.ndarray) -> np.ndarray:
        """Share of each pixel that is covered, of the distance to an edge in head units (inside > 0)."""
        return np.clip(distance * self.k + 0.5, 0, 1)

    def bump(self, x: float, y: float, width: float, height: float, lift: float) -> None:
        """Raise the height field (or lower it) in the form of a bell."""
        win = self.at(x, y, 2 * max(width, height))
        u, v = (self.u[win] - x) * (1 / width), (self.v[win] - y) * (1 / height)
        self.z[win] += lift * np.exp(-u * u - v * v)

    def stroke(
        self, start: tuple[float, float], end: tuple[float, float], bend: float, width: float
    ) -> tuple[Window, np.ndarray]:
        """A soft line along an arc, which is `bend` to the left of the straight way at its middle."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        length = math.hypot(dx, dy)
        reach = length / 2 + abs(bend) + 2 * width
        win = self.at((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, reach)
        u, v = self.u[win] - start[0], self.v[win] - start[1]
        t = (u * dx + v * dy) / length**2
        across = (v * dx - u * dy) / length + bend * 4 * t * (1 - t)
        return win, _fall(across, width) * _step(np.minimum(t, 1 - t), 0, 0.4)

    def wrinkle(
        self, start: tuple[float, float], end: tuple[float, float], bend: float, width: float, depth: float
    ) -> None:
        """A furrow in the skin: lower, and a little darker."""
        if depth < 0.003:
            return
        win, line = self.stroke(start, end, bend, width)
        self.z[win] -= depth * line
        self.tone[win] *= 1 - min(4 * depth, 0.22) * line

    def mix(self, win: Window, tone: np.ndarray | float, cover: np.ndarray) -> None:
        """Lay a tone over the picture."""
        self.out[win] += cover * (tone - self.out[win])

    # The picture, from the back to the front.

    def paint(self) -> np.ndarray:
        """Draw everything: float32 (H, W), 0–1 and possibly a little beyond."""
        all_ = np.s_[:, :]
        self.outline()
        self.out = self.background()
        grain = self.strands()
        self.ears()
        if self.who.hair in BEHIND:
            self.back_hair(grain)
        self.body()
        self.z = 0.85 * np.sqrt(np.clip(1.12 - (self.x / 1.06) ** 2 - (self.y / 1.62) ** 2, 0.01, None))
        self.tone = np.full(self.shape, self.who.skin, np.float32)
        self.relief()
        self.brow_wrinkles()
        mouth = self.lips()
        self.beard()
        self.brows()
        self.mix(all_, self.lit(), self.edge(self.inside))
        for side in (-1, 1):
            self.eye(side)
        self.open_mouth(*mouth)
        self.front_hair(grain)
        if self.who.glasses:
            self.spectacles()
        return self.out

    def outline(self) -> None:
        """Distance to the outline of the head, inside > 0."""
        who = self.who
        low = self.y > 0
        height = np.where(low, CHIN * who.length + 0.75 * self.jaw, 1.42 * who.length).astype(np.float32)
        drop = np.clip(self.y / height, 0, 1)
        x = np.abs(self.x) / (1 - who.taper * drop)
        power = np.where(low, who.jaw, 2.15).astype(np.float32)
        self.radius = (x**power + np.abs(self.y / height) ** power) ** (1 / power)
        self.inside = (1 - self.radius) * (0.98 + 0.25 * drop)

    def background(self) -> np.ndarray:
        view = self.view
        tone = view.background + 0.06 * view.light[0] * self.x - 0.05 * self.y
        if view.clutter:
            coarse = (self.rng.random((5, 5)) * 255).astype(np.uint8)
            big = Image.fromarray(coarse).resize(self.shape[::-1], Image.Resampling.BICUBIC)
            tone = tone + view.clutter * (np.asarray(big, np.float32) / 255 - 0.5)
        return tone.astype(np.float32)

    def strands(self) -> np.ndarray:
        """Tone of the hair: strands that run from the crown, and a sheen."""
        who = self.who
        crown = {"crop": -2.6, "receding": -2.6, "tied": -3.2, "curly": -2.0}.get(who.hair, -1.55)
        side = 0.3 * who.side if who.hair in ("parted", "long", "bob") else 0.0
        angle = np.arctan2(self.x - side, self.y - crown)
        wave = 0.02 * np.sin(5 * self.y + 2 * self.x)
        if who.hair == "curly":
            wave = 0.09 * np.sin(13 * self.y + 5 * self.x) + 0.07 * np.sin(21 * self.x - 9 * self.y)
        table = self.rng.normal(0, 1, 256).astype(np.float32)
        table = np.repeat(table, 4) * 0.7 + self.rng.normal(0, 0.6, 1024).astype(np.float32)
        fine = table[((angle + wave) * (-36 * crown)).astype(np.int32) % 1024]
        sheen = _fall(self.radius - 0.9, 0.16) * _step(-self.y, 0.1, 0.9)
        light = 1 + 0.4 * self.view.light[0] * self.x - 0.3 * self.view.light[1] * np.clip(-self.y - 0.4, -0.5, 1)
        return who.hair_tone * light * (1 + 0.13 * fine) + 0.07 * sheen * (1 + 0.4 * fine)

    def back_hair(self, grain: np.ndarray) -> None:
        """Hair that falls behind the head."""
        who, top = self.who, self.hair_depth()
        spread, height = BEHIND[who.hair]
        half = float(1.015 + 0.47 * FULL[who.hair] * who.volume) + spread * _step(self.y, 0, 0.8)
        x, y = (self.x / half) ** 2, (self.y / (height + who.volume)) ** 2
        falling = np.sqrt(np.sqrt(x * x + y * y))
        size = np.where(self.y < 0, self.radius / top, falling)
        if who.hair == "curly":
            size += 0.02 * np.sin(17 * np.arctan2(self.x, self.y))
        self.mix(np.s_[:, :], 0.72 * grain * (1 - 0.3 * _fall(1 - size, 0.06)), self.edge(1.1 * (1 - size)))

    def hair_depth(self) -> np.ndarray:
        """How far the hair reaches, as a factor of the outline of the head."""
        return 1.015 + FULL[self.who.hair] * self.who.volume * _step(-self.y, -0.5, 0.6)

    def body(self) -> None:
        """Neck, shoulders and clothes."""
        who, light = self.who, self.view.light[0]
        win = np.s_[self.at(0, 0.9, 0.3)[0].start :, :]
        x, y = self.x[win], self.y[win]
        ax, chin = np.abs(x), CHIN * who.length
        width = 0.5 + 0.1 * (who.jaw - 2) + 0.35 * _step(y, chin, chin + 0.95) ** 2
        shade = 0.72 - 0.3 * _fall(y - chin - 0.75 * self.jaw, 0.28)
        neck = who.skin * shade * (1.25 - 1.1 * x * x + 0.4 * light * x)
        self.mix(win, np.clip(neck, 0.02, 1), self.edge(np.minimum(width - ax, y - 0.6)))
        collar = chin + 0.34 + 0.32 * np.clip(ax - 0.5, 0, None) + 0.35 * np.clip(1 - 2.6 * x * x, 0, None)
        cloth = who.clothes * (1.24 + 0.2 * light * x - 0.12 * y + 0.05 * np.sin(9 * x))
        cloth *= 1 - 0.25 * _fall(y - collar - 0.05, 0.025) * (ax < 0.62)
        self.mix(win, cloth, self.edge(y - collar))

    def ears(self) -> None:
        who = self.who
        for side in (-1, 1):
            x = side * 1.0
            win = self.at(x, 0.16, 0.45)
            u, v = (self.x[win] - x) * side, self.y[win] - 0.14
            lean = u - 0.12 * v * -1
            distance = (1 - np.sqrt((lean / 0.15) ** 2 + (v / 0.29) ** 2)) * 0.15
            light = 0.82 + 0.35 * self.view.light[0] * side
            inner = 1 - 0.35 * _fall(lean - 0.02, 0.07) * _fall(v, 0.17)
            self.mix(win, np.clip(who.skin * light, 0, 1) * inner, self.edge(distance))

    def relief(self) -> None:
        """Nose, sockets, cheeks and chin, and what the expression does to them."""
        who, au = self.who, self.au
        smile = max(au.au12, 0.8 * au.au6)
        cheek = max(smile, 0.8 * au.au9)
        tip = who.nose_y - 0.05 * au.au9
        win = self.at(0, 0.2, 0.75)
        u, v = self.u[win], self.v[win]
        # The nose comes nearer to the camera than the face does, so a turned head moves it further.
        u = u - 0.5 * self.view.yaw * _step(v, -0.2, tip)
        rise = _step(v, -0.3, tip) * _step(-v, -tip - 0.2, -tip + 0.03)
        self.z[win] += 0.23 * rise * _fall(u, (0.12 + 0.06 * _step(v, 0.0, tip)) * who.nose)
        self.nose_x = 0.5 * self.view.yaw
        self.bump(self.nose_x, tip, 0.11 * who.nose, 0.1, 0.065)
        wing = 0.175 * who.nose * (1 + 0.12 * au.au9 + 0.08 * au.au12)
        for side in (-1, 1):
            self.bump(self.nose_x + side * wing, tip + 0.03, 0.07 * who.nose, 0.075, 0.06)
            self.bump(side * who.apart, 0.0, 0.23, 0.15, -0.1)
            self.bump(side * who.apart, 0.0, 0.16, 0.12, 0.07)
            self.bump(side * 0.42, -who.brow_y + 0.02, 0.26, 0.1, 0.035)
            self.bump(side * (0.56 + 0.03 * cheek), 0.42 - 0.1 * cheek, 0.22, 0.16, 0.05 + 0.075 * cheek)
            self.bump(side * 0.62, 0.85, 0.16, 0.2, -0.03)
            # The fold from the nose to the lip corner, the bag below the eye, crow's feet.
            corner = (side * (who.mouth + 0.13 + 0.08 * smile + 0.05 * au.au20), MOUTH - 0.06 - 0.05 * smile)
            depth = 0.004 + 0.018 * who.age + 0.03 * smile + 0.022 * au.au9 + 0.02 * au.au10 + 0.006 * au.au15
            self.wrinkle((side * wing * 1.25, tip + 0.0), corner, -0.06 * side, 0.045, depth)
            bag = 0.003 + 0.012 * who.age + 0.014 * au.au6 + 0.01 * au.au7
            inner, outer = (side * (who.apart - 0.21), 0.1), (side * (who.apart + 0.2), 0.09)
            self.wrinkle(inner, outer, -0.06 * side, 0.035, bag)
            for angle in (-0.07, 0.0, 0.08):
                depth = (0.2 + who.age) * 0.014 * au.au6
                start = (side * (who.apart + 0.27), 0.02 + angle * 0.4)
                self.wrinkle(start, (side * (who.apart + 0.45), 0.02 + angle * 1.7), 0.01, 0.014, depth)
            depth = 0.009 * au.au15 + 0.008 * who.age
            start = (side * (who.mouth + 0.04), MOUTH + 0.08)
            self.wrinkle(start, (side * (who.mouth + 0.1), MOUTH + 0.28), 0.03 * side, 0.04, depth)
        chin = CHIN * who.length - 0.2 + 0.75 * self.jaw
        self.bump(0, MOUTH + 0.02, 0.36, 0.24, 0.06)
        self.bump(0, chin, 0.2, 0.15, 0.07 + 0.04 * au.au17)
        self.bump(0, chin - 0.2, 0.2, 0.06, -0.035 - 0.03 * au.au17)
        # Soft shadows below the nose and in the sockets, and the nostrils.
        win = self.at(0, tip + 0.15, 0.5)
        u, v = self.u[win] - self.nose_x, self.v[win]
        shadow = _fall(u + 0.12 * self.view.light[0], 0.2 * who.nose) * _fall(v - tip - 0.15, 0.06)
        self.tone[win] *= 1 - 0.2 * shadow
        for side in (-1, 1):
            hole = _fall(u - side * 0.085 * who.nose, 0.05 * who.nose) * _fall(v - tip - 0.095, 0.026)
            self.tone[win] *= 1 - 0.75 * hole
            crease = _fall(np.hypot(u - side * wing * 0.9, (v - tip - 0.02)) - 0.09, 0.02)
            outer = _step((u * side - wing * 0.85), 0, 0.08)
            self.tone[win] *= 1 - 0.25 * crease * outer
        for side in (-1, 1):
            win = self.at(side * who.apart, -0.05, 0.5)
            u, v = self.u[win], self.v[win]
            socket = _fall(u - side * (who.apart - 0.08), 0.25) * _fall(v + 0.06, 0.15)
            self.tone[win] *= 1 - 0.16 * socket
        for side in (-1, 1):
            self.wrinkle((side * 0.05, -0.06), (side * 0.16, 0.06), 0.0, 0.022, 0.014 * au.au9)
            self.wrinkle((side * 0.09, 0.07), (side * 0.19, 0.2), 0.0, 0.022, 0.014 * au.au9)

    def brow_wrinkles(self) -> None:
        who, au = self.who, self.au
        lift = max(au.au1, au.au2)
        for row in range(3):
            y = -0.58 - 0.15 * row
            depth = (0.3 + who.age) * 0.012 * lift + 0.004 * who.age
            half = 0.5 if au.au2 > 0.3 else 0.28
            self.wrinkle(
                (-half, y + 0.02), (half, y + 0.02), 0.05 - 0.07 * (au.au1 > au.au2 + 0.2), 0.022, depth
            )
        for side in (-1, 1):
            x = side * (0.1 - 0.02 * au.au4)
            self.wrinkle((x, -0.42), (x * 0.75, -0.2), 0.0, 0.03, 0.021 * au.au4 + 0.005 * who.age)

    def brows(self) -> None:
        """Eyebrows: a thick arc from the inner to the outer end, raised and lowered by AU 1, 2 and 4."""
        who, au = self.who, self.au
        tone = min(who.hair_tone, 0.45) * 0.6 + 0.04
        for side in (-1, 1):
            more = 1 + 0.12 * side * who.side
            inner_y = -who.brow_y + who.brow_angle + more * (0.17 * au.au4 + 0.07 * au.au9 - 0.17 * au.au1)
            outer_y = (
                -who.brow_y - 0.0 - who.brow_angle + more * (0.02 * au.au4 - 0.17 * au.au2 + 0.03 * au.au1)
            )
            arch = 0.065 + 0.05 * au.au2 - 0.03 * au.au4 - 0.02 * au.au1
            inner = (side * (who.apart - 0.24 - 0.06 * au.au4), inner_y)
            outer = (side * (who.apart + 0.3), outer_y + 0.03)
            dx, dy = outer[0] - inner[0], outer[1] - inner[1]
            win = self.at((inner[0] + outer[0]) / 2, (inner_y + outer_y) / 2, 0.5)
            u, v = self.u[win] - inner[0], self.v[win] - inner[1]
            length = math.hypot(dx, dy)
            t = (u * dx + v * dy) / length**2
            # The arch is highest two thirds of the way out.
            bow = arch * np.sin(np.pi * np.clip(t, 0, 1) ** 1.35)
            across = (v * dx - u * dy) / length * side + bow
            thick = 0.052 * who.brow * (1 - 0.75 * np.clip(t, 0, 1) ** 2) * _step(t, -0.25, 0.2)
            hairs = 0.88 + 0.12 * np.sin(u * 130 + v * 90 + 3 * np.sin(u * 37))
            soft = np.clip((thick - np.abs(across)) * (1 / 0.03) + 0.35, 0, 1)
            cover = soft * _step(t, -0.06, 0.1) * _step(-t, -1.05, -0.85) * hairs
            self.tone[win] += 0.88 * cover * (tone - self.tone[win])
            self.z[win] += 0.008 * cover

    def lips(self) -> tuple[Window, np.ndarray, np.ndarray, np.ndarray]:
        """Lips; gives the window of the mouth and, in it, place along the lips, upper and lower inner edge."""
        who, au = self.who, self.au
        half = who.mouth * (
            1 + 0.24 * au.au12 + 0.24 * au.au20 - 0.14 * au.au23 - 0.3 * au.au26 * (1 - au.au12)
        )
        half *= 1 - 0.06 * au.au17
        press = 1 - 0.55 * au.au23 - 0.25 * au.au20
        parted = 0.11 * au.au25 * (1 + 0.5 * au.au12) + 0.78 * self.jaw
        up = 0.3 * parted + 0.05 * au.au10 + 0.04 * au.au9
        low = parted - 0.3 * parted - 0.015 * au.au17
        open_ = parted > 0.02
        middle = MOUTH + 0.03 * au.au12 - 0.05 * au.au17 - 0.03 * au.au10 - 0.02 * au.au9 + 0.1 * self.jaw
        win = self.at(0, middle + 0.1, 0.75)
        u, v = self.u[win], self.v[win]
        t = np.clip(u * (1 / half), -1.15, 1.15)
        square = np.clip(1 - t * t, 0, 1)
        lift = 0.17 * au.au12 - 0.12 * au.au15 - 0.03 * au.au20 + who.corners
        one = 0.13 * au.au14 * np.clip(t * who.side, 0, 1) ** 2
        base = middle - lift * np.abs(t) ** 1.8 * (1 + 0.08 * who.side * t) - one
        dip = 0.012 * _fall(t, 0.25) * (1 - au.au25)
        upper = base - (up if open_ else 0) * square**0.7 + dip
        lower = base + (low if open_ else 0) * square**0.6 + dip
        bow = 1 - 0.3 * _fall(t, 0.16) * (1 - 0.7 * au.au12)
        top = upper - 0.085 * who.lips * press * (1 - 0.25 * au.au12) * square**0.8 * bow
        bottom = lower + 0.115 * who.lips * press * (1 - 0.15 * au.au12) * square**0.65
        along = self.edge((1 - np.abs(t)) * half)
        upper_lip = self.edge(v - top) * self.edge(upper - v) * along
        lower_lip = self.edge(v - lower) * self.edge(bottom - v) * along
        self.z[win] += square * (0.03 * _fall(v - top, 0.07) + 0.06 * _fall(v - (lower + bottom) / 2, 0.06))
        self.tone[win] *= 1 - (1 - who.lip_tone) * (upper_lip + 0.8 * lower_lip)
        # The dark line between the lips, the dimples at their ends, the shadow below the lower lip.
        line = _fall(v - (upper + lower) / 2, 0.018) * _step(1.08 - np.abs(t), 0, 0.3)
        if not open_:
            self.tone[win] *= 1 - 0.62 * line
        ends = _fall(np.abs(u) / half - 1.03, 0.1) * _fall(v - base, 0.035)
        self.tone[win] *= 1 - (0.3 + 0.15 * au.au12) * ends
        self.tone[win] *= 1 - 0.16 * _fall(v - bottom - 0.06, 0.045) * square
        philtrum = (
            _fall(u, 0.035) * _step(v, who.nose_y + 0.12, who.nose_y + 0.2) * _step(top - v, -0.02, 0.05)
        )
        self.tone[win] *= 1 - 0.09 * philtrum
        return win, t, upper, lower

    def open_mouth(self, win: Window, t: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> None:
        """Teeth and the dark behind them."""
        u, v = self.u[win], self.v[win]
        gap = self.edge(v - upper) * self.edge(lower - v) * self.edge((1 - np.abs(t)) * self.who.mouth)
        wide = float((lower - upper).max())
        if wide < 0.02:
            return
        light = (0.55 + 0.2 * self.who.skin) * (1 - 0.55 * t * t)
        between = 1 - 0.14 * _fall((u * 11) % 1 - 0.5, 0.12)
        teeth = min(0.1, 0.85 * wide) + 0.03 * self.au.au12 + 0.02 * self.au.au10 - 0.05 * self.au.au26
        show = self.edge(upper + max(teeth, 0.03) * (1 - 0.3 * t * t) - v)
        bottom_teeth = self.edge(v - lower + 0.07 * (self.au.au20 + self.au.au10)) * (self.au.au12 < 0.4)
        dark = 0.06 + 0.1 * _fall(v - lower, 0.12)
        tone = dark + np.maximum(show, bottom_teeth) * (light * between * 1.08 - dark)
        shade = 1 - 0.45 * _fall(v - upper, 0.035)
        self.mix(win, tone * shade, gap)

    def lit(self) -> np.ndarray:
        """Light on the height field times the tone of the surface."""
        z, k, view = self.z, self.k, self.view
        right, down = np.zeros_like(z), np.zeros_like(z)
        right[:, 1:-1] = (z[:, 2:] - z[:, :-2]) * (k / 2)
        down[1:-1] = (z[2:] - z[:-2]) * (k / 2)
        lx, ly = view.light
        strength = 1 / math.sqrt(1 + lx * lx + ly * ly)
        facing = 1 / np.sqrt(1 + right * right + down * down)
        direct = np.clip((1 - right * lx - down * ly) * facing * strength, 0, None)
        glint = direct * direct
        glint *= glint
        shine = 0.09 * (glint * glint) * (glint * glint)
        rim = 0.8 + 0.2 * facing
        return self.tone * rim * (view.ambient + (1.16 - view.ambient) * direct) + shine

    def eye(self, side: int) -> None:
        """Eyeball between the lids, with iris, pupil, highlight, lashes and the crease of the upper lid."""
        who, au = self.who, self.au
        half = 0.215 * who.eye
        more = 1 + 0.06 * side * who.side
        lid = (
            0.088
            * who.opening
            * (1 + 0.75 * au.au5 - 0.25 * au.au6 - 0.3 * au.au7 - 0.5 * au.au43 - 0.25 * au.au9)
        )
        low = 0.062 * who.eye * (1 + 0.25 * au.au5 - 0.75 * au.au6 - 0.55 * au.au7 - 0.3 * au.au9)
        lid *= more * (1 - 0.12 * au.au4)
        win = self.at(side * who.apart, 0, 0.42)
        t = (self.u[win] - side * who.apart) * (side / half)
        v = self.v[win] + 0.5 * (who.slant - 0.02 * au.au1) * t
        square = np.clip(1 - t * t, 0, 1)
        # The upper lid is highest inside the middle; sadness lifts the inner corner's side.
        upper = -lid * square**0.72 * (1 - 0.16 * t - 0.15 * t * au.au1) + 0.012
        lower = low * square**0.8 * (1 + 0.15 * t) + 0.012
        inside = self.edge(v - upper) * self.edge(lower - v) * self.edge((1 - np.abs(t)) * half)
        level = float(np.clip(0.5 * self.out[win].mean() / max(who.skin, 0.2) + 0.55, 0.6, 1.1))
        ball = (0.8 - 0.3 * t**4 - 0.08 * t * t) * level
        ball = ball * (1 - 0.4 * _fall(v - upper, 0.03))
        # The iris hangs on the ball's middle, whatever the lids do, and looks at the camera.
        ix, iy = t * half - side * 0.25 * self.view.yaw, v + 0.004
        r = np.hypot(ix, iy)
        size = 0.092
        ring = who.iris + 0.1 * _step(r, 0.04, 0.075) * float(who.iris > 0.15) - 0.12 * _step(r, 0.07, size)
        iris = np.clip(ring + 0.07 * _step(iy, -0.02, 0.08), 0.03, 1) * level
        ball += self.edge(size - r) * (iris - ball)
        ball += self.edge(0.04 - r) * (0.03 - ball)
        gx, gy = math.copysign(0.03, self.view.light[0]) * side, -0.035
        ball += 0.9 * self.edge(0.019 - np.hypot(ix - gx, iy - gy)) * (1 - ball)
        self.mix(win, ball, inside)
        fade = self.edge((1.08 - np.abs(t)) * half)
        lash = 0.018 + 0.008 * (who.beard == 0)
        line = _fall(v - upper + 0.005, lash) * _step(t, -1.1, -0.5) * fade
        self.mix(win, 0.06, 0.85 * line)
        self.mix(win, 0.5 * who.skin, 0.45 * _fall(v - lower - 0.005, 0.013) * fade)
        crease = upper - 0.055 - 0.02 * (1 - t * t) + 0.02 * au.au5 + 0.02 * who.age
        self.mix(
            win,
            0.5 * who.skin,
            0.55 * _fall(v - crease, 0.016) * self.edge((1.0 - np.abs(t)) * half) * square**0.5,
        )

    def beard(self) -> None:
        who = self.who
        if not who.beard:
            return
        middle = MOUTH + 0.45 * self.jaw
        ring = np.hypot(self.u / 1.05, (self.v - 0.35) / 0.95)
        cheeks = _step(ring, 0.62, 0.82) * _step(self.v, 0.2, 0.75)
        lip = _fall(self.v - (who.nose_y + 0.22 - 0.03 * self.au.au12), 0.05) * _fall(self.u, 0.33)
        chin = _step(self.v, middle + 0.2, middle + 0.34)
        cover = np.clip(np.maximum(np.maximum(cheeks, lip * 1.1), chin), 0, 1)
        grain = self.rng.normal(1, 0.12, self.shape).astype(np.float32)
        self.tone += who.beard * 0.85 * cover * (who.hair_tone * 0.8 * grain - self.tone)

    def front_hair(self, grain: np.ndarray) -> None:
        """Hair over the forehead and the sides of the head."""
        who, style = self.who, self.who.hair
        x, y = self.x, self.y
        ax = np.abs(x)
        part = x - 0.3 * who.side
        temple = np.clip(ax * 1.7 - 0.72, 0, 1.1)
        temple = temple * temple * temple
        sweep = np.abs(part)
        sweep = sweep * np.sqrt(sweep)
        if style in ("long", "bob"):
            line = -1.1 + 0.5 * sweep + 2.6 * _step(ax, 0.7, 1.04)
        elif style == "parted":
            line = -1.02 + 0.3 * np.clip(-part * who.side, 0, None) + temple
        elif style == "fringe":
            line = -0.5 - 0.1 * who.side * x + 0.015 * np.sin(17 * x) + 0.8 * temple
        elif style == "curly":
            line = -0.84 + 0.04 * np.sin(14 * x) + 1.1 * temple
        elif style == "receding":
            line = -1.25 - 0.1 * np.cos(4 * x) + 1.5 * temple
        else:
            line = (-0.9 if style == "crop" else -1.0) + 0.1 * x * x + temple
        depth = self.hair_depth()
        if style == "curly":
            depth = depth + 0.035 * np.sin(11 * np.arctan2(x, -y)) + 0.02 * np.sin(23 * np.arctan2(x, y))
        shell = (depth - self.radius) * 0.95
        low = {"long": 1.2, "bob": 1.0, "curly": 0.2, "fringe": 0.1}.get(style, 0.0)
        # Where the hairline runs down at the temples, the hair ends: in front of the ear, or not at all.
        ends = np.minimum(line, low) - y
        cover = np.clip(np.minimum(shell * self.k, ends * 13) + 0.5, 0, 1)
        win = np.s_[:, :]
        shadow = 0.3 * _fall(np.clip(y - line, 0, None), 0.09) * self.edge(self.inside) * (1 - cover)
        self.out *= 1 - shadow * (style != "receding")
        self.mix(win, grain * (1 - 0.25 * _fall(ends, 0.06)) * (1 - 0.4 * _fall(shell, 0.06)), cover)
        if style == "tied":
            knot = (1 - np.hypot(x / 0.42, (y + 1.62 * who.length) / 0.3)) * 0.3
            self.mix(win, grain * 0.95, self.edge(knot) * (self.radius > 1.0 + 0.5 * who.volume))

    def spectacles(self) -> None:
        win = self.at(0, 0.03, 1.2)
        u, v = self.u[win], self.v[win]
        x = np.abs(u) - self.who.apart
        r = ((np.abs(x) / 0.31) ** 3 + (np.abs(v - 0.04) / 0.24) ** 3) ** (1 / 3)
        rim = _fall((r - 1) * 0.27, 0.022)
        bridge = _fall(v + 0.02 + 0.3 * u * u, 0.02) * (x < -0.29)
        arm = _fall(v + 0.03, 0.02) * (x > 0.31) * (np.abs(self.x[win]) < 1.0)
        self.mix(win, 0.12, 0.85 * np.maximum(np.maximum(rim, bridge), arm))
