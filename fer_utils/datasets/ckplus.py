"""CK+: 593 sequences of 123 subjects, from neutral to the peak of an expression (Lucey et al., 2010).

Of the official tree, the last three frames of a labelled sequence carry its label and the first frame is
neutral, which is the usual reading. Contempt and disgust are given as what they are: the merge leaves them
out (or folds disgust into angry) and counts them, so that of these sequences only the neutral frame is left.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from fer_utils.datasets.base import FaceSource, ImageFiles, Reader
from fer_utils.datasets.layouts import (
    Folder,
    below,
    class_folders,
    contents,
    face_table,
    find_tables,
    images_in,
    named_folders,
    read_pixel_csv,
    read_text,
    subfolders,
    unwrapped,
    walk,
)
from fer_utils.emotions import CKPLUS, CKPLUS_CSV, FOLDER_NAMES
from fer_utils.errors import DataError

PEAK_FRAMES = 3
FRAME = re.compile(r"(S\d+)_(\d+)_(\d+)\.(png|jpe?g|tiff?|bmp)", re.IGNORECASE)
LABEL = re.compile(r"(S\d+)_(\d+)_(\d+)_emotion\.txt", re.IGNORECASE)
SUBJECT = re.compile(r"S\d+", re.IGNORECASE)
NAME = r"(extended[-_ ]?)?(ck|ck[+_ -].*|ckplus.*|ckextended.*|ck48|cohn.*)"
TREES = ("cohn-kanade-images", "emotion", "emotion_labels")
REMEDY = (
    "unpack the official cohn-kanade-images and Emotion there, or the repack CK+48 with a folder a class, or "
    "put ckextended.csv there"
)


def _candidates(root: Path) -> list[Path]:
    """Whatever may be CK+ below the root, best first."""
    folders = list(walk(root))
    images = [unwrapped(f) for folder in folders for f in folder.folders if f.name.lower() == TREES[0]]
    repacks = [folder.path for folder in folders if _is_repack(folder)]
    tables = [table.path for table in find_tables(root) if re.fullmatch(NAME, table.name)]
    labels = [folder.path for folder in folders if _label_tree(folder)]
    found = [*images, *repacks, *dict.fromkeys(tables)]
    return found or [*named_folders(root, NAME), *labels]


def _is_repack(folder: Folder) -> bool:
    classes = [f for f in folder.folders if f.name.lower() in FOLDER_NAMES]
    if classes and re.fullmatch(NAME, folder.path.name.lower()):
        return True
    return any(FRAME.fullmatch(p.name) for f in classes for p in contents(f).files)


def find(root: Path) -> Path | None:
    """The best form of CK+ below the root: the official tree, the repack CK+48, the CSV repack."""
    return next(iter(_candidates(root)), None)


def read(path: Path, root: Path) -> FaceSource:
    """Read any form of CK+.

    Raises:
        DataError: images or labels are missing, a file name or a label cannot be understood, a damaged CSV.
    """
    if path.is_file():
        source = read_pixel_csv(path, root, CKPLUS_CSV, name="ckplus", layout="CSV repack")
        note = "this repack names no subjects: its splits may have the same person on both sides"
        source = dataclasses.replace(source, notes=(note,))
    elif path.name.lower() == TREES[0]:
        source = _read_official(path, root)
    else:
        source = _read_repack(path, root)
    if others := [below(other, root) for other in _candidates(root) if other != path]:
        note = f"also found and not read: {', '.join(others)}"
        source = dataclasses.replace(source, notes=(*source.notes, note))
    return source


def _read_official(path: Path, root: Path) -> FaceSource:
    sequences = dict(_sequences(path))
    if not sequences:
        raise DataError("there are no sequences in the folder", file=path, remedy=REMEDY)
    labels = _labels(path, root)
    faces: list[tuple[Path, str, str]] = []
    gaps, early = [], 0
    for sequence, (file, peak, emotion) in labels.items():
        frames = sequences.get(sequence)
        if not frames:
            raise DataError(
                f"the labelled sequence {'/'.join(sequence)} has no images in {below(path, root)}",
                file=file,
                remedy="unpack cohn-kanade-images again, or delete this file to go on without the sequence",
            )
        numbers = [_number(frame.stem) for frame in frames]
        if numbers != list(range(1, max(peak, *numbers) + 1)):
            gaps.append("/".join(sequence))
        early += peak < numbers[-1]
        # Of a short sequence, no frame is given twice; a single frame is the peak.
        if len(frames) > 1:
            faces.append((frames[0], "neutral", sequence[0]))
        faces += [(f, emotion, sequence[0]) for f in frames[max(1, len(frames) - PEAK_FRAMES) :] or frames]
    notes = []
    if unlabelled := len(sequences) - len(labels):
        notes.append(f"{unlabelled} of {len(sequences)} sequences have no label and were left out")
    if gaps:
        notes.append(
            f"frames are missing in {len(gaps)} labelled sequences ({', '.join(gaps[:5])}"
            f"{', …' if len(gaps) > 5 else ''}); the first and the last that are there were taken"
        )
    if early:
        notes.append(f"the labels of {early} sequences name an earlier frame than the last")
    images = [image for image, *_ in faces]
    table = face_table(
        [emotion for _, emotion, _ in faces],
        [below(image, root) for image in images],
        subjects=[subject for *_, subject in faces],
    )
    files = (*images, *(file for file, *_ in labels.values()))
    return FaceSource("ckplus", "official tree", table, ImageFiles(images), False, files, tuple(notes))


def _sequences(path: Path) -> Iterator[tuple[tuple[str, str], list[Path]]]:
    """The frames of each sequence, in order of time."""
    for subject in subfolders(path):
        for sequence in subfolders(subject):
            frames = images_in(sequence)
            key = subject.name.upper(), sequence.name
            for frame in frames:
                match = FRAME.fullmatch(frame.name)
                if not match:
                    raise _bad_name(frame)
                _check_place(frame, (match[1].upper(), match[2]), key)
            if frames:
                yield key, sorted(frames, key=lambda frame: _number(frame.stem))


def _number(stem: str) -> int:
    return int(stem.rpartition("_")[2])


def _check_place(file: Path, named: tuple[str, str], place: tuple[str, str]) -> None:
    if named != place:
        raise DataError(
            f"the file is of {'/'.join(named)} by its name and of {'/'.join(place)} by its folder",
            file=file,
            remedy="put it where it belongs, or take it away",
        )


def _labels(images: Path, root: Path) -> dict[tuple[str, str], tuple[Path, int, str]]:
    """By sequence: the label's file, the number of its peak frame, and the emotion."""
    tree = _find_labels(images, root)
    labels = {}
    for subject in subfolders(tree):
        for sequence in subfolders(subject):
            files = [p for p in contents(sequence).files if p.suffix.lower() == ".txt"]
            if len(files) > 1:
                raise DataError(
                    f"the sequence has {len(files)} labels", file=sequence, remedy="keep the right one only"
                )
            for file in files:
                match = LABEL.fullmatch(file.name)
                if not match:
                    raise _bad_name(file)
                key = subject.name.upper(), sequence.name
                _check_place(file, (match[1].upper(), match[2]), key)
                labels[key] = file, int(match[3]), _emotion(file)
    if not labels:
        raise DataError("there are no labels in the folder", file=tree, remedy=REMEDY)
    return labels


