"""The market of one symbol: spread, depth, what eats it and brings it back, and the queue of a resting order."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.paper_exchange.candle_path import STEPS, CandlePath
from infrastructure.paper_exchange.contracts import contract_for
from infrastructure.paper_exchange.market import LEVELS, Market
from infrastructure.paper_exchange.tape import taker_at, trades_at, volume_at
from shared.trading.candles import Candle
from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus, Side
from tests.support.markets import BTC, START, after, engine_on, flat, limit

CONTRACT = contract_for(BTC, 100_000.0)
TICK = CONTRACT.instrument.tick_size
LOT = CONTRACT.instrument.lot_step


def path(
    first: float = 100_000.0, high: float = 100_000.0, low: float = 100_000.0, last: float = 100_000.0, **more: float
) -> CandlePath:
    candle = Candle(BTC, "1m", START, first, high, low, last, more.get("volume", 600.0))
    return CandlePath.of(candle, TICK, int(more.get("seed", 1)))


def market_at(way: CandlePath, step: int = 0) -> Market:
    market = Market(CONTRACT)
    market.move_to(way, step)
    return market


def spread(market: Market) -> Decimal:
    return market.best(Side.BUY).price - market.best(Side.SELL).price


def depth(market: Market) -> Decimal:
    return sum((level.quantity for side in Side for level in market.levels(side)), ZERO)


def test_a_wild_market_is_quoted_wider_and_thinner_and_a_busy_one_deeper() -> None:
    calm, wild = market_at(path()), market_at(path(high=101_000.0, low=99_000.0))
    thin = market_at(path(volume=0.6))
    assert spread(wild) > spread(calm)
    assert depth(wild) < depth(calm)
    assert spread(thin) > spread(calm)
    assert depth(thin) < depth(calm)


@given(seed=st.integers(0, 50), step=st.integers(0, STEPS - 1), last=st.integers(99_900, 100_100))
def test_both_sides_are_sorted_levels_on_the_grid_around_the_last_trade(seed: int, step: int, last: int) -> None:
    market = market_at(path(high=100_150.0, low=99_850.0, last=float(last), seed=seed), step)
    bids, asks = market.levels(Side.SELL), market.levels(Side.BUY)
    assert len(bids) == len(asks) == LEVELS
    assert bids[0].price < asks[0].price
    assert market.last in (bids[0].price, asks[0].price), "the last trade took the bid or the ask"
    assert all(better.price > worse.price for better, worse in pairwise(bids))
    assert all(better.price < worse.price for better, worse in pairwise(asks))
    assert all(level.price % TICK == 0 and level.quantity % LOT == 0 and level.quantity > 0 for level in bids + asks)


def test_most_levels_stay_from_step_to_step() -> None:
    way = path(high=100_020.0, low=99_990.0)
    one, other = ({level.price: level for level in market_at(way, step).levels(Side.BUY)} for step in (5, 6))
    same = [price for price, level in one.items() if other.get(price) == level]
    assert len(same) > LEVELS // 2


def test_what_was_eaten_comes_back_bit_by_bit() -> None:
    way = path()
    market = market_at(way)
    whole = [depth(market_at(way, step)) for step in range(25)]
    eaten = sum((level.quantity for level in market.take(Side.BUY, Decimal(200), None)), ZERO)
    assert eaten == 200
    missing = []
    for step in range(25):
        market.move_to(way, step)
        missing.append(whole[step] - depth(market))
    assert missing[0] == 200
    assert missing == sorted(missing, reverse=True)
    assert missing[10] == 100
    assert missing[20] == 0


def test_a_second_bite_adds_to_what_has_not_come_back() -> None:
    way = path()
    market = market_at(way)
    market.take(Side.SELL, Decimal(100), None)
    market.move_to(way, 10)
    before = depth(market)
    market.take(Side.SELL, Decimal(30), None)
    assert before - depth(market) == 30
    market.move_to(way, 20)
    assert depth(market_at(way, 20)) - depth(market) == 40, "half of the 80 that were missing at step 10"


def test_the_update_id_grows_with_steps_and_with_every_bite() -> None:
    way = path()
    market = market_at(way)
    first = market.update_id
    market.take(Side.BUY, Decimal(1), None)
    bitten = market.update_id
    market.move_to(way, 1)
    assert first < bitten < market.update_id
    later = CandlePath.of(Candle(BTC, "1m", START + timedelta(minutes=1), 1e5, 1e5, 1e5, 1e5, 1.0), TICK)
    assert market_at(way, STEPS - 1).update_id < market_at(later).update_id


def test_quoting_a_step_anew_brings_no_new_volume_and_no_old_update_id() -> None:
    way = path(volume=600.0)
    market = market_at(way, sold_at(way))
    market.join(1, Side.BUY, market.last + TICK)
    market.take(Side.BUY, Decimal(1), None)
    assert market.fill_resting(1, Decimal(10)) == 10
    before = market.update_id
    market.move_to(path(volume=600.0), sold_at(way))
    assert market.update_id > before
    market.join(2, Side.BUY, market.last)
    assert market.fill_resting(2, Decimal(10)) == 0


def sold_at(way: CandlePath, after_step: int = -1) -> int:
    """Return the first later step at which sellers take at the open's price."""
    return next(
        step
        for step in range(after_step + 1, STEPS)
        if taker_at(way, step) is Side.SELL and way.ticks_at(step) == way.nodes[0]
    )


