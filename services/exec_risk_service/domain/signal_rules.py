"""From a signal to its one first consequence: an entry, an exit, or a refusal with the reason."""

from __future__ import annotations

from services.exec_risk_service.domain import facts
from services.exec_risk_service.domain.denials import Denial, DenialCode
from services.exec_risk_service.domain.execution_rules import begin
from services.exec_risk_service.domain.execution_start import opening, terms_of
from services.exec_risk_service.domain.inputs import Action, Cause, Signal, SignalReceived
from services.exec_risk_service.domain.orders import EntryPlan
from services.exec_risk_service.domain.positions import ExitPlan, ExitReason, Origin, Position
from services.exec_risk_service.domain.risk_checks import EntryOrder
from services.exec_risk_service.domain.risk_engine import first_reason, risk_view
from services.exec_risk_service.domain.sizing import size_entry, take_profit_pct
from services.exec_risk_service.domain.step import Turn
from services.exec_risk_service.domain.upkeep import upkeep, want_exit


def on_signal(turn: Turn, item: SignalReceived) -> None:
    """Apply one signal; HOLD asks for nothing."""
    signal = item.signal
    if signal.action is Action.HOLD:
        return
    position = turn.positions.get(signal.symbol)
    if position is not None:
        _on_signal_with_position(turn, item.cause, signal, position)
        return
    if turn.book.unfinished_orders(signal.symbol) or turn.book.executions_of(signal.symbol):
        _refuse(turn, item.cause, signal, "orders of this symbol are still under way")
        return
    decision = _decide_entry(turn, signal)
    if isinstance(decision, Denial):
        _deny(turn, item.cause, signal, decision)
    else:
        _enter(turn, item, decision)


def _on_signal_with_position(turn: Turn, cause: Cause, signal: Signal, position: Position) -> None:
    if position.is_long == (signal.action is Action.BUY):
        _refuse(turn, cause, signal, "position already open")
    elif position.origin is Origin.EXTERNAL:
        _refuse(turn, cause, signal, "the open position is a stranger's; close it by hand")
    elif position.exit is not None:
        _refuse(turn, cause, signal, f"the position is being closed already ({position.exit.reason.value})")
    elif _entry_is_in_flight(turn, signal.symbol):
        _refuse(turn, cause, signal, "the entry of the open position is still under way")
    else:
        plan = ExitPlan(ExitReason.SIGNAL_EXIT, cause.event_id, cause.trace_id, cause.event_id)
        want_exit(turn, position, plan)
        upkeep(turn, signal.symbol, at=signal.at)


def _entry_is_in_flight(turn: Turn, symbol: str) -> bool:
    """An entry that rests is taken back for an exit; one whose fate is open must be waited for."""
    entry = turn.book.entry_under_way(symbol)
    return entry is not None and not entry.rests


def _decide_entry(turn: Turn, signal: Signal) -> EntryOrder | Denial:
    view = risk_view(turn.book, signal.symbol, turn.context)
    order = size_entry(signal, view)
    if isinstance(order, Denial):
        return order
    return first_reason(order, view) or order


def _enter(turn: Turn, item: SignalReceived, order: EntryOrder) -> None:
    signal = item.signal
    plan = EntryPlan(
        stop_loss_pct=order.stop_loss_pct,
        take_profit_pct=take_profit_pct(signal, turn.context.rules),
        confidence=signal.confidence,
        model=signal.model,
        sizing="" if order.sizing is None else order.sizing.told(),
    )
    begin(turn, opening(turn, item.cause, order, plan, terms_of(turn.context.rules), at=signal.at), item.quote)


def _deny(turn: Turn, cause: Cause, signal: Signal, denial: Denial) -> None:
    """Risk said no: tell it to people, then to whoever waits for the result."""
    alert = turn.alert(
        "TRADE_BLOCKED",
        f"{signal.action.value} {signal.symbol}: {denial.text}",
        severity="MEDIUM",
        symbols=(signal.symbol,),
        action="BLOCK_TRADES",
        trace_id=cause.trace_id,
        causation_id=cause.event_id,
        metadata={"code": denial.code.value},
    )
    _publish_refusal(turn, cause, signal, denial, causation_id=alert)


def _refuse(turn: Turn, cause: Cause, signal: Signal, reason: str) -> None:
    """The symbol is busy: no risk was refused, so there is no alert."""
    _publish_refusal(turn, cause, signal, Denial(DenialCode.SYMBOL_BUSY, reason), causation_id=cause.event_id)


def _publish_refusal(turn: Turn, cause: Cause, signal: Signal, denial: Denial, *, causation_id: str) -> None:
    payload = facts.refused_signal(
        signal.symbol, signal.action.side, denial.text, arrival_price=signal.price, code=denial.code
    )
    turn.publish("execution.result", payload, trace_id=cause.trace_id, causation_id=causation_id)
