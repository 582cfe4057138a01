"""What the exchange says about orders and money, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from services.exec_risk_service.domain.book import Mark, TradeMemory
from services.exec_risk_service.domain.cover import alert_when_exposed, covers
from services.exec_risk_service.domain.execution_rules import stop_reason
from services.exec_risk_service.domain.fill_rules import book_fill, is_booked, settle
from services.exec_risk_service.domain.inputs import (
    AnswerLost,
    CancelRefused,
    FillsConfirmed,
    PositionObserved,
    ProvenAbsent,
    SendRefused,
    SendStarted,
    UpkeepDue,
    WalletObserved,
)
from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.domain.positions import ExitReason, Position
from services.exec_risk_service.domain.reports import CashKind, CashReport, FillReport, OrderReport
from services.exec_risk_service.domain.step import Reconcile, Turn
from services.exec_risk_service.domain.upkeep import (
    close_instead_of_stop,
    failures_in_a_row,
    own_exit,
    protective_orders,
    upkeep,
    want_exit,
)
from shared.trading.money import ZERO
from shared.trading.orders import ORDER_STATES, OrderStatus, Side
from shared.trading.positions import Fill, NetPosition, apply_fill

#: "Order would immediately trigger": the price is past the trigger already.
_WOULD_TRIGGER = -2021
#: "ReduceOnly Order is rejected": the exchange's position is not what we believe.
_WOULD_NOT_REDUCE = -2022
#: Stops and targets refused for reasons of the moment are tried this often before the refusal counts.
_PROTECTIVE_RETRIES = 3


# -- reports -----------------------------------------------------------------------------------------------------------


def on_order_report(turn: Turn, report: OrderReport) -> None:
    """Apply an answer, a query result or a line of the user stream; what is known already changes nothing."""
    order = turn.book.find_order(report.client_order_id, report.exchange_order_id, report.symbol)
    fill = report.fill if report.fill is not None and not is_booked(turn, report.fill) else None
    if order is None:
        if fill is not None:
            _after_fill(turn, fill, None)
        return
    known = _merged(order, report)
    if fill is not None:
        turn.orders[known.client_order_id] = known
        _after_fill(turn, fill, known)
    elif known.status is not order.status:
        _after_change(turn, known, at=report.time)
    elif known != order:
        turn.publish_order(known)


def on_fill_report(turn: Turn, report: FillReport) -> None:
    """Apply a trade from the list of trades."""
    fill = report.fill
    if not is_booked(turn, fill):
        order = turn.book.find_order(fill.client_order_id, fill.exchange_order_id, fill.symbol)
        _after_fill(turn, fill, order)


def _merged(order: Order, report: OrderReport) -> Order:
    """Return ``order`` with what ``report`` adds; a state never goes back, and none runs ahead of its fills."""
    reported = max(order.reported_filled, report.filled_quantity)
    known = replace(
        order,
        reason=report.reason or order.reason,
        exchange_order_id=report.exchange_order_id or order.exchange_order_id,
        algo_id=report.algo_id or order.algo_id,
        reported_filled=reported,
    )
    if not ORDER_STATES.allows(order.status, report.status):
        return known
    if reported <= order.filled_quantity:
        return replace(known, status=report.status, pending_status=None)
    if report.status.is_terminal:
        known = replace(known, pending_status=report.status)
    accepted = ORDER_STATES.allows(order.status, OrderStatus.NEW)
    return replace(known, status=OrderStatus.NEW) if accepted else known


def _after_fill(turn: Turn, fill: Fill, order: Order | None) -> None:
    cause, trace = book_fill(turn, fill, order)
    if order is not None:
        _react_to_end(turn, turn.orders[order.client_order_id], code=None)
    upkeep(turn, fill.symbol, at=fill.time)
    turn.mark_equity(fill.time)
    turn.publish_account(trace_id=trace, causation_id=cause)


def _after_change(turn: Turn, order: Order, *, at: datetime, refusal: SendRefused | None = None) -> None:
    cause = turn.publish_order(order)
    settle(turn, order, cause, refusal)
    _react_to_end(turn, turn.orders[order.client_order_id], code=None if refusal is None else refusal.code)
    upkeep(turn, order.symbol, at=at)


# -- requests and their answers ----------------------------------------------------------------------------------------


def on_send_started(turn: Turn, item: SendStarted) -> None:
    """Mark the order as sent, or drop it when it is not wanted any more; only a marked order may be sent."""
    order = turn.orders.get(item.client_order_id)
    if order is None or order.status is not OrderStatus.INITIALIZED:
        return
    if _is_wanted(turn, order):
        turn.publish_order(replace(order, status=OrderStatus.SUBMITTED, sent_at=turn.context.now))
        return
    reason = (turn.trading.denial if order.leg is Leg.ENTRY else None) or "not needed any more"
    dropped = replace(order, status=OrderStatus.ABSENT, reason=reason, cancel_requested=True)
    settle(turn, dropped, turn.publish_order(dropped))


def _is_wanted(turn: Turn, order: Order) -> bool:
    if order.execution_id:
        execution = turn.executions.get(order.execution_id)
        return execution is not None and stop_reason(turn, execution) is None
    if order.leg is Leg.ENTRY:
        return turn.trading.denial is None
    position = turn.positions.get(order.symbol)
    if position is None or position.position_id != order.position_id or order.cancel_requested:
        return False
    return order.leg is Leg.EXIT or position.exit is None


def on_send_refused(turn: Turn, item: SendRefused) -> None:
    """The exchange said no: nothing of the order exists."""
    order = turn.orders.get(item.client_order_id)
    if order is None or not ORDER_STATES.allows(order.status, OrderStatus.REJECTED) or order.reported_filled > 0:
        return
    refused = replace(order, status=OrderStatus.REJECTED, reason=item.reason)
    if item.is_retryable and order.leg.is_protective and _may_be_tried_again(turn, refused):
        settle(turn, refused, turn.publish_order(refused))  # the timer tries again within a second
        return
    _after_change(turn, refused, at=order.created_at, refusal=item)


def _may_be_tried_again(turn: Turn, refused: Order) -> bool:
    position = turn.positions.get(refused.symbol)
    if position is None or position.position_id != refused.position_id:
        return False
    earlier = [o for o in protective_orders(turn, position, refused.leg) if o.sequence < refused.sequence]
    return failures_in_a_row(earlier) < _PROTECTIVE_RETRIES


def on_answer_lost(turn: Turn, item: AnswerLost) -> None:
    """No one knows whether the order exists: keep its exposure reserved and look it up."""
    order = turn.orders.get(item.client_order_id)
    if order is None or not ORDER_STATES.allows(order.status, OrderStatus.UNKNOWN):
        return
    cause = turn.publish_order(replace(order, status=OrderStatus.UNKNOWN, reason=item.reason))
    turn.alert(
        "ORDER_OUTCOME_UNKNOWN",
        f"{order.symbol} {order.leg.value} {order.client_order_id}: {item.reason}; it is being looked up",
        severity="MEDIUM",
        symbols=(order.symbol,),
        trace_id=order.provenance.trace_id,
        causation_id=cause,
    )


def on_proven_absent(turn: Turn, item: ProvenAbsent) -> None:
    """The order never reached the exchange: its exposure is free again."""
    order = turn.orders.get(item.client_order_id)
    if order is None or not ORDER_STATES.allows(order.status, OrderStatus.ABSENT):
        return
    _after_change(turn, replace(order, status=OrderStatus.ABSENT, reason=item.reason), at=order.created_at)


def on_cancel_refused(turn: Turn, item: CancelRefused) -> None:
    """A cancel did not work: the next upkeep asks again if the order still rests."""
    order = turn.orders.get(item.client_order_id)
    if order is not None and order.cancel_requested and not order.status.is_terminal:
        turn.publish_order(replace(order, cancel_requested=False))


def on_upkeep_due(turn: Turn, item: UpkeepDue) -> None:
    """A timer: protect what is naked, try again what failed."""
    upkeep(turn, item.symbol, at=item.time, urgent=True, distrusted=item.distrusted)
    position = turn.positions.get(item.symbol)
    if position is not None:
        alert_when_exposed(turn, position)


# -- reactions to orders that failed -----------------------------------------------------------------------------------


def _react_to_end(turn: Turn, order: Order, *, code: int | None) -> None:
    """An order that closes positions ended without executing: see to it that the position is not left alone."""
    position = turn.positions.get(order.symbol)
    if not order.is_final or position is None or position.position_id != order.position_id:
        return
    if order.leg is Leg.EXIT and position.exit is not None:
        if order.filled_quantity == 0:
            turn.save_position(replace(position, exit=replace(position.exit, refused=True)))
        if code == _WOULD_NOT_REDUCE:
            turn.request(Reconcile(order.symbol))
    elif order.leg is Leg.STOP and order.status is OrderStatus.REJECTED:
        _on_stop_refused(turn, order, position, code)
    elif order.leg is Leg.STOP and order.status is OrderStatus.EXPIRED and order.exchange_order_id:
        # It fired, and the market order behind it closed nothing or not all: the price is past the stop.
        close_instead_of_stop(turn, position, "it fired, but the order behind it expired")
    elif order.status is OrderStatus.REJECTED and order.leg is Leg.TAKE_PROFIT:
        _do_without_target(turn, order, position, code)


def _on_stop_refused(turn: Turn, order: Order, position: Position, code: int | None) -> None:
    """Close the position, unless the refused stop was to replace one that still rests and covers all of it."""
    resting = [o for o in protective_orders(turn, position, Leg.STOP) if covers((o,), position)]
    if not resting or code == _WOULD_TRIGGER or order.exchange_order_id:
        close_instead_of_stop(turn, position, f"refused: {order.reason}")
        return
    turn.alert(
        "STOP_NOT_MOVED",
        f"{order.symbol}: the stop could not be moved to {order.trigger_price} ({order.reason}); the one at"
        f" {resting[-1].trigger_price} stays",
        severity="MEDIUM",
        symbols=(order.symbol,),
        trace_id=position.trace_id,
        causation_id=order.provenance.first_event_id,
    )
    turn.save_position(replace(position, stop_price=resting[-1].trigger_price))


def _do_without_target(turn: Turn, order: Order, position: Position, code: int | None) -> None:
    if code == _WOULD_TRIGGER:  # the target is reached already
        want_exit(turn, position, own_exit(position, ExitReason.TAKE_PROFIT))
        return
    turn.alert(
        "TARGET_NOT_PLACED",
        f"{order.symbol}: the take-profit was refused ({order.reason}); the stop stays",
        severity="LOW",
        symbols=(order.symbol,),
        trace_id=position.trace_id,
        causation_id=order.provenance.first_event_id,
    )
    turn.save_position(replace(position, target_price=None))


# -- money and positions as the exchange sees them ---------------------------------------------------------------------


def on_cash_report(turn: Turn, report: CashReport) -> None:
    """Book funding or a transfer, once; what came before the first balance is part of that."""
    if not turn.cash.is_new_payment(report.key, report.time):
        return
    turn.cash = turn.cash.noted(report.key, report.time)
    if report.kind is CashKind.FUNDING:
        turn.cash = turn.cash.after_funding(report.amount)
        _add_funding(turn, report)
    else:
        turn.cash = turn.cash.adjusted(report.amount)
    turn.mark_equity(report.time)
    position = turn.positions.get(report.symbol)
    trace, cause = (position.trace_id, position.opened_event_id or None) if position else (turn.own_trace(), None)
    turn.publish_account(trace_id=trace, causation_id=cause)


def _add_funding(turn: Turn, report: CashReport) -> None:
    position = turn.positions.get(report.symbol)
    if position is not None:
        turn.save_position(replace(position, funding=position.funding + report.amount))


def on_wallet_observed(turn: Turn, item: WalletObserved) -> None:
    """Take over the exchange's balance; a difference is told once and booked as such."""
    if turn.cash.wallet is None:
        turn.cash = turn.cash.opened(item.wallet, item.time)
        turn.mark_equity(item.time)
        turn.publish_account(trace_id=turn.own_trace(), causation_id=None)
        return
    difference = item.wallet - turn.cash.wallet
    if difference == 0:
        return
    cause = turn.alert(
        "WALLET_MISMATCH",
        f"the exchange's wallet balance {item.wallet} differs by {difference} USDT from ours; the exchange's counts",
        severity="HIGH",
    )
    turn.cash = turn.cash.adjusted(difference)
    turn.publish_account(trace_id=turn.own_trace(), causation_id=cause)


