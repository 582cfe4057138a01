"""Changes of the trading state inside a step: one event when the state changes, one alert per new cause."""

from __future__ import annotations

from typing import Literal

from services.exec_risk_service.domain.inputs import TradingLifted, TradingRestricted, TradingResumed
from services.exec_risk_service.domain.step import Turn
from services.exec_risk_service.domain.trading_state import Restriction, TradingCause, TradingState, TradingStatus
from shared.events.v3 import TradingStateChangedPayload

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
        trace_id: Trace of the alert and of the event; a trace of the step's own when nothing explains it.
        causation_id: Event that is the cause, if one is.
    """
    day = turn.cash.day
    before, halt = turn.trading, to is TradingState.HALTED
    restriction = Restriction(cause, reason, changed_by, since=turn.context.now, day=day)
    turn.trading = before.restricted(restriction, halt=halt)
    if turn.trading is before:
        return
    alert = turn.alert(
        alert_type or cause.value,
        f"{reason}: trading is {turn.trading.state.value}",
        severity=severity,
        symbols=symbols,
        action="BLOCK_TRADES",
        trace_id=trace_id,
        causation_id=causation_id,
    )
    _tell_change(turn, before, trace_id=trace_id, causation_id=alert)


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
