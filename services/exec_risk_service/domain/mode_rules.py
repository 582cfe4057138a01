"""``system.mode_changed``: what the mode of the whole system means for this account. It restricts; it never resumes."""

from __future__ import annotations

from services.exec_risk_service.domain.inputs import SystemModeChanged
from services.exec_risk_service.domain.step import Turn
from services.exec_risk_service.domain.trading_rules import change_trading_state, lift_restriction
from services.exec_risk_service.domain.trading_state import TradingCause

#: Modes in which nothing is opened, whatever their flags say.
_CLOSED = frozenset({"EMERGENCY", "MAINTENANCE"})


def on_system_mode_changed(turn: Turn, item: SystemModeChanged) -> None:
    """Hold entries back, or let them go on.

    An order that makes a position larger is an entry here, so the stricter of the two flags counts for both: without
    new trades or without larger positions nothing is opened. Lifting this cause lifts no other, so a halt stays one.
    Closing everything is the emergency stop's work, which was asked for before this input.
    """
    open_again = item.mode not in _CLOSED and item.allow_new_trades and item.allow_position_expansion
    if open_again and not item.force_close_positions:
        lift_restriction(
            turn,
            TradingCause.SYSTEM_MODE,
            f"system mode {item.mode}: {item.reason}",
            changed_by=item.changed_by,
        )
        return
    change_trading_state(
        turn,
        TradingCause.SYSTEM_MODE,
        f"system mode {item.mode}: {item.reason}",
        changed_by=item.changed_by,
        severity="CRITICAL" if item.mode == "EMERGENCY" else "MEDIUM",
        trace_id=item.cause.trace_id,
        causation_id=item.cause.event_id,
    )
