"""REST handlers for the account: balances, positions, leverage, trades, incomes."""

from __future__ import annotations

from enum import StrEnum

from infrastructure.paper_exchange.contracts import MAKER_FEE, TAKER_FEE
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.payloads import (
    Json,
    account_json,
    balance_json,
    brackets_json,
    limit_json,
    position_json,
    position_v2_json,
)
from infrastructure.paper_exchange.records import PositionRecord
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.user_events import milliseconds, plain


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


def multi_assets_mode(exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {"multiAssetsMargin": exchange.terms.multi_assets}


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


def account_config(exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {
        "feeTier": 0,
        "canTrade": True,
        "canDeposit": False,
        "canWithdraw": False,
        "dualSidePosition": exchange.engine.is_hedged,
        "multiAssetsMargin": False,
        "tradeGroupId": -1,
        "updateTime": 0,
    }


def set_multi_assets_mode(_exchange: LiveExchange, parameters: Parameters) -> Json:
    """Only single-asset mode exists here, so there is never anything to change."""
    parameters.text("multiAssetsMargin")
    raise refusal(-4084 if parameters.flag("multiAssetsMargin") else -4171)


def fee_burn(_exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {"feeBurn": False}


def adl_quantile(exchange: LiveExchange, parameters: Parameters) -> Json | list[Json]:
    rows = [
        {"symbol": position.symbol, "adlQuantile": {"LONG": 0, "SHORT": 0, "BOTH": 0}}
        for position in _positions(exchange, parameters)
    ]
    return rows[0] if parameters.optional("symbol") else rows


def trading_status(exchange: LiveExchange, _parameters: Parameters) -> Json:
    """No indicator of the trading rules is ever touched."""
    return {"indicators": {}, "updateTime": milliseconds(exchange.server_time())}


def order_limits(exchange: LiveExchange, _parameters: Parameters) -> list[Json]:
    now = exchange.clock.now()
    return [
        {**limit_json(limit), "count": exchange.weight.used(limit, now)}
        for limit in exchange.weight.limits
        if limit.kind == "ORDERS"
    ]


def api_restrictions(exchange: LiveExchange, _parameters: Parameters) -> Json:
    """A key for trading futures from one address that cannot move money, unless the admin port said otherwise."""
    return {"createTime": milliseconds(exchange.engine.account().updated_at), **exchange.terms.permissions()}
