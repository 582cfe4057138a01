"""What past executions of a symbol cost more than their book promised; it is forgotten with time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from shared.trading.money import ZERO

#: Market time after which a measurement counts half.
HALF_LIFE = timedelta(hours=6)
#: Measurements that nothing unusual happened, taken for granted at the start: one bad fill is no rule.
_PRIOR = Decimal(1)
_STEP = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class SlippageMemory:
    """Measured minus expected slippage of one symbol.

    Attributes:
        symbol: Venue symbol.
        total_pct: Sum of the differences, percent each, decayed to ``at``.
        weight: Their number, decayed likewise.
        at: Market time of the newest one.
    """

    symbol: str
    total_pct: Decimal
    weight: Decimal
    at: datetime

    def excess_pct(self, at: datetime) -> Decimal:
        """Return what to add to the slippage that a book promises at market time ``at``, percent; below 0 is better."""
        kept = _decay(at - self.at)
        return (self.total_pct * kept / (self.weight * kept + _PRIOR)).quantize(_STEP)

    def with_measured(self, excess_pct: Decimal, at: datetime) -> SlippageMemory:
        """Return the memory after one more execution."""
        kept = _decay(at - self.at)
        return SlippageMemory(
            symbol=self.symbol,
            total_pct=(self.total_pct * kept + excess_pct).quantize(_STEP),
            weight=(self.weight * kept + 1).quantize(_STEP),
            at=max(at, self.at),
        )


def remembered(memory: SlippageMemory | None, symbol: str, excess_pct: Decimal, at: datetime) -> SlippageMemory:
    """Return ``memory``, or the first one of ``symbol``, after one more execution."""
    start = memory or SlippageMemory(symbol, ZERO, ZERO, at)
    return start.with_measured(excess_pct, at)


def _decay(age: timedelta) -> Decimal:
    halves = Decimal(max(0.0, age.total_seconds())) / Decimal(HALF_LIFE.total_seconds())
    return Decimal(2) ** -halves
