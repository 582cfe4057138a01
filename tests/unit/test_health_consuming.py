"""When a consumer is stuck, and when it only waits, retries, or is slow; and a buffer that can keep nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest

from shared.backoff import Backoff
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.progress import BusProgress
from shared.clock import ManualClock
from shared.errors import TransientError
from shared.events.envelope import Event
from shared.health.consuming import consumer_check, consumer_health, storage_check
from shared.health.contract import DependencyHealth, HealthStatus
from shared.ids import RandomIds
from tests.support.bus_stage import policy, quick
from tests.support.event_payloads import START, candle
from tests.support.eventually import eventually

WELL = BusProgress(pending=0, processed_last_minute=12, last_event_id="e-7", lag_seconds=0.25)


@pytest.mark.parametrize(
    ("in_hand", "since_read", "error"),
    [
        (0.0, 0.0, None),
        (30.0, 30.0, None),
        (30.5, 0.0, "a handler has been at work on one event for 30 s, 3 events are in hand"),
        (0.0, 31.0, "the read loop has not come round for 31 s"),
        (40.0, 31.0, "a handler has been at work on one event for 40 s, 3 events are in hand"),
    ],
)
def test_a_try_or_a_read_that_takes_too_long_is_stuck(in_hand: float, since_read: float, error: str | None) -> None:
    found = consumer_health(BusProgress(3, 12, "e-7", 0.25, in_hand, since_read), stuck_after_seconds=30.0)

    assert found.status is (HealthStatus.DOWN if error else HealthStatus.OK)
    assert found.error == error


async def test_the_figures_are_told_with_it() -> None:
    found = await consumer_check(lambda: WELL).probe()

    assert isinstance(found, DependencyHealth)
    assert found.details == {
        "pending": 0,
        "processed_last_minute": 12,
        "last_event_id": "e-7",
        "lag_seconds": 0.25,
        "oldest_in_hand_seconds": 0.0,
        "seconds_since_read": 0.0,
    }


@pytest.mark.parametrize(
    ("alarm", "status"), [(None, HealthStatus.OK), ("the disk is full: 3 MiB left", HealthStatus.DOWN)]
)
async def test_a_buffer_that_can_keep_nothing_is_told_and_takes_nobody_down(
    alarm: str | None, status: HealthStatus
) -> None:
    check = storage_check(lambda: alarm)
    found = await check.probe()

    assert isinstance(found, DependencyHealth)
    assert (found.status, found.error, check.is_critical) == (status, alarm, False)


class Desk:
    """A real consumer on a bus in memory, with time moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.bus = MemoryBus(
            MemoryBroker(),
            service="exec-risk-service",
            instance="one",
            clock=self.clock,
            ids=RandomIds(),
            market_clock=self.clock,
            options=quick(policy=policy(backoff=Backoff(base_seconds=60.0)), stop_timeout_seconds=0.05),
        )
        self.begun: list[datetime] = []
        self.others = 0

    async def listens(self, handler: Callable[[], Awaitable[None]]) -> None:
        async def on_candle(event: Event[Any]) -> None:
            if event.payload.symbol == "BTCUSDT":
                self.begun.append(self.clock.now())
                await handler()
            else:
                self.others += 1

        self.bus.subscribe("candle.closed", on_candle)
        await self.bus.start()

    async def begins(self, count: int) -> None:
        await eventually(lambda: len(self.begun) == count, what=f"handler call {count}")

    async def lets_the_read_loop_come_round(self) -> None:
        """Publish something else: the bus in memory has no block time, it reads when there is something."""
        await self.bus.publish("candle.closed", candle("ETHUSDT", number=self.others))
        wanted = self.others + 1
        await eventually(lambda: self.others == wanted)

    async def told_after(self, seconds: float) -> HealthStatus:
        self.clock.advance(seconds)
        await self.lets_the_read_loop_come_round()
        return consumer_health(self.bus.progress(), stuck_after_seconds=30.0).status


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.bus.stop()


async def test_a_handler_that_hangs_is_stuck_although_other_keys_move(desk: Desk) -> None:
    release = asyncio.Event()

    async def hangs() -> None:
        await release.wait()

    await desk.listens(hangs)
    await desk.bus.publish("candle.closed", candle())
    await desk.begins(1)

    assert await desk.told_after(29.0) is HealthStatus.OK
    assert await desk.told_after(2.0) is HealthStatus.DOWN

    release.set()
    await eventually(lambda: desk.bus.progress().pending == 0)
    assert await desk.told_after(0.0) is HealthStatus.OK


async def test_a_slow_handler_that_gets_on_is_not_stuck_however_long_its_last_event_waits(desk: Desk) -> None:
    async def slow() -> None:
        await desk.clock.sleep(20.0)

    await desk.listens(slow)
    for number in range(4):
        await desk.bus.publish("candle.closed", candle(number=number))
    for turn in range(4):
        await desk.begins(turn + 1)
        assert await desk.told_after(19.9) is HealthStatus.OK
        assert await desk.told_after(0.1) is HealthStatus.OK

    await eventually(lambda: desk.bus.progress().pending == 0)


async def test_an_event_that_waits_for_its_next_try_is_not_stuck(desk: Desk) -> None:
    async def fails() -> None:
        raise TransientError("Redis is away")

    await desk.listens(fails)
    await desk.bus.publish("candle.closed", candle())
    await desk.begins(1)

    assert await desk.told_after(59.0) is HealthStatus.OK
    assert desk.bus.progress().pending == 1
