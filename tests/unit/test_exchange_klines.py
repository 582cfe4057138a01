"""Kline messages become candles; what is no candle is refused."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import InvalidInputError
from shared.exchange.klines import candle_from_event, candle_from_row
from shared.trading.candles import Candle
from tests.support.markets import START

STAMP = int(START.timestamp() * 1000)


def event(**fields: Any) -> dict[str, Any]:
    kline = {"t": STAMP, "s": "BTCUSDT", "i": "1m", "o": "1.5", "h": "2", "l": "1", "c": "1.7", "v": "3", "x": True}
    return {"e": "kline", "k": kline | fields}


def test_a_message_and_a_row_give_the_same_candle() -> None:
    candle = Candle("BTCUSDT", "1m", START, 1.5, 2.0, 1.0, 1.7, 3.0)
    assert candle_from_event(event()) == candle
    assert candle_from_row("BTCUSDT", "1m", [STAMP, "1.5", "2", "1", "1.7", "3", STAMP + 59_999]) == candle
    assert candle_from_row("BTCUSDT", "1m", [STAMP, 1.5, 2.0, 1.0, 1.7, 3.0]) == candle


@pytest.mark.parametrize(
    "fields",
    [
        {"c": "NaN"},
        {"o": "Infinity"},
        {"v": "nan"},
        {"h": "abc"},
        {"l": None},
        {"l": "0"},
        {"c": "-1"},
        {"v": "-1"},
        {"h": "1.2"},
        {"l": "1.6"},
        {"i": "1y"},
    ],
)
def test_what_is_no_candle_is_refused_with_its_place(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        candle_from_event(event(**fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("message", [{}, {"k": None}, {"k": {}}, {"k": {"t": 1}}])
def test_messages_without_their_fields_are_refused(message: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        candle_from_event(message)


def test_short_rows_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="has 3 fields"):
        candle_from_row("BTCUSDT", "1m", [STAMP, 1.0, 1.0])
