"""What runs by itself in the live service: lanes of requests, the reader of reports, the relay, the timer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import structlog

from services.exec_risk_service.domain.reports import VenueReport
from services.exec_risk_service.domain.step import Request, SubmitOrder
from services.exec_risk_service.ports import ReportStream
from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import TransientError

#: Entries on their way at the same time; exits and cancels never wait for them.
_ENTRIES_AT_ONCE = 8
#: Shorter than the time that a supervisor gives a process to end.
_STOP_SECONDS = 5.0

log = structlog.get_logger(__name__)


class BackgroundLanes:
    """Carries out requests concurrently: entries up to a bound, everything else at once.

    Attributes:
        name: Component name.
    """

    name = "order-lanes"

    def __init__(self) -> None:
        self._carry_out: Callable[[Request], Awaitable[None]] | None = None
        self._entries = asyncio.Semaphore(_ENTRIES_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, carry_out: Callable[[Request], Awaitable[None]]) -> None:
        """Name who does the work; called once by the composition root."""
        self._carry_out = carry_out

    async def start(self) -> None:
        """Nothing to do: the lanes are empty."""

    async def stop(self) -> None:
        """Let what is under way come to its answer; recovery finds what does not."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
        for task in list(self._tasks):
            task.cancel()

    async def dispatch(self, requests: tuple[Request, ...]) -> None:
        for request in requests:
            task = asyncio.create_task(self._run(request), name=f"lane-{type(request).__name__}")
            self._tasks.add(task)  # a task without a reference may vanish
            task.add_done_callback(self._tasks.discard)

    async def idle(self, seconds: float) -> None:
        """Wait until nothing is under way, but not longer than ``seconds``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._tasks:
                    await asyncio.wait(self._tasks)

    @property
    def under_way(self) -> int:
        """Requests on their way."""
        return len(self._tasks)

    async def _run(self, request: Request) -> None:
        assert self._carry_out is not None, "lanes are opened before the ledger is used"
        try:
            if isinstance(request, SubmitOrder) and not request.is_exit:
                async with self._entries:
                    await self._carry_out(request)
            else:
                await self._carry_out(request)
        except Exception as error:  # noqa: BLE001 - the book still holds what is open; chase and recovery go on with it
            log.error("request_failed", request=str(request), error=f"{type(error).__name__}: {error}")


class BackgroundTask:
    """One coroutine with the life of a component.

    Attributes:
        name: Component name.
    """

    def __init__(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.name = name
        self._run = run
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.name)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)


class RelayTask:
    """Publishes the outbox whenever it is woken, and again after a failure until the bus takes it.

    Attributes:
        name: Component name.
    """

    name = "outbox-relay"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._work = asyncio.Event()
        self._drain: Callable[[], Awaitable[int]] | None = None
        self._backoff = Backoff(base_seconds=0.1, factor=2.0, cap_seconds=5.0)
        self._task = BackgroundTask(self.name, self._run)

    def open(self, drain: Callable[[], Awaitable[int]]) -> None:
        """Name what empties the outbox; called once by the composition root."""
        self._drain = drain

    async def wake(self) -> None:
        """Tell that events wait."""
        self._work.set()

    async def start(self) -> None:
        await self._task.start()

    async def stop(self) -> None:
        """Stop, after one last try to publish what waits."""
        await self._task.stop()
        if self._drain is not None:
            with suppress(TransientError):
                await self._drain()

    async def _run(self) -> None:
        assert self._drain is not None, "the relay is opened before it is started"
        failures = 0
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._drain()
                failures = 0
            except Exception as error:  # noqa: BLE001 - facts are never given up
                failures += 1
                log.warning("outbox_not_published", error=f"{type(error).__name__}: {error}", failures=failures)
                await self._clock.sleep(self._backoff.delay(failures))
                self._work.set()


async def pump(
    stream: ReportStream, on_report: Callable[[VenueReport], Awaitable[None]], on_loss: Callable[[], None]
) -> None:
    """Hand every report of ``stream`` over; one that cannot be applied is made up for by a comparison."""
    async for report in stream.reports():
        try:
            await on_report(report)
        except Exception as error:  # noqa: BLE001 - the next report must still be read
            log.error("report_not_applied", report=str(report)[:300], error=f"{type(error).__name__}: {error}")
            on_loss()


async def every(clock: Clock, seconds: float, action: Callable[[], Awaitable[None]]) -> None:
    """Run ``action`` again and again with a pause of wall time; a failure does not end it."""
    while True:
        try:
            await action()
        except TransientError as error:
            log.warning("maintenance_delayed", error=str(error))
        except Exception as error:
            log.error("maintenance_failed", error=f"{type(error).__name__}: {error}", exc_info=error)
        await clock.sleep(seconds)
