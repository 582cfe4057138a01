"""What a symbol needs right now, derived from its position and orders: protection, an exit, or tidying up.

The same rules run after every report, on every candle, on a timer, and at the start: recovery is nothing special.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from services.exec_risk_service.domain.fill_rules import announce
from services.exec_risk_service.domain.intents import exit_intent, protective_intent
from services.exec_risk_service.domain.orders import Leg, Order, Provenance
from services.exec_risk_service.domain.positions import ExitPlan, ExitReason, Origin, Position
from services.exec_risk_service.domain.step import CancelOrder, SubmitOrder, Turn
from shared.trading.orders import OrderStatus, OrderType

_CLOSING = (OrderStatus.TRIGGERED, OrderStatus.PARTIALLY_FILLED)
_LONGEST_RETRY = timedelta(seconds=30)


def upkeep(
    turn: Turn,
    symbol: str,
    *,
    at: datetime,
    urgent: bool = False,
    distrusted: Collection[str] = (),
) -> None:
    """Queue what ``symbol`` needs.

    Args:
        turn: The turn at work.
        symbol: Venue symbol.
        at: Market time, for new intents.
        urgent: Also protect a position whose entry filled just now, and try again what failed.
        distrusted: Orders not to count on: their answer is missing for too long.
    """
    position = turn.positions.get(symbol)
    _cancel_leftovers(turn, symbol, position)
    if position is None:
        return
    if position.exit is not None:
        _pursue_exit(turn, position, position.exit, _Need(at=at, urgent=urgent, distrusted=distrusted))
        return
    _cancel_superseded(turn, position)
    if not urgent and _waits_for_the_rest(turn, position):
        return
    if not position.is_announced:
        announce(turn, position)
    need = _Need(at=at, urgent=urgent, distrusted=distrusted)
    _protect(turn, turn.positions[symbol], Leg.STOP, need)
    if turn.positions[symbol].exit is None:
        _protect(turn, turn.positions[symbol], Leg.TAKE_PROFIT, need)


def _cancel_superseded(turn: Turn, position: Position) -> None:
    """Of several that rest only the newest stays: an entry that fills bit by bit must not leave a stop behind each."""
    for leg in (Leg.STOP, Leg.TAKE_PROFIT):
        resting = [o for o in protective_orders(turn, position, leg) if o.status is OrderStatus.NEW]
        for order in resting[:-1]:
            if not resting[-1].cancel_requested:
                _cancel(turn, order)


def _waits_for_the_rest(turn: Turn, position: Position) -> bool:
    """Tell whether the stop leaves the entry a moment to fill on: a market order's trades come in one burst."""
    entry = turn.book.entry_under_way(position.symbol)
    if entry is None:
        return False
    if entry.order_type is not OrderType.MARKET and not position.stops_placed:
        return False  # an order that rests fills when others want it to: what is there is protected at once
    return position.cover.present(turn.context.now) < turn.context.rules.stop_follow_pause


@dataclass(frozen=True, slots=True)
class _Need:
    at: datetime
    urgent: bool
    distrusted: Collection[str]


def want_exit(turn: Turn, position: Position, plan: ExitPlan) -> None:
    """Decide to close ``position``; the first decision stands."""
    if position.exit is None:
        turn.save_position(replace(position, exit=plan))


def own_exit(position: Position, reason: ExitReason) -> ExitPlan:
    """Return an exit that no event from outside asked for."""
    return ExitPlan(reason=reason, cause_event_id=position.cause_event_id, result_trace_id=position.trace_id)


# -- exits -------------------------------------------------------------------------------------------------------------


def _pursue_exit(turn: Turn, position: Position, plan: ExitPlan, need: _Need) -> None:
    exits = [o for o in turn.orders.values() if o.leg is Leg.EXIT and o.position_id == position.position_id]
    if any(not o.is_final and o.client_order_id not in need.distrusted for o in exits):
        return
    if plan.refused and not (need.urgent and _may_retry(turn, position, exits)):
        return
    if not position.is_announced:
        position = announce(turn, position)
    plan = replace(plan, refused=False)
    position = replace(position, exit=plan, exits_placed=position.exits_placed + 1)
    turn.save_position(position)
    provenance = Provenance(position.trace_id, turn.next_event_id(), plan.result_trace_id, plan.result_causation_id)
    order = exit_intent(
        position,
        sequence=position.exits_placed,
        arrival_price=turn.book.price_of(position),
        provenance=provenance,
        step=turn.number,
        at=need.at,
    )
    instrument = turn.context.instruments.get(position.symbol)
    if instrument is not None and 0 < instrument.max_market_quantity < order.quantity:
        order = replace(order, quantity=instrument.max_market_quantity)  # what is left follows when this has filled
    _place(turn, order, position)


