"""When a conditional order may enter, and when its price is reached. Pure."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from infrastructure.paper_exchange.filters import (
    check_client_id,
    check_good_till,
    check_position_side,
    check_price,
    check_quantity,
    check_status,
    check_trigger_price,
)
from infrastructure.paper_exchange.market import Market
from infrastructure.paper_exchange.modes import PositionSide
from infrastructure.paper_exchange.records import AlgoRecord, AlgoRequest, TimeInForce, WorkingType, closes
from infrastructure.paper_exchange.refusals import refusal
from shared.trading.money import round_price
from shared.trading.orders import OrderType, Side

_STOPS = frozenset({OrderType.STOP, OrderType.STOP_MARKET, OrderType.TRAILING_STOP_MARKET})
_LIMITS = frozenset({OrderType.STOP, OrderType.TAKE_PROFIT})
_CLOSERS = frozenset({OrderType.STOP_MARKET, OrderType.TAKE_PROFIT_MARKET})
#: Bounds of a trailing stop's callback rate, percent.
_LEAST_CALLBACK, _MOST_CALLBACK = Decimal("0.1"), Decimal(10)


def check_algo(request: AlgoRequest, market: Market, *, is_hedged: bool, now: datetime) -> None:
    """Refuse what is wrong with a conditional order before it waits; margin is looked at when it triggers."""
    contract = market.contract
    check_client_id(request.client_algo_id)
    check_status(contract, only_reduces=request.reduce_only or request.close_position)
    if not request.type.is_algo:
        raise refusal(-1116)
    check_position_side(request, is_hedged=is_hedged)
    check_good_till(request.time_in_force, request.good_till, now)
    if request.close_position:
        _check_close_position(request)
    elif request.quantity is None:
        raise refusal(-1102, "quantity")
    else:
        check_quantity(request.quantity, contract, market=request.type not in _LIMITS)
    if request.type in _LIMITS:
        if request.price is None:
            raise refusal(-1102, "price")
        check_price(request.price, contract)
    elif request.price is not None:
        raise refusal(-1106, "price")
    if request.type is OrderType.TRAILING_STOP_MARKET:
        _check_trailing(request, market)
    else:
        _check_trigger(request, market)


def _check_close_position(request: AlgoRequest) -> None:
    if request.quantity is not None:
        raise refusal(-4137)
    if request.type not in _CLOSERS:
        raise refusal(-1106, "closePosition")
    if request.reduce_only:
        raise refusal(-4138)
    if request.position_side is not PositionSide.BOTH and not closes(request.position_side, request.side):
        raise refusal(-2022)


def _check_trigger(request: AlgoRequest, market: Market) -> None:
    if request.trigger_price is None:
        raise refusal(-1102, "triggerPrice")
    if request.activation_price is not None or request.callback_rate is not None:
        raise refusal(-1106, "activatePrice" if request.activation_price is not None else "callbackRate")
    check_trigger_price(request.trigger_price, market.contract)
    if is_reached(request.side, request.type, request.trigger_price, watched_price(market, request.working_type)):
        raise refusal(-2021)


def _check_trailing(request: AlgoRequest, market: Market) -> None:
    """The activation price lies where the market has not been: below it for BUY, above it for SELL."""
    if request.trigger_price is not None:
        raise refusal(-1106, "triggerPrice")
    if request.callback_rate is None:
        raise refusal(-1102, "callbackRate")
    if not _LEAST_CALLBACK <= request.callback_rate <= _MOST_CALLBACK:
        raise refusal(-1130, "callbackRate")
    if request.activation_price is None:
        return
    check_trigger_price(request.activation_price, market.contract)
    if (watched_price(market, request.working_type) - request.activation_price) * request.side.sign <= 0:
        raise refusal(-2021)


def watched_price(market: Market, working_type: WorkingType) -> Decimal:
    """Return the price that a condition looks at, USDT."""
    return market.mark if working_type is WorkingType.MARK_PRICE else market.last


def waits_for_rise(side: Side, kind: OrderType) -> bool:
    """A BUY stop and a SELL take-profit wait for a rise, the other two for a fall."""
    return (side is Side.BUY) == (kind in _STOPS)


def is_reached(side: Side, kind: OrderType, trigger_price: Decimal, price: Decimal) -> bool:
    """Tell whether ``price`` is where a condition on ``trigger_price`` comes true."""
    return price >= trigger_price if waits_for_rise(side, kind) else price <= trigger_price


def is_due(algo: AlgoRecord, price: Decimal) -> bool:
    """Tell whether the condition has come true at ``price``; a trailing stop needs to be active."""
    if algo.type is OrderType.TRAILING_STOP_MARKET and algo.extreme is None:
        return False
    return is_reached(algo.side, algo.type, algo.trigger_price, price)


def may_be_due(algo: AlgoRecord, low: Decimal, high: Decimal) -> bool:
    """Tell whether the condition can come true while the price stays within ``low`` and ``high``."""
    if algo.type is OrderType.TRAILING_STOP_MARKET:
        return True  # its trigger moves with the price
    return any(is_reached(algo.side, algo.type, algo.trigger_price, extreme) for extreme in (low, high))


def followed(algo: AlgoRecord, price: Decimal, tick_size: Decimal) -> AlgoRecord:
    """Return a trailing stop as it is after ``price`` was traded: activated, or with its trigger moved along.

    A BUY follows the lowest price since its activation and triggers ``callback_rate`` percent above it; a SELL the
    highest, below it.
    """
    if algo.type is not OrderType.TRAILING_STOP_MARKET:
        return algo
    sign = algo.side.sign
    if algo.extreme is None:
        starts = algo.activation_price is None or (price - algo.activation_price) * sign <= 0
        extreme = price if starts else None
    else:
        extreme = min(algo.extreme, price) if algo.side is Side.BUY else max(algo.extreme, price)
    if extreme == algo.extreme or extreme is None:
        return algo
    assert algo.callback_rate is not None, "checked on entry"
    trigger = round_price(extreme * (1 + sign * algo.callback_rate / 100), tick_size, up=sign > 0)
    return replace(algo, extreme=extreme, trigger_price=trigger)


def ends_with_position(algo: AlgoRecord) -> bool:
    """Tell whether the condition goes when its position goes."""
    return algo.time_in_force is TimeInForce.GTE_GTC


def is_too_far(market: Market) -> bool:
    """Tell whether last and mark price are too far apart for a protected trigger."""
    return abs(market.last - market.mark) > market.mark * market.contract.trigger_protect
