"""REST handlers for orders: regular and conditional."""

from __future__ import annotations

from enum import StrEnum

from infrastructure.paper_exchange.filters import check_order_fields
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.modes import PositionSide, SelfTradePrevention
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.payloads import Json, algo_cancel_json, algo_json, amendment_json, order_json
from infrastructure.paper_exchange.records import (
    AlgoRequest,
    OrderChange,
    OrderRequest,
    TimeInForce,
    WorkingType,
)
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.retention import LONGEST, is_kept
from shared.trading.orders import OrderType, Side

_ALL_CANCELLED = {"code": 200, "msg": "The operation of cancel all open order is done."}


class _AlgoType(StrEnum):
    CONDITIONAL = "CONDITIONAL"


def create_order(exchange: LiveExchange, parameters: Parameters) -> Json:
    return order_json(exchange.engine.place_order(_order_request(exchange, parameters)))


def test_order(exchange: LiveExchange, parameters: Parameters) -> Json:
    """Check an order and place nothing; what the books decide (margin, duplicates) is not checked."""
    request = _order_request(exchange, parameters)
    check_order_fields(request, exchange.engine.contract(request.symbol))
    return {}


def _order_request(exchange: LiveExchange, parameters: Parameters) -> OrderRequest:
    _check_unsupported(parameters)
    order_type = parameters.choice("type", OrderType, -1116)
    if order_type.is_algo:
        raise refusal(-4120)
    if order_type is OrderType.LIMIT:
        parameters.text("timeInForce")
    elif parameters.optional("timeInForce") is not None:
        raise refusal(-1106, "timeInForce")
    return OrderRequest(
        symbol=parameters.text("symbol"),
        side=parameters.choice("side", Side, -1117),
        type=order_type,
        quantity=parameters.decimal("quantity"),
        price=parameters.optional_decimal("price"),
        time_in_force=parameters.choice("timeInForce", TimeInForce, -1115, TimeInForce.GTC),
        client_order_id=parameters.optional("newClientOrderId") or "",
        reduce_only=parameters.flag("reduceOnly"),
        position_side=_position_side(parameters),
        good_till=parameters.moment("goodTillDate"),
        self_trade_prevention=_self_trade_prevention(parameters),
    )


def _position_side(parameters: Parameters) -> PositionSide:
    return parameters.choice("positionSide", PositionSide, -4060, PositionSide.BOTH)


def _self_trade_prevention(parameters: Parameters) -> SelfTradePrevention:
    kinds = SelfTradePrevention
    return parameters.choice("selfTradePreventionMode", kinds, -5039, kinds.EXPIRE_MAKER)


def edit_order(exchange: LiveExchange, parameters: Parameters) -> Json:
    """Give a resting limit order a new price and quantity; both are mandatory, as on Binance."""
    symbol, order_id, client_id = _order_names(parameters)
    change = OrderChange(
        symbol=symbol,
        quantity=parameters.decimal("quantity"),
        price=parameters.decimal("price"),
        side=parameters.choice("side", Side, -1117),
        order_id=order_id,
        client_order_id=client_id,
    )
    return order_json(exchange.engine.amend_order(change))


