"""What the account holds in each symbol, with everything that may still be added to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from types import MappingProxyType

from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.orders import Leg
from shared.trading.money import ZERO


@dataclass(frozen=True, slots=True)
class Exposures:
    """Signed values by symbol, USDT; long is positive.

    Attributes:
        held: Open positions at the newest price.
        pending: Entries that may still fill: planned, resting, under way, or with an outcome that nobody knows.
        by_symbol: What each symbol holds once everything pending is filled.
    """

    held: Mapping[str, Decimal] = field(default_factory=lambda: MappingProxyType({}))
    pending: Mapping[str, Decimal] = field(default_factory=lambda: MappingProxyType({}))
    by_symbol: Mapping[str, Decimal] = field(init=False)

    def __post_init__(self) -> None:
        total = dict(self.held)
        for symbol, value in self.pending.items():
            total[symbol] = total.get(symbol, ZERO) + value
        object.__setattr__(self, "by_symbol", total)  # the one way to set a field of a frozen value

    @property
    def gross(self) -> Decimal:
        """Sum without signs; a pending order never makes it smaller."""
        return sum(map(abs, self.held.values()), ZERO) + sum(map(abs, self.pending.values()), ZERO)

    @property
    def net(self) -> Decimal:
        """Sum with signs."""
        return sum(self.held.values(), ZERO) + sum(self.pending.values(), ZERO)


def exposures_of(book: Book) -> Exposures:
    """Return what ``book`` holds and what it may still get."""
    pending: dict[str, Decimal] = {}
    for order in book.orders.values():
        if order.leg is Leg.ENTRY and not order.status.is_terminal:
            value = order.remaining * order.arrival_price * order.side.sign
            pending[order.symbol] = pending.get(order.symbol, ZERO) + value
    for execution in book.executions.values():
        if execution.is_entry:
            value = book.unsent(execution) * execution.arrival_price * execution.side.sign
            pending[execution.symbol] = pending.get(execution.symbol, ZERO) + value
    held = {symbol: p.net.quantity * book.price_of(p) for symbol, p in book.positions.items()}
    return Exposures(MappingProxyType(held), MappingProxyType(pending))
