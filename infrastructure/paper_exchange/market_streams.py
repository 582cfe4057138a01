"""What the market streams say: klines with every closed candle exactly once, best prices, mark prices."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from infrastructure.paper_exchange.klines import slot_start
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.payloads import number
from infrastructure.paper_exchange.records import Quote
from infrastructure.paper_exchange.stream_hub import StreamHub
from infrastructure.paper_exchange.user_events import milliseconds, plain
from shared.errors import ExchangeError, InvalidInputError
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

_KLINE = re.compile(r"^([a-z0-9]+)@kline_(\w+)$")
_BOOK = re.compile(r"^([a-z0-9]+)@bookTicker$")
_MARK = re.compile(r"^([a-z0-9]+)@markPrice(@1s)?$")
_FORMING_SECONDS = 0.25
_MARK_SECONDS = {"@1s": 1.0, None: 3.0}


class MarketStreams:
    """Looks at the engine after each advance and publishes what readers have not seen yet."""

    def __init__(self, engine: MatchingEngine, hub: StreamHub) -> None:
        self._engine = engine
        self._hub = hub
        self._next_close: dict[str, datetime] = {}
        self._sent_at: dict[str, float] = {}
        self._last_best: dict[str, tuple[Any, ...]] = {}

    def publish(self, wall_seconds: float) -> None:
        """Send closed candles now, everything else at its own pace.

        Args:
            wall_seconds: A monotonic wall clock; the pace of updates does not scale with market time.
        """
        wanted = self._hub.wanted()
        for stream in [name for name in self._next_close if name not in wanted]:
            del self._next_close[stream]  # a reader that comes later begins with the candle that forms then
        for stream in sorted(wanted):
            if match := _KLINE.match(stream):
                self._publish_klines(stream, match[1].upper(), match[2], wall_seconds)
            elif match := _BOOK.match(stream):
                self._publish_best(stream, match[1].upper())
            elif (match := _MARK.match(stream)) and self._is_due(stream, _MARK_SECONDS[match[2]], wall_seconds):
                self._publish_mark(stream, match[1].upper())

    def publish_raw_candle(self, symbol: str, timeframe: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Send the forming candle as a closed one with some fields replaced, and return the message."""
        candle = self._engine.candles(symbol, timeframe, *self._forming_span(timeframe))[-1]
        message = kline_event(candle, self._engine.now, closed=True)
        message["k"] |= changes
        self._hub.publish(f"{symbol.lower()}@kline_{timeframe}", message)
        return message

    def _publish_klines(self, stream: str, symbol: str, timeframe: str, wall_seconds: float) -> None:
        now = self._engine.now
        try:
            forming_open, end = self._forming_span(timeframe)
            following = self._next_close.setdefault(stream, forming_open)
            candles = self._engine.candles(symbol, timeframe, following, end)
        except (ExchangeError, InvalidInputError):
            return  # an unknown symbol or interval: subscribed, and silent, as on Binance
        closed = [candle for candle in candles if candle.close_time <= now]
        for candle in closed:
            self._hub.publish(stream, kline_event(candle, now, closed=True))
            self._next_close[stream] = candle.close_time
        if len(candles) > len(closed) and self._is_due(stream, _FORMING_SECONDS, wall_seconds):
            self._hub.publish(stream, kline_event(candles[-1], now, closed=False))

    def _forming_span(self, timeframe: str) -> tuple[datetime, datetime]:
        """Return start and end of the slot of ``timeframe`` that holds the present."""
        length = timeframe_duration(timeframe)
        start = slot_start(self._engine.now, length)
        return start, start + length

    def _publish_best(self, stream: str, symbol: str) -> None:
        quote = self._quote(symbol)
        if quote is None:
            return
        best = (quote.bid, quote.ask)
        if self._last_best.get(stream) == best:
            return
        self._last_best[stream] = best
        self._hub.publish(stream, book_ticker_event(quote))

    def _publish_mark(self, stream: str, symbol: str) -> None:
        if (quote := self._quote(symbol)) is not None:
            self._hub.publish(stream, mark_event(quote))

    def _quote(self, symbol: str) -> Quote | None:
        return self._engine.quote(symbol) if symbol in self._engine.symbols else None

    def _is_due(self, stream: str, seconds: float, wall_seconds: float) -> bool:
        if wall_seconds - self._sent_at.get(stream, float("-inf")) < seconds:
            return False
        self._sent_at[stream] = wall_seconds
        return True


def kline_event(candle: Candle, now: datetime, *, closed: bool) -> dict[str, Any]:
    """Return a ``kline`` message."""
    return {
        "e": "kline",
        "E": milliseconds(now),
        "s": candle.symbol,
        "k": {
            "t": milliseconds(candle.open_time),
            "T": milliseconds(candle.close_time) - 1,
            "s": candle.symbol,
            "i": candle.timeframe,
            "f": 0,
            "L": 0,
            "o": number(candle.open),
            "c": number(candle.close),
            "h": number(candle.high),
            "l": number(candle.low),
            "v": number(candle.volume),
            "n": 0,
            "x": closed,
            "q": number(round(candle.volume * candle.close, 4)),
            "V": number(round(candle.volume / 2, 8)),
            "Q": number(round(candle.volume * candle.close / 2, 4)),
            "B": "0",
        },
    }


def book_ticker_event(quote: Quote) -> dict[str, Any]:
    """Return a ``bookTicker`` message."""
    return {
        "e": "bookTicker",
        "u": milliseconds(quote.time),
        "s": quote.symbol,
        "b": plain(quote.bid.price),
        "B": plain(quote.bid.quantity),
        "a": plain(quote.ask.price),
        "A": plain(quote.ask.quantity),
        "T": milliseconds(quote.time),
        "E": milliseconds(quote.time),
    }


def mark_event(quote: Quote) -> dict[str, Any]:
    """Return a ``markPriceUpdate`` message."""
    return {
        "e": "markPriceUpdate",
        "E": milliseconds(quote.time),
        "s": quote.symbol,
        "p": plain(quote.mark),
        "i": plain(quote.mark),
        "P": plain(quote.mark),
        "r": plain(quote.funding_rate),
        "T": milliseconds(quote.next_funding),
    }
