"""Executions that take their time, on the desk: slices, orders that rest and follow, crashes on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from services.exec_risk_service.domain.executions import Execution, Strategy
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.positions import ExitReason
from services.exec_risk_service.domain.rules import Rules
from shared.errors import ConnectionLostError, OutcomeUnknownError
from shared.trading.orders import OrderStatus, TimeInForce
from shared.trading.policy import DEFAULT_POLICIES, Fraction, PolicyState, RiskMode
from tests.support.exec_risk_checks import assert_sound, refolded
from tests.support.exec_risk_desk import Desk, FixedPolicy, started_desk
from tests.support.markets import BTC, Prices, flat

GENEROUS = replace(DEFAULT_POLICIES[RiskMode.NORMAL], position_size_cap=1e6, max_risk_pct_per_trade=Fraction(0.5))
SIZE = 50_000.0


#: Twenty USDT a minute, without a step back.
RISE: list[Prices] = [(50_000 + 20 * n, 50_020 + 20 * n, 50_000 + 20 * n, 50_020 + 20 * n) for n in range(30)]


async def desk_for_large_orders(prices: list[Prices], **options: Any) -> Desk:
    return await started_desk(
        prices,
        wallet="1000000",
        rules=options.pop("rules", Rules(max_position_size_usd=Decimal(1_000_000))),
        policy=FixedPolicy(PolicyState(RiskMode.NORMAL, GENEROUS, version=1)),
        **options,
    )


async def run(desk: Desk, seconds: float, *, until: Callable[[], bool] = lambda: False, step: float = 2.0) -> None:
    """Let market and wall time pass together, with what the live service's timer does."""
    for _ in range(int(seconds / step)):
        if until():
            return
        await desk.advance(step / 60)
        await desk.tick(0.0)


def working(desk: Desk) -> Execution:
    (execution,) = desk.book.executions.values()
    assert isinstance(execution, Execution)
    return execution


def results(desk: Desk) -> list[Any]:
    return desk.bus.of("execution.result")


async def test_a_twap_trades_its_slices_over_time_and_answers_once() -> None:
    desk = await desk_for_large_orders(flat(50_000, 30))

    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="TWAP")
    execution = working(desk)
    assert len(execution.schedule) == 15
    assert len(desk.orders(Leg.ENTRY)) == 1
    assert desk.book.positions[BTC].size == execution.schedule[0].quantity
    await run(desk, 420, until=lambda: not desk.book.executions)

    (result,) = results(desk)
    assert (result.status, result.strategy) == ("SUCCESS", "TWAP")
    assert result.filled_quantity == pytest.approx(0.999)
    entries = desk.orders(Leg.ENTRY)
    assert [order.sequence for order in entries] == list(range(1, 16))
    assert sum(order.filled_quantity for order in entries) == Decimal("0.999")
    assert len(desk.bus.of("position.opened")) == 1
    await desk.tick(2.0)
    assert_sound(desk)


async def test_the_unsent_part_of_a_twap_is_reserved() -> None:
    desk = await desk_for_large_orders(flat(50_000, 30))
    before = desk.book.available()

    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="TWAP", leverage=5)

    reserved = before - desk.book.available()
    assert float(reserved) == pytest.approx(SIZE / 5, rel=0.01)


async def test_a_twap_ends_when_its_position_is_stopped_out() -> None:
    fall: list[Prices] = [*flat(50_000, 2), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 30)]
    desk = await desk_for_large_orders(fall)
    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="TWAP", stop_loss_pct=2.0)

    await run(desk, 300, until=lambda: not desk.book.executions)

    (result, stop_out) = results(desk)
    if result.metadata["leg"] == "stop":
        result, stop_out = stop_out, result
    assert result.status == "PARTIAL"
    assert "position is closed" in result.rejection_reason
    assert not desk.book.positions
    assert_sound(desk)


async def test_an_opposite_signal_ends_a_twap_and_closes_what_it_has() -> None:
    desk = await desk_for_large_orders(flat(50_000, 30))
    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="TWAP")
    await run(desk, 40)

    await desk.signal("SELL")
    await run(desk, 4)

    assert not desk.book.positions
    assert not desk.book.executions
    assert "SIGNAL_EXIT" in next(r for r in results(desk) if r.strategy == "TWAP").rejection_reason
    assert desk.bus.of("position.closed")[0].exit_reason == ExitReason.SIGNAL_EXIT.value
    await run(desk, 60)
    assert_sound(desk)


