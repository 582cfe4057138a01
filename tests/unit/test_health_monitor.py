"""What the monitor makes of its checks, and what heartbeats make of the monitor."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.bus.event_bus import Handler
from shared.bus.progress import BusProgress
from shared.clock import ManualClock
from shared.errors import ConnectionLostError
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.events.v3 import ServiceHeartbeatPayload
from shared.health.checks import DependencyCheck, HealthMonitor
from shared.health.contract import HealthStatus
from shared.health.heartbeat import Heartbeat
from shared.service import Service
from tests.support.eventually import eventually

START = datetime(2025, 5, 4, 12, tzinfo=UTC)


async def quick() -> float:
    return 1.5


async def slow() -> float:
    return 250.3


async def refuses() -> float:
    raise ConnectionLostError("nobody there")


async def fails_without_words() -> float:
    raise RuntimeError


async def hangs() -> float:
    await asyncio.Event().wait()
    return 0.0


class HeartbeatBus:
    """Keeps heartbeats; refuses them while it is told to."""

    def __init__(self) -> None:
        self.beats: list[ServiceHeartbeatPayload] = []
        self.away = False

    async def publish(self, event_type: str, payload: EventPayload, **_: str | None) -> Event[Any]:
        assert event_type == "service.heartbeat"
        assert isinstance(payload, ServiceHeartbeatPayload)
        if self.away:
            raise ConnectionLostError("away")
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


@pytest.mark.parametrize(
    ("probe", "status", "error"),
    [
        (quick, HealthStatus.OK, None),
        (slow, HealthStatus.DEGRADED, "slower than 200 ms"),
        (refuses, HealthStatus.DOWN, "nobody there"),
        (fails_without_words, HealthStatus.DOWN, "RuntimeError"),
        (hangs, HealthStatus.DOWN, "no answer within 0.01 s"),
    ],
)
async def test_each_answer_of_a_dependency_has_its_state(
    probe: Callable[[], Awaitable[float]], status: HealthStatus, error: str | None
) -> None:
    monitor = HealthMonitor(
        {"postgres": DependencyCheck(probe, slow_ms=200)}, clock=ManualClock(START), timeout_seconds=0.01
    )
    service = Service("desk", [])
    await service.start()
    assert monitor.report(service).dependencies["postgres"].error == "not checked yet"
    await monitor.start()
    await eventually(lambda: monitor.report(service).dependencies["postgres"].error != "not checked yet")
    report = monitor.report(service)
    assert report.dependencies["postgres"].status is status
    assert report.status is status
    assert report.dependencies["postgres"].error == error
    await monitor.stop()


async def test_a_check_is_repeated_every_five_seconds_and_sooner_when_something_is_wrong() -> None:
    clock, answers = ManualClock(START), iter([1.0, 1000.0, 1.0])

    async def changing() -> float:
        return next(answers)

    monitor = HealthMonitor({"redis": DependencyCheck(changing, slow_ms=100)}, clock=clock)
    service = Service("desk", [])

    def status() -> HealthStatus:
        return monitor.report(service).dependencies["redis"].status

    await monitor.start()
    await eventually(lambda: status() is HealthStatus.OK)
    await eventually(lambda: clock._sleepers)
    clock.advance(4.9)
    await asyncio.sleep(0)
    assert status() is HealthStatus.OK
    clock.advance(0.1)
    await eventually(lambda: status() is HealthStatus.DEGRADED and clock._sleepers)
    clock.advance(1.0)
    await eventually(lambda: status() is HealthStatus.OK)
    await monitor.stop()


async def test_a_heartbeat_every_interval_carries_state_and_progress() -> None:
    clock, bus = ManualClock(START), HeartbeatBus()
    monitor = HealthMonitor({}, clock=clock)
    service = Service("desk-service", [])
    await service.start()
    heartbeat = Heartbeat(
        bus=bus,
        service=lambda: service,
        health=monitor,
        clock=clock,
        interval_seconds=5.0,
        market_data_age=lambda: -0.5,
    )
    await heartbeat.start()
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
    await heartbeat.stop()


async def test_heartbeats_go_on_after_the_bus_was_away_and_a_service_that_starts_is_degraded() -> None:
    clock, bus = ManualClock(START), HeartbeatBus()
    bus.away = True
    service = Service("desk-service", [])
    heartbeat = Heartbeat(
        bus=bus, service=lambda: service, health=HealthMonitor({}, clock=clock), clock=clock, interval_seconds=5.0
    )
    await heartbeat.start()
    await eventually(lambda: clock._sleepers)
    bus.away = False
    clock.advance(5.0)
    await eventually(lambda: bus.beats)
    assert bus.beats[0].status == "DEGRADED"
    assert bus.beats[0].market_data_age_seconds is None
    await heartbeat.stop()
