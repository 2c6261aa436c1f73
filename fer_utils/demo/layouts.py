"""The demo data: drawn faces in the official layouts of FER2013, CK+ and JAFFE, for the same readers.

They have the traps of the real data, on purpose: FER2013's class imbalance, exact copies across its splits,
copies with another label, and constant images; CK+ sequences without a label, and with contempt and disgust.
A share of the faces is ambiguous, so that no network can be right about all of them; ten imagined people vote
on each face of FER2013, as in FER+, and are of several minds about those.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from fer_utils.datasets import ferplus
from fer_utils.datasets.faceset import new_folder
from fer_utils.demo.drawn_face import NEUTRAL, PROTOTYPES, ActionUnits, Identity, View, draw_face
from fer_utils.emotions import CKPLUS, EMOTIONS, FER2013, FOLDER_NAMES, JAFFE

# Usage, share of the rows; official counts of the codes 0–6 in Training, which all splits follow.
USAGE = {"Training": 0.8, "PublicTest": 0.1, "PrivateTest": 0.1}
FER2013_COUNTS = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])
COPIES = 0.015  # share of the rows that are exact copies of others; a third of them keeps its own label
CKPLUS_SUBJECTS = [f"S{n:03d}" for n in (5, 10, 11, 14, 22, 26, 32, 37, 42, 46, 50, 52, 55, 62, 64, 66)]
JAFFE_SUBJECTS = ["KA", "KL", "KM", "KR", "MK", "NA", "NM", "TM", "UY", "YM"]
TAKES = 3  # JAFFE's images of one person with one emotion, on average
AMBIGUOUS = {"fer2013": 0.17, "ckplus": 0.05, "jaffe": 0.1}

VOTERS = 10
UNKNOWN = 0.02  # share of the votes that say "unknown"
MIXED_UP = 0.12  # share of the votes that say something else than what is seen: one of its neighbours
NEIGHBOURS = {
    "angry": ("disgust", "sad", "neutral"),
    "fear": ("surprise", "sad"),
    "happy": ("surprise", "neutral"),
    "sad": ("neutral", "fear", "angry"),
    "surprise": ("fear", "happy"),
    "neutral": ("sad", "angry", "contempt"),
    "disgust": ("angry", "sad"),
    "contempt": ("neutral", "angry"),
}


def write_demo(
    folder: Path | str, *, seed: int = 0, fer2013: int = 3200, ckplus: int = 14, jaffe: int = 10
) -> None:
    """Draw the demo data and write them below a new folder, which appears when all is there.

    It gets `fer2013/fer2013.csv`, `fer2013/fer2013new.csv` (votes, as FER+ has them), `CK+` and `jaffe`. The
    same arguments give the same bytes.

    Args:
        folder: must not exist, or be empty.
        seed: of everything that is drawn at random.
        fer2013: rows of the CSV.
        ckplus: subjects of CK+, up to 16, with 3 or 4 sequences each.
        jaffe: subjects of JAFFE, up to 10, with 2–4 images of each emotion.
    """
    with new_folder(Path(folder)) as aside:
        _write_fer2013(aside / "fer2013", fer2013, seed)
        _write_ckplus(aside / "CK+", CKPLUS_SUBJECTS[:ckplus], np.random.default_rng([seed, 1]))
        _write_jaffe(aside / "jaffe", JAFFE_SUBJECTS[:jaffe], np.random.default_rng([seed, 2]))


def demo_faces(
    emotions: Sequence[str], *, seed: int = 0, size: int = 48, people: Sequence[Identity] | None = None
) -> np.ndarray:
    """Draw cropped faces as FER2013 has them: another person, pose, light and background each.

    Args:
        emotions: what each face shall show, names out of `EMOTIONS`.
        seed: of everything else.
        size: side in pixels.
        people: who each face is; by default, somebody new each time.

    Returns:
        uint8 (N, size, size), grey, 0–255.
    """
    return _faces(emotions, seed, size, people)[0]


def _faces(
    emotions: Sequence[str], seed: int, size: int = 48, people: Sequence[Identity] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The images of `demo_faces`, and what can be read in each: float (N, 8), shares by `EMOTIONS`."""
    rng = np.random.default_rng([seed, 0])
    images, seen = np.empty((len(emotions), size, size), np.uint8), np.zeros((len(emotions), len(EMOTIONS)))
    for i, (image, emotion) in enumerate(zip(images, emotions, strict=True)):
        view = View(
            roll=rng.normal(0, 0.1),
            yaw=rng.normal(0, 0.08),
            pitch=rng.normal(0, 0.04),
            centre=(rng.normal(0, 0.05), rng.normal(0.28, 0.06)),
            span=rng.uniform(1.05, 1.3),
            light=(rng.normal(0, 0.45), rng.normal(-0.4, 0.25)),
            ambient=rng.uniform(0.35, 0.65),
            background=rng.uniform(0.1, 0.9),
            clutter=rng.uniform(0, 0.7),
        )
        units, shown = _expression(emotion, rng, AMBIGUOUS["fer2013"])
        for name, share in shown.items():
            seen[i, EMOTIONS.index(name)] += share
        who = people[i] if people else Identity.draw(rng)
        drawn = draw_face(who, units, view, (size, size))
        image[:] = _photo(drawn, rng, blur=rng.uniform(0, 0.016) * size, noise=rng.uniform(1, 7))
    return images, seen


