"""The ten votes of FER+ beside the faces of a merged set, and soft labels made of them.

FER+ (Barsoum et al. 2016, arXiv:1608.01041) knows ten words, the book six. A vote for one of the six counts
for its class. Votes for disgust, contempt, "unknown" and "not a face" (NF) are kept as one share beside the
six, *outside*: leaving them out would make people look surer than they were. A face whose first choice is one
of these words has a top vote, and it is outside; it differs from any label.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import xlogy

from fer_utils.datasets import ferplus, read_sources
from fer_utils.datasets.faceset import FaceSet
from fer_utils.emotions import CLASSES, FOLDER_NAMES, DisgustRule
from fer_utils.errors import DataError
from fer_utils.soft import blend

LabelKind = Literal["own", "ferplus", "both"]

# What `Votes.top` and `Votes.majority` say beside the classes 0–5.
OUTSIDE, UNDECIDED, NO_VOTES = 6, 7, -1
ANSWERS = (*CLASSES, "another word", "undecided")

# FER+'s words in the six classes' spelling, where each class stands among them, and the others.
_NAMES = [FOLDER_NAMES.get(word, word) for word in ferplus.VOTES]
_SIX = [_NAMES.index(name) for name in CLASSES]
_OTHERS = [i for i, name in enumerate(_NAMES) if name not in CLASSES]
_CLASS = np.full(len(_NAMES), OUTSIDE)
_CLASS[_SIX] = range(len(CLASSES))


@dataclass(frozen=True)
class Votes:
    """What people said about some faces.

    Attributes:
        counts: int64 (N, 10), votes in the order of `ferplus.VOTES`; zeros for a face that nobody voted on,
            such as those of other sources than FER2013.
    """

    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.counts)

    def where(self, mask: np.ndarray) -> Votes:
        """Votes on the faces for which a bool array (N,) is true."""
        return Votes(self.counts[mask])

    @property
    def total(self) -> np.ndarray:
        """int64 (N,), votes on each face: ten, nine for one of FER2013's images, 0 where nobody voted."""
        return self.counts.sum(1)

    @property
    def voted(self) -> np.ndarray:
        """Bool (N,), whether there are votes on the face."""
        return self.total > 0

    @property
    def shares(self) -> np.ndarray:
        """float64 (N, 7), shares of the votes for the six classes and outside them; zeros without votes."""
        outside = self.counts[:, _OTHERS].sum(1, keepdims=True)
        return np.hstack([self.counts[:, _SIX], outside]) / np.maximum(self.total, 1)[:, None]

    @property
    def top(self) -> np.ndarray:
        """int64 (N,), the word with the most votes.

        A class 0–5, `OUTSIDE` for a word beside the six, `UNDECIDED` where a class shares the first place
        with another word, `NO_VOTES`.
        """
        best = self.counts.max(1, keepdims=True)
        six = self.counts[:, _SIX] == best
        outside = (self.counts[:, _OTHERS] == best).any(1)
        single = (six.sum(1) == 1) & ~outside
        top = np.where(single, six.argmax(1), np.where(six.any(1), UNDECIDED, OUTSIDE))
        return np.where(self.voted, top, NO_VOTES)

    @property
    def majority(self) -> np.ndarray:
        """int64 (N,), the word with more than half of the votes, by FER+'s own rule.

        As in its authors' program, words that only one person said are struck out first. `UNDECIDED` where
        no word has more than half of what is left; else as `top`.
        """
        kept = np.where(self.counts > 1, self.counts, 0)
        clear = 2 * kept.max(1) > kept.sum(1)
        return np.where(self.voted, np.where(clear, _CLASS[kept.argmax(1)], UNDECIDED), NO_VOTES)

    @property
    def top_share(self) -> np.ndarray:
        """float64 (N,), share of the votes for the most frequent word, whichever it is; 0 without votes."""
        return self.counts.max(1) / np.maximum(self.total, 1)

    @property
    def entropy(self) -> np.ndarray:
        """float64 (N,), Shannon entropy of the votes over the ten words, bits; not-a-number without votes."""
        shares = self.counts / np.maximum(self.total, 1)[:, None]
        return np.where(self.voted, -xlogy(shares, shares).sum(1) / np.log(2), np.nan)

    def for_label(self, labels: np.ndarray) -> np.ndarray:
        """float64 (N,), share of the votes for each face's label; 0 without votes.

        Args:
            labels: int (N,), 0–5.
        """
        return self.shares[np.arange(len(self)), labels]


