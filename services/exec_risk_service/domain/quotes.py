"""What stands in the exchange's book right now, and what taking from it would cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from shared.trading.money import ZERO
from shared.trading.orders import Side

#: Levels farther than this from the best price are not kept: no order of ours may reach them.
_KEPT_DISTANCE = Decimal("0.02")


@dataclass(frozen=True, slots=True)
class Level:
    """Quantity (base asset) that stands at one price (USDT)."""

    price: Decimal
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class Quote:
    """The visible book of one symbol.

    Attributes:
        symbol: Venue symbol.
        bids: What a seller can take, best price first; never empty.
        asks: What a buyer can take, best price first; never empty.
        at: Market time.
    """

    symbol: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    at: datetime

    @property
    def bid(self) -> Decimal:
        """Best price of the buyers, USDT."""
        return self.bids[0].price

    @property
    def ask(self) -> Decimal:
        """Best price of the sellers, USDT."""
        return self.asks[0].price

    @property
    def mid(self) -> Decimal:
        """Half way between the best prices, USDT."""
        return (self.bid + self.ask) / 2

    @property
    def spread_pct(self) -> Decimal:
        """Distance of the best prices, percent of the middle."""
        return (self.ask - self.bid) / self.mid * 100

    @property
    def is_crossed(self) -> bool:
        """A bid stands at or above the best ask: such a book is wrong."""
        return self.bid >= self.ask

    def touch(self, side: Side) -> Decimal:
        """Return the best price of those who want the same as ``side``: where its order would queue."""
        return self.bid if side is Side.BUY else self.ask

    def offers(self, side: Side) -> tuple[Level, ...]:
        """Return what a taker of ``side`` can take, best price first."""
        return self.asks if side is Side.BUY else self.bids

    def walk(self, side: Side, quantity: Decimal) -> Walk:
        """Return what taking ``quantity`` now would give."""
        left, value, worst = quantity, ZERO, self.offers(side)[0].price
        for level in self.offers(side):
            if left <= 0:
                break
            part = min(left, level.quantity)
            left -= part
            value += part * level.price
            worst = level.price
        return Walk(quantity - left, value, worst)

    def depth_within(self, side: Side, limit: Decimal) -> Decimal:
        """Return the base asset that a taker of ``side`` can take at ``limit`` or better."""
        return sum((level.quantity for level in self.offers(side) if not is_worse(level.price, limit, side)), ZERO)

    def for_taker(self, side: Side) -> Quote:
        """Return the quote with what matters to ``side``: the other side's best price, its own way into the book."""
        limit = self.offers(side)[0].price * (1 + side.sign * _KEPT_DISTANCE)
        kept = tuple(level for level in self.offers(side) if not is_worse(level.price, limit, side))
        if side is Side.BUY:
            return replace(self, bids=self.bids[:1], asks=kept)
        return replace(self, bids=kept, asks=self.asks[:1])


@dataclass(frozen=True, slots=True)
class Walk:
    """What taking from a book gives.

    Attributes:
        quantity: Base asset that was there; less than wanted where the visible book ends.
        value: Its cost, USDT.
        worst: Price of the last part, USDT.
    """

    quantity: Decimal
    value: Decimal
    worst: Decimal

    @property
    def average(self) -> Decimal:
        """Mean price, USDT; the best price when nothing was taken."""
        return self.value / self.quantity if self.quantity else self.worst


def is_worse(price: Decimal, limit: Decimal, side: Side) -> bool:
    """Tell whether a taker of ``side`` pays more (gets less) at ``price`` than at ``limit``."""
    return (price - limit) * side.sign > 0
