"""``signal.generated``: exactly one first consequence per BUY or SELL, whatever is delivered twice."""

from __future__ import annotations

from typing import Any

import structlog

from services.exec_risk_service.domain.from_events import signal_received
from services.exec_risk_service.domain.inputs import Action
from services.exec_risk_service.handlers.ledger import Ledger
from shared.events.envelope import Event

log = structlog.get_logger(__name__)


class OrderExecutor:
    """Gives signals to the ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def on_signal(self, event: Event[Any]) -> None:
        """Apply one signal; it is settled once its effect is stored, not once the order is filled."""
        item = signal_received(event)
        if item.signal.action is Action.HOLD:
            return
        step = await self._ledger.apply(item)
        if step is not None:
            log.info("signal_applied", symbol=item.signal.symbol, action=item.signal.action.value, step=step.number)
