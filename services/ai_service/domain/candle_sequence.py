"""Which candle of a symbol comes next: what is known already, what is missing, what cannot be true."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

#: A close this many times above or below the one before is asked for again before it is believed.
IMPLAUSIBLE_RATIO = 2.0


class Arrival(Enum):
    """What to do with a candle that arrived."""

    NEXT = "next"  # publish it
    KNOWN = "known"  # it or a later one was published; drop it
    AHEAD = "ahead"  # candles before it are missing
    IMPLAUSIBLE = "implausible"  # ask the exchange again


@dataclass(slots=True)
class CandleSequence:
    """Where the stream of one symbol stands.

    Attributes:
        timeframe: Length of the candles.
        next_open: Open time of the candle that is to be published next.
        last_close: Close of the candle that was published last, USDT; None before the first.
    """

    timeframe: str
    next_open: datetime
    last_close: float | None = None

    def judge(self, candle: Candle) -> Arrival:
        """Return what to do with ``candle`` from the live stream; changes nothing."""
        if candle.open_time < self.next_open:
            return Arrival.KNOWN
        if candle.open_time > self.next_open:
            return Arrival.AHEAD
        if self.last_close is not None:
            ratio = candle.close / self.last_close
            if not 1 / IMPLAUSIBLE_RATIO <= ratio <= IMPLAUSIBLE_RATIO:
                return Arrival.IMPLAUSIBLE
        return Arrival.NEXT

    def advance(self, candle: Candle) -> None:
        """Note that ``candle`` was published."""
        self.next_open = candle.close_time
        self.last_close = candle.close

    def skip_to(self, open_time: datetime) -> int:
        """Give up the candles before ``open_time`` and return how many there are."""
        given_up = (open_time - self.next_open) // timeframe_duration(self.timeframe)
        self.next_open = max(self.next_open, open_time)
        return max(0, given_up)
