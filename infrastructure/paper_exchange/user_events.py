"""What the user data stream says, with Binance's keys: ORDER_TRADE_UPDATE, ACCOUNT_UPDATE and ALGO_UPDATE."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from infrastructure.paper_exchange.records import AlgoRecord, FillRecord, OrderRecord, PositionRecord
from shared.trading.money import ZERO

#: One message of the user data stream, ready for JSON.
UserEvent = dict[str, Any]


def milliseconds(moment: datetime) -> int:
    """Return epoch milliseconds."""
    return round(moment.timestamp() * 1000)


def plain(value: Decimal) -> str:
    """Return ``value`` without exponent, as Binance writes numbers."""
    return f"{value:f}"


def short(value: Decimal) -> str:
    """Return ``value`` cut to the 8 digits that Binance shows of averages."""
    return f"{round(value, 8).normalize():f}" if value else "0"


def order_update(order: OrderRecord, execution: str, now: datetime, fill: FillRecord | None = None) -> UserEvent:
    """Return ORDER_TRADE_UPDATE for one change of ``order``.

    Args:
        order: The order after the change.
        execution: NEW, TRADE, CANCELED or EXPIRED.
        now: Market time.
        fill: The trade, when there was one.
    """
    trade = fill.fill if fill else None
    body: UserEvent = {
        "s": order.symbol,
        "c": order.client_order_id,
        "S": order.side.value,
        "o": order.type.value,
        "f": order.time_in_force.value,
        "q": plain(order.quantity),
        "p": plain(order.price),
        "ap": short(order.average_price),
        "sp": plain(order.stop_price),
        "x": execution,
        "X": order.status.value,
        "i": order.order_id,
        "l": plain(trade.quantity if trade else ZERO),
        "z": plain(order.executed),
        "L": plain(trade.price if trade else ZERO),
        "T": milliseconds(now),
        "t": trade.trade_id if trade else 0,
        "b": "0",
        "a": "0",
        "m": fill.is_maker if fill else False,
        "R": order.reduce_only,
        "wt": order.working_type.value,
        "ot": order.origin_type.value,
        "ps": "BOTH",
        "cp": order.close_position,
        "pP": False,
        "si": 0,
        "ss": 0,
        "rp": plain(trade.realized_pnl if trade else ZERO),
        "V": "EXPIRE_MAKER",
        "pm": "NONE",
        "gtd": 0,
        "er": "0",
    }
    if trade:
        body |= {"n": plain(trade.commission), "N": "USDT"}
    return {"e": "ORDER_TRADE_UPDATE", "E": milliseconds(now), "T": milliseconds(now), "o": body}


def account_update(
    reason: str, wallet: Decimal, change: Decimal, positions: Iterable[PositionRecord], now: datetime
) -> UserEvent:
    """Return ACCOUNT_UPDATE.

    Args:
        reason: ORDER or FUNDING_FEE.
        wallet: Balance after the change, USDT.
        change: Balance change that is neither profit nor commission (funding), USDT.
        positions: The changed ones.
        now: Market time.
    """
    balance = {"a": "USDT", "wb": plain(wallet), "cw": plain(wallet), "bc": plain(change)}
    return {
        "e": "ACCOUNT_UPDATE",
        "E": milliseconds(now),
        "T": milliseconds(now),
        "a": {"m": reason, "B": [balance], "P": [_position(position) for position in positions]},
    }


def _position(position: PositionRecord) -> UserEvent:
    return {
        "s": position.symbol,
        "pa": plain(position.quantity),
        "ep": short(position.entry_price),
        "bep": short(position.entry_price),
        "cr": "0",
        "up": plain(position.unrealized_pnl),
        "mt": "cross",
        "iw": "0",
        "ps": "BOTH",
    }


def algo_update(algo: AlgoRecord, now: datetime) -> UserEvent:
    """Return ALGO_UPDATE for one change of a conditional order."""
    return {
        "e": "ALGO_UPDATE",
        "T": milliseconds(now),
        "E": milliseconds(now),
        "o": {
            "caid": algo.client_algo_id,
            "aid": algo.algo_id,
            "at": "CONDITIONAL",
            "o": algo.type.value,
            "s": algo.symbol,
            "S": algo.side.value,
            "ps": "BOTH",
            "f": "GTC",
            "q": plain(algo.quantity),
            "X": algo.status.value,
            "ai": str(algo.actual_order_id or ""),
            "ap": short(algo.actual_price),
            "aq": plain(algo.actual_quantity),
            "act": "MARKET" if algo.actual_order_id else "",
            "tp": plain(algo.trigger_price),
            "p": "0",
            "V": "EXPIRE_MAKER",
            "wt": algo.working_type.value,
            "pm": "NONE",
            "cp": algo.close_position,
            "pP": False,
            "R": algo.reduce_only or algo.close_position,
            "tt": milliseconds(algo.triggered_at) if algo.triggered_at else 0,
            "gtd": 0,
            "rm": algo.reject_reason,
        },
    }
