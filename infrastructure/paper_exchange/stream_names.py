"""What a stream's name means, and which of Binance's three kinds of address carries it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType


class Category(StrEnum):
    """Kind of address; a stream is silent on an address of another kind."""

    PUBLIC = "public"
    MARKET = "market"
    PRIVATE = "private"
    #: Addresses without a kind, as they were until April 2026: they connect, and carry public streams only.
    LEGACY = "legacy"

    def carries(self, other: Category) -> bool:
        """Tell whether streams of ``other`` are heard on this kind of address."""
        return other is self or (self is Category.LEGACY and other is Category.PUBLIC)


class Kind(StrEnum):
    """What a market stream tells."""

    KLINE = "kline"
    AGG_TRADE = "aggTrade"
    TRADE = "trade"
    BOOK_TICKER = "bookTicker"
    MARK_PRICE = "markPrice"
    DEPTH = "depth"  # differences
    PARTIAL_DEPTH = "partialDepth"  # the best levels again and again


_CATEGORIES: Mapping[Kind, Category] = MappingProxyType(
    {
        Kind.KLINE: Category.MARKET,
        Kind.AGG_TRADE: Category.MARKET,
        Kind.MARK_PRICE: Category.MARKET,
        Kind.TRADE: Category.PUBLIC,
        Kind.BOOK_TICKER: Category.PUBLIC,
        Kind.DEPTH: Category.PUBLIC,
        Kind.PARTIAL_DEPTH: Category.PUBLIC,
    }
)
_DEPTH_PACES = MappingProxyType({"": 0.25, "@100ms": 0.1, "@250ms": 0.25, "@500ms": 0.5})
_MARK_PACES = MappingProxyType({"": 3.0, "@1s": 1.0})


@dataclass(frozen=True, slots=True)
class MarketStream:
    """A market stream, read from its name.

    Attributes:
        symbol: Venue symbol.
        pace: Wall seconds between two messages; 0 sends each change at once.
        timeframe: Of klines; empty otherwise.
        levels: Of a partial depth; 0 otherwise.
    """

    kind: Kind
    symbol: str
    pace: float
    timeframe: str = ""
    levels: int = 0

    @property
    def category(self) -> Category:
        return _CATEGORIES[self.kind]


_READERS: tuple[tuple[re.Pattern[str], Callable[[str, str, str], MarketStream]], ...] = (
    (
        re.compile(r"^([a-z0-9]+)@kline_(\w+)()$"),
        lambda symbol, frame, _: MarketStream(Kind.KLINE, symbol, 0.25, timeframe=frame),
    ),
    (re.compile(r"^([a-z0-9]+)@aggTrade()()$"), lambda symbol, *_: MarketStream(Kind.AGG_TRADE, symbol, 0.1)),
    (re.compile(r"^([a-z0-9]+)@trade()()$"), lambda symbol, *_: MarketStream(Kind.TRADE, symbol, 0.0)),
    (re.compile(r"^([a-z0-9]+)@bookTicker()()$"), lambda symbol, *_: MarketStream(Kind.BOOK_TICKER, symbol, 0.0)),
    (
        re.compile(r"^([a-z0-9]+)@markPrice()(@1s|)$"),
        lambda symbol, _, pace: MarketStream(Kind.MARK_PRICE, symbol, _MARK_PACES[pace]),
    ),
    (
        re.compile(r"^([a-z0-9]+)@depth()(@100ms|@250ms|@500ms|)$"),
        lambda symbol, _, pace: MarketStream(Kind.DEPTH, symbol, _DEPTH_PACES[pace]),
    ),
    (
        re.compile(r"^([a-z0-9]+)@depth(5|10|20)(@100ms|@250ms|@500ms|)$"),
        lambda symbol, count, pace: MarketStream(Kind.PARTIAL_DEPTH, symbol, _DEPTH_PACES[pace], levels=int(count)),
    ),
)


@lru_cache(maxsize=4096)
def market_stream(name: str) -> MarketStream | None:
    """Return what ``name`` means; None for a name that stands for nothing here."""
    for pattern, read in _READERS:
        if match := pattern.match(name):
            return read(match[1].upper(), match[2], match[3])
    return None
