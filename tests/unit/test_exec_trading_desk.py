"""What keeps entries back from outside the book: no candles, and what a person says."""

from __future__ import annotations

from datetime import timedelta

from services.exec_risk_service.domain.trading_state import TradingCause, TradingState
from services.exec_risk_service.handlers.trading_desk import CandleWatch, TradingDesk
from shared.exchange.request_costs import Priority, as_it_matters, request_of, urgently
from tests.support.exec_risk_desk import started_desk
from tests.support.markets import flat


async def test_candles_that_stay_away_keep_entries_back_until_one_closes() -> None:
    desk = await started_desk(flat(50_000, 60))
    watch = CandleWatch(
        desk.service.ledger,
        clock=desk.clock,
        market_clock=desk.market_clock,
        market_limit=timedelta(minutes=3),
        wall_limit=timedelta(seconds=30),
    )
    trading = TradingDesk(desk.service.ledger, {TradingCause.STALE_DATA: watch})
    await trading.look()
    await desk.advance(2.9)
    await trading.look()
    assert trading.trading.state == "ACTIVE"

    await desk.advance(0.2)
    await trading.look()
    await trading.look()

    assert trading.trading.state == "REDUCING"
    assert "no candle closed for 186 s of market time" in trading.trading.reason
    assert [one.alert_type for one in desk.bus.of("risk.alert")] == ["STALE_DATA"]
    await desk.candle()
    await trading.look()
    assert trading.trading.state == "ACTIVE"


async def test_a_person_keeps_entries_back() -> None:
    desk = await started_desk(flat(50_000, 30))
    trading = TradingDesk(desk.service.ledger, {})

    await trading.restrict(TradingState.REDUCING, "news at noon", "ada")
    await trading.look()

    assert (trading.trading.state, trading.trading.changed_by) == (TradingState.REDUCING, "ada")


def test_the_looks_of_an_emergency_stop_go_as_far_as_exits() -> None:
    look = request_of("GET", "openOrders", {})
    assert as_it_matters(look).priority is Priority.ACCOUNT
    with urgently():
        assert as_it_matters(look).priority is Priority.EXIT
        assert as_it_matters(request_of("GET", "klines", {})).priority is Priority.MARKET
    assert as_it_matters(look).priority is Priority.ACCOUNT
