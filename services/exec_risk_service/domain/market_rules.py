"""A closed candle: the new mark price, and everything that market time decides."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from services.exec_risk_service.domain.book import Mark
from services.exec_risk_service.domain.exit_rules import follow_market, publish_update
from services.exec_risk_service.domain.hedging import consider_hedge
from services.exec_risk_service.domain.inputs import CandleClosed, HistoryObserved
from services.exec_risk_service.domain.positions import ExitPlan, ExitReason, Origin, Position
from services.exec_risk_service.domain.step import Turn
from services.exec_risk_service.domain.upkeep import upkeep, want_exit
from shared.trading.candles import Candle


def on_candle(turn: Turn, item: CandleClosed) -> None:
    """Apply one candle; one that is older than the mark price only joins the history."""
    candle = item.candle
    joined = turn.note_candles(candle.symbol, (candle,))
    known = turn.marks.get(candle.symbol)
    if known is not None and candle.close_time <= known.at:
        if joined:
            turn.publish_account(trace_id=item.cause.trace_id, causation_id=item.cause.event_id)
        return
    mark = Decimal(str(candle.close))
    turn.marks[candle.symbol] = Mark(mark, candle.close_time, turn.context.now)
    position = turn.positions.get(candle.symbol)
    if position is not None:
        _revalue(turn, position, candle, mark)
        close_when_held_too_long(turn, candle.symbol, candle.close_time, item.cause.event_id)
    turn.mark_equity(candle.close_time)
    turn.publish_account(trace_id=item.cause.trace_id, causation_id=item.cause.event_id)
    upkeep(turn, candle.symbol, at=candle.close_time, urgent=True)
    consider_hedge(turn, item.cause, candle.symbol, candle.close_time)


def on_history(turn: Turn, item: HistoryObserved) -> None:
    """Take over candles that closed while nobody listened; prices of the past move no mark and close no position."""
    if turn.cash.wallet is not None and turn.note_candles(item.symbol, item.candles):
        turn.publish_account(trace_id=turn.own_trace(), causation_id=None)


def _revalue(turn: Turn, position: Position, candle: Candle, mark: Decimal) -> None:
    # High and low say something about the position only when it was open for the whole candle.
    whole = candle.open_time >= position.opened_at
    before = position
    position = position.seen(mark, *(Decimal(str(price)) for price in (candle.high, candle.low) if whole))
    position = follow_market(turn, position, mark, candle.close_time)
    turn.save_position(position)
    publish_update(turn, position, mark, before=before)


def close_when_held_too_long(turn: Turn, symbol: str, at: datetime, cause_event_id: str) -> None:
    """Decide to close a position of ours whose longest holding time is over at market time ``at``."""
    position = turn.positions[symbol]
    ours = position.origin is Origin.SIGNAL
    if ours and at - position.opened_at >= turn.context.rules.max_holding:
        want_exit(turn, position, ExitPlan(ExitReason.TIMEOUT, cause_event_id, position.trace_id))
