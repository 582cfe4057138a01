"""What a model learns to foresee: which of two barriers around the close the price touches first (triple barrier).

The barriers stand at the same distance above and below, so one label serves a buyer and a seller. The distance grows
with the true range and with the square root of the horizon, as a random walk does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.ai_service.domain.windows import CandleColumns, Floats
from shared.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class BarrierRule:
    """Where the three barriers stand.

    Attributes:
        horizon_candles: The vertical barrier: candles after which the close decides.
        range_multiple: Barrier distance in average true ranges times the square root of the horizon.
        min_distance_pct: Smallest distance, percent of price; keeps barriers wide against trading costs.
    """

    horizon_candles: int
    range_multiple: float
    min_distance_pct: float

    def __post_init__(self) -> None:
        if self.horizon_candles < 1 or not self.range_multiple > 0 or not self.min_distance_pct > 0:
            raise InvalidInputError(f"all three numbers of a barrier rule must be above 0, was {self}")

    def distance_pct(self, atr_pct: float) -> float:
        """Return the distance of both barriers in percent of price for an average true range in percent of price."""
        return max(self.min_distance_pct, self.range_multiple * math.sqrt(self.horizon_candles) * atr_pct)


@dataclass(frozen=True, slots=True)
class BarrierLabels:
    """Outcome per entry, in the order asked for.

    Attributes:
        direction: 1 up, -1 down, 0 undecided (both barriers inside one candle, no move at all, or no data).
        gain: Price change from the entry to the touch, in units of the barrier distance, -1 to 1.
        last_index: Index of the last candle that the outcome depends on; what training must not overlap.
    """

    direction: NDArray[np.int8]
    gain: Floats
    last_index: NDArray[np.int64]


def label_barriers(
    series: CandleColumns, entries: NDArray[np.int64], atr_pct: Floats, rule: BarrierRule
) -> BarrierLabels:
    """Return what followed each entry at the close of candle ``entries[i]``.

    Args:
        series: Consecutive candles.
        entries: Indexes into ``series``; those without a whole horizon behind them come out undecided.
        atr_pct: Average true range at each entry, percent of price, same length as ``entries``.
        rule: Distances and horizon.
    """
    outcomes = [
        _outcome(series, int(entry), rule.distance_pct(float(width)) / 100, rule.horizon_candles)
        for entry, width in zip(entries, atr_pct, strict=True)
    ]
    return BarrierLabels(
        direction=np.array([direction for direction, _, _ in outcomes], dtype=np.int8),
        gain=np.array([gain for _, gain, _ in outcomes], dtype=np.float64),
        last_index=np.array([last for _, _, last in outcomes], dtype=np.int64),
    )


def _outcome(series: CandleColumns, entry: int, distance: float, horizon: int) -> tuple[int, float, int]:
    end = entry + horizon
    if end >= len(series):
        return 0, 0.0, end
    price = float(series.close[entry])
    path = slice(entry + 1, end + 1)
    up = _first(series.high[path] >= price * (1 + distance))
    down = _first(series.low[path] <= price * (1 - distance))
    if up is None and down is None:
        gain = (float(series.close[end]) / price - 1) / distance
        return int(np.sign(gain)), gain, end
    if up == down:  # nobody can tell from one candle which side came first
        return 0, 0.0, end
    if down is None or (up is not None and up < down):
        assert up is not None
        return 1, 1.0, entry + 1 + up
    return -1, -1.0, entry + 1 + down


def _first(hits: NDArray[np.bool_]) -> int | None:
    position = int(hits.argmax())
    return position if hits[position] else None
