"""What people see on stderr while a run comes up and goes on: moving lines on a terminal, plain ones elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TextIO

from infrastructure.supervisor.supervisor import ProgramState, ProgramStatus


class Progress(Protocol):
    """Told of everything worth showing; shows it or not."""

    def changed(self, status: ProgramStatus) -> None:
        """A program entered a new state."""
        ...

    def training(self, what: str, fraction: float) -> None:
        """A model is being trained; ``fraction`` of the work, 0 to 1, is done."""
        ...

    def say(self, line: str) -> None:
        """Show one line."""
        ...

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a small table."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found."""
        ...


def progress_for(stream: TextIO) -> Progress:
    """Return moving lines when ``stream`` is a terminal, else plain ones."""
    if stream.isatty():
        from infrastructure.cli.terminal_progress import TerminalProgress

        return TerminalProgress(stream)
    return PlainProgress(stream)


class PlainProgress:
    """One line per change, readable in a log."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._told: dict[str, str] = {}

    def changed(self, status: ProgramStatus) -> None:
        line = describe(status)
        if line and self._told.get(status.name) != line:
            self._told[status.name] = line
            self.say(line)

    def training(self, what: str, fraction: float) -> None:
        line = f"{what}: training {int(fraction * 10) * 10} %"
        if self._told.get(f"training {what}") != line:
            self._told[f"training {what}"] = line
            self.say(line)

    def say(self, line: str) -> None:
        # Nobody listening any more is no reason to stop trading.
        with suppress(OSError):
            self._stream.write(line + "\n")
            self._stream.flush()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
        self.say(title)
        for row in (columns, *rows):
            self.say("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def close(self) -> None:
        with suppress(OSError):
            self._stream.flush()


_WORDS: Mapping[ProgramState, str] = {
    ProgramState.STARTING: "starting",
    ProgramState.READY: "ready",
    ProgramState.RESTARTING: "died; restarting",
    ProgramState.STOPPED: "stopped",
    ProgramState.FAILED: "failed",
}


def describe(status: ProgramStatus) -> str:
    """Return one line about a program's state, empty when there is nothing to tell yet."""
    words = _WORDS.get(status.state, "")
    if not words:
        return ""
    restarts = f" (restarts: {status.restarts})" if status.restarts else ""
    return f"{status.name}: {words}{restarts}"
