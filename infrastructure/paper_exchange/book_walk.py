"""How a taker walks a book: best prices first, no further than its limit. One way for every market that has levels."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from infrastructure.paper_exchange.records import Level
from shared.trading.money import ZERO
from shared.trading.orders import Side


def is_within(price: Decimal, limit: Decimal | None, taker: Side) -> bool:
    """Tell whether ``price`` is ``limit`` or better for ``taker``; no limit takes any price."""
    if limit is None:
        return True
    return price <= limit if taker is Side.BUY else price >= limit


def quantity_within(offers: Iterable[Level], taker: Side, limit: Decimal | None) -> Decimal:
    """Return the quantity that ``offers`` hold at ``limit`` or better, base asset."""
    return sum((level.quantity for level in offers if is_within(level.price, limit, taker)), ZERO)


def walk(offers: Iterable[Level], taker: Side, quantity: Decimal, limit: Decimal | None) -> list[Level]:
    """Return what a taker gets of ``offers`` (best first): up to ``quantity``, at ``limit`` or better."""
    got: list[Level] = []
    left = quantity
    for level in offers:
        if left <= 0 or not is_within(level.price, limit, taker):
            break
        part = min(left, level.quantity)
        got.append(Level(level.price, part))
        left -= part
    return got
