"""From a signal to its one first consequence."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from services.exec_risk_service.domain.executions import Strategy
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.risk_limits import RiskLimits
from services.exec_risk_service.domain.rules import Rules
from shared.errors import ConnectionLostError, OrderRejectedError
from shared.trading.orders import OrderStatus
from shared.trading.policy import DEFAULT_POLICIES, FALLBACK_POLICY_STATE, Fraction, PolicyState, RiskMode
from tests.support.exec_risk_checks import assert_sound
from tests.support.exec_risk_desk import Desk, FixedPolicy, desk_on, started_desk
from tests.support.markets import BTC, flat


def consequences(desk: Desk, cause: str) -> list[str]:
    """Return the types of the events whose cause is ``cause``."""
    return [e.metadata.event_type for e in desk.bus.events if e.metadata.causation_id == cause]


async def test_an_approved_signal_opens_a_position_with_stop_and_target_on_the_exchange() -> None:
    desk = await started_desk(flat(50_000, 5))

    signal = await desk.signal("BUY")

    position = desk.book.positions[BTC]
    assert position.net.quantity == Decimal("0.01")  # 500 USD at 50,000
    resting = {algo.type: algo for algo in desk.venue.engine.open_algos(BTC)}
    assert {algo.quantity for algo in resting.values()} == {Decimal("0.01")}
    assert all(algo.reduce_only for algo in resting.values())
    opened = desk.bus.of("position.opened")[0]
    assert opened.stop_loss_price == pytest.approx(50_000.5 * 0.98, abs=0.1)
    assert opened.take_profit_price == pytest.approx(50_000.5 * 1.04, abs=0.1)
    assert consequences(desk, signal.metadata.event_id) == ["order.updated"]
    assert_sound(desk)


async def test_everything_that_follows_carries_the_trace_of_the_signal() -> None:
    desk = await started_desk(flat(50_000, 5))

    signal = await desk.signal("SELL")

    told = [e for e in desk.bus.events if e.metadata.event_type != "account.updated"]
    assert {e.metadata.trace_id for e in told} == {signal.metadata.trace_id}
    types = [e.metadata.event_type for e in told]
    assert types.index("execution.result") < types.index("position.opened")
    assert desk.bus.of("position.opened")[0].is_long is False


async def test_every_event_names_its_step_and_the_first_one_the_input() -> None:
    desk = await started_desk(flat(50_000, 5))

    await desk.signal("BUY")

    steps = [e.payload.metadata["step"] for e in desk.bus.events]
    assert steps == sorted(steps)
    firsts = {e.payload.metadata["step"] for e in desk.bus.events if "input" in e.payload.metadata}
    assert firsts == set(steps)


async def test_a_fill_travels_in_full_precision() -> None:
    desk = await started_desk(flat(50_000, 5))

    await desk.signal("BUY")

    fills = [p.metadata["fill"] for p in desk.bus.of("order.updated") if "fill" in p.metadata]
    told = [(f["trade_id"], Decimal(f["quantity"]), Decimal(f["price"])) for f in fills]
    assert told == [(1, Decimal("0.01"), Decimal("50000.5"))]
    assert all(isinstance(f["price"], str) for f in fills)


async def test_a_signal_that_is_delivered_twice_trades_once() -> None:
    desk = await started_desk(flat(50_000, 5))
    event = desk.signal_event("BUY")

    for _ in range(3):
        await desk.service.handlers.order_executor.on_signal(event)
        await desk.settle()
    await desk.restart()
    await desk.service.handlers.order_executor.on_signal(event)
    await desk.settle()

    assert len(desk.orders(Leg.ENTRY)) == 1
    assert consequences(desk, event.metadata.event_id) == ["order.updated"]
    assert_sound(desk)


async def test_hold_does_nothing() -> None:
    desk = await started_desk(flat(50_000, 5))
    before = desk.book

    await desk.signal("HOLD")

    assert desk.book is before


async def test_a_denied_signal_gives_an_alert_and_a_refusal_with_the_reason() -> None:
    desk = await started_desk(flat(50_000, 5))

    signal = await desk.signal("BUY", confidence=0.3)

    assert consequences(desk, signal.metadata.event_id) == ["risk.alert"]
    alert, result = desk.bus.of("risk.alert")[0], desk.bus.of("execution.result")[0]
    assert alert.alert_type == "TRADE_BLOCKED"
    assert result.status == "REJECTED"
    assert result.rejection_reason == "confidence 0.3 is below the policy's minimum 0.5"
    assert not desk.venue.sent
    assert_sound(desk)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"price": None}, "the signal has no price"),
        ({"suggested_size_usd": None}, "the signal suggests no size"),
        ({"suggested_size_usd": 0.0}, "size_usd must be a number above 0, was 0.00"),
        ({"suggested_size_usd": 20.0}, "size 20.00 USD is below the exchange's smallest order"),
        ({"price": 70_000.0}, "price 70000.0 is 40.0 % away from the mark price 50000.0; limit 20.0 %"),
    ],
)
async def test_what_is_unknown_or_out_of_range_is_denied(changes: dict[str, object], reason: str) -> None:
    desk = await started_desk(flat(50_000, 5))

    await desk.signal("BUY", **changes)

    assert desk.bus.of("execution.result")[0].rejection_reason == reason
    assert not desk.venue.sent


async def test_a_symbol_without_a_mark_price_is_denied() -> None:
    desk = desk_on(flat(50_000, 5))
    await desk.start()

    await desk.signal("BUY")

    assert desk.bus.of("execution.result")[0].rejection_reason == "no mark price of BTCUSDT is known yet"


async def test_an_unlisted_symbol_is_denied() -> None:
    desk = await started_desk(flat(50_000, 5))

    event = desk.signal_event("BUY")
    unlisted = event.payload.model_copy(update={"symbol": "DOGEUSDT"})
    await desk.service.handlers.order_executor.on_signal(type(event)(event.metadata, unlisted))

    assert desk.bus.of("execution.result")[0].rejection_reason == "DOGEUSDT is not listed on the exchange"


async def test_a_stale_policy_denies_entries() -> None:
    desk = await started_desk(flat(50_000, 5), policy=FixedPolicy(FALLBACK_POLICY_STATE))

    await desk.signal("BUY")

    assert "stale" in desk.bus.of("execution.result")[0].rejection_reason


async def test_size_is_capped_by_the_policy_and_by_the_risk_at_the_stop() -> None:
    desk = await started_desk(flat(50_000, 5))

    await desk.signal("BUY", suggested_size_usd=50_000.0)

    assert desk.book.positions[BTC].net.quantity == Decimal("0.02")  # cap 1,000 USD
    assert_sound(desk)


async def test_a_second_signal_in_the_same_direction_is_refused_without_an_alert() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")

    second = await desk.signal("BUY")

    assert consequences(desk, second.metadata.event_id) == ["execution.result"]
    assert desk.bus.of("execution.result")[-1].rejection_reason == "position already open"
    assert not desk.bus.of("risk.alert")
    assert_sound(desk)


async def test_an_opposite_signal_closes_the_position_at_market_and_gets_its_answer() -> None:
    desk = await started_desk(flat(50_000, 5))
    entry = await desk.signal("BUY")

    exit_signal = await desk.signal("SELL")

    assert not desk.book.positions
    closed = desk.bus.of("position.closed")[0]
    assert closed.exit_reason == "SIGNAL_EXIT"
    assert closed.pnl_usd == pytest.approx(float(desk.book.cash.wallet - 10_000))
    assert closed.commission_usd == pytest.approx(float(desk.book.cash.commission))
    assert consequences(desk, exit_signal.metadata.event_id) == ["execution.result"]
    by_type = {e.metadata.event_type: e for e in desk.bus.events}
    assert by_type["position.closed"].metadata.trace_id == entry.metadata.trace_id
    assert by_type["execution.result"].metadata.trace_id == exit_signal.metadata.trace_id
    assert_sound(desk)


async def test_an_order_that_the_exchange_refuses_ends_as_rejected_and_frees_the_symbol() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [
        OrderRejectedError("HTTP 400, code -2019, Margin is insufficient.", code=-2019, http_status=400)
    ]

    await desk.signal("BUY")

    result = desk.bus.of("execution.result")[0]
    assert (result.status, result.filled_quantity) == ("REJECTED", 0.0)
    assert "-2019" in result.rejection_reason
    assert desk.orders(Leg.ENTRY)[0].status is OrderStatus.REJECTED
    await desk.signal("BUY")
    assert BTC in desk.book.positions
    assert_sound(desk)


async def test_an_order_that_never_left_is_absent_and_frees_the_symbol() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [
        ConnectionLostError("the exchange cannot be reached, the request was not sent")
    ]

    await desk.signal("BUY")

    assert desk.orders(Leg.ENTRY)[0].status is OrderStatus.ABSENT
    assert desk.bus.of("execution.result")[0].status == "FAILED"
    assert desk.book.available() == Decimal(10_000)
    assert_sound(desk)


async def test_an_order_whose_leverage_cannot_be_set_is_not_sent() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["leverage"] = [OrderRejectedError("code -4028", code=-4028)]

    await desk.signal("BUY")

    assert not desk.venue.sent
    assert desk.orders(Leg.ENTRY)[0].status is OrderStatus.ABSENT
    assert "leverage was not set" in desk.bus.of("execution.result")[0].rejection_reason


async def test_leverage_is_lowered_to_the_policy_and_to_whole_numbers() -> None:
    desk = await started_desk(flat(50_000, 5))

    await desk.signal("BUY", suggested_leverage=33.7)

    assert desk.book.positions[BTC].leverage == 20
    assert desk.venue.engine.position(BTC).leverage == 20


async def test_an_entry_that_is_under_way_blocks_the_symbol() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.service.handlers.order_executor.on_signal(
        desk.signal_event("BUY")
    )  # accepted; its fill was not told yet

    late = desk.signal_event("SELL")
    await desk.service.handlers.order_executor.on_signal(late)

    assert desk.bus.of("execution.result")[0].rejection_reason == "orders of this symbol are still under way"
    await desk.settle()
    assert_sound(desk)


async def test_an_entry_that_fills_in_part_is_reported_as_partial_and_protected_with_what_it_got() -> None:
    generous = replace(DEFAULT_POLICIES[RiskMode.NORMAL], position_size_cap=1e7, max_risk_pct_per_trade=Fraction(0.5))
    desk = await started_desk(
        flat(50_000, 5),
        volume=0.0,  # a thin book: a few lots per level
        wallet="10000000",
        rules=Rules(
            max_position_size_usd=Decimal(10_000_000),
            default_strategy=Strategy.MARKET,
            limits=RiskLimits(max_value_at_risk=Decimal(1)),
        ),
        policy=FixedPolicy(PolicyState(RiskMode.NORMAL, generous, version=1)),
    )

    await desk.signal("BUY", suggested_size_usd=5_000_000.0)

    entry = desk.orders(Leg.ENTRY)[0]
    assert entry.status is OrderStatus.EXPIRED
    assert 0 < entry.filled_quantity < entry.quantity
    assert desk.bus.of("execution.result")[0].status == "PARTIAL"
    assert_sound(desk)
