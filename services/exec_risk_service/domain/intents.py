"""New orders: an intent is named by (cause, leg, sequence), and its client order id follows from the name."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from services.exec_risk_service.domain.orders import EntryPlan, Leg, Order, Provenance
from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.risk_checks import EntryOrder
from shared.ids import client_order_id, derive_id
from shared.trading.orders import OrderType

_PROTECTIVE_TYPES = {Leg.STOP: OrderType.STOP_MARKET, Leg.TAKE_PROFIT: OrderType.TAKE_PROFIT_MARKET}


def entry_intent(
    order: EntryOrder,
    plan: EntryPlan,
    *,
    account: str,
    cause_event_id: str,
    provenance: Provenance,
    step: int,
    at: datetime,
) -> Order:
    """Return the market order that opens a position."""
    name = client_order_id(cause_event_id, Leg.ENTRY, 1)
    return Order(
        client_order_id=name,
        cause_event_id=cause_event_id,
        leg=Leg.ENTRY,
        sequence=1,
        symbol=order.symbol,
        side=order.side,
        order_type=OrderType.MARKET,
        quantity=order.quantity,
        trigger_price=None,
        leverage=int(order.leverage),
        arrival_price=order.price,
        position_id=derive_id("position", account, name),
        provenance=provenance,
        created_step=step,
        created_at=at,
        plan=plan,
    )


def protective_intent(
    position: Position,
    leg: Leg,
    *,
    sequence: int,
    trigger_price: Decimal,
    provenance: Provenance,
    step: int,
    at: datetime,
) -> Order:
    """Return the stop or the take-profit that rests on the exchange for all of ``position``."""
    return Order(
        client_order_id=client_order_id(position.cause_event_id, leg, sequence),
        cause_event_id=position.cause_event_id,
        leg=leg,
        sequence=sequence,
        symbol=position.symbol,
        side=position.close_side,
        order_type=_PROTECTIVE_TYPES[leg],
        quantity=position.size,
        trigger_price=trigger_price,
        leverage=position.leverage,
        arrival_price=trigger_price,
        position_id=position.position_id,
        provenance=provenance,
        created_step=step,
        created_at=at,
    )


def exit_intent(
    position: Position, *, sequence: int, arrival_price: Decimal, provenance: Provenance, step: int, at: datetime
) -> Order:
    """Return the reduce-only market order that closes all of ``position``."""
    assert position.exit is not None
    cause = position.exit.cause_event_id
    return Order(
        client_order_id=client_order_id(cause, Leg.EXIT, sequence),
        cause_event_id=cause,
        leg=Leg.EXIT,
        sequence=sequence,
        symbol=position.symbol,
        side=position.close_side,
        order_type=OrderType.MARKET,
        quantity=position.size,
        trigger_price=None,
        leverage=position.leverage,
        arrival_price=arrival_price,
        position_id=position.position_id,
        provenance=provenance,
        created_step=step,
        created_at=at,
    )
