"""The refusals of Binance USD-M futures that this exchange can answer: numeric code, text and HTTP status."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from shared.errors import OrderRejectedError

#: Texts as Binance sends them; ``%s`` is filled with the offending name or value.
REFUSALS: Mapping[int, str] = MappingProxyType(
    {
        -1000: "An unknown error occured while processing the request.",
        -1003: "Too many requests; current limit is %s requests per minute. "
        "Please use the websocket for live updates to avoid polling the API.",
        -1001: "Internal error; unable to process your request. Please try again.",
        -1006: "An unexpected response was received from the message bus. Execution status unknown.",
        -1007: "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
        -1008: "Request throttled by system-level protection. Reduce-only/close-position orders are exempt.",
        -1015: "Too many new orders; current limit is %s orders per %s.",
        -1021: "Timestamp for this request is outside of the recvWindow.",
        -1022: "Signature for this request is not valid.",
        -1023: "Start time is greater than end time.",
        -1101: "Duplicate values for a parameter detected.",
        -1102: "Mandatory parameter '%s' was not sent, was empty/null, or malformed.",
        -1106: "Parameter '%s' sent when not required.",
        -1111: "Precision is over the maximum defined for this asset.",
        -1115: "Invalid timeInForce.",
        -1116: "Invalid orderType.",
        -1117: "Invalid side.",
        -1120: "Invalid interval.",
        -1121: "Invalid symbol.",
        -1125: "This listenKey does not exist. Please use `POST /fapi/v1/listenKey` to recreate `listenKey`",
        -1128: "Combination of optional parameters invalid.",
        -1130: "Data sent for parameter '%s' is not valid.",
        -1136: "Invalid newOrderRespType.",
        -2011: "Unknown order sent.",
        -2013: "Order does not exist.",
        -2014: "API-key format invalid.",
        -2015: "Invalid API-key, IP, or permissions for action.",
        -2018: "Balance is insufficient.",
        -2019: "Margin is insufficient.",
        -2021: "Order would immediately trigger.",
        -2022: "ReduceOnly Order is rejected.",
        -2023: "User in liquidation mode now.",
        -2025: "Reach max open order limit.",
        -2027: "Exceeded the maximum allowable position at current leverage.",
        -2028: "Leverage is smaller than permitted: insufficient margin balance.",
        -4001: "Price less than 0.",
        -4002: "Price greater than max price.",
        -4003: "Quantity less than zero.",
        -4004: "Quantity less than min quantity.",
        -4005: "Quantity greater than max quantity.",
        -4006: "Stop price less than zero.",
        -4007: "Stop price greater than max price.",
        -4013: "Price less than min price.",
        -4014: "Price not increased by tick size.",
        -4015: "Client order id is not valid.",
        -4016: "Price is higher than mark price multiplier cap.",
        -4021: "'%s' is not valid depth limit.",
        -4023: "Qty not increased by step size.",
        -4024: "Price is lower than mark price multiplier floor.",
        -4028: "Leverage `%s` is not valid",
        -4031: "Invalid parameter working type",
        -4045: "Reach max stop order limit.",
        -4046: "No need to change margin type.",
        -4047: "Margin type cannot be changed if there exists open orders.",
        -4048: "Margin type cannot be changed if there exists position.",
        -4049: "Add margin only support for isolated position.",
        -4050: "Cross balance insufficient.",
        -4051: "Isolated balance insufficient.",
        -4054: "Cannot add position margin: position is 0.",
        -4055: "Amount must be positive.",
        -4059: "No need to change position side.",
        -4061: "Order's position side does not match user's setting.",
        -4062: "Invalid or improper reduceOnly value.",
        -4067: "Position side cannot be changed if there exists open orders.",
        -4068: "Position side cannot be changed if there exists position.",
        -4116: "clientOrderId is duplicated",
        -4118: "ReduceOnly Order Failed. Please check your existing position and open orders",
        -4120: "Order type not supported for this endpoint. Please use the Algo Order API endpoints instead.",
        -4131: "The counterparty's best price does not meet the PERCENT_PRICE filter limit",
        -4135: "Invalid activation price",
        -4137: "Quantity must be zero with closePosition equals true",
        -4138: "Reduce only must be true with closePosition equals true",
        -4140: "Invalid symbol status for opening position",
        -4141: "Symbol is closed",
        -4161: "Leverage reduction is not supported in Isolated Margin Mode with open positions",
        -4164: "Order's notional must be no smaller than %s (unless you choose reduce only)",
        -4060: "Invalid position side.",
        -4082: "Invalid number of batch place orders: %s",
        -4165: "Maximum time interval is %s days",
        -4171: "Adjusted asset mode is currently set and does not need to be adjusted repeatedly.",
        -5037: "Invalid price match",
        -5039: "Invalid self trade prevention mode",
        -4084: "Method is not allowed currently. Upcoming soon.",
        -5021: "Due to the order could not be filled immediately, the FOK order has been rejected.",
        -5028: "Timestamp for this request is outside of the ME recvWindow.",
        -5024: "Symbol is not in trading status. Order amendment is not permitted.",
        -5025: "Only limit order is supported.",
        -5026: "Exceed maximum modify order limit.",
        -5027: "No need to modify the order.",
        -5040: "The goodTillDate timestamp must be greater than the current time plus 600 seconds "
        "and smaller than 253402300799000 (UTC 9999-12-31 23:59:59)",
        -5022: "Due to the order could not be executed as maker, the Post Only order will be rejected.",
    }
)

_UNAUTHORIZED = frozenset({-2014, -2015})
_LIMITS = frozenset({-1003, -1015})


def refusal(code: int, *values: object, text: str | None = None) -> OrderRejectedError:
    """Return the error to raise for ``code``; ``values`` fill the text's placeholders.

    Args:
        code: One of ``REFUSALS``.
        values: What the ``%s`` of the text stand for.
        text: Replaces the text of the table where Binance has two for one code.
    """
    message = REFUSALS[code] if text is None else text
    status = 401 if code in _UNAUTHORIZED else 429 if code in _LIMITS else 400
    return OrderRejectedError(message % values if values else message, code=code, http_status=status)
