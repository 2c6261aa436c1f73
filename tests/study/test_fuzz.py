"""The fuzzing tells refusals and acceptance from failures, and damages the same files again."""

import numpy as np

from fer_utils.errors import DataError
from reading_faces.study import fuzz


def refuses(path):
    raise DataError("wrong", file=path, remedy="mend it")


def test_outcomes_are_told_apart(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("whole")
    readers = {
        "accepted": lambda path: path.read_bytes(),
        "refused": refuses,
        "no file or no remedy: wrong. Remedy: mend it.": lambda _: refuses(None),
        "ZeroDivisionError in the reader": lambda _: 1 / 0,
    }
    for outcome, read in readers.items():
        monkeypatch.setitem(fuzz.READERS, "x", ("a.txt", read))
        assert fuzz.attempt("x", tmp_path, [0, 0, 0]) == outcome


def test_damage_changes_nearly_every_file_and_is_repeated():
    data = b"".join(i.to_bytes(2) for i in range(2000))
    made = [fuzz.damage(data, np.random.default_rng(seed)) for seed in range(50)]
    assert made == [fuzz.damage(data, np.random.default_rng(seed)) for seed in range(50)]
    assert len(set(made) - {data}) > 45
