"""The one thread that waits for a disk, so that the event loop never does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from shared.clock import Clock

T = TypeVar("T")
#: What is to be done, and who is told its result or its error in the event loop.
_Job = tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]


class DiskThread:
    """Does jobs one after the other.

    Attributes:
        is_running: Whether jobs are taken.
        busy_since: When the present job began, on the clock's ``monotonic``; None while there is none.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self.is_running = False
        self.busy_since: float | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; results are told in ``loop``. A disk that never answers does not keep the process from ending."""
        self.is_running = True
        Thread(target=self._work, args=(loop,), name="disk-buffer", daemon=True).start()

    def submit(self, work: Callable[[], T], done: Callable[[T, Exception | None], None]) -> None:
        """Do ``work`` after all that was submitted before; its result means nothing when there is an error."""
        self._jobs.put((work, done))

    def end(self) -> None:
        """End after all that was submitted; do not wait for it."""
        self.is_running = False
        self._jobs.put(None)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            result, error = None, None
            self.busy_since = self._clock.monotonic()
            try:
                result = work()
            except Exception as failure:  # noqa: BLE001 - it belongs to whoever asked
                error = failure
            self.busy_since = None
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done, result, error)
