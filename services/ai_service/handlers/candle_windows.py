"""The window that ends at a candle, whatever the service was doing before: fetched once, then kept up to date."""

from __future__ import annotations

from datetime import datetime

from services.ai_service.domain.features import WINDOW_CANDLES
from services.ai_service.domain.windows import CandleColumns, Placement, RollingWindow, columns_of
from services.ai_service.ports import CandleHistory
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

#: Candles kept beyond one window, for candles that are delivered again after newer ones.
_RESERVE_CANDLES = 128


class CandleWindows:
    """One rolling window per symbol, of one timeframe."""

    def __init__(self, history: CandleHistory, timeframe: str) -> None:
        self._history = history
        self._timeframe = timeframe
        self._step = timeframe_duration(timeframe)
        self._windows: dict[str, RollingWindow] = {}

    async def ending_at(self, candle: Candle) -> CandleColumns | None:
        """Return the ``WINDOW_CANDLES`` candles up to ``candle``; None when the history does not have them all.

        Raises:
            TransientError: Candles are missing and the history cannot be asked.
        """
        window = self._windows.setdefault(
            candle.symbol, RollingWindow(self._timeframe, WINDOW_CANDLES + _RESERVE_CANDLES)
        )
        placement = window.add(candle)
        columns = window.ending_at(candle.open_time, WINDOW_CANDLES)
        if columns is not None and placement is not Placement.GAP:
            return columns
        return await self._fetched(window, candle)

    async def newest(self, symbol: str, now: datetime) -> Candle | None:
        """Return the newest closed candle of ``symbol`` at market time ``now``."""
        found = await self._history.candles(symbol, self._timeframe, now - 3 * self._step, now)
        return found[-1] if found else None

    async def _fetched(self, window: RollingWindow, candle: Candle) -> CandleColumns | None:
        start = candle.open_time - (WINDOW_CANDLES - 1) * self._step
        before = await self._history.candles(candle.symbol, self._timeframe, start, candle.open_time)
        tail = _tail([*before, candle])
        newest = window.newest_open_ms
        columns = columns_of(tail)
        # A window that has moved on meanwhile, or lies ahead of a candle delivered late, is left alone.
        if newest is None or newest <= columns.open_time_ms[-1]:
            window.replace(tail)
        return columns if len(columns) == WINDOW_CANDLES else None


def _tail(candles: list[Candle]) -> list[Candle]:
    """Return the longest run without a hole that ends with the last candle."""
    begin = len(candles) - 1
    while begin > 0 and candles[begin - 1].close_time == candles[begin].open_time:
        begin -= 1
    return candles[begin:]
