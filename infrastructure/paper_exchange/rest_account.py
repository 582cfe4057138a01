"""REST handlers for the account: balances, positions, leverage, trades, incomes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from infrastructure.paper_exchange.contracts import MAKER_FEE, TAKER_FEE
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.payloads import (
    Json,
    account_json,
    balance_json,
    brackets_json,
    income_json,
    position_json,
    position_v2_json,
    trade_json,
)
from infrastructure.paper_exchange.records import IncomeType, PositionRecord
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.user_events import plain


class _MarginType(StrEnum):
    CROSSED = "CROSSED"
    ISOLATED = "ISOLATED"


def account(exchange: LiveExchange, _parameters: Parameters) -> Json:
    return account_json(exchange.engine.account())


def balance(exchange: LiveExchange, _parameters: Parameters) -> list[Json]:
    return [balance_json(exchange.engine.account())]


def positions_v2(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Every symbol, flat or not."""
    engine = exchange.engine
    return [
        position_v2_json(position, engine.contract(position.symbol)) for position in _positions(exchange, parameters)
    ]


def positions_v3(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """Only symbols with a position or an open order."""
    ordered = {order.symbol for order in exchange.engine.open_orders()}
    return [
        position_json(position)
        for position in _positions(exchange, parameters)
        if position.quantity or position.symbol in ordered
    ]


def _positions(exchange: LiveExchange, parameters: Parameters) -> list[PositionRecord]:
    symbol = parameters.optional("symbol")
    return [exchange.engine.position(each) for each in ((symbol,) if symbol else exchange.engine.symbols)]


def set_leverage(exchange: LiveExchange, parameters: Parameters) -> Json:
    symbol, leverage = parameters.text("symbol"), parameters.integer("leverage")
    exchange.engine.set_leverage(symbol, leverage)
    most = exchange.engine.contract(symbol).max_notional(leverage)
    return {"symbol": symbol, "leverage": leverage, "maxNotionalValue": plain(most)}


def set_margin_type(exchange: LiveExchange, parameters: Parameters) -> Json:
    """Only cross margin exists here, so there is never anything to change."""
    exchange.engine.contract(parameters.text("symbol"))
    if parameters.choice("marginType", _MarginType, -1130) is _MarginType.CROSSED:
        raise refusal(-4046)
    raise refusal(-4084)


def position_mode(exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {"dualSidePosition": exchange.engine.is_hedged}


def set_position_mode(_exchange: LiveExchange, parameters: Parameters) -> Json:
    """Only one-way mode exists here, so there is never anything to change."""
    parameters.text("dualSidePosition")
    raise refusal(-4084 if parameters.flag("dualSidePosition") else -4059)


def multi_assets_mode(_exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {"multiAssetsMargin": False}


def leverage_brackets(exchange: LiveExchange, parameters: Parameters) -> Json | list[Json]:
    symbol = parameters.optional("symbol")
    if symbol:
        return brackets_json(exchange.engine.contract(symbol))
    return [brackets_json(exchange.engine.contract(each)) for each in exchange.engine.symbols]


def commission_rate(exchange: LiveExchange, parameters: Parameters) -> Json:
    symbol = exchange.engine.contract(parameters.text("symbol")).symbol
    return {"symbol": symbol, "makerCommissionRate": plain(MAKER_FEE), "takerCommissionRate": plain(TAKER_FEE)}


def symbol_config(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    return [
        {
            "symbol": position.symbol,
            "marginType": "CROSSED",
            "isAutoAddMargin": False,
            "leverage": position.leverage,
            "maxNotionalValue": plain(exchange.engine.contract(position.symbol).max_notional(position.leverage)),
        }
        for position in _positions(exchange, parameters)
    ]


def user_trades(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    """The newest trades, or those from ``fromId`` or ``startTime`` on."""
    order_id = parameters.optional_integer("orderId")
    first_id = parameters.optional_integer("fromId")
    start, end = parameters.moment("startTime"), parameters.moment("endTime")
    chosen = [
        record
        for record in exchange.engine.fills(parameters.text("symbol"))
        if order_id in (None, record.order_id)
        and (first_id is None or record.fill.trade_id >= first_id)
        and _is_between(record.fill.time, start, end)
    ]
    limit = parameters.limit(500, 1000)
    from_the_start = first_id is not None or start is not None
    return [trade_json(record) for record in (chosen[:limit] if from_the_start else chosen[-limit:])]


def incomes(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    symbol = parameters.optional("symbol")
    kind = parameters.choice("incomeType", IncomeType, -1130) if parameters.optional("incomeType") else None
    start, end = parameters.moment("startTime"), parameters.moment("endTime")
    chosen = [
        record
        for record in exchange.engine.incomes()
        if symbol in (None, record.symbol) and kind in (None, record.type) and _is_between(record.time, start, end)
    ]
    limit = parameters.limit(100, 1000)
    return [income_json(record) for record in (chosen[:limit] if start else chosen[-limit:])]


def _is_between(moment: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or moment >= start) and (end is None or moment <= end)
