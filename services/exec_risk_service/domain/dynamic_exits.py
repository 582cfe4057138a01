"""Where stop and target of a position are, and where they move: values in, values out.

The first distances are measured on the past candles, within a band around what the signal asked for. Later moves only
ever bring the stop closer to the market and the target closer to the entry: break-even, trailing, and time. None of
them crosses the mark price, and each says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from services.exec_risk_service.domain.positions import Position
from services.exec_risk_service.domain.price_history import PriceHistory
from services.exec_risk_service.domain.protection import ExitAdvice, ExitBasis, ExitRules
from shared.trading.instruments import Instrument
from shared.trading.money import round_price

_HUNDRED = Decimal(100)
_ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class ExitView:
    """What decides about the exits of one position.

    Attributes:
        rules: How they are placed and moved.
        instrument: Filters of the symbol.
        history: Past candles; None before the first.
        max_holding: Market time after which the position is closed.
        max_loss: What one trade may lose, USDT; None when it is unknown: then no stop is widened.
        quantity: Base asset that the position will have, what its entry may still fill included.
    """

    rules: ExitRules
    instrument: Instrument
    history: PriceHistory | None
    max_holding: timedelta
    max_loss: Decimal | None
    quantity: Decimal


# -- first distances ---------------------------------------------------------------------------------------------------


def with_first_exits(position: Position, view: ExitView, reference: Decimal | None = None) -> Position:
    """Return ``position`` with stop and target at their first places, measured from ``reference`` or its entry price.

    Both are rounded towards the entry price: the stop loses no more and the target comes no later than planned.
    """
    if position.plan is None:
        return position
    base = reference or position.net.entry_price
    planned = base * position.plan.stop_loss_pct / 100
    risk, basis = _first_risk(base, planned, view)
    reward = None
    if position.plan.take_profit_pct is not None:
        reward = risk / planned * base * position.plan.take_profit_pct / 100
        reward = min(reward, max(base * view.rules.max_target_pct, base * position.plan.take_profit_pct) / 100)
    protection = replace(
        position.protection,
        risk=risk,
        reward=reward,
        stop_basis=basis,
        target_basis=basis,
        is_trailing=view.rules.is_dynamic and view.rules.is_trailing,
    )
    return _at_first_places(replace(position, protection=protection), base, view.instrument)


def with_same_distances(position: Position, instrument: Instrument) -> Position:
    """Return a position that grew: what was not moved since the entry keeps its distance from the new entry price."""
    if position.protection.risk is None:
        return position
    moved = _at_first_places(position, position.net.entry_price, instrument)
    stop = moved.stop_price if position.protection.stop_basis.is_first else position.stop_price
    has_target = position.target_price is not None  # one that was refused does not come back
    target = moved.target_price if has_target and position.protection.target_basis.is_first else position.target_price
    return replace(position, stop_price=stop, target_price=target)


def _first_risk(base: Decimal, planned: Decimal, view: ExitView) -> tuple[Decimal, ExitBasis]:
    measured = measured_distance(base, view) if view.rules.is_dynamic else None
    if measured is None:
        return planned, ExitBasis.PLAN
    wanted = max(measured / view.rules.band, min(planned, measured * view.rules.band))
    nearest, farthest = base * view.rules.min_stop_pct / 100, base * view.rules.max_stop_pct / 100
    risk = max(nearest, min(wanted, farthest))
    # The size was decided for the planned stop: a wider one has to fit into what one trade may lose.
    affordable = planned if view.max_loss is None else max(planned, view.max_loss / view.quantity)
    risk = min(risk, affordable)
    return risk, ExitBasis.PLAN if risk == planned else ExitBasis.VOLATILITY


def measured_distance(base: Decimal, view: ExitView) -> Decimal | None:
    """Return the distance of a stop that the usual moves of the market do not reach; None while history is short."""
    rules, history = view.rules, view.history
    if history is None or len(history.candles) < rules.min_candles:
        return None
    atr, volatility = history.atr(rules.atr_period), history.volatility()
    if atr is None or volatility is None:
        return None
    by_range = Decimal(repr(atr)) * rules.atr_multiple
    by_returns = base * Decimal(repr(volatility)) * Decimal(view.rules.volatility_horizon).sqrt()
    distance = max(by_range, by_returns)
    return distance if distance > 0 else None


def _at_first_places(position: Position, base: Decimal, instrument: Instrument) -> Position:
    guard = position.protection
    assert guard.risk is not None
    direction = 1 if position.is_long else -1
    stop = round_price(base - direction * guard.risk, instrument.tick_size, up=position.is_long)
    target = None
    if guard.reward is not None:
        target = round_price(base + direction * guard.reward, instrument.tick_size, up=not position.is_long)
    return replace(position, stop_price=stop, target_price=target)


# -- moves -------------------------------------------------------------------------------------------------------------


def moved_exits(position: Position, mark: Decimal, at: datetime, view: ExitView) -> Position:
    """Return ``position`` with stop and target where break-even, trailing and time want them at ``mark``."""
    guard = position.protection
    if not view.rules.is_dynamic or guard.risk is None or position.stop_price is None:
        return position
    age = _decay(position, at, view)
    moved = _with_closer_stop(position, mark, view, _stop_wishes(position, guard.risk, age, view))
    return _with_closer_target(moved, mark, view, age)


def _stop_wishes(position: Position, risk: Decimal, decay: Decimal, view: ExitView) -> list[tuple[Decimal, ExitBasis]]:
    rules, entry, direction = view.rules, position.net.entry_price, 1 if position.is_long else -1
    best = position.entry_price * (_ONE + direction * position.max_profit_pct / _HUNDRED)
    best_r = (best - entry) * direction / risk
    wishes = []
    if best_r >= rules.break_even_at_r:
        wishes.append((entry + direction * _round_trip_fees(position, rules), ExitBasis.BREAK_EVEN))
    if position.protection.is_trailing and best_r >= rules.trail_from_r:
        wishes.append((best - direction * _trail(risk, view), ExitBasis.TRAILING))
    if decay < 1:
        wishes.append((entry - direction * risk * decay, ExitBasis.TIME_DECAY))
    return wishes


def _with_closer_stop(
    position: Position, mark: Decimal, view: ExitView, wishes: list[tuple[Decimal, ExitBasis]]
) -> Position:
    """Take the wish that is closest to the market, but for the least gap; a smaller step than the least is no move."""
    assert position.stop_price is not None
    assert position.protection.risk is not None
    direction = 1 if position.is_long else -1
    limit = mark * (_ONE - direction * view.rules.min_gap_pct / _HUNDRED)
    least = max(position.protection.risk * view.rules.step_r, view.instrument.tick_size)
    stop, basis = position.stop_price, position.protection.stop_basis
    for wish, reason in wishes:
        allowed = min(wish, limit) if position.is_long else max(wish, limit)
        price = round_price(allowed, view.instrument.tick_size, up=not position.is_long)
        if price > 0 and (price - stop) * direction > 0:
            stop, basis = price, reason
    if (stop - position.stop_price) * direction < least:
        return position
    return replace(position, stop_price=stop, protection=replace(position.protection, stop_basis=basis))


def _with_closer_target(position: Position, mark: Decimal, view: ExitView, decay: Decimal) -> Position:
    guard, direction = position.protection, 1 if position.is_long else -1
    if position.target_price is None or guard.reward is None or guard.risk is None or decay >= 1:
        return position
    wish = position.net.entry_price + direction * guard.reward * decay
    limit = mark * (_ONE + direction * view.rules.min_gap_pct / _HUNDRED)
    allowed = max(wish, limit) if position.is_long else min(wish, limit)
    price = round_price(allowed, view.instrument.tick_size, up=position.is_long)
    if (position.target_price - price) * direction < max(guard.risk * view.rules.step_r, view.instrument.tick_size):
        return position
    return replace(position, target_price=price, protection=replace(guard, target_basis=ExitBasis.TIME_DECAY))


def _decay(position: Position, at: datetime, view: ExitView) -> Decimal:
    """Return what is left of the distances at this age: 1 until ``decay_from`` of the holding time is over."""
    rules = view.rules
    age = Decimal(repr((at - position.opened_at) / view.max_holding))
    if age <= rules.decay_from or rules.decay_from >= 1:
        return _ONE
    passed = min(_ONE, (age - rules.decay_from) / (_ONE - rules.decay_from))
    return _ONE - passed * (_ONE - rules.decay_to)


def _round_trip_fees(position: Position, rules: ExitRules) -> Decimal:
    """Return what entry and exit cost per unit, USDT."""
    usual = position.net.entry_price * rules.fee_pct / _HUNDRED
    return 2 * max(usual, position.commission / position.opened_quantity)


def _trail(risk: Decimal, view: ExitView) -> Decimal:
    """Return the distance of a stop that follows the best price."""
    history = view.history
    atr = None if history is None or len(history.candles) < view.rules.min_candles else history.atr()
    return Decimal(repr(atr)) * view.rules.trail_atr_multiple if atr else risk


# -- advice ------------------------------------------------------------------------------------------------------------


def advised_exits(position: Position, advice: ExitAdvice, mark: Decimal, view: ExitView) -> Position | str:
    """Return ``position`` with its exits as advised, or why the advice is refused as a whole."""
    if not view.rules.is_dynamic:
        return "dynamic exits are switched off"
    guard = position.protection
    if guard.risk is None or position.stop_price is None:
        return "the position has no stop that could be moved"
    if advice.is_trailing is not None:
        position = replace(position, protection=replace(guard, is_trailing=advice.is_trailing))
    if advice.stop_loss_pct is not None:
        moved = _advised_stop(position, advice.stop_loss_pct, mark, view)
        if isinstance(moved, str):
            return moved
        position = moved
    if advice.take_profit_pct is None:
        return position
    return _advised_target(position, advice.take_profit_pct, mark, view)


def _advised_stop(position: Position, percent: Decimal, mark: Decimal, view: ExitView) -> Position | str:
    rules, direction, entry = view.rules, 1 if position.is_long else -1, position.net.entry_price
    assert position.stop_price is not None
    if not rules.min_stop_pct <= percent <= rules.max_stop_pct:
        return f"a stop {percent} % away is outside of {rules.min_stop_pct} to {rules.max_stop_pct} %"
    risk = entry * percent / 100
    price = round_price(entry - direction * risk, view.instrument.tick_size, up=position.is_long)
    if (mark - price) * direction < mark * rules.min_gap_pct / _HUNDRED:
        return f"the stop {price} would be too close to the mark price {mark}"
    if (price - position.stop_price) * direction < 0:  # wider than it is
        if not position.protection.stop_basis.is_first:
            return f"the stop {position.stop_price} was moved closer ({position.protection.stop_basis}) and stays there"
        if view.max_loss is None or risk * view.quantity > view.max_loss:
            return f"the stop {price} would lose {risk * view.quantity:.2f} USD; {_allowed(view)}"
    guard = position.protection
    if guard.stop_basis.is_first:  # else R stays what it was, and so does the reason that keeps the stop from widening
        guard = replace(guard, risk=risk, stop_basis=ExitBasis.ADVICE)
    return replace(position, stop_price=price, protection=guard)


def _advised_target(position: Position, percent: Decimal, mark: Decimal, view: ExitView) -> Position | str:
    direction, entry = 1 if position.is_long else -1, position.net.entry_price
    if percent > view.rules.max_target_pct:
        return f"a target {percent} % away is beyond {view.rules.max_target_pct} %"
    price = round_price(entry * (1 + direction * percent / 100), view.instrument.tick_size, up=not position.is_long)
    if (price - mark) * direction < mark * view.rules.min_gap_pct / _HUNDRED:
        return f"the target {price} would be too close to the mark price {mark}"
    guard = replace(position.protection, reward=entry * percent / 100, target_basis=ExitBasis.ADVICE)
    return replace(position, target_price=price, protection=guard)


def _allowed(view: ExitView) -> str:
    if view.max_loss is None:
        return "what one trade may lose is not known"
    return f"one trade may lose {view.max_loss:.2f} USD"
