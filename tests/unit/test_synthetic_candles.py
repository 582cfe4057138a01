"""The made-up market looks like one: seeded, fat tails, common moves, changing volatility, no end."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from infrastructure.paper_exchange.klines import aggregate
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from shared.errors import ConfigurationError
from tests.support.markets import START

SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOMEUSDT"]


def returns(source: SyntheticCandleSource, symbol: str, days: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    closes = [candle.close for candle in source.candles(symbol, START, START + timedelta(days=days))]
    return np.diff(np.log(closes))


def test_the_seed_decides() -> None:
    hour = (START, START + timedelta(hours=1))
    one, same, other = (SyntheticCandleSource(seed, SYMBOLS, "1m").candles("BTCUSDT", *hour) for seed in (1, 1, 2))
    assert one == same != other


def test_a_symbol_does_not_depend_on_which_others_there_are() -> None:
    hour = (START, START + timedelta(hours=1))
    alone = SyntheticCandleSource(1, ["ETHUSDT"], "1m").candles("ETHUSDT", *hour)
    assert alone == SyntheticCandleSource(1, SYMBOLS, "1m").candles("ETHUSDT", *hour)


def test_longer_candles_are_the_shorter_ones_joined() -> None:
    day = (START.replace(hour=0), START.replace(hour=0) + timedelta(days=2))
    minutes = SyntheticCandleSource(4, SYMBOLS, "1m").candles("ETHUSDT", *day)
    hours = SyntheticCandleSource(4, SYMBOLS, "1h").candles("ETHUSDT", *day)
    joined = aggregate(minutes, "1h")
    assert [(c.open, c.high, c.low, c.close) for c in joined] == [(c.open, c.high, c.low, c.close) for c in hours]


def test_each_candle_opens_where_the_last_one_closed_also_over_midnight() -> None:
    source = SyntheticCandleSource(4, SYMBOLS, "1h")
    candles = source.candles("BTCUSDT", START, START + timedelta(days=40))
    assert all(later.open == earlier.close for earlier, later in itertools.pairwise(candles))


def test_tails_are_fat_and_symbols_move_together() -> None:
    source = SyntheticCandleSource(9, SYMBOLS, "1h")
    bitcoin, ether = returns(source, "BTCUSDT", 200), returns(source, "ETHUSDT", 200)
    kurtosis = float(np.mean(bitcoin**4) / np.var(bitcoin) ** 2)
    assert kurtosis > 4, "a normal distribution has 3"
    assert 0.2 < float(np.corrcoef(bitcoin, ether)[0, 1]) < 0.9


def test_volatility_changes_with_the_regime() -> None:
    source = SyntheticCandleSource(9, SYMBOLS, "1h")
    daily = returns(source, "BTCUSDT", 200)[: 24 * 199].reshape(-1, 24).std(axis=1)
    assert np.quantile(daily, 0.95) > 2 * np.quantile(daily, 0.1)


def test_the_market_has_no_end_and_stays_within_reason() -> None:
    source = SyntheticCandleSource(2, SYMBOLS, "1d")
    far = datetime(2040, 1, 1, tzinfo=UTC)
    candles = source.candles("SOMEUSDT", far, far + timedelta(days=30))
    assert len(candles) == 30
    first = source.candles("SOMEUSDT", START, START + timedelta(days=1))[0]
    assert 0.01 < candles[-1].close / first.close < 100


def test_a_timeframe_that_does_not_divide_a_day_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="7m"):
        SyntheticCandleSource(1, SYMBOLS, "7m")