async def test_a_twap_sends_nothing_while_a_slice_has_an_unknown_fate() -> None:
    desk = await desk_for_large_orders(flat(50_000, 30))
    desk.venue.before["submit:entry"] = [OutcomeUnknownError("lost", code=-1007, http_status=503)]

    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="TWAP")
    for _ in range(10):
        await desk.tick(1.0)
    assert len(desk.orders(Leg.ENTRY)) == 1
    await run(desk, 420, until=lambda: not desk.book.executions)

    # The first one turned out not to exist; what it should have bought was bought later.
    assert desk.orders(Leg.ENTRY)[0].status is OrderStatus.ABSENT
    assert results(desk)[0].status == "SUCCESS"
    assert_sound(desk)


async def test_a_twap_beyond_the_guard_waits_and_ends_as_partial() -> None:
    desk = await desk_for_large_orders([*flat(50_000, 1), *flat(50_400, 60)])
    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="TWAP", stop_loss_pct=5.0)

    await run(desk, 600, until=lambda: not desk.book.executions)

    (result,) = results(desk)
    assert result.status == "PARTIAL"
    assert "expired" in result.rejection_reason
    assert result.slippage_pct < 0.5
    assert_sound(desk)


async def test_a_process_that_ends_during_a_twap_goes_on_with_it() -> None:
    desk = await desk_for_large_orders(flat(50_000, 30))
    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="TWAP")
    await run(desk, 60)
    schedule = working(desk).schedule
    sent = len(desk.orders(Leg.ENTRY))

    await desk.restart()

    assert working(desk).schedule == schedule
    assert len(desk.orders(Leg.ENTRY)) == sent
    await run(desk, 420, until=lambda: not desk.book.executions)
    assert [result.status for result in results(desk)] == ["SUCCESS"]
    assert sum(order.filled_quantity for order in desk.orders(Leg.ENTRY)) == Decimal("0.999")
    assert_sound(desk)


async def test_an_expired_execution_is_not_resumed_after_a_crash() -> None:
    desk = await desk_for_large_orders(flat(50_000, 60))
    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="TWAP")
    sent = len(desk.orders(Leg.ENTRY))
    await desk.advance(20)

    await desk.restart()
    await run(desk, 4)

    assert len(desk.orders(Leg.ENTRY)) == sent
    assert results(desk)[0].status == "PARTIAL"
    assert_sound(desk)


async def test_a_limit_order_rests_and_fills_as_a_maker() -> None:
    prices: list[Prices] = [(50_000, 50_000, 50_000, 50_000), (50_000, 50_000, 49_900, 49_950), *flat(49_950, 10)]
    desk = await desk_for_large_orders(prices)

    await desk.ask("BUY", position_size_usd=1000.0, execution_strategy="LIMIT")
    (entry,) = desk.orders(Leg.ENTRY)
    assert (entry.status, entry.time_in_force) == (OrderStatus.NEW, TimeInForce.GTX)
    assert entry.price == Decimal("50000.0")
    await run(desk, 100, until=lambda: not desk.book.executions)

    (result,) = results(desk)
    assert (result.status, result.strategy) == ("SUCCESS", "LIMIT")
    assert result.slippage_pct < 0
    assert_sound(desk)


async def test_a_limit_order_follows_the_market_and_crosses_in_the_end() -> None:
    desk = await desk_for_large_orders(RISE)
    await run(desk, 30)

    await desk.ask("BUY", position_size_usd=1000.0, execution_strategy="LIMIT", urgency="HIGH")
    await run(desk, 60, until=lambda: not desk.book.executions)

    entries = desk.orders(Leg.ENTRY)
    assert len(entries) > 1
    assert [order.status for order in entries[:-1]] == [OrderStatus.CANCELED] * (len(entries) - 1)
    (result,) = results(desk)
    assert result.status == "SUCCESS"
    assert result.metadata["chases"] == len(entries) - 1
    assert_sound(desk)


async def test_a_limit_order_that_nobody_takes_is_given_up_when_there_is_no_hurry() -> None:
    desk = await desk_for_large_orders([(50_000, 50_400, 50_000, 50_400), *flat(50_400, 20)])
    await run(desk, 20)

    await desk.ask("BUY", position_size_usd=1000.0, execution_strategy="LIMIT", urgency="LOW")
    await run(desk, 900, until=lambda: not desk.book.executions)

    (result,) = results(desk)
    assert result.status in ("FAILED", "PARTIAL")
    assert not desk.venue.engine.open_orders(BTC)
    assert_sound(desk)


async def test_a_cancel_that_comes_too_late_counts_what_was_filled() -> None:
    """The order is filled when its cancel arrives: the exchange says -2011, and the fill is the truth."""
    desk = await desk_for_large_orders([*flat(50_000, 1), (50_000, 50_010, 49_900, 50_010), *flat(50_010, 20)])
    await desk.ask("BUY", position_size_usd=1000.0, execution_strategy="LIMIT")
    (entry,) = desk.orders(Leg.ENTRY)
    desk.venue.engine.advance_to(desk.market_clock.now() + timedelta(minutes=2))
    desk.market_clock.advance_to(desk.venue.engine.now)
    desk.clock.advance(120)

    await desk.service.executions.work()  # wants to follow: nobody told it of the fill
    await desk.settle()

    assert desk.book.orders[entry.client_order_id].status is OrderStatus.FILLED
    assert len(desk.orders(Leg.ENTRY)) == 1
    assert results(desk)[0].status == "SUCCESS"
    assert_sound(desk)


