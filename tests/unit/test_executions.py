"""Trades that somebody asks for: worked as executions, answered once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.exec_risk_service.domain.executions import Strategy
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.rules import Rules
from shared.errors import ConnectionLostError, OrderRejectedError, OutcomeUnknownError
from shared.trading.orders import OrderStatus, OrderType, TimeInForce
from shared.trading.policy import DEFAULT_POLICIES, Fraction, PolicyState, RiskMode
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk, FixedPolicy, started_desk
from tests.support.markets import BTC, flat

OVERLOADED = OrderRejectedError("HTTP 503, code -1008, overloaded", code=-1008, http_status=503)


def results(desk: Desk) -> list[Any]:
    return desk.bus.of("execution.result")


async def test_a_request_opens_a_position_with_its_own_exits_and_is_answered_once() -> None:
    desk = await started_desk(flat(50_000, 5))

    request = await desk.ask("BUY", position_size_usd=1010.0, stop_loss_pct=1.0, take_profit_pct=3.0)

    (result,) = results(desk)
    assert (result.status, result.strategy, result.arrival_price) == ("SUCCESS", "MARKET", 50_000.25)
    assert result.slippage_pct == pytest.approx(0.0005, rel=1e-3)
    assert result.commission_usd > 0
    position = desk.book.positions[BTC]
    assert position.net.quantity == Decimal("0.019")  # 1,000 USD, the policy's cap, on the lot grid
    assert position.stop_price == pytest.approx(Decimal("49500.5"), abs=1)
    (entry,) = desk.orders(Leg.ENTRY)
    assert entry.cause_event_id == request.metadata.event_id
    assert not desk.book.executions
    assert_sound(desk)


async def test_a_request_that_is_delivered_twice_trades_once() -> None:
    desk = await started_desk(flat(50_000, 5))
    request = await desk.ask("BUY")

    await desk.restart()
    await desk.service.handlers.order_executor.on_execution_request(request)
    await desk.settle()

    assert len(desk.venue.sent) == 3  # entry, stop, target
    assert len(results(desk)) == 1


async def test_an_expired_request_is_refused_with_both_times() -> None:
    desk = await started_desk(flat(50_000, 5))

    await desk.ask("BUY", expires_at=desk.market_clock.now() - timedelta(seconds=1))

    (result,) = results(desk)
    assert result.status == "REJECTED"
    assert "expired at" in result.rejection_reason
    assert not desk.venue.sent


async def test_a_request_passes_the_same_checks_as_a_signal() -> None:
    desk = await started_desk(flat(50_000, 5))

    await desk.ask("BUY", signal_confidence=0.1)

    assert results(desk)[0].rejection_reason == "confidence 0.1 is below the policy's minimum 0.5"
    assert desk.bus.of("risk.alert")[0].alert_type == "TRADE_BLOCKED"


async def test_a_reduce_only_request_makes_the_position_smaller_and_its_stop_follows() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.ask("BUY", position_size_usd=1010.0)

    await desk.ask("SELL", position_size_usd=510.0, reduce_only=True)

    assert desk.book.positions[BTC].size == Decimal("0.009")
    assert results(desk)[-1].status == "SUCCESS"
    assert desk.orders(Leg.REDUCE)[0].is_reduce_only
    await desk.tick(2.0)
    assert_sound(desk)


async def test_a_reduction_that_would_leave_dust_closes_all() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.ask("BUY", position_size_usd=1010.0)

    await desk.ask("SELL", position_size_usd=950.0, reduce_only=True)

    assert not desk.book.positions
    assert desk.bus.of("position.closed")[0].exit_reason == "MANUAL"
    await desk.tick(2.0)
    assert_sound(desk)


async def test_a_reduce_only_request_without_a_position_is_refused() -> None:
    desk = await started_desk(flat(50_000, 5))

    await desk.ask("SELL", reduce_only=True)

    assert results(desk)[0].rejection_reason == "there is no position that this would reduce"


async def test_a_request_in_the_direction_of_the_position_adds_to_it() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.ask("BUY", position_size_usd=510.0)
    opened = desk.book.positions[BTC]

    await desk.ask("BUY", position_size_usd=510.0, leverage=9)

    position = desk.book.positions[BTC]
    assert position.position_id == opened.position_id
    assert position.size == Decimal("0.019")  # the cap of 1,000 USD holds for the whole position
    assert position.leverage == opened.leverage
    await desk.tick(2.0)
    assert_sound(desk)


async def test_a_request_against_the_position_must_say_reduce_only() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.ask("BUY")

    await desk.ask("SELL")

    assert "reduce_only" in results(desk)[-1].rejection_reason


async def test_a_price_beyond_the_guard_is_refused_before_the_send() -> None:
    desk = await started_desk([*flat(50_000, 1), *flat(50_400, 4)])
    late = desk.signal_event("BUY")
    await desk.advance(2)

    await desk.service.handlers.order_executor.on_signal(late)

    (result,) = results(desk)
    assert result.status == "REJECTED"
    assert "0.80 % worse than the arrival price 50000" in result.rejection_reason
    assert not desk.venue.sent


async def test_a_book_that_is_not_known_gives_a_bounded_order_instead_of_a_market_order() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.advance(1)
    desk.venue.before["quote"] = [ConnectionLostError("down")]

    await desk.signal("BUY")

    (entry,) = desk.orders(Leg.ENTRY)
    assert (entry.order_type, entry.price, entry.time_in_force) == (
        OrderType.LIMIT,
        Decimal(50_250),
        TimeInForce.IOC,
    )
    assert results(desk)[0].status == "SUCCESS"
    assert_sound(desk)


async def test_a_book_that_is_too_thin_gives_a_bounded_order_and_the_rest_is_not_chased() -> None:
    generous = replace(DEFAULT_POLICIES[RiskMode.NORMAL], position_size_cap=1e7, max_risk_pct_per_trade=Fraction(0.5))
    desk = await started_desk(
        flat(50_000, 5),
        volume=0.0,
        wallet="10000000",
        rules=Rules(max_position_size_usd=Decimal(10_000_000), default_strategy=Strategy.MARKET),
        policy=FixedPolicy(PolicyState(RiskMode.NORMAL, generous, version=1)),
    )

    await desk.signal("BUY", suggested_size_usd=5_000_000.0)
    await desk.tick(5.0)

    (entry,) = desk.orders(Leg.ENTRY)
    assert entry.time_in_force is TimeInForce.IOC
    assert entry.average_price is not None
    assert entry.average_price <= Decimal(50_250)
    assert results(desk)[0].status == "PARTIAL"
    assert_sound(desk)


async def test_a_refusal_about_the_moment_is_tried_again_ever_later_and_no_more_than_three_times() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [OVERLOADED, OVERLOADED]

    await desk.signal("BUY")
    await desk.tick(0.9)
    assert len(desk.orders(Leg.ENTRY)) == 1
    await desk.tick(0.2)
    assert len(desk.orders(Leg.ENTRY)) == 2
    await desk.tick(1.8)
    assert len(desk.orders(Leg.ENTRY)) == 2
    assert not results(desk)
    await desk.tick(0.3)

    assert [order.status for order in desk.orders(Leg.ENTRY)] == [
        OrderStatus.REJECTED,
        OrderStatus.REJECTED,
        OrderStatus.FILLED,
    ]
    assert [result.status for result in results(desk)] == ["SUCCESS"]
    assert_sound(desk)


async def test_after_three_refusals_about_the_moment_the_execution_is_refused() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [OVERLOADED] * 3

    await desk.signal("BUY")
    for _ in range(6):
        await desk.tick(1.0)

    assert len(desk.orders(Leg.ENTRY)) == 3
    assert [result.status for result in results(desk)] == ["REJECTED"]
    assert not desk.book.executions


async def test_an_order_whose_fate_is_open_is_never_tried_again() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [OutcomeUnknownError("HTTP 503, code -1007", code=-1007, http_status=503)]

    await desk.signal("BUY")
    for _ in range(20):
        await desk.tick(1.0)

    assert len(desk.orders(Leg.ENTRY)) == 1
    assert desk.orders(Leg.ENTRY)[0].status is OrderStatus.UNKNOWN
    assert not results(desk)


async def test_an_execution_that_expired_while_it_waited_sends_nothing_more() -> None:
    desk = await started_desk(flat(50_000, 40), rules=Rules(execution_lifetime=timedelta(minutes=1)))
    desk.venue.before["submit:entry"] = [OVERLOADED]
    await desk.signal("BUY")

    await desk.advance(2)
    await desk.tick(1.0)

    assert len(desk.orders(Leg.ENTRY)) == 1
    assert "expired" in results(desk)[0].rejection_reason
    assert desk.book.available() == Decimal(10_000)


async def test_what_is_not_sent_yet_is_reserved() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [OVERLOADED]

    await desk.signal("BUY")

    assert desk.book.available() == Decimal(9_900)  # 500 USD at leverage 5
    assert BTC in desk.book.taken_symbols()
