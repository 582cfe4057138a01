"""Conditional orders: what each type waits for, what it becomes, how it ends, and how it is refused at the trigger."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.records import AlgoRecord, AlgoRequest, AlgoStatus, TimeInForce, WorkingType
from infrastructure.paper_exchange.refusals import refusal
from shared.trading.orders import OrderStatus, OrderType, Side
from tests.support.markets import BTC, Prices, after, engine_on, flat, limit, market, stop
from tests.support.refusals import refused

TRAILING, STOP, TAKE_PROFIT = OrderType.TRAILING_STOP_MARKET, OrderType.STOP, OrderType.TAKE_PROFIT
UP_AND_DOWN: list[Prices] = [
    (100_000.0, 101_000.0, 100_000.0, 101_000.0),
    (101_000.0, 102_000.0, 101_000.0, 102_000.0),
    (102_000.0, 102_000.0, 100_000.0, 100_000.0),
    *flat(100_000.0, 3),
]


def algo(side: Side, kind: OrderType, **more: Any) -> AlgoRequest:
    quantity = more.pop("quantity", Decimal("0.1"))
    return AlgoRequest(BTC, side, kind, quantity=quantity, **more)


def trailing(side: Side, rate: str = "1", **more: Any) -> AlgoRequest:
    return algo(side, TRAILING, callback_rate=Decimal(rate), **more)


def statuses(engine: MatchingEngine) -> list[str]:
    """Return the states that ALGO_UPDATE told since the last look."""
    return [event["o"]["X"] for event in engine.take_events() if event["e"] == "ALGO_UPDATE"]


def filled_price(engine: MatchingEngine, waiting: AlgoRecord) -> Decimal:
    """Return what the order behind a finished condition was filled at, USDT."""
    found = engine.algo(algo_id=waiting.algo_id)
    assert found.actual_order_id is not None
    return engine.order(BTC, order_id=found.actual_order_id).average_price


# -- limit orders behind a trigger ---------------------------------------------------------------------------------


def test_a_stop_becomes_a_limit_order_that_rests_and_finishes_when_it_fills() -> None:
    prices = [(100_000.0, 100_000.0, 98_900.0, 98_900.0), *flat(98_900.0, 2), (98_900.0, 99_600.0, 98_900.0, 99_600.0)]
    engine = engine_on([*prices, *flat(99_600.0, 2)])
    engine.place_order(market(Side.BUY, "0.1"))
    waiting = engine.place_algo(
        algo(Side.SELL, STOP, trigger_price=Decimal(99_000), price=Decimal(99_500), reduce_only=True)
    )
    engine.take_events()
    engine.advance_to(after(2))
    triggered = engine.algo(algo_id=waiting.algo_id)
    assert triggered.status is AlgoStatus.TRIGGERED
    (resting,) = engine.open_orders(BTC)
    assert (resting.order_id, resting.type, resting.origin_type) == (triggered.actual_order_id, "LIMIT", "STOP")
    assert resting.stop_price == 99_000
    engine.advance_to(after(5))
    finished = engine.algo(algo_id=waiting.algo_id)
    assert (finished.status, finished.actual_price) == (AlgoStatus.FINISHED, Decimal(99_500))
    assert statuses(engine) == ["TRIGGERING", "TRIGGERED", "FINISHED"]


def test_cancelling_the_order_behind_a_condition_finishes_the_condition() -> None:
    engine = engine_on(UP_AND_DOWN)
    waiting = engine.place_algo(algo(Side.BUY, STOP, trigger_price=Decimal(101_500), price=Decimal(98_000)))
    engine.advance_to(after(3))
    engine.cancel_open_orders(BTC)
    finished = engine.algo(algo_id=waiting.algo_id)
    assert (finished.status, finished.actual_quantity) == (AlgoStatus.FINISHED, Decimal(0))
    with refused(-2011):
        engine.cancel_algo(algo_id=waiting.algo_id)


def test_a_take_profit_becomes_a_limit_order() -> None:
    engine = engine_on(UP_AND_DOWN)
    engine.place_order(market(Side.BUY, "0.1"))
    waiting = engine.place_algo(
        algo(Side.SELL, TAKE_PROFIT, trigger_price=Decimal(101_500), price=Decimal(101_400), reduce_only=True)
    )
    engine.advance_to(after(2))
    assert engine.algo(algo_id=waiting.algo_id).status is AlgoStatus.FINISHED
    assert filled_price(engine, waiting) >= 101_400


# -- trailing stops ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [1, 41])
def test_a_trailing_sell_follows_the_highest_price(cuts: int) -> None:
    engine = engine_on(UP_AND_DOWN)
    engine.place_order(market(Side.BUY, "0.1"))
    waiting = engine.place_algo(trailing(Side.SELL, "1", reduce_only=True))
    engine.advance_to(after(1.5))
    assert engine.algo(algo_id=waiting.algo_id).trigger_price > 99_000, "it has moved up"
    for cut in range(1, cuts + 1):
        engine.advance_to(after(1.5 + 3.5 * cut / cuts))
    fired = engine.algo(algo_id=waiting.algo_id)
    assert (fired.status, fired.extreme, fired.trigger_price) == (
        AlgoStatus.FINISHED,
        Decimal(102_000),
        Decimal(100_980),
    )
    assert 100_500 < filled_price(engine, waiting) <= 100_980


def test_a_trailing_buy_follows_the_lowest_price() -> None:
    mirrored = [(p[0], 200_000 - p[2], 200_000 - p[1], 200_000 - p[3]) for p in UP_AND_DOWN]
    mirrored = [(200_000 - p[0], m[1], m[2], m[3]) for p, m in zip(UP_AND_DOWN, mirrored, strict=True)]
    engine = engine_on(mirrored)
    engine.place_order(market(Side.SELL, "0.1"))
    waiting = engine.place_algo(trailing(Side.BUY, "1", reduce_only=True))
    engine.advance_to(after(5))
    fired = engine.algo(algo_id=waiting.algo_id)
    assert (fired.status, fired.extreme, fired.trigger_price) == (AlgoStatus.FINISHED, Decimal(98_000), Decimal(98_980))


def test_a_trailing_stop_sleeps_until_its_activation_price() -> None:
    engine = engine_on(UP_AND_DOWN)
    engine.place_order(market(Side.BUY, "0.1"))
    reached = engine.place_algo(trailing(Side.SELL, "0.5", activation_price=Decimal(101_500), reduce_only=True))
    never = engine.place_algo(trailing(Side.SELL, "0.5", activation_price=Decimal(103_000), reduce_only=True))
    assert engine.algo(algo_id=reached.algo_id).extreme is None
    engine.advance_to(after(5))
    assert engine.algo(algo_id=reached.algo_id).status is AlgoStatus.FINISHED
    assert engine.algo(algo_id=never.algo_id).status is AlgoStatus.NEW


def test_refusals_of_trailing_stops() -> None:
    engine = engine_on(UP_AND_DOWN)
    for code, request in (
        (-1130, trailing(Side.SELL, "0.05")),
        (-1130, trailing(Side.SELL, "10.1")),
        (-1102, algo(Side.SELL, TRAILING)),
        (-1106, trailing(Side.SELL, trigger_price=Decimal(99_000))),
        (-2021, trailing(Side.SELL, activation_price=Decimal(99_000))),
        (-2021, trailing(Side.BUY, activation_price=Decimal(101_000))),
        (-4014, trailing(Side.SELL, activation_price=Decimal("101000.05"))),
        (-1106, replace(stop(Side.SELL, "0.1", "99000"), callback_rate=Decimal(1))),
        (-1106, trailing(Side.SELL, quantity=None, close_position=True)),
    ):
        with refused(code):
            engine.place_algo(request)
    assert engine.algos(BTC) == []


# -- the position behind them --------------------------------------------------------------------------------------


def test_close_position_stands_alone() -> None:
    engine = engine_on(flat(100_000.0, 3))
    with refused(-4137):
        engine.place_algo(stop(Side.SELL, "0.1", "99000", close_position=True))
    with refused(-4138):
        engine.place_algo(stop(Side.SELL, None, "99000", close_position=True, reduce_only=True))
    with refused(-1106):
        engine.place_algo(
            algo(
                Side.SELL,
                STOP,
                trigger_price=Decimal(99_000),
                price=Decimal(98_000),
                quantity=None,
                close_position=True,
            )
        )


def test_what_is_tied_to_the_position_expires_with_it() -> None:
    engine = engine_on(flat(100_000.0, 3))
    engine.place_order(market(Side.BUY, "0.1"))
    tied = engine.place_algo(stop(Side.SELL, None, "99000", close_position=True, time_in_force=TimeInForce.GTE_GTC))
    free = engine.place_algo(stop(Side.SELL, "0.1", "99000", reduce_only=True))
    engine.place_order(market(Side.SELL, "0.04", reduce_only=True))
    assert engine.algo(algo_id=tied.algo_id).is_open
    engine.place_order(market(Side.SELL, "0.06", reduce_only=True))
    assert engine.algo(algo_id=tied.algo_id).status is AlgoStatus.EXPIRED
    assert engine.algo(algo_id=free.algo_id).is_open, "its trigger will be refused"


def test_the_second_of_two_stops_finds_nothing_to_close() -> None:
    engine = engine_on([(100_000.0, 100_000.0, 98_000.0, 98_000.0), *flat(98_000.0, 2)])
    engine.place_order(market(Side.BUY, "0.1"))
    first = engine.place_algo(stop(Side.SELL, None, "99000", close_position=True))
    second = engine.place_algo(stop(Side.SELL, "0.1", "98900", reduce_only=True))
    engine.advance_to(after(2))
    found = [engine.algo(algo_id=each.algo_id).status for each in (first, second)]
    assert found == [AlgoStatus.FINISHED, AlgoStatus.REJECTED]


# -- refused at the trigger ----------------------------------------------------------------------------------------


def test_a_refusal_at_the_trigger_is_told_twice() -> None:
    engine = engine_on([(100_000.0, 100_000.0, 98_000.0, 98_000.0), *flat(98_000.0, 2)])
    waiting = engine.place_algo(stop(Side.SELL, "0.1", "99000", reduce_only=True))
    engine.take_events()
    engine.advance_to(after(2))
    triggering, rejected, told = engine.take_events()
    assert (triggering["o"]["X"], rejected["o"]["X"]) == ("TRIGGERING", "REJECTED")
    assert rejected["o"]["rm"] == "ReduceOnly Order is rejected."
    assert (told["e"], told["or"]) == (
        "CONDITIONAL_ORDER_TRIGGER_REJECT",
        {"s": BTC, "i": waiting.algo_id, "r": "ReduceOnly Order is rejected."},
    )


def test_a_gate_can_refuse_triggers() -> None:
    engine = engine_on([(100_000.0, 100_000.0, 98_000.0, 98_000.0), *flat(98_000.0, 2)])
    engine.place_order(market(Side.BUY, "0.1"))
    waiting = engine.place_algo(stop(Side.SELL, "0.1", "99000", reduce_only=True))
    engine.set_trigger_gate(lambda algo: refusal(-2019) if algo.algo_id == waiting.algo_id else None)
    engine.advance_to(after(2))
    assert engine.algo(algo_id=waiting.algo_id).reject_reason == "Margin is insufficient."
    assert engine.position(BTC).quantity == Decimal("0.1")


def test_margin_is_looked_at_only_when_the_condition_comes_true() -> None:
    engine = engine_on(UP_AND_DOWN, wallet="100")
    waiting = engine.place_algo(stop(Side.BUY, "5", "101500"))
    engine.advance_to(after(3))
    assert engine.algo(algo_id=waiting.algo_id).reject_reason == "Margin is insufficient."


def test_price_protection_holds_a_stop_back_from_a_wick() -> None:
    wick = [(100_000.0, 100_000.0, 92_000.0, 100_000.0), *flat(100_000.0, 2)]
    for protect, expected in ((True, AlgoStatus.REJECTED), (False, AlgoStatus.FINISHED)):
        engine = engine_on(wick)
        engine.replace_contract(
            replace(engine.contract(BTC), trigger_protect=Decimal("0.01"), multiplier_down=Decimal("0.5"))
        )
        engine.place_order(market(Side.BUY, "0.1"))
        waiting = engine.place_algo(stop(Side.SELL, "0.1", "93000", reduce_only=True, price_protect=protect))
        engine.advance_to(after(2))
        assert engine.algo(algo_id=waiting.algo_id).status is expected


def test_conditional_orders_may_have_a_date() -> None:
    engine = engine_on(flat(100_000.0, 20))
    date = after(12) + timedelta(seconds=1)
    waiting = engine.place_algo(
        stop(
            Side.SELL,
            "0.1",
            "99000",
            time_in_force=TimeInForce.GTD,
            good_till=date,
            working_type=WorkingType.MARK_PRICE,
        )
    )
    engine.advance_to(after(15))
    expired = engine.algo(algo_id=waiting.algo_id)
    assert (expired.status, expired.updated_at) == (AlgoStatus.EXPIRED, date)


def test_limit_and_trigger_prices_are_asked_for_where_they_belong() -> None:
    engine = engine_on(flat(100_000.0, 3))
    for code, request in (
        (-1102, algo(Side.SELL, STOP, trigger_price=Decimal(99_000))),
        (-1106, replace(stop(Side.SELL, "0.1", "99000"), price=Decimal(98_000))),
        (-1102, algo(Side.SELL, OrderType.STOP_MARKET)),
        (-1116, algo(Side.SELL, OrderType.LIMIT, trigger_price=Decimal(99_000))),
    ):
        with refused(code):
            engine.place_algo(request)


def test_a_condition_survives_the_cancellation_of_regular_orders() -> None:
    engine = engine_on(flat(100_000.0, 3))
    engine.place_order(limit(Side.BUY, "0.1", "99000"))
    engine.place_algo(stop(Side.SELL, "0.1", "98000"))
    assert [order.status for order in engine.cancel_open_orders(BTC)] == [OrderStatus.CANCELED]
    assert len(engine.open_algos()) == 1
