"""How much the portfolio could lose: value at risk and expected shortfall, from history and from a normal model.

Losses are positive, USDT. A figure at level 0.99 is the loss that 99 of 100 horizons stay below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from services.exec_risk_service.domain.return_panel import Floats, ReturnPanel

#: The levels that are reported.
LEVELS = (0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Horizon:
    """How far the figures look ahead.

    Attributes:
        candles: Number of candles; losses grow with its square root.
        assumed_volatility: Deviation of the return over the whole horizon of a symbol without history, a fraction.
    """

    candles: float
    assumed_volatility: float

    @property
    def scale(self) -> float:
        """Factor from one candle to the horizon."""
        return math.sqrt(self.candles)


def horizon_of(length: timedelta, candle: timedelta, assumed_volatility: float) -> Horizon:
    """Return the horizon of ``length`` of market time on candles of length ``candle``."""
    return Horizon(length / candle, assumed_volatility)


@dataclass(frozen=True, slots=True)
class TailRisk:
    """What one portfolio may lose at one level, USDT.

    Attributes:
        level: 0.95 or 0.99.
        historical: Value at risk of the returns that were.
        parametric: Value at risk of normal returns with the same covariance.
        historical_shortfall: Mean loss beyond the historical figure; likewise ``parametric_shortfall``.
    """

    level: float
    historical: float
    parametric: float
    historical_shortfall: float
    parametric_shortfall: float

    @property
    def value_at_risk(self) -> float:
        """The larger of the two: neither a calm past nor a thin tail makes a portfolio look safe."""
        return max(self.historical, self.parametric)


def tail_risk(exposures: Mapping[str, float], panel: ReturnPanel, horizon: Horizon, level: float) -> TailRisk:
    """Return the risk of ``exposures`` (signed, USDT).

    A symbol that ``panel`` does not know moves with the assumed volatility, against us, together with all others.
    """
    vector, unknown = panel.split(exposures)
    quantile, shortfall = normal_tail(level)
    historical = historical_shortfall = deviation = 0.0
    if vector.any():
        losses = worst_losses(panel.returns @ vector, level)
        historical = max(0.0, min(losses)) * horizon.scale
        historical_shortfall = max(0.0, sum(losses) / len(losses)) * horizon.scale
        deviation = portfolio_deviation(vector, panel.covariance) * horizon.scale
    blind = unknown * horizon.assumed_volatility
    return TailRisk(
        level=level,
        historical=historical + quantile * blind,
        parametric=quantile * (deviation + blind),
        historical_shortfall=historical_shortfall + shortfall * blind,
        parametric_shortfall=shortfall * (deviation + blind),
    )


def value_at_risk_ceiling(
    exposures: Mapping[str, Decimal], panel: ReturnPanel, horizon: Horizon, level: float
) -> float:
    """Return what the value at risk cannot exceed, USDT: every symbol at its worst at once. Quick, for most orders."""
    quantile, _ = normal_tail(level)
    unknown = quantile * horizon.assumed_volatility
    total = 0.0
    for symbol, exposure in exposures.items():
        extreme = panel.extremes.get(symbol)
        worst = unknown if extreme is None else max(extreme[0], quantile * extreme[1]) * horizon.scale
        total += abs(float(exposure)) * worst
    return total


def worst_losses(profits: Floats, level: float) -> list[float]:
    """Return the losses beyond ``level``: at least one, negative where even the worst was a profit."""
    count = max(1, math.floor(len(profits) * (1.0 - level) + 1e-9))
    return [-float(profit) for profit in np.partition(profits, count - 1)[:count]]


def portfolio_deviation(vector: Floats, covariance: Floats) -> float:
    """Return the standard deviation of the portfolio's profit per candle, USDT."""
    return math.sqrt(max(0.0, float(vector @ covariance @ vector)))


def effective_exposure(exposures: Mapping[str, float], panel: ReturnPanel) -> float:
    """Return the size of the one position that would weigh as much as all together, USDT.

    The square root of the sum of ``e_i * e_j * correlation_ij``: the gross value when everything moves as one, less
    when positions offset or ignore each other. What is unknown is added without sign.
    """
    vector, unknown = panel.split(exposures)
    return math.sqrt(max(0.0, float(vector @ panel.correlation @ vector))) + unknown


@lru_cache(maxsize=8)
def normal_tail(level: float) -> tuple[float, float]:
    """Return the quantile of a standard normal loss at ``level``, and its mean beyond that."""
    normal = NormalDist()
    quantile = normal.inv_cdf(level)
    return quantile, normal.pdf(quantile) / (1.0 - level)
