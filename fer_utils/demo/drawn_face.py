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
Point = tuple[float, float]

ALL: Window = np.s_[:, :]

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
    """Pose, frame and light of one picture."""

    roll: float = 0.0  # rotation in the picture plane, in radians
    yaw: float = 0.0  # shift of the features to the right as the head turns, about −0.2 to 0.2 head units
    pitch: float = 0.0  # the same downwards
    centre: Point = (0.0, 0.25)  # the point of the head in the middle of the picture
    span: float = 2.0  # half the height of the picture, in head units
    light: Point = (-0.35, -0.5)  # where the light comes from; (0, 0) is the camera
    ambient: float = 0.45  # share of the light that comes from everywhere
    background: float = 0.6  # tone, 0–1
    clutter: float = 0.0  # contrast of blurred things in the background, 0–1


def draw_face(identity: Identity, units: ActionUnits, view: View, shape: tuple[int, int]) -> np.ndarray:
    """Draw a person with an expression on top of the resting face: uint8 of `shape` (H, W), grey, 0–255."""
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
    t = np.minimum(np.maximum((value - low) * (1 / (high - low)), 0), 1)
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
        depth = np.sqrt(np.maximum(1.05 - self.x * self.x - 0.38 * self.y * self.y, 0))
        self.u, self.v = self.x - view.yaw * depth, self.y - view.pitch * depth
        self.m = np.abs(self.u)  # the halves of a face are drawn as one, mirrored
        self.jaw = 0.34 * units.au26
        self.rng = np.random.default_rng(identity.texture)

    # Tools: where on the canvas, and what shape.

    def at(self, left: float, top: float, right: float, bottom: float) -> Window:
        """The part of the canvas that holds a box of the face."""
        x, y = (left + right) / 2, (top + bottom) / 2
        depth = math.sqrt(max(0.0, 1.05 - x * x - 0.38 * y * y))
        x += self.view.yaw * depth - self.view.centre[0]
        y += self.view.pitch * depth - self.view.centre[1]
        cos, sin = self.cos, abs(self.sin)
        # Near the outline a turn moves the face less than in the middle of the box.
        wide = (right - left) / 2 + 0.05 + abs(self.view.yaw)
        high = (bottom - top) / 2 + 0.05 + abs(self.view.pitch)
        return (
            self._span(self.sin * x + cos * y, cos * high + sin * wide, self.shape[0]),
            self._span(cos * x - self.sin * y, cos * wide + sin * high, self.shape[1]),
        )

    def _span(self, middle: float, reach: float, size: int) -> slice:
        first = int((middle - reach) * self.k + size / 2)
        last = int((middle + reach) * self.k + size / 2) + 2
        return slice(min(max(first, 0), size), min(max(last, 0), size))

    def edge(self, distance: np.ndarray) -> np.ndarray:
        """Share of each pixel that is covered, of the distance to an edge in head units (inside > 0)."""
        return np.minimum(np.maximum(distance * self.k + 0.5, 0), 1)

    def bump(self, x: float, y: float, width: float, height: float, lift: float) -> None:
        """Raise the height field (or lower it) in the form of a bell, on both halves of the face."""
        win = self.at(-x - 2 * width, y - 2 * height, x + 2 * width, y + 2 * height)
        u, v = (self.m[win] - x) * (1 / width), (self.v[win] - y) * (1 / height)
        self.z[win] += lift * np.exp(-u * u - v * v)

    def wrinkle(self, start: Point, end: Point, bend: float, width: float, depth: float) -> None:
        """A furrow in both halves: lower, and darker. `bend` is how far its middle lies off the straight."""
        if depth < 0.004:
            return
        dx, dy = end[0] - start[0], end[1] - start[1]
        length, reach = math.hypot(dx, dy), abs(bend) + 2 * width
        right, ys = max(start[0], end[0]) + reach, sorted((start[1], end[1]))
        win = self.at(-right, ys[0] - reach, right, ys[1] + reach)
        u, v = self.m[win] - start[0], self.v[win] - start[1]
        t = (u * dx + v * dy) * (1 / length**2)
        across = (v * dx - u * dy) * (1 / length) + (bend * 4) * t * (1 - t)
        line = _fall(across, width) * _step(np.minimum(t, 1 - t), 0, 0.4)
        self.z[win] -= depth * line
        self.tone[win] *= 1 - min(4 * depth, 0.22) * line

    def mix(self, win: Window, tone: np.ndarray | float, cover: np.ndarray) -> None:
        """Lay a tone over the picture."""
        self.out[win] += cover * (tone - self.out[win])

    # The picture, from the back to the front.

    def paint(self) -> np.ndarray:
        """Draw everything: float32 (H, W), 0–1 and possibly a little beyond."""
        self.outline()
        self.background()
        hair = self.strands()
        self.ears()
        if self.who.hair in BEHIND:
            self.back_hair(hair)
        self.body()
        dome = 1.12 - 0.89 * self.x * self.x - 0.38 * self.y * self.y
        self.z = 0.85 * np.sqrt(np.maximum(dome, 0.01))
        self.tone = np.full(self.shape, self.who.skin, np.float32)
        self.nose()
        self.relief()
        mouth = self.lips()
        if self.who.beard:
            self.beard()
        self.brows()
        self.mix(ALL, self.lit(), self.edge(self.inside))
        self.eyes()
        self.open_mouth(*mouth)
        self.front_hair(hair)
        if self.who.glasses:
            self.glasses()
        return self.out

    def outline(self) -> None:
        """Distance to the outline of the head, inside > 0; and the head's depth of hair."""
        who = self.who
        x, y = np.abs(self.x), np.maximum(self.y, 0) * (1 / (CHIN * who.length + 0.75 * self.jaw))
        drop = np.minimum(y, 1)
        x /= 1 - who.taper * drop
        up = np.minimum(self.y, 0) * (1 / (1.42 * who.length))
        self.radius = np.sqrt(x * x + up * up)
        low = np.s_[self.at(-1.2, 0, 1.2, 0)[0].start :, :]
        power = np.float32(who.jaw)
        jaw = (x[low] ** power + y[low] ** power) ** (1 / power)
        self.radius[low] = np.where(y[low] > 0, jaw, self.radius[low])
        self.inside = (1 - self.radius) * (0.98 + 0.25 * drop)
        self.cap = 1.015 + FULL[who.hair] * who.volume * _step(-self.y, -0.5, 0.6)

    def background(self) -> None:
        view = self.view
        self.out = view.background + 0.06 * view.light[0] * self.x - 0.05 * self.y
        if view.clutter:
            things = Image.fromarray(self.rng.integers(0, 256, (5, 5), np.uint8))
            blurred = things.resize(self.shape[::-1], Image.Resampling.BICUBIC)
            self.out += view.clutter * (np.asarray(blurred, np.float32) * (1 / 255) - 0.5)

    def strands(self) -> np.ndarray:
        """Tone of the hair: strands that run from the crown, and a sheen."""
        who, light = self.who, self.view.light
        crown = {"crop": -2.6, "receding": -2.6, "tied": -3.2, "curly": -2.0}.get(who.hair, -1.55)
        side = 0.3 * who.side if who.hair in ("parted", "long", "bob") else 0.0
        angle = np.arctan2(self.x - side, self.y - crown)
        if who.hair == "curly":
            angle += 0.09 * np.sin(13 * self.y + 5 * self.x) + 0.07 * np.sin(21 * self.x - 9 * self.y)
        else:
            angle += 0.02 * np.sin(5 * self.y + 2 * self.x)
        coarse, fine = self.rng.normal(0, 0.7, 256), self.rng.normal(0, 0.6, 1024)
        table = (np.repeat(coarse, 4) + fine).astype(np.float32)
        strand = table[(angle * (-36 * crown)).astype(np.int32) % 1024]
        sheen = _fall(self.radius - 0.9, 0.16) * _step(-self.y, 0.1, 0.9)
        shade = 1 + 0.4 * light[0] * self.x - 0.3 * light[1] * np.clip(-self.y - 0.4, -0.5, 1)
        return who.hair_tone * shade * (1 + 0.13 * strand) + 0.07 * sheen * (1 + 0.4 * strand)

    def back_hair(self, hair: np.ndarray) -> None:
        """Hair that falls behind the head."""
        who = self.who
        spread, height = BEHIND[who.hair]
        half = 1.015 + 0.47 * FULL[who.hair] * who.volume + spread * _step(self.y, 0, 0.8)
        x, y = self.x / half, self.y * (1 / (height + who.volume))
        x, y = x * x, y * y
        size = np.where(self.y < 0, self.radius / self.cap, np.sqrt(np.sqrt(x * x + y * y)))
        if who.hair == "curly":
            size += 0.02 * np.sin(17 * np.arctan2(self.x, self.y))
        self.mix(ALL, 0.72 * hair * (1 - 0.3 * _fall(1 - size, 0.06)), self.edge(1.1 - 1.1 * size))

    def body(self) -> None:
        """Neck, shoulders and clothes."""
        who, light = self.who, self.view.light[0]
        win = np.s_[self.at(-1.5, 0.6, 1.5, 0.6)[0].start :, :]
        x, y = self.x[win], self.y[win]
        ax, chin = np.abs(x), CHIN * who.length
        flare = _step(y, chin, chin + 0.95)
        width = 0.5 + 0.1 * (who.jaw - 2) + 0.35 * flare * flare
        shade = 0.72 - 0.3 * _fall(y - chin - 0.75 * self.jaw, 0.28)
        neck = who.skin * shade * (1.25 - 1.1 * x * x + 0.4 * light * x)
        self.mix(win, np.clip(neck, 0.02, 1), self.edge(np.minimum(width - ax, y - 0.6)))
        collar = chin + 0.34 + 0.32 * np.maximum(ax - 0.5, 0) + 0.35 * np.maximum(1 - 2.6 * x * x, 0)
        cloth = who.clothes * (1.24 + 0.2 * light * x - 0.12 * y + 0.05 * np.sin(9 * x))
        cloth *= 1 - 0.25 * _fall(y - collar - 0.05, 0.025) * (ax < 0.62)
        self.mix(win, cloth, self.edge(y - collar))

    def ears(self) -> None:
        win = np.s_[self.at(-1.2, -0.15, 1.2, 0.45)[0], :]
        x, v = self.x[win], self.y[win] - 0.14
        u = np.abs(x) - 1 + 0.12 * v
        inner = 1 - 0.35 * _fall(u - 0.02, 0.07) * _fall(v, 0.17)
        tone = self.who.skin * (0.82 + 0.35 * self.view.light[0] * np.sign(x)) * inner
        self.mix(win, tone, self.edge(0.15 - np.sqrt(u * u + 0.27 * v * v)))

    def nose(self) -> None:
        """Bridge, tip and wings of the nose, its shadow and the nostrils; AU 9 pulls it up."""
        who, yaw = self.who, self.view.yaw
        size, tip = who.nose, who.nose_y - 0.05 * self.au.au9
        self.wing = 0.175 * size * (1 + 0.12 * self.au.au9 + 0.08 * self.au.au12)
        win = self.at(-0.6, -0.35, 0.6, 0.8)
        # The nose comes nearer to the camera than the face does, so a turned head moves it further.
        v = self.v[win]
        grow = _step(v, -0.3, tip)
        u = self.u[win] - 0.5 * yaw * grow
        m = np.abs(u)
        lift = 0.23 * grow * _step(-v, -tip - 0.2, -tip + 0.03) * _fall(u / (0.12 + 0.06 * grow), size)
        v = v - tip
        lift += 0.065 * _fall(u, 0.11 * size) * _fall(v, 0.1)
        lift += 0.06 * _fall(m - self.wing, 0.07 * size) * _fall(v - 0.03, 0.075)
        self.z[win] += lift
        shadow = _fall(u + 0.12 * self.view.light[0], 0.2 * size) * _fall(v - 0.15, 0.06)
        holes = _fall(m - 0.085 * size, 0.05 * size) * _fall(v - 0.095, 0.026)
        x, y = m - 0.9 * self.wing, v - 0.02
        crease = _fall(np.sqrt(x * x + y * y) - 0.09, 0.02) * _step(m - 0.85 * self.wing, 0, 0.08)
        self.tone[win] *= (1 - 0.2 * shadow) * (1 - 0.75 * holes) * (1 - 0.25 * crease)

    def relief(self) -> None:
        """Sockets, cheeks and chin; folds and wrinkles, deeper with age and with the expression."""
        who, au, age = self.who, self.au, self.who.age
        smile = max(au.au12, 0.8 * au.au6)
        cheek = max(smile, 0.8 * au.au9)
        chin = CHIN * who.length - 0.2 + 0.75 * self.jaw
        self.bump(who.apart, 0, 0.23, 0.15, -0.1)
        self.bump(who.apart, 0, 0.16, 0.12, 0.07)
        self.bump(0.42, 0.02 - who.brow_y, 0.26, 0.1, 0.035)
        self.bump(0.56 + 0.03 * cheek, 0.42 - 0.1 * cheek, 0.22, 0.16, 0.05 + 0.075 * cheek)
        self.bump(0.62, 0.85, 0.16, 0.2, -0.03)
        self.bump(0, MOUTH + 0.02, 0.36, 0.24, 0.06)
        self.bump(0, chin, 0.2, 0.15, 0.07 + 0.04 * au.au17)
        self.bump(0, chin - 0.2, 0.2, 0.06, -0.035 - 0.03 * au.au17)
        win = self.at(-0.85, -0.35, 0.85, 0.25)
        socket = _fall(self.m[win] - who.apart + 0.08, 0.25) * _fall(self.v[win] + 0.06, 0.15)
        self.tone[win] *= 1 - 0.16 * socket
        # From the nose to the lip corners; below the eyes; crow's feet; below the lip corners.
        depth = 0.004 + 0.018 * age + 0.03 * smile + 0.022 * au.au9 + 0.02 * au.au10 + 0.006 * au.au15
        corner = (who.mouth + 0.13 + 0.08 * smile + 0.05 * au.au20, MOUTH - 0.06 - 0.05 * smile)
        self.wrinkle((1.25 * self.wing, who.nose_y - 0.05 * au.au9), corner, -0.06, 0.045, depth)
        depth = 0.003 + 0.012 * age + 0.014 * au.au6 + 0.01 * au.au7
        self.wrinkle((who.apart - 0.21, 0.1), (who.apart + 0.2, 0.09), -0.06, 0.035, depth)
        for rise in (-0.07, 0.0, 0.08):
            start, end = (who.apart + 0.27, 0.02 + 0.4 * rise), (who.apart + 0.45, 0.02 + 1.7 * rise)
            self.wrinkle(start, end, 0.01, 0.014, (0.2 + age) * 0.014 * au.au6)
        start, end = (who.mouth + 0.04, MOUTH + 0.08), (who.mouth + 0.1, MOUTH + 0.28)
        self.wrinkle(start, end, 0.03, 0.04, 0.009 * au.au15 + 0.008 * age)
        # Across the forehead (its middle where only the inner brows rise), between the brows, on the nose.
        half, bend = (0.5, 0.05) if au.au2 > 0.3 else (0.28, -0.02)
        for y in (-0.56, -0.71, -0.86):
            depth = (0.3 + age) * 0.012 * max(au.au1, au.au2) + 0.004 * age
            self.wrinkle((-half, y), (half, y), bend, 0.024, depth)
        x = 0.1 - 0.02 * au.au4
        self.wrinkle((x, -0.42), (0.75 * x, -0.2), 0.0, 0.03, 0.021 * au.au4 + 0.005 * age)
        self.wrinkle((0.05, -0.06), (0.16, 0.06), 0.0, 0.022, 0.014 * au.au9)
        self.wrinkle((0.09, 0.07), (0.19, 0.2), 0.0, 0.022, 0.014 * au.au9)

    def brows(self) -> None:
        """Eyebrows: thick arcs, whose inner and outer ends AU 1, 2 and 4 move."""
        who, au = self.who, self.au
        inner_move = 0.17 * au.au4 + 0.07 * au.au9 - 0.17 * au.au1
        outer_move = 0.02 * au.au4 - 0.17 * au.au2 + 0.03 * au.au1
        x, y = who.apart - 0.24 - 0.06 * au.au4, who.brow_angle - who.brow_y + inner_move
        dx = 0.54 + 0.06 * au.au4
        dy = 0.03 - who.brow_angle - who.brow_y + outer_move - y
        win = self.at(-x - dx - 0.1, min(y, y + dy) - 0.25, x + dx + 0.1, max(y, y + dy) + 0.15)
        # One half of the face does more than the other.
        uneven = 0.06 * who.side * (inner_move + outer_move)
        u, v = self.m[win] - x, self.v[win] - y - uneven * np.sign(self.u[win])
        length = math.hypot(dx, dy)
        t = (u * dx + v * dy) * (1 / length**2)
        place = np.minimum(np.maximum(t, 0), 1)
        # The arch is highest at two thirds of the way out.
        arch = (0.065 + 0.05 * au.au2 - 0.03 * au.au4 - 0.02 * au.au1) * np.sin(np.pi * place**1.35)
        across = np.abs((v * dx - u * dy) * (1 / length) + arch)
        thick = 0.052 * who.brow * (1 - 0.75 * place * place) * _step(t, -0.25, 0.2)
        cover = np.clip((thick - across) * (1 / 0.03) + 0.35, 0, 1)
        cover *= _step(t, -0.06, 0.1) * _step(-t, -1.05, -0.85)
        cover *= 0.88 + 0.12 * np.sin(130 * u + 90 * v + 3 * np.sin(37 * u))
        tone = 0.04 + 0.6 * min(who.hair_tone, 0.45)
        self.tone[win] += 0.88 * cover * (tone - self.tone[win])
        self.z[win] += 0.008 * cover

    def lips(self) -> tuple[Window, np.ndarray, np.ndarray, np.ndarray]:
        """Lips; gives the mouth's window and there the place along the lips, upper and lower inner edge."""
        who, au = self.who, self.au
        half = 1 + 0.24 * (au.au12 + au.au20) - 0.14 * au.au23 - 0.06 * au.au17
        half = who.mouth * (half - 0.3 * au.au26 * (1 - au.au12))
        parted = 0.11 * au.au25 * (1 + 0.5 * au.au12) + 0.78 * self.jaw
        closed = parted < 0.02
        up = 0.0 if closed else 0.3 * parted + 0.05 * au.au10 + 0.04 * au.au9
        low = 0.0 if closed else 0.7 * parted - 0.015 * au.au17
        middle = MOUTH + 0.03 * au.au12 - 0.05 * au.au17 - 0.03 * au.au10 - 0.02 * au.au9 + 0.1 * self.jaw
        win = self.at(-0.7, middle - up - 0.32, 0.7, middle + low + 0.32)
        u, v, a = self.u[win], self.v[win], self.m[win] * (1 / half)
        t = np.clip(u * (1 / half), -1.15, 1.15)
        at = np.abs(t)
        square = np.maximum(1 - t * t, 0)
        root = np.sqrt(square)
        lift = 0.17 * au.au12 - 0.12 * au.au15 - 0.03 * au.au20 + who.corners
        one = np.maximum(t * who.side, 0)
        base = middle - lift * at**1.8 * (1 + 0.08 * who.side * t) - 0.13 * au.au14 * one * one
        base += 0.012 * (1 - au.au25) * _fall(t, 0.25)
        upper, lower = base - up * square**0.7, base + low * square**0.6
        full = who.lips * (1 - 0.55 * au.au23 - 0.25 * au.au20)
        bow = 1 - 0.3 * (1 - 0.7 * au.au12) * _fall(t, 0.16)
        top = upper - 0.085 * full * (1 - 0.25 * au.au12) * square**0.8 * bow
        bottom = lower + 0.115 * full * (1 - 0.15 * au.au12) * square**0.65
        along = self.edge((1 - at) * half)
        upper_lip = self.edge(v - top) * self.edge(upper - v) * along
        lower_lip = self.edge(v - lower) * self.edge(bottom - v) * along
        self.z[win] += square * (0.03 * _fall(v - top, 0.07) + 0.06 * _fall(v - (lower + bottom) / 2, 0.06))
        # The dark line between the lips, the dimples at their ends, the shadow below, the groove above.
        dark = 1 - (1 - who.lip_tone) * (upper_lip + 0.8 * lower_lip)
        if closed:
            dark *= 1 - 0.62 * _fall(v - base, 0.018) * _step(1.08 - at, 0, 0.3)
        dark *= 1 - (0.3 + 0.15 * au.au12) * _fall(a - 1.03, 0.1) * _fall(v - base, 0.035)
        dark *= 1 - 0.16 * _fall(v - bottom - 0.06, 0.045) * root
        groove = _fall(u, 0.035) * _step(v, who.nose_y + 0.12, who.nose_y + 0.2) * _step(top - v, -0.02, 0.05)
        self.tone[win] *= dark * (1 - 0.09 * groove)
        return win, t, upper, lower

    def open_mouth(self, win: Window, t: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> None:
        """Teeth and the dark behind them."""
        au, wide = self.au, float((lower - upper).max(initial=0))
        if wide < 0.02:
            return
        u, v = self.u[win], self.v[win]
        height = max(0.03, min(0.1, 0.85 * wide) + 0.03 * au.au12 + 0.02 * au.au10 - 0.05 * au.au26)
        teeth = self.edge(upper + height * (1 - 0.3 * t * t) - v)
        if au.au12 < 0.4:
            teeth = np.maximum(teeth, self.edge(v - lower + 0.07 * (au.au20 + au.au10)))
        gaps = 1 - 0.1 * np.cos(34 * u) ** 16
        dark = 0.06 + 0.1 * _fall(v - lower, 0.12)
        tone = dark + teeth * ((0.59 + 0.22 * self.who.skin) * (1 - 0.55 * t * t) * gaps - dark)
        inside = self.edge(v - upper) * self.edge(lower - v) * self.edge((1 - np.abs(t)) * self.who.mouth)
        self.mix(win, tone * (1 - 0.45 * _fall(v - upper, 0.035)), inside)

    def lit(self) -> np.ndarray:
        """Light on the height field times the tone of the surface."""
        z, (x, y), ambient = self.z, self.view.light, self.view.ambient
        right, down = np.zeros_like(z), np.zeros_like(z)
        right[:, 1:-1] = (z[:, 2:] - z[:, :-2]) * (self.k / 2)
        down[1:-1] = (z[2:] - z[:-2]) * (self.k / 2)
        facing = 1 / np.sqrt(1 + right * right + down * down)
        direct = np.maximum((1 - right * x - down * y) * facing * (1 / math.sqrt(1 + x * x + y * y)), 0)
        shine = direct * direct
        shine *= shine
        shine *= shine
        shine *= 0.09 * shine
        return self.tone * (0.8 + 0.2 * facing) * (ambient + (1.16 - ambient) * direct) + shine

    def eyes(self) -> None:
        """Eyeballs between the lids, with iris, pupil, highlight and lashes, and the crease of the lid."""
        who, au = self.who, self.au
        half = 0.215 * who.eye
        lid = 1 + 0.75 * au.au5 - 0.25 * (au.au6 + au.au9) - 0.3 * au.au7 - 0.5 * au.au43
        lid *= 0.088 * who.opening * (1 - 0.12 * au.au4)
        low = 1 + 0.25 * au.au5 - 0.75 * au.au6 - 0.55 * au.au7 - 0.3 * au.au9
        win = self.at(-who.apart - half, -0.22, who.apart + half, 0.16)
        side = np.sign(self.u[win])
        t = (self.m[win] - who.apart) * (1 / half)
        v = self.v[win] + 0.5 * (who.slant - 0.02 * au.au1) * t
        square = np.maximum(1 - t * t, 0)
        root = np.sqrt(square)
        # The lid is highest towards the nose, and more so where the inner brow rises.
        arc = square**0.72 * (1 - (0.16 + 0.15 * au.au1) * t) * (1 + 0.06 * who.side * side)
        upper = 0.012 - lid * arc
        lower = 0.012 + 0.062 * who.eye * low * square**0.8 * (1 + 0.15 * t)
        corner = self.edge((1 - np.abs(t)) * half)
        skin = 0.5 * who.skin
        level = float(np.clip(0.55 + 0.5 * self.out[win].mean() / max(who.skin, 0.2), 0.6, 1.1))
        ball = (0.8 - 0.08 * t * t - 0.3 * (t * t) ** 2) * level * (1 - 0.4 * _fall(v - upper, 0.03))
        # The iris hangs on the ball's middle, whatever the lids do, and looks at the camera.
        x, y = half * t - 0.25 * self.view.yaw * side, v + 0.004
        r = np.sqrt(x * x + y * y)
        iris = who.iris - 0.12 * _step(r, 0.07, 0.092) + 0.07 * _step(y, -0.02, 0.08)
        if who.iris > 0.15:
            iris += 0.1 * _step(r, 0.04, 0.075)
        ball += self.edge(0.092 - r) * (np.maximum(iris, 0.03) * level - ball)
        ball += self.edge(0.04 - r) * (0.03 - ball)
        x, y = x - math.copysign(0.03, self.view.light[0]) * side, y + 0.035
        ball += 0.9 * self.edge(0.019 - np.sqrt(x * x + y * y)) * (1 - ball)
        self.mix(win, ball, self.edge(v - upper) * self.edge(lower - v) * corner)
        lash = _fall(v - upper + 0.005, 0.018 if who.beard else 0.026) * _step(t, -1.1, -0.5)
        ends = self.edge((1.08 - np.abs(t)) * half)
        self.mix(win, 0.06, 0.85 * lash * ends)
        self.mix(win, skin, 0.45 * _fall(v - lower - 0.005, 0.013) * ends)
        crease = upper - 0.055 - 0.02 * square + 0.02 * au.au5 + 0.02 * who.age
        self.mix(win, skin, 0.55 * _fall(v - crease, 0.016) * corner * root)

    def beard(self) -> None:
        """Beard and moustache."""
        who, win = self.who, np.s_[self.at(-1.1, 0.2, 1.1, 0.2)[0].start :, :]
        m, v = self.m[win], self.v[win]
        x, y = m * (1 / 1.05), (v - 0.35) * (1 / 0.95)
        cheeks = _step(np.sqrt(x * x + y * y), 0.62, 0.82) * _step(v, 0.2, 0.75)
        lip = 1.1 * _fall(v - (who.nose_y + 0.22 - 0.03 * self.au.au12), 0.05) * _fall(m, 0.33)
        chin = _step(v - MOUTH - 0.45 * self.jaw, 0.2, 0.34)
        cover = who.beard * 0.85 * np.minimum(np.maximum(np.maximum(cheeks, lip), chin), 1)
        grain = 0.8 + 0.1 * self.rng.standard_normal(m.shape, dtype=np.float32)
        self.tone[win] += cover * (who.hair_tone * grain - self.tone[win])

    def front_hair(self, hair: np.ndarray) -> None:
        """Hair over the forehead and the sides of the head, below a hairline for each style."""
        who, style = self.who, self.who.hair
        win = np.s_[: self.at(-1.3, 1.25, 1.3, 1.25)[0].stop, :]
        x, y, radius = self.x[win], self.y[win], self.radius[win]
        ax, cap = np.abs(x), self.cap[win]
        temple = np.clip(1.7 * ax - 0.72, 0, 1.1)
        temple *= temple * temple
        if style in ("long", "bob"):
            part = np.abs(x - 0.3 * who.side)
            line = -1.1 + 0.5 * part * np.sqrt(part) + 2.6 * _step(ax, 0.7, 1.04)
        elif style == "parted":
            line = -1.02 + 0.3 * np.maximum(0.3 - who.side * x, 0) + temple
        elif style == "fringe":
            line = -0.5 - 0.1 * who.side * x + 0.015 * np.sin(17 * x) + 1.2 * _step(ax, 0.72, 1.02)
        elif style == "curly":
            line = -0.84 + 0.04 * np.sin(14 * x) + 1.1 * temple
            angle = np.arctan2(x, -y)
            cap = cap + 0.035 * np.sin(11 * angle) + 0.02 * np.sin(23 * angle)
        elif style == "receding":
            line = -1.25 - 0.1 * np.cos(4 * x) + 1.5 * temple
        else:
            line = (-0.9 if style == "crop" else -1.0) + 0.1 * x * x + temple
        # At the sides the hair ends in front of the ears, or hangs down.
        low = {"long": 1.2, "bob": 1.0, "curly": 0.2, "fringe": 0.1}.get(style, 0.0)
        ends, shell = np.minimum(line, low) - y, 0.95 * (cap - radius)
        cover = np.clip(np.minimum(shell * self.k, 13 * ends) + 0.5, 0, 1)
        if style != "receding":
            shadow = _fall(np.maximum(y - line, 0), 0.09) * self.edge(self.inside[win])
            self.out[win] *= 1 - 0.3 * shadow * (1 - cover)
        hair = hair[win]
        self.mix(win, hair * (1 - 0.25 * _fall(ends, 0.06)) * (1 - 0.4 * _fall(shell, 0.06)), cover)
        if style == "tied":
            knot = 0.3 - 0.3 * np.hypot(x * (1 / 0.42), (y + 1.62 * who.length) * (1 / 0.3))
            self.mix(win, 0.95 * hair, self.edge(knot) * (radius > 1 + 0.5 * who.volume))

    def glasses(self) -> None:
        """Spectacles."""
        win = self.at(-1, -0.25, 1, 0.33)
        x, v = self.m[win] - self.who.apart, self.v[win]
        r = ((np.abs(x) * (1 / 0.31)) ** 3 + (np.abs(v - 0.04) * (1 / 0.24)) ** 3) ** (1 / 3)
        bridge = _fall(v + 0.02 + 0.3 * self.u[win] ** 2, 0.02) * (x < -0.29)
        arms = _fall(v + 0.03, 0.02) * (x > 0.31) * (np.abs(self.x[win]) < 1.0)
        self.mix(win, 0.12, 0.85 * np.maximum(np.maximum(_fall(0.27 * r - 0.27, 0.022), bridge), arms))
