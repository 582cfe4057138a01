"""The exchange's dead-man's switch: resting entries are cancelled there when this process falls silent.

Only regular orders fall to it, so it is kept running for symbols with a resting entry; stops are conditional orders and
stay. While it runs it is refreshed at a quarter of its time.
"""

from __future__ import annotations

import structlog

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.ports import DeadMansSwitch
from shared.clock import Clock
from shared.errors import ExchangeError, TransientError
from shared.trading.orders import OrderType

log = structlog.get_logger(__name__)


class Countdown:
    """Runs one countdown per symbol with a resting entry.

    Attributes:
        name: Component name.
    """

    name = "entry-countdown"

    def __init__(self, ledger: Ledger, switch: DeadMansSwitch, *, clock: Clock, seconds: float) -> None:
        """Prepare.

        Args:
            ledger: Knows the resting orders.
            switch: Starts and stops countdowns.
            clock: Wall clock; only its monotonic side counts.
            seconds: Time from the last refresh to the cancels.
        """
        self._ledger = ledger
        self._switch = switch
        self._clock = clock
        self._seconds = seconds
        self._running: dict[str, float] = {}

    async def start(self) -> None:
        """Nothing to do: ``tick`` starts the countdowns."""

    async def stop(self) -> None:
        """End every countdown: a process that ends in order leaves its entries to the next one."""
        for symbol in list(self._running):
            await self._set(symbol, 0.0)

    async def tick(self) -> None:
        """Start, refresh and end what is due."""
        if self._ledger.is_fenced:
            return
        wanted = symbols_with_resting_entries(self._ledger.book)
        for symbol in wanted:
            refreshed = self._running.get(symbol)
            if refreshed is None or self._clock.monotonic() - refreshed >= self._seconds / 4:
                await self._set(symbol, self._seconds)
        for symbol in self._running.keys() - wanted:
            await self._set(symbol, 0.0)

    async def _set(self, symbol: str, seconds: float) -> None:
        began = self._clock.monotonic()
        try:
            await self._switch.count_down(symbol, seconds)
        except (ExchangeError, TransientError) as error:
            log.warning("countdown_not_set", symbol=symbol, seconds=seconds, error=str(error))
            return
        if seconds > 0:
            self._running[symbol] = began
        else:
            self._running.pop(symbol, None)


def symbols_with_resting_entries(book: Book) -> set[str]:
    """Return the symbols with an entry that rests on the exchange, or may."""
    return {order.symbol for order in book.open_orders() if _may_rest(order)}


def _may_rest(order: Order) -> bool:
    return order.leg is Leg.ENTRY and order.order_type is OrderType.LIMIT
