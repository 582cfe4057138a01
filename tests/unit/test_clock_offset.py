"""The exchange's clock against ours: what is measured, what is told, and when entries wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.exec_risk_service.handlers.executor_health import clock_check
from shared.clock import ManualClock
from shared.errors import ConnectionLostError
from shared.exchange.clock_offset import ClockOffset
from shared.health.contract import DependencyHealth, HealthStatus
from tests.support.exec_risk_desk import WALL


class Exchange:
    """A clock that is off by ``offset`` seconds and takes ``round_trip`` seconds to answer."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.offset = 0.0
        self.round_trips = [0.0]
        self.asked = 0
        self.is_away = False

    async def time(self) -> Any:
        self.asked += 1
        if self.is_away:
            raise ConnectionLostError("away")
        half = self.round_trips[self.asked % len(self.round_trips)] / 2
        self.clock.advance(half)
        told = int((self.clock.now().timestamp() + self.offset) * 1000)
        self.clock.advance(half)
        return {"serverTime": told}


class Stage:
    def __init__(self) -> None:
        self.clock = ManualClock(WALL)
        self.exchange = Exchange(self.clock)
        self.corrections: list[float] = []
        self.offset = ClockOffset(self.exchange.time, clock=self.clock, correct=self.corrections.append)

    async def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)
            for _ in range(10):
                await asyncio.sleep(0)


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize(
    ("offset", "is_alarming", "bar"),
    [
        (0.0, False, None),
        (0.4, False, None),
        (-0.5, False, None),
        (0.7, True, None),
        (-0.7, True, None),
        (1.0, True, None),
        (
            -1.2,
            True,
            "the clock of this machine is 1200 ms ahead of the exchange's; set it, entries wait until then",
        ),
    ],
)
async def test_what_is_told_and_when_entries_wait(
    stage: Stage, offset: float, is_alarming: bool, bar: str | None
) -> None:
    stage.exchange.offset = offset

    measured = await stage.offset.measure()

    assert measured.seconds == pytest.approx(offset, abs=0.002)
    assert stage.corrections == [measured.seconds]
    assert stage.offset.is_alarming is is_alarming
    found = await clock_check(stage.offset).probe()
    assert isinstance(found, DependencyHealth)
    assert (found.status is HealthStatus.OK) is not is_alarming
    assert stage.offset.bar() == bar


async def test_nothing_is_known_before_the_first_measurement(stage: Stage) -> None:
    stage.exchange.is_away = True
    await stage.offset.start()
    assert stage.offset.bar() == "the exchange's clock was not measured yet"
    found = await clock_check(stage.offset).probe()
    assert isinstance(found, DependencyHealth)
    assert found.status is HealthStatus.DEGRADED

    stage.exchange.is_away = False
    await stage.pass_time(2)

    assert stage.offset.bar() is None
    await stage.offset.stop()


async def test_the_quickest_answer_counts_and_a_slow_one_proves_nothing(stage: Stage) -> None:
    stage.exchange.round_trips = [4.0, 0.1, 3.0]

    assert (await stage.offset.measure()).uncertainty == pytest.approx(0.05)

    stage.exchange.round_trips = [4.0]
    stage.exchange.offset = 1.5  # within what a round trip of four seconds may hide
    await stage.offset.measure()
    assert stage.offset.bar() is None


async def test_it_is_measured_every_minute(stage: Stage) -> None:
    await stage.offset.start()
    asked = stage.exchange.asked

    await stage.pass_time(58)
    assert stage.exchange.asked == asked
    await stage.pass_time(4)

    assert stage.exchange.asked == asked + 3
    await stage.offset.stop()


async def test_a_refused_time_stamp_is_a_reason_to_measure_now(stage: Stage) -> None:
    await stage.offset.start()
    asked = stage.exchange.asked
    stage.exchange.offset = 2.0

    stage.offset.doubt()
    await _turns()

    assert stage.exchange.asked == asked + 3
    assert "2000 ms behind" in str(stage.offset.bar())
    await stage.offset.stop()


async def test_a_clock_that_jumped_is_measured_at_once() -> None:
    clock = ManualClock(WALL)
    exchange = Exchange(clock)
    offset = ClockOffset(exchange.time, clock=clock, correct=lambda seconds: None)
    await offset.start()
    await _turns()  # it has looked once
    clock.jump(5.0)
    exchange.offset = -5.0

    for _ in range(2):
        await _turns()
        clock.advance(1.0)
    await _turns()

    assert "5000 ms ahead" in str(offset.bar())
    await offset.stop()


async def test_a_jump_that_cannot_be_measured_keeps_entries_back_and_is_measured_at_the_next_look() -> None:
    clock = ManualClock(WALL)
    exchange = Exchange(clock)
    offset = ClockOffset(exchange.time, clock=clock, correct=lambda seconds: None)
    await offset.start()
    await _turns()
    clock.jump(5.0)
    exchange.offset, exchange.is_away = -5.0, True

    for _ in range(2):
        await _turns()
        clock.advance(1.0)
    await _turns()
    assert "has jumped" in str(offset.bar())

    exchange.is_away = False
    for _ in range(2):
        clock.advance(1.0)
        await _turns()
    assert "5000 ms ahead" in str(offset.bar())
    await offset.stop()


async def _turns() -> None:
    """Give every task that can go on a few turns; the clock stands still meanwhile."""
    for _ in range(20):
        await asyncio.sleep(0)