def read_votes(root: Path) -> tuple[pd.DataFrame, Path]:
    """Read FER2013 and FER+ below a root and join them, row by row.

    Returns:
        - One row an image of FER2013, by `origin`: its `emotion` there, and the ten columns of votes.
        - FER+'s file.

    Raises:
        DataError: FER+ or FER2013 is not there or damaged, or they do not fit together.
    """
    path = ferplus.find(root)
    if path is None:
        raise DataError(
            "FER+'s votes are not below this folder",
            file=root,
            remedy=f"{ferplus.HOW_TO_GET}; on demo faces, draw them anew with `fer demo --anew`",
        )
    source = read_sources(root, ["fer2013"])[0]
    votes = ferplus.read(path, source)[list(ferplus.VOTES)]
    return votes.assign(emotion=source.table["emotion"]).set_axis(source.table["origin"]), path


def join(index: pd.DataFrame, table: pd.DataFrame, disgust: DisgustRule = "drop") -> Votes:
    """The votes on the faces of an index, joined by where they came from.

    Args:
        index: with the columns `source`, `origin` and `emotion` of a `FaceSet`'s index.
        table: what `read_votes` gave.
        disgust: ``"angry"`` counts votes for disgust as votes for anger, as the merge did with labels.

    Raises:
        DataError: an image of FER2013 is not in the table, or has another emotion there.
    """
    mine = (index["source"] == "fer2013").to_numpy()
    rows = table.reindex(index.loc[mine, "origin"])
    wrong = np.flatnonzero(rows["emotion"].to_numpy(object) != index.loc[mine, "emotion"].to_numpy(object))
    if len(wrong):
        raise DataError(
            f"{len(wrong):,} faces were merged from another file of FER2013 than the one that is there now, "
            f"the first from {rows.index[wrong[0]]}",
            remedy="merge again with `fer merge`, or bring the older file back",
        )
    counts = np.zeros((len(index), len(ferplus.VOTES)), np.int64)
    counts[mine] = rows[list(ferplus.VOTES)].to_numpy()
    if disgust == "angry":
        counts[:, _NAMES.index("angry")] += counts[:, _NAMES.index("disgust")]
        counts[:, _NAMES.index("disgust")] = 0
    return Votes(counts)


def votes_on(faces: FaceSet, root: Path) -> Votes:
    """The votes on the faces of a merged set, or of a view of it.

    Args:
        faces: their labels need not be the merge's.
        root: folder below which FER2013 and FER+ are.

    Raises:
        DataError: as `read_votes` and `join`.
    """
    return join(faces.index, read_votes(root)[0], faces.manifest["disgust"])


def soft_labels(labels: np.ndarray, votes: Votes, share: float = 1.0) -> np.ndarray:
    """Distributions to train on: the votes, and the label where they say nothing about the six classes.

    The share of the votes outside the six classes goes to the label. So training on votes and on labels sees
    the same images, and an image without votes keeps its label.

    Args:
        labels: int (N,), 0–5.
        votes: on the same faces.
        share: weight of the votes, 0 (the labels alone) to 1.

    Returns:
        float32 (N, 6), rows sum to 1.
    """
    shares, own = votes.shares, np.eye(len(CLASSES))[labels]
    soft = shares[:, :OUTSIDE] + (1 - shares[:, :OUTSIDE].sum(1, keepdims=True)) * own
    return blend(labels, soft, share)


def second_question(votes: Votes, weight: float = 1.0) -> np.ndarray:
    """Targets of a second question, "what would ten others say?", for `fer_utils.training.fit`.

    Args:
        votes: on the training faces.
        weight: of the question's loss beside that of the label; above 0.

    Returns:
        float32 (N, 7), shares of the votes for the six classes and outside them, times the weight; zeros
        where nobody voted.

    Raises:
        ValueError: the weight is not above 0.
    """
    if not weight > 0:
        raise ValueError(f"the share is {weight}; as the weight of a second question it must be above 0")
    return (weight * votes.shares).astype(np.float32)
