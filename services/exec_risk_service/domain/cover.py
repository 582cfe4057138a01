"""Keeps the clock of unprotected positions: run at the end of every turn, over what the turn touched."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.protection import Cover
from services.exec_risk_service.domain.step import Turn
from shared.trading.orders import OrderStatus, OrderType

#: The exchange said that the stop rests, or that it is closing the position just now.
_GUARDING = (OrderStatus.NEW, OrderStatus.TRIGGERED, OrderStatus.PARTIALLY_FILLED)
#: A fill that is booked later than this after its market order was sent was missed: the time counts from the sending.
_PROMPT = timedelta(seconds=2)


def watch_cover(turn: Turn) -> None:
    """Note for each position that was touched whether a stop covers it now."""
    for position in turn.touched_positions():
        is_covered = position.net.is_flat or covers(turn.orders.values(), position)
        cover = position.cover.at(turn.context.now, is_covered=is_covered)
        if cover != position.cover:
            turn.save_position(with_cover(position, cover))


def covers(orders: Iterable[Order], position: Position) -> bool:
    """Tell whether one stop that rests covers all of ``position``."""
    return any(
        order.leg is Leg.STOP
        and order.position_id == position.position_id
        and order.status in _GUARDING
        and not order.cancel_requested
        and order.quantity - order.filled_quantity >= position.size
        for order in orders
    )


def first_seen(order: Order | None, now: datetime) -> datetime:
    """Return the wall time from which a position that ``order`` opened counts as unprotected."""
    if order is None or order.sent_at is None or order.order_type is not OrderType.MARKET:
        return now
    return order.sent_at if now - order.sent_at > _PROMPT else now


def alert_when_exposed(turn: Turn, position: Position) -> None:
    """Tell a person, once per time, that ``position`` has stood without a stop for too long."""
    limit, passed = turn.context.rules.max_unprotected, position.cover.present(turn.context.now)
    if position.cover.alerted or passed <= limit:
        return
    turn.alert(
        "POSITION_UNPROTECTED",
        f"the position of {position.net.quantity} in {position.symbol} has had no stop for all of it for"
        f" {passed.total_seconds():.1f} s; limit {limit.total_seconds():.1f} s",
        severity="CRITICAL",
        symbols=(position.symbol,),
        trace_id=position.trace_id,
        causation_id=position.opened_event_id or position.opening_event_id,
    )
    turn.save_position(with_cover(position, replace(position.cover, alerted=True)))


def with_cover(position: Position, cover: Cover) -> Position:
    """Return ``position`` with another record of its cover."""
    return replace(position, protection=replace(position.protection, cover=cover))