def _expression(
    emotion: str, rng: np.random.Generator, ambiguous: float
) -> tuple[ActionUnits, dict[str, float]]:
    """One way to show an emotion, and the share of the onlookers who should see which emotion.

    With probability `ambiguous` it is hardly shown, or mixed with another emotion.
    """
    kinds = PROTOTYPES[emotion]
    first = rng.random() < 0.5
    units = kinds[0 if first else rng.integers(len(kinds))].varied(rng, 0.25)
    units = NEUTRAL.mixed(units, rng.uniform(0.6, 1.1))
    if rng.random() >= ambiguous:
        return units, {emotion: 1.0}
    if rng.random() < 0.5 and emotion != "neutral":
        strength = rng.uniform(0.05, 0.4)
        return NEUTRAL.mixed(units, strength), {emotion: 1.5 * strength, "neutral": 1 - 1.5 * strength}
    other = str(rng.choice([name for name in PROTOTYPES if name != emotion]))
    share = rng.uniform(0.3, 0.55)
    return units.mixed(PROTOTYPES[other][0], share), {emotion: 1 - share, other: share}


def _photo(drawn: np.ndarray, rng: np.random.Generator, *, blur: float, noise: float) -> np.ndarray:
    """What the camera makes of it: blur, exposure, noise; uint8 (H, W) to uint8 (H, W)."""
    soft = np.asarray(Image.fromarray(drawn).filter(ImageFilter.GaussianBlur(blur)), np.float32)
    exposed = (soft - 110) * rng.uniform(0.75, 1.25) + rng.normal(115, 14)
    grainy = exposed + noise * rng.standard_normal(drawn.shape, dtype=np.float32)
    return np.rint(np.clip(grainy, 0, 255)).astype(np.uint8)


def _write_fer2013(folder: Path, rows: int, seed: int) -> None:
    rng = np.random.default_rng([seed, 3])
    usage = np.repeat(list(USAGE), _shares(rows, list(USAGE.values())))
    codes = np.concatenate(
        [rng.permutation(np.repeat(np.arange(7), _shares((usage == u).sum(), FER2013_COUNTS))) for u in USAGE]
    )
    images, seen = _faces([FER2013[code] for code in codes.tolist()], seed)
    # Copies of training images, as many in the held-out splits as in training; and two constant images.
    half = round(COPIES * rows / 2)
    places = rng.permutation(rows)
    training, held_out = places[usage[places] == "Training"], places[usage[places] != "Training"]
    copies = np.concatenate([held_out[:half], training[:half]])
    originals = training[half : 3 * half]
    images[copies] = images[originals]
    agree = np.arange(len(copies)) % 3 > 0
    codes[copies[agree]] = codes[originals[agree]]
    for place, tone in zip(training[-2:], (0, 255), strict=True):
        images[place] = tone
        seen[place] = 0
    words = [str(value) for value in range(256)]
    lines = ["emotion,pixels,Usage\n"]
    for code, image, use in zip(codes, images.reshape(rows, -1).tolist(), usage, strict=True):
        lines.append(f"{code},{' '.join([words[value] for value in image])},{use}\n")
    folder.mkdir()
    (folder / "fer2013.csv").write_text("".join(lines), encoding="ascii")
    votes = _votes(seen, np.random.default_rng([seed, 4]))
    votes[copies] = votes[originals]  # as in FER+, which asked once for all copies of an image
    _write_votes(folder / "fer2013new.csv", usage, votes)


def _write_votes(path: Path, usage: np.ndarray, votes: np.ndarray) -> None:
    """FER+'s layout: the number in a name is not the row, and what is no face has no name."""
    lines = [",".join(ferplus.HEADER) + "\n"]
    for i, (use, row) in enumerate(zip(usage, votes.tolist(), strict=True)):
        name = "" if row[-1] == VOTERS else f"fer{i + i // 90:07d}.png"
        lines.append(f"{use},{name},{','.join(map(str, row))}\n")
    path.write_text("".join(lines), encoding="ascii")