def amendments(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """How an order was changed, newest first."""
    symbol, order_id, client_id = _order_names(parameters)
    found = exchange.engine.amendments(symbol, order_id=order_id, client_order_id=client_id)
    span = parameters.span(exchange.engine.now, LONGEST)
    rows = [amendment_json(each) for each in reversed(found) if span.holds(each.time)]
    return rows[: parameters.limit(50, 100)]


def _check_unsupported(parameters: Parameters) -> None:
    """Refuse what asks for an answer or a price that this exchange does not give."""
    if parameters.optional("newOrderRespType") not in (None, "ACK", "RESULT"):
        raise refusal(-1136)
    if parameters.optional("priceMatch") not in (None, "NONE"):
        raise refusal(-5037)


def get_order(exchange: LiveExchange, parameters: Parameters) -> Json:
    symbol, order_id, client_id = _order_names(parameters)
    order = exchange.engine.order(symbol, order_id=order_id, client_order_id=client_id)
    if not is_kept(order, exchange.engine.now) or exchange.hides(order.client_order_id):
        raise refusal(-2013)
    return order_json(order)


def get_open_order(exchange: LiveExchange, parameters: Parameters) -> Json:
    """One order while it is open; -2013 once it has ended."""
    found = get_order(exchange, parameters)
    if found["status"] not in ("NEW", "PARTIALLY_FILLED"):
        raise refusal(-2013)
    return found


def cancel_order(exchange: LiveExchange, parameters: Parameters) -> Json:
    symbol, order_id, client_id = _order_names(parameters)
    if any(
        exchange.hides(order.client_order_id)
        for order in exchange.engine.open_orders(symbol)
        if order.order_id == order_id or (order_id is None and order.client_order_id == client_id)
    ):
        raise refusal(-2011)
    return order_json(exchange.engine.cancel_order(symbol, order_id=order_id, client_order_id=client_id))


def open_orders(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    orders = exchange.engine.open_orders(parameters.optional("symbol"))
    return [order_json(order) for order in orders if not exchange.hides(order.client_order_id)]


def cancel_all_orders(exchange: LiveExchange, parameters: Parameters) -> Json:
    exchange.engine.cancel_open_orders(parameters.text("symbol"))
    return dict(_ALL_CANCELLED)


def count_down(exchange: LiveExchange, parameters: Parameters) -> Json:
    """Dead-man's switch: cancels regular orders only, so that stops survive the client."""
    symbol = exchange.engine.contract(parameters.text("symbol")).symbol
    left = parameters.integer("countdownTime")
    if left < 0:
        raise refusal(-1130, "countdownTime")
    exchange.count_down(symbol, left)
    return {"symbol": symbol, "countdownTime": str(left)}


def create_algo(exchange: LiveExchange, parameters: Parameters) -> Json:
    parameters.choice("algoType", _AlgoType, -1116)
    _check_unsupported(parameters)
    request = AlgoRequest(
        symbol=parameters.text("symbol"),
        side=parameters.choice("side", Side, -1117),
        type=parameters.choice("type", OrderType, -1116),
        trigger_price=parameters.optional_decimal("triggerPrice"),
        quantity=parameters.optional_decimal("quantity"),
        client_algo_id=parameters.optional("clientAlgoId") or "",
        reduce_only=parameters.flag("reduceOnly"),
        close_position=parameters.flag("closePosition"),
        working_type=parameters.choice("workingType", WorkingType, -4031, WorkingType.CONTRACT_PRICE),
        position_side=_position_side(parameters),
        price=parameters.optional_decimal("price"),
        time_in_force=parameters.choice("timeInForce", TimeInForce, -1115, TimeInForce.GTC),
        good_till=parameters.moment("goodTillDate"),
        activation_price=parameters.optional_decimal("activatePrice"),
        callback_rate=parameters.optional_decimal("callbackRate"),
        price_protect=parameters.flag("priceProtect"),
        self_trade_prevention=_self_trade_prevention(parameters),
    )
    return algo_json(exchange.engine.place_algo(request))


def get_algo(exchange: LiveExchange, parameters: Parameters) -> Json:
    algo_id, client_id = _algo_names(parameters)
    algo = exchange.engine.algo(algo_id=algo_id, client_algo_id=client_id)
    if exchange.hides(algo.client_algo_id):
        raise refusal(-2013)
    return algo_json(algo)


def cancel_algo(exchange: LiveExchange, parameters: Parameters) -> Json:
    algo_id, client_id = _algo_names(parameters)
    if any(
        exchange.hides(algo.client_algo_id)
        for algo in exchange.engine.open_algos()
        if algo.algo_id == algo_id or (algo_id is None and algo.client_algo_id == client_id)
    ):
        raise refusal(-2011)
    return algo_cancel_json(exchange.engine.cancel_algo(algo_id=algo_id, client_algo_id=client_id))


def open_algos(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    algos = exchange.engine.open_algos(parameters.optional("symbol"))
    return [algo_json(algo) for algo in algos if not exchange.hides(algo.client_algo_id)]


def cancel_all_algos(exchange: LiveExchange, parameters: Parameters) -> Json:
    exchange.engine.cancel_open_algos(parameters.text("symbol"))
    return dict(_ALL_CANCELLED)


def create_listen_key(exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {"listenKey": exchange.listen_keys.create(exchange.clock.now())}


def renew_listen_key(exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {"listenKey": exchange.listen_keys.renew(exchange.clock.now())}


def delete_listen_key(exchange: LiveExchange, _parameters: Parameters) -> Json:
    exchange.listen_keys.delete()
    return {}


def _order_names(parameters: Parameters) -> tuple[str, int | None, str | None]:
    order_id, client_id = parameters.optional_integer("orderId"), parameters.optional("origClientOrderId")
    if order_id is None and client_id is None:
        raise refusal(-1102, "orderId")
    return parameters.text("symbol"), order_id, client_id


def _algo_names(parameters: Parameters) -> tuple[int | None, str | None]:
    algo_id, client_id = parameters.optional_integer("algoId"), parameters.optional("clientAlgoId")
    if algo_id is None and client_id is None:
        raise refusal(-1102, "algoId")
    return algo_id, client_id
