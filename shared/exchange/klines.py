"""From Binance's kline messages and rows to candles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shared.errors import InvalidInputError
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration
from shared.trading.money import to_decimal


def candle_from_event(message: Mapping[str, Any]) -> Candle:
    """Return the candle of a ``kline`` stream message.

    Raises:
        InvalidInputError: A field is missing, NaN, infinite, not above 0 (prices) or below 0 (volume).
    """
    try:
        kline = message["k"]
        row = [kline["t"], kline["o"], kline["h"], kline["l"], kline["c"], kline["v"]]
        symbol, timeframe = str(kline["s"]), str(kline["i"])
    except (KeyError, TypeError):
        raise InvalidInputError(f"kline message lacks fields: {str(message)[:200]}") from None
    return candle_from_row(symbol, timeframe, row)


def candle_from_row(symbol: str, timeframe: str, row: Sequence[Any]) -> Candle:
    """Return the candle of a REST row ``[open ms, open, high, low, close, volume, ...]``; ccxt's rows fit too.

    Raises:
        InvalidInputError: As ``candle_from_event``.
    """
    timeframe_duration(timeframe)
    where = f"candle of {symbol} {timeframe} at {row[0] if row else '?'}"
    if len(row) < 6:
        raise InvalidInputError(f"{where} has {len(row)} fields, expected at least 6")
    first, high, low, last, volume = (
        float(to_decimal(value, name=f"{name} of {where}"))
        for name, value in zip(("open", "high", "low", "close", "volume"), row[1:6], strict=True)
    )
    if min(first, high, low, last) <= 0 or volume < 0:
        raise InvalidInputError(f"{where} has a price that is not above 0 or a negative volume: {list(row[1:6])}")
    if high < max(first, last) or low > min(first, last):
        raise InvalidInputError(f"{where} has prices outside its high and low: {list(row[1:6])}")
    return Candle(
        symbol=symbol,
        timeframe=timeframe,
        open_time=datetime.fromtimestamp(int(row[0]) / 1000, UTC),
        open=first,
        high=high,
        low=low,
        close=last,
        volume=volume,
    )
