"""What is shown side by side is checked, too: damage to lighting, framing or balance names its source."""

import numpy as np
import pandas as pd
import pytest

from fer_utils.datasets.base import FaceSource
from fer_utils.datasets.merge import merge
from fer_utils.demo.layouts import demo_faces
from fer_utils.emotions import CLASSES
from reading_faces.study import describe, side_by_side

SOURCES = ("fer2013", "ckplus", "jaffe")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Three sources of drawn faces, with their mean faces and statistics."""
    emotions = np.repeat(CLASSES, 60)
    table = pd.DataFrame({"emotion": emotions, "subject": None, "split": "train"})
    sources = [
        FaceSource(
            name,
            "toy",
            table.assign(origin=[f"{name}/{i}" for i in range(len(table))]),
            demo_faces(list(emotions), seed=seed),
            cropped=True,
            files=(),
        )
        for seed, name in enumerate(SOURCES)
    ]
    faces = merge(sources, tmp_path_factory.mktemp("side") / "faceset", progress=False)
    return faces, describe.mean_faces(faces)[0], describe.image_statistics(faces)


def test_sound_sources_pass(demo):
    faces, means, statistics = demo
    for outcome in (
        side_by_side.lighting(statistics),
        side_by_side.framing(means),
        side_by_side.classes(faces.counts()),
    ):
        assert outcome.verdict == "passed" and "not so" not in outcome.value, outcome


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda face: np.roll(face, 7, axis=0), "down"),
        (lambda face: np.roll(face, -5, axis=1), "right"),
        (lambda face: side_by_side.resized(face, 1.2), "1.20 times"),
        (lambda face: side_by_side.resized(face, 0.85), "0.85 times"),
    ],
    ids=["down", "left", "tighter", "wider"],
)
def test_another_frame_names_its_source_alone(demo, source, change, says):
    means = demo[1]
    found = side_by_side.framing(means | {source: np.stack([change(face) for face in means[source]])})
    assert found.verdict == "FAILED" and found.value.endswith(f"not so: {source}") and says in found.value


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("quantity", "change"),
    [("brightness", lambda v: 255 - v), ("brightness", lambda v: v / 4), ("contrast", lambda v: v / 3)],
)
def test_other_light_names_its_source(demo, source, quantity, change):
    statistics = demo[2].copy()
    measured = statistics["quantity"].str.startswith(quantity)
    if quantity == "brightness":
        statistics.loc[measured, "value"] += 60  # of middling grey, the inverse is no other
    rows = measured & (statistics["source"] == source)
    statistics.loc[rows, "value"] = change(statistics.loc[rows, "value"])
    found = side_by_side.lighting(statistics)
    assert found.verdict == "FAILED" and found.value.endswith(f"not so: {source}")


def test_a_missing_class_names_its_source(demo):
    counts = demo[0].counts()
    counts.loc["fear", ("jaffe", "train")] = 0
    found = side_by_side.classes(counts)
    assert found.verdict == "FAILED"
    assert found.value == "at least 0.0 % (fear in jaffe); not so: fear in jaffe"


def test_one_source_has_nothing_to_be_compared_with(demo):
    faces, means, statistics = demo
    alone = faces.where((faces.index["source"] == "jaffe").to_numpy())
    assert side_by_side.framing({"jaffe": means["jaffe"]}).verdict == "not compared"
    assert side_by_side.lighting(statistics[statistics["source"] == "jaffe"]).verdict == "not compared"
    assert side_by_side.classes(alone.counts()).verdict == "passed"


def test_a_class_that_one_source_lacks_is_left_out_of_the_mean_faces(demo):
    means = {source: face.copy() for source, face in demo[1].items()}
    means["ckplus"][CLASSES.index("fear")] = np.nan
    assert side_by_side.framing(means).verdict == "passed"


def test_sources_without_a_class_in_common_do_not_pass(demo):
    means = {source: face.copy() for source, face in demo[1].items()}
    means["ckplus"][:3], means["jaffe"][3:] = np.nan, np.nan
    found = side_by_side.framing(means)
    assert found.verdict == "FAILED" and found.value == "no class that all sources have"


def test_the_two_that_differ_are_both_named(demo):
    means = demo[1]
    two = {"ckplus": means["ckplus"], "jaffe": np.roll(means["jaffe"], 6, axis=1)}
    assert side_by_side.framing(two).value.endswith("not so: ckplus, jaffe")


def test_quantities_are_found_by_their_names():
    quantities = ("brightness (mean grey)", "contrast (deviation)")
    rows = [(s, q, v) for s, v in (("a", 100.0), ("b", 90.0)) for q in quantities]
    table = pd.DataFrame(rows, columns=["source", "quantity", "value"])
    assert side_by_side.lighting(table).value == "at most +10 (a) and 1.11 times (a)"
