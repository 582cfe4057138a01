"""Messages of the market streams with Binance's keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from infrastructure.paper_exchange.depth_diffs import DepthDiff
from infrastructure.paper_exchange.payloads import levels_json, number
from infrastructure.paper_exchange.records import Quote, Trade
from infrastructure.paper_exchange.user_events import milliseconds, plain
from shared.trading.candles import Candle
from shared.trading.money import ZERO
from shared.trading.orders import Side

#: One message of a market stream, ready for JSON.
MarketEvent = dict[str, Any]


def kline_event(candle: Candle, now: datetime, *, closed: bool) -> MarketEvent:
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


def book_ticker_event(quote: Quote, update_id: int) -> MarketEvent:
    """Return a ``bookTicker`` message."""
    return {
        "e": "bookTicker",
        "u": update_id,
        "s": quote.symbol,
        "b": plain(quote.bid.price),
        "B": plain(quote.bid.quantity),
        "a": plain(quote.ask.price),
        "A": plain(quote.ask.quantity),
        "T": milliseconds(quote.time),
        "E": milliseconds(quote.time),
    }


def mark_event(quote: Quote) -> MarketEvent:
    """Return a ``markPriceUpdate`` message with the coming funding."""
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


def depth_event(symbol: str, diff: DepthDiff, now: datetime) -> MarketEvent:
    """Return a ``depthUpdate`` message."""
    return {
        "e": "depthUpdate",
        "E": milliseconds(now),
        "T": milliseconds(now),
        "s": symbol,
        "U": diff.first_id,
        "u": diff.last_id,
        "pu": diff.previous_id,
        "b": levels_json(diff.bids),
        "a": levels_json(diff.asks),
    }


def trade_event(trade: Trade, now: datetime) -> MarketEvent:
    """Return a ``trade`` message."""
    return {
        "e": "trade",
        "E": milliseconds(now),
        "T": milliseconds(trade.time),
        "s": trade.symbol,
        "t": trade.trade_id,
        "p": plain(trade.price),
        "q": plain(trade.quantity),
        "X": "MARKET",
        "m": trade.taker is Side.SELL,
    }


def agg_trade_events(trades: Iterable[Trade], now: datetime) -> list[MarketEvent]:
    """Return ``aggTrade`` messages: neighbours of one price and one taker together."""
    return [
        _agg_trade_event(list(group), now) for _, group in groupby(trades, key=lambda trade: (trade.price, trade.taker))
    ]


def _agg_trade_event(trades: Sequence[Trade], now: datetime) -> MarketEvent:
    first, last = trades[0], trades[-1]
    return {
        "e": "aggTrade",
        "E": milliseconds(now),
        "s": first.symbol,
        "a": first.trade_id,
        "p": plain(first.price),
        "q": plain(sum((trade.quantity for trade in trades), ZERO)),
        "f": first.trade_id,
        "l": last.trade_id,
        "T": milliseconds(last.time),
        "m": first.taker is Side.SELL,
    }
