"""What a user reads while a run comes up, on a terminal and in a log."""

from __future__ import annotations

import io
from typing import Any

import pytest

from infrastructure.cli.progress import PlainProgress, progress_for
from infrastructure.cli.status import without_password
from infrastructure.cli.terminal_progress import TerminalProgress
from infrastructure.cli.training_watch import module_texts
from infrastructure.supervisor.supervisor import ProgramState, ProgramStatus


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def status(state: ProgramState, restarts: int = 0) -> ProgramStatus:
    return ProgramStatus("ai-service", state, 1, restarts)


def test_a_log_gets_one_line_per_change() -> None:
    log = io.StringIO()
    progress = PlainProgress(log)

    for state in (ProgramState.WAITING, ProgramState.STARTING, ProgramState.STARTING, ProgramState.READY):
        progress.changed(status(state))
    progress.changed(status(ProgramState.RESTARTING, restarts=1))

    assert log.getvalue().splitlines() == [
        "ai-service: starting",
        "ai-service: ready",
        "ai-service: died; restarting (restarts: 1)",
    ]


def test_a_log_gets_a_line_for_every_tenth_of_a_training() -> None:
    log = io.StringIO()
    progress = PlainProgress(log)

    for percent in range(0, 101, 4):
        progress.training("ai-service", percent / 100)

    assert len(log.getvalue().splitlines()) == 11


def test_a_table_in_a_log_has_aligned_columns() -> None:
    log = io.StringIO()

    PlainProgress(log).table("Running", ("process", "url"), [("ai-service", "http://x"), ("redis", "")])

    assert log.getvalue().splitlines() == ["Running", "  process     url", "  ai-service  http://x", "  redis"]


def test_a_terminal_gets_its_own_display_and_is_left_clean() -> None:
    terminal = Terminal()
    progress = progress_for(terminal)
    assert isinstance(progress, TerminalProgress)

    progress.changed(status(ProgramState.STARTING))
    progress.training("ai-service", 0.5)
    progress.training("ai-service", 1.0)
    progress.changed(status(ProgramState.READY))
    progress.table("Running", ("process", "url"), [("ai-service", "http://x")])
    progress.say("[not markup]")
    progress.close()

    shown = terminal.getvalue()
    assert "ai-service: ready" in shown
    assert "http://x" in shown
    assert "[not markup]" in shown


def test_a_training_is_over_when_its_service_is_ready_whatever_was_seen_of_it_last() -> None:
    terminal = Terminal()
    progress = TerminalProgress(terminal)
    progress.training("ai-service", 0.9)

    progress.changed(status(ProgramState.READY))

    drawn = terminal.tell()
    progress.close()
    terminal.seek(drawn)
    assert "training" not in terminal.read()


def test_a_log_is_no_terminal() -> None:
    assert isinstance(progress_for(io.StringIO()), PlainProgress)


@pytest.mark.parametrize("health", [None, {}, {"modules": None}, {"modules": ["x"]}])
def test_health_without_modules_says_nothing(health: dict[str, Any] | None) -> None:
    assert module_texts(health) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:s3cret@127.0.0.1:1/0", "redis://:***@127.0.0.1:1/0"),
        ("postgresql://quantum:s3cret@127.0.0.1/x", "postgresql://quantum:***@127.0.0.1/x"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("", ""),
    ],
)
def test_passwords_in_addresses_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