def on_position_observed(turn: Turn, item: PositionObserved) -> None:
    """Take over the exchange's position; the difference is booked as a trade of our own making, negative id."""
    current = turn.positions.get(item.symbol)
    net = current.net if current else NetPosition(item.symbol)
    difference = item.quantity - net.quantity
    if difference == 0:
        return
    turn.alert(
        "POSITION_MISMATCH",
        f"{item.symbol}: the exchange holds {item.quantity}, we {net.quantity}; the exchange's counts",
        severity="CRITICAL",
        symbols=(item.symbol,),
    )
    turn.marks.setdefault(item.symbol, Mark(item.mark_price, item.time, turn.context.now))
    grows = abs(item.quantity) > abs(net.quantity) and item.quantity != 0
    fill = Fill(
        symbol=item.symbol,
        trade_id=-turn.number,
        client_order_id="",
        exchange_order_id="",
        side=Side.BUY if difference > 0 else Side.SELL,
        price=item.entry_price if grows and item.entry_price > 0 else item.mark_price,
        quantity=abs(difference),
        commission=ZERO,
        realized_pnl=ZERO,
        time=item.time,
    )
    fill = replace(fill, realized_pnl=apply_fill(net, fill).realized_pnl)
    _after_fill(turn, fill, None)
    _take_entry_price(turn, item)


def _take_entry_price(turn: Turn, item: PositionObserved) -> None:
    position = turn.positions.get(item.symbol)
    if position is not None and item.entry_price > 0:
        turn.save_position(replace(position, net=replace(position.net, entry_price=item.entry_price)))


def on_fills_confirmed(turn: Turn, item: FillsConfirmed) -> None:
    """Move the point from which trades are read next."""
    known = turn.trades.get(item.symbol)
    if known is None:  # the first look: what is there already is not ours
        turn.trades[item.symbol] = TradeMemory(base=item.trade_id)
    else:
        turn.trades[item.symbol] = known.read_to(item.trade_id)
