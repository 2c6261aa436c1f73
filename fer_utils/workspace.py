"""Where things are: data, merged faces, runs and results, for the demo and for the full profile."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from fer_utils.datasets import read_sources
from fer_utils.datasets.faceset import FaceSet
from fer_utils.datasets.merge import merge
from fer_utils.demo.layouts import write_demo
from fer_utils.errors import DataError

Profile = Literal["demo", "full"]


def project_root() -> Path:
    """The checkout that holds the book, found from here upwards, or else the current folder (Colab)."""
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "_toc.yml").exists() and (folder / "fer_utils").is_dir():
            return folder
    return here


@dataclass(frozen=True)
class Workspace:
    """The folders of one profile.

    Attributes:
        profile: ``"demo"`` (faces drawn by the package) or ``"full"`` (real data).
        data: root of the sources as their owners publish them.
        build: for everything that can be made again: the merged set, runs, demo results.
        results: where `fer evaluate` writes results files; for the full profile, `book/results`.
    """

    profile: Profile
    data: Path
    build: Path
    results: Path

    @property
    def faceset(self) -> Path:
        """Folder of the merged set."""
        return self.build / "faceset"

    @property
    def runs(self) -> Path:
        """Folder of the training runs."""
        return self.build / "runs"

    def faces(self, *, anew: bool = False) -> FaceSet:
        """Open the merged set; in the demo profile, draw and merge it first if it is not there.

        Args:
            anew: in the demo profile, draw and merge them even if they are there.

        Raises:
            DataError: in the full profile, nothing has been merged yet; in the demo profile, the data lie
                elsewhere than where drawn faces go, and would be deleted.
        """
        if (self.faceset / "manifest.json").exists() and not (anew and self.profile == "demo"):
            return FaceSet.open(self.faceset)
        if self.profile == "full":
            raise DataError(
                "the real data have not been merged yet",
                file=self.faceset,
                remedy="put the data sets below FER_DATA and run `fer merge`; "
                "`fer data` shows what was found and where to get the rest",
            )
        if self.data != self.build / "data":
            raise DataError(
                "the demo profile draws its own faces, and this is not where they go",
                file=self.data,
                remedy="leave the folder of the data out, or take the full profile",
            )
        self.build.mkdir(parents=True, exist_ok=True)
        with FileLock(self.build / "faces.lock"):  # `make book` runs two chapters at once
            if anew or not (self.faceset / "manifest.json").exists():
                shutil.rmtree(self.data, ignore_errors=True)
                write_demo(self.data)
                return merge(read_sources(self.data), self.faceset, progress=False)
        return FaceSet.open(self.faceset)


def workspace(profile: Profile = "demo") -> Workspace:
    """The folders of a profile.

    `FER_DATA` names the root of the real data (default `data`), `FER_BUILD` the folder for what is made
    (default `build`), both below the project's root unless absolute.

    Raises:
        ValueError: the profile is neither ``"demo"`` nor ``"full"``.
    """
    if profile not in ("demo", "full"):
        raise ValueError(f"PROFILE is {profile!r}; it can be 'demo' or 'full'")
    root = project_root()
    build = root / os.environ.get("FER_BUILD", "build") / profile
    if profile == "demo":
        return Workspace(profile, build / "data", build, build / "results")
    return Workspace(profile, root / os.environ.get("FER_DATA", "data"), build, root / "book" / "results")
