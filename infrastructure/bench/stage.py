"""What all contestants share: one Redis, one folder, one machine whose processor time is counted."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from infrastructure.bench.rivals.hand_packed import BlockingRedis, pack
from infrastructure.bench.rivals.nats_program import NatsProgram
from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.clock import Clock
from shared.errors import TransientError

_LOOK_SECONDS = 0.01
#: As in production, but for the rewriting of the log, which would fall into some contestant's round at random.
_DIRECTIVES = {"auto-aof-rewrite-percentage": "0"}


@dataclass(slots=True)
class Stage:
    """Where contestants meet.

    Attributes:
        redis: The server; its ``url`` goes to the contestants.
        folder: For files of contestants.
        clock: Wall clock.
        profile_to: Where workers write profiles (a path without its end); None for none.
        whole_run: Figures of the one whole run of the system; None before it.
    """

    redis: EmbeddedRedis
    folder: Path
    clock: Clock
    profile_to: Path | None = None
    nats: NatsProgram | None = field(default=None)
    whole_run: Mapping[str, Any] | None = field(default=None)

    async def clear(self) -> None:
        """Empty Redis, its log on the disk included, and the folder for files."""
        server = BlockingRedis(self.redis.url)
        server.ask(pack(b"FLUSHALL"))
        server.ask(pack(b"BGREWRITEAOF"))
        while b"aof_rewrite_in_progress:1" in server.ask(pack(b"INFO", b"persistence")):
            await self.clock.sleep(_LOOK_SECONDS)
        server.close()
        shutil.rmtree(self.files)
        self.files.mkdir()

    @property
    def files(self) -> Path:
        """Folder for files of the contestant at work."""
        return self.folder / "files"

    def require_all_acknowledged(self, stream: str) -> None:
        """Check that a consumer did what it said.

        Raises:
            TransientError: An entry of ``stream`` was not read, or not acknowledged.
        """
        server = BlockingRedis(self.redis.url)
        newest = _by_name(server.ask(pack(b"XINFO", b"STREAM", stream.encode())))[b"last-generated-id"]
        groups = [_by_name(group) for group in server.ask(pack(b"XINFO", b"GROUPS", stream.encode()))]
        server.close()
        for group in groups:
            if group[b"pending"] or group[b"last-delivered-id"] != newest:
                raise TransientError(f"{stream}: entries of the benchmark were never read or acknowledged: {group!r}")

    def redis_seconds(self) -> float:
        """Return the processor time that Redis has used."""
        assert self.redis.process_id is not None
        return _processor_seconds(psutil.Process(self.redis.process_id))

    async def nats_url(self) -> str:
        """Return the URL of the NATS server, started when it is asked for first."""
        if self.nats is None:
            self.nats = NatsProgram(self.folder / "nats")
            await self.nats.start(self.clock)
        return self.nats.url


@asynccontextmanager
async def open_stage(clock: Clock, *, profile_to: Path | None = None) -> AsyncIterator[Stage]:
    """Yield a stage with a running Redis; nothing of it is left afterwards."""
    folder = _new_folder()
    redis = EmbeddedRedis(folder / "redis", directives=_DIRECTIVES)
    stage = Stage(redis, folder, clock, profile_to)
    stage.files.mkdir()
    try:
        await redis.start()
        yield stage
    finally:
        if stage.nats is not None:
            stage.nats.stop()
        await redis.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="quantum-trader-bench-"))
    folder.chmod(0o711)  # Redis has a user of its own
    return folder


class MachineUse:
    """Counts the processor time of the whole machine since it was made."""

    def __init__(self) -> None:
        self.load = os.getloadavg()[0]
        self._began = _machine_seconds()

    def shares(self, own_seconds: float) -> tuple[float, float]:
        """Return which share of the machine was busy, and which share others than we used, 0 to 1 each."""
        busy, total = (now - then for now, then in zip(_machine_seconds(), self._began, strict=True))
        if total <= 0:
            return 0.0, 0.0
        return busy / total, max(0.0, busy - own_seconds) / total


def _machine_seconds() -> tuple[float, float]:
    times = psutil.cpu_times()
    total = sum(times) - times.guest - times.guest_nice  # guests are counted as users already
    return total - times.idle - times.iowait, total


def _processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _by_name(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
