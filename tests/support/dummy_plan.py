"""Lines of a plan whose programs are dummies."""

from __future__ import annotations

import sys
from pathlib import Path

from infrastructure.supervisor.plan import Program
from infrastructure.supervisor.process import command_launcher
from infrastructure.supervisor.restart_policy import RestartPolicy
from shared.backoff import Backoff

#: Restarts almost at once, so that tests do not wait.
EAGER = RestartPolicy(max_restarts=3, window_seconds=60.0, backoff=Backoff(base_seconds=0.01, cap_seconds=0.01))
_DUMMY = Path(__file__).with_name("dummy_program.py")


def dummy(
    name: str,
    folder: Path,
    *,
    depends_on: tuple[str, ...] = (),
    behaviour: str = "serve",
    restart: RestartPolicy = EAGER,
    start_timeout_seconds: float = 20.0,
    grace_seconds: float = 5.0,
) -> Program:
    """Return a program that keeps its journal and its marks in ``folder``; see ``dummy_program`` for behaviours."""
    ready_mark = folder / f"{name}.ready"

    async def ready() -> bool:
        return ready_mark.exists()

    launch = command_launcher(
        [sys.executable, "-S", str(_DUMMY), name, str(folder), behaviour], environment={}, log=folder / f"{name}.log"
    )
    return Program(
        name=name,
        launch=launch,
        ready=ready,
        depends_on=depends_on,
        restart=restart,
        start_timeout_seconds=start_timeout_seconds,
        grace_seconds=grace_seconds,
    )


def journal(folder: Path) -> list[str]:
    """Return what the dummies noted, in order: ``ready NAME`` and ``stopped NAME``."""
    path = folder / "journal"
    return path.read_text().splitlines() if path.exists() else []
