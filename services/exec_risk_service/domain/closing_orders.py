"""Orders of the emergency stop: reduce-only, at market, named after the stop so that a restart names them alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from services.exec_risk_service.domain.orders import Leg, Order, Provenance
from shared.ids import client_order_id, derive_id
from shared.trading.orders import OrderType, Side

#: Second part of their client order ids: ``qt3-es-...``.
_LEG_NAME = "es"


@dataclass(frozen=True, slots=True)
class ClosingOrder:
    """One order that closes a position because of an emergency stop.

    Attributes:
        client_order_id: Derived from stop, symbol and sequence.
        stop_id: Which stop.
        symbol: Venue symbol.
        sequence: 1, 2, ... within stop and symbol.
        side: The side that reduces the position.
        quantity: Base asset.
        at: Market time of the decision.
        mark_price: Price of the exchange at that moment, USDT.
        is_told: The account's own journal knows it.
    """

    client_order_id: str
    stop_id: str
    symbol: str
    sequence: int
    side: Side
    quantity: Decimal
    at: datetime
    mark_price: Decimal
    is_told: bool = False

    @property
    def cause(self) -> str:
        """Name of the cause in the journal of intents, with which leg and sequence make the order unique."""
        return derive_id("closing", self.stop_id, self.symbol)

    def as_order(self) -> Order:
        """Return what the gateway sends."""
        return Order(
            client_order_id=self.client_order_id,
            cause_event_id=self.cause,
            leg=Leg.EXIT,
            sequence=self.sequence,
            symbol=self.symbol,
            side=self.side,
            order_type=OrderType.MARKET,
            quantity=self.quantity,
            trigger_price=None,
            leverage=1,
            arrival_price=self.mark_price,
            position_id=self.cause,
            provenance=Provenance(self.stop_id, self.stop_id, self.stop_id),
            created_step=0,
            created_at=self.at,
        )


def closing_order(
    stop_id: str, symbol: str, sequence: int, *, signed_quantity: Decimal, mark_price: Decimal, at: datetime
) -> ClosingOrder:
    """Return the order that takes ``signed_quantity`` of a position off the account."""
    return ClosingOrder(
        client_order_id=client_order_id(f"{stop_id}\x1f{symbol}", _LEG_NAME, sequence),
        stop_id=stop_id,
        symbol=symbol,
        sequence=sequence,
        side=Side.SELL if signed_quantity > 0 else Side.BUY,
        quantity=abs(signed_quantity),
        at=at,
        mark_price=mark_price,
    )