def _may_retry(turn: Turn, position: Position, exits: list[Order]) -> bool:
    sent = [order.sent_at for order in exits if order.sent_at is not None]
    if not sent:
        return True
    pause = min(turn.context.rules.exit_retry * (1 << min(position.exits_placed - 1, 10)), _LONGEST_RETRY)
    return turn.context.now - max(sent) >= pause


# -- protection --------------------------------------------------------------------------------------------------------


def _protect(turn: Turn, position: Position, leg: Leg, need: _Need) -> None:
    """Keep exactly one resting order of ``leg`` that fits the position; the new one comes before the old one goes."""
    price = position.stop_price if leg is Leg.STOP else position.target_price
    orders = protective_orders(turn, position, leg)
    live = [order for order in orders if not order.status.is_terminal]
    if price is None or any(order.status in _CLOSING for order in live):
        return
    fitting = [o for o in live if _fits(o, position, price) and o.client_order_id not in need.distrusted]
    if not fitting:
        failures = failures_in_a_row(orders)
        if failures >= turn.context.rules.max_stop_tries:
            if leg is Leg.STOP:
                _give_up_protection(turn, position, failures, need)
        elif need.urgent or not failures:
            _place_protective(turn, position, leg, price, need)
        return
    resting = [order for order in fitting if order.status is OrderStatus.NEW]
    for order in live:
        if resting and order is not resting[-1]:
            _cancel(turn, order)


def protective_orders(turn: Turn, position: Position, leg: Leg) -> list[Order]:
    """Return the orders of ``leg`` that were made for ``position``, oldest first."""
    return [o for o in turn.orders.values() if o.leg is leg and o.position_id == position.position_id]


def failures_in_a_row(orders: list[Order]) -> int:
    """Return how many of the newest orders ended without our doing.

    After one the next try waits for a timer or a candle, so that it cannot spin.
    """
    count = 0
    for order in reversed(orders):
        if not order.status.is_terminal or order.cancel_requested or order.status is OrderStatus.FILLED:
            break
        count += 1
    return count


def _fits(order: Order, position: Position, price: Decimal) -> bool:
    return order.quantity == position.size and order.trigger_price == price and not order.cancel_requested


def _place_protective(turn: Turn, position: Position, leg: Leg, price: Decimal, need: _Need) -> None:
    is_stop = leg is Leg.STOP
    sequence = (position.stops_placed if is_stop else position.targets_placed) + 1
    counted = replace(position, stops_placed=sequence) if is_stop else replace(position, targets_placed=sequence)
    turn.save_position(counted)
    provenance = Provenance(position.trace_id, turn.next_event_id(), result_trace_id=position.trace_id)
    order = protective_intent(
        counted, leg, sequence=sequence, trigger_price=price, provenance=provenance, step=turn.number, at=need.at
    )
    _place(turn, order, counted)


def _give_up_protection(turn: Turn, position: Position, failures: int, need: _Need) -> None:
    close_instead_of_stop(turn, position, f"{failures} stop orders did not stay")
    upkeep(turn, position.symbol, at=need.at)


def close_instead_of_stop(turn: Turn, position: Position, why: str) -> None:
    """A position of ours that cannot have a stop is closed; a stranger's is left to the stranger, with an alert."""
    ours = position.origin is Origin.SIGNAL
    what = "it is closed at market" if ours else "it is a stranger's and stays without a stop"
    turn.alert(
        "STOP_NOT_PLACED",
        f"the position in {position.symbol} has no stop ({why}): {what}",
        severity="CRITICAL",
        symbols=(position.symbol,),
        action="CLOSE_POSITIONS" if ours else None,
        trace_id=position.trace_id,
        causation_id=position.opened_event_id or position.opening_event_id,
    )
    if ours:
        want_exit(turn, position, own_exit(position, ExitReason.STOP_LOSS))
    else:
        turn.save_position(replace(position, stop_price=None))


def _place(turn: Turn, order: Order, position: Position) -> None:
    turn.publish_order(order, causation_id=position.opened_event_id)
    turn.request(SubmitOrder(order.client_order_id, is_exit=True))


# -- tidying up --------------------------------------------------------------------------------------------------------


def _cancel_leftovers(turn: Turn, symbol: str, position: Position | None) -> None:
    """Cancel resting orders of positions that are gone: left alone they would close the next one."""
    for order in turn.book.open_orders(symbol):
        if order.is_reduce_only and (position is None or order.position_id != position.position_id):
            _cancel(turn, order)


def _cancel(turn: Turn, order: Order) -> None:
    # What was not answered yet is looked at again when the answer is there.
    if order.order_type.is_algo and order.status is OrderStatus.NEW and not order.cancel_requested:
        turn.publish_order(replace(order, cancel_requested=True))
        turn.request(CancelOrder(order.client_order_id))
