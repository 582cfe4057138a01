"""Moving lines for a terminal, drawn with Rich."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.table import Table

from infrastructure.cli.progress import describe
from infrastructure.supervisor.supervisor import ProgramState, ProgramStatus


class TerminalProgress:
    """One spinner while programs come up, a bar while a model trains, coloured lines for what happened."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._lines = RichProgress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[share]}"),
            console=self._console,
            transient=True,
        )
        self._lines.start()
        self._spinning: dict[str, TaskID] = {}

    def changed(self, status: ProgramStatus) -> None:
        if status.state is ProgramState.STARTING:
            self._spin(status.name, describe(status))
            return
        self._still(status.name)
        self._still(f"training {status.name}")
        colour = {ProgramState.READY: "green", ProgramState.RESTARTING: "yellow", ProgramState.FAILED: "red"}
        if line := describe(status):
            self._console.print(line, style=colour.get(status.state, "dim"))

    def training(self, what: str, fraction: float) -> None:
        line = self._spin(f"training {what}", f"{what}: training")
        self._lines.update(line, total=1.0, completed=fraction, share=f"{fraction:.0%}")
        if fraction >= 1.0:
            self._still(f"training {what}")

    def say(self, line: str) -> None:
        self._console.print(line, markup=False)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        table = Table(*columns, title=title, title_justify="left", title_style="bold")
        for row in rows:
            table.add_row(*row)
        self._console.print(table)

    def close(self) -> None:
        self._lines.stop()

    def _spin(self, key: str, text: str) -> TaskID:
        if key not in self._spinning:
            self._spinning[key] = self._lines.add_task(text, total=None, share="")
        return self._spinning[key]

    def _still(self, key: str) -> None:
        if (line := self._spinning.pop(key, None)) is not None:
            self._lines.remove_task(line)
