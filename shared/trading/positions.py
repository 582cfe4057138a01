"""Position accounting in one-way mode: a position is the fold of its fills."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from shared.trading.money import ZERO
from shared.trading.orders import Side


@dataclass(frozen=True, slots=True)
class Fill:
    """One trade of ours on the exchange.

    Attributes:
        symbol: Venue symbol.
        trade_id: Unique per symbol: the key that makes a repeated report harmless.
        client_order_id: Id we gave the order; empty for orders that are not ours.
        exchange_order_id: The exchange's id of the order.
        side: BUY or SELL.
        price: USDT per base asset, above 0.
        quantity: Base asset, above 0.
        commission: Fee paid, USDT; negative for a rebate.
        realized_pnl: Profit that the exchange booked for this fill, USDT, fees not included.
        time: Market time of the trade, aware UTC.
    """

    symbol: str
    trade_id: int
    client_order_id: str
    exchange_order_id: str
    side: Side
    price: Decimal
    quantity: Decimal
    commission: Decimal
    realized_pnl: Decimal
    time: datetime

    @property
    def signed_quantity(self) -> Decimal:
        return self.quantity * self.side.sign


@dataclass(frozen=True, slots=True)
class NetPosition:
    """Signed quantity and average entry price of one symbol; flat when the quantity is 0."""

    symbol: str
    quantity: Decimal = ZERO
    entry_price: Decimal = ZERO

    @property
    def is_flat(self) -> bool:
        return self.quantity == 0

    @property
    def is_long(self) -> bool:
        return self.quantity > 0

    @property
    def side(self) -> Side:
        """Side that opened the position."""
        return Side.BUY if self.quantity > 0 else Side.SELL

    @property
    def cost_usd(self) -> Decimal:
        """Entry value, USDT, never negative."""
        return abs(self.quantity) * self.entry_price

    def unrealized_pnl(self, mark_price: Decimal) -> Decimal:
        """Return the open profit at ``mark_price``, USDT."""
        return (mark_price - self.entry_price) * self.quantity


@dataclass(frozen=True, slots=True)
class PositionChange:
    """What one fill did.

    Attributes:
        before: Position before the fill.
        after: Position after it.
        closed_quantity: Part of the fill that reduced the old position, base asset, at least 0.
        opened_quantity: Part that opened or increased, base asset, at least 0.
        realized_pnl: Profit on the closed part, USDT, fees not included.
    """

    before: NetPosition
    after: NetPosition
    closed_quantity: Decimal
    opened_quantity: Decimal
    realized_pnl: Decimal


def apply_fill(position: NetPosition, fill: Fill) -> PositionChange:
    """Return what ``fill`` does to ``position``: open, increase, partial close, close, or flip."""
    signed = fill.signed_quantity
    if position.quantity * signed >= 0:
        return _increase(position, fill, signed)
    closed = min(abs(position.quantity), fill.quantity)
    opened = fill.quantity - closed
    direction = 1 if position.is_long else -1
    realized = (fill.price - position.entry_price) * closed * direction
    if opened > 0:  # a flip: the rest opens a new position at the fill's own price
        after = NetPosition(position.symbol, opened * fill.side.sign, fill.price)
    else:
        left = position.quantity + signed
        after = replace(position, quantity=left) if left else NetPosition(position.symbol)
    return PositionChange(position, after, closed, opened, realized)


def _increase(position: NetPosition, fill: Fill, signed: Decimal) -> PositionChange:
    total = position.quantity + signed
    entry = (position.cost_usd + fill.price * fill.quantity) / abs(total)
    return PositionChange(position, NetPosition(position.symbol, total, entry), ZERO, fill.quantity, ZERO)
