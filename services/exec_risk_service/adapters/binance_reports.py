"""Binance's JSON to our reports and back: orders, user events, trades, payments, instruments. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from services.exec_risk_service.domain.account_terms import KeyPermissions
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.quotes import Level, Quote
from services.exec_risk_service.domain.reports import (
    CashChanged,
    CashKind,
    CashReport,
    LeverageChanged,
    MarginCalled,
    OrderInQuestion,
    OrderReport,
    VenueAccount,
    VenuePosition,
    VenueReport,
)
from shared.errors import InvalidInputError
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO, to_decimal
from shared.trading.orders import OrderStatus, OrderType, Side
from shared.trading.positions import Fill

Json = Mapping[str, Any]

_STATUS: Mapping[str, OrderStatus] = MappingProxyType(
    {
        "NEW": OrderStatus.NEW,
        "PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED,
        "FILLED": OrderStatus.FILLED,
        "CANCELED": OrderStatus.CANCELED,
        "EXPIRED": OrderStatus.EXPIRED,
        "EXPIRED_IN_MATCH": OrderStatus.EXPIRED,
        "REJECTED": OrderStatus.REJECTED,
    }
)
_ALGO_STATUS: Mapping[str, OrderStatus] = MappingProxyType(
    {
        "NEW": OrderStatus.NEW,
        "TRIGGERING": OrderStatus.TRIGGERED,
        "TRIGGERED": OrderStatus.TRIGGERED,
        "CANCELED": OrderStatus.CANCELED,
        "EXPIRED": OrderStatus.EXPIRED,
        "REJECTED": OrderStatus.REJECTED,
    }
)
#: Incomes that come with a trade and are booked with it.
_TRADE_INCOMES = frozenset({"REALIZED_PNL", "COMMISSION"})
#: Both numbers are rounded: a quotient farther from a whole number says nothing about the leverage.
_LEVERAGE_NOISE = Decimal("0.02")
#: Execution types that carry a trade; CALCULATED is a liquidation.
_TRADE_EXECUTIONS = frozenset({"TRADE", "CALCULATED"})


# -- requests ------------------------------------------------------------------------------------------------------


def order_parameters(order: Order) -> dict[str, str]:
    """Return the parameters of POST /fapi/v1/order for a market or limit order."""
    parameters = {
        "symbol": order.symbol,
        "side": order.side.value,
        "type": order.order_type.value,
        "quantity": f"{order.quantity:f}",
        "newClientOrderId": order.client_order_id,
        "newOrderRespType": "RESULT",
    }
    if order.price is not None and order.time_in_force is not None:
        parameters |= {"price": f"{order.price:f}", "timeInForce": order.time_in_force.value}
    return {**parameters, "reduceOnly": "true"} if order.is_reduce_only else parameters


def algo_parameters(order: Order) -> dict[str, str]:
    """Return the parameters of POST /fapi/v1/algoOrder for a stop or a take-profit."""
    if order.trigger_price is None:
        raise InvalidInputError(f"conditional order {order.client_order_id} has no trigger price")
    return {
        "algoType": "CONDITIONAL",
        "symbol": order.symbol,
        "side": order.side.value,
        "type": order.order_type.value,
        "quantity": f"{order.quantity:f}",
        "triggerPrice": f"{order.trigger_price:f}",
        "workingType": "CONTRACT_PRICE",
        "reduceOnly": "true",
        "clientAlgoId": order.client_order_id,
        "newOrderRespType": "RESULT",
    }


# -- terms ---------------------------------------------------------------------------------------------------------


def is_set(answer: Json, name: str) -> bool:
    """Return a flag of an answer; one that is missing or strange counts as set, because it could be."""
    return answer.get(name) not in (False, "false")


def key_permissions(answer: Json) -> KeyPermissions:
    """Return what GET /sapi/v1/account/apiRestrictions says about the key."""
    return KeyPermissions(
        withdraw=is_set(answer, "enableWithdrawals"),
        internal_transfer=is_set(answer, "enableInternalTransfer"),
        universal_transfer=is_set(answer, "permitsUniversalTransfer"),
        futures=answer.get("enableFutures") in (True, "true"),
        ip_restricted=answer.get("ipRestrict") in (True, "true"),
    )


# -- orders --------------------------------------------------------------------------------------------------------


def order_report(answer: Json) -> OrderReport:
    """Return the report of a regular order, as POST, GET, DELETE /order and GET /openOrders answer."""
    return OrderReport(
        client_order_id=str(answer["clientOrderId"]),
        symbol=str(answer["symbol"]),
        status=_STATUS[answer["status"]],
        time=_moment(answer.get("updateTime") or answer.get("time") or 0),
        filled_quantity=_number(answer, "executedQty"),
        exchange_order_id=str(answer["orderId"]),
        side=Side(answer["side"]),
        order_type=_order_type(answer.get("origType") or answer["type"]),
        quantity=_number(answer, "origQty"),
    )


def algo_report(answer: Json) -> OrderReport:
    """Return the report of a conditional order, as POST, GET /algoOrder and GET /openAlgoOrders answer."""
    executed = _number(answer, "actualQty")
    return OrderReport(
        client_order_id=str(answer["clientAlgoId"]),
        symbol=str(answer["symbol"]),
        status=_algo_status(answer["algoStatus"], executed),
        time=_moment(answer.get("updateTime") or answer.get("createTime") or 0),
        filled_quantity=executed,
        exchange_order_id=str(answer.get("actualOrderId") or ""),
        algo_id=str(answer["algoId"]),
        reason=str(answer.get("rejectReason") or ""),
        side=Side(answer["side"]),
        order_type=_order_type(answer["orderType"]),
        quantity=_number(answer, "quantity"),
        trigger_price=_number(answer, "triggerPrice"),
    )


def algo_cancelled(answer: Json, symbol: str, at: datetime) -> OrderReport:
    """Return the report of DELETE /algoOrder, which tells only that the order is gone untriggered."""
    return OrderReport(
        client_order_id=str(answer["clientAlgoId"]),
        symbol=symbol,
        status=OrderStatus.CANCELED,
        time=at,
        algo_id=str(answer["algoId"]),
    )


def _algo_status(text: str, executed: Decimal) -> OrderStatus:
    # FINISHED: the market order behind the condition came to its end, with or without a fill.
    if text == "FINISHED":
        return OrderStatus.FILLED if executed > 0 else OrderStatus.EXPIRED
    return _ALGO_STATUS[text]


def _order_type(text: str) -> OrderType | None:
    return OrderType(text) if text in OrderType.__members__ else None


# -- user stream ---------------------------------------------------------------------------------------------------


def reports_of(event: Json) -> tuple[VenueReport, ...]:
    """Return what one message of the user data stream tells us; most kinds tell nothing that REST does not.

    Raises:
        InvalidInputError: The message lacks fields, or holds numbers or states that do not exist.
    """
    try:
        reader = _READERS.get(event["e"])
        return () if reader is None else reader(event)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"user event cannot be read ({error!r}): {str(event)[:200]}") from None


def _account_update(event: Json) -> tuple[VenueReport, ...]:
    """Fills tell what happens to positions; money that moves for another reason is read from the list of payments."""
    return () if event["a"]["m"] == "ORDER" else (CashChanged(),)


def _config_update(event: Json) -> tuple[VenueReport, ...]:
    changed = event.get("ac")
    return () if changed is None else (LeverageChanged(str(changed["s"]), int(changed["l"])),)


def _margin_call(event: Json) -> tuple[VenueReport, ...]:
    return (MarginCalled(tuple(str(row["s"]) for row in event["p"])),)


def _trigger_reject(event: Json) -> tuple[VenueReport, ...]:
    return (OrderInQuestion(str(event["or"]["s"]), str(event["or"]["r"])),)


def _order_trade_update(body: Json, at: datetime) -> OrderReport:
    return OrderReport(
        client_order_id=str(body["c"]),
        symbol=str(body["s"]),
        status=_STATUS[body["X"]],
        time=at,
        filled_quantity=_number(body, "z"),
        exchange_order_id=str(body["i"]),
        fill=_stream_fill(body) if body["x"] in _TRADE_EXECUTIONS and int(body["t"]) > 0 else None,
        side=Side(body["S"]),
        order_type=_order_type(body["ot"]),
        quantity=_number(body, "q"),
    )


def _stream_fill(body: Json) -> Fill:
    return Fill(
        symbol=str(body["s"]),
        trade_id=int(body["t"]),
        client_order_id=str(body["c"]),
        exchange_order_id=str(body["i"]),
        side=Side(body["S"]),
        price=_number(body, "L"),
        quantity=_number(body, "l"),
        commission=_commission(body.get("n"), body.get("N"), str(body["s"])),
        realized_pnl=_number(body, "rp"),
        time=_moment(body["T"]),
    )


def _algo_update(body: Json, at: datetime) -> OrderReport:
    executed = _number(body, "aq")
    return OrderReport(
        client_order_id=str(body["caid"]),
        symbol=str(body["s"]),
        status=_algo_status(body["X"], executed),
        time=at,
        filled_quantity=executed,
        exchange_order_id=str(body.get("ai") or ""),
        algo_id=str(body["aid"]),
        reason=str(body.get("rm") or ""),
        side=Side(body["S"]),
        order_type=_order_type(body["o"]),
        quantity=_number(body, "q"),
        trigger_price=_number(body, "tp"),
    )


#: Kind of user event -> what it tells.
_READERS: Mapping[Any, Callable[[Json], tuple[VenueReport, ...]]] = MappingProxyType(
    {
        "ORDER_TRADE_UPDATE": lambda event: (_order_trade_update(event["o"], _moment(event["T"])),),
        "ALGO_UPDATE": lambda event: (_algo_update(event["o"], _moment(event["T"])),),
        "ACCOUNT_UPDATE": _account_update,
        "ACCOUNT_CONFIG_UPDATE": _config_update,
        "MARGIN_CALL": _margin_call,
        "CONDITIONAL_ORDER_TRIGGER_REJECT": _trigger_reject,
    }
)


# -- trades and payments -------------------------------------------------------------------------------------------


def trade_fill(row: Json) -> Fill:
    """Return the fill of one row of /userTrades; such rows do not tell the client order id."""
    return Fill(
        symbol=str(row["symbol"]),
        trade_id=int(row["id"]),
        client_order_id="",
        exchange_order_id=str(row["orderId"]),
        side=Side(row["side"]),
        price=_number(row, "price"),
        quantity=_number(row, "qty"),
        commission=_commission(row["commission"], row["commissionAsset"], str(row["symbol"])),
        realized_pnl=_number(row, "realizedPnl"),
        time=_moment(row["time"]),
    )


def payment(row: Json) -> CashReport | None:
    """Return funding or a transfer of one row of /income; None for what comes with a trade."""
    kind = str(row["incomeType"])
    if kind in _TRADE_INCOMES:
        return None
    return CashReport(
        key=f"{kind}:{row['tranId']}",
        kind=CashKind.FUNDING if kind == "FUNDING_FEE" else CashKind.TRANSFER,
        amount=_number(row, "income"),
        symbol=str(row.get("symbol") or ""),
        time=_moment(row["time"]),
    )


def _commission(amount: object, asset: object, symbol: str) -> Decimal:
    """Fees in another coin (BNB) do not touch the wallet that positions are settled in."""
    if not amount or asset is None or not symbol.endswith(str(asset)):
        return ZERO
    return to_decimal(str(amount), name="commission")


# -- account -------------------------------------------------------------------------------------------------------


def venue_account(account: Json, positions: Sequence[Json]) -> VenueAccount:
    """Return the account of /v3/account and the rows of /v3/positionRisk."""
    held = (venue_position(row) for row in positions)
    return VenueAccount(
        wallet_balance=_number(account, "totalWalletBalance"),
        positions=tuple(position for position in held if position.quantity != 0),
    )


def venue_position(row: Json) -> VenuePosition:
    """Return one row of /v3/positionRisk."""
    liquidation = to_decimal(str(row.get("liquidationPrice") or 0), name="liquidationPrice")
    return VenuePosition(
        symbol=str(row["symbol"]),
        quantity=_number(row, "positionAmt"),
        entry_price=_number(row, "entryPrice"),
        mark_price=_number(row, "markPrice"),
        liquidation_price=liquidation if liquidation > 0 else None,
        leverage=_leverage(row),
        is_isolated=to_decimal(str(row.get("isolatedMargin") or 0), name="isolatedMargin") != 0,
    )


def _leverage(row: Json) -> int | None:
    """Version 3 of the endpoint does not tell it: it follows from the value of a position and the margin it binds."""
    margin = to_decimal(str(row.get("positionInitialMargin") or 0), name="positionInitialMargin")
    value = abs(to_decimal(str(row.get("notional") or 0), name="notional"))
    if margin <= 0 or value <= 0:
        return None
    leverage = round(value / margin)
    return leverage if leverage >= 1 and abs(value / margin - leverage) < _LEVERAGE_NOISE else None


def quote_of(symbol: str, answer: Json) -> Quote:
    """Return the book of /depth.

    Raises:
        InvalidInputError: A side is empty, or a number is none.
    """
    bids, asks = (tuple(_level(row) for row in answer[side]) for side in ("bids", "asks"))
    if not bids or not asks:
        raise InvalidInputError(f"the book of {symbol} is empty on one side")
    return Quote(symbol, bids, asks, _moment(answer.get("T") or answer.get("E") or 0))


def _level(row: Sequence[Any]) -> Level:
    return Level(to_decimal(str(row[0]), name="price"), to_decimal(str(row[1]), name="quantity"))


def instruments_of(info: Json, brackets: Sequence[Json]) -> Mapping[str, Instrument]:
    """Return the tradable perpetuals of /exchangeInfo with the highest leverage of /leverageBracket."""
    first = {row["symbol"]: max(row["brackets"], key=lambda one: int(one["initialLeverage"])) for row in brackets}
    return MappingProxyType(
        {
            row["symbol"]: _instrument(row, first.get(row["symbol"]))
            for row in info["symbols"]
            if row["contractType"] == "PERPETUAL" and row["status"] == "TRADING"
        }
    )


def _instrument(row: Json, bracket: Json | None) -> Instrument:
    """Return one perpetual; without a bracket nothing but the whole value counts as margin."""
    filters = {one["filterType"]: one for one in row["filters"]}
    lot, market_lot = filters["LOT_SIZE"], filters["MARKET_LOT_SIZE"]
    return Instrument(
        symbol=str(row["symbol"]),
        tick_size=_number(filters["PRICE_FILTER"], "tickSize"),
        lot_step=max(_number(lot, "stepSize"), _number(market_lot, "stepSize")),
        min_quantity=max(_number(lot, "minQty"), _number(market_lot, "minQty")),
        max_quantity=_number(lot, "maxQty"),
        max_market_quantity=_number(market_lot, "maxQty"),
        min_notional=_number(filters["MIN_NOTIONAL"], "notional"),
        max_leverage=int(bracket["initialLeverage"]) if bracket else 1,
        maintenance_rate=_number(bracket, "maintMarginRatio") if bracket else Decimal(1),
    )


def _number(fields: Json, name: str) -> Decimal:
    return to_decimal(str(fields[name] or 0), name=name)


def _moment(milliseconds: object) -> datetime:
    return datetime.fromtimestamp(int(str(milliseconds)) / 1000, UTC)
