"""Paths of one symbol's candles, read from the source in chunks because an engine asks for one after the other."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from infrastructure.paper_exchange.candle_path import CandlePath
from infrastructure.paper_exchange.candle_port import CandleSource
from shared.trading.instruments import timeframe_duration

_CHUNK = 512


class CandleFeed:
    """Looks up the path of the candle that opens at a moment."""

    def __init__(self, source: CandleSource, symbol: str, tick_size: Decimal, seed: int = 1) -> None:
        self._source = source
        self._symbol = symbol
        self._tick_size = tick_size
        self._seed = seed
        self._step: timedelta = timeframe_duration(source.timeframe)
        self._paths: dict[datetime, CandlePath] = {}
        self._covered: tuple[datetime, datetime] | None = None

    def path(self, open_time: datetime) -> CandlePath | None:
        """Return the path of the candle that opens at ``open_time``, or None when the source has none."""
        if self._covered is None or not self._covered[0] <= open_time < self._covered[1]:
            self._read(open_time)
        return self._paths.get(open_time)

    def _read(self, start: datetime) -> None:
        end = start + self._step * _CHUNK
        candles = self._source.candles(self._symbol, start, end)
        self._paths = {candle.open_time: CandlePath.of(candle, self._tick_size, self._seed) for candle in candles}
        self._covered = (start, end)
