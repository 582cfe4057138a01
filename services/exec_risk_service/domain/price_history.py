"""Closed candles of one symbol that decisions look back on, and the figures that follow from them.

Statistics are floats; who makes an order price of one rounds it to the tick as a Decimal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any, TypeVar

from shared.trading.candles import Candle

FigureT = TypeVar("FigureT")

#: Candles per symbol that are kept: enough for every figure here, little enough to hold for fifty symbols.
HISTORY_CANDLES = 200


@dataclass(frozen=True)
class PriceHistory:
    """The newest closed candles of one symbol and timeframe, oldest first. No slots: figures are computed once.

    Attributes:
        candles: At most ``HISTORY_CANDLES``, strictly rising in time; there may be gaps.
    """

    candles: tuple[Candle, ...] = ()

    @property
    def newest(self) -> Candle | None:
        """Return the last closed candle; None before the first."""
        return self.candles[-1] if self.candles else None

    def with_candles(self, candles: Iterable[Candle]) -> PriceHistory:
        """Return the history after ``candles``; what is not newer than the newest one is left out.

        Candles of another timeframe begin a new history: the two cannot be compared.
        """
        kept = self.candles
        for candle in candles:
            if kept and candle.timeframe != kept[-1].timeframe and candle.close_time > kept[-1].close_time:
                kept = ()
            if not kept or candle.open_time > kept[-1].open_time:
                kept = (*kept, candle)[-HISTORY_CANDLES:]
        return self if kept is self.candles else replace(self, candles=kept)

    def newer_than(self, earlier: PriceHistory | None) -> tuple[Candle, ...]:
        """Return the candles that ``earlier`` did not have."""
        if earlier is None or earlier.newest is None or earlier.newest.timeframe != self.candles[-1].timeframe:
            return self.candles
        last = earlier.newest.open_time
        return tuple(candle for candle in self.candles if candle.open_time > last)

    # -- figures -----------------------------------------------------------------------------------------------------

    def returns(self) -> tuple[float, ...]:
        """Return close-to-close returns, fractions, oldest first; a gap in the candles gives none."""
        return tuple(self.timed_returns.values())

    @cached_property
    def timed_returns(self) -> Mapping[datetime, float]:
        """The same returns by the close of their candle, so that two symbols can be laid side by side."""
        return MappingProxyType(
            {
                candle.close_time: candle.close / before.close - 1.0
                for before, candle in zip(self.candles, self.candles[1:], strict=False)
                if before.close_time == candle.open_time
            }
        )

    def volatility(self) -> float | None:
        """Return the standard deviation of the returns, a fraction per candle; None with fewer than two."""
        return self._volatility

    @cached_property
    def _volatility(self) -> float | None:
        returns = self.returns()
        return stdev(returns) if len(returns) >= 2 else None

    def atr(self, period: int = 14) -> float | None:
        """Return Wilder's average true range, USDT; None with fewer than ``period`` candles.

        Raises:
            ValueError: ``period`` is not above 0.
        """
        if period < 1:
            raise ValueError(f"period must be above 0, was {period}")
        ranges = self._true_ranges
        if len(ranges) < period:
            return None
        average = fmean(ranges[:period])
        for one in ranges[period:]:
            average += (one - average) / period
        return average

    @cached_property
    def _true_ranges(self) -> tuple[float, ...]:
        if not self.candles:
            return ()
        first = self.candles[0]
        return (
            first.high - first.low,
            *(_true_range(before, candle) for before, candle in zip(self.candles, self.candles[1:], strict=False)),
        )


class PriceHistories(Mapping[str, PriceHistory]):
    """The histories of all symbols; never changed, so that what is computed from them is computed once."""

    def __init__(self, by_symbol: Mapping[str, PriceHistory] = MappingProxyType({})) -> None:
        self._by_symbol = dict(by_symbol)
        self._figures: dict[Callable[[Mapping[str, PriceHistory]], Any], Any] = {}

    def __getitem__(self, symbol: str) -> PriceHistory:
        return self._by_symbol[symbol]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_symbol)

    def __len__(self) -> int:
        return len(self._by_symbol)

    def with_candles(self, symbol: str, candles: Iterable[Candle]) -> PriceHistories:
        """Return the histories after ``candles`` of ``symbol``; the same object when none was new."""
        known = self._by_symbol.get(symbol, PriceHistory())
        longer = known.with_candles(candles)
        return self if longer is known else PriceHistories({**self._by_symbol, symbol: longer})

    def figure(self, compute: Callable[[Mapping[str, PriceHistory]], FigureT]) -> FigureT:
        """Return ``compute`` of these histories, computed at the first call."""
        if compute not in self._figures:
            self._figures[compute] = compute(self)
        found: FigureT = self._figures[compute]
        return found


def _true_range(before: Candle, candle: Candle) -> float:
    if before.close_time != candle.open_time:  # what happened in a gap is not the range of one candle
        return candle.high - candle.low
    return max(candle.high, before.close) - min(candle.low, before.close)
