"""The way a price travels inside one candle: open, nearer extreme, other extreme, close, in a fixed number of steps."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from shared.trading.candles import Candle

#: Steps per candle; a one-minute candle moves once per second. Divisible by 3, so that each leg has as many.
STEPS = 60


@dataclass(frozen=True, slots=True)
class CandlePath:
    """One candle as whole ticks, so that every step is exact.

    Attributes:
        candle: The candle itself.
        nodes: Ticks at the open, first extreme, second extreme and close.
    """

    candle: Candle
    nodes: tuple[int, int, int, int]

    @classmethod
    def of(cls, candle: Candle, tick_size: Decimal) -> CandlePath:
        """Return the path of ``candle`` on the grid of ``tick_size``."""
        tick = float(tick_size)
        first, high, low, last = (
            max(1, round(price / tick)) for price in (candle.open, candle.high, candle.low, candle.close)
        )
        high, low = max(high, first, last), min(low, first, last)
        nearer_is_high = high - first <= first - low
        extremes = (high, low) if nearer_is_high else (low, high)
        return cls(candle, (first, *extremes, last))

    @property
    def low(self) -> int:
        return min(self.nodes)

    @property
    def high(self) -> int:
        return max(self.nodes)

    def ticks_at(self, step: int) -> int:
        """Return the traded price at ``step`` (0 to ``STEPS`` - 1), in ticks: 0 is the open, the last the close."""
        start, first, second, end = self.nodes
        leg = STEPS // 3
        if step < leg:
            return _between(start, first, step, leg)
        if step < 2 * leg:
            return _between(first, second, step - leg, leg)
        return _between(second, end, step - 2 * leg, leg - 1)

    def mark_ticks_at(self, step: int) -> Decimal:
        """Return the mark price in ticks: the straight line from open to close, which no wick moves."""
        start, end = self.nodes[0], self.nodes[3]
        return start + Decimal((end - start) * step) / (STEPS - 1)

    def forming(self, step: int, tick_size: Decimal) -> Candle:
        """Return what is known of the candle at ``step``; the whole candle at the last one."""
        if step >= STEPS - 1:
            return self.candle
        tick = float(tick_size)
        last = self.ticks_at(step)
        leg = STEPS // 3
        # The extremes lie on the nodes, so the seen range is spanned by passed nodes and the price now.
        seen = [last, *self.nodes[: 1 + step // leg]]
        candle = self.candle
        return Candle(
            symbol=candle.symbol,
            timeframe=candle.timeframe,
            open_time=candle.open_time,
            open=candle.open,
            high=_clean(max(seen) * tick),
            low=_clean(min(seen) * tick),
            close=_clean(last * tick),
            volume=round(candle.volume * (step + 1) / STEPS, 8),
        )


def _between(start: int, end: int, step: int, steps: int) -> int:
    return start + (end - start) * step // steps


def _clean(price: float) -> float:
    """Drop the binary dust of tick x count: 1012 x 0.1 is 101.2."""
    return round(price, 8)
