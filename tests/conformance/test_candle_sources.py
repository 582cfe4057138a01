"""What every candle source must do, over the made-up market and over files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from infrastructure.paper_exchange.candle_sources import CandleSource, open_source
from shared.trading.instruments import timeframe_duration
from tests.support.markets import START, market_folder

SYMBOLS = ["ETHUSDT", "BTCUSDT"]


@pytest.fixture(params=["synthetic 1m", "synthetic 1h", "files 1m"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> CandleSource:
    kind, timeframe = request.param.split()
    spec = "synthetic" if kind == "synthetic" else str(market_folder(tmp_path, SYMBOLS, timeframe))
    return open_source(spec, SYMBOLS, timeframe, seed=11)


def test_it_names_what_it_has(source: CandleSource) -> None:
    assert source.symbols == tuple(SYMBOLS)
    assert source.timeframe in ("1m", "1h")


def test_candles_are_gapless_on_the_grid_and_consistent(source: CandleSource) -> None:
    length = timeframe_duration(source.timeframe)
    for symbol in SYMBOLS:
        candles = source.candles(symbol, START, START + length * 700)
        assert [candle.open_time for candle in candles] == [START + length * number for number in range(700)]
        for candle in candles:
            assert (candle.symbol, candle.timeframe) == (symbol, source.timeframe)
            assert 0 < candle.low <= min(candle.open, candle.close) <= max(candle.open, candle.close) <= candle.high
            assert candle.volume >= 0


def test_a_candle_is_the_same_whatever_the_window(source: CandleSource) -> None:
    length = timeframe_duration(source.timeframe)
    whole = source.candles("BTCUSDT", START, START + length * 60)
    for first in (0, 1, 17, 59):
        assert source.candles("BTCUSDT", START + length * first, START + length * 60) == whole[first:]
    assert source.candles("BTCUSDT", START + length * 7, START + length * 8) == [whole[7]]
    assert source.candles("BTCUSDT", START, START) == []


def test_there_is_nothing_before_the_first_and_after_the_last(source: CandleSource) -> None:
    first = source.first_open("BTCUSDT")
    length = timeframe_duration(source.timeframe)
    assert source.candles("BTCUSDT", first - length * 10, first) == []
    assert source.candles("BTCUSDT", first - length * 10, first + length)[0].open_time == first
    if (last := source.last_open("BTCUSDT")) is not None:
        assert source.candles("BTCUSDT", last, last + length * 10)[0].open_time == last
        assert source.candles("BTCUSDT", last + length, last + length * 10) == []


def test_funding_rates_are_small_or_unknown(source: CandleSource) -> None:
    rate = source.funding_rate("BTCUSDT", START.replace(hour=8) + timedelta(days=1))
    assert rate is None or abs(rate) < 1
