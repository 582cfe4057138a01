"""LIMIT: rest at the touch as a maker, follow the market when it leaves, cross or give up when patience ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from services.exec_risk_service.domain.executions import Urgency
from services.exec_risk_service.domain.quotes import Quote, is_worse
from services.exec_risk_service.domain.strategies.taking import beyond_guard, take, too_small
from services.exec_risk_service.domain.strategies.view import (
    CancelResting,
    ChildOrder,
    GiveUp,
    Plan,
    RestingChild,
    Send,
    SliceView,
    Wait,
)
from shared.trading.money import round_price
from shared.trading.orders import OrderType, Side, TimeInForce


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a limit order is left alone.

    Attributes:
        chases: Moves after the market, at most.
        rests: Market time at the touch, in all, before it crosses or gives up.
        crosses: What is left in the end is taken from the book; otherwise it is given up.
    """

    chases: int
    rests: timedelta
    crosses: bool


#: What each urgency allows.
PATIENCE: Mapping[Urgency, Patience] = MappingProxyType(
    {
        Urgency.LOW: Patience(chases=20, rests=timedelta(minutes=10), crosses=False),
        Urgency.NORMAL: Patience(chases=8, rests=timedelta(minutes=2), crosses=True),
        Urgency.HIGH: Patience(chases=3, rests=timedelta(seconds=20), crosses=True),
    }
)
#: The touch must have left by so many ticks before the order follows at once; by any less, after a while.
_FOLLOW_TICKS = 3
_FOLLOW_AFTER = timedelta(seconds=5)


def plan(view: SliceView) -> Plan:
    """Return the post-only order at the touch, its move after the market, or the end."""
    patience = PATIENCE[view.urgency]
    if view.resting is not None:
        return _keep_or_move(view, view.resting, patience)
    if (nothing_left := too_small(view)) is not None:
        return nothing_left
    if view.missed:
        return GiveUp("the book gave no more within the slippage guard")
    if view.chases > patience.chases or view.now >= _patient_until(view, patience):
        return take(view, view.remaining) if patience.crosses else GiveUp("nobody took the limit order in time")
    return _rest(view)


def _rest(view: SliceView) -> Plan:
    if view.quote is None and view.children > 0:
        return Wait(None, "the book is not known")
    touch = view.arrival_price if view.quote is None else view.quote.touch(view.side)
    if is_worse(touch, view.guard_price, view.side):
        return Wait(None, beyond_guard(view, touch))
    quantity = view.on_grid(min(view.remaining, view.instrument.max_quantity))
    # Away from the market: a maker must not take.
    price = round_price(touch, view.instrument.tick_size, up=view.side is Side.SELL)
    return Send(ChildOrder(quantity, OrderType.LIMIT, price, TimeInForce.GTX))


def _keep_or_move(view: SliceView, resting: RestingChild, patience: Patience) -> Plan:
    until = _patient_until(view, patience)
    if view.now >= until:
        return CancelResting()
    if view.quote is not None and _has_left(view, resting, view.quote):
        return CancelResting()
    return Wait(until)


def _has_left(view: SliceView, resting: RestingChild, quote: Quote) -> bool:
    """Tell whether the touch left the resting order behind; beyond the guard nothing follows it."""
    touch = quote.touch(view.side)
    gap = (touch - resting.price) * view.side.sign
    if gap <= 0 or is_worse(touch, view.guard_price, view.side):
        return False
    return gap >= _FOLLOW_TICKS * view.instrument.tick_size or view.now - resting.since >= _FOLLOW_AFTER


def _patient_until(view: SliceView, patience: Patience) -> datetime:
    return min(view.started_at + patience.rests, view.started_at + (view.ends_at - view.started_at) * 9 / 10)
