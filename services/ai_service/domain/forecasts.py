"""What a model says about the next candles of one symbol."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ModelStage(StrEnum):
    """How far a model has come."""

    BOOTSTRAP = "bootstrap"  # trained at first start, never compared with another: paper mode only
    CHAMPION = "champion"  # promoted; may trade in every mode


@dataclass(frozen=True, slots=True)
class Forecast:
    """The outlook from the close of one candle.

    Attributes:
        p_up: Calibrated probability, 0 to 1, that the price ends or touches above rather than below.
        expected_return_pct: Expected price change, percent, trading costs not included.
        strength: Share of the model's held-out forecasts that were weaker than this one, 0 to 1.
        barrier_pct: Distance of take profit and stop loss that the model was trained with, percent of price.
    """

    p_up: float
    expected_return_pct: float
    strength: float
    barrier_pct: float
