"""The path inside a candle: open, nearer extreme, other extreme, close."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.paper_exchange.candle_path import STEPS, CandlePath
from shared.trading.candles import Candle
from tests.support.markets import BTC, START

TICK = Decimal("0.1")


def path(first: float, high: float, low: float, last: float) -> CandlePath:
    return CandlePath.of(Candle(BTC, "1m", START, first, high, low, last, 60.0), TICK)


@pytest.mark.parametrize(
    ("candle", "nodes"),
    [
        ((100.0, 101.0, 95.0, 98.0), (1000, 1010, 950, 980)),
        ((100.0, 105.0, 99.0, 98.5), (1000, 985, 1050, 985)),
        ((100.0, 102.0, 98.0, 100.0), (1000, 1020, 980, 1000)),
    ],
)
def test_the_nearer_extreme_comes_first(
    candle: tuple[float, float, float, float], nodes: tuple[int, int, int, int]
) -> None:
    assert path(*candle).nodes == nodes


PRICES = st.floats(50, 150).map(lambda price: round(price, 1))


@given(prices=st.tuples(PRICES, PRICES, PRICES, PRICES))
def test_the_path_starts_at_the_open_touches_both_extremes_and_ends_at_the_close(
    prices: tuple[float, float, float, float],
) -> None:
    first, last = prices[0], prices[1]
    high, low = max(prices), min(prices)
    steps = [path(first, high, low, last).ticks_at(step) for step in range(STEPS)]
    assert (steps[0], steps[-1]) == (round(first * 10), round(last * 10))
    assert (max(steps), min(steps)) == (round(high * 10), round(low * 10))


@given(prices=st.tuples(PRICES, PRICES, PRICES, PRICES), step=st.integers(0, STEPS - 1))
def test_the_forming_candle_is_what_the_path_has_shown(prices: tuple[float, float, float, float], step: int) -> None:
    first, last = prices[0], prices[1]
    way = path(first, max(prices), min(prices), last)
    seen = [way.ticks_at(number) for number in range(step + 1)]
    forming = way.forming(step, TICK)
    assert (round(forming.high * 10), round(forming.low * 10)) == (max(seen), min(seen))
    assert round(forming.close * 10) == seen[-1]
    assert forming.open == first
    if step == STEPS - 1:
        assert forming == way.candle


def test_the_seed_decides_the_way_between_the_nodes_and_nothing_else() -> None:
    candle = Candle(BTC, "1m", START, 100.0, 110.0, 90.0, 104.0, 60.0)
    ways = [CandlePath.of(candle, TICK, seed) for seed in (1, 1, 2)]
    first, again, other = ([way.ticks_at(step) for step in range(STEPS)] for way in ways)
    assert first == again != other
    for step in (0, STEPS // 3, 2 * STEPS // 3, STEPS - 1):
        assert first[step] == other[step] == ways[0].nodes[step // (STEPS // 3) if step < STEPS - 1 else 3]
