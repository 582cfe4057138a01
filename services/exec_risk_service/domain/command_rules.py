"""Trades that somebody asks for without a signal: the same checks, the same one answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from services.exec_risk_service.domain import facts
from services.exec_risk_service.domain.denials import Denial, DenialCode
from services.exec_risk_service.domain.execution_rules import begin
from services.exec_risk_service.domain.execution_start import Terms, increasing, opening, reducing, terms_of
from services.exec_risk_service.domain.inputs import Action, Cause, ExecutionRequested, Ordered, Signal
from services.exec_risk_service.domain.orders import EntryPlan
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.risk_checks import EntryOrder
from services.exec_risk_service.domain.risk_engine import first_reason, risk_view
from services.exec_risk_service.domain.sizing import size_entry, take_profit_pct
from services.exec_risk_service.domain.step import Turn
from shared.trading.money import ZERO, round_down
from shared.trading.orders import Side


def on_execution_requested(turn: Turn, item: ExecutionRequested) -> None:
    """Open, increase or reduce a position as asked, or say why not."""
    order = item.order
    terms = terms_of(turn.context.rules, order)
    if order.expires_at is not None and item.at >= order.expires_at:
        reason = f"the request expired at {order.expires_at.isoformat()}, it is {item.at.isoformat()} market time"
        refuse(turn, item.cause, order.symbol, order.side, reason)
    elif order.is_reduce_only:
        _reduce(turn, item, terms)
    else:
        enter(turn, item.cause, order, terms, at=item.at, quote=item.quote)


def enter(turn: Turn, cause: Cause, asked: Ordered, terms: Terms, *, at: datetime, quote: Quote | None) -> None:
    """Open a position, or add to the one that is there, through every risk check."""
    position = turn.positions.get(asked.symbol)
    busy = _busy(turn, asked.symbol) or _cannot_grow(position, asked.side)
    if busy is not None:
        refuse(turn, cause, asked.symbol, asked.side, busy)
        return
    signal = _as_signal(turn, asked, quote, at)
    order = _checked(turn, signal, position)
    if isinstance(order, Denial):
        _deny(turn, cause, asked, order)
        return
    if position is not None:
        begin(turn, increasing(turn, cause, order, position, terms, at=at), quote)
        return
    plan = EntryPlan(
        stop_loss_pct=order.stop_loss_pct,
        take_profit_pct=take_profit_pct(signal, turn.context.rules),
        confidence=signal.confidence,
        model=asked.source,
    )
    begin(turn, opening(turn, cause, order, plan, terms, at=at), quote)


def reduce_by(
    turn: Turn,
    cause: Cause,
    position: Position,
    size_usd: Decimal,
    terms: Terms,
    *,
    at: datetime,
    quote: Quote | None,
) -> None:
    """Make ``position`` smaller by ``size_usd``, all of it when what would be left is no order of its own."""
    price = arrival_price(turn, position.symbol, quote) or position.net.entry_price
    quantity = _reduction(turn, position, size_usd, price)
    reason = _busy(turn, position.symbol) or _cannot_shrink(position)
    if reason is None and quantity == 0:
        reason = f"{size_usd:.2f} USD is less than the exchange's smallest order"
    if reason is not None:
        refuse(turn, cause, position.symbol, position.close_side, reason)
        return
    begin(turn, reducing(turn, cause, position, quantity, terms, price=price, at=at), quote)


def _reduce(turn: Turn, item: ExecutionRequested, terms: Terms) -> None:
    order = item.order
    position = turn.positions.get(order.symbol)
    if position is None or position.close_side is not order.side:
        refuse(turn, item.cause, order.symbol, order.side, "there is no position that this would reduce")
        return
    reduce_by(turn, item.cause, position, order.size_usd, terms, at=item.at, quote=item.quote)


# -- what stands in the way --------------------------------------------------------------------------------------------


def _busy(turn: Turn, symbol: str) -> str | None:
    under_way = any(not order.leg.is_protective for order in turn.book.unfinished_orders(symbol))
    if under_way or turn.book.executions_of(symbol):
        return "orders of this symbol are still under way"
    return None


def _cannot_grow(position: Position | None, side: Side) -> str | None:
    if position is None:
        return None
    if position.origin is Origin.EXTERNAL:
        return "the open position is a stranger's; close it by hand"
    if position.exit is not None:
        return f"the position is being closed already ({position.exit.reason.value})"
    if position.close_side is side:
        return "it would turn the open position; ask with reduce_only to make that smaller"
    return None


def _cannot_shrink(position: Position) -> str | None:
    if position.exit is not None:
        return f"the position is being closed already ({position.exit.reason.value})"
    return None


# -- sizes -------------------------------------------------------------------------------------------------------------


def arrival_price(turn: Turn, symbol: str, quote: Quote | None) -> Decimal | None:
    """Return the price that slippage is measured against: the middle of the book, or else the newest close."""
    return turn.book.mark(symbol) if quote is None or quote.is_crossed else quote.mid


def _as_signal(turn: Turn, asked: Ordered, quote: Quote | None, at: datetime) -> Signal:
    """Return the request as a signal, so that one rule sizes both."""
    return Signal(
        symbol=asked.symbol,
        action=Action(asked.side.value),
        confidence=float(asked.confidence),
        model=asked.source,
        price=arrival_price(turn, asked.symbol, quote),
        size_usd=asked.size_usd,
        leverage=asked.leverage,
        stop_loss_pct=asked.stop_loss_pct,
        take_profit_pct=asked.take_profit_pct,
        at=at,
    )


def _checked(turn: Turn, signal: Signal, position: Position | None) -> EntryOrder | Denial:
    """Return the order that passes every check, or the first reason against it."""
    if turn.book.mark(signal.symbol) is None:
        return Denial(DenialCode.MARK_UNKNOWN, f"no mark price of {signal.symbol} is known yet")
    view = risk_view(turn.book, signal.symbol, turn.context)
    if position is not None:  # what is there already counts against the size, not as one more position
        view = replace(view, open_positions=view.open_positions - 1)
    order = size_entry(signal, view)
    if isinstance(order, Denial):
        return order
    return first_reason(order, view) or order


def _reduction(turn: Turn, position: Position, size_usd: Decimal, price: Decimal) -> Decimal:
    instrument = turn.context.instruments.get(position.symbol)
    if instrument is None or price <= 0:
        return ZERO
    quantity = min(position.size, round_down(size_usd / price, instrument.lot_step))
    left = position.size - quantity
    if left < instrument.min_quantity or left * price < instrument.min_notional:
        return position.size  # dust could never be sold
    return quantity if quantity >= instrument.min_quantity else ZERO


# -- answers -----------------------------------------------------------------------------------------------------------


def refuse(
    turn: Turn,
    cause: Cause,
    symbol: str,
    side: Side,
    reason: str,
    *,
    code: DenialCode = DenialCode.SYMBOL_BUSY,
    causation_id: str = "",
) -> None:
    """Say that nothing is done, and why."""
    payload = facts.refused_signal(symbol, side, reason, arrival_price=turn.book.mark(symbol), code=code)
    turn.publish("execution.result", payload, trace_id=cause.trace_id, causation_id=causation_id or cause.event_id)


def _deny(turn: Turn, cause: Cause, asked: Ordered, denial: Denial) -> None:
    """Risk said no: tell it to people, then to whoever waits for the result."""
    alert = turn.alert(
        "TRADE_BLOCKED",
        f"{asked.side.value} {asked.symbol} ({asked.source}): {denial.text}",
        severity="MEDIUM",
        symbols=(asked.symbol,),
        action="BLOCK_TRADES",
        trace_id=cause.trace_id,
        causation_id=cause.event_id,
        metadata={"code": denial.code.value},
    )
    refuse(turn, cause, asked.symbol, asked.side, denial.text, code=denial.code, causation_id=alert)
