"""``profit.amplification`` and ``portfolio.balance``: what is decided about positions that are there."""

from __future__ import annotations

from typing import Any

import structlog

from services.exec_risk_service.domain.from_events import amplification_requested, rebalance_requested
from services.exec_risk_service.domain.inputs import Amplification
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.quote_board import QuoteBoard
from shared.clock import Clock
from shared.events.envelope import Event

log = structlog.get_logger(__name__)


class PortfolioManager:
    """Gives decisions about the portfolio to the ledger, each with the books that it meets."""

    def __init__(self, ledger: Ledger, quotes: QuoteBoard, market_clock: Clock) -> None:
        self._ledger = ledger
        self._quotes = quotes
        self._market_clock = market_clock

    async def on_amplification(self, event: Event[Any]) -> None:
        """Add to a winner, or cut a loser."""
        payload = event.payload
        quote = await self._quote(payload.symbol, grows=payload.action != Amplification.CUT_LOSER)
        step = await self._ledger.apply(amplification_requested(event, self._market_clock.now(), quote))
        if step is not None:
            log.info("amplification_applied", symbol=payload.symbol, action=payload.action, step=step.number)

    async def on_balance(self, event: Event[Any]) -> None:
        """Carry out the adjustments; a warning is only noted, and what was done already asks for nothing."""
        payload = event.payload
        if payload.action == "EXPOSURE_WARNING":
            log.warning(
                "exposure_warning",
                total_exposure_usd=payload.total_exposure_usd,
                max_allowed_exposure_usd=payload.max_allowed_exposure_usd,
            )
        if payload.action != "REBALANCE_REQUIRED" or not payload.adjustments:
            return
        found = [await self._quote(one.symbol, grows=one.delta_usd > 0) for one in payload.adjustments]
        known = {quote.symbol: quote for quote in found if quote is not None}
        step = await self._ledger.apply(rebalance_requested(event, self._market_clock.now(), tuple(known.values())))
        if step is not None:
            log.info("rebalance_applied", adjustments=len(payload.adjustments), step=step.number)

    async def _quote(self, symbol: str, *, grows: bool) -> Quote | None:
        position = self._ledger.book.positions.get(symbol)
        if position is None:
            return None
        side = position.close_side.opposite if grows else position.close_side
        return await self._quotes.quote(symbol, side)