async def test_a_limit_order_that_rests_is_taken_back_for_an_exit() -> None:
    desk = await desk_for_large_orders(RISE)
    await run(desk, 30)
    await desk.ask("BUY", position_size_usd=1000.0, execution_strategy="MARKET")
    await desk.ask("BUY", position_size_usd=SIZE, execution_strategy="LIMIT", urgency="LOW")
    assert desk.venue.engine.open_orders(BTC)

    await desk.signal("SELL")
    await run(desk, 4)

    assert not desk.book.positions
    assert not desk.venue.engine.open_orders(BTC)
    assert not desk.book.executions
    assert_sound(desk)


async def test_smart_slices_what_the_book_cannot_take_and_says_why() -> None:
    desk = await desk_for_large_orders(flat(50_000, 30), volume=20.0)

    await desk.signal("BUY", suggested_size_usd=500_000.0)
    execution = working(desk)

    assert execution.asked is Strategy.SMART
    assert execution.strategy is Strategy.TWAP
    assert "of the depth within 0.5 %" in execution.explanation
    await run(desk, 900, until=lambda: not desk.book.executions)
    (result,) = results(desk)
    assert result.strategy == "TWAP"
    assert result.metadata["asked_strategy"] == "SMART"
    assert result.metadata["explanation"] == execution.explanation
    assert_sound(desk)


async def test_what_an_execution_cost_is_remembered_by_symbol() -> None:
    desk = await desk_for_large_orders(flat(50_000, 5))

    await desk.signal("BUY")

    memory = desk.book.slippage[BTC]
    assert memory.weight == 1
    await desk.restart()
    assert desk.book.slippage[BTC] == memory


async def test_a_recorded_twap_replays_to_the_same_orders() -> None:
    desk = await started_desk(flat(50_000, 30))
    await desk.ask("BUY", position_size_usd=990.0, execution_strategy="TWAP", urgency="HIGH")
    await run(desk, 200, until=lambda: not desk.book.executions)
    await desk.ask("SELL", position_size_usd=500.0, execution_strategy="LIMIT", reduce_only=True, urgency="HIGH")
    await run(desk, 200, until=lambda: not desk.book.executions)

    book, _ = refolded([*desk.neighbours, *desk.bus.events], await desk.venue.instruments())

    assert {**book.orders} == {**desk.book.orders}
    assert {**book.positions} == {**desk.book.positions}
    assert {**book.executions} == {**desk.book.executions} == {}
    assert {**book.slippage} == {**desk.book.slippage}


async def test_a_limit_order_that_fills_in_part_and_then_falls_silent_is_taken_back_and_answered() -> None:
    """The rest is cancelled at the end of its patience; what was executed counts, and the stop has that size."""
    leaves: list[Prices] = [*flat(50_000, 2), (50_000, 50_400, 50_000, 50_400), *flat(50_400, 30)]
    desk = await desk_for_large_orders(leaves, volume=1.5)
    await desk.ask("BUY", position_size_usd=400_000.0, execution_strategy="LIMIT", urgency="LOW", stop_loss_pct=5.0)
    (entry,) = desk.orders(Leg.ENTRY)
    await run(desk, 900, until=lambda: not desk.book.executions or len(desk.venue.engine.open_algos(BTC)) > 4)
    assert len(desk.venue.engine.open_algos(BTC)) <= 4  # old and new, never a heap of them

    orders = desk.orders(Leg.ENTRY)
    filled = sum(order.filled_quantity for order in orders)
    assert all(order.status is not OrderStatus.NEW for order in orders)
    (result,) = results(desk)
    assert result.filled_quantity == pytest.approx(float(filled))
    assert result.status == "PARTIAL"
    assert 0 < filled < entry.quantity
    await desk.tick(2.0)
    assert_sound(desk)


async def test_a_limit_order_that_rests_is_not_asked_for_all_the_time() -> None:
    desk = await desk_for_large_orders(RISE)
    await run(desk, 30)
    await desk.ask("BUY", position_size_usd=1000.0, execution_strategy="LIMIT", urgency="LOW")
    questions = [ConnectionLostError("not asked") for _ in range(9)]
    desk.venue.before["find"] = list(questions)

    for _ in range(8):
        await desk.tick(1.0)

    assert desk.venue.before["find"] == questions
    assert desk.venue.engine.open_orders(BTC)
