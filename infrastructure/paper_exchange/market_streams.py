"""What the market streams say and when: klines with every closed candle exactly once, depth, trades, best prices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from infrastructure.paper_exchange.depth_diffs import DepthBook, DepthDiff, DepthDiffs
from infrastructure.paper_exchange.klines import slot_start
from infrastructure.paper_exchange.market import LEVELS
from infrastructure.paper_exchange.market_events import (
    agg_trade_events,
    book_ticker_event,
    depth_event,
    kline_event,
    mark_event,
    trade_event,
)
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.records import Trade
from infrastructure.paper_exchange.stream_hub import StreamHub
from infrastructure.paper_exchange.stream_names import Kind, MarketStream, market_stream
from shared.errors import ExchangeError, InvalidInputError
from shared.trading.instruments import timeframe_duration


class MarketStreams:
    """Looks at the engine after each advance and publishes what readers have not seen yet."""

    def __init__(self, engine: MatchingEngine, hub: StreamHub) -> None:
        self._engine = engine
        self._hub = hub
        self._next_close: dict[str, datetime] = {}
        self._sent_at: dict[str, float] = {}
        self._last_best: dict[str, tuple[Any, ...]] = {}
        self._diffs: dict[str, DepthDiffs] = {}
        self._partial_ids: dict[str, int] = {}
        self._traded_until: dict[str, datetime] = {}
        self._publishers: Mapping[Kind, Callable[[str, MarketStream, float], None]] = {
            Kind.KLINE: self._publish_klines,
            Kind.AGG_TRADE: self._publish_agg_trades,
            Kind.TRADE: self._publish_trades,
            Kind.BOOK_TICKER: self._publish_best,
            Kind.MARK_PRICE: self._publish_mark,
            Kind.DEPTH: self._publish_depth,
            Kind.PARTIAL_DEPTH: self._publish_partial_depth,
        }

    def publish(self, wall_seconds: float) -> None:
        """Send closed candles now, everything else at its own pace.

        Args:
            wall_seconds: A monotonic wall clock; the pace of updates does not scale with market time.
        """
        wanted = self._hub.wanted()
        self._forget_all_but(wanted)
        for name in sorted(wanted):
            stream = market_stream(name)
            # An unknown symbol or name: subscribed, and silent, as on Binance.
            if stream is not None and stream.symbol in self._engine.symbols:
                self._publishers[stream.kind](name, stream, wall_seconds)

    def snapshot(self, symbol: str, count: int) -> DepthBook:
        """Return the book of ``symbol`` as REST shows it; the depth streams take notice of what was shown.

        Raises:
            OrderRejectedError: -1121, it is not listed here.
        """
        book = self._book(symbol)
        for name in self._hub.wanted():
            stream = market_stream(name)
            if stream is not None and (stream.kind, stream.symbol) == (Kind.DEPTH, symbol):
                # The first difference of a stream that has not spoken yet must follow on this snapshot.
                self._diffs.setdefault(name, DepthDiffs(book)).note(book)
        bids, asks = self._engine.depth(symbol, count)
        return DepthBook.of(book.update_id, bids, asks)

    def publish_raw_candle(self, symbol: str, timeframe: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Send the forming candle as a closed one with some fields replaced, and return the message."""
        candle = self._engine.candles(symbol, timeframe, *self._forming_span(timeframe))[-1]
        message = kline_event(candle, self._engine.now, closed=True)
        message["k"] |= changes
        self._hub.publish(f"{symbol.lower()}@kline_{timeframe}", message)
        return message

    def _forget_all_but(self, wanted: set[str]) -> None:
        """A reader that comes later begins with the state that is then, not with what passed meanwhile."""
        memories: tuple[dict[str, Any], ...] = (
            self._next_close,
            self._sent_at,
            self._last_best,
            self._diffs,
            self._partial_ids,
            self._traded_until,
        )
        for memory in memories:
            for name in [name for name in memory if name not in wanted]:
                del memory[name]

    # -- candles and prices ----------------------------------------------------------------------------------------

    def _publish_klines(self, name: str, stream: MarketStream, wall_seconds: float) -> None:
        now = self._engine.now
        try:
            forming_open, end = self._forming_span(stream.timeframe)
            following = self._next_close.setdefault(name, forming_open)
            candles = self._engine.candles(stream.symbol, stream.timeframe, following, end)
        except (ExchangeError, InvalidInputError):
            return  # an unknown interval: silent, too
        closed = [candle for candle in candles if candle.close_time <= now]
        for candle in closed:
            self._hub.publish(name, kline_event(candle, now, closed=True))
            self._next_close[name] = candle.close_time
        if len(candles) > len(closed) and self._is_due(name, stream.pace, wall_seconds):
            self._hub.publish(name, kline_event(candles[-1], now, closed=False))

    def _forming_span(self, timeframe: str) -> tuple[datetime, datetime]:
        """Return start and end of the slot of ``timeframe`` that holds the present."""
        length = timeframe_duration(timeframe)
        start = slot_start(self._engine.now, length)
        return start, start + length

    def _publish_mark(self, name: str, stream: MarketStream, wall_seconds: float) -> None:
        if self._is_due(name, stream.pace, wall_seconds):
            self._hub.publish(name, mark_event(self._engine.quote(stream.symbol)))

    # -- book ------------------------------------------------------------------------------------------------------

    def _publish_best(self, name: str, stream: MarketStream, _wall_seconds: float) -> None:
        quote = self._engine.quote(stream.symbol)
        best = (quote.bid, quote.ask)
        if self._last_best.get(name) != best:
            self._last_best[name] = best
            self._hub.publish(name, book_ticker_event(quote, self._engine.update_id(stream.symbol)))

    def _publish_depth(self, name: str, stream: MarketStream, wall_seconds: float) -> None:
        if not self._is_due(name, stream.pace, wall_seconds):
            return
        book = self._book(stream.symbol)
        diff = self._diffs.setdefault(name, DepthDiffs(book)).advance(book)
        if diff is not None:
            self._hub.publish(name, depth_event(stream.symbol, diff, self._engine.now))

    def _publish_partial_depth(self, name: str, stream: MarketStream, wall_seconds: float) -> None:
        update_id = self._engine.update_id(stream.symbol)
        previous = self._partial_ids.get(name, update_id - 1)
        if update_id == previous or not self._is_due(name, stream.pace, wall_seconds):
            return
        self._partial_ids[name] = update_id
        bids, asks = self._engine.depth(stream.symbol, stream.levels)
        best = DepthDiff(previous + 1, update_id, previous, tuple(bids), tuple(asks))
        self._hub.publish(name, depth_event(stream.symbol, best, self._engine.now))

    def _book(self, symbol: str) -> DepthBook:
        return DepthBook.of(self._engine.update_id(symbol), *self._engine.depth(symbol, LEVELS))

    # -- trades ----------------------------------------------------------------------------------------------------

    def _publish_trades(self, name: str, stream: MarketStream, _wall_seconds: float) -> None:
        for trade in self._new_trades(name, stream.symbol):
            self._hub.publish(name, trade_event(trade, self._engine.now))

    def _publish_agg_trades(self, name: str, stream: MarketStream, wall_seconds: float) -> None:
        if self._is_due(name, stream.pace, wall_seconds):
            for event in agg_trade_events(self._new_trades(name, stream.symbol), self._engine.now):
                self._hub.publish(name, event)

    def _new_trades(self, name: str, symbol: str) -> list[Trade]:
        now = self._engine.now
        since = self._traded_until.get(name, now)
        self._traded_until[name] = now
        return self._engine.trades(symbol, since, now)

    def _is_due(self, name: str, pace: float, wall_seconds: float) -> bool:
        if wall_seconds - self._sent_at.get(name, float("-inf")) < pace:
            return False
        self._sent_at[name] = wall_seconds
        return True
