"""The background probe: when it opens the breaker, what it says, how it finds out that Redis is back."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

import pytest

from shared.backoff import Backoff
from shared.circuit_breaker import BreakerState
from shared.clock import ManualClock
from shared.errors import ConnectionLostError
from shared.redis_links.prober import Prober
from tests.support.eventually import eventually


class Stage:
    """A prober on a clock moved by hand, and a Redis that is there or not."""

    def __init__(self, cap_seconds: float = 30.0, rng: random.Random | None = None, jitter: float = 0.0) -> None:
        self.clock = ManualClock(datetime(2025, 1, 1, 12, tzinfo=UTC))
        self.is_there = False
        self.hangs = False
        self.probed_at: list[float] = []
        self.opened: list[str] = []
        self.prober = Prober(
            self.probe,
            address="redis://test",
            clock=self.clock,
            backoff=Backoff(base_seconds=1.0, cap_seconds=cap_seconds, jitter=jitter),
            rng=rng,
            on_open=self.opened.append,
        )

    async def probe(self) -> None:
        self.probed_at.append(self.clock.monotonic())
        if self.hangs:
            await asyncio.Event().wait()
        if not self.is_there:
            raise ConnectionLostError("nobody there")

    async def pass_time(self, seconds: float) -> None:
        """Let the time pass in small steps, and everything that waits for it happen."""
        for _ in range(round(seconds * 10)):
            await settle()
            self.clock.advance(0.1)
        await settle()

    async def open(self) -> None:
        self.prober.wake()
        await self.pass_time(1.0)
        assert self.prober.breaker.state is BreakerState.OPEN


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_three_failed_probes_within_a_second_open_the_breaker_and_say_so_once() -> None:
    stage = Stage()

    stage.prober.wake()
    await stage.pass_time(0.9)
    assert stage.prober.breaker.is_closed
    await stage.pass_time(0.2)

    assert stage.prober.breaker.state is BreakerState.OPEN
    assert stage.opened == ["nobody there"]
    assert len(stage.probed_at) == 3
    await stage.prober.stop()


async def test_probes_go_on_with_growing_delays_up_to_the_cap() -> None:
    stage = Stage(cap_seconds=4.0)

    await stage.open()
    await stage.pass_time(20.0)

    gaps = [later - earlier for earlier, later in zip(stage.probed_at[2:], stage.probed_at[3:], strict=False)]
    assert gaps[:5] == pytest.approx([1, 2, 4, 4, 4], abs=0.11)
    await stage.prober.stop()


async def test_delays_are_spread_by_the_random_numbers_handed_in() -> None:
    stage = Stage(rng=random.Random(7), jitter=0.5)

    await stage.open()
    await stage.pass_time(20.0)

    gaps = [later - earlier for earlier, later in zip(stage.probed_at[2:], stage.probed_at[3:], strict=False)]
    assert all(full / 2 - 0.11 <= gap <= full + 0.11 for gap, full in zip(gaps, (1, 2, 4, 8), strict=False))
    assert gaps[:3] != pytest.approx([1, 2, 4], abs=0.11)
    await stage.prober.stop()


async def test_one_probe_that_fails_keeps_requests_going() -> None:
    stage = Stage()
    stage.prober.wake()
    await settle()
    stage.is_there = True
    await stage.pass_time(1.0)

    await stage.prober.admit()

    assert stage.opened == []
    assert len(stage.probed_at) == 2


async def test_while_open_requests_fail_at_once_with_since_when_next_probe_and_reason() -> None:
    stage = Stage()
    await stage.open()
    await stage.pass_time(0.5)

    with pytest.raises(ConnectionLostError) as raised:
        await stage.prober.admit()

    assert "redis://test is away since 12:00:00 UTC (1.5 s)" in str(raised.value)
    assert "next probe in 0.5 s: nobody there" in str(raised.value)
    assert len(stage.probed_at) == 3
    await stage.prober.stop()


async def test_the_first_success_closes_it_wakes_who_waits_and_ends_the_probing() -> None:
    stage = Stage()
    await stage.open()
    waiting = asyncio.create_task(stage.prober.wait_closed())
    await settle()
    assert not waiting.done()

    stage.is_there = True
    await stage.pass_time(1.1)

    await waiting
    await stage.prober.admit()
    probes = len(stage.probed_at)
    await stage.pass_time(60.0)
    assert len(stage.probed_at) == probes


async def test_news_of_the_server_shortens_the_wait() -> None:
    stage = Stage()
    await stage.open()
    await stage.pass_time(10.0)
    stage.is_there = True

    stage.prober.hurry()
    await settle()

    assert stage.prober.breaker.is_closed


async def test_a_request_probes_itself_when_nobody_has_for_a_minute() -> None:
    stage = Stage(cap_seconds=10_000.0)
    await stage.open()
    await stage.pass_time(130.0)
    stage.is_there = True
    since_last = stage.clock.monotonic() - stage.probed_at[-1]
    assert since_last < 60.0
    with pytest.raises(ConnectionLostError):
        await stage.prober.admit()

    await stage.pass_time(61.0 - since_last)
    await stage.prober.admit()

    assert stage.prober.breaker.is_closed
    await stage.prober.stop()


async def test_a_request_that_is_cancelled_in_its_own_probe_leaves_the_breaker_open() -> None:
    stage = Stage(cap_seconds=10_000.0)
    await stage.open()
    await stage.pass_time(130.0)
    stage.hangs = True
    await stage.pass_time(61.0)

    request = asyncio.create_task(stage.prober.admit())
    await settle()
    states = [stage.prober.breaker.state]
    request.cancel()
    await settle()
    states.append(stage.prober.breaker.state)

    assert states == [BreakerState.HALF_OPEN, BreakerState.OPEN]
    await stage.prober.stop()


async def test_after_stop_nothing_probes_any_more() -> None:
    stage = Stage()
    await stage.open()

    await stage.prober.stop()
    stage.prober.wake()
    await stage.pass_time(60.0)

    assert len(stage.probed_at) == 3


async def test_waking_twice_probes_once() -> None:
    stage = Stage()
    stage.prober.wake()
    stage.prober.wake()
    await eventually(lambda: stage.probed_at, what="a probe")
    await settle()

    assert len(stage.probed_at) == 1
    await stage.prober.stop()
