"""Returns of several symbols side by side: what correlation and value at risk are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.exec_risk_service.domain.price_history import PriceHistory

Floats = NDArray[np.float64]

#: Fewer common returns than this tell nothing: the symbol counts as unknown.
MIN_RETURNS = 30


@dataclass(frozen=True, slots=True, eq=False)
class ReturnPanel:
    """Aligned returns per candle; a symbol that is not in it is unknown, and unknown counts as the worst.

    Attributes:
        columns: Column of each symbol.
        returns: One row per candle that every symbol has, oldest first; fractions.
        covariance: Of the columns, per candle.
        extremes: Of each symbol, the largest return without sign, and the deviation.
        correlation: Of the columns; a symbol that never moved has 1 with itself and 0 with others.
    """

    columns: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    returns: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    covariance: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    correlation: Floats = field(default_factory=lambda: np.zeros((0, 0)))

    extremes: Mapping[str, tuple[float, float]] = field(default_factory=lambda: MappingProxyType({}))

    def correlation_of(self, one: str, other: str) -> float | None:
        """Return the correlation of two symbols' returns, -1 to 1; None when it is not known."""
        if one == other:
            return 1.0
        first, second = self.columns.get(one), self.columns.get(other)
        return None if first is None or second is None else float(self.correlation[first, second])

    def beta_of(self, symbol: str, hedge: str) -> float | None:
        """Return how much ``symbol`` moved per move of ``hedge``; None when it is not known."""
        if symbol == hedge:
            return 1.0
        row, column = self.columns.get(symbol), self.columns.get(hedge)
        if row is None or column is None or self.covariance[column, column] <= 0:
            return None
        return float(self.covariance[row, column] / self.covariance[column, column])

    def split(self, exposures: Mapping[str, float]) -> tuple[Floats, float]:
        """Return the exposures by column, and the sum without sign of those that have none."""
        vector = np.zeros(len(self.columns))
        unknown = 0.0
        for symbol, exposure in exposures.items():
            column = self.columns.get(symbol)
            if column is None:
                unknown += abs(exposure)
            else:
                vector[column] = exposure
        return vector, unknown


def panel_of(history: Mapping[str, PriceHistory]) -> ReturnPanel:
    """Lay the returns of ``history`` side by side on the candles that all of them have.

    A symbol with less than half of the longest history is left out, so that a new listing does not shorten all others.
    """
    series = {symbol: one.timed_returns for symbol, one in sorted(history.items())}
    longest = max((len(returns) for returns in series.values()), default=0)
    known = {s: returns for s, returns in series.items() if len(returns) >= max(MIN_RETURNS, longest / 2)}
    times = _common_times(known)
    if len(times) < MIN_RETURNS:
        return ReturnPanel()
    returns = np.array([[known[symbol][time] for symbol in known] for time in times], dtype=np.float64)
    covariance = np.atleast_2d(np.cov(returns, rowvar=False))
    return ReturnPanel(
        columns=MappingProxyType({symbol: column for column, symbol in enumerate(known)}),
        returns=returns,
        covariance=covariance,
        correlation=_correlation(covariance),
        extremes=MappingProxyType(dict(zip(known, _extremes(returns, covariance), strict=True))),
    )


def _common_times(series: Mapping[str, Mapping[datetime, Any]]) -> list[datetime]:
    if not series:
        return []
    first, *others = series.values()
    return [time for time in first if all(time in other for other in others)]


def _extremes(returns: Floats, covariance: Floats) -> list[tuple[float, float]]:
    largest, deviation = np.abs(returns).max(axis=0), np.sqrt(np.diag(covariance))
    return [(float(one), float(other)) for one, other in zip(largest, deviation, strict=True)]


def _correlation(covariance: Floats) -> Floats:
    deviation = np.sqrt(np.diag(covariance))
    scale = np.where(deviation > 0, deviation, 1.0)
    correlation = np.clip(covariance / np.outer(scale, scale), -1.0, 1.0)
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation, dtype=np.float64)
