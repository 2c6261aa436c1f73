"""The six classes of the book, and how every data set writes them.

The order of `CLASSES` is the order of the labels 0–5 everywhere: in files, logits and figures. Disgust and
contempt are read, since the sources have them, but they are not classes: see `to_labels`.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

CLASSES: tuple[str, ...] = ("angry", "fear", "happy", "sad", "surprise", "neutral")
EMOTIONS: tuple[str, ...] = (*CLASSES, "disgust", "contempt")

DisgustRule = Literal["drop", "angry"]


# Codes as the data sets' own documentation gives them.
FER2013 = dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")))
CKPLUS = dict(enumerate(("neutral", "angry", "contempt", "disgust", "fear", "happy", "sad", "surprise")))
CKPLUS_CSV = dict(enumerate(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")))
AFFECTNET = dict(enumerate(("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")))
RAFDB = dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"), 1))
JAFFE = dict(AN="angry", DI="disgust", FE="fear", HA="happy", NE="neutral", SA="sad", SU="surprise")

# Names of class folders, as the originals and their repacks spell them.
FOLDER_NAMES = {name: name for name in EMOTIONS} | {"surprised": "surprise", "disgusted": "disgust"}
FOLDER_NAMES |= {"anger": "angry", "fearful": "fear", "happiness": "happy", "sadness": "sad"}


def to_labels(emotions: Iterable[str], disgust: DisgustRule = "drop") -> np.ndarray:
    """Give each emotion its label 0–5, or −1 where the six classes leave it out: int64 (N,).

    Contempt is always left out, disgust too or, as by Duncan, Shine and English (2016), folded into angry.
    """
    table = {name: i for i, name in enumerate(CLASSES)} | {"contempt": -1}
    table["disgust"] = table["angry"] if disgust == "angry" else -1
    return np.array([table[name] for name in emotions], dtype=np.int64)
