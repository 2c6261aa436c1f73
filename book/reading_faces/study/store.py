"""Reports of the study: plain values in a JSON file below the folder of results, stamped by who made them."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fer_utils.errors import DataError
from fer_utils.evaluation import wilson_interval
from fer_utils.files import write_json


def write_report(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    """Write a report of plain values to a JSON file, after date, revision and processor, and return all that.

    It is written whole or not at all; its folder is made, and tuples become lists.
    """
    from fer_utils.experiment import processor, revision  # which imports Lightning: not to read a report

    stamp = {"date": datetime.now(UTC).date().isoformat(), "revision": revision(), "processor": processor()}
    stamped = json.loads(json.dumps(stamp | report))
    write_json(path, stamped)
    return stamped


def share(hits: np.ndarray) -> dict[str, Any]:
    """Count what is true of a bool array: `hits`, `of`, `share`, Wilson's `interval`; None of nothing."""
    n, of = int(np.sum(hits)), len(hits)
    interval = list(wilson_interval(n, of)) if of else None
    return {"hits": n, "of": of, "share": n / of if of else None, "interval": interval}


def read_report(path: Path) -> dict[str, Any]:
    """Read what `write_report` wrote, now or in an earlier form.

    A DataError says that it is missing, or no JSON object with the date and revision that made it.
    """
    remedy = "`make study` lists the command that writes it"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("there is no such report", file=path, remedy=remedy) from None
    except ValueError as error:
        raise DataError(f"not JSON ({error})", file=path, remedy=remedy) from None
    if not isinstance(report, dict) or not {"date", "revision"} <= set(report):
        raise DataError("not a report: it lacks the date and revision that made it", file=path, remedy=remedy)
    return report