def test_trades_at_its_price_eat_the_queue_before_they_fill_the_order() -> None:
    way = path(volume=600.0)  # 10 per step
    first = sold_at(way)
    market = market_at(way, first)
    price = market.best(Side.SELL).price
    market.join(1, Side.BUY, price)
    standing = market.ahead_of(1)
    assert standing == market.best(Side.SELL).quantity > 0
    got, step = ZERO, first - 1
    while not got:
        step = sold_at(way, step)
        market.move_to(way, step)
        before = market.ahead_of(1)
        got = market.fill_resting(1, Decimal(3))
        assert got == min(Decimal(3), max(ZERO, 10 - before))
        assert market.ahead_of(1) == max(ZERO, before - 10)


def test_buyers_do_not_fill_a_bid() -> None:
    way = path()
    step = next(step for step in range(STEPS) if taker_at(way, step) is Side.BUY)
    market = market_at(way, step)
    bid = market.best(Side.SELL).price
    market.join(1, Side.BUY, bid)
    assert market.fill_resting(1, Decimal(1)) == 0


def test_two_orders_at_one_price_share_what_is_traded_there() -> None:
    way = path(volume=600.0)
    market = market_at(way, sold_at(way))
    better = market.last + TICK
    for order_id in (1, 2):
        market.join(order_id, Side.BUY, better)
        assert market.ahead_of(order_id) == 0, "nobody stands at a better price than the best"
    got = [market.fill_resting(order_id, Decimal(8)) for order_id in (1, 2)]
    assert got == [8, 2], "through the price: 10 are traded"


def test_an_order_at_the_best_price_waits_its_turn_and_is_filled_when_the_price_goes_through_it() -> None:
    quiet = engine_on(flat(100_000.0, 3), volume=0.06)
    waiting = quiet.place_order(limit(Side.BUY, "0.1", str(quiet.quote(BTC).bid.price)))
    quiet.advance_to(after(0.05))
    assert quiet.order(BTC, order_id=waiting.order_id).status is OrderStatus.NEW, "the queue ahead is longer"
    falling = engine_on([(100_000.0, 100_000.0, 99_000.0, 99_000.0), *flat(99_000.0, 3)], volume=60.0)
    order = falling.place_order(limit(Side.BUY, "0.5", "99500"))
    falling.advance_to(after(1))
    assert falling.order(BTC, order_id=order.order_id).status is OrderStatus.FILLED


def test_an_order_larger_than_the_market_fills_over_time_even_when_the_price_is_through() -> None:
    engine = engine_on(flat(100_000.0, 1) + flat(99_000.0, 3), volume=6.0, wallet="1000000000")
    order = engine.place_order(limit(Side.BUY, "900", "99500"))
    engine.advance_to(after(1.05))
    early = engine.order(BTC, order_id=order.order_id).executed
    engine.advance_to(after(1.2))
    assert ZERO < early < engine.order(BTC, order_id=order.order_id).executed < 900


@pytest.mark.parametrize("volume", [0.0, 0.06, 6.0, 600.0])
def test_the_tape_trades_the_volume_of_the_candle_within_its_range(volume: float) -> None:
    way = path(high=100_100.0, low=99_950.0, last=100_050.0, volume=volume)
    trades = [trade for step in range(STEPS) for trade in trades_at(way, step, CONTRACT.instrument)]
    assert sum((trade.quantity for trade in trades), ZERO) == volume_at(way, CONTRACT.instrument) * STEPS
    ids = [trade.trade_id for trade in trades]
    times = [trade.time for trade in trades]
    assert ids == sorted(set(ids))
    assert times == sorted(times)
    assert all(99_950 <= trade.price <= 100_100 for trade in trades)


def test_the_engine_tells_each_trade_once_however_its_time_is_asked_for() -> None:
    engine = engine_on([(100_000.0, 100_100.0, 99_950.0, 100_050.0), *flat(100_050.0, 3)])
    engine.advance_to(after(2.5))
    whole = engine.trades(BTC, after(0) - timedelta(microseconds=1), after(10))
    cuts = [after(0) - timedelta(microseconds=1), after(0.31), after(1), after(1.001), after(2.5)]
    parts = [trade for start, end in pairwise(cuts) for trade in engine.trades(BTC, start, end)]
    assert parts == whole
    assert whole[-1].time <= engine.now
