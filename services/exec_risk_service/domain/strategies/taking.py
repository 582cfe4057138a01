"""Taking from the book under the slippage guard: a market order where the book is deep enough, else a bounded one."""

from __future__ import annotations

from decimal import Decimal

from services.exec_risk_service.domain.quotes import is_worse
from services.exec_risk_service.domain.strategies.view import ChildOrder, GiveUp, Send, SliceView
from shared.trading.orders import OrderType, TimeInForce


def take(view: SliceView, quantity: Decimal) -> Send | GiveUp:
    """Return the child that takes ``quantity`` now, or why the price is too far from the arrival price.

    A market order is sent only when the visible book fills it within the guard on average. Where the book is not
    known or too thin, an immediate-or-cancel order at the guard price takes what is there and no more.
    """
    quantity = view.on_grid(min(quantity, view.instrument.max_market_quantity))
    quote = view.quote
    if quote is None or quote.is_crossed:
        return Send(bounded(view, quantity))
    best = quote.offers(view.side)[0].price
    if is_worse(best, view.guard_price, view.side):
        return GiveUp(beyond_guard(view, best))
    walk = quote.walk(view.side, quantity)
    if walk.quantity < quantity or is_worse(walk.average, view.guard_price, view.side):
        return Send(bounded(view, quantity))
    return Send(ChildOrder(quantity, OrderType.MARKET))


def bounded(view: SliceView, quantity: Decimal) -> ChildOrder:
    """Return the order that takes up to ``quantity`` at the guard price or better, and rests never."""
    return ChildOrder(quantity, OrderType.LIMIT, view.guard_price, TimeInForce.IOC)


def beyond_guard(view: SliceView, best: Decimal) -> str:
    """Say that the book's best price is worse than the guard."""
    slippage = (best / view.arrival_price - 1) * 100 * view.side.sign
    return (
        f"the best price {best} is {slippage:.2f} % worse than the arrival price {view.arrival_price}; "
        f"the guard is {view.guard_price}"
    )


def too_small(view: SliceView) -> GiveUp | None:
    """Return that what is left cannot be ordered, or None while it can."""
    left = view.on_grid(view.remaining)
    if view.is_tradable(left):
        return None
    return GiveUp(f"{view.remaining} is left, less than the exchange's smallest order")
