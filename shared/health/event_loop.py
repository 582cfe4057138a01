"""How late the event loop is: a loop that is held by one piece of code serves nobody, however well its servers are."""

from __future__ import annotations

import asyncio
from collections import deque

from prometheus_client import CollectorRegistry, Gauge

from shared.cancellation import end_task
from shared.clock import Clock
from shared.health.checks import DependencyCheck
from shared.health.contract import DependencyHealth, HealthStatus

#: Above this lateness within the last seconds the service is DEGRADED, above the other it is DOWN.
LAG_SLOW_MS = 250.0
LAG_DOWN_MS = 5000.0
#: How long a lateness is told: no shorter than the time between two checks, so that none is missed.
LAG_MEMORY_SECONDS = 5.0
_TICK_SECONDS = 0.1


class EventLoopLag:
    """Component that sleeps for a moment again and again, and notes how late it wakes up.

    Start it last: what a service does at its start, imports and migrations included, may hold the loop.

    Attributes:
        name: Component name.
    """

    name = "event-loop"

    def __init__(self, service: str, *, clock: Clock, registry: CollectorRegistry) -> None:
        """Prepare, without measuring.

        Args:
            service: Label of the figure.
            clock: Wall clock.
            registry: Gets ``event_loop_lag_seconds``, the greatest lateness of the last 5 s.
        """
        self._clock = clock
        self._noted: deque[tuple[float, float]] = deque()
        self._due: float | None = None
        self._task: asyncio.Task[None] | None = None
        gauge = Gauge(
            "event_loop_lag_seconds", "Greatest lateness of the event loop, last 5 s", ["service"], registry=registry
        )
        gauge.labels(service).set_function(self.worst_seconds)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._measure(), name=self.name)

    async def stop(self) -> None:
        if self._task is not None:
            await end_task(self._task)
        self._task = self._due = None

    def worst_seconds(self) -> float:
        """Return the greatest lateness of the last 5 s, one that still grows included."""
        grows = 0.0 if self._due is None else self._clock.monotonic() - self._due
        return max([0.0, grows, *(lateness for _, lateness in self._noted)])

    async def _measure(self) -> None:
        while True:
            self._due = self._clock.monotonic() + _TICK_SECONDS
            await self._clock.sleep(_TICK_SECONDS)
            now = self._clock.monotonic()
            self._noted.append((now, max(0.0, now - self._due)))
            while now - self._noted[0][0] > LAG_MEMORY_SECONDS:
                self._noted.popleft()


def event_loop_check(lag: EventLoopLag) -> DependencyCheck:
    """Return the check of this process's event loop."""

    async def probe() -> DependencyHealth:
        late_ms = round(lag.worst_seconds() * 1000.0, 3)
        if late_ms > LAG_DOWN_MS:
            return DependencyHealth(
                status=HealthStatus.DOWN, latency_ms=late_ms, error=f"the event loop was held for {late_ms:.0f} ms"
            )
        return DependencyHealth(status=HealthStatus.OK, latency_ms=late_ms)

    return DependencyCheck(probe, slow_ms=LAG_SLOW_MS)
