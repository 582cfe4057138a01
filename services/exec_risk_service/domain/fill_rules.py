"""Booking a trade: wallet, order, position, and the events that tell of it. Each trade counts once."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from services.exec_risk_service.domain import facts
from services.exec_risk_service.domain.book import Mark, TradeMemory
from services.exec_risk_service.domain.cover import first_seen
from services.exec_risk_service.domain.execution_rules import child_ended, child_filled
from services.exec_risk_service.domain.exit_rules import plan_exits, retarget_after_growth
from services.exec_risk_service.domain.inputs import SendRefused
from services.exec_risk_service.domain.orders import EntryPlan, Leg, Order
from services.exec_risk_service.domain.positions import ExitReason, Origin, Position
from services.exec_risk_service.domain.protection import Cover, ExitBasis, Protection
from services.exec_risk_service.domain.step import Turn
from shared.ids import derive_id
from shared.trading.orders import ORDER_STATES, OrderStatus
from shared.trading.positions import Fill, NetPosition, PositionChange, apply_fill

#: Client ids that the exchange itself uses when it closes a position by force.
_FORCED = ("autoclose-", "adl_autoclose", "settlement_autoclose-")
_DELEVERAGED = "adl_autoclose"
_LEG_REASONS = {Leg.STOP: ExitReason.STOP_LOSS, Leg.TAKE_PROFIT: ExitReason.TAKE_PROFIT}


def is_booked(turn: Turn, fill: Fill) -> bool:
    """Tell whether this trade was booked before."""
    return fill.trade_id in turn.trades.get(fill.symbol, TradeMemory()).recent


def book_fill(turn: Turn, fill: Fill, order: Order | None) -> tuple[str, str]:
    """Book one new trade; ``order`` is ours that it belongs to, None for a stranger's.

    Returns:
        Event id and trace id of the ``order.updated`` that carries the trade: cause of what follows from it.
    """
    turn.note_fill(fill)
    turn.cash = turn.cash.after_fill(fill.realized_pnl, fill.commission)
    turn.marks.setdefault(fill.symbol, Mark(fill.price, fill.time, turn.context.now))
    first_of_order = order is None or child_filled(turn, order, fill.quantity, fill.price, fill.commission)
    if order is not None:
        order = _with_fill(order, fill)
    trace = _trace_of(turn, fill, order)
    opened, closed = _apply_to_position(turn, fill, order, trace, first_of_order=first_of_order)
    cause = _publish_trade(turn, fill, order, trace)
    if order is not None:
        _alert_disbelief(turn, order, cause)
        settle(turn, order, cause)
    if closed is not None and closed.net.is_flat:
        _publish_closed(turn, closed, cause if closed.trace_id == trace else None)
    if order is None and closed is not None and fill.client_order_id.startswith(_FORCED):
        _alert_forced(turn, closed, fill, cause)
    if opened is not None and opened.origin is Origin.EXTERNAL:
        _alert_stranger(turn, opened, cause)
    return cause, trace


def _with_fill(order: Order, fill: Fill) -> Order:
    filled = order.filled_quantity + fill.quantity
    reached = _status_with(order, filled)
    return replace(
        order,
        status=reached if ORDER_STATES.allows(order.status, reached) else order.status,
        pending_status=None if reached.is_terminal else order.pending_status,
        exchange_order_id=order.exchange_order_id or fill.exchange_order_id,
        filled_quantity=filled,
        filled_value=order.filled_value + fill.quantity * fill.price,
        commission=order.commission + fill.commission,
        reported_filled=max(order.reported_filled, filled),
    )


def _status_with(order: Order, filled: Decimal) -> OrderStatus:
    if filled >= order.quantity:
        return OrderStatus.FILLED
    if order.pending_status is not None and filled >= order.reported_filled:
        return order.pending_status
    return OrderStatus.PARTIALLY_FILLED


# -- positions ---------------------------------------------------------------------------------------------------------


def _trace_of(turn: Turn, fill: Fill, order: Order | None) -> str:
    """Return the trace that the trade belongs to: of our order, else of the position it meets, else one of its own."""
    if order is not None:
        return order.provenance.trace_id
    met = turn.positions.get(fill.symbol)
    return met.trace_id if met is not None else derive_id("trace", *_stranger(turn, fill))


def _apply_to_position(
    turn: Turn, fill: Fill, order: Order | None, trace: str, *, first_of_order: bool
) -> tuple[Position | None, Position | None]:
    """Return (position that the fill opened, position that it reduced); a flip gives both."""
    current = turn.positions.get(fill.symbol)
    change = apply_fill(current.net if current else NetPosition(fill.symbol), fill)
    opening_fee = fill.commission * change.opened_quantity / fill.quantity
    reduced = None
    if current is not None and change.closed_quantity > 0:
        reduced = current.reduced(change, fill, fill.commission - opening_fee)
        if reduced.net.is_flat:
            reduced = replace(reduced, closed_at=fill.time, closed_by=_close_reason(turn, reduced, fill, order))
        turn.save_position(reduced)
    if change.opened_quantity == 0:
        return None, reduced
    if current is not None and reduced is None:
        turn.save_position(retarget_after_growth(turn, current.increased(change, fill, opening_fee)))
        return None, None
    opened = _new_position(turn, fill, order, change, trace, first_of_order=first_of_order)
    opened = opened.increased(change, fill, opening_fee)
    turn.save_position(opened)
    return opened, reduced


def _new_position(
    turn: Turn, fill: Fill, order: Order | None, change: PositionChange, trace: str, *, first_of_order: bool
) -> Position:
    is_long = change.after.quantity > 0
    if order is None or order.leg is not Leg.ENTRY:
        return _strangers_position(turn, fill, trace, is_long=is_long)
    # What fills after its position was closed already is a position of its own.
    position_id = order.position_id
    if not first_of_order:
        position_id = derive_id("position", turn.account, order.client_order_id, str(fill.trade_id))
    return Position(
        position_id=position_id,
        symbol=fill.symbol,
        origin=Origin.SIGNAL,
        trace_id=trace,
        cause_event_id=order.cause_event_id if first_of_order else position_id,
        is_long=is_long,
        net=NetPosition(fill.symbol),
        leverage=order.leverage,
        opened_at=fill.time,
        opening_event_id=turn.next_event_id(),
        plan=order.plan,
        protection=Protection(Cover(since=first_seen(order, turn.context.now))),
    )


def _strangers_position(turn: Turn, fill: Fill, trace: str, *, is_long: bool) -> Position:
    name = _stranger(turn, fill)
    return Position(
        position_id=derive_id("position", *name),
        symbol=fill.symbol,
        origin=Origin.EXTERNAL,
        trace_id=trace,
        cause_event_id=derive_id("cause", *name),
        is_long=is_long,
        net=NetPosition(fill.symbol),
        leverage=max(1, int(turn.context.rules.default_leverage)),
        opened_at=fill.time,
        opening_event_id=turn.next_event_id(),
        plan=EntryPlan(stop_loss_pct=turn.context.rules.default_stop_loss_pct, take_profit_pct=None),
        protection=Protection(Cover(since=turn.context.now)),
    )


def _stranger(turn: Turn, fill: Fill) -> tuple[str, ...]:
    return turn.account, "external", fill.symbol, str(fill.trade_id)


def _close_reason(turn: Turn, position: Position, fill: Fill, order: Order | None) -> ExitReason:
    if order is None:
        return ExitReason.LIQUIDATION if fill.client_order_id.startswith(_FORCED) else ExitReason.MANUAL
    if order.leg is Leg.EXIT and position.exit is not None:
        return position.exit.reason
    execution = turn.executions.get(order.execution_id)
    if execution is not None and execution.exit_reason:
        return ExitReason(execution.exit_reason)
    if order.leg is Leg.STOP and position.protection.stop_basis is ExitBasis.TRAILING:
        return ExitReason.TRAILING_STOP
    return _LEG_REASONS.get(order.leg, ExitReason.MANUAL)


# -- events ------------------------------------------------------------------------------------------------------------


def _publish_trade(turn: Turn, fill: Fill, order: Order | None, trace: str) -> str:
    """Return the event id of the ``order.updated`` that carries the trade."""
    if order is not None:
        return turn.publish_order(order, fill=fill)
    forced = fill.client_order_id.startswith(_FORCED)
    kind = "ADL" if fill.client_order_id.startswith(_DELEVERAGED) else "LIQUIDATION"
    payload = facts.stranger_order_updated(fill, kind if forced else "EXTERNAL")
    return turn.publish("order.updated", payload, trace_id=trace, causation_id=None)


def settle(turn: Turn, order: Order, cause: str, refusal: SendRefused | None = None) -> None:
    """Give the last word on an order that is final, once: ``execution.result``, or to the execution it belongs to."""
    if order.settled or not order.is_final:
        return
    order = replace(order, settled=True)
    turn.save_order(order)
    if order.execution_id:
        child_ended(turn, order, cause, refusal)
        return
    if order.leg is not Leg.ENTRY and order.filled_quantity == 0:
        return  # a stop that was cancelled, an exit that is tried again: nothing was executed
    turn.publish(
        "execution.result",
        facts.execution_result(order, turn.context),
        trace_id=order.provenance.result_trace_id,
        causation_id=order.provenance.result_causation_id or cause,
    )
    position = turn.positions.get(order.symbol)
    if position is not None and position.exit is not None and order.leg is Leg.EXIT:
        # The signal behind the exit has its answer; a second exit order answers only for itself.
        answered = replace(position.exit, result_trace_id=position.trace_id, result_causation_id="")
        turn.save_position(replace(position, exit=answered))


def _publish_closed(turn: Turn, position: Position, cause: str | None) -> None:
    """Tell the end of a position; when a trade of another trace closed it, its own opening is the cause."""
    if not position.is_announced:
        position = announce(turn, position)
    turn.note_closed(position)
    turn.publish(
        "position.closed",
        facts.position_closed(position),
        trace_id=position.trace_id,
        causation_id=cause or position.opened_event_id,
    )
    _answer_overtaken_exit(turn, position)


def _answer_overtaken_exit(turn: Turn, position: Position) -> None:
    """Answer the signal whose exit came too late: something else closed the position first."""
    plan = position.exit
    if plan is None or not plan.result_causation_id or _exit_answered(turn, position):
        return
    assert position.closed_by is not None
    turn.publish(
        "execution.result",
        facts.refused_signal(
            position.symbol,
            position.close_side,
            f"the position was closed by {position.closed_by.value} first",
            arrival_price=None,
        ),
        trace_id=plan.result_trace_id,
        causation_id=plan.result_causation_id,
    )


def _exit_answered(turn: Turn, position: Position) -> bool:
    return any(
        order.leg is Leg.EXIT and order.position_id == position.position_id and order.filled_quantity > 0
        for order in turn.orders.values()
    )


def announce(turn: Turn, position: Position) -> Position:
    """Publish ``position.opened`` with the triggers of stop and target; return the position."""
    position = plan_exits(turn, position)
    event_id = turn.publish(
        "position.opened",
        facts.position_opened(position, turn.context.now),
        trace_id=position.trace_id,
        causation_id=position.opening_event_id,
    )
    position = replace(position, opened_event_id=event_id)
    turn.save_position(position)
    return position


def _alert_disbelief(turn: Turn, order: Order, cause: str) -> None:
    if order.status in (OrderStatus.ABSENT, OrderStatus.REJECTED):
        turn.alert(
            "FILL_AFTER_REFUSAL",
            f"{order.symbol} {order.client_order_id}: filled although it counted as {order.status.value}",
            severity="CRITICAL",
            symbols=(order.symbol,),
            trace_id=order.provenance.trace_id,
            causation_id=cause,
        )


def _alert_forced(turn: Turn, position: Position, fill: Fill, cause: str) -> None:
    """The exchange closed by force: told when nothing is left, or when a part was what it wanted."""
    is_part = fill.client_order_id.startswith(_DELEVERAGED)
    if not position.net.is_flat and not is_part:
        return
    what = "reduced by auto-deleveraging" if is_part else "liquidated"
    turn.alert(
        "FORCED_CLOSE",
        f"{position.symbol}: our position was {what} by the exchange, last {fill.quantity} at {fill.price}"
        f" ({fill.client_order_id})",
        severity="CRITICAL",
        symbols=(position.symbol,),
        trace_id=position.trace_id,
        causation_id=cause,
    )


def _alert_stranger(turn: Turn, position: Position, cause: str) -> None:
    turn.alert(
        "EXTERNAL_POSITION",
        f"{position.symbol}: a position of {position.net.quantity} that no signal asked for was adopted",
        severity="HIGH",
        symbols=(position.symbol,),
        trace_id=position.trace_id,
        causation_id=cause,
    )
