"""CK+: 593 sequences of 123 subjects, from neutral to the peak of an expression (Lucey et al., 2010).

Of a labelled sequence, the last three frames carry the label and the first is neutral, which is the usual
reading. Of contempt and disgust the merge leaves the neutral frame alone (or folds disgust into angry).
"""

import dataclasses
import re
from collections import defaultdict
from pathlib import Path

from fer_utils.datasets.base import MEND, FaceSource, ImageFiles, Reader, class_of_folder, decode, face_table
from fer_utils.datasets.discover import Files, images_in, read_lines, tables_in
from fer_utils.datasets.fer2013 import read_pixel_csv
from fer_utils.emotions import CKPLUS, CKPLUS_CSV, FOLDER_NAMES
from fer_utils.errors import DataError

PEAK_FRAMES = 3
TREE, LABEL = "cohn-kanade-images", "_emotion.txt"
NAME = re.compile(r"(S\d+)_(\d+)_(\d+)(_emotion)?", re.IGNORECASE)
TABLE = re.compile(r"(extended[-_ ]?)?(ck|ck[+_ -].*|ckplus.*|ckextended.*|ck48|cohn.*)")
REMEDY = (
    "unpack the official cohn-kanade-images and Emotion there, or the repack CK+48, or put ckextended.csv"
)


def find(files: Files, root: Path) -> list[Path]:
    """Every form of CK+: the official tree, the repack CK+48, the CSV repack."""
    images = images_in(files)
    trees = [next((p for p in image.parents if p.name.lower() == TREE), None) for image in images]
    classes = [i for i in images if i.parent.name.lower() in FOLDER_NAMES and NAME.fullmatch(i.stem)]
    tables = [table.path for table in tables_in(files) if TABLE.fullmatch(table.name)]
    forms = [*trees, *(image.parents[1] for image in classes), *tables]
    return [form for form in dict.fromkeys(forms) if form]


def read(path: Path, files: Files, root: Path) -> FaceSource:
    """Read any form of CK+."""
    if path.is_file():
        note = "this repack names no subjects: its splits may have the same person on both sides"
        source = read_pixel_csv(path, root, CKPLUS_CSV, "ckplus")
        return dataclasses.replace(source, layout="CSV repack", notes=(note,))
    if path.name.lower() == TREE:
        return _read_official(path, files, root)
    images = images_in(files, path)
    subjects = [_parse(image)[0][0] for image in images]
    table = face_table([class_of_folder(image) for image in images], images, root, subjects)
    return FaceSource("ckplus", "class folders", table, ImageFiles(images), True, tuple(images))


def _read_official(path: Path, files: Files, root: Path) -> FaceSource:
    sequences: dict[tuple[str, str], list[tuple[int, Path]]] = defaultdict(list)
    for file in images_in(files, path):
        key, number = _parse(file)
        sequences[key].append((number, file))
    images, emotions, subjects, gaps = [], [], [], []
    labels = _labels(path, files)
    for key, (file, peak, emotion) in labels.items():
        if key not in sequences:
            problem = f"the labelled sequence {'/'.join(key)} has no images in {path}"
            raise DataError(problem, file=file, remedy="unpack the images again, or delete this file")
        numbers, frames = zip(*sorted(sequences[key]), strict=True)
        if numbers != tuple(range(1, peak + 1)):
            gaps.append("/".join(key))
        # Of a short sequence, no frame is given twice; a single frame is the peak.
        neutral, peaks = frames[: len(frames) > 1], frames[max(1, len(frames) - PEAK_FRAMES) :] or frames
        images += [*neutral, *peaks]
        emotions += ["neutral"] * len(neutral) + [emotion] * len(peaks)
        subjects += [key[0]] * (len(neutral) + len(peaks))
    notes = []
    if unlabelled := len(sequences) - len(labels):
        notes.append(f"{unlabelled} of {len(sequences)} sequences have no label and were left out")
    if gaps:
        some = f"{len(gaps)} labelled sequences ({', '.join(gaps[:5])}{', …' if len(gaps) > 5 else ''})"
        notes.append(f"the frames of {some} are not numbered from 1 to the label's")
    table = face_table(emotions, images, root, subjects)
    every = (*images, *(file for file, *_ in labels.values()))
    return FaceSource("ckplus", "official tree", table, ImageFiles(images), False, every, tuple(notes))


def _parse(file: Path) -> tuple[tuple[str, str], int]:
    """Subject and sequence, and the number of the frame, of a file's name."""
    if not (match := NAME.fullmatch(file.stem)):
        problem = "the file name does not give subject, sequence and frame, as S010_004_00000017 does"
        raise DataError(problem, file=file, remedy="give the file its original name, or take it away")
    return (match[1].upper(), match[2]), int(match[3])


def _labels(path: Path, files: list[Path]) -> dict[tuple[str, str], tuple[Path, int, str]]:
    """By sequence, of the labels nearest to the images: file, number of the peak frame, emotion."""
    texts = [file for file in files if file.name.lower().endswith(LABEL)]
    near = ([text for text in texts if text.is_relative_to(base)] for base in path.parents)
    labels: dict[tuple[str, str], tuple[Path, int, str]] = {}
    for file in next(filter(None, near), []):
        key, peak = _parse(file)
        if key in labels:
            raise DataError("the sequence has two labels", file=file, remedy="keep the right one only")
        text = read_lines(file, MEND)[0][1]  # one number, as 3.0000000e+00
        labels[key] = file, peak, decode(text, CKPLUS, file, 1)
    if not labels:
        problem = "the images have no labels: the folder Emotion is missing or empty"
        raise DataError(problem, file=path, remedy=REMEDY)
    return labels


LICENCE = "for research, by signed agreement; no redistribution"
HOMEPAGE = "https://www.jeffcohn.net/Resources/"
HOW_TO_GET = (
    "Send the signed agreement to the Affect Analysis Group of the University of Pittsburgh, and unpack "
    "cohn-kanade-images and Emotion into CK+/"
)
TITLE = "CK+ (extended Cohn-Kanade)"
READER = Reader("ckplus", TITLE, find, read, LICENCE, HOMEPAGE, HOW_TO_GET, lossless=True)
