"""JSON of the REST answers, in Binance's shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from infrastructure.paper_exchange.contracts import Contract
from infrastructure.paper_exchange.modes import MarginType
from infrastructure.paper_exchange.records import (
    AccountRecord,
    AlgoRecord,
    Amendment,
    FillRecord,
    IncomeRecord,
    Level,
    MarginChange,
    OrderRecord,
    PositionRecord,
    Quote,
    Trade,
)
from infrastructure.paper_exchange.request_weight import Limit
from infrastructure.paper_exchange.user_events import milliseconds, plain, short
from shared.trading.candles import Candle
from shared.trading.orders import OrderType, Side

Json = dict[str, Any]


def order_json(order: OrderRecord) -> Json:
    """Answer of POST, GET and DELETE /fapi/v1/order."""
    return {
        "orderId": order.order_id,
        "symbol": order.symbol,
        "status": order.status_word,
        "clientOrderId": order.client_order_id,
        "price": plain(order.price),
        "avgPrice": short(order.average_price),
        "origQty": plain(order.quantity),
        "executedQty": plain(order.executed),
        "cumQty": plain(order.executed),
        "cumQuote": plain(order.quote),
        "timeInForce": order.time_in_force.value,
        "type": order.type.value,
        "reduceOnly": order.reduce_only,
        "closePosition": order.close_position,
        "side": order.side.value,
        "positionSide": order.position_side.value,
        "stopPrice": plain(order.stop_price),
        "workingType": order.working_type.value,
        "priceProtect": order.price_protect,
        "origType": order.origin_type.value,
        "priceMatch": "NONE",
        "selfTradePreventionMode": order.self_trade_prevention.value,
        "goodTillDate": milliseconds(order.good_till) if order.good_till else 0,
        "time": milliseconds(order.created_at),
        "updateTime": milliseconds(order.updated_at),
    }


def amendment_json(change: Amendment) -> Json:
    """One row of /fapi/v1/orderAmendment."""
    return {
        "amendmentId": change.number,
        "symbol": change.symbol,
        "pair": change.symbol,
        "orderId": change.order_id,
        "clientOrderId": change.client_order_id,
        "time": milliseconds(change.time),
        "amendment": {
            "price": {"before": plain(change.old_price), "after": plain(change.new_price)},
            "origQty": {"before": plain(change.old_quantity), "after": plain(change.new_quantity)},
            "count": change.number,
        },
        "priceMatch": "NONE",
    }


def margin_change_json(change: MarginChange) -> Json:
    """One row of /fapi/v1/positionMargin/history."""
    return {
        "symbol": change.symbol,
        "type": 1 if change.amount > 0 else 2,
        "deltaType": "USER_ADJUST",
        "amount": plain(abs(change.amount)),
        "asset": "USDT",
        "time": milliseconds(change.time),
        "positionSide": change.position_side.value,
    }


def algo_json(algo: AlgoRecord) -> Json:
    """Answer of POST and GET /fapi/v1/algoOrder."""
    return {
        "algoId": algo.algo_id,
        "clientAlgoId": algo.client_algo_id,
        "algoType": "CONDITIONAL",
        "orderType": algo.type.value,
        "symbol": algo.symbol,
        "side": algo.side.value,
        "positionSide": algo.position_side.value,
        "timeInForce": algo.time_in_force.value,
        "quantity": plain(algo.quantity),
        "algoStatus": algo.status.value,
        "actualOrderId": str(algo.actual_order_id or ""),
        "actualPrice": short(algo.actual_price),
        "actualQty": plain(algo.actual_quantity),
        "triggerPrice": plain(algo.trigger_price),
        "price": plain(algo.price),
        "icebergQuantity": None,
        "selfTradePreventionMode": algo.self_trade_prevention.value,
        "workingType": algo.working_type.value,
        "priceMatch": "NONE",
        "closePosition": algo.close_position,
        "priceProtect": algo.price_protect,
        "reduceOnly": algo.reduce_only,
        "activatePrice": plain(algo.activation_price) if algo.activation_price is not None else "",
        "callbackRate": plain(algo.callback_rate) if algo.callback_rate is not None else "",
        "createTime": milliseconds(algo.created_at),
        "updateTime": milliseconds(algo.updated_at),
        "triggerTime": milliseconds(algo.triggered_at) if algo.triggered_at else 0,
        "goodTillDate": milliseconds(algo.good_till) if algo.good_till else 0,
        "rejectReason": algo.reject_reason,
    }


def algo_cancel_json(algo: AlgoRecord) -> Json:
    """Answer of DELETE /fapi/v1/algoOrder."""
    return {"algoId": algo.algo_id, "clientAlgoId": algo.client_algo_id, "code": "200", "msg": "success"}


def trade_json(record: FillRecord) -> Json:
    """One row of /fapi/v1/userTrades."""
    fill = record.fill
    return {
        "symbol": fill.symbol,
        "id": fill.trade_id,
        "orderId": record.order_id,
        "side": fill.side.value,
        "price": plain(fill.price),
        "qty": plain(fill.quantity),
        "quoteQty": plain(fill.price * fill.quantity),
        "realizedPnl": plain(fill.realized_pnl),
        "commission": plain(fill.commission),
        "commissionAsset": "USDT",
        "time": milliseconds(fill.time),
        "positionSide": record.position_side.value,
        "buyer": fill.side.value == "BUY",
        "maker": record.is_maker,
    }


def income_json(record: IncomeRecord) -> Json:
    """One row of /fapi/v1/income."""
    return {
        "symbol": record.symbol,
        "incomeType": record.type.value,
        "income": plain(record.amount),
        "asset": "USDT",
        "info": record.type.value,
        "time": milliseconds(record.time),
        "tranId": record.transaction_id,
        "tradeId": str(record.trade_id or ""),
    }


def position_json(position: PositionRecord) -> Json:
    """One row of /fapi/v3/positionRisk."""
    return {
        "symbol": position.symbol,
        "positionSide": position.position_side.value,
        "positionAmt": plain(position.quantity),
        "entryPrice": short(position.entry_price),
        "breakEvenPrice": short(position.break_even_price),
        "markPrice": plain(position.mark_price),
        "unRealizedProfit": plain(position.unrealized_pnl),
        "liquidationPrice": short(position.liquidation_price),
        "isolatedMargin": plain(position.isolated_margin),
        "notional": plain(round(position.notional, 8)),
        "marginAsset": "USDT",
        "isolatedWallet": plain(position.isolated_wallet),
        "initialMargin": plain(position.initial_margin + position.order_margin),
        "maintMargin": plain(position.maintenance_margin),
        "positionInitialMargin": plain(position.initial_margin),
        "openOrderInitialMargin": plain(position.order_margin),
        "adl": position.adl,
        "bidNotional": plain(position.bid_notional),
        "askNotional": plain(position.ask_notional),
        "updateTime": milliseconds(position.updated_at),
    }


def position_v2_json(position: PositionRecord, contract: Contract) -> Json:
    """One row of /fapi/v2/positionRisk, which still tells leverage and margin type."""
    return {
        **position_json(position),
        "leverage": str(position.leverage),
        "marginType": position.margin_type.word,
        "isAutoAddMargin": "false",
        "isolated": position.margin_type is MarginType.ISOLATED,
        "maxNotionalValue": plain(contract.max_notional(position.leverage)),
        "adlQuantile": position.adl,
    }


def account_json(account: AccountRecord) -> Json:
    """Answer of /fapi/v2/account and /fapi/v3/account."""
    totals = {
        "initialMargin": plain(account.initial_margin + account.order_margin),
        "maintMargin": plain(account.maintenance_margin),
        "walletBalance": plain(account.wallet),
        "unrealizedProfit": plain(account.unrealized_pnl),
        "marginBalance": plain(account.margin_balance),
        "positionInitialMargin": plain(account.initial_margin),
        "openOrderInitialMargin": plain(account.order_margin),
        "crossWalletBalance": plain(account.cross_wallet),
        "crossUnPnl": plain(account.cross_pnl),
    }
    return {
        "feeTier": 0,
        "canTrade": True,
        "canDeposit": False,
        "canWithdraw": False,
        "multiAssetsMargin": False,
        "tradeGroupId": -1,
        "updateTime": 0,
        **{f"total{name[0].upper()}{name[1:]}": value for name, value in totals.items()},
        "availableBalance": plain(account.available),
        "maxWithdrawAmount": plain(account.available),
        "assets": [
            {
                "asset": "USDT",
                **totals,
                "availableBalance": plain(account.available),
                "maxWithdrawAmount": plain(account.available),
                "marginAvailable": True,
                "updateTime": milliseconds(account.updated_at),
            }
        ],
        "positions": [_account_position_json(position) for position in account.positions],
    }


def _account_position_json(position: PositionRecord) -> Json:
    return {
        "symbol": position.symbol,
        "positionSide": position.position_side.value,
        "positionAmt": plain(position.quantity),
        "entryPrice": short(position.entry_price),
        "breakEvenPrice": short(position.break_even_price),
        "unrealizedProfit": plain(position.unrealized_pnl),
        "isolatedMargin": plain(position.isolated_margin),
        "isolatedWallet": plain(position.isolated_wallet),
        "isolated": position.margin_type is MarginType.ISOLATED,
        "leverage": str(position.leverage),
        "notional": plain(round(position.notional, 8)),
        "initialMargin": plain(position.initial_margin + position.order_margin),
        "positionInitialMargin": plain(position.initial_margin),
        "openOrderInitialMargin": plain(position.order_margin),
        "maintMargin": plain(position.maintenance_margin),
        "updateTime": milliseconds(position.updated_at),
    }


def balance_json(account: AccountRecord) -> Json:
    """One row of /fapi/v2/balance and /fapi/v3/balance."""
    return {
        "accountAlias": "paper",
        "asset": "USDT",
        "balance": plain(account.wallet),
        "crossWalletBalance": plain(account.cross_wallet),
        "crossUnPnl": plain(account.cross_pnl),
        "availableBalance": plain(account.available),
        "maxWithdrawAmount": plain(account.available),
        "marginAvailable": True,
        "updateTime": milliseconds(account.updated_at),
    }


def contract_json(contract: Contract) -> Json:
    """One symbol of /fapi/v1/exchangeInfo."""
    instrument = contract.instrument
    lot = {"minQty": plain(instrument.min_quantity), "stepSize": plain(instrument.lot_step)}
    return {
        "symbol": contract.symbol,
        "pair": contract.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4133404800000,
        "onboardDate": 1569398400000,
        "status": contract.status.value,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": contract.base_asset,
        "quoteAsset": contract.quote_asset,
        "marginAsset": contract.quote_asset,
        "pricePrecision": contract.price_precision,
        "quantityPrecision": contract.quantity_precision,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "triggerProtect": plain(contract.trigger_protect),
        "liquidationFee": plain(contract.liquidation_fee),
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": plain(contract.min_price),
                "maxPrice": plain(contract.max_price),
                "tickSize": plain(instrument.tick_size),
            },
            {"filterType": "LOT_SIZE", "maxQty": plain(instrument.max_quantity), **lot},
            {"filterType": "MARKET_LOT_SIZE", "maxQty": plain(instrument.max_market_quantity), **lot},
            {"filterType": "MAX_NUM_ORDERS", "limit": contract.max_open_orders},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": contract.max_algo_orders},
            {"filterType": "MIN_NOTIONAL", "notional": plain(instrument.min_notional)},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": plain(contract.multiplier_up),
                "multiplierDown": plain(contract.multiplier_down),
                "multiplierDecimal": "4",
            },
        ],
        "orderTypes": [kind.value for kind in OrderType],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }


def limit_json(limit: Limit) -> Json:
    """One row of rateLimits."""
    return {
        "rateLimitType": limit.kind,
        "interval": limit.interval,
        "intervalNum": limit.number,
        "limit": limit.most,
    }


def trade_row(trade: Trade) -> Json:
    """One row of /fapi/v1/trades."""
    return {
        "id": trade.trade_id,
        "price": plain(trade.price),
        "qty": plain(trade.quantity),
        "quoteQty": plain(trade.price * trade.quantity),
        "time": milliseconds(trade.time),
        "isBuyerMaker": trade.taker is Side.SELL,
        "isRPITrade": False,
    }


def aggregate_trade_row(trade: Trade) -> Json:
    """One row of /fapi/v1/aggTrades."""
    return {
        "a": trade.trade_id,
        "p": plain(trade.price),
        "q": plain(trade.quantity),
        "f": trade.trade_id,
        "l": trade.trade_id,
        "T": milliseconds(trade.time),
        "m": trade.taker is Side.SELL,
    }


def brackets_json(contract: Contract) -> Json:
    """One symbol of /fapi/v1/leverageBracket."""
    return {
        "symbol": contract.symbol,
        "notionalCoef": 1,
        "brackets": [
            {
                "bracket": bracket.number,
                "initialLeverage": bracket.leverage,
                "notionalCap": int(bracket.cap),
                "notionalFloor": int(bracket.floor),
                "maintMarginRatio": float(bracket.maintenance_rate),
                "cum": float(bracket.cum),
            }
            for bracket in contract.brackets
        ],
    }


def kline_row(candle: Candle) -> list[Any]:
    """One row of /fapi/v1/klines."""
    return [
        milliseconds(candle.open_time),
        number(candle.open),
        number(candle.high),
        number(candle.low),
        number(candle.close),
        number(candle.volume),
        milliseconds(candle.close_time) - 1,
        number(round(candle.volume * candle.close, 4)),
        0,
        number(round(candle.volume / 2, 8)),
        number(round(candle.volume * candle.close / 2, 4)),
        "0",
    ]


def number(value: float) -> str:
    """Return the shortest text of a float without exponent."""
    text = repr(value)
    return f"{value:.12f}".rstrip("0").rstrip(".") if "e" in text else text


def levels_json(levels: Iterable[Level]) -> list[list[str]]:
    """One side of /fapi/v1/depth."""
    return [[plain(level.price), plain(level.quantity)] for level in levels]


def book_ticker_json(quote: Quote) -> Json:
    """Answer of /fapi/v1/ticker/bookTicker."""
    return {
        "symbol": quote.symbol,
        "bidPrice": plain(quote.bid.price),
        "bidQty": plain(quote.bid.quantity),
        "askPrice": plain(quote.ask.price),
        "askQty": plain(quote.ask.quantity),
        "time": milliseconds(quote.time),
    }


def premium_json(quote: Quote) -> Json:
    """Answer of /fapi/v1/premiumIndex."""
    return {
        "symbol": quote.symbol,
        "markPrice": plain(quote.mark),
        "indexPrice": plain(quote.mark),
        "estimatedSettlePrice": plain(quote.mark),
        "lastFundingRate": plain(quote.funding_rate),
        "interestRate": "0.00010000",
        "nextFundingTime": milliseconds(quote.next_funding),
        "time": milliseconds(quote.time),
    }
