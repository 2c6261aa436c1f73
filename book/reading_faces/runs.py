"""Runs that the chapters share: trained by the first that needs one, loaded by the others."""

import hashlib
import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

import fer_utils
from fer_utils.errors import DataError
from fer_utils.experiment import Workspace, load_run, train
from fer_utils.training import Fit


def train_or_load(space: Workspace, network: str, *, seed: int = 0, **options: Any) -> Fit:
    """`fer_utils.experiment.train`, with the same arguments, unless there is a finished run.

    On real data a finished run of that name is loaded, and one that was stopped goes on. Demo runs are shared
    by chapters if settings and code are the same.
    """
    name = options.get("name") or f"{network}-seed{seed}"
    folder, full = space.runs / name, space.profile == "full"
    folder.mkdir(parents=True, exist_ok=True)
    # Two chapters run at once. The processes of one training, which Lightning starts, must not wait.
    with FileLock(folder / "lock") if "LOCAL_RANK" not in os.environ else nullcontext():
        if full and (folder / "model.safetensors").exists():
            return load_run(space, name, verbose=options.get("verbose", True))
        if full:
            return train(space, network, seed=seed, resume=True, **options)
        files, known = sorted(Path(fer_utils.__file__).parent.rglob("*.py")), folder / "code"
        code = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        if known.exists() and known.read_text() == code:
            with suppress(DataError):  # other settings
                return train(space, network, seed=seed, resume=True, **options)
        done = train(space, network, seed=seed, **options)
        known.write_text(code)
        return done
