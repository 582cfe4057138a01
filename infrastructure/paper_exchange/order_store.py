"""Every regular order ever accepted, the resting ones apart, and what happened to them at their owner's wish."""

from __future__ import annotations

from collections.abc import Iterable

from infrastructure.paper_exchange.records import Amendment, OrderRecord


class OrderStore:
    """Finds orders by their ids; keeps the newest record of each."""

    def __init__(self, symbols: Iterable[str]) -> None:
        self._orders: dict[tuple[str, int], OrderRecord] = {}
        self._open: dict[str, dict[int, OrderRecord]] = {symbol: {} for symbol in symbols}
        self._by_client_id: dict[tuple[str, str], int] = {}
        self._amendments: dict[tuple[str, int], list[Amendment]] = {}

    def next_id(self) -> int:
        """Return the id of the next order; ids count up."""
        return len(self._orders) + 1

    def keep(self, order: OrderRecord) -> None:
        """Add ``order``, or replace what was known of it."""
        if (order.symbol, order.order_id) not in self._orders:
            self._by_client_id[order.symbol, order.client_order_id] = order.order_id
        self._orders[order.symbol, order.order_id] = order
        if order.is_open:
            self._open[order.symbol][order.order_id] = order
        else:
            self._open[order.symbol].pop(order.order_id, None)

    def all(self, symbol: str | None = None) -> list[OrderRecord]:
        """Return every order of one symbol or of all, oldest first."""
        return [order for order in self._orders.values() if symbol in (None, order.symbol)]

    def requeue(self, order: OrderRecord) -> None:
        """Put a resting order behind all others."""
        self._open[order.symbol].pop(order.order_id, None)
        self.keep(order)

    def open(self, symbol: str) -> list[OrderRecord]:
        """Return the orders of ``symbol`` that can still fill, in the order in which they queued up."""
        return list(self._open[symbol].values())

    def is_open(self, order: OrderRecord) -> bool:
        return order.order_id in self._open[order.symbol]

    def newest(self, order: OrderRecord) -> OrderRecord:
        """Return what is known of ``order`` now."""
        return self._orders[order.symbol, order.order_id]

    def find(self, symbol: str, order_id: int | None, client_order_id: str | None) -> OrderRecord | None:
        """Return the order with either id; of several with one client id the newest."""
        if order_id is None:
            order_id = self._by_client_id.get((symbol, client_order_id or ""))
        return None if order_id is None else self._orders.get((symbol, order_id))

    def amendments(self, order: OrderRecord) -> list[Amendment]:
        """Return the changes of one order, oldest first."""
        return list(self._amendments.get((order.symbol, order.order_id), ()))

    def note_amendment(self, amendment: Amendment) -> None:
        self._amendments.setdefault((amendment.symbol, amendment.order_id), []).append(amendment)
