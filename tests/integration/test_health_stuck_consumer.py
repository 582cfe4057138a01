"""A heartbeat beside a stuck consumer: the process beats on, and what it beats is CRITICAL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import Clock, ManualClock, SystemClock
from shared.events.envelope import Event
from shared.events.v3 import ServiceHeartbeatPayload
from shared.health.checks import HealthMonitor
from shared.health.consuming import consumer_check
from shared.health.dependencies import redis_check
from shared.health.heartbeat import Heartbeat
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.service import Service
from tests.support.bus_stage import quick
from tests.support.event_payloads import START, candle
from tests.support.eventually import eventually


class Desk:
    """A service on a real Redis whose time is moved by hand, and somebody who hears its heartbeats."""

    def __init__(self, redis_url: str) -> None:
        self.clock = ManualClock(START)
        self.redis = RedisConnection(redis_url, clock=SystemClock())
        self.bus = self._bus("exec-risk-service", self.clock)
        self.listener = self._bus("analytics-os-service", SystemClock())
        self.bus.subscribe("candle.closed", self._on_candle)
        self.listener.subscribe("service.heartbeat", self._on_heartbeat)
        self.release, self.begun, self.others = asyncio.Event(), 0, 0
        self.beats: list[ServiceHeartbeatPayload] = []
        self.health = HealthMonitor(
            {
                "redis": redis_check(self.redis),
                "eventbus": consumer_check(self.bus.progress, explained_by=("redis",)),
            },
            clock=self.clock,
        )
        self.service = Service("exec-risk-service", [self.redis, self.listener, self._heartbeat(), self.bus])

    def _bus(self, service: str, clock: Clock) -> RedisStreamsBus:
        return RedisStreamsBus(
            self.redis,
            service=service,
            instance="one",
            clock=clock,
            ids=RandomIds(),
            market_clock=clock,
            options=quick(),
        )

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(
            bus=self.bus, service=lambda: self.service, health=self.health, clock=self.clock, interval_seconds=5.0
        )

    async def _on_candle(self, event: Event[Any]) -> None:
        if event.payload.symbol == "BTCUSDT":
            self.begun += 1
            await self.release.wait()
        else:
            self.others += 1

    async def _on_heartbeat(self, event: Event[ServiceHeartbeatPayload]) -> None:
        self.beats.append(event.payload)

    async def next_beat(self) -> ServiceHeartbeatPayload:
        """Let 5 s pass in which another key is handled, so that only the one handler stands still."""
        beats, others = len(self.beats), self.others
        await self.bus.publish("candle.closed", candle("ETHUSDT", number=others))
        await eventually(lambda: self.others > others, what="another key handled")
        self.clock.advance(5.0)
        await eventually(lambda: len(self.beats) > beats, what="a heartbeat")
        return self.beats[-1]

    async def beats_until(self, status: str, *, at_most: int = 40) -> int:
        """Return the number of the first heartbeat with ``status``, counted from now."""
        for number in range(1, at_most + 1):
            if (await self.next_beat()).status == status:
                return number
        raise AssertionError(f"no {status} heartbeat among {at_most}; the last: {self.beats[-1]}")


@pytest.fixture
async def desk(redis_url: str) -> AsyncIterator[Desk]:
    made = Desk(redis_url)
    await made.health.start()
    await made.service.start()
    yield made
    await made.health.stop()
    made.release.set()
    await made.service.stop()


async def test_a_heartbeat_beside_a_stuck_consumer_turns_critical_and_well_again(desk: Desk) -> None:
    await desk.beats_until("HEALTHY")
    await desk.bus.publish("candle.closed", candle())
    await eventually(lambda: desk.begun == 1, what="the handler at work")

    number = await desk.beats_until("CRITICAL")

    assert number > 6, "a handler may take 30 s"
    assert (desk.beats[-1].pending_events or 0) >= 1
    found = desk.health.report(desk.service).dependencies
    assert "a handler has been at work on one event for" in (found["eventbus"].error or "")
    assert found["eventbus"].status == "DOWN"

    desk.release.set()
    await desk.beats_until("HEALTHY")
