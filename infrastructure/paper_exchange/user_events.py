"""What the user data stream says about orders, trades, margin and settings, with Binance's keys."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from infrastructure.paper_exchange.modes import MarginType
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
        execution: NEW, TRADE, CALCULATED (a fill of a forced order), AMENDMENT, CANCELED or EXPIRED.
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
        "X": order.status_word,
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
        "ps": order.position_side.value,
        "cp": order.close_position,
        "pP": order.price_protect,
        "si": 0,
        "ss": 0,
        "rp": plain(trade.realized_pnl if trade else ZERO),
        "V": order.self_trade_prevention.value,
        "pm": "NONE",
        "gtd": milliseconds(order.good_till) if order.good_till else 0,
        "er": str(order.expiry_reason.value),
    }
    if trade and trade.commission:  # without a commission Binance leaves the keys away
        body |= {"n": plain(trade.commission), "N": "USDT"}
    return {"e": "ORDER_TRADE_UPDATE", "E": milliseconds(now), "T": milliseconds(now), "o": body}


def trade_lite(order: OrderRecord, fill: FillRecord, now: datetime) -> UserEvent:
    """Return TRADE_LITE, the short and early form of a trade."""
    trade = fill.fill
    return {
        "e": "TRADE_LITE",
        "E": milliseconds(now),
        "T": milliseconds(now),
        "s": order.symbol,
        "q": plain(order.quantity),
        "p": plain(order.price),
        "m": fill.is_maker,
        "c": order.client_order_id,
        "S": order.side.value,
        "L": plain(trade.price),
        "l": plain(trade.quantity),
        "t": trade.trade_id,
        "i": order.order_id,
    }


def account_update(
    reason: str,
    *,
    wallet: Decimal,
    cross_wallet: Decimal,
    change: Decimal,
    positions: Iterable[PositionRecord],
    now: datetime,
) -> UserEvent:
    """Return ACCOUNT_UPDATE.

    Args:
        reason: ORDER, FUNDING_FEE, DEPOSIT, WITHDRAW, MARGIN_TRANSFER, MARGIN_TYPE_CHANGE or INSURANCE_CLEAR.
        wallet: Balance after the change, USDT.
        cross_wallet: What of it is not set aside for isolated positions, USDT.
        change: Balance change that is neither profit nor commission (funding, a transfer), USDT.
        positions: The changed ones.
        now: Market time.
    """
    balance = {"a": "USDT", "wb": plain(wallet), "cw": plain(cross_wallet), "bc": plain(change)}
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
        "bep": short(position.break_even_price),
        "cr": plain(position.realized),
        "up": plain(position.unrealized_pnl),
        "mt": position.margin_type.word,
        "iw": plain(position.isolated_wallet),
        "ps": position.position_side.value,
    }


def margin_call(cross_wallet: Decimal, positions: Iterable[PositionRecord], now: datetime) -> UserEvent:
    """Return MARGIN_CALL: positions whose margin is nearly down to what they must keep.

    Args:
        cross_wallet: USDT; told only when a cross-margined position is among them.
        positions: Those in danger.
        now: Market time.
    """
    rows = list(positions)
    event: UserEvent = {"e": "MARGIN_CALL", "E": milliseconds(now)}
    if any(position.margin_type is MarginType.CROSSED for position in rows):
        event["cw"] = plain(cross_wallet)
    return event | {
        "p": [
            {
                "s": position.symbol,
                "ps": position.position_side.value,
                "pa": plain(position.quantity),
                "mt": position.margin_type.value,
                "iw": plain(position.isolated_wallet),
                "mp": plain(position.mark_price),
                "up": plain(position.unrealized_pnl),
                "mm": plain(position.maintenance_margin),
            }
            for position in rows
        ]
    }


def leverage_update(symbol: str, leverage: int, now: datetime) -> UserEvent:
    """Return ACCOUNT_CONFIG_UPDATE for a new leverage."""
    return {
        "e": "ACCOUNT_CONFIG_UPDATE",
        "E": milliseconds(now),
        "T": milliseconds(now),
        "ac": {"s": symbol, "l": leverage},
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
            "ps": algo.position_side.value,
            "f": algo.time_in_force.value,
            "q": plain(algo.quantity),
            "X": algo.status.value,
            "ai": str(algo.actual_order_id or ""),
            "ap": short(algo.actual_price),
            "aq": plain(algo.actual_quantity),
            "act": algo.becomes.value if algo.actual_order_id else "",
            "tp": plain(algo.trigger_price),
            "p": plain(algo.price),
            "V": algo.self_trade_prevention.value,
            "wt": algo.working_type.value,
            "pm": "NONE",
            "cp": algo.close_position,
            "pP": algo.price_protect,
            "R": algo.reduce_only or algo.close_position,
            "tt": milliseconds(algo.triggered_at) if algo.triggered_at else 0,
            "gtd": milliseconds(algo.good_till) if algo.good_till else 0,
            "rm": algo.reject_reason,
        },
    }


def trigger_rejected(algo: AlgoRecord, now: datetime) -> UserEvent:
    """Return CONDITIONAL_ORDER_TRIGGER_REJECT: the order behind a trigger was refused."""
    return {
        "e": "CONDITIONAL_ORDER_TRIGGER_REJECT",
        "E": milliseconds(now),
        "T": milliseconds(now),
        "or": {"s": algo.symbol, "i": algo.algo_id, "r": algo.reject_reason},
    }
