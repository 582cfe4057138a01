"""New orders: an intent is named by (cause, leg, sequence), and its client order id follows from the name."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from services.exec_risk_service.domain.executions import Execution
from services.exec_risk_service.domain.orders import Leg, Order, Provenance
from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.strategies.view import ChildOrder
from shared.ids import client_order_id
from shared.trading.orders import OrderType

_PROTECTIVE_TYPES = {Leg.STOP: OrderType.STOP_MARKET, Leg.TAKE_PROFIT: OrderType.TAKE_PROFIT_MARKET}


def child_intent(execution: Execution, child: ChildOrder, *, provenance: Provenance, step: int, at: datetime) -> Order:
    """Return the next child order of ``execution``."""
    sequence = execution.children + 1
    return Order(
        client_order_id=client_order_id(execution.cause_event_id, execution.leg, sequence),
        cause_event_id=execution.cause_event_id,
        leg=execution.leg,
        sequence=sequence,
        symbol=execution.symbol,
        side=execution.side,
        order_type=child.order_type,
        quantity=child.quantity,
        trigger_price=None,
        leverage=execution.leverage,
        arrival_price=execution.arrival_price,
        position_id=execution.position_id,
        provenance=provenance,
        created_step=step,
        created_at=at,
        plan=execution.plan,
        price=child.price,
        time_in_force=child.time_in_force,
        execution_id=execution.execution_id,
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