def _votes(seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Votes of ten people who mix up neighbours now and then: int64 (N, 10), in the order of `ferplus.VOTES`.

    `seen`, float (N, 8), has what can be read in each face, shares by `EMOTIONS`; zeros for what is no face.
    """
    says = np.zeros((len(EMOTIONS), len(ferplus.VOTES)))
    column = {FOLDER_NAMES.get(word, word): i for i, word in enumerate(ferplus.VOTES)}
    for row, emotion in zip(says, EMOTIONS, strict=True):
        row[column[emotion]] = 1 - MIXED_UP - UNKNOWN
        row[column["unknown"]] = UNKNOWN
        for other in NEIGHBOURS[emotion]:
            row[column[other]] += MIXED_UP / len(NEIGHBOURS[emotion])
    chances = seen @ says
    chances[~seen.any(axis=1), column["NF"]] = 1
    return rng.multinomial(VOTERS, chances)


def _shares(total: int, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Split a number in whole parts that are proportional to weights, as nearly as can be."""
    ends = np.rint(np.cumsum(weights) / np.sum(weights) * total).astype(int)
    return np.diff(ends, prepend=0)


def _studio(rng: np.random.Generator, span: float) -> View:
    """A camera in front of a plain wall."""
    return View(
        roll=rng.normal(0, 0.03),
        yaw=rng.normal(0, 0.03),
        pitch=rng.normal(0, 0.02),
        centre=(rng.normal(0, 0.08), rng.normal(0.3, 0.08)),
        span=span * rng.uniform(0.95, 1.05),
        light=(rng.normal(0, 0.3), rng.normal(-0.4, 0.15)),
        ambient=rng.uniform(0.5, 0.65),
        background=rng.uniform(0.45, 0.85),
    )


def _write_ckplus(folder: Path, subjects: Sequence[str], rng: np.random.Generator) -> None:
    """Sequences of 640×490 frames from neutral to peak, and the label of most of them."""
    code = {name: number for number, name in CKPLUS.items()}
    core = ("happy", "surprise", "sad", "angry", "fear")
    for i, subject in enumerate(subjects):
        who, view = Identity.draw(rng), _studio(rng, 1.9)
        emotions = [core[(3 * i + j) % 5] for j in range(3)]
        # Every other subject has a fourth sequence: disgust, contempt, or one that nobody labelled.
        emotions += [("disgust", "contempt", "happy")[i // 2 % 3]] * (i % 2)
        for number, emotion in enumerate(emotions, 1):
            name = f"{subject}/{number:03d}"
            frames, labels = folder / "cohn-kanade-images" / name, folder / "Emotion" / name
            frames.mkdir(parents=True)
            labels.mkdir(parents=True)
            peak, _ = _expression(emotion, rng, AMBIGUOUS["ckplus"])
            count = int(rng.integers(5, 7))
            exposure = int(rng.integers(2**31))  # of the whole sequence
            for frame in range(count):
                way = min(1.0, 1.15 * frame / (count - 1))
                units = NEUTRAL.mixed(peak, way * way * (3 - 2 * way))
                # Drawn at half the size: these are stills from video.
                drawn = draw_face(who, units, view, (245, 320))
                photo = _photo(drawn, np.random.default_rng(exposure), blur=0.5, noise=1.5)
                stem = f"{subject}_{number:03d}_{frame + 1:08d}"
                still = Image.fromarray(photo).resize((640, 490), Image.Resampling.BICUBIC)
                still.save(frames / f"{stem}.png", compress_level=1)
            if number < 4 or emotion in ("disgust", "contempt"):
                (labels / f"{stem}_emotion.txt").write_text(f"   {code[emotion]:.7e}\n", encoding="ascii")


def _write_jaffe(folder: Path, subjects: Sequence[str], rng: np.random.Generator) -> None:
    """256×256 TIFF files, named by subject, code and take, and running number."""
    folder.mkdir()
    number = 0
    for subject in subjects:
        who = Identity.draw(rng)
        for code, emotion in JAFFE.items():
            for take in range(1, TAKES + int(rng.integers(-1, 2)) + 1):
                number += 1
                units, _ = _expression(emotion, rng, AMBIGUOUS["jaffe"])
                drawn = draw_face(who, units, _studio(rng, 1.75), (256, 256))
                photo = _photo(drawn, rng, blur=0.7, noise=3)
                Image.fromarray(photo).save(folder / f"{subject}.{code}{take}.{number}.tiff")
