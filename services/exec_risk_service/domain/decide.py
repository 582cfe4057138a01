"""The fold: one book, one input, one step. Nothing here waits, reads a clock, or asks anyone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from services.exec_risk_service.domain import governor, position_watch, trading_rules, venue_rules
from services.exec_risk_service.domain.advice_rules import on_exits_advised
from services.exec_risk_service.domain.book import Book
from services.exec_risk_service.domain.command_rules import (
    on_amplification_requested,
    on_execution_requested,
    on_rebalance_requested,
)
from services.exec_risk_service.domain.cover import watch_cover
from services.exec_risk_service.domain.execution_rules import on_executions_due, stop_executions
from services.exec_risk_service.domain.inputs import (
    AmplificationRequested,
    AnswerLost,
    CancelRefused,
    CandleClosed,
    Cause,
    ClosingOrderNoted,
    ExecutionRequested,
    ExecutionsDue,
    ExitsAdvised,
    FillsConfirmed,
    HistoryObserved,
    Input,
    PositionMarked,
    PositionObserved,
    ProvenAbsent,
    RebalanceRequested,
    SendRefused,
    SendStarted,
    SignalReceived,
    StopReported,
    StopRequested,
    SystemModeChanged,
    TradingLifted,
    TradingRestricted,
    TradingResumed,
    UpkeepDue,
    WalletObserved,
)
from services.exec_risk_service.domain.market_rules import on_candle, on_history
from services.exec_risk_service.domain.mode_rules import on_system_mode_changed
from services.exec_risk_service.domain.position_watch import watch_liquidation
from services.exec_risk_service.domain.recorded import record_input
from services.exec_risk_service.domain.reports import CashReport, FillReport, LeverageChanged, MarginCalled, OrderReport
from services.exec_risk_service.domain.rules import Context
from services.exec_risk_service.domain.signal_rules import on_signal
from services.exec_risk_service.domain.step import Step, Turn

#: What happens on which input.
RULES: dict[type[Any], Callable[[Turn, Any], None]] = {
    SignalReceived: on_signal,
    ExitsAdvised: on_exits_advised,
    SystemModeChanged: on_system_mode_changed,
    PositionMarked: position_watch.on_position_marked,
    LeverageChanged: position_watch.on_leverage_changed,
    MarginCalled: position_watch.on_margin_called,
    ExecutionRequested: on_execution_requested,
    AmplificationRequested: on_amplification_requested,
    RebalanceRequested: on_rebalance_requested,
    ExecutionsDue: on_executions_due,
    CandleClosed: on_candle,
    SendStarted: venue_rules.on_send_started,
    SendRefused: venue_rules.on_send_refused,
    AnswerLost: venue_rules.on_answer_lost,
    ProvenAbsent: venue_rules.on_proven_absent,
    CancelRefused: venue_rules.on_cancel_refused,
    OrderReport: venue_rules.on_order_report,
    FillReport: venue_rules.on_fill_report,
    CashReport: venue_rules.on_cash_report,
    WalletObserved: venue_rules.on_wallet_observed,
    PositionObserved: venue_rules.on_position_observed,
    HistoryObserved: on_history,
    FillsConfirmed: venue_rules.on_fills_confirmed,
    UpkeepDue: venue_rules.on_upkeep_due,
    TradingRestricted: trading_rules.on_trading_restricted,
    TradingLifted: trading_rules.on_trading_lifted,
    TradingResumed: trading_rules.on_trading_resumed,
    StopRequested: trading_rules.on_stop_requested,
    ClosingOrderNoted: trading_rules.on_closing_order_noted,
    StopReported: trading_rules.on_stop_reported,
}


def decide(book: Book, item: Input, context: Context) -> Step | None:
    """Return what ``item`` does to ``book``, or None when it changes nothing."""
    turn = Turn(book, context)
    RULES[type(item)](turn, item)
    governor.watch(turn)
    stop_executions(turn)
    watch_cover(turn)
    watch_liquidation(turn)
    cause = getattr(item, "cause", None)
    return turn.finish(cause.event_id if isinstance(cause, Cause) else None, record_input(item, book.account, context))
