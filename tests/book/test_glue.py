"""Values that chapters glue come out in the printed book as they went in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from myst_nb.core.variables import format_plain_text

from reading_faces.report import notebook


def unbroken(text: str) -> str:
    """The text, in which no line may end before a per cent sign."""
    return text.replace(" %", "\u00a0%")


def glued(monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    """What `{glue:text}` prints: myst-nb stores the representation and evaluates it."""
    stored: dict[str, object] = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: stored.update({name: value}))
    notebook.glue("key", text)
    return format_plain_text(repr(stored["key"]), "s")


@settings(deadline=None)
@given(
    st.one_of(st.text(), st.integers(0, 10**7).map("{:,}".format), st.floats(0, 100).map("{:.1f} %".format))
)
def test_strings_survive(text):
    with pytest.MonkeyPatch.context() as patch:
        assert glued(patch, text) == unbroken(text)


def test_numbers_about_the_real_set_survive(monkeypatch):
    """Thousands have a comma in them, which makes a pair of a number if nothing is done about it."""
    manifest = {
        "six_classes": 35340,
        "constant_images": 12,
        "duplicates": {"taken_out_of_training": 1644, "groups_with_conflicting_labels": 53},
        "sources": [
            {
                "name": name,
                "read": 35887,
                "dropped": {"disgust": 547},
                "kept": {"train": 27629, "validation": 3533, "test": 3534},
                "classes": {
                    "train": {"happy": 30, "sad": 12, "angry": 13, "fear": 14, "neutral": 15, "surprise": 16}
                },
                "copies_of_earlier_splits": {"test": 297},
            }
            for name in ("fer2013", "jaffe")
        ],
    }
    facts = notebook.data_facts(manifest)
    assert (
        facts["data-read"] == "71,774" and facts["data-leaked"] == "1,644" and facts["data-test"] == "7,068"
    )
    assert (
        facts["data-conflicts"] == "53"
        and facts["data-constant"] == "12"
        and facts["data-disgust"] == "1,094"
    )
    assert facts["data-imbalance"] == "2.5" and facts["data-rarest"] == "sad"
    assert facts["data-sources"] == "fer2013, jaffe"
    assert {k: glued(monkeypatch, v) for k, v in facts.items()} == {k: unbroken(v) for k, v in facts.items()}
    assert set(notebook.data_facts(None)) == set(facts)
