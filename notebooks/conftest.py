"""`pytest notebooks`: nbval compares the chapters as they were run for the pages.

Were nbval to run them too, each chapter would run twice. So it gets a recording in
place of a kernel: the copy that papermill executed in `build/demo`, which `make`
writes anew when anything it follows from has changed. All else is nbval's own: its
tags, the comparison, the report. `pytest --nbval-lax notebooks` still runs them.
"""

import warnings
from collections import deque
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbval.plugin import IPyNbFile

EXECUTED = Path(__file__).parents[1] / "build" / "demo" / "run" / "notebooks"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Any:
    """Collect the chapters, unless nbval has been asked to run them."""
    asked = parent.config.option
    if file_path.suffix != ".ipynb" or asked.nbval or asked.nbval_lax:
        return None
    return Chapter.from_parent(parent, path=file_path)


class Chapter(IPyNbFile):
    """A chapter as nbval collects it, with its executed copy to ask."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.compare_outputs = False  # only where a tag asks for it: --nbval-lax

    def collect(self) -> list[pytest.Item]:
        """Its cells, if the copy is of this very chapter."""
        items, copy = list(super().collect()), EXECUTED / self.path.name
        cells = nbformat.read(copy, as_version=4).cells if copy.exists() else []
        self.ran = [
            cell
            for cell in cells
            if cell.cell_type == "code"
            and "injected-parameters" not in cell.metadata.get("tags", [])
        ]
        if [i.cell.source for i in items] != [cell.source for cell in self.ran]:
            raise self.CollectError(
                f"{copy} is no run of this chapter: `make chapters-test` makes one"
            )
        return items

    def setup(self) -> None:
        """What nbval does before the first cell, without its kernel."""
        self.kernel = Recording(self.ran)
        self.setup_sanitize_files()

    def teardown(self) -> None:
        """Nothing to stop."""


class Recording:
    """A kernel to nbval: answers a cell with the outputs of its executed copy."""

    def __init__(self, ran: list[nbformat.NotebookNode]) -> None:
        self.cells, self.messages = iter(ran), deque()

    def execute_cell_input(self, source: str, allow_stdin: bool = False) -> str:
        """Have the cell's messages ready."""
        cell = next(cell for cell in self.cells if cell.source == source)
        if cell.execution_count is None:
            raise RuntimeError("the run of the chapter ended before this cell")
        # What a machine says in passing (a locked history, a font cache)
        # is no result of the chapter; the report shows it all the same.
        noise = [
            output for output in cell.outputs if output.get("name") == "stderr"
        ]
        for output in noise:
            warnings.warn(f"a cell wrote to stderr: {output.text}", stacklevel=2)
        said = [(o.output_type, o) for o in cell.outputs if o not in noise]
        parent = {"msg_id": cell.id}
        self.messages = deque(
            {"msg_type": kind, "content": content, "parent_header": parent}
            for kind, content in [*said, ("status", {"execution_state": "idle"})]
        )
        return cell.id

    def get_message(self, stream: str, timeout: float | None = None) -> Any:
        """The cell's next message."""
        return self.messages.popleft()

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Nothing to wait for."""

    await_idle = await_reply

    def is_alive(self) -> bool:
        """Whether cells can be asked for: always."""
        return True
