"""``system.mode_changed``: the mode of the whole system, brought to the account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from services.exec_risk_service.domain.from_events import system_mode_changed
from services.exec_risk_service.handlers.ledger import Ledger
from shared.events.envelope import Event

log = structlog.get_logger(__name__)


class SystemMode:
    """Restricts trading as the mode says; closes everything by the emergency stop when that is asked for."""

    def __init__(self, ledger: Ledger, request_stop: Callable[[str, str], Awaitable[object]]) -> None:
        """Prepare.

        Args:
            ledger: The single writer.
            request_stop: Latches the emergency stop; gets reason and who asks. Asking again joins the one in force.
        """
        self._ledger = ledger
        self._request_stop = request_stop

    async def on_mode_changed(self, event: Event[Any]) -> None:
        """Apply one change; the stop comes first, so that an event that is delivered again cannot lose it."""
        item = system_mode_changed(event)
        if item.force_close_positions:
            await self._request_stop(f"system mode {item.mode}: {item.reason}", item.changed_by)
        await self._ledger.apply(item)
        log.info("system_mode_changed", mode=item.mode, changed_by=item.changed_by, reason=item.reason)
