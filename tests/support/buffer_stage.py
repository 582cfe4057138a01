"""Disk buffers on one file, one life after the other, with time and a disk that tests move by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from shared.clock import ManualClock
from shared.disk_buffer import BufferedEntry, DiskBuffer
from shared.disk_buffer.changes import Bounds, Changes, Outcome, Row
from shared.disk_buffer.storage import BufferFile
from shared.telemetry.metrics import Metrics
from tests.support.event_payloads import START
from tests.support.eventually import eventually

LIMIT = 10_000


def entry(name: str, priority: int = 1, size: int = 100) -> BufferedEntry:
    """Return an entry that takes about ``size`` bytes, and not less."""
    fields = {b"metadata": b"{}", b"payload": bytes(size), b"producer": b"one"}
    return BufferedEntry("quantum:stream:test", fields, name, priority)


def names(entries: Sequence[BufferedEntry]) -> list[str]:
    return [one.event_id for one in entries]


class ShyFile:
    """A file that counts what it is asked for, and stands still when told to."""

    def __init__(self, path: Path, clock: ManualClock) -> None:
        self._file = BufferFile(path, Bounds(2**30, 60.0, 10_000, 2**30), clock)
        self.commits: list[Changes] = []
        self.is_closed = False
        self.may_work, self.may_end = threading.Event(), threading.Event()
        self.may_work.set()
        self.may_end.set()

    def open(self) -> Outcome:
        return self._file.open()

    def commit(self, changes: Changes) -> Outcome:
        self.commits.append(changes)
        self.may_work.wait()
        return self._file.commit(changes)

    def tidy(self) -> Outcome:
        return self._file.tidy()

    def oldest(self, limit: int) -> list[Row]:
        return self._file.oldest(limit)

    def remembered(self) -> list[bytes]:
        self.may_work.wait()
        return self._file.remembered()

    def cursors(self) -> dict[str, str]:
        return self._file.cursors()

    def close(self) -> None:
        self._file.close()
        self.is_closed = True
        self.may_end.wait()


class Stage:
    """Buffers on one file, one life after the other."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state" / "events.buffer"
        self.clock = ManualClock(START)
        self.buffers: list[DiskBuffer] = []
        self.files: list[ShyFile] = []

    def shy_file(self) -> ShyFile:
        self.files.append(ShyFile(self.path, self.clock))
        return self.files[-1]

    async def open(
        self,
        *,
        limit_bytes: int = LIMIT,
        keep_events: int = 10_000,
        keep_bytes: int = 2**20,
        metrics: Metrics | None = None,
        storage: ShyFile | None = None,
    ) -> DiskBuffer:
        buffer = DiskBuffer(
            self.path,
            clock=self.clock,
            service="ai-service",
            limit_bytes=limit_bytes,
            keep_events=keep_events,
            keep_bytes=keep_bytes,
            metrics=metrics,
            storage=storage,
        )
        self.buffers.append(buffer)
        await buffer.start()
        return buffer

    async def reopen(self) -> DiskBuffer:
        await self.buffers[-1].stop()
        return await self.open()

    async def time_passes_until(self, condition: Callable[[], object]) -> None:
        """Move the clock in small steps, so that everything that waits for it gets its turn in between."""

        def is_reached() -> bool:
            self.clock.advance(0.5)
            return bool(condition())

        await eventually(is_reached)

    async def end(self) -> None:
        """Let every disk work, and end every buffer."""
        for file in self.files:
            file.may_work.set()
            file.may_end.set()
        for buffer in self.buffers:
            await buffer.stop()
