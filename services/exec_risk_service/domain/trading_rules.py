"""Changes of the trading state inside a step: one event when the state changes, one alert per new cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from services.exec_risk_service.domain.inputs import (
    ClosingOrderNoted,
    StopReported,
    StopRequested,
    TradingLifted,
    TradingRestricted,
    TradingResumed,
)
from services.exec_risk_service.domain.orders import Leg, Order, Provenance
from services.exec_risk_service.domain.step import CancelOrder, EndExposure, Turn
from services.exec_risk_service.domain.trading_state import (
    EmergencyStop,
    Restriction,
    TradingCause,
    TradingState,
    TradingStatus,
)
from shared.events.v3 import EmergencyStopPayload, TradingStateChangedPayload
from shared.trading.orders import OrderStatus, OrderType

_RESTING = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)

Severity = Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"]


def change_trading_state(
    turn: Turn,
    cause: TradingCause,
    reason: str,
    *,
    changed_by: str,
    to: TradingState = TradingState.REDUCING,
    severity: Severity = "HIGH",
    alert_type: str | None = None,
    symbols: tuple[str, ...] = (),
    is_told: bool = False,
    trace_id: str | None = None,
    causation_id: str | None = None,
) -> None:
    """Keep entries back because of ``cause``; a cause that is in force already changes nothing and alarms nobody.

    Args:
        turn: The turn at work.
        cause: Why, for programs; it also says when the restriction ends.
        reason: Why, one line with the numbers.
        changed_by: Rule or person.
        to: REDUCING, or HALTED for what only a person may end. ACTIVE is not asked for: see ``lift_restriction``.
        severity: Of the alert.
        alert_type: Of the alert; else the name of the cause.
        symbols: Venue symbols that it is about.
        is_told: What is wrong was alerted already, so that only the change of the state is told.
        trace_id: Trace of the alert and of the event; a trace of the step's own when nothing explains it.
        causation_id: Event that is the cause, if one is.
    """
    day = turn.cash.day
    before, halt = turn.trading, to is TradingState.HALTED
    restriction = Restriction(cause, reason, changed_by, since=turn.context.now, day=day)
    turn.trading = before.restricted(restriction, halt=halt)
    if turn.trading is before:
        return
    if not is_told:
        causation_id = turn.alert(
            alert_type or cause.value,
            f"{reason}: trading is {turn.trading.state.value}",
            severity=severity,
            symbols=symbols,
            action="BLOCK_TRADES",
            trace_id=trace_id,
            causation_id=causation_id,
        )
    _tell_change(turn, before, trace_id=trace_id, causation_id=causation_id)
    _withdraw_entries(turn)


def order_stop(turn: Turn, stop_id: str, reason: str, *, cause: TradingCause, requested_by: str) -> None:
    """Halt trading and end all exposure; a stop that is in force already is joined.

    Args:
        turn: The turn at work.
        stop_id: Names the stop.
        reason: Why, one line with the numbers.
        cause: Why, for programs.
        requested_by: Rule or person.
    """
    before, now = turn.trading, turn.context.now
    if before.stop is not None or stop_id == before.ended_stop:
        return
    halted = before.restricted(Restriction(cause, reason, requested_by, since=now, day=turn.cash.day), halt=True)
    turn.trading = replace(halted, stop=EmergencyStop(stop_id, reason, requested_by, since=now))
    equity = turn.book.equity()
    payload = EmergencyStopPayload(
        trigger_reason=reason,
        severity="EMERGENCY",
        drawdown_pct=None if equity is None else float(turn.cash.drawdown(equity) * 100),
        consecutive_losses=turn.trading.losses_in_a_row,
        manual_intervention_required=True,
        metadata={"stop_id": stop_id, "requested_by": requested_by, "cause": cause.value},
    )
    event = turn.publish("emergency.stop", payload, trace_id=turn.own_trace(), causation_id=None)
    _tell_change(turn, before, trace_id=None, causation_id=event)
    turn.request(EndExposure(stop_id))


def on_stop_requested(turn: Turn, item: StopRequested) -> None:
    """A person, or a program that may, asks for the emergency stop."""
    order_stop(turn, item.stop_id, item.reason, cause=TradingCause.EMERGENCY_STOP, requested_by=item.requested_by)


def on_stop_reported(turn: Turn, item: StopReported) -> None:
    """How far the stop is; only what the exchange showed makes it verified."""
    stop = turn.trading.stop
    if stop is None or stop.stop_id != item.stop_id:
        return
    if item.is_flat and stop.verified_at is None:
        stop = replace(stop, verified_at=turn.context.now)
    elif not item.is_flat and stop.verified_at is not None:
        stop = replace(stop, verified_at=None)
    turn.trading = replace(turn.trading, stop=stop)
    turn.alert(
        "EMERGENCY_STOP_VERIFIED" if item.is_flat else "EMERGENCY_STOP_UNDER_WAY",
        item.message,
        severity="HIGH" if item.is_flat else "CRITICAL",
        action="EMERGENCY_STOP",
    )


def lift_restriction(turn: Turn, cause: TradingCause, reason: str, *, changed_by: str) -> None:
    """Say that ``cause`` is over; nothing when it keeps nothing back."""
    before = turn.trading
    turn.trading = before.lifted(cause, reason=reason, changed_by=changed_by, now=turn.context.now)
    if turn.trading is before:
        return
    if turn.trading.state is before.state:
        # The state stands for another cause; that this one is over is told all the same, so that it can be replayed.
        message = f"{cause.value} is over ({reason}); trading stays {turn.trading.state.value}: {turn.trading.reason}"
        turn.alert(f"{cause.value}_OVER", message, severity="LOW")
        return
    _tell_change(turn, before, trace_id=None, causation_id=None)


def on_closing_order_noted(turn: Turn, item: ClosingOrderNoted) -> None:
    """Take an order of the emergency stop into the book, so that its fills are booked as its own."""
    closing = item.order
    if closing.client_order_id in turn.orders:
        return
    position = turn.positions.get(closing.symbol)
    trace = turn.own_trace() if position is None else position.trace_id
    cause = closing.cause
    order = Order(
        client_order_id=closing.client_order_id,
        cause_event_id=cause,
        leg=Leg.EXIT,
        sequence=closing.sequence,
        symbol=closing.symbol,
        side=closing.side,
        order_type=OrderType.MARKET,
        quantity=closing.quantity,
        trigger_price=None,
        leverage=1 if position is None else position.leverage,
        arrival_price=turn.book.mark(closing.symbol) or closing.mark_price,
        position_id=cause if position is None else position.position_id,
        provenance=Provenance(trace, turn.next_event_id(), result_trace_id=trace),
        created_step=turn.number,
        created_at=closing.at,
        status=OrderStatus.SUBMITTED,
        sent_at=turn.context.now,
    )
    turn.publish_order(order, causation_id=position.opened_event_id or None if position is not None else None)


def _withdraw_entries(turn: Turn) -> None:
    """Cancel resting entries: what they would add is not wanted any more."""
    if turn.trading.state is TradingState.ACTIVE:
        return
    for order in turn.book.open_orders():
        rests = order.status in _RESTING and order.order_type is not OrderType.MARKET
        if order.leg is Leg.ENTRY and rests and not order.cancel_requested:
            turn.publish_order(replace(order, cancel_requested=True))
            turn.request(CancelOrder(order.client_order_id))


def on_trading_restricted(turn: Turn, item: TradingRestricted) -> None:
    """Something outside the account's own book keeps entries back."""
    change_trading_state(turn, item.cause, item.reason, changed_by=item.changed_by, to=item.to, severity=item.severity)


def on_trading_lifted(turn: Turn, item: TradingLifted) -> None:
    """What was wrong outside is over."""
    lift_restriction(turn, item.cause, item.reason, changed_by=item.changed_by)


def on_trading_resumed(turn: Turn, item: TradingResumed) -> None:
    """A person takes responsibility: the day's losses so far are accepted, and are measured anew from here."""
    before = turn.trading
    if before.state is TradingState.ACTIVE:
        return
    turn.trading = before.resumed(reason=item.reason, by=item.by, now=turn.context.now)
    equity = turn.book.equity()
    if equity is not None:
        turn.cash = turn.cash.measured_anew(equity)
    _tell_change(turn, before, trace_id=None, causation_id=None)


def _tell_change(turn: Turn, before: TradingStatus, *, trace_id: str | None, causation_id: str | None) -> None:
    now = turn.trading
    if now.state is before.state and now.since == before.since:
        return
    payload = TradingStateChangedPayload(
        previous=before.state.value, current=now.state.value, reason=now.reason, changed_by=now.changed_by
    )
    turn.publish("trading_state.changed", payload, trace_id=trace_id or turn.own_trace(), causation_id=causation_id)
