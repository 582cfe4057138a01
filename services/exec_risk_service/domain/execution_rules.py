"""How an execution goes on: asked for its next child, stopped when it must not go on, answered when it is over.

At most one child of an execution is under way at a time, so that its children can never add up to more than its target.
Whatever changes an execution also publishes an event, so that a recorded run replays it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType

from services.exec_risk_service.domain import facts
from services.exec_risk_service.domain.execution_plan import Surroundings, worked_out
from services.exec_risk_service.domain.executions import Execution, Strategy
from services.exec_risk_service.domain.inputs import ExecutionsDue, SendRefused
from services.exec_risk_service.domain.intents import child_intent
from services.exec_risk_service.domain.orders import Order, Provenance
from services.exec_risk_service.domain.price_history import PriceHistory
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.risk_checks import (
    Check,
    EntryOrder,
    account_is_known,
    entries_may_be_sent,
    events_can_be_kept,
    instrument_is_known,
    mark_is_known,
    numbers_are_finite,
    policy_is_fresh,
    price_is_plausible,
    within_daily_drawdown,
)
from services.exec_risk_service.domain.risk_engine import first_reason, risk_view
from services.exec_risk_service.domain.slippage import remembered
from services.exec_risk_service.domain.step import CancelOrder, SubmitOrder, Turn
from services.exec_risk_service.domain.strategies import limit, market, twap, vwap
from services.exec_risk_service.domain.strategies.view import (
    CancelResting,
    ChildOrder,
    GiveUp,
    Plan,
    Planner,
    RestingChild,
    Send,
    SliceView,
    Wait,
)
from shared.trading.orders import OrderStatus

#: "Post Only order will be rejected": the market moved onto the price; the next one is planned afresh.
_WOULD_TAKE = -5022
_OPEN = (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)

#: How each strategy finds its next child.
PLANNERS: Mapping[Strategy, Planner] = MappingProxyType(
    {Strategy.MARKET: market.plan, Strategy.LIMIT: limit.plan, Strategy.TWAP: twap.plan, Strategy.VWAP: vwap.plan}
)


#: What must still hold for the next child of an entry. Size, leverage, pace and confidence were decided as a whole.
GOING_ON: tuple[Check, ...] = (
    numbers_are_finite,
    policy_is_fresh,
    events_can_be_kept,
    entries_may_be_sent,
    account_is_known,
    instrument_is_known,
    mark_is_known,
    price_is_plausible,
    within_daily_drawdown,
)


def begin(turn: Turn, execution: Execution, quote: Quote | None) -> None:
    """Start ``execution``: its first child goes out in the same step, or it is refused at once."""
    instrument = turn.context.instruments.get(execution.symbol)
    if instrument is not None:
        history = turn.history.get(execution.symbol) or PriceHistory()
        around = Surroundings(instrument, quote, history, turn.slippage.get(execution.symbol))
        execution = worked_out(execution, around)
    turn.save_execution(execution)
    if execution.is_entry:
        turn.note_entry()
    planned = _plan(turn, execution, quote, execution.started_at)
    match planned:
        case Send():
            _send(turn, execution, planned.child, execution.started_at)
        case GiveUp() | Wait():
            finish(turn, execution, planned.reason, execution.source_event_id)
        case CancelResting():
            raise AssertionError("a new execution has nothing to take back")


def on_executions_due(turn: Turn, item: ExecutionsDue) -> None:
    """A timer: send what is due, move what rests, end what is over."""
    quotes = {quote.symbol: quote for quote in item.quotes}
    for execution in list(turn.executions.values()):
        _go_on(turn, execution, quotes.get(execution.symbol), item.time)


def stop_executions(turn: Turn) -> None:
    """At the end of every turn: what must not go on ends now, not at the next timer."""
    for execution in list(turn.executions.values()):
        reason = stop_reason(turn, execution)
        child = child_under_way(turn.orders, execution)
        if reason is None:
            continue
        if child is None:
            finish(turn, execution, reason, execution.source_event_id)
        elif _is_open(child):
            _take_back(turn, child)


def needs_attention(execution: Execution, child: Order | None, at: datetime, now: datetime) -> bool:
    """Tell whether a timer has something to decide.

    Args:
        execution: A working execution.
        child: Its child that is not final, if any.
        at: Market time.
        now: Wall time.
    """
    if child is not None:
        return _is_open(child)
    if at >= execution.expires_at:
        return True
    if execution.retry_at is not None and now < execution.retry_at:
        return False
    due = sum(part.quantity for part in execution.schedule if part.due <= at)
    return not execution.schedule or due > execution.filled_quantity


def child_under_way(orders: Mapping[str, Order], execution: Execution) -> Order | None:
    """Return the child that is not final; there is at most one."""
    order = orders.get(execution.last_order_id)
    return None if order is None or order.is_final else order


# -- going on ----------------------------------------------------------------------------------------------------------


def _go_on(turn: Turn, execution: Execution, quote: Quote | None, at: datetime) -> None:
    child = child_under_way(turn.orders, execution)
    reason = stop_reason(turn, execution, at)
    if child is not None:
        if _is_open(child) and (reason is not None or _should_move(turn, execution, child, quote, at)):
            _take_back(turn, child)
    elif reason is not None:
        finish(turn, execution, reason, execution.source_event_id)
    elif execution.retry_at is None or turn.context.now >= execution.retry_at:
        _do(turn, execution, _plan(turn, execution, quote, at), quote, at)


def stop_reason(turn: Turn, execution: Execution, at: datetime | None = None) -> str | None:
    """Return why nothing more of ``execution`` may be sent (at market time ``at``), or None while it may go on."""
    if at is not None and at >= execution.expires_at:
        return f"it expired at {execution.expires_at.isoformat()}"
    if execution.is_entry and turn.trading.denial is not None:
        return turn.trading.denial
    position = turn.positions.get(execution.symbol)
    if position is None or position.position_id != execution.position_id:
        begun = execution.increases or not execution.is_entry or execution.filled_quantity > 0
        return "its position is closed" if begun else None
    if position.exit is not None:
        return f"its position is being closed ({position.exit.reason.value})"
    return None


def _should_move(turn: Turn, execution: Execution, child: Order, quote: Quote | None, at: datetime) -> bool:
    assert child.price is not None, "an order without a limit does not rest"
    resting = RestingChild(child.price, child.created_at)
    return isinstance(_plan(turn, execution, quote, at, resting), CancelResting)


def _do(turn: Turn, execution: Execution, planned: Plan, quote: Quote | None, at: datetime) -> None:
    match planned:
        case Send():
            denied = _denial(turn, execution, planned.child, quote)
            if denied is None:
                _send(turn, execution, planned.child, at)
            else:
                finish(turn, execution, denied, execution.source_event_id)
        case GiveUp():
            finish(turn, execution, planned.reason, execution.source_event_id)
        case Wait() | CancelResting():
            return


def _plan(
    turn: Turn, execution: Execution, quote: Quote | None, at: datetime, resting: RestingChild | None = None
) -> Plan:
    instrument = turn.context.instruments.get(execution.symbol)
    if instrument is None:
        return GiveUp(f"{execution.symbol} is not listed on the exchange any more")
    last = turn.orders.get(execution.last_order_id)
    view = SliceView(
        side=execution.side,
        instrument=instrument,
        target=execution.quantity,
        filled=execution.filled_quantity,
        guard_price=execution.guard_price(instrument),
        arrival_price=execution.arrival_price,
        started_at=execution.started_at,
        ends_at=execution.expires_at,
        now=at,
        quote=quote,
        urgency=execution.urgency,
        schedule=execution.schedule,
        resting=resting,
        chases=execution.chases,
        missed=execution.missed,
        children=execution.children,
        last_sent=None if last is None else last.created_at,
        is_reduce_only=not execution.is_entry,
    )
    return PLANNERS[execution.strategy](view)


def _denial(turn: Turn, execution: Execution, child: ChildOrder, quote: Quote | None) -> str | None:
    """Check what may have changed since an entry was allowed as a whole."""
    if not execution.is_entry:
        return None
    price = execution.arrival_price if quote is None else quote.mid
    book = turn.book
    others = {name: one for name, one in book.executions.items() if name != execution.execution_id}
    without = replace(book, executions=MappingProxyType(others))
    view = risk_view(without, execution.symbol, turn.context)
    order = EntryOrder(
        symbol=execution.symbol,
        side=execution.side,
        size_usd=child.quantity * price,
        quantity=child.quantity,
        price=price,
        leverage=Decimal(execution.leverage),
        stop_loss_pct=turn.context.rules.default_stop_loss_pct
        if execution.plan is None
        else execution.plan.stop_loss_pct,
        confidence=_confidence(execution),
    )
    denial = first_reason(order, view, GOING_ON)
    return None if denial is None else denial.text


def _confidence(execution: Execution) -> Decimal:
    known = None if execution.plan is None else execution.plan.confidence
    return Decimal(1) if known is None else Decimal(str(known))


def _send(turn: Turn, execution: Execution, child: ChildOrder, at: datetime) -> None:
    provenance = Provenance(execution.trace_id, turn.next_event_id(), result_trace_id=execution.trace_id)
    order = child_intent(execution, child, provenance=provenance, step=turn.number, at=at)
    turn.save_execution(execution.with_child(order))
    turn.publish_order(order, causation_id=execution.source_event_id)
    turn.request(SubmitOrder(order.client_order_id, is_exit=not execution.is_entry))


def _is_open(child: Order) -> bool:
    return child.rests and child.status in _OPEN and not child.cancel_requested


def _take_back(turn: Turn, child: Order) -> None:
    turn.publish_order(replace(child, cancel_requested=True))
    turn.request(CancelOrder(child.client_order_id))


# -- children ----------------------------------------------------------------------------------------------------------


def child_filled(turn: Turn, order: Order, quantity: Decimal, price: Decimal, commission: Decimal) -> bool:
    """Add a trade of a child; tell whether it is the first one of its execution, or of an order without one."""
    execution = turn.executions.get(order.execution_id)
    if execution is None:
        return order.filled_quantity == 0 and not order.execution_id
    first = execution.filled_quantity == 0 and not execution.increases
    turn.save_execution(execution.with_fill(quantity, price, commission))
    return first


def child_ended(turn: Turn, order: Order, cause: str, refusal: SendRefused | None = None) -> None:
    """Note that a child reached its last state; end the execution when nothing can follow."""
    execution = turn.executions.get(order.execution_id)
    if execution is None:
        return
    is_short = order.status is not OrderStatus.FILLED
    execution = replace(
        execution,
        missed=is_short and not order.rests,
        last_exchange_id=order.exchange_order_id or execution.last_exchange_id,
    )
    if refusal is not None and refusal.code != _WOULD_TAKE:
        _after_refusal(turn, execution, refusal, cause)
        return
    execution = replace(execution, attempts=0, chases=execution.chases + (1 if is_short and order.rests else 0))
    turn.save_execution(execution)
    if execution.remaining == 0:
        finish(turn, execution, "", cause)
        return
    reason = stop_reason(turn, execution)
    if reason is None:
        planned = _plan(turn, execution, None, order.created_at)
        reason = planned.reason if isinstance(planned, GiveUp) else None
    if reason is not None:
        finish(turn, execution, order.reason or reason, cause)


def _after_refusal(turn: Turn, execution: Execution, refusal: SendRefused, cause: str) -> None:
    """A refusal for reasons of the moment is tried again, a few times and ever later; any other is final."""
    rules = turn.context.rules
    attempts = execution.attempts + 1
    if not refusal.is_retryable or attempts >= rules.retry_attempts:
        finish(turn, execution, refusal.reason, cause)
        return
    pause = rules.retry_delay * (1 << (attempts - 1))
    again = replace(execution, attempts=attempts, retry_at=turn.context.now + pause, missed=False)
    turn.save_execution(again)


# -- the end -----------------------------------------------------------------------------------------------------------


def finish(turn: Turn, execution: Execution, reason: str, cause: str) -> None:
    """Give the one answer to whoever asked for ``execution``."""
    ended = replace(execution, done=True, reason=reason)
    turn.save_execution(ended)
    last = turn.orders.get(ended.last_order_id)
    _remember_slippage(turn, ended, last)
    payload = facts.execution_ended(ended, last, turn.context)
    turn.publish("execution.result", payload, trace_id=ended.trace_id, causation_id=cause)


def _remember_slippage(turn: Turn, execution: Execution, last: Order | None) -> None:
    """Note what the execution cost more, or less, than the book had promised at its start."""
    measured, expected = execution.slippage_pct, execution.expected_pct
    if measured is not None and expected is not None and last is not None:
        known = turn.slippage.get(execution.symbol)
        turn.save_slippage(remembered(known, execution.symbol, measured - expected, last.created_at))
