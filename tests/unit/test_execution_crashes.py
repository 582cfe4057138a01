"""The process ends at any moment of a TWAP, or of a limit order that follows: the next one goes on with it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from services.exec_risk_service.domain.orders import Leg
from shared.clock import ManualClock
from tests.support.crashes import Crash, CrashClock, CrashingJournal, CrashingVenue
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk
from tests.support.markets import BTC, START, Prices, WrittenSource, flat

#: A few USDT a minute, so that a limit order has something to follow.
PRICES: list[Prices] = [(50_000 + 8 * n, 50_008 + 8 * n, 50_000 + 8 * n, 50_008 + 8 * n) for n in range(8)]


def crashing_desk(crashes: CrashClock) -> tuple[Desk, MemoryStore]:
    engine = MatchingEngine(
        WrittenSource([*PRICES, *flat(50_064, 20)], volume=100_000.0), start=START, wallet=Decimal(10_000)
    )
    venue, store = CrashingVenue(engine), MemoryStore()
    venue.crashes = crashes
    desk = Desk(venue, CrashingJournal(MemoryJournal(store), crashes), store, market_clock=ManualClock(START))
    return desk, store


async def let_time_pass(desk: Desk, seconds: int) -> None:
    for _ in range(0, seconds, 5):
        if not desk.book.executions:
            return
        await desk.advance(5 / 60)
        await desk.tick(0.0)


async def ask(desk: Desk, strategy: str) -> None:
    await desk.ask("BUY", position_size_usd=990.0, execution_strategy=strategy, urgency="HIGH")
    await let_time_pass(desk, 90)


async def moments_of(strategy: str) -> int:
    crashes = CrashClock()
    desk, _ = crashing_desk(crashes)
    await desk.start()
    await desk.candle()
    await ask(desk, strategy)
    return len(crashes.moments)


@pytest.mark.parametrize("strategy", ["TWAP", "LIMIT"])
async def test_whenever_the_process_ends_the_execution_comes_to_a_good_end(strategy: str) -> None:
    count = await moments_of(strategy)
    assert count > 30

    # The moments before the request are those of every start.
    for moment in range(8, count + 1, 3):
        crashes = CrashClock()
        desk, store = crashing_desk(crashes)
        await desk.start()
        await desk.candle()
        crashes.at = moment
        try:
            await ask(desk, strategy)
        except Crash:
            crashes.at, crashes.is_dead = None, False
            await desk.restart(journal=MemoryJournal(store))
        for _ in range(40):
            await desk.tick(1.0)
        await let_time_pass(desk, 120)
        await desk.tick(2.0)

        assert not desk.book.executions, f"still working after a crash at {crashes.moments[-1]}"
        entries = desk.orders(Leg.ENTRY)
        assert sum(order.filled_quantity for order in entries) <= Decimal("0.019")
        answers = [e for e in desk.bus.events if e.metadata.event_type == "execution.result"]
        assert len({e.metadata.event_id for e in answers}) == 1, f"answered {len(answers)} times after {moment}"
        assert_sound(desk)


async def test_an_order_that_never_left_before_the_crash_is_not_sent_late() -> None:
    crashes = CrashClock()
    desk, store = crashing_desk(crashes)
    await desk.start()
    await desk.candle()
    crashes.at_name = "before commit 5"  # the intent of the first slice is stored, nothing was sent

    with pytest.raises(Crash):
        await ask(desk, "TWAP")
    crashes.at_name, crashes.is_dead = None, False
    await desk.restart(journal=MemoryJournal(store))
    first = desk.orders(Leg.ENTRY)[0]
    await let_time_pass(desk, 120)

    assert first.reason == "never sent: the process ended first"
    assert first.client_order_id not in desk.venue.sent
    assert desk.bus.of("execution.result")[0].status == "SUCCESS"  # later slices made up for it
    assert desk.book.positions[BTC].size == Decimal("0.019")
