"""While the journal is away a naked position of ours is closed by the emergency stop, and nothing else is touched."""

from __future__ import annotations

from services.exec_risk_service.handlers.outage_watch import OutageWatch
from shared.trading.orders import OrderType
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, flat


def watch_of(desk: Desk) -> OutageWatch:
    service = desk.service
    return OutageWatch(service.ledger, service.stop, desk.venue, clock=desk.clock, patience_seconds=10.0)


async def holding(*, stop_rests: bool) -> tuple[Desk, OutageWatch]:
    """Return a desk with a position, with or without its stop on the exchange, and a watch that knew it in order."""
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    if not stop_rests:
        for algo in desk.venue.engine.open_algos(BTC):
            if algo.type is OrderType.STOP_MARKET:
                desk.venue.engine.cancel_algo(algo_id=algo.algo_id)
    watch = watch_of(desk)
    await watch.tick()
    return desk, watch


async def journal_is_away(desk: Desk, watch: OutageWatch, seconds: int) -> None:
    desk.service.ledger.needs_recovery = True
    for _ in range(seconds):
        await watch.tick()
        desk.clock.advance(1)


async def test_a_naked_position_is_closed_when_the_journal_does_not_come_back() -> None:
    desk, watch = await holding(stop_rests=False)

    await journal_is_away(desk, watch, 9)
    assert desk.service.stop.bar() is None, "it may come back"
    await journal_is_away(desk, watch, 6)

    told = desk.service.stop.bar()
    assert told is not None
    assert "BTCUSDT without a stop on the exchange while the account's journal has been away" in told
    for _ in range(10):
        await desk.service.stop.pursue()
        desk.clock.advance(2)
    assert desk.venue.engine.position(BTC).quantity == 0


async def test_a_position_with_its_stop_waits_for_the_journal() -> None:
    desk, watch = await holding(stop_rests=True)

    await journal_is_away(desk, watch, 60)

    assert desk.service.stop.bar() is None
    assert desk.venue.engine.position(BTC).quantity > 0


async def test_a_journal_that_comes_back_in_time_is_forgiven() -> None:
    desk, watch = await holding(stop_rests=False)

    for _ in range(3):
        await journal_is_away(desk, watch, 9)
        desk.service.ledger.needs_recovery = False
        await watch.tick()

    assert desk.service.stop.bar() is None


async def test_a_process_that_never_had_the_account_leaves_it_alone() -> None:
    desk, _ = await holding(stop_rests=False)

    await journal_is_away(desk, watch_of(desk), 60)

    assert desk.service.stop.bar() is None
