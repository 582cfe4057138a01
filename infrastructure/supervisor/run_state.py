"""The state file of the running system: how other commands find it, and how a second one is kept out."""

from __future__ import annotations

import fcntl
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
import psutil

from shared.errors import ConfigurationError, NotRunningError, QuantumTraderError


@dataclass(frozen=True, slots=True)
class RunState:
    """What a running system tells about itself.

    Attributes:
        pid: Process id of the supervisor.
        pid_started: Its start time, epoch seconds: a process id alone may belong to someone else by now.
        run_id: Name of this life of the account.
        run_dir: Folder with logs, clock and the embedded Redis of this run.
        phase: ``starting``, ``ready`` or ``stopping``.
        started_at: ISO 8601 UTC.
        settings: Symbols, timeframe, candles, speed, mode, as text for people.
        urls: By process name, plus ``redis`` and ``postgres``.
        versions: Of the suite and of Python.
        programs: By name: ``state``, ``pid``, ``restarts``.
    """

    pid: int
    pid_started: float
    run_id: str
    run_dir: str
    phase: str
    started_at: str
    settings: dict[str, Any] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    programs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether the supervisor that wrote this still runs."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.pid_started) < 1.0
        except psutil.Error:
            return False


def own_start_time() -> float:
    """Return this process's start time, epoch seconds."""
    return float(psutil.Process().create_time())


class StateFile:
    """``<state dir>/run/state.json``: written whole or not at all, readable by its owner only.

    It may hold a database URL with a password, hence the permissions.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "run" / "state.json"
        self._lock_path = state_dir / "run" / "lock"
        self._lock_descriptor: int | None = None

    def acquire(self) -> None:
        """Become the one supervisor of this state folder; the lock ends with the process, however it ends.

        Raises:
            ConfigurationError: The folder cannot be written.
            QuantumTraderError: Another one runs.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            folder = self._path.parent.parent
            raise ConfigurationError(f"the state folder {folder} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise QuantumTraderError(self._already_running()) from None
        self._lock_descriptor = descriptor

    def _already_running(self) -> str:
        state = self.read()
        who = f"run {state.run_id}, process {state.pid}" if state is not None else "it is just starting"
        return (
            f"a system is already running from {self._path.parent.parent} ({who}); "
            "stop it with Ctrl-C there, or use another --state-dir"
        )

    def release(self) -> None:
        """Remove the file and let others in."""
        if self._lock_descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def write(self, state: RunState) -> None:
        """Replace the file; a reader sees the old or the new one, never half of it."""
        temporary = self._path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(asdict(state), option=orjson.OPT_INDENT_2))
        temporary.replace(self._path)

    def read(self) -> RunState | None:
        """Return the state of the running system; None when there is none or it died without a word."""
        try:
            state = RunState(**orjson.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        return state if state.alive else None

    def require(self) -> RunState:
        """Return the state of the running system.

        Raises:
            NotRunningError: There is none.
        """
        state = self.read()
        if state is None:
            raise NotRunningError(
                f"no system is running from {self._path.parent.parent}; start one with: quantum-trader up"
            )
        return state


def with_program(state: RunState, name: str, values: dict[str, Any]) -> RunState:
    """Return ``state`` with one program's entry replaced."""
    return replace(state, programs={**state.programs, name: values})
