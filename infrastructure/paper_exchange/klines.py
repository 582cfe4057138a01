"""Candle slots and their aggregation to longer ones."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby

from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def slot_start(moment: datetime, length: timedelta) -> datetime:
    """Return the start of the slot of ``length`` that holds ``moment``; slots count from 1970."""
    return _EPOCH + length * ((moment - _EPOCH) // length)


def aggregate(candles: Iterable[Candle], timeframe: str) -> list[Candle]:
    """Return ``candles`` (oldest first, one symbol) joined to slots of ``timeframe``; partial slots are kept."""
    length = timeframe_duration(timeframe)
    return [
        _join(list(group), open_time, timeframe)
        for open_time, group in groupby(candles, key=lambda candle: slot_start(candle.open_time, length))
    ]


def _join(parts: list[Candle], open_time: datetime, timeframe: str) -> Candle:
    if len(parts) == 1 and parts[0].timeframe == timeframe:
        return parts[0]
    return Candle(
        symbol=parts[0].symbol,
        timeframe=timeframe,
        open_time=open_time,
        open=parts[0].open,
        high=max(part.high for part in parts),
        low=min(part.low for part in parts),
        close=parts[-1].close,
        volume=round(sum(part.volume for part in parts), 8),  # without the dust of adding floats
    )
