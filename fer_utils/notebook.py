"""What the chapters share: find the folders, show a figure, glue a number, tell what real data gave."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import torch
from IPython.display import display

from fer_utils import results
from fer_utils.plots import use_style
from fer_utils.workspace import Profile, Workspace, workspace

NOT_YET = "not run yet"


def setup(profile: Profile) -> Workspace:
    """Open the workspace of a profile, set the figures' style and say what this run uses."""
    use_style()
    space = workspace(profile)
    faces = {"demo": "drawn demo faces", "full": "real data below FER_DATA"}[profile]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the processor (no GPU found)"
    print(f"profile: {profile} ({faces})\ndevice: {device}")
    return space


def show(figure: Any) -> None:
    """Display a figure once, in the place of the call."""
    display(figure)


def glue(name: str, value: Any) -> None:
    """Store a value for the prose of the printed book, where ``{glue:text}`name` `` shows it.

    Args:
        name: the key, unique in the book.
        value: a string, a figure or a table. Outside the book (in Colab, say) nothing happens.
    """
    try:
        from myst_nb import glue as store
    except ImportError:
        return
    store(name, _Plain(value) if isinstance(value, str) else value, display=False)


class _Plain(str):
    """A string that prints without quotation marks."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def percent(value: float, digits: int = 1) -> str:
    """A share as the prose writes it: 0.689 becomes ``68.9 %``."""
    return f"{100 * value:.{digits}f} %"


def score(metrics: dict[str, Any]) -> str:
    """An accuracy with its interval, e.g. ``68.9 % (95 % interval 67.4 to 70.4 %)``."""
    low, high = metrics["accuracy_interval"]
    return f"{percent(metrics['accuracy'])} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"


def full_data() -> dict[str, Any] | None:
    """The manifest of the real merged set as `fer merge` left it for the book, or none."""
    path = workspace("full").results / results.DATA
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def full_results(pattern: str) -> list[dict[str, Any]]:
    """Results files of the full profile whose names match; empty before the full run."""
    return results.read_all(workspace("full").results, pattern)


def data_table(manifest: dict[str, Any]) -> pd.DataFrame:
    """What became of each real source: read, dropped and why, kept by split."""
    rows = {}
    for source in manifest["sources"]:
        dropped = {f"dropped: {reason}": n for reason, n in source["dropped"].items()}
        rows[source["name"]] = {"read": source["read"], **dropped, **source["kept"]}
    return pd.DataFrame(rows).rename_axis("images")


def data_facts(manifest: dict[str, Any] | None) -> dict[str, str]:
    """Numbers about the real merged set for the prose of chapter 1, by glue name."""
    names = ("read", "six", "leaked", "train", "validation", "test", "seen")
    if manifest is None:
        return {f"data-{name}": NOT_YET for name in names}
    sources = manifest["sources"]
    kept = {split: sum(s["kept"][split] for s in sources) for split in sources[0]["kept"]}
    values = (
        sum(s["read"] for s in sources),
        manifest["six_classes"],
        manifest["duplicates"]["taken_out_of_training"],
        *kept.values(),
        sum(s["copies_of_earlier_splits"]["test"] for s in sources),
    )
    return {f"data-{name}": f"{value:,}" for name, value in zip(names, values, strict=True)}


def held_out(result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The split that a result may be judged by, in words, and its scores: the test if it has been read."""
    if "test" in result:
        return "PrivateTest", result["test"]["fer2013"]
    return "PublicTest (validation)", result["validation"]["fer2013"]


def results_table(found: list[dict[str, Any]]) -> pd.DataFrame:
    """Real-data results side by side, each with its split, interval, date and revision."""
    rows = []
    for result in found:
        split, scores = held_out(result)
        curve = pd.DataFrame(result["learning_curve"])
        rows.append(
            {
                "run": result["name"],
                "split": split,
                "images": scores["images"],
                "accuracy": score(scores),
                "macro-F1": f"{scores['macro_f1']:.3f}",
                "epochs": len(curve),
                "hours": f"{result['training_seconds'] / 3600:.1f}",
                "date": result["date"],
                "revision": result["revision"],
            }
        )
    return pd.DataFrame(rows or [{"run": NOT_YET}]).set_index("run")


def best(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The result whose validation accuracy on FER2013 is highest."""
    return max(found, key=lambda result: result["validation"]["fer2013"]["accuracy"])


def curve(result: dict[str, Any]) -> pd.DataFrame:
    """Learning curve of a result, one row an epoch."""
    return pd.DataFrame(result["learning_curve"])


def best_epoch(result: dict[str, Any]) -> int:
    """The epoch whose weights were kept."""
    history = curve(result)
    return int(history.loc[history["val_accuracy"].idxmax(), "epoch"])
