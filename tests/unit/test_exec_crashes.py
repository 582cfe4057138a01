"""The process may end at any moment: no order is doubled, no fill lost, no position left naked."""

from __future__ import annotations

from decimal import Decimal

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from shared.clock import ManualClock
from tests.support.crashes import Crash, CrashClock, CrashingJournal, CrashingVenue
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk
from tests.support.markets import BTC, START, Prices, WrittenSource, flat

PRICES: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 30)]


def crashing_desk(crashes: CrashClock) -> Desk:
    engine = MatchingEngine(WrittenSource(PRICES, volume=100_000.0), start=START, wallet=Decimal(10_000))
    venue = CrashingVenue(engine)
    venue.crashes = crashes
    store = MemoryStore()
    return Desk(venue, CrashingJournal(MemoryJournal(store), crashes), store, market_clock=ManualClock(START))


async def trade_through(desk: Desk) -> None:
    """Open, be stopped out, open again, close by signal: every kind of order and request."""
    await desk.start()
    await desk.candle()
    await desk.signal("BUY")
    await desk.advance(4)
    await desk.candle()
    await desk.signal("SELL")
    await desk.signal("BUY")


async def moments_of_a_whole_run() -> list[str]:
    crashes = CrashClock()
    await trade_through(crashing_desk(crashes))
    return crashes.moments


async def test_a_whole_run_passes_many_moments() -> None:
    moments = await moments_of_a_whole_run()

    assert len(moments) > 60
    assert {m for m in moments if "sent" in m} == {
        f"{when} {leg} {what}"
        for when, what in (("before", "is sent"), ("after", "was sent"))
        for leg in ("entry", "stop", "take_profit", "exit")
    }


@pytest.mark.parametrize("at", range(1, 100))
async def test_a_process_that_ends_at_any_moment_comes_back_sound(at: int) -> None:
    crashes = CrashClock(at)
    desk = crashing_desk(crashes)
    try:
        await trade_through(desk)
    except Crash:
        pass
    else:
        return  # fewer moments than this in a whole run
    crashes.is_dead, crashes.at = False, None

    await desk.restart(journal=MemoryJournal(desk.store))
    for _ in range(45):
        await desk.tick(1.0)

    assert_sound(desk)
    _assert_every_event_was_published(desk)
    await desk.signal("BUY")  # and it goes on trading
    await desk.signal("SELL")
    assert BTC not in desk.book.positions or desk.book.positions[BTC].exit is None
    assert_sound(desk)


@pytest.mark.parametrize("leg", ["entry", "stop"])
async def test_ready_means_protected(leg: str) -> None:
    crashes = CrashClock()
    desk = crashing_desk(crashes)
    await desk.start()
    await desk.candle()
    crashes.at_name = f"after {leg} was sent" if leg == "entry" else f"before {leg} is sent"
    with pytest.raises(Crash):
        await desk.signal("BUY")
    crashes.is_dead, crashes.at_name = False, None
    assert desk.venue.engine.position(BTC).quantity > 0
    assert not desk.venue.engine.open_algos(BTC)

    desk.venue.engine.take_events()
    desk.journal = MemoryJournal(desk.store)
    desk.service = desk.assemble()
    await desk.service.recover()  # no timer, no report, no candle

    resting = [algo.quantity for algo in desk.venue.engine.open_algos(BTC)]
    assert resting == [desk.venue.engine.position(BTC).quantity] * 2


def _assert_every_event_was_published(desk: Desk) -> None:
    """Published at least once, repeated only under the same id, and nothing waits."""
    assert not desk.store.accounts["paper:test"].outbox  # type: ignore[union-attr]  # desks of this file have a store
    by_id = {event.metadata.event_id: event.payload for event in desk.bus.events}
    repeated = [e for e in desk.bus.events if by_id[e.metadata.event_id] != e.payload]
    assert not repeated
    steps = sorted({payload.metadata["step"] for payload in by_id.values()})
    assert steps[-1] <= desk.book.step
