"""A position is never left alone: stops, targets, exits, and what happens when one of them is refused."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.reports import OrderReport
from services.exec_risk_service.domain.rules import Rules
from shared.errors import OrderRejectedError, OutcomeUnknownError
from shared.trading.orders import OrderStatus, OrderType, Side
from shared.trading.positions import Fill
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, Prices, flat, market

FALL: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 10)]
RISE: list[Prices] = [*flat(50_000, 3), (50_000, 53_000, 50_000, 53_000), *flat(53_000, 10)]


def refusal(code: int, status: int = 400) -> OrderRejectedError:
    return OrderRejectedError(f"HTTP {status}, code {code}", code=code, http_status=status)


async def test_a_stop_that_fires_closes_the_position_and_takes_the_target_with_it() -> None:
    desk = await started_desk(FALL)
    await desk.signal("BUY")

    await desk.advance(4)

    closed = desk.bus.of("position.closed")[0]
    assert closed.exit_reason == "STOP_LOSS"
    assert closed.pnl_usd < 0
    assert closed.duration_seconds == pytest.approx(210.0)  # market time, not wall time
    entry, stop_out = desk.bus.of("execution.result")
    assert entry.execution_time_ms is not None
    assert stop_out.execution_time_ms is None  # a stop rests
    assert desk.orders(Leg.TAKE_PROFIT)[0].status is OrderStatus.CANCELED
    assert_sound(desk)


async def test_a_target_that_is_reached_closes_the_position_and_takes_the_stop_with_it() -> None:
    desk = await started_desk(RISE)
    await desk.signal("BUY")

    await desk.advance(4)

    assert desk.bus.of("position.closed")[0].exit_reason == "TAKE_PROFIT"
    assert desk.orders(Leg.STOP)[0].status is OrderStatus.CANCELED
    assert_sound(desk)


async def test_a_short_position_is_protected_on_the_other_side() -> None:
    desk = await started_desk(RISE)
    await desk.signal("SELL")

    await desk.advance(4)

    assert desk.bus.of("position.closed")[0].exit_reason == "STOP_LOSS"
    assert_sound(desk)


async def test_a_stop_that_would_trigger_at_once_means_a_market_exit_at_once() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:stop"] = [refusal(-2021)]

    await desk.signal("BUY")

    assert desk.bus.of("position.closed")[0].exit_reason == "STOP_LOSS"
    assert [a.alert_type for a in desk.bus.of("risk.alert")] == ["STOP_NOT_PLACED"]
    assert_sound(desk)


async def test_a_stop_refused_for_overload_is_tried_again_by_the_timer() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:stop"] = [refusal(-1008, 503)]

    await desk.signal("BUY")
    assert not desk.bus.of("position.closed")
    await desk.tick()

    assert [order.status for order in desk.orders(Leg.STOP)] == [OrderStatus.REJECTED, OrderStatus.NEW]
    assert_sound(desk)


async def test_a_stop_refused_for_overload_again_and_again_means_an_exit() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:stop"] = [refusal(-1008, 503) for _ in range(9)]

    await desk.signal("BUY")
    for _ in range(4):
        await desk.tick()

    assert desk.bus.of("position.closed")[0].exit_reason == "STOP_LOSS"
    assert_sound(desk)


async def test_a_target_that_is_reached_before_it_can_be_placed_takes_the_profit() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:take_profit"] = [refusal(-2021)]

    await desk.signal("BUY")

    assert desk.bus.of("position.closed")[0].exit_reason == "TAKE_PROFIT"
    assert_sound(desk)


async def test_a_target_that_is_refused_leaves_the_stop_in_charge() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:take_profit"] = [refusal(-4045)]

    await desk.signal("BUY")
    await desk.tick()

    assert [algo.type for algo in desk.venue.engine.open_algos(BTC)] == [OrderType.STOP_MARKET]
    assert [a.alert_type for a in desk.bus.of("risk.alert")] == ["TARGET_NOT_PLACED"]
    assert_sound(desk)


async def test_a_refused_exit_is_tried_again_with_growing_pauses_until_flat() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    desk.venue.before["submit:exit"] = [refusal(-1008, 503) for _ in range(3)]

    signal = await desk.signal("SELL")
    tries = []
    for _ in range(12):
        tries.append(len(desk.orders(Leg.EXIT)))
        await desk.tick(0.5)

    # 1 s, 2 s, 4 s between the tries
    assert tries == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]
    await desk.tick(4)
    assert desk.bus.of("position.closed")[0].exit_reason == "SIGNAL_EXIT"
    answers = [e for e in desk.bus.events if e.metadata.causation_id == signal.metadata.event_id]
    assert [e.payload.status for e in answers] == ["SUCCESS"]
    assert_sound(desk)


async def test_an_exit_that_a_stop_overtakes_still_answers_its_signal() -> None:
    desk = await started_desk(FALL)
    await desk.signal("BUY")
    desk.venue.before["submit:exit"] = [refusal(-1008, 503)]
    signal = await desk.signal("SELL")

    await desk.advance(4)  # the stop fires before the next try

    assert desk.bus.of("position.closed")[0].exit_reason == "STOP_LOSS"
    answers = [e for e in desk.bus.events if e.metadata.causation_id == signal.metadata.event_id]
    assert [e.payload.rejection_reason for e in answers] == ["the position was closed by STOP_LOSS first"]
    assert_sound(desk)


async def test_a_position_is_closed_after_its_longest_holding_time() -> None:
    desk = await started_desk(flat(50_000, 10), rules=Rules(max_holding=timedelta(minutes=3)))
    await desk.signal("BUY")

    await desk.advance(2)
    await desk.candle()
    assert not desk.bus.of("position.closed")
    await desk.advance(1)
    await desk.candle()

    assert desk.bus.of("position.closed")[0].exit_reason == "TIMEOUT"
    assert_sound(desk)


async def test_candles_update_the_position_and_the_account() -> None:
    desk = await started_desk([*flat(50_000, 2), (50_000, 50_500, 50_000, 50_500), *flat(50_500, 5)])
    await desk.signal("BUY")

    await desk.advance(4)
    await desk.candle(high=50_600.0, low=49_990.0)

    update = desk.bus.of("position.updated")[-1]
    assert update.mark_price == 50_500
    assert update.unrealized_pnl_usd == pytest.approx(0.01 * (50_500 - 50_000.5))
    assert update.max_profit_pct == pytest.approx((50_600 / 50_000.5 - 1) * 100)
    assert update.max_drawdown_pct == pytest.approx((50_600 - 49_990) / 50_000.5 * 100)
    account = desk.bus.of("account.updated")[-1]
    assert account.equity_usd == pytest.approx(account.wallet_balance_usd + update.unrealized_pnl_usd)


async def test_an_old_candle_changes_nothing() -> None:
    desk = await started_desk(flat(50_000, 5))
    old = desk.candle_event(close=1.0, low=1.0)
    await desk.advance(2)
    await desk.candle()
    before = desk.book

    await desk.service.handlers.position_monitor.on_candle(old)

    assert desk.book is before


# -- growth: reports in an order that the engine never gives -----------------------------------------------------------


def trade(desk: Desk, order_id: str, trade_id: int, quantity: str, total: str, *, of: str = "0.01") -> OrderReport:
    fill = Fill(
        symbol=BTC,
        trade_id=trade_id,
        client_order_id=order_id,
        exchange_order_id="77",
        side=Side.BUY,
        price=Decimal(50_000),
        quantity=Decimal(quantity),
        commission=Decimal("0.1"),
        realized_pnl=Decimal(0),
        time=desk.market_clock.now(),
    )
    status = OrderStatus.FILLED if total == of else OrderStatus.PARTIALLY_FILLED
    return OrderReport(
        order_id, BTC, status, desk.market_clock.now(), Decimal(total), exchange_order_id="77", fill=fill
    )


async def test_a_half_filled_entry_is_protected_within_a_second_and_the_stop_follows_its_growth() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [OutcomeUnknownError("no answer arrived")]
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    entry = desk.orders(Leg.ENTRY)[0]

    await desk.service.on_report(trade(desk, entry.client_order_id, 1, "0.004", "0.004"))
    assert not desk.venue.engine.open_algos(BTC)  # the rest usually follows at once
    await desk.service.reconciler.upkeep()
    assert desk.bus.of("position.opened")[0].size_usd == pytest.approx(200)
    assert {algo.quantity for algo in desk.venue.engine.open_algos(BTC)} == {Decimal("0.004")}
    first_stop = desk.orders(Leg.STOP)[0]

    await desk.service.on_report(trade(desk, entry.client_order_id, 2, "0.006", "0.01"))
    await desk.settle()

    assert {algo.quantity for algo in desk.venue.engine.open_algos(BTC)} == {Decimal("0.01")}
    created = [algo.client_algo_id for algo in desk.venue.engine.algos(BTC)]
    assert desk.book.orders[first_stop.client_order_id].status is OrderStatus.CANCELED
    assert len(created) == 4  # stop and target for each size: placed anew, then the old ones cancelled
    assert desk.bus.of("execution.result")[0].status == "SUCCESS"


async def test_a_new_stop_is_on_the_exchange_before_the_old_one_is_cancelled() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [OutcomeUnknownError("no answer arrived")]
    await desk.service.handlers.order_executor.on_signal(desk.signal_event("BUY"))
    entry = desk.orders(Leg.ENTRY)[0]
    await desk.service.on_report(trade(desk, entry.client_order_id, 1, "0.004", "0.004"))
    await desk.service.reconciler.upkeep()
    await desk.settle()
    desk.venue.before["submit:stop"] = [OutcomeUnknownError("no answer arrived")]

    await desk.service.on_report(trade(desk, entry.client_order_id, 2, "0.006", "0.01"))
    await desk.settle()

    # The new stop is not known to rest, so the old one stays.
    stops = [a for a in desk.venue.engine.open_algos(BTC) if a.type is OrderType.STOP_MARKET]
    assert [stop.quantity for stop in stops] == [Decimal("0.004")]


async def test_a_position_closed_by_hand_is_closed_here_too_and_its_orders_go() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")
    position = desk.book.positions[BTC]
    desk.venue.engine.place_order(market(Side.SELL, str(position.size), client_order_id="by-hand"))
    await desk.settle()

    assert desk.bus.of("position.closed")[0].exit_reason == "MANUAL"
    assert_sound(desk)


@pytest.mark.parametrize(("code", "http_status"), [(-1021, 400), (-5028, 400), (None, 403)])
async def test_a_stop_refused_for_a_time_stamp_or_by_the_firewall_is_placed_again_and_closes_nothing(
    code: int | None, http_status: int
) -> None:
    desk = await started_desk(flat(50_000, 30))
    desk.venue.before[f"submit:{Leg.STOP.value}"] = [OrderRejectedError("later", code=code, http_status=http_status)]

    await desk.signal("BUY")
    for _ in range(3):
        await desk.tick()

    assert not desk.orders(Leg.EXIT)
    assert desk.venue.engine.position(BTC).quantity > 0
    assert [order.status for order in desk.orders(Leg.STOP)] == [OrderStatus.REJECTED, OrderStatus.NEW]
