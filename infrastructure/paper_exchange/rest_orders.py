"""REST handlers for orders: regular and conditional."""

from __future__ import annotations

from enum import StrEnum

from infrastructure.paper_exchange.filters import check_order_fields
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.payloads import Json, algo_cancel_json, algo_json, order_json
from infrastructure.paper_exchange.records import (
    AlgoRequest,
    OrderRequest,
    TimeInForce,
    WorkingType,
)
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.retention import is_kept
from shared.trading.orders import OrderType, Side

#: Types that Binance moved to the algoOrder endpoints; sent to /order they are answered with -4120.
_CONDITIONAL = frozenset({"STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"})
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
    _check_position_side(exchange, parameters)
    _check_unsupported(parameters)
    if parameters.text("type") in _CONDITIONAL:
        raise refusal(-4120)
    order_type = parameters.choice("type", OrderType, -1116)
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
    )


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
    _check_position_side(exchange, parameters)
    request = AlgoRequest(
        symbol=parameters.text("symbol"),
        side=parameters.choice("side", Side, -1117),
        type=parameters.choice("type", OrderType, -1116),
        trigger_price=parameters.decimal("triggerPrice"),
        quantity=parameters.optional_decimal("quantity"),
        client_algo_id=parameters.optional("clientAlgoId") or "",
        reduce_only=parameters.flag("reduceOnly"),
        close_position=parameters.flag("closePosition"),
        working_type=parameters.choice("workingType", WorkingType, -1130, WorkingType.CONTRACT_PRICE),
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


def _check_position_side(exchange: LiveExchange, parameters: Parameters) -> None:
    """One-way mode: the only position side is BOTH. In hedge mode it is the only one that is refused."""
    is_one_way_order = parameters.optional("positionSide") in (None, "BOTH")
    if is_one_way_order == exchange.engine.is_hedged:
        raise refusal(-4061)


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
