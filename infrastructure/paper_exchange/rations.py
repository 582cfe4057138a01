"""Partial fills on purpose: an order that may fill only a share of its quantity until it is allowed more."""

from __future__ import annotations

from decimal import Decimal

from infrastructure.paper_exchange.records import OrderRecord
from shared.trading.money import ZERO, round_down


class Rations:
    """What each rationed order may have filled by now; orders without a ration may fill whole."""

    def __init__(self) -> None:
        self._next_share: Decimal | None = None
        self._allowed: dict[tuple[str, int], Decimal] = {}

    def ration_next(self, share: Decimal | None) -> None:
        """Let the next order fill by ``share`` of its quantity only; None takes that back."""
        self._next_share = share

    def begin(self, order: OrderRecord, lot_step: Decimal) -> None:
        """Ration ``order`` when the next one was to be rationed."""
        if self._next_share is not None:
            self._allowed[_key(order)] = _share_of(order, self._next_share, lot_step)
            self._next_share = None

    def extend(self, order: OrderRecord, share: Decimal, lot_step: Decimal) -> bool:
        """Allow ``order`` one more ``share``; tell whether it was rationed."""
        if not self.holds(order):
            return False
        self._allowed[_key(order)] += _share_of(order, share, lot_step)
        return True

    def holds(self, order: OrderRecord) -> bool:
        return _key(order) in self._allowed

    def allowed(self, order: OrderRecord) -> Decimal:
        """Return what may fill now, base asset."""
        ration = self._allowed.get(_key(order))
        return order.remaining if ration is None else max(ZERO, ration - order.executed)

    def ends(self, order: OrderRecord) -> bool:
        """Lift the ration of an order that may by now fill whole; tell whether it has none."""
        if self._allowed.get(_key(order), order.quantity) >= order.quantity:
            self.forget(order)
        return not self.holds(order)

    def forget(self, order: OrderRecord) -> None:
        self._allowed.pop(_key(order), None)


def _key(order: OrderRecord) -> tuple[str, int]:
    return order.symbol, order.order_id


def _share_of(order: OrderRecord, share: Decimal, lot_step: Decimal) -> Decimal:
    return max(lot_step, round_down(order.quantity * share, lot_step))
