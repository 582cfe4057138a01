"""New executions: what is decided once, at the start, from a checked order or from a position to be made smaller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial

from services.exec_risk_service.domain.executions import Execution, Strategy, Urgency
from services.exec_risk_service.domain.inputs import Cause, Ordered
from services.exec_risk_service.domain.orders import EntryPlan, Leg
from services.exec_risk_service.domain.positions import ExitReason, Position
from services.exec_risk_service.domain.risk_checks import EntryOrder
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.step import Turn
from shared.ids import client_order_id, derive_id


@dataclass(frozen=True, slots=True)
class Terms:
    """How an execution is to be worked.

    Attributes:
        strategy: Strategy that is asked for.
        urgency: How much speed may cost.
        tolerance_pct: Most slippage against the arrival price, percent.
        expires_at: Market time after which nothing is sent; None for the usual time.
        exit_reason: Why a position ends that a reduction closes.
        is_one_of_many: The event asks for one execution per symbol.
    """

    strategy: Strategy
    urgency: Urgency
    tolerance_pct: Decimal
    expires_at: datetime | None = None
    exit_reason: str = ExitReason.MANUAL.value
    is_one_of_many: bool = False


def terms_of(rules: Rules, asked: Ordered | None = None) -> Terms:
    """Return the terms that ``asked`` names, or those of the installation; the slippage is never above the latter's."""
    if asked is None:
        return Terms(rules.default_strategy, Urgency.NORMAL, rules.max_slippage_pct)
    return Terms(asked.strategy, asked.urgency, min(asked.tolerance_pct, rules.max_slippage_pct), asked.expires_at)


def opening(turn: Turn, cause: Cause, order: EntryOrder, plan: EntryPlan, terms: Terms, *, at: datetime) -> Execution:
    """Return the execution that opens a position."""
    named = _named(turn, cause, order.symbol, terms, at)
    return named(
        side=order.side,
        leg=Leg.ENTRY,
        quantity=order.quantity,
        leverage=int(order.leverage),
        arrival_price=order.price,
        position_id=derive_id("position", turn.account, client_order_id(cause.event_id, Leg.ENTRY, 1)),
        plan=plan,
    )


def increasing(
    turn: Turn, cause: Cause, order: EntryOrder, position: Position, terms: Terms, *, at: datetime
) -> Execution:
    """Return the execution that adds to ``position``; its leverage and its exits stay what they are."""
    named = _named(turn, cause, order.symbol, terms, at)
    return named(
        side=order.side,
        leg=Leg.ENTRY,
        quantity=order.quantity,
        leverage=position.leverage,
        arrival_price=order.price,
        position_id=position.position_id,
        increases=True,
        plan=position.plan,
    )


def reducing(
    turn: Turn, cause: Cause, position: Position, quantity: Decimal, terms: Terms, *, price: Decimal, at: datetime
) -> Execution:
    """Return the execution that makes ``position`` smaller by ``quantity``; ``price`` is the arrival price."""
    named = _named(turn, cause, position.symbol, terms, at)
    return named(
        side=position.close_side,
        leg=Leg.REDUCE,
        quantity=quantity,
        leverage=position.leverage,
        arrival_price=price,
        position_id=position.position_id,
        exit_reason=terms.exit_reason,
    )


def _named(turn: Turn, cause: Cause, symbol: str, terms: Terms, at: datetime) -> Callable[..., Execution]:
    """Return an execution without what is traded. One event may ask for several symbols: then each has its name."""
    latest = at + turn.context.rules.execution_lifetime
    return partial(
        Execution,
        execution_id=derive_id("execution", turn.account, cause.event_id, symbol),
        cause_event_id=derive_id(cause.event_id, symbol) if terms.is_one_of_many else cause.event_id,
        source_event_id=cause.event_id,
        trace_id=cause.trace_id,
        symbol=symbol,
        strategy=Strategy.MARKET,
        asked=terms.strategy,
        urgency=terms.urgency,
        tolerance_pct=terms.tolerance_pct,
        started_at=at,
        decided_at=turn.context.now,
        expires_at=latest if terms.expires_at is None else min(latest, terms.expires_at),
        created_step=turn.number,
    )
