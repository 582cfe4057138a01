"""Orders against written candles: what fills, at which price, with which fee, and what the account becomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.records import AlgoStatus, IncomeType, TimeInForce, WorkingType
from shared.errors import ConfigurationError
from shared.trading.orders import OrderStatus, Side
from tests.support.markets import (
    BTC,
    START,
    WrittenSource,
    after,
    engine_on,
    flat,
    limit,
    market,
    stop,
    take_profit,
)
from tests.support.refusals import refused

RISE_AND_FALL = [
    (100_000.0, 100_500.0, 99_000.0, 100_200.0),
    (100_200.0, 101_000.0, 100_100.0, 100_900.0),
    (100_900.0, 101_200.0, 98_000.0, 98_500.0),
    *flat(98_500.0, 5),
]


def test_a_market_order_pays_the_ask_and_the_taker_fee() -> None:
    engine = engine_on(flat(100_000.0, 3))
    quote = engine.quote(BTC)
    order = engine.place_order(market(Side.BUY, "0.1"))
    assert order.status is OrderStatus.FILLED
    assert order.average_price == quote.ask.price > quote.last >= quote.bid.price
    (record,) = engine.fills(BTC)
    assert record.fill.commission == record.fill.price * record.fill.quantity * Decimal("0.0005")
    assert not record.is_maker
    assert engine.account().wallet == Decimal(10_000) - record.fill.commission
    assert engine.position(BTC).quantity == Decimal("0.1")


def test_a_large_market_order_walks_the_depth_and_the_next_one_starts_where_it_ended() -> None:
    engine = engine_on(flat(100_000.0, 3), wallet="100000000")
    first_ask = engine.quote(BTC).ask
    big = engine.place_order(market(Side.BUY, str(first_ask.quantity * 3)))
    prices = [record.fill.price for record in engine.fills(BTC)]
    assert prices == sorted(prices)
    assert len(prices) > 1
    assert big.average_price > first_ask.price
    assert engine.quote(BTC).ask.price >= prices[-1], "what was taken stays taken within the step"
    engine.advance_to(after(0.5))
    assert engine.quote(BTC).ask.price == first_ask.price, "the depth refills at the next step"


def test_what_the_depth_cannot_fill_expires() -> None:
    engine = engine_on(flat(100_000.0, 3), volume=0.0, wallet="1000000000")
    order = engine.place_order(market(Side.SELL, "100"))
    assert order.status is OrderStatus.EXPIRED
    assert Decimal(0) < order.executed < 100


def test_a_limit_order_rests_until_the_path_crosses_it_and_fills_at_its_own_price_as_maker() -> None:
    engine = engine_on(RISE_AND_FALL)
    order = engine.place_order(limit(Side.BUY, "0.1", "99500"))
    assert order.status is OrderStatus.NEW
    assert engine.open_orders(BTC) == [order]
    engine.advance_to(after(1))
    filled = engine.order(BTC, order_id=order.order_id)
    assert (filled.status, filled.average_price) == (OrderStatus.FILLED, Decimal(99500))
    (record,) = engine.fills(BTC)
    assert record.is_maker
    assert record.fill.commission == Decimal(99500) * Decimal("0.1") * Decimal("0.0002")
    assert START < record.fill.time < after(1)


def test_a_limit_order_that_the_path_does_not_reach_stays() -> None:
    engine = engine_on(RISE_AND_FALL)
    order = engine.place_order(limit(Side.BUY, "0.1", "97000"))
    engine.advance_to(after(8))
    assert engine.open_orders(BTC) == [order]


def test_a_large_resting_order_fills_in_parts() -> None:
    engine = engine_on(flat(100_000.0, 2) + flat(99_499.0, 3), volume=1.0)
    order = engine.place_order(limit(Side.BUY, "1", "99500"))
    engine.advance_to(after(2))
    assert engine.order(BTC, order_id=order.order_id).status is OrderStatus.PARTIALLY_FILLED
    engine.advance_to(after(4))
    assert engine.order(BTC, order_id=order.order_id).status is OrderStatus.FILLED
    assert sum(record.fill.quantity for record in engine.fills(BTC)) == 1


def test_time_in_force_rules() -> None:
    engine = engine_on(flat(100_000.0, 3), volume=1.0, wallet="100000000")
    with refused(-5022):
        engine.place_order(limit(Side.BUY, "0.1", "100100", TimeInForce.GTX))
    with refused(-5021):
        engine.place_order(limit(Side.BUY, "500", "100100", TimeInForce.FOK))
    part = engine.place_order(limit(Side.BUY, "100", "100004", TimeInForce.IOC))
    assert part.status is OrderStatus.EXPIRED
    assert 0 < part.executed < 100
    engine.advance_to(after(1))
    resting = engine.place_order(limit(Side.BUY, "0.1", "99000", TimeInForce.GTX))
    assert resting.status is OrderStatus.NEW


def test_realized_profit_of_a_round_trip_reaches_the_wallet() -> None:
    engine = engine_on(RISE_AND_FALL)
    engine.place_order(market(Side.BUY, "0.1"))
    engine.advance_to(after(2))
    engine.place_order(market(Side.SELL, "0.1", reduce_only=True))
    bought, sold = (record.fill for record in engine.fills(BTC))
    assert sold.realized_pnl == (sold.price - bought.price) * Decimal("0.1") > 0
    assert engine.position(BTC).quantity == 0
    assert engine.account().wallet == 10_000 + sold.realized_pnl - bought.commission - sold.commission


def test_reduce_only_never_opens_or_flips() -> None:
    engine = engine_on(flat(100_000.0, 3))
    with refused(-2022):
        engine.place_order(market(Side.SELL, "0.1", reduce_only=True))
    engine.place_order(market(Side.BUY, "0.1"))
    with refused(-2022):
        engine.place_order(market(Side.BUY, "0.1", reduce_only=True))
    order = engine.place_order(market(Side.SELL, "0.5", reduce_only=True))
    assert order.quantity == Decimal("0.1"), "cut to the position"
    assert engine.position(BTC).quantity == 0


def test_a_resting_reduce_only_order_expires_when_there_is_nothing_left_to_reduce() -> None:
    engine = engine_on(flat(100_000.0, 1) + flat(100_600.0, 2))
    engine.place_order(market(Side.BUY, "0.1"))
    exit_order = engine.place_order(limit(Side.SELL, "0.1", "100500", reduce_only=True))
    engine.place_order(market(Side.SELL, "0.1"))
    engine.advance_to(after(2))
    assert engine.order(BTC, order_id=exit_order.order_id).status is OrderStatus.EXPIRED
    assert engine.position(BTC).quantity == 0


def test_a_stop_becomes_a_market_order_with_its_own_id() -> None:
    engine = engine_on(RISE_AND_FALL)
    engine.place_order(market(Side.BUY, "0.1"))
    algo = engine.place_algo(stop(Side.SELL, "0.1", "99900", client_algo_id="sl-1", reduce_only=True))
    engine.take_events()
    engine.advance_to(after(1))
    fired = engine.algo(algo_id=algo.algo_id)
    assert fired.status is AlgoStatus.FINISHED
    assert fired.actual_order_id is not None
    order = engine.order(BTC, order_id=fired.actual_order_id)
    assert (order.type, order.origin_type, order.client_order_id) == ("MARKET", "STOP_MARKET", "sl-1")
    assert order.average_price < Decimal(99900), "slippage: the stop sells at the bid below its trigger"
    assert engine.position(BTC).quantity == 0
    kinds = [
        (event["e"], event["o"]["X"] if "o" in event else event["a"]["m"])
        for event in engine.take_events()
        if event["e"] != "TRADE_LITE"
    ]
    assert kinds == [
        ("ALGO_UPDATE", "TRIGGERING"),
        ("ORDER_TRADE_UPDATE", "NEW"),
        ("ACCOUNT_UPDATE", "ORDER"),
        ("ORDER_TRADE_UPDATE", "FILLED"),
        ("ALGO_UPDATE", "TRIGGERED"),
        ("ALGO_UPDATE", "FINISHED"),
    ]


def test_the_mark_price_ignores_wicks_so_a_mark_stop_survives_them() -> None:
    engine = engine_on([(100_000.0, 100_100.0, 95_000.0, 100_000.0), *flat(100_000.0, 2)])
    engine.place_order(market(Side.BUY, "0.1"))
    by_mark = engine.place_algo(
        stop(Side.SELL, None, "99000", close_position=True, working_type=WorkingType.MARK_PRICE)
    )
    by_last = engine.place_algo(stop(Side.SELL, "0.05", "99000", reduce_only=True))
    engine.advance_to(after(2))
    assert engine.algo(algo_id=by_mark.algo_id).status is AlgoStatus.NEW
    assert engine.algo(algo_id=by_last.algo_id).status is AlgoStatus.FINISHED
    assert engine.position(BTC).quantity == Decimal("0.05")


def test_take_profit_triggers_on_the_way_up_for_a_long() -> None:
    engine = engine_on(RISE_AND_FALL)
    engine.place_order(market(Side.BUY, "0.1"))
    algo = engine.place_algo(take_profit(Side.SELL, "0.1", "100800", WorkingType.CONTRACT_PRICE))
    engine.advance_to(after(1))
    assert engine.algo(algo_id=algo.algo_id).status is AlgoStatus.NEW
    engine.advance_to(after(2))
    assert engine.algo(algo_id=algo.algo_id).status is AlgoStatus.FINISHED


def test_close_position_closes_all_of_it() -> None:
    engine = engine_on(RISE_AND_FALL)
    engine.place_order(market(Side.BUY, "0.237"))
    engine.place_algo(stop(Side.SELL, None, "99000", close_position=True))
    engine.advance_to(after(3))
    assert engine.position(BTC).quantity == 0
    assert engine.orders(BTC)[-1].executed == Decimal("0.237")


def test_a_stop_without_a_position_is_rejected_at_its_trigger() -> None:
    engine = engine_on(RISE_AND_FALL)
    algo = engine.place_algo(stop(Side.SELL, "0.1", "99000", reduce_only=True))
    engine.advance_to(after(3))
    rejected = engine.algo(algo_id=algo.algo_id)
    assert (rejected.status, rejected.reject_reason) == (AlgoStatus.REJECTED, "ReduceOnly Order is rejected.")


def test_refusals_of_conditional_orders() -> None:
    engine = engine_on(flat(100_000.0, 3))
    with refused(-2021):
        engine.place_algo(stop(Side.SELL, "0.1", "100100"))
    with refused(-2021):
        engine.place_algo(take_profit(Side.SELL, "0.1", "99900", WorkingType.MARK_PRICE))
    with refused(-4137):
        engine.place_algo(stop(Side.SELL, "0.1", "99000", close_position=True))
    with refused(-1102):
        engine.place_algo(stop(Side.SELL, None, "99000"))
    engine.place_algo(stop(Side.SELL, "0.1", "99000", client_algo_id="same"))
    with refused(-4116):
        engine.place_algo(stop(Side.SELL, "0.1", "98000", client_algo_id="same"))


def test_cancel_and_look_up() -> None:
    engine = engine_on(flat(100_000.0, 3))
    order = engine.place_order(limit(Side.BUY, "0.1", "99000", client_order_id="mine"))
    algo = engine.place_algo(stop(Side.SELL, "0.1", "98000", client_algo_id="sl"))
    assert engine.order(BTC, client_order_id="mine") == order
    with refused(-4116):
        engine.place_order(limit(Side.BUY, "0.1", "99000", client_order_id="mine"))
    assert engine.cancel_order(BTC, client_order_id="mine").status is OrderStatus.CANCELED
    assert engine.cancel_algo(client_algo_id="sl").status is AlgoStatus.CANCELED
    for call in (
        lambda: engine.cancel_order(BTC, order_id=order.order_id),
        lambda: engine.cancel_algo(algo_id=algo.algo_id),
        lambda: engine.cancel_order(BTC, client_order_id="never"),
    ):
        with refused(-2011):
            call()
    with refused(-2013):
        engine.order(BTC, client_order_id="never")
    again = engine.place_order(limit(Side.BUY, "0.1", "98000", client_order_id="mine"))
    assert engine.order(BTC, client_order_id="mine") == again, "a client id is free again once its order is closed"


def test_margin_is_checked_before_an_order_enters() -> None:
    engine = engine_on(flat(100_000.0, 3), wallet="1000")
    with refused(-2019):
        engine.place_order(market(Side.BUY, "0.21"))
    engine.place_order(market(Side.BUY, "0.19"))
    with refused(-2019):
        engine.place_order(limit(Side.BUY, "0.1", "99000"))
    engine.place_order(market(Side.SELL, "0.2"))
    assert engine.position(BTC).quantity == Decimal("-0.01"), "closing and flipping frees margin first"


def test_resting_orders_bind_margin() -> None:
    engine = engine_on(flat(100_000.0, 3), wallet="1000")
    free = engine.account().available
    engine.place_order(limit(Side.BUY, "0.1", "99000"))
    assert engine.account().available == free - Decimal(495)
    with refused(-2019):
        engine.place_order(limit(Side.BUY, "0.11", "99000"))


def test_leverage_bounds_positions() -> None:
    engine = engine_on(flat(100_000.0, 3), wallet="100000000")
    with refused(-4028):
        engine.set_leverage(BTC, 126)
    engine.set_leverage(BTC, 125)
    with refused(-2027):
        engine.place_order(market(Side.BUY, "3.1"))
    engine.place_order(market(Side.BUY, "2.9"))
    assert engine.position(BTC).leverage == 125


def test_funding_is_settled_every_eight_hours_and_booked() -> None:
    moment = datetime(2025, 5, 20, 8, tzinfo=UTC)
    source = WrittenSource(flat(100_000.0, 20), timeframe="1h", rates={moment: Decimal("0.0002")})
    engine = MatchingEngine(source, start=START)
    engine.place_order(market(Side.BUY, "0.1"))
    engine.take_events()
    engine.advance_to(moment - timedelta(seconds=1))
    assert not engine.take_events()
    engine.advance_to(moment)
    (event,) = engine.take_events()
    assert (event["e"], event["a"]["m"], event["a"]["P"]) == ("ACCOUNT_UPDATE", "FUNDING_FEE", [])
    engine.advance_to(moment + timedelta(hours=8))
    first, second = (record for record in engine.incomes() if record.type is IncomeType.FUNDING_FEE)
    assert first.amount == Decimal(-2), "a long pays a positive rate: 0.1 x 100000 x 0.0002"
    assert second.amount == Decimal(-1), "the neutral rate where none is known"


def test_a_day_candle_settles_funding_three_times() -> None:
    midnight = START.replace(hour=0)
    engine = MatchingEngine(WrittenSource(flat(100_000.0, 3), timeframe="1d", start=midnight), start=START)
    engine.place_order(market(Side.BUY, "0.1"))
    engine.advance_to(START + timedelta(days=1, hours=23))
    times = [record.time for record in engine.incomes() if record.type is IncomeType.FUNDING_FEE]
    assert times == [midnight + timedelta(hours=8) * number for number in range(1, 7)]


def test_user_events_carry_binances_keys() -> None:
    engine = engine_on(flat(100_000.0, 3))
    engine.place_order(market(Side.BUY, "0.1", client_order_id="mine"))
    engine.place_algo(stop(Side.SELL, "0.1", "99000"))
    new, lite, account, trade, algo = engine.take_events()
    order_keys = "s c S o f q p ap sp x X i l z L T t b a m R wt ot ps cp pP si ss rp V pm gtd er"
    assert set(new["o"]) == set(order_keys.split())
    assert set(trade["o"]) == {*order_keys.split(), "n", "N"}
    assert (trade["o"]["c"], trade["o"]["x"], trade["o"]["X"], trade["o"]["t"]) == ("mine", "TRADE", "FILLED", 1)
    assert set(account["a"]["P"][0]) == {"s", "pa", "ep", "bep", "cr", "up", "mt", "iw", "ps"}
    assert set(lite) == {"e", "E", "T", "s", "q", "p", "m", "c", "S", "L", "l", "t", "i"}
    algo_keys = "caid aid at o s S ps f q X ai ap aq act tp p V wt pm cp pP R tt gtd rm"
    assert set(algo["o"]) == set(algo_keys.split())


def test_candles_show_history_and_the_forming_one_last() -> None:
    source = WrittenSource([*flat(99_000.0, 5), *RISE_AND_FALL], history=5)
    engine = MatchingEngine(source, start=START)
    engine.advance_to(after(1.5))
    candles = engine.candles(BTC, "1m", START - timedelta(hours=1), after(60))
    assert [candle.open_time for candle in candles] == [after(number) for number in range(-5, 2)]
    forming = candles[-1]
    assert forming.open == 100_200.0
    assert forming.volume == pytest.approx(100 * 31 / 60)
    assert forming.close != RISE_AND_FALL[1][3]
    joined = engine.candles(BTC, "5m", START - timedelta(hours=1), after(60))
    assert [candle.open_time for candle in joined] == [after(-5), after(0)]
    assert joined[-1].high == max(100_500.0, forming.high)
    with refused(-1120):
        MatchingEngine(WrittenSource(flat(1.0, 9), timeframe="1h"), start=START).candles(BTC, "1m", START, after(9))


def test_the_market_stands_still_after_the_last_candle() -> None:
    engine = engine_on(RISE_AND_FALL)
    engine.advance_to(after(500))
    assert engine.is_exhausted
    assert (engine.now, engine.quote(BTC).last) == (after(500), Decimal(98_500))


def test_a_start_without_candles_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="BTCUSDT has no candle at the market start"):
        MatchingEngine(WrittenSource(flat(1.0, 3)), start=after(3))


def test_an_unknown_symbol_is_refused() -> None:
    engine = engine_on(flat(100_000.0, 2))
    with refused(-1121):
        engine.quote("NOPEUSDT")
