"""Files that are missing or damaged stop the start with one line that names file and place."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from infrastructure.paper_exchange.candle_sources import FileCandleSource, default_start, open_source
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.records import OrderRequest
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from shared.errors import ConfigurationError
from shared.trading.instruments import timeframe_duration
from shared.trading.orders import OrderStatus, OrderType, Side
from tests.support.markets import BTC, START, frame_of, market_folder, write_candles, write_frame


def candles_frame(count: int = 100) -> pl.DataFrame:
    return frame_of(SyntheticCandleSource(3, [BTC], "1m").candles(BTC, START, START + timedelta(minutes=count)))


def assert_refused(folder: Path, *parts: str, timeframe: str = "1m") -> None:
    with pytest.raises(ConfigurationError) as caught:
        FileCandleSource(folder, [BTC], timeframe)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_missing_folder(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "nowhere does not exist", "BTC_USDT_USDT-1h-futures.parquet")


def test_a_missing_file_says_what_was_expected_and_what_there_is(tmp_path: Path) -> None:
    assert_refused(tmp_path, "BTC_USDT_USDT-1m-futures.parquet", "no candles of it")
    write_candles(tmp_path, BTC, "1h", count=20)
    assert_refused(tmp_path, "no 1m candles for BTCUSDT", "the folder has 1h of it")


def test_nan_prices_are_named(tmp_path: Path) -> None:
    frame = candles_frame().with_columns(
        close=pl.when(pl.int_range(pl.len()) == 7).then(float("nan")).otherwise(pl.col("close"))
    )
    write_frame(tmp_path, BTC, "1m", frame)
    assert_refused(tmp_path, "close nan", (START + timedelta(minutes=7)).isoformat())


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_prices_that_are_not_above_zero_are_named(tmp_path: Path, value: float) -> None:
    frame = candles_frame().with_columns(low=pl.when(pl.int_range(pl.len()) == 0).then(value).otherwise(pl.col("low")))
    write_frame(tmp_path, BTC, "1m", frame)
    assert_refused(tmp_path, f"low {value}", START.isoformat())


def test_missing_values_are_named(tmp_path: Path) -> None:
    frame = candles_frame().with_columns(
        volume=pl.when(pl.int_range(pl.len()) == 3).then(None).otherwise(pl.col("volume"))
    )
    write_frame(tmp_path, BTC, "1m", frame)
    assert_refused(tmp_path, "volume nan")


def test_gaps_and_duplicates_are_named(tmp_path: Path) -> None:
    frame = candles_frame()
    write_frame(tmp_path, BTC, "1m", frame.filter(pl.int_range(pl.len()) != 40))
    assert_refused(tmp_path, "a gap between 2025-05-20T01:39:00+00:00 and 2025-05-20T01:41:00+00:00", "1 such place")
    write_frame(tmp_path, BTC, "1m", pl.concat([frame, frame.slice(5, 1)]))
    assert_refused(tmp_path, "twice the same candle")


def test_prices_outside_high_and_low_are_named(tmp_path: Path) -> None:
    write_frame(tmp_path, BTC, "1m", candles_frame().with_columns(high=pl.col("low")))
    assert_refused(tmp_path, "a high below")


def test_damaged_files_and_wrong_columns_are_named(tmp_path: Path) -> None:
    path = tmp_path / "BTC_USDT_USDT-1m-futures.parquet"
    path.write_bytes(b"not a parquet file")
    assert_refused(tmp_path, str(path), "cannot be read")
    candles_frame().drop("volume").write_parquet(path)
    assert_refused(tmp_path, "no column volume")
    candles_frame().clear().write_parquet(path)
    assert_refused(tmp_path, "is empty")
    candles_frame().with_columns(date=pl.lit("yesterday")).write_parquet(path)
    assert_refused(tmp_path, "dates of type String")


@pytest.mark.parametrize("kind", ["parquet", "feather", "csv"])
def test_every_format_gives_the_same_candles(tmp_path: Path, kind: str) -> None:
    made_up = SyntheticCandleSource(3, [BTC], "1m").candles(BTC, START, START + timedelta(minutes=100))
    write_frame(tmp_path, BTC, "1m", frame_of(made_up), kind)
    source = FileCandleSource(tmp_path, [BTC], "1m")
    assert source.candles(BTC, START, START + timedelta(days=1)) == made_up


def test_epoch_milliseconds_and_unsorted_rows_are_read(tmp_path: Path) -> None:
    frame = candles_frame()
    stamps = frame.with_columns(date=pl.col("date").dt.epoch("ms")).reverse()
    write_frame(tmp_path, BTC, "1m", stamps, "csv")
    source = FileCandleSource(tmp_path, [BTC], "1m")
    assert source.first_open(BTC) == START
    assert frame_of(source.candles(BTC, START, START + timedelta(days=1))).equals(frame)


def test_a_missing_timeframe_is_joined_from_a_finer_one(tmp_path: Path) -> None:
    made_up = SyntheticCandleSource(3, [BTC], "1m").candles(
        BTC, START - timedelta(minutes=3), START + timedelta(hours=3)
    )
    write_frame(tmp_path, BTC, "1m", frame_of(made_up))
    source = FileCandleSource(tmp_path, [BTC], "1h")
    joined = source.candles(BTC, START - timedelta(days=1), START + timedelta(days=1))
    assert [candle.open_time for candle in joined] == [START + timedelta(hours=number) for number in range(3)]
    first_hour = [candle for candle in made_up if START <= candle.open_time < START + timedelta(hours=1)]
    assert joined[0].open == first_hour[0].open
    assert joined[0].high == max(candle.high for candle in first_hour)
    assert joined[0].close == first_hour[-1].close
    assert joined[0].volume == pytest.approx(sum(candle.volume for candle in first_hour))


def test_funding_rates_are_read_with_jittering_stamps(tmp_path: Path) -> None:
    write_candles(tmp_path, BTC, "1h", count=30)
    moment = START.replace(hour=8)
    stamps = [moment + timedelta(milliseconds=7), moment + timedelta(hours=8)]
    rates = pl.DataFrame(
        {
            "date": pl.Series(stamps, dtype=pl.Datetime("ms", "UTC")),
            "open": [0.00012, -0.00003],
            **{name: [0.0, 0.0] for name in ("high", "low", "close", "volume")},
        }
    )
    rates.write_parquet(tmp_path / "BTC_USDT_USDT-8h-funding_rate.parquet")
    source = FileCandleSource(tmp_path, [BTC], "1h")
    assert source.funding_rate(BTC, moment) == Decimal("0.00012")
    assert source.funding_rate(BTC, moment + timedelta(hours=8)) == Decimal("-0.00003")
    assert source.funding_rate(BTC, moment + timedelta(hours=16)) is None


@pytest.mark.parametrize("timeframe", ["1m", "1h"])
def test_an_engine_trades_on_a_real_folder(tmp_path: Path, timeframe: str) -> None:
    symbols = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    source = open_source(str(market_folder(tmp_path, symbols, timeframe)), symbols, timeframe)
    start = default_start(source, START)
    engine = MatchingEngine(source, start=start)
    length = timeframe_duration(timeframe)
    for number in range(60):
        engine.advance_to(start + length * number * 5)
        symbol = symbols[number % 3]
        quantity = engine.contract(symbol).instrument.quantity_for(Decimal(1_000), engine.quote(symbol).last)
        side = Side.BUY if number % 2 else Side.SELL
        order = engine.place_order(OrderRequest(symbol, side, OrderType.MARKET, quantity))
        assert order.status is OrderStatus.FILLED
        close = source.candles(symbol, engine.now, engine.now + length)[0].open
        assert float(order.average_price) == pytest.approx(close, rel=0.001)
    books = engine.books()
    assert books.wallet == books.wallet_start + sum(record.amount for record in books.incomes)
    for position in books.positions:
        own = [record.fill for record in books.fills if record.fill.symbol == position.symbol]
        assert position.quantity == sum(fill.signed_quantity for fill in own)


def test_a_real_folder_starts_with_history_and_future(tmp_path: Path) -> None:
    symbols = ["BTCUSDT", "ETHUSDT"]
    source = open_source(str(market_folder(tmp_path, symbols, "1m")), symbols, "1m")
    start = default_start(source, START)
    for symbol in symbols:
        assert len(source.candles(symbol, source.first_open(symbol), start)) > 1000
        last = source.last_open(symbol)
        assert last is not None
        assert last - start > timedelta(hours=5)
