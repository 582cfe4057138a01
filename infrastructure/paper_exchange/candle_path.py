"""The way a price travels inside one candle: open, nearer extreme, other extreme, close, in a fixed number of steps."""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from shared.trading.candles import Candle

#: Steps per candle; a one-minute candle moves once per second. Divisible by 3, so that each leg has as many.
STEPS = 60
_LEG = STEPS // 3
#: How far the price strays from the straight line of a leg, as a share of the candle's range.
_STRAY = 0.12


@dataclass(frozen=True, slots=True)
class CandlePath:
    """One candle as whole ticks, so that every step is exact.

    Attributes:
        candle: The candle itself.
        nodes: Ticks at the open, first extreme, second extreme and close.
        seed: Decides how the price strays between the nodes; equal candles with equal seeds have equal paths.
    """

    candle: Candle
    nodes: tuple[int, int, int, int]
    seed: int

    @classmethod
    def of(cls, candle: Candle, tick_size: Decimal, seed: int = 1) -> CandlePath:
        """Return the path of ``candle`` on the grid of ``tick_size`` in the market of ``seed``."""
        tick = float(tick_size)
        first, high, low, last = (
            max(1, round(price / tick)) for price in (candle.open, candle.high, candle.low, candle.close)
        )
        high, low = max(high, first, last), min(low, first, last)
        nearer_is_high = high - first <= first - low
        extremes = (high, low) if nearer_is_high else (low, high)
        own_seed = zlib.crc32(f"{seed}|{candle.symbol}|{candle.open_time.timestamp():.0f}".encode())
        return cls(candle, (first, *extremes, last), own_seed)

    @property
    def low(self) -> int:
        return min(self.nodes)

    @property
    def high(self) -> int:
        return max(self.nodes)

    def ticks_at(self, step: int) -> int:
        """Return the traded price at ``step`` (0 to ``STEPS`` - 1), in ticks: 0 is the open, the last the close."""
        if step >= STEPS - 1:
            return self.nodes[3]
        return _walk(self.nodes, self.seed)[step]

    def mark_ticks_at(self, step: int) -> Decimal:
        """Return the mark price in ticks: the straight line from open to close, which no wick moves."""
        start, end = self.nodes[0], self.nodes[3]
        return start + Decimal((end - start) * step) / (STEPS - 1)

    def forming(self, step: int, tick_size: Decimal) -> Candle:
        """Return what is known of the candle at ``step``; the whole candle at the last one."""
        if step >= STEPS - 1:
            return self.candle
        tick = float(tick_size)
        seen = _walk(self.nodes, self.seed)[: step + 1]
        candle = self.candle
        return Candle(
            symbol=candle.symbol,
            timeframe=candle.timeframe,
            open_time=candle.open_time,
            open=candle.open,
            high=_clean(max(seen) * tick),
            low=_clean(min(seen) * tick),
            close=_clean(seen[-1] * tick),
            volume=round(candle.volume * (step + 1) / STEPS, 8),
        )


@lru_cache(maxsize=512)  # a market asks for the steps of one path after the other
def _walk(nodes: tuple[int, int, int, int], seed: int) -> tuple[int, ...]:
    """Return the price of every step: exactly on the nodes, between them straying within the candle's range."""
    rng = random.Random(seed)  # noqa: S311 - a market, no secret
    low, high = min(nodes), max(nodes)
    stray = (high - low) * _STRAY
    start, first, second, end = nodes
    steps: list[int] = []
    for begin, target, length in ((start, first, _LEG), (first, second, _LEG), (second, end, _LEG - 1)):
        bridge = _bridge(rng, length)
        line = (begin + (target - begin) * step / length + stray * bridge[step] for step in range(length))
        steps += [min(high, max(low, round(ticks))) for ticks in line]
    return (*steps, end)


def _bridge(rng: random.Random, length: int) -> list[float]:
    """Return a random walk of ``length`` steps that starts at 0 and would be back at 0 after the last."""
    walk = [0.0]
    for _ in range(length):
        walk.append(walk[-1] + rng.uniform(-1, 1))
    return [(walk[step] - walk[length] * step / length) / length**0.5 for step in range(length)]


def _clean(price: float) -> float:
    """Drop the binary dust of tick x count: 1012 x 0.1 is 101.2."""
    return round(price, 8)
