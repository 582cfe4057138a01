"""How late the event loop is, and from when on that is too late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from shared.clock import ManualClock
from shared.health.checks import HealthMonitor
from shared.health.contract import DependencyHealth, HealthStatus
from shared.health.event_loop import EventLoopLag, event_loop_check
from shared.service import Service
from shared.telemetry.metrics import Metrics
from tests.support.eventually import eventually

START = datetime(2025, 5, 4, 12, tzinfo=UTC)


class Loop:
    """An event loop whose time is moved by hand, and the health of it."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.metrics = Metrics("desk", self.clock)
        self.lag = EventLoopLag("desk", clock=self.clock, registry=self.metrics.registry)
        self.monitor = HealthMonitor({"event-loop": event_loop_check(self.lag)}, clock=self.clock)

    async def passes(self, seconds: float) -> None:
        """Let time pass in one go: whatever was to happen in between is late."""
        self.clock.advance(seconds)
        await eventually(lambda: len(self.clock._sleepers) == 2, what="measuring and checking asleep again")

    @property
    def told(self) -> DependencyHealth:
        return self.monitor.report(Service("desk", [])).dependencies["event-loop"]


@pytest.fixture
async def loop() -> AsyncIterator[Loop]:
    made = Loop()
    await made.lag.start()
    await made.monitor.start()
    await made.passes(0)
    yield made
    await made.monitor.stop()
    await made.lag.stop()


@pytest.mark.parametrize(
    ("late_seconds", "status"),
    [
        (0.0, HealthStatus.OK),
        (0.25, HealthStatus.OK),
        (0.3, HealthStatus.DEGRADED),
        (5.0, HealthStatus.DEGRADED),
        (5.1, HealthStatus.DOWN),
    ],
)
async def test_lateness_has_its_state(loop: Loop, late_seconds: float, status: HealthStatus) -> None:
    for _ in range(40):
        await loop.passes(0.1)
    await loop.passes(0.1 + late_seconds)
    for _ in range(10):
        await loop.passes(0.1)

    assert loop.told.status is status
    assert loop.told.latency_ms == pytest.approx(1000 * late_seconds)


async def test_a_loop_that_was_held_is_told_for_a_while_and_then_forgotten(loop: Loop) -> None:
    await loop.passes(7.1)
    await loop.passes(0.1)
    assert loop.lag.worst_seconds() == pytest.approx(7.0)
    for _ in range(20):
        await loop.passes(0.1)
    assert loop.told.error == "the event loop was held for 7000 ms"
    for _ in range(40):
        await loop.passes(0.1)
    assert loop.told.status is HealthStatus.OK
    assert loop.lag.worst_seconds() == pytest.approx(0.0)


async def test_a_lateness_that_still_grows_is_told_too(loop: Loop) -> None:
    loop.clock.advance(3.1)

    assert loop.lag.worst_seconds() == pytest.approx(3.0)
    assert 'event_loop_lag_seconds{service="desk"} 3.0' in loop.metrics.render()[0].decode().splitlines()


async def test_before_the_start_and_after_the_end_nothing_is_late() -> None:
    clock = ManualClock(START)
    lag = EventLoopLag("desk", clock=clock, registry=Metrics("desk", clock).registry)
    clock.advance(60)
    assert lag.worst_seconds() == 0.0
    await lag.start()
    await eventually(lambda: clock._sleepers)
    await lag.stop()
    clock.advance(60)
    assert lag.worst_seconds() == 0.0
