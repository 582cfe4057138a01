"""What the exchange shows of an open position between candles: its price, its margin, how near liquidation is."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from services.exec_risk_service.domain.book import Mark
from services.exec_risk_service.domain.exit_rules import follow_market, publish_update
from services.exec_risk_service.domain.inputs import PositionMarked
from services.exec_risk_service.domain.market_rules import close_when_held_too_long
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.reports import LeverageChanged, MarginCalled
from services.exec_risk_service.domain.step import Turn
from services.exec_risk_service.domain.trading_rules import change_trading_state, lift_restriction
from services.exec_risk_service.domain.trading_state import TradingCause
from services.exec_risk_service.domain.upkeep import upkeep

#: How long a margin call keeps entries back after it came; Binance repeats it while it holds.
_MARGIN_CALL_HOLDS = timedelta(seconds=60)
#: Longest time without a candle or trade that is believed.
_CLOCK_GAP = timedelta(days=7)
_WHO = "position-monitor"


def on_position_marked(turn: Turn, item: PositionMarked) -> None:
    """Take over price and terms of a position; a small move, or one right after the last, changes nothing."""
    position = turn.positions.get(item.symbol)
    if position is None or not position.is_announced:
        return
    known, at = with_terms(position, item), _market_time(turn, item)
    is_old = position.exit is None and at - position.opened_at >= turn.context.rules.max_holding
    news = _has_news(position, known, turn.context.now) or _is_worth_telling(turn, position, item)
    if not (news or is_old):
        return
    mark = turn.marks.get(item.symbol)
    # The mark keeps the time of its candle: the next one must not look old.
    turn.marks[item.symbol] = Mark(item.mark_price, at if mark is None else mark.at, turn.context.now)
    known = follow_market(turn, known.seen(item.mark_price), item.mark_price, at)
    known = replace(known, protection=replace(known.protection, told_at=turn.context.now))
    turn.save_position(known)
    publish_update(turn, known, item.mark_price, before=position)
    _tell_new_terms(turn, position, known)
    _tell_near_liquidation(turn, known, item.mark_price)
    close_when_held_too_long(turn, item.symbol, at, position.cause_event_id)
    turn.mark_equity(at)
    turn.publish_account(trace_id=position.trace_id, causation_id=position.opened_event_id)
    upkeep(turn, item.symbol, at=at)


def on_leverage_changed(turn: Turn, item: LeverageChanged) -> None:
    """Somebody set the leverage of a symbol: a position there has it at once."""
    position = turn.positions.get(item.symbol)
    if position is None or not position.is_announced or position.leverage == item.leverage:
        return
    known = replace(position, leverage=item.leverage)
    turn.save_position(known)
    publish_update(turn, known, turn.book.price_of(known), before=position)
    _tell_new_terms(turn, position, known)


def on_margin_called(turn: Turn, item: MarginCalled) -> None:
    """The exchange warns that it may liquidate: entries wait, a person is told."""
    for symbol in item.symbols:
        position = turn.positions.get(symbol)
        if position is not None:
            until = turn.context.now + _MARGIN_CALL_HOLDS
            turn.save_position(replace(position, protection=replace(position.protection, margin_called_until=until)))
    change_trading_state(
        turn,
        TradingCause.LIQUIDATION_NEAR,
        f"margin call of the exchange for {', '.join(item.symbols) or 'the account'}",
        changed_by="exchange",
        severity="CRITICAL",
        alert_type="MARGIN_CALL",
        symbols=item.symbols,
    )


def watch_liquidation(turn: Turn) -> None:
    """Let entries go on once no position is near its liquidation; run at the end of every turn."""
    if turn.trading.restriction(TradingCause.LIQUIDATION_NEAR) is None:
        return
    if not any(is_liquidation_near(position, turn.context.now) for position in turn.positions.values()):
        lift_restriction(turn, TradingCause.LIQUIDATION_NEAR, "every stop comes before liquidation", changed_by=_WHO)


def is_liquidation_near(position: Position, now: datetime) -> bool:
    """Tell whether the exchange would liquidate before the stop fires, or called for margin just now."""
    guard = position.protection
    if guard.margin_called_until is not None and now < guard.margin_called_until:
        return True
    if guard.liquidation_price is None or position.stop_price is None:
        return False
    if position.is_long:
        return guard.liquidation_price >= position.stop_price
    return guard.liquidation_price <= position.stop_price


def with_terms(position: Position, item: PositionMarked) -> Position:
    """Return ``position`` with leverage, margin type and liquidation price as the exchange has them."""
    guard = replace(
        position.protection,
        liquidation_price=item.liquidation_price,
        is_isolated=position.protection.is_isolated if item.is_isolated is None else item.is_isolated,
    )
    leverage = position.leverage if item.leverage is None else item.leverage
    return replace(position, leverage=leverage, protection=guard)


def _market_time(turn: Turn, item: PositionMarked) -> datetime:
    """Return the market time of ``item``, or of the last price when the two cannot be of one market.

    A price tells no time of its own here, so our clock says it; candles and trades carry the exchange's. When the clock
    was not told where a recorded market began, they are months apart, and age says nothing about a position.
    """
    mark = turn.marks.get(item.symbol)
    if mark is None or mark.at <= item.time <= mark.at + _CLOCK_GAP:
        return item.time
    return mark.at


def _has_news(before: Position, after: Position, now: datetime) -> bool:
    # The price of liquidation moves with every other position of a cross account: alone it is no news.
    was_isolated = before.protection.is_isolated
    return (
        before.leverage != after.leverage
        or (was_isolated is not None and was_isolated != after.protection.is_isolated)
        or is_liquidation_near(before, now) != is_liquidation_near(after, now)
    )


def _is_worth_telling(turn: Turn, position: Position, item: PositionMarked) -> bool:
    rules, told, mark = turn.context.rules, position.protection.told_at, turn.book.mark(item.symbol)
    if told is not None and turn.context.now - told < rules.mark_pause:
        return False
    return mark is None or abs(item.mark_price / mark - 1) * 100 >= rules.mark_step_pct


def _tell_new_terms(turn: Turn, before: Position, after: Position) -> None:
    changes = []
    if after.leverage != before.leverage:
        changes.append(f"leverage {before.leverage} to {after.leverage}")
    if before.protection.is_isolated is not None and after.protection.is_isolated != before.protection.is_isolated:
        changes.append(f"margin type to {'isolated' if after.protection.is_isolated else 'cross'}")
    if not changes or after.origin is Origin.EXTERNAL:
        return
    turn.alert(
        "EXTERNAL_CHANGE",
        f"{after.symbol}: somebody changed {' and '.join(changes)} of the open position; that counts now",
        severity="MEDIUM",
        symbols=(after.symbol,),
        trace_id=after.trace_id,
        causation_id=after.opened_event_id,
    )


def _tell_near_liquidation(turn: Turn, position: Position, mark: Decimal) -> None:
    price = position.protection.liquidation_price
    if price is None or not is_liquidation_near(position, turn.context.now):
        return
    distance = abs(mark / price - 1) * 100
    change_trading_state(
        turn,
        TradingCause.LIQUIDATION_NEAR,
        f"{position.symbol} would be liquidated at {price}, {distance:.2f} % from the mark price {mark}, before its"
        f" stop at {position.stop_price} fires",
        changed_by=_WHO,
        severity="CRITICAL",
        symbols=(position.symbol,),
        trace_id=position.trace_id,
        causation_id=position.opened_event_id,
    )
