"""Looks after positions while the account's journal is away, when nothing else may send a stop.

A stop is an intent, and an intent needs the journal. Where a position of ours stands without a stop and the journal
does not come back, the emergency stop closes it: it needs neither the journal nor Redis.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.orders import Leg
from services.exec_risk_service.domain.positions import Origin
from services.exec_risk_service.domain.reports import OrderReport, VenuePosition
from services.exec_risk_service.handlers.emergency_stop import EmergencyStop
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.ports import AccountView
from shared.clock import Clock
from shared.trading.orders import OrderType, Side

#: Wall time between two looks at the exchange; a position must be naked in two of them.
_LOOK_SECONDS = 2.0
_STOPS = (OrderType.STOP_MARKET, OrderType.STOP, OrderType.TRAILING_STOP_MARKET)

log = structlog.get_logger(__name__)


class OutageWatch:
    """Asks for the emergency stop when a position is naked and nobody can protect it."""

    def __init__(
        self, ledger: Ledger, stop: EmergencyStop, view: AccountView, *, clock: Clock, patience_seconds: float
    ) -> None:
        """Prepare.

        Args:
            ledger: Knows whether its journal is there, and what is ours.
            stop: Closes without the journal.
            view: Shows positions and orders of the exchange.
            clock: Wall clock.
            patience_seconds: How long the journal may be away before the exchange is looked at.
        """
        self._ledger = ledger
        self._stop = stop
        self._view = view
        self._clock = clock
        self._patience = patience_seconds
        self._was_open = False
        self._since: float | None = None
        self._next_look = 0.0
        self._naked: frozenset[str] = frozenset()

    async def tick(self) -> None:
        """Look when it is due; a process that never had the account leaves it to whoever has.

        Raises:
            TransientError: The exchange cannot be asked; the next call tries again.
        """
        if not self._ledger.needs_recovery:
            self._was_open, self._since, self._naked = True, None, frozenset()
            return
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        is_due = now - self._since >= self._patience and now >= self._next_look
        if not self._was_open or self._ledger.is_fenced or not is_due or self._stop.bar() is not None:
            return
        self._next_look = now + _LOOK_SECONDS
        naked = frozenset(await self._unprotected())
        if lasting := naked & self._naked:
            away = f"while the account's journal has been away for {now - self._since:.0f} s"
            reason = f"{', '.join(sorted(lasting))} without a stop on the exchange {away}"
            await self._stop.request(reason, "outage-watch")
        elif naked:
            log.warning("position_without_stop_or_journal", symbols=sorted(naked))
        self._naked = naked

    async def _unprotected(self) -> list[str]:
        account, resting = await self._view.account(), await self._view.open_orders()
        ours = _symbols_of_ours(self._ledger.book)
        return [one.symbol for one in account.positions if one.symbol in ours and not _is_covered(one, resting)]


def _symbols_of_ours(book: Book) -> set[str]:
    """Return the symbols with a position of ours, or with an entry that may have become one since."""
    held = {position.symbol for position in book.positions.values() if position.origin is Origin.SIGNAL}
    return held | {order.symbol for order in book.unfinished_orders() if order.leg is Leg.ENTRY}


def _is_covered(position: VenuePosition, resting: Sequence[OrderReport]) -> bool:
    """Tell whether one stop that rests closes all of ``position``; one without a quantity closes whatever is there."""
    side = Side.SELL if position.quantity > 0 else Side.BUY
    return any(
        order.symbol == position.symbol
        and order.order_type in _STOPS
        and order.side is side
        and (not order.quantity or order.quantity - order.filled_quantity >= abs(position.quantity))
        for order in resting
    )
