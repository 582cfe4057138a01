"""Self-trade prevention: what happens when an order meets another one of the same account. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from infrastructure.paper_exchange.modes import SelfTradePrevention
from infrastructure.paper_exchange.records import OrderRecord
from shared.trading.orders import OrderType, Side


def expires_makers(taker: OrderRecord) -> bool:
    """Tell whether the resting orders that ``taker`` meets give way."""
    return taker.self_trade_prevention in (SelfTradePrevention.EXPIRE_MAKER, SelfTradePrevention.EXPIRE_BOTH)


def expires_taker(taker: OrderRecord) -> bool:
    """Tell whether ``taker`` gives way to what it meets."""
    return taker.self_trade_prevention in (SelfTradePrevention.EXPIRE_TAKER, SelfTradePrevention.EXPIRE_BOTH)


def taking_limit(taker: OrderRecord, others: Sequence[OrderRecord], tick_size: Decimal) -> Decimal | None:
    """Return the worst price that ``taker`` may take, USDT; None is any.

    Args:
        taker: The order that takes.
        others: The account's resting orders of the other side, best price for ``taker`` first.
        tick_size: Price grid, USDT.
    """
    limit = taker.price if taker.type is OrderType.LIMIT else None
    if not expires_taker(taker) or not others or not _within(others[0].price, limit, taker.side):
        return limit
    return others[0].price - tick_size * taker.side.sign  # it stops before it meets its own


def met(taker: OrderRecord, others: Sequence[OrderRecord], worst: Decimal | None) -> list[OrderRecord]:
    """Return those of ``others`` that ``taker`` came upon.

    Args:
        taker: The order after it took.
        others: The account's resting orders of the other side, best price for ``taker`` first.
        worst: Price of its last fill, USDT; None when there was none.
    """
    if not taker.remaining and worst is None:
        return []
    reach = worst if not taker.remaining else taker.price if taker.type is OrderType.LIMIT else None
    found = [other for other in others if _within(other.price, reach, taker.side)]
    return found[:1] if expires_taker(taker) else found


def _within(price: Decimal, limit: Decimal | None, taker: Side) -> bool:
    return limit is None or (price <= limit if taker is Side.BUY else price >= limit)
