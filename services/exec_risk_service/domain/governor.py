"""The Safety Governor: looks at the account after every input, and ends or narrows trading by a literal table.

It asks nobody. A signal that passed every check is still not sent when the state changed since
(``venue_rules.on_send_started`` asks ``TradingStatus.denial``), and what it decides is stored in the same step as
what made it decide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.risk_checks import max_daily_drawdown
from services.exec_risk_service.domain.risk_engine import risk_view
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.step import Turn
from services.exec_risk_service.domain.trading_rules import (
    Severity,
    change_trading_state,
    lift_restriction,
    order_stop,
)
from services.exec_risk_service.domain.trading_state import Ends, TradingCause, TradingState
from shared.ids import derive_id
from shared.trading.orders import OrderStatus

_NAME = "governor"
#: Alerts with another name than their cause.
_ALERT_TYPES = {TradingCause.DAILY_DRAWDOWN: "DRAWDOWN_LIMIT"}


class Reaction(StrEnum):
    """What a trigger does."""

    REDUCE = "REDUCE"
    HALT = "HALT"
    STOP = "STOP"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One row of the governor's table.

    Attributes:
        cause: Names it.
        threshold: Setting that it is measured against, a field of ``Rules``.
        reaction: What follows.
        severity: Of the alert.
        look: Returns what is wrong, with the numbers; None while nothing is.
        is_over: Tells whether what was wrong has gone; only asked for causes that end with themselves.
        applies: Tells whether the installation wants this row.
    """

    cause: TradingCause
    threshold: str
    reaction: Reaction
    severity: Severity
    look: Callable[[Turn], str | None]
    is_over: Callable[[Turn], bool] = lambda _turn: False
    applies: Callable[[Rules], bool] = lambda _rules: True


def watch(turn: Turn) -> None:
    """Count what this input brought, and react to whatever went past its threshold. The gravest row comes first."""
    if not turn.context.rules.governor.is_enabled:
        return
    _count_losses(turn)
    _count_rejections(turn)
    _end_what_is_over(turn)
    for trigger in TRIGGERS:
        if trigger.applies(turn.context.rules):
            reason = trigger.look(turn)
            if reason is not None:
                _react(turn, trigger, reason)


def _react(turn: Turn, trigger: Trigger, reason: str) -> None:
    if trigger.reaction is Reaction.STOP:
        stop_id = derive_id("stop", turn.account, str(turn.number))
        order_stop(turn, stop_id, reason, cause=trigger.cause, requested_by=_NAME)
        return
    change_trading_state(
        turn,
        trigger.cause,
        reason,
        changed_by=_NAME,
        to=TradingState.HALTED if trigger.reaction is Reaction.HALT else TradingState.REDUCING,
        severity=trigger.severity,
        alert_type=_ALERT_TYPES.get(trigger.cause),
        is_told=trigger.cause is TradingCause.POSITION_MISMATCH,
    )


def _end_what_is_over(turn: Turn) -> None:
    today = turn.cash.day
    for restriction in turn.trading.restrictions:
        if restriction.ends is Ends.NEXT_MARKET_DAY:
            if today is not None and (restriction.day is None or today > restriction.day):
                lift_restriction(turn, restriction.cause, f"a new day, {today}, began", changed_by=_NAME)
        elif restriction.changed_by == _NAME and restriction.ends is Ends.WITH_ITS_CAUSE:
            trigger = next((one for one in TRIGGERS if one.cause is restriction.cause), None)
            if trigger is not None and trigger.is_over(turn):
                lift_restriction(turn, restriction.cause, f"over: {restriction.reason}", changed_by=_NAME)


# -- counting ----------------------------------------------------------------------------------------------------------


def _count_losses(turn: Turn) -> None:
    """A position that closed at a loss adds one, one that closed with a gain ends the row."""
    if turn.trading.stop is not None:
        return  # what the stop itself closes says nothing about the strategy
    for position in turn.changed_positions:
        if position.net.is_flat and position.origin is Origin.SIGNAL and position.closed_at is not None:
            turn.trading = replace(turn.trading, losses_in_a_row=_row_after(turn.trading.losses_in_a_row, position))


def _row_after(losses: int, position: Position) -> int:
    if position.net_pnl < 0:
        return losses + 1
    return 0 if position.net_pnl > 0 else losses


def _count_rejections(turn: Turn) -> None:
    now, rules = turn.context.now, turn.context.rules.governor
    new = sum(
        order.status is OrderStatus.REJECTED and _was(turn, order) is not OrderStatus.REJECTED
        for order in turn.changed_orders
    )
    if not new:
        return
    kept = tuple(moment for moment in turn.trading.rejections if now - moment <= rules.storm_window)
    newest = (*kept, *(now for _ in range(new)))[-rules.storm_count :]
    turn.trading = replace(turn.trading, rejections=newest)


def _was(turn: Turn, order: Order) -> OrderStatus | None:
    before = turn.before.orders.get(order.client_order_id)
    return None if before is None else before.status


# -- looks -------------------------------------------------------------------------------------------------------------


def _drawdown(turn: Turn) -> Decimal | None:
    equity = turn.book.equity()
    return None if equity is None else turn.cash.drawdown(equity)