def _find_labels(images: Path, root: Path) -> Path:
    """The folder Emotion that is nearest to the images, below the root."""
    for base in images.parents[: len(images.relative_to(root).parts)]:
        for folder in walk(base):
            if tree := _label_tree(folder):
                return tree
    raise DataError("the images have no labels: the folder Emotion is missing", file=images, remedy=REMEDY)


def _label_tree(folder: Folder) -> Path | None:
    """The folder of labels among a folder's subfolders; one with subjects in it, where there are several."""
    trees = [f for f in folder.folders if f.name.lower() in TREES[1:]]
    return next((t for t in trees if any(SUBJECT.fullmatch(s.name) for s in subfolders(t))), None)


def _emotion(file: Path) -> str:
    text = read_text(file).strip()
    try:
        return {float(code): name for code, name in CKPLUS.items()}[float(text)]
    except (ValueError, KeyError):
        codes = ", ".join(f"{code} {name}" for code, name in CKPLUS.items())
        raise DataError(
            f"the label is {text[:24]!r}, expected one of {codes}",
            file=file,
            row=1,
            remedy="unpack the Emotion labels again, or delete this file to go on without the sequence",
        ) from None


def _read_repack(path: Path, root: Path) -> FaceSource:
    if not any(f.name.lower() in FOLDER_NAMES for f in subfolders(path)):
        raise DataError("the folder holds CK+ in no known layout", file=path, remedy=REMEDY)
    faces = class_folders(path, CKPLUS, REMEDY)
    images = [image for image, _ in faces]
    subjects = []
    for image in images:
        match = FRAME.fullmatch(image.name)
        if not match:
            raise _bad_name(image)
        subjects.append(match[1].upper())
    emotions = [emotion for _, emotion in faces]
    table = face_table(emotions, [below(image, root) for image in images], subjects=subjects)
    return FaceSource("ckplus", "class folders", table, ImageFiles(images), True, tuple(images))


def _bad_name(file: Path) -> DataError:
    return DataError(
        "the file name does not tell subject, sequence and frame, as S010_004_00000017 does",
        file=file,
        remedy="give the file its original name, or take it away",
    )


READER = Reader(
    name="ckplus",
    title="CK+ (extended Cohn-Kanade)",
    find=find,
    read=read,
    licence="for research, by signed agreement; no redistribution",
    homepage="https://www.jeffcohn.net/Resources/",
    how_to_get=(
        "Send the signed agreement to the Affect Analysis Group of the University of Pittsburgh, and unpack "
        "cohn-kanade-images and Emotion into CK+/"
    ),
)
