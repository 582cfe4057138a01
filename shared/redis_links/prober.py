"""The one task that finds out whether Redis is there again, and keeps requests away from it until then."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from shared.backoff import Backoff
from shared.cancellation import end_task
from shared.circuit_breaker import CircuitBreaker
from shared.clock import Clock
from shared.errors import ConnectionLostError

log = structlog.get_logger(__name__)

#: Between the first probes, which decide whether there is an outage at all.
_CONFIRM_SECONDS = 0.5


class Prober:
    """Probes after the first sign of trouble until a probe succeeds; after some that failed, requests fail at once.

    Attributes:
        breaker: What it has found out.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        *,
        address: str,
        clock: Clock,
        backoff: Backoff,
        rng: random.Random | None,
        on_open: Callable[[str], None],
    ) -> None:
        """Prepare; nothing runs before ``wake``.

        Args:
            probe: Connects and asks; raises ConnectionLostError.
            address: What is probed, for messages.
            clock: Wall clock.
            backoff: Delays between probes once the breaker is open.
            rng: Spreads the probes of many processes.
            on_open: Called with the reason when the breaker opens.
        """
        self._probe = probe
        self._address = address
        self._clock = clock
        self._backoff = backoff
        self._rng = rng
        self._on_open = on_open
        self.breaker = CircuitBreaker()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self._hurry = asyncio.Event()
        self._closed = asyncio.Event()
        self._closed.set()
        self._failures_while_open = 0
        self._next_probe_at: float | None = None
        self._last_error = ""

    def wake(self) -> None:
        """Look at the server: something went wrong, or takes long."""
        if not self._stopped and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="redis-prober")

    def hurry(self) -> None:
        """Look at the server at once: there is news of it."""
        self._failures_while_open = 0
        self._hurry.set()
        self.wake()

    async def admit(self) -> None:
        """Let a request pass, after a probe of its own when there was none for long.

        Raises:
            ConnectionLostError: The breaker is open.
        """
        if self.breaker.is_closed:
            return
        if self.breaker.owes_a_probe(self._clock.monotonic()) and not self._turn.locked():
            await self._try()
        if not self.breaker.is_closed:
            raise ConnectionLostError(self._refusal())

    async def wait_closed(self) -> None:
        """Wait until requests are let through."""
        await self._closed.wait()

    async def stop(self) -> None:
        """End the task."""
        self._stopped = True
        if self._task is not None:
            await end_task(self._task)

    async def _run(self) -> None:
        while not await self._try():
            await self._pause()

    async def _try(self) -> bool:
        """Make one probe; tell whether it succeeded."""
        async with self._turn:
            self._hurry.clear()
            self._next_probe_at = None
            self.breaker.probed(self._clock.monotonic())
            try:
                await self._probe()
            except ConnectionLostError as error:
                self._note_failure(str(error))
                return False
            except BaseException:
                self.breaker.abandoned()
                raise
            self._note_success()
            return True

    def _note_failure(self, reason: str) -> None:
        self._last_error = reason
        if self.breaker.failed(self._clock.monotonic()):
            self._closed.clear()
            self._failures_while_open = 0
            log.error("redis_breaker_opened", address=self._address, reason=reason)
            self._on_open(reason)
        if not self.breaker.is_closed:
            self._failures_while_open += 1

    def _note_success(self) -> None:
        away_since, was_open = self.breaker.away_since, not self.breaker.is_closed
        self.breaker.succeeded()
        self._closed.set()
        if was_open and away_since is not None:
            away_seconds = round(self._clock.monotonic() - away_since, 3)
            log.info("redis_breaker_closed", address=self._address, away_seconds=away_seconds)

    async def _pause(self) -> None:
        delay = self._backoff.delay(max(1, self._failures_while_open), self._rng)
        if self.breaker.is_closed:
            delay = min(delay, _CONFIRM_SECONDS)
        self._next_probe_at = self._clock.monotonic() + delay
        waits = [asyncio.create_task(self._clock.sleep(delay)), asyncio.create_task(self._hurry.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _refusal(self) -> str:
        now = self._clock.monotonic()
        away_seconds = 0.0 if self.breaker.away_since is None else now - self.breaker.away_since
        since = self._clock.now() - timedelta(seconds=away_seconds)
        due = "now" if self._next_probe_at is None else f"in {max(0.0, self._next_probe_at - now):.1f} s"
        return (
            f"Redis at {self._address} is away since {since:%H:%M:%S} UTC ({away_seconds:.1f} s), next probe {due}: "
            f"{self._last_error}"
        )
