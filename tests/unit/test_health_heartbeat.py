"""What heartbeats make of the monitor, and that they go out whatever checks and the bus do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from shared.bus.event_bus import Handler
from shared.bus.progress import BusProgress
from shared.clock import ManualClock
from shared.errors import ConnectionLostError
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.events.v3 import ServiceHeartbeatPayload
from shared.health.checks import DependencyCheck, HealthMonitor
from shared.health.heartbeat import Heartbeat
from shared.service import Service
from tests.support.eventually import eventually

START = datetime(2025, 5, 4, 12, tzinfo=UTC)


class HeartbeatBus:
    """Keeps heartbeats; refuses them, or lets them wait, while it is told to."""

    def __init__(self) -> None:
        self.beats: list[ServiceHeartbeatPayload] = []
        self.away: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.under_way = 0

    async def publish(self, event_type: str, payload: EventPayload, **_: str | None) -> Event[Any]:
        assert event_type == "service.heartbeat"
        assert isinstance(payload, ServiceHeartbeatPayload)
        if self.away:
            raise self.away
        self.under_way += 1
        await self.answers.wait()
        self.under_way -= 1
        self.beats.append(payload)
        return Event(EventMetadata("1", event_type, "1", None, START, "desk", 1), payload)

    def progress(self) -> BusProgress:
        return BusProgress(pending=3, processed_last_minute=40, last_event_id="e-7", lag_seconds=0.1)

    def subscribe(self, pattern: str, handler: Handler) -> None:
        """Nobody is told."""

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""


class Desk:
    """A service of which only heartbeats are seen; started unless told otherwise."""

    def __init__(self, **checks: DependencyCheck) -> None:
        self.clock, self.bus = ManualClock(START), HeartbeatBus()
        self.service = Service("desk-service", [])
        self.health = HealthMonitor(checks, clock=self.clock, timeout_seconds=0.01)
        self.heartbeat = Heartbeat(
            bus=self.bus,
            service=lambda: self.service,
            health=self.health,
            clock=self.clock,
            interval_seconds=5.0,
            market_data_age=lambda: -0.5,
        )


async def test_a_heartbeat_every_interval_carries_state_and_progress() -> None:
    desk = Desk()
    clock, bus = desk.clock, desk.bus
    await desk.service.start()
    await desk.heartbeat.start()
    await eventually(lambda: len(bus.beats) == 1 and clock._sleepers)
    clock.advance(5.0)
    await eventually(lambda: len(bus.beats) == 2 and clock._sleepers)
    clock.advance(5.0)
    await eventually(lambda: len(bus.beats) == 3)
    beat = bus.beats[2]
    assert (beat.service_name, beat.status, beat.uptime_seconds) == ("desk-service", "HEALTHY", 10.0)
    assert (beat.pending_events, beat.processed_events_last_minute, beat.last_event_id) == (3, 40, "e-7")
    assert beat.market_data_age_seconds == 0
    assert beat.memory_used_mb > 1
    assert beat.active_tasks is not None
    assert beat.active_tasks >= 1
    await desk.heartbeat.stop()


async def test_heartbeats_go_on_after_the_bus_failed_in_any_way_and_a_service_that_starts_is_degraded() -> None:
    desk = Desk()
    for failure in (ConnectionLostError("away"), RuntimeError("nobody thought of this")):
        desk.bus.away = failure
        await desk.heartbeat.start()
        await eventually(lambda: desk.clock._sleepers)
        desk.bus.away = None
        desk.clock.advance(5.0)
        await eventually(lambda: desk.bus.beats)
        assert desk.bus.beats.pop().status == "DEGRADED"
        await desk.heartbeat.stop()
        desk.clock.advance(5.0)


async def test_a_heartbeat_goes_out_while_a_check_hangs_and_says_so() -> None:
    async def hangs() -> float:
        await asyncio.Event().wait()
        return 0.0

    desk = Desk(redis=DependencyCheck(hangs))
    await desk.service.start()
    await desk.heartbeat.start()
    await eventually(lambda: desk.bus.beats)
    assert desk.bus.beats[0].status == "DEGRADED", "nothing is known yet"

    await desk.health.start()
    await eventually(lambda: len(desk.clock._sleepers) == 2, what="the verdict on the check")
    desk.clock.advance(5.0)
    await eventually(lambda: len(desk.bus.beats) == 2)
    assert desk.bus.beats[1].status == "CRITICAL"
    await desk.heartbeat.stop()
    await desk.health.stop()


async def test_heartbeats_do_not_pile_up_behind_one_that_waits() -> None:
    desk = Desk()
    desk.bus.answers.clear()
    await desk.heartbeat.start()
    await eventually(lambda: desk.bus.under_way == 1)

    for _ in range(20):
        desk.clock.advance(5.0)
        await asyncio.sleep(0)
    assert desk.bus.under_way == 1

    desk.bus.answers.set()
    await eventually(lambda: desk.bus.beats and desk.clock._sleepers)
    assert len(desk.bus.beats) == 1
    await desk.heartbeat.stop()
