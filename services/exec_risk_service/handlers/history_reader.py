"""Fills the price histories of the book with the candles that closed while nobody listened."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import structlog

from services.exec_risk_service.domain.inputs import HistoryObserved, candle_row
from services.exec_risk_service.domain.price_history import HISTORY_CANDLES
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.ports import CandleHistory
from shared.clock import Clock
from shared.errors import TransientError
from shared.trading.candles import expected_last_open
from shared.trading.instruments import timeframe_duration

log = structlog.get_logger(__name__)


class HistoryReader:
    """Asks the exchange for what is missing; the ledger decides what is new."""

    def __init__(
        self, ledger: Ledger, source: CandleHistory, *, market_clock: Clock, symbols: Collection[str], timeframe: str
    ) -> None:
        """Prepare.

        Args:
            ledger: The single writer.
            source: The exchange's past.
            market_clock: Market time.
            symbols: Venue symbols that are traded.
            timeframe: Length of the candles.
        """
        self._ledger = ledger
        self._source = source
        self._market_clock = market_clock
        self._symbols = tuple(symbols)
        self._timeframe = timeframe

    async def read(self) -> None:
        """Bring every history up to the newest closed candle; what cannot be read now stays as it is."""
        now = self._market_clock.now()
        newest = expected_last_open(now, self._timeframe)
        for symbol in self._symbols:
            try:
                await self._read(symbol, newest, now)
            except TransientError as error:
                log.warning("price_history_unread", symbol=symbol, error=str(error))

    async def _read(self, symbol: str, newest: datetime, now: datetime) -> None:
        step = timeframe_duration(self._timeframe)
        start = max(newest - step * (HISTORY_CANDLES - 1), self._known_until(symbol) or newest - step * HISTORY_CANDLES)
        if start > newest:
            return
        candles = await self._source.candles(symbol, self._timeframe, start, newest + step)
        if candles:
            rows = tuple(candle_row(candle) for candle in candles)
            await self._ledger.apply(HistoryObserved(symbol, self._timeframe, rows, now))

    def _known_until(self, symbol: str) -> datetime | None:
        history = self._ledger.book.history.get(symbol)
        last = history.newest if history else None
        return last.close_time if last is not None and last.timeframe == self._timeframe else None
