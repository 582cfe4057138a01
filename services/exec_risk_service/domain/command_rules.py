"""Trades that somebody asks for without a signal: the same checks, the same one answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from services.exec_risk_service.domain import facts
from services.exec_risk_service.domain.denials import Denial, DenialCode
from services.exec_risk_service.domain.execution_rules import begin
from services.exec_risk_service.domain.execution_start import Terms, increasing, opening, reducing, terms_of
from services.exec_risk_service.domain.executions import Urgency
from services.exec_risk_service.domain.inputs import (
    Action,
    Adjustment,
    Amplification,
    AmplificationRequested,
    Cause,
    ExecutionRequested,
    Ordered,
    RebalanceRequested,
    Signal,
)
from services.exec_risk_service.domain.orders import EntryPlan
from services.exec_risk_service.domain.positions import ExitPlan, ExitReason, Origin, Position
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.risk_checks import EntryOrder, RiskView
from services.exec_risk_service.domain.risk_engine import first_reason, risk_view
from services.exec_risk_service.domain.sizing import size_cap, size_entry, stop_loss_pct, take_profit_pct
from services.exec_risk_service.domain.step import Turn
from services.exec_risk_service.domain.upkeep import upkeep, want_exit
from shared.trading.money import ZERO, round_down
from shared.trading.orders import Side

_STRANGERS = "the open position is a stranger's; close it by hand"


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


def on_amplification_requested(turn: Turn, item: AmplificationRequested) -> None:
    """Add to a winner of ours, or close a loser; what is the other one by now is left alone."""
    position = turn.positions.get(item.symbol)
    if position is None:
        refuse(turn, item.cause, item.symbol, Side.BUY, "there is no position")
        return
    price = arrival_price(turn, item.symbol, item.quote) or turn.book.price_of(position)
    is_winning = position.net.unrealized_pnl(price) > 0
    if item.action is Amplification.CUT_LOSER:
        _cut(turn, item, position, is_winning=is_winning)
    elif not is_winning:
        refuse(turn, item.cause, item.symbol, _growing_side(position), "the position is no winner: nothing is added")
    else:
        _amplify(turn, item, position, price)


def on_rebalance_requested(turn: Turn, item: RebalanceRequested) -> None:
    """Change each position as asked, the smaller ones first: what they free may carry what grows."""
    quotes = {quote.symbol: quote for quote in item.quotes}
    for adjustment in sorted(item.adjustments, key=lambda one: (one.delta_usd, one.symbol)):
        _adjust(turn, item, adjustment, quotes.get(adjustment.symbol))


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


# -- winners and losers ------------------------------------------------------------------------------------------------


def _cut(turn: Turn, item: AmplificationRequested, position: Position, *, is_winning: bool) -> None:
    reason = _cannot_shrink(position) or ("the position is no loser: it stays open" if is_winning else None)
    if position.origin is Origin.EXTERNAL:
        reason = _STRANGERS
    if reason is not None:
        refuse(turn, item.cause, item.symbol, position.close_side, reason)
        return
    cause = item.cause
    want_exit(turn, position, ExitPlan(ExitReason.SIGNAL_EXIT, cause.event_id, cause.trace_id, cause.event_id))
    upkeep(turn, item.symbol, at=item.at)


def _amplify(turn: Turn, item: AmplificationRequested, position: Position, price: Decimal) -> None:
    present = position.size * price
    wanted = present * (item.factor - 1) if item.additional_usd is None else item.additional_usd
    if item.max_total_usd is not None:
        wanted = min(wanted, item.max_total_usd - present)
    if wanted <= 0:
        reason = f"the position is worth {present:.2f} USD already: nothing is to be added"
        refuse(turn, item.cause, item.symbol, _growing_side(position), reason)
        return
    order = _addition(turn, position, wanted, source=item.action.value)
    enter(turn, item.cause, order, terms_of(turn.context.rules), at=item.at, quote=item.quote)


def _adjust(turn: Turn, item: RebalanceRequested, adjustment: Adjustment, quote: Quote | None) -> None:
    position = turn.positions.get(adjustment.symbol)
    if position is None or adjustment.delta_usd == 0:
        refuse(turn, item.cause, adjustment.symbol, Side.BUY, "there is no position to adjust")
        return
    terms = replace(terms_of(turn.context.rules), exit_reason=ExitReason.REBALANCE.value, is_one_of_many=True)
    if adjustment.delta_usd < 0:
        reduce_by(turn, item.cause, position, -adjustment.delta_usd, terms, at=item.at, quote=quote)
    else:
        order = _addition(turn, position, adjustment.delta_usd, source=adjustment.reason or "portfolio.balance")
        enter(turn, item.cause, order, terms, at=item.at, quote=quote)


def _addition(turn: Turn, position: Position, size_usd: Decimal, *, source: str) -> Ordered:
    """Return the order that adds ``size_usd`` to ``position`` with the leverage and the exits that it has."""
    rules, plan = turn.context.rules, position.plan
    return Ordered(
        symbol=position.symbol,
        side=_growing_side(position),
        size_usd=size_usd,
        leverage=Decimal(position.leverage),
        stop_loss_pct=None if plan is None else plan.stop_loss_pct,
        take_profit_pct=None if plan is None else plan.take_profit_pct,
        strategy=rules.default_strategy,
        urgency=Urgency.NORMAL,
        tolerance_pct=rules.max_slippage_pct,
        confidence=Decimal(1),  # a decision about the portfolio, not a forecast
        source=source,
        is_reduce_only=False,
        expires_at=None,
    )


def _growing_side(position: Position) -> Side:
    return position.close_side.opposite


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
        return _STRANGERS
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
        signal = replace(signal, size_usd=_with_room(turn, signal, position, view))
    order = size_entry(signal, view)
    if isinstance(order, Denial):
        return order
    return first_reason(order, view) or order


def _with_room(turn: Turn, signal: Signal, position: Position, view: RiskView) -> Decimal | None:
    """Return the size that may be added: the caps hold for the whole position, USDT."""
    if signal.size_usd is None:
        return None
    present = position.size * turn.book.price_of(position)
    room = size_cap(view, stop_loss_pct(signal, view.rules)) - present
    return min(signal.size_usd, max(ZERO, room))


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
