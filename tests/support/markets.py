"""Markets for tests: candles written down one by one, and folders of candle files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.records import AlgoRequest, OrderRequest, TimeInForce, WorkingType
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration, unified_symbol
from shared.trading.orders import OrderType, Side

START = datetime(2025, 5, 20, 1, 0, tzinfo=UTC)
BTC = "BTCUSDT"
#: Open, high, low, close.
Prices = tuple[float, float, float, float]
#: Recorded market data, when it lies beside the checkout.
RECORDED = Path(__file__).parents[3] / "shared" / "data" / "market"


class WrittenSource:
    """One symbol whose candles are listed; the first opens ``history`` slots before ``start``."""

    def __init__(
        self,
        prices: Sequence[Prices],
        *,
        timeframe: str = "1m",
        history: int = 0,
        volume: float = 100.0,
        rates: Mapping[datetime, Decimal] | None = None,
        symbol: str = BTC,
        start: datetime = START,
    ) -> None:
        length = timeframe_duration(timeframe)
        self._symbol = symbol
        self._timeframe = timeframe
        self._rates = rates or {}
        self._candles = [
            Candle(symbol, timeframe, start + length * (number - history), *row, volume)
            for number, row in enumerate(prices)
        ]

    @property
    def symbols(self) -> tuple[str, ...]:
        return (self._symbol,)

    @property
    def timeframe(self) -> str:
        return self._timeframe

    def first_open(self, symbol: str) -> datetime:
        return self._candles[0].open_time

    def last_open(self, symbol: str) -> datetime | None:
        return self._candles[-1].open_time

    def candles(self, symbol: str, start: datetime, end: datetime) -> list[Candle]:
        return [candle for candle in self._candles if start <= candle.open_time < end]

    def funding_rate(self, symbol: str, moment: datetime) -> Decimal | None:
        return self._rates.get(moment)


def flat(price: float, count: int) -> list[Prices]:
    """Return ``count`` candles that do not move."""
    return [(price, price, price, price)] * count


def engine_on(prices: Sequence[Prices], *, volume: float = 100.0, wallet: str = "10000") -> MatchingEngine:
    """Return an engine on one-minute candles of BTCUSDT that starts at ``START``."""
    return MatchingEngine(WrittenSource(prices, volume=volume), start=START, wallet=Decimal(wallet))


def after(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def market(side: Side, quantity: str, **more: object) -> OrderRequest:
    return OrderRequest(BTC, side, OrderType.MARKET, Decimal(quantity), **more)  # type: ignore[arg-type]  # test short form


def limit(side: Side, quantity: str, price: str, tif: TimeInForce = TimeInForce.GTC, **more: object) -> OrderRequest:
    return OrderRequest(
        BTC,
        side,
        OrderType.LIMIT,
        Decimal(quantity),
        Decimal(price),
        tif,
        **more,  # type: ignore[arg-type]  # as above
    )


def stop(side: Side, quantity: str | None, trigger: str, **more: object) -> AlgoRequest:
    return AlgoRequest(
        BTC,
        side,
        OrderType.STOP_MARKET,
        Decimal(trigger),
        None if quantity is None else Decimal(quantity),
        **more,  # type: ignore[arg-type]  # as above
    )


def take_profit(side: Side, quantity: str, trigger: str, working: WorkingType) -> AlgoRequest:
    return AlgoRequest(
        BTC, side, OrderType.TAKE_PROFIT_MARKET, Decimal(trigger), Decimal(quantity), working_type=working
    )


def write_candles(
    folder: Path, symbol: str, timeframe: str, *, count: int = 600, kind: str = "parquet", seed: int = 5
) -> Path:
    """Write a file of made-up candles in freqtrade's layout and return its path."""
    source = SyntheticCandleSource(seed, [symbol], timeframe)
    candles = source.candles(symbol, START, START + timeframe_duration(timeframe) * count)
    return write_frame(folder, symbol, timeframe, frame_of(candles), kind)


def frame_of(candles: Sequence[Candle]) -> pl.DataFrame:
    names = ("open", "high", "low", "close", "volume")
    return pl.DataFrame(
        {
            "date": pl.Series([candle.open_time for candle in candles], dtype=pl.Datetime("ms", "UTC")),
            **{name: [getattr(candle, name) for candle in candles] for name in names},
        }
    )


def write_frame(folder: Path, symbol: str, timeframe: str, frame: pl.DataFrame, kind: str = "parquet") -> Path:
    stem = unified_symbol(symbol).replace("/", "_").replace(":", "_")
    path = folder / f"{stem}-{timeframe}-futures.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind == "feather":
        frame.write_ipc(path)
    else:
        frame.write_csv(path)
    return path


def market_folder(scratch: Path, symbols: Sequence[str], timeframe: str) -> Path:
    """Return the folder of recorded candles, or one with made-up files where there is none."""
    if RECORDED.is_dir():
        return RECORDED
    for symbol in symbols:
        write_candles(scratch, symbol, timeframe, count=2000)
    return scratch
