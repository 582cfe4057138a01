"""Where the exchange's market comes from: candles of a few symbols and one timeframe."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Protocol

from shared.trading.candles import Candle


class CandleSource(Protocol):
    """Candles by time; the answer for a slot never depends on what else was asked.

    Attributes:
        symbols: Venue symbols, in the order in which they were asked for.
        timeframe: Length of every candle, for example ``1m``.
    """

    @property
    def symbols(self) -> tuple[str, ...]: ...

    @property
    def timeframe(self) -> str: ...

    def first_open(self, symbol: str) -> datetime:
        """Return the open time of the oldest candle, aware UTC."""
        ...

    def last_open(self, symbol: str) -> datetime | None:
        """Return the open time of the newest candle, or None when the market never ends."""
        ...

    def candles(self, symbol: str, start: datetime, end: datetime) -> list[Candle]:
        """Return the candles with ``start <= open_time < end``, oldest first."""
        ...

    def funding_rate(self, symbol: str, moment: datetime) -> Decimal | None:
        """Return the funding rate settled at ``moment`` (a multiple of 8 hours), or None when it is not known."""
        ...
