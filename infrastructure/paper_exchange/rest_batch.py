"""REST handlers for several orders at once: each one succeeds or is refused on its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from infrastructure.paper_exchange import rest_orders
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.payloads import Json
from infrastructure.paper_exchange.refusals import refusal
from shared.errors import ExchangeError

_MOST_PLACED = 5
_MOST_CANCELLED = 10


def create_orders(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    return _each(exchange, _orders(parameters), rest_orders.create_order)


def edit_orders(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    return _each(exchange, _orders(parameters), rest_orders.edit_order)


def _orders(parameters: Parameters) -> list[Parameters]:
    orders = parameters.batch("batchOrders")
    if not 1 <= len(orders) <= _MOST_PLACED:
        raise refusal(-4082, len(orders))
    return orders


def cancel_orders(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Cancel by ids or by client ids; ccxt spells the names without capitals, and Binance takes both."""
    symbol = parameters.text("symbol")
    for names, key in (
        (("orderIdList", "orderidlist"), "orderId"),
        (("origClientOrderIdList", "origclientorderidlist"), "origClientOrderId"),
    ):
        text = next((text for name in names if (text := parameters.optional(name)) is not None), None)
        if text is not None:
            chosen = [Parameters({"symbol": symbol, key: str(value)}) for value in _list(text, names[0])]
            return _each(exchange, chosen, rest_orders.cancel_order)
    raise refusal(-1102, "orderIdList")


def _list(text: str, name: str) -> list[Any]:
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise refusal(-1130, name) from None
    if not isinstance(values, list) or not 1 <= len(values) <= _MOST_CANCELLED:
        raise refusal(-1130, name)
    return values


def _each(
    exchange: LiveExchange, orders: Sequence[Parameters], handle: Callable[[LiveExchange, Parameters], Json]
) -> list[Json]:
    return [_one(exchange, order, handle) for order in orders]


def _one(exchange: LiveExchange, order: Parameters, handle: Callable[[LiveExchange, Parameters], Json]) -> Json:
    try:
        return handle(exchange, order)
    except ExchangeError as error:
        return {"code": error.code, "msg": str(error)}
