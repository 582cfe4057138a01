"""Our book against the exchange's: gaps, strangers, repeated and missing reports, money that differs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from services.exec_risk_service.domain.account_terms import AccountTerms
from services.exec_risk_service.domain.inputs import SendStarted
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.reports import CashChanged, OrderReport, Reconnected
from shared.errors import ConfigurationError, ConnectionLostError, OrderRejectedError
from shared.trading.orders import OrderStatus, Side
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk, desk_on, started_desk
from tests.support.markets import BTC, START, Prices, flat, limit, market, stop

FALL: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 10)]


def alerts(desk: Desk) -> list[str]:
    return [alert.alert_type for alert in desk.bus.of("risk.alert")]


async def test_a_hedged_account_is_refused() -> None:
    desk = desk_on(flat(50_000, 5))
    desk.venue.terms = AccountTerms(hedge_mode=True)

    with pytest.raises(ConfigurationError, match="hedge mode"):
        await desk.start()


async def test_nothing_is_applied_before_recovery() -> None:
    desk = desk_on(flat(50_000, 5))

    with pytest.raises(ConnectionLostError, match="being recovered"):
        await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))


async def test_reports_that_come_twice_or_in_any_order_count_once() -> None:
    desk = await started_desk(flat(50_000, 5), volume=100.0)
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY", suggested_size_usd=900.0))
    reports = desk.venue.inner.take_reports()

    for report in [*reversed(reports), *reports, *reports]:
        await desk.service.on_report(report)
    await desk.settle()
    for _ in range(3):
        await desk.tick()

    assert_sound(desk)
    assert len(desk.bus.of("execution.result")) == 1
    assert len(desk.bus.of("position.opened")) == 1


async def test_a_fill_that_the_stream_lost_is_read_from_the_list() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    lost = desk.venue.inner.take_reports()
    assert any(isinstance(report, OrderReport) and report.fill for report in lost)
    assert BTC not in desk.book.positions

    await desk.tick(0.1)
    await desk.tick(0.9)
    assert BTC not in desk.book.positions  # the stream gets a second
    await desk.tick(0.2)

    assert_sound(desk)
    assert desk.orders(Leg.ENTRY)[0].status is OrderStatus.FILLED


async def test_a_fill_that_the_list_shows_late_is_found_by_reading_again() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    desk.venue.inner.take_reports()
    record = desk.venue.engine.fills(BTC)[0]
    fills = desk.venue.engine._account.fills  # the list lags: it does not show the trade yet
    fills.remove(record)
    for _ in range(5):
        await desk.tick()
    assert BTC not in desk.book.positions

    fills.append(record)
    for _ in range(20):
        await desk.tick()

    assert_sound(desk)


async def test_after_a_gap_of_the_stream_everything_is_asked_for() -> None:
    desk = await started_desk(FALL)
    await desk.signal("BUY")
    moment = desk.market_clock.now() + timedelta(minutes=4)
    desk.venue.engine.advance_to(moment)
    desk.market_clock.advance_to(moment)
    desk.venue.inner.take_reports()  # the stop fired unheard

    await desk.service.on_report(Reconnected())

    assert desk.bus.of("position.closed")[0].exit_reason == "STOP_LOSS"
    assert_sound(desk)


async def test_the_half_minute_sweep_finds_what_no_one_told() -> None:
    desk = await started_desk(FALL)
    await desk.signal("BUY")
    desk.venue.engine.advance_to(START + timedelta(minutes=4))
    desk.venue.inner.take_reports()

    await desk.service.reconciler.sweep()

    assert_sound(desk)


async def test_old_trades_of_the_account_are_not_ours() -> None:
    desk = desk_on(flat(50_000, 5))
    desk.venue.engine.place_order(market(Side.BUY, "0.02"))
    desk.venue.engine.place_order(market(Side.SELL, "0.02"))

    await desk.start()

    assert not desk.book.positions
    assert not desk.bus.of("order.updated")
    assert desk.book.cash.wallet == desk.venue.engine.account().wallet


async def test_a_position_that_was_there_before_us_is_adopted_protected_and_reported() -> None:
    desk = desk_on(flat(50_000, 5))
    desk.venue.engine.place_order(market(Side.SELL, "0.02"))

    await desk.start()

    position = desk.book.positions[BTC]
    assert (position.net.quantity, position.origin.value) == (Decimal("-0.02"), "EXTERNAL")
    assert alerts(desk) == ["POSITION_MISMATCH", "EXTERNAL_POSITION"]
    stops = desk.venue.engine.open_algos(BTC)
    assert [(algo.side, algo.quantity) for algo in stops] == [(Side.BUY, Decimal("0.02"))]
    assert stops[0].trigger_price > 50_000


async def test_a_stranger_trading_beside_us_is_followed_and_left_alone_by_signals() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.engine.place_order(market(Side.BUY, "0.03", client_order_id="by-hand"))
    await desk.settle()
    assert desk.book.positions[BTC].origin.value == "EXTERNAL"

    await desk.signal("SELL")

    assert desk.bus.of("execution.result")[-1].rejection_reason == "the open position is a stranger's; close it by hand"
    desk.venue.engine.place_order(market(Side.SELL, "0.03", client_order_id="by-hand-2"))
    await desk.settle()
    assert desk.bus.of("position.closed")[0].exit_reason == "MANUAL"
    assert_sound(desk)


async def test_a_strangers_stop_that_cannot_be_placed_does_not_close_the_strangers_position() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:stop"] = [OrderRejectedError("code -2021", code=-2021)]

    desk.venue.engine.place_order(market(Side.BUY, "0.03", client_order_id="by-hand"))
    await desk.settle()
    await desk.tick()

    assert desk.book.positions[BTC].net.quantity == Decimal("0.03")
    assert alerts(desk) == ["EXTERNAL_POSITION", "STOP_NOT_PLACED"]


async def test_a_liquidation_is_named() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")

    desk.venue.engine.place_order(market(Side.SELL, "0.01", client_order_id="autoclose-123"))
    await desk.settle()

    assert desk.bus.of("position.closed")[0].exit_reason == "LIQUIDATION"
    assert [(a.alert_type, a.severity) for a in desk.bus.of("risk.alert")] == [("FORCED_CLOSE", "CRITICAL")]
    assert_sound(desk)


async def test_orphans_of_ours_are_cancelled_and_strangers_orders_are_not() -> None:
    desk = desk_on(flat(50_000, 5))
    desk.venue.engine.place_order(market(Side.BUY, "0.01"))
    desk.venue.engine.place_algo(stop(Side.SELL, "0.01", "49000", client_algo_id="qt3-st-forgotten", reduce_only=True))
    desk.venue.engine.place_order(limit(Side.BUY, "0.01", "49500", client_order_id="by-hand"))

    await desk.start()
    await desk.settle()

    left = [algo.client_algo_id for algo in desk.venue.engine.open_algos(BTC)]
    assert "qt3-st-forgotten" not in left
    assert [o.client_order_id for o in desk.venue.engine.open_orders(BTC)] == ["by-hand"]


async def test_a_stop_that_someone_cancelled_is_placed_again() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    desk.venue.engine.cancel_open_algos(BTC)
    await desk.settle()

    await desk.tick()

    assert_sound(desk)
    assert len(desk.venue.engine.open_algos(BTC)) == 2


async def test_funding_goes_to_wallet_and_position_once() -> None:
    start = START + timedelta(hours=6, minutes=58)
    rates = {START + timedelta(hours=7): Decimal("0.0001")}
    desk = await started_desk(flat(50_000, 20), start=start, rates=rates)
    await desk.signal("BUY")

    await desk.advance(5)
    for _ in range(3):
        await desk.service.on_report(CashChanged())
    await desk.signal("SELL")

    closed = desk.bus.of("position.closed")[0]
    assert closed.funding_usd == pytest.approx(-0.05)  # 500 USD x 0.01 %
    assert closed.pnl_usd == pytest.approx(float(desk.book.cash.wallet) - 10_000)
    assert_sound(desk)


async def test_funding_that_the_stream_lost_is_found_by_the_sweep() -> None:
    start = START + timedelta(hours=6, minutes=58)
    desk = await started_desk(flat(50_000, 20), start=start)
    await desk.signal("BUY")
    desk.venue.engine.advance_to(start + timedelta(minutes=5))
    desk.venue.inner.take_reports()

    await desk.service.reconciler.sweep()

    assert desk.book.cash.funding < 0
    assert alerts(desk) == []
    assert_sound(desk)


async def test_a_wallet_that_differs_twice_is_taken_over_and_told_once() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.engine._account.wallet += 7  # no list explains it

    await desk.service.reconciler.sweep()
    assert desk.service.reconciler.suspects_something
    assert alerts(desk) == []
    for _ in range(3):
        await desk.service.reconciler.sweep()

    assert desk.book.cash.wallet == 10_007
    assert desk.book.cash.adjustments == 7
    assert alerts(desk) == ["WALLET_MISMATCH"]


async def test_a_position_that_differs_is_believed_only_when_seen_twice() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    engine = desk.venue.engine
    engine.place_order(market(Side.SELL, "0.004", client_order_id="by-hand"))
    desk.venue.inner.take_reports()
    fills = engine._account.fills
    hidden = fills.pop()  # neither stream nor list tells the trade

    await desk.service.reconciler.sweep()
    assert desk.book.positions[BTC].net.quantity == Decimal("0.01")
    await desk.service.reconciler.sweep()

    assert desk.book.positions[BTC].net.quantity == Decimal("0.006")
    assert alerts(desk)[0] == "POSITION_MISMATCH"
    stops = [algo for algo in engine.open_algos(BTC) if algo.trigger_price < 50_000]
    assert [algo.quantity for algo in stops] == [Decimal("0.006")]
    assert hidden.fill.trade_id not in desk.book.trades[BTC].recent


async def test_an_exit_of_a_position_that_is_gone_leads_to_a_look_at_the_exchange() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    desk.venue.engine.place_order(market(Side.SELL, "0.01", client_order_id="by-hand"))
    desk.venue.inner.take_reports()  # we believe that it is open

    signal = await desk.signal("SELL")  # -2022 on the way out

    assert desk.bus.of("position.closed")[0].exit_reason == "MANUAL"
    answers = [e for e in desk.bus.events if e.metadata.causation_id == signal.metadata.event_id]
    assert len(answers) == 1
    assert_sound(desk)


async def test_an_order_that_is_not_wanted_any_more_is_not_sent() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    ledger = desk.service.ledger
    stop_order = desk.orders(Leg.STOP)[0]
    # A stop that was decided, while its position closed before it could be sent.
    late = replace(stop_order, status=OrderStatus.INITIALIZED, sent_at=None, position_id="gone")
    ledger._book = replace(desk.book, orders={**desk.book.orders, late.client_order_id: late})

    await ledger.apply(SendStarted(late.client_order_id))

    assert desk.book.orders[late.client_order_id].status is OrderStatus.ABSENT


async def test_a_process_that_was_overtaken_does_nothing_any_more() -> None:
    desk = await started_desk(flat(50_000, 5))
    old = desk.service
    await desk.restart()

    with pytest.raises(ConnectionLostError, match="taken over by another"):
        await old.handlers.order_executor.on_signal(desk.signal_event("BUY"))

    assert old.ledger.is_fenced
    assert not desk.venue.sent
    await desk.signal("BUY")
    assert_sound(desk)


async def test_events_that_the_bus_did_not_take_are_published_at_the_next_start_under_their_ids() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.bus.broken = ConnectionLostError("Redis is away")
    event = desk.signal_event("BUY", confidence=0.1)
    with pytest.raises(ConnectionLostError):
        await desk.service.handlers.order_executor.on_signal(event)
    before = len(desk.bus.events)
    desk.bus.broken = None

    await desk.restart()

    told = desk.bus.events[before:]
    assert [e.metadata.event_type for e in told] == ["risk.alert", "execution.result"]
    assert_sound(desk)


async def test_a_day_that_loses_too_much_is_over_for_entries_and_the_next_day_is_not() -> None:
    desk = await started_desk(flat(50_000, 1500))
    desk.venue.engine._account.wallet -= 600  # 6 % of the day's peak; the policy stops at 5 %
    await desk.service.reconciler.sweep()
    await desk.service.reconciler.sweep()
    await desk.advance(1)
    await desk.candle()
    await desk.advance(1)
    await desk.candle()

    await desk.signal("BUY")

    assert alerts(desk).count("DRAWDOWN_LIMIT") == 1
    denied = desk.bus.of("execution.result")[-1].rejection_reason
    assert "daily drawdown 6.00 % (equity 9400.00 of a peak of 10000.00 USDT); entries stop at 5.00 %" in denied
    await desk.advance(24 * 60)
    await desk.candle()
    await desk.signal("BUY")
    assert BTC in desk.book.positions


async def test_a_recovery_that_was_cut_short_is_begun_again() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.signal("BUY")
    desk.venue.before["account"] = [ConnectionLostError("no route")]
    desk.service = desk.assemble()

    with pytest.raises(ConnectionLostError):
        await desk.service.recover()

    assert desk.service.ledger.needs_recovery, "half of what happened may be missing"
    await desk.service.recover()
    await desk.signal("SELL")
    assert desk.venue.engine.position(BTC).quantity == 0
    assert desk.agrees_with_exchange()
