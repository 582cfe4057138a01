"""One bar of the market."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.trading.instruments import timeframe_duration


@dataclass(frozen=True, slots=True)
class Candle:
    """Prices and volume of one closed time slot.

    Attributes:
        symbol: Venue symbol, ``BTCUSDT``.
        timeframe: Length, for example ``1m``.
        open_time: Start of the slot, aware UTC; the slot ends ``timeframe`` later.
        open: First price, USDT; likewise ``high``, ``low`` and ``close``.
        volume: Traded quantity, base asset.
    """

    symbol: str
    timeframe: str
    open_time: datetime
    open: float
    high: float
    low: float
    close: float
    volume: float

    @property
    def close_time(self) -> datetime:
        """Start of the next slot: the first moment at which this candle is final."""
        return self.open_time + timeframe_duration(self.timeframe)


def missing_open_times(after: datetime, before: datetime, timeframe: str) -> list[datetime]:
    """Return the open times strictly between two candles' open times, oldest first."""
    step = timeframe_duration(timeframe)
    gap = (before - after) // step
    return [after + step * number for number in range(1, gap)]


def expected_last_open(now: datetime, timeframe: str) -> datetime:
    """Return the open time of the newest candle that is closed at ``now``."""
    step = timeframe_duration(timeframe)
    epoch = datetime(1970, 1, 1, tzinfo=now.tzinfo)
    return epoch + step * ((now - epoch) // step) - timedelta(seconds=step.total_seconds())