def _past_emergency_drawdown(turn: Turn) -> str | None:
    drawdown, limit = _drawdown(turn), turn.context.rules.governor.stop_drawdown
    if drawdown is None or drawdown < limit:
        return None
    return f"{_drawdown_line(turn, drawdown)}; the emergency stop is at {limit * 100:.2f} %"


def _past_daily_drawdown(turn: Turn) -> str | None:
    drawdown, limit = _drawdown(turn), max_daily_drawdown(risk_view(turn.book, "", turn.context))
    if drawdown is None or drawdown < limit:
        return None
    return f"{_drawdown_line(turn, drawdown)}; entries stop at {limit * 100:.2f} % until the next day"


def _drawdown_line(turn: Turn, drawdown: Decimal) -> str:
    equity = turn.book.equity()
    return (
        f"daily drawdown {drawdown * 100:.2f} % (equity {equity:.2f} of a peak of {turn.cash.day_peak_equity:.2f} USDT)"
    )


def _lost_too_often(turn: Turn) -> str | None:
    losses, limit = turn.trading.losses_in_a_row, turn.context.rules.governor.stop_losses
    return f"{losses} losing positions in a row; the emergency stop is at {limit}" if losses >= limit else None


def _refused_too_often(turn: Turn) -> str | None:
    rules, now = turn.context.rules.governor, turn.context.now
    recent = sum(now - moment <= rules.storm_window for moment in turn.trading.rejections)
    if recent < rules.storm_count:
        return None
    seconds = rules.storm_window.total_seconds()
    return f"the exchange refused {recent} orders within {seconds:.0f} s; limit {rules.storm_count}"


def _refusals_have_ceased(turn: Turn) -> bool:
    rejections = turn.trading.rejections
    return not rejections or turn.context.now - rejections[-1] >= turn.context.rules.governor.storm_pause


def _unknown_orders(turn: Turn) -> int:
    return sum(order.status is OrderStatus.UNKNOWN for order in turn.orders.values())


def _too_much_is_unknown(turn: Turn) -> str | None:
    if not turn.changed_orders:
        return None
    unknown, limit = _unknown_orders(turn), turn.context.rules.governor.unknown_outcomes
    return f"the fate of {unknown} orders is unknown; limit {limit}" if unknown >= limit else None


def _all_is_known(turn: Turn) -> bool:
    return _unknown_orders(turn) == 0


def _mismatch(turn: Turn) -> tuple[Decimal, str] | None:
    """Return (fraction of equity, line) of what was booked only because the exchange's position was another."""
    booked = [fill for fill in turn.fills if fill.trade_id < 0]
    equity = turn.book.equity()
    if not booked or equity is None or turn.before.cash.wallet is None:
        return None
    value = sum((fill.quantity * fill.price for fill in booked), Decimal(0))
    part = value / equity if equity > 0 else Decimal(1)
    symbols = ", ".join(sorted({fill.symbol for fill in booked}))
    line = f"the exchange's position in {symbols} differed from ours by {value:.2f} USDT, {part * 100:.2f} % of equity"
    return part, line


def _mismatch_is_grave(turn: Turn) -> str | None:
    found, limit = _mismatch(turn), turn.context.rules.governor.mismatch_halt
    if found is None or found[0] < limit:
        return None
    return f"{found[1]}; trading halts at {limit * 100:.2f} %"


def _positions_differed(turn: Turn) -> str | None:
    found = _mismatch(turn)
    return None if found is None else found[1]


#: Every trigger that the account's own book shows; what only the outside shows (no candles, no user stream, a wrong
#: clock, a ban) comes in as ``TradingRestricted``.
TRIGGERS: tuple[Trigger, ...] = (
    Trigger(
        TradingCause.EMERGENCY_DRAWDOWN,
        "governor.stop_drawdown",
        Reaction.STOP,
        "CRITICAL",
        _past_emergency_drawdown,
    ),
    Trigger(
        TradingCause.CONSECUTIVE_LOSSES,
        "governor.stop_losses",
        Reaction.STOP,
        "CRITICAL",
        _lost_too_often,
    ),
    Trigger(
        TradingCause.DAILY_DRAWDOWN,
        "max_daily_drawdown",
        Reaction.STOP,
        "CRITICAL",
        _past_daily_drawdown,
        applies=lambda rules: rules.governor.stop_at_daily_drawdown,
    ),
    Trigger(
        TradingCause.DAILY_DRAWDOWN,
        "max_daily_drawdown",
        Reaction.REDUCE,
        "CRITICAL",
        _past_daily_drawdown,
    ),
    Trigger(
        TradingCause.POSITION_MISMATCH,
        "governor.mismatch_halt",
        Reaction.HALT,
        "CRITICAL",
        _mismatch_is_grave,
    ),
    Trigger(
        TradingCause.POSITION_MISMATCH,
        "governor.mismatch_halt",
        Reaction.REDUCE,
        "CRITICAL",
        _positions_differed,
    ),
    Trigger(
        TradingCause.REJECT_STORM,
        "governor.storm_count",
        Reaction.REDUCE,
        "HIGH",
        _refused_too_often,
        is_over=_refusals_have_ceased,
    ),
    Trigger(
        TradingCause.UNKNOWN_OUTCOMES,
        "governor.unknown_outcomes",
        Reaction.REDUCE,
        "HIGH",
        _too_much_is_unknown,
        is_over=_all_is_known,
    ),
)
