"""REST handlers for the account: balances, positions, leverage, trades, incomes."""

from __future__ import annotations

from enum import StrEnum

from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.modes import MarginType, PositionSide
from infrastructure.paper_exchange.parameters import Parameters
from infrastructure.paper_exchange.payloads import (
    Json,
    account_json,
    balance_json,
    brackets_json,
    limit_json,
    margin_change_json,
    position_json,
    position_v2_json,
)
from infrastructure.paper_exchange.records import PositionRecord
from infrastructure.paper_exchange.refusals import refusal
from infrastructure.paper_exchange.retention import LONGEST
from infrastructure.paper_exchange.user_events import milliseconds, plain


class _Direction(StrEnum):
    ADD = "1"
    REDUCE = "2"


_DONE = {"code": 200, "msg": "success"}


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


def _positions(exchange: LiveExchange, parameters: Parameters) -> tuple[PositionRecord, ...]:
    return exchange.engine.positions(parameters.optional("symbol"))


def set_leverage(exchange: LiveExchange, parameters: Parameters) -> Json:
    symbol, leverage = parameters.text("symbol"), parameters.integer("leverage")
    exchange.engine.set_leverage(symbol, leverage)
    most = exchange.engine.contract(symbol).max_notional(leverage)
    return {"symbol": symbol, "leverage": leverage, "maxNotionalValue": plain(most)}


def set_margin_type(exchange: LiveExchange, parameters: Parameters) -> Json:
    symbol = parameters.text("symbol")
    exchange.engine.set_margin_type(symbol, parameters.choice("marginType", MarginType, -1130))
    return dict(_DONE)


def adjust_margin(exchange: LiveExchange, parameters: Parameters) -> Json:
    """Move margin between the wallet and an isolated position: type 1 adds, 2 takes."""
    amount = parameters.decimal("amount")
    direction = parameters.choice("type", _Direction, -1130)
    exchange.engine.adjust_margin(
        parameters.text("symbol"),
        amount,
        add=direction is _Direction.ADD,
        position_side=parameters.choice("positionSide", PositionSide, -4060, PositionSide.BOTH),
    )
    return {
        "amount": float(amount),
        "code": 200,
        "msg": "Successfully modify position margin.",
        "type": int(direction.value),
    }


def margin_changes(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    changes = exchange.engine.margin_changes(parameters.text("symbol"))
    span = parameters.span(exchange.engine.now, LONGEST)
    return [margin_change_json(change) for change in changes if span.holds(change.time)][-parameters.limit(500, 1000) :]


def position_mode(exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {"dualSidePosition": exchange.engine.is_hedged}


def set_position_mode(exchange: LiveExchange, parameters: Parameters) -> Json:
    parameters.text("dualSidePosition")
    exchange.engine.set_position_mode(is_hedged=parameters.flag("dualSidePosition"))
    return dict(_DONE)


def multi_assets_mode(exchange: LiveExchange, _parameters: Parameters) -> Json:
    return {"multiAssetsMargin": exchange.terms.multi_assets}


def leverage_brackets(exchange: LiveExchange, parameters: Parameters) -> Json | list[Json]:
    symbol = parameters.optional("symbol")
    if symbol:
        return brackets_json(exchange.engine.contract(symbol))
    return [brackets_json(exchange.engine.contract(each)) for each in exchange.engine.symbols]


def commission_rate(exchange: LiveExchange, parameters: Parameters) -> Json:
    contract = exchange.engine.contract(parameters.text("symbol"))
    return {
        "symbol": contract.symbol,
        "makerCommissionRate": plain(contract.maker_fee),
        "takerCommissionRate": plain(contract.taker_fee),
    }


def symbol_config(exchange: LiveExchange, parameters: Parameters) -> list[Json]:
    engine = exchange.engine
    asked = parameters.optional("symbol")
    return [
        {
            "symbol": symbol,
            "marginType": engine.margin_type(symbol).value,
            "isAutoAddMargin": False,
            "leverage": engine.leverage(symbol),
            "maxNotionalValue": plain(engine.contract(symbol).max_notional(engine.leverage(symbol))),
        }
        for symbol in ((asked,) if asked else engine.symbols)
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
    """Place of each position in the line for deleveraging."""
    quantiles: dict[str, Json] = {}
    for position in _positions(exchange, parameters):
        quantiles.setdefault(position.symbol, {})[position.position_side.value] = position.adl
    rows = [{"symbol": symbol, "adlQuantile": quantile} for symbol, quantile in quantiles.items()]
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
