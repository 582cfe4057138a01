"""A process with a disk buffer that does what it is told, line by line, until somebody ends it.

Started as ``python -m tests.support.buffer_program PATH``; every order on stdin is one JSON object:

    {"append": [numbers], "size": bytes}    append one entry per number, each by a caller of its own, in this order
    {"append_for_ever": callers}            append until killed; tell every number as soon as it is promised
    {"remember": [numbers]}                 acknowledge
    {"settle": count}                       settle the oldest
    {"file_size": bytes or null}            the most that any file of this process may have, null for no bound
    {}                                      do nothing

The answer is one JSON object: ``kept``, ``refused`` (numbers), ``events``, ``bytes`` and ``alarm``.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from pathlib import Path
from typing import Any

from shared.clock import SystemClock
from shared.disk_buffer import BufferedEntry, DiskBuffer
from shared.errors import BufferFullError
from shared.telemetry.logs import configure_logging


def entry(number: int, size: int = 500) -> BufferedEntry:
    """Return the entry of ``number``; a multiple of ten may be dropped."""
    payload = b"%d" % number
    return BufferedEntry("quantum:stream:test", {b"payload": payload.ljust(size)}, str(number), 1 if number % 10 else 4)


class BufferProgram:
    """Carries out orders on one buffer."""

    def __init__(self, path: Path) -> None:
        self._buffer = DiskBuffer(path, clock=SystemClock(), service="ai-service")

    async def run(self) -> None:
        """Serve until stdin ends."""
        await self._buffer.start()
        tell(self._stand())
        while line := await asyncio.to_thread(sys.stdin.readline):
            tell({**await self._carry_out(json.loads(line)), **self._stand()})
        await self._buffer.stop()

    async def _carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        if numbers := order.get("append"):
            return await self._append(numbers, order["size"])
        if callers := order.get("append_for_ever"):
            await asyncio.gather(*(self._append_for_ever(one, callers) for one in range(callers)))
        if numbers := order.get("remember"):
            self._buffer.remember([entry(number) for number in numbers], [f"1-{number}" for number in numbers])
            await self._buffer.remembered()
        if count := order.get("settle"):
            oldest = await self._buffer.oldest(count)
            await self._buffer.settle(oldest, [f"2-{one.event_id}" for one in oldest])
        if "file_size" in order:
            _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (most if order["file_size"] is None else order["file_size"], most)
            )
        return {}

    async def _append(self, numbers: list[int], size: int) -> dict[str, Any]:
        calls = (self._buffer.append([entry(number, size)]) for number in numbers)
        results = await asyncio.gather(*calls, return_exceptions=True)
        kept = [number for number, error in zip(numbers, results, strict=True) if error is None]
        refused = [number for number, error in zip(numbers, results, strict=True) if isinstance(error, BufferFullError)]
        return {"kept": kept, "refused": refused}

    async def _append_for_ever(self, first: int, step: int) -> None:
        number = first
        while True:
            await self._buffer.append([entry(number)])
            tell({"kept": [number]})
            number += step

    def _stand(self) -> dict[str, Any]:
        return {"events": self._buffer.events, "bytes": self._buffer.bytes, "alarm": self._buffer.alarm}


def tell(answer: dict[str, Any]) -> None:
    """Write one line that the other side can have at once."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    configure_logging("buffer-program")
    asyncio.run(BufferProgram(Path(sys.argv[1])).run())
