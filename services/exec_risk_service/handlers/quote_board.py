"""The newest quotes, read ahead of the decision that needs them, so that no order waits for its book."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.ports import MarketView
from shared.clock import Clock
from shared.errors import QuantumTraderError
from shared.trading.orders import Side

#: A quote that was read longer ago is read again.
_FRESH_SECONDS = 0.25
#: A decision waits this long for a quote; then it is taken without one, with a bounded order.
_PATIENCE_SECONDS = 0.15

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    quote: Quote
    read_at: float


class QuoteBoard:
    """Reads quotes, one request per symbol at a time, and keeps them for a moment of wall time."""

    def __init__(self, view: MarketView, clock: Clock) -> None:
        self._view = view
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._reading: dict[str, asyncio.Task[Quote | None]] = {}

    def expect(self, symbol: str) -> None:
        """Begin to read: a decision about ``symbol`` may come within moments."""
        if symbol not in self._reading and not self._is_fresh(symbol):
            task = asyncio.create_task(self._read(symbol), name=f"quote-{symbol}")
            self._reading[symbol] = task
            task.add_done_callback(lambda _: self._reading.pop(symbol, None))

    async def quote(self, symbol: str, side: Side) -> Quote | None:
        """Return the newest book for a taker of ``side``; None when the exchange does not tell it in time."""
        self.expect(symbol)
        task = self._reading.get(symbol)
        if task is not None:
            await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
        kept = self._kept.get(symbol)
        return kept.quote.for_taker(side) if kept is not None and self._is_fresh(symbol) else None

    def _is_fresh(self, symbol: str) -> bool:
        kept = self._kept.get(symbol)
        return kept is not None and self._clock.monotonic() - kept.read_at <= _FRESH_SECONDS

    async def _read(self, symbol: str) -> Quote | None:
        try:
            quote = await self._view.quote(symbol)
        except QuantumTraderError as error:
            log.info("quote_not_read", symbol=symbol, error=str(error))
            return None
        self._kept[symbol] = _Kept(quote, self._clock.monotonic())
        return quote
