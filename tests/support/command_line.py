"""The command line as a user runs it: a process of its own, with an environment of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Variables of the developer's shell that would change what a run does.
_OURS = ("QT_", "REDIS_URL", "POSTGRES_URL", "TRADING_MODE", "BINANCE_", "LOG_LEVEL")


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    exit_code: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, Any]:
        """Return the one JSON object on stdout."""
        parsed: dict[str, Any] = json.loads(self.stdout)
        return parsed

    def json_lines(self) -> list[dict[str, Any]]:
        """Return the JSON objects on stdout, one per line."""
        return [json.loads(line) for line in self.stdout.splitlines()]


class Command:
    """A ``quantum-trader`` that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def ended(self) -> Finished:
        """Wait for its end."""
        stdout, stderr = await self._process.communicate()
        assert self._process.returncode is not None
        return Finished(self._process.returncode, stdout.decode(), stderr.decode())

    async def stop(self) -> None:
        """End it if it still runs, and wait."""
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.communicate()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)


async def start_command(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Command:
    """Start ``quantum-trader`` with these arguments in ``cwd``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infrastructure.cli.main",
        *arguments,
        cwd=cwd,
        env={**inherited, **(environment or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return Command(process)


async def run_command(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Finished:
    """Run ``quantum-trader`` to its end."""
    return await (await start_command(*arguments, cwd=cwd, environment=environment)).ended()
