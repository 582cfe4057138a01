"""Starts the processes of one contestant, gives them their cues, and collects what they measured."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shared.errors import DeadlineExceededError, TransientError

#: Longest wait for one sign of life: so long, and that many times what a worker was given for its work, because a slow
#: consumer has to catch up.
_PATIENCE_SECONDS = 90.0
_PATIENCE_TIMES = 10.0
#: Longest part of a worker's last line that is told.
_WORDS = 300


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker does.

    Attributes:
        role: Name for people: ``producer``, ``consumer``, ``server``.
        runs: ``module:function`` inside ``infrastructure.bench``.
        options: Told to the function.
    """

    role: str
    runs: str
    options: Mapping[str, Any]


class Worker:
    """One process of a contestant."""

    def __init__(self, part: Part, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self._part = part
        self._process = process
        self._errors = errors
        self._patience = _PATIENCE_SECONDS + _PATIENCE_TIMES * float(part.options.get("seconds", 0.0))

    async def brief(self, profile: str | None) -> None:
        """Tell it what it shall do, and where its profile goes."""
        await self._tell({**self._part.options, "profile": profile})

    async def ready(self) -> dict[str, Any]:
        """Wait until it is prepared; return the facts that it tells."""
        return await self._hear("ready")

    async def go(self) -> None:
        """Let it begin."""
        await self._tell({"go": True})

    async def expect(self, count: int) -> None:
        """Tell it how many events there are in all."""
        await self._tell({"expected": count})

    async def result(self) -> dict[str, Any]:
        """Wait for what it measured, and for its end."""
        result = await self._hear("result")
        await asyncio.wait_for(self._process.wait(), _PATIENCE_SECONDS)
        return result

    async def end(self) -> None:
        """End it, whatever it does."""
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        self._errors.close()

    async def _tell(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        await self._process.stdin.drain()

    async def _hear(self, what: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), self._patience)
        except TimeoutError:
            raise DeadlineExceededError(f"{self._part.runs} did not say {what!r} within {self._patience:g} s") from None
        if not line:
            raise TransientError(f"{self._part.runs} ended before it said {what!r}: {self._last_words()}")
        message: dict[str, Any] = json.loads(line)[what]
        return message

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:_WORDS] if lines else "it said nothing"


@asynccontextmanager
async def crew(*parts: Part, profile_to: Path | None = None) -> AsyncIterator[list[Worker]]:
    """Yield a worker per part; none of them is left running.

    Args:
        parts: What each of them does.
        profile_to: Where each writes a profile, ``<this>.<role>.txt``; None for none.
    """
    async with AsyncExitStack() as ends:
        workers: list[Worker] = []
        for part in parts:
            worker = await _start(part)
            ends.push_async_callback(worker.end)
            await worker.brief(None if profile_to is None else f"{profile_to}.{part.role}.txt")
            workers.append(worker)
        yield workers


async def _start(part: Part) -> Worker:
    errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by Worker.end
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "infrastructure.bench.worker",
        part.runs,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
    )
    return Worker(part, process, errors)
