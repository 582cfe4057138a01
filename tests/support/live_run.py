"""A whole system under test: ``quantum-trader up`` with its processes, on a state folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.command_line import Command, Finished, start_command
from tests.support.eventually import eventually

SYMBOLS = "BTC/USDT:USDT,ETH/USDT:USDT,SOL/USDT:USDT"
#: Starting everything on a busy machine with two cores, training included.
START_SECONDS = 100.0


@dataclass(slots=True)
class LiveRun:
    """One ``up`` that is under way."""

    command: Command
    state_dir: Path

    def state(self) -> dict[str, Any]:
        """Return the state file; empty while there is none."""
        try:
            found: dict[str, Any] = json.loads((self.state_dir / "run" / "state.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return found

    async def ready(self) -> None:
        """Wait until everything is READY."""
        await eventually(lambda: self.state().get("phase") == "ready", timeout=START_SECONDS, what="the system")

    def pid(self, program: str) -> int | None:
        """Return the process id of ``program`` while it is READY."""
        entry = self.state().get("programs", {}).get(program, {})
        return entry.get("pid") if entry.get("state") == "READY" else None

    def kill(self, program: str) -> int:
        """End ``program`` as a crash would, and return the process id it had."""
        pid = self.pid(program)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    async def is_back(self, program: str, old_pid: int) -> None:
        """Wait until ``program`` is READY in a new process."""
        await eventually(
            lambda: self.pid(program) not in (None, old_pid), timeout=30.0, what=f"{program} after its death"
        )

    async def get(self, server: str, path: str) -> Any:
        """Return the JSON that ``server`` answers, or None when it does not."""
        async with httpx.AsyncClient() as http:
            try:
                answer = await http.get(self.state()["urls"][server] + path)
            except (httpx.HTTPError, KeyError):
                return None
        return answer.json() if answer.status_code == 200 else None

    async def post(self, server: str, path: str, body: dict[str, Any]) -> None:
        """Send JSON to ``server``."""
        async with httpx.AsyncClient() as http:
            (await http.post(self.state()["urls"][server] + path, json=body)).raise_for_status()

    async def has_positions(self, count: int) -> None:
        """Wait until the exchange has filled at least ``count`` orders."""

        async def filled() -> bool:
            books = await self.get("exchange-admin", "/admin/books") or {}
            return len(books.get("fills", ())) >= count

        await eventually(filled, timeout=60.0, what=f"{count} fills")


@asynccontextmanager
async def live_run(
    state_dir: Path, *, candles: Path, seconds: float, speed: float = 60.0, timeframe: str = "1m"
) -> AsyncIterator[LiveRun]:
    """Start ``up --for SECONDS --json``; what still runs at the end is stopped."""
    command = await start_command(
        *("up", "--candles", str(candles), "--symbols", SYMBOLS, "--timeframe", timeframe, "--speed", str(speed)),
        *("--for", str(seconds), "--json", "--port-base", "0", "--state-dir", str(state_dir)),
        cwd=state_dir,
    )
    run = LiveRun(command, state_dir)
    try:
        yield run
    finally:
        await command.stop()


async def run_to_the_end(state_dir: Path, *, candles: Path, seconds: float, speed: float = 60.0) -> Finished:
    """Run ``up`` undisturbed."""
    async with live_run(state_dir, candles=candles, seconds=seconds, speed=speed) as run:
        return await run.command.ended()


def with_models_of(trained: Path, fresh: Path) -> Path:
    """Return ``fresh`` with the models of ``trained``, so that a test need not wait for a training."""
    shutil.copytree(trained / "models", fresh / "models")
    return fresh
