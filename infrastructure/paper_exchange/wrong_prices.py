"""Market messages and answers whose prices are wrong: not a number, zero, negative, or ten times too high."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

#: Keys that hold prices, by event type; of a kline they are inside ``k``, of a depth difference they are levels.
_PRICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kline": ("o", "h", "l", "c"),
        "bookTicker": ("b", "a"),
        "markPriceUpdate": ("p", "i", "P"),
        "aggTrade": ("p",),
        "24hrTicker": ("c", "o", "h", "l"),
    }
)

_WRONG: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "nan": lambda _: "NaN",
        "zero": lambda _: "0",
        "negative": lambda price: f"-{price}",
        "spike": lambda price: f"{Decimal(price) * 10:f}",
    }
)


def with_wrong_prices(message: Mapping[str, Any], how: str) -> dict[str, Any]:
    """Return a copy of ``message`` with every price made wrong.

    Args:
        message: A market message with Binance's keys.
        how: nan, zero, negative or spike.
    """
    wrong = _WRONG[how]
    kind = message.get("e", "")
    if kind == "depthUpdate":
        levels = {side: [[wrong(price), size] for price, size in message[side]] for side in ("b", "a")}
        return {**message, **levels}
    prices = message["k"] if kind == "kline" else message
    changed = {**prices, **{key: wrong(str(prices[key])) for key in _PRICES.get(kind, ()) if key in prices}}
    return {**message, "k": changed} if kind == "kline" else changed


def with_wrong_answer(answer: Any, how: str) -> Any:
    """Return a copy of a REST answer with every price made wrong: candles, depth levels, and fields named price.

    Args:
        answer: JSON value of a market endpoint.
        how: nan, zero, negative or spike.
    """
    if isinstance(answer, list) and answer and isinstance(answer[0], list):  # candles
        return [[row[0], *(_WRONG[how](str(price)) for price in row[1:5]), *row[5:]] for row in answer]
    if isinstance(answer, list):
        return [with_wrong_answer(row, how) for row in answer]
    if not isinstance(answer, dict):
        return answer
    return {key: _wrong_field(key, value, how) for key, value in answer.items()}


def _wrong_field(key: str, value: Any, how: str) -> Any:
    if key in ("bids", "asks"):
        return [[_WRONG[how](str(price)), size] for price, size in value]
    is_price = key.lower().endswith("price") or key == "p"
    return _WRONG[how](value) if is_price and isinstance(value, str) and value else value
