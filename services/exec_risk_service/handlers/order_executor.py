"""``signal.generated`` and ``execution.request``: exactly one first consequence each, whatever is delivered twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog

from services.exec_risk_service.domain.from_events import execution_requested, signal_received
from services.exec_risk_service.domain.inputs import Action
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.quote_board import QuoteBoard
from shared.clock import Clock
from shared.events.envelope import Event

log = structlog.get_logger(__name__)


class OrderExecutor:
    """Gives signals and requests to the ledger, each with the book that it meets."""

    def __init__(self, ledger: Ledger, quotes: QuoteBoard, market_clock: Clock) -> None:
        self._ledger = ledger
        self._quotes = quotes
        self._market_clock = market_clock

    async def on_signal(self, event: Event[Any]) -> None:
        """Apply one signal; it is settled once its effect is stored, not once the order is filled."""
        item = signal_received(event)
        if item.signal.action is Action.HOLD:
            return
        quote = await self._quotes.quote(item.signal.symbol, item.signal.action.side)
        step = await self._ledger.apply(replace(item, quote=quote))
        if step is not None:
            log.info("signal_applied", symbol=item.signal.symbol, action=item.signal.action.value, step=step.number)

    async def on_execution_request(self, event: Event[Any]) -> None:
        """Apply one request for a trade."""
        payload = event.payload
        quote = await self._quotes.quote(payload.symbol, payload.side)
        step = await self._ledger.apply(execution_requested(event, self._market_clock.now(), quote))
        if step is not None:
            log.info("request_applied", symbol=payload.symbol, source=payload.signal_source, step=step.number)
