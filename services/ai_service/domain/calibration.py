"""From what a model's raw score says to how often it was right (Platt scaling with a neutral prior)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.ai_service.domain.windows import Floats
from shared.errors import InvalidInputError

#: With no skill measured the slope would be 0 and every probability 0.5. This little keeps the order of the forecasts
#: visible: a raw probability of 0.60 then reads 0.505.
MIN_SLOPE = 0.05
#: A model is never made more certain than it said it was.
MAX_SLOPE = 1.0

_NEWTON_STEPS = 30
_STRENGTH_STEPS = 100


@dataclass(frozen=True, slots=True)
class Calibration:
    """How to read the raw scores (log odds) of one model; fitted on forecasts it made for data it had not seen.

    Attributes:
        centre: Raw score that counts as undecided: the median held-out score. The drift of the training weeks is
            thereby not foretold to go on.
        slope: Trust in the raw score, ``MIN_SLOPE`` to ``MAX_SLOPE``.
        strengths: Distances from the centre at the percentiles 0, 1, .. 100 of the held-out scores, ascending.
    """

    centre: float
    slope: float
    strengths: tuple[float, ...]

    def probability(self, raw_score: float) -> float:
        """Return the calibrated probability of a rise, strictly between 0 and 1."""
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, self.slope * (raw_score - self.centre)))))

    def strength(self, raw_score: float) -> float:
        """Return the share of held-out scores that lay nearer to the centre, 0 to 1."""
        position = int(np.searchsorted(self.strengths, abs(raw_score - self.centre), side="left"))
        return min(position, len(self.strengths) - 1) / (len(self.strengths) - 1)


def fit_calibration(raw_scores: Floats, went_up: NDArray[np.bool_]) -> Calibration:
    """Return the calibration that fits held-out ``raw_scores`` (log odds) to what happened.

    Raises:
        InvalidInputError: There are no scores, or not as many as outcomes.
    """
    if len(raw_scores) == 0 or len(raw_scores) != len(went_up):
        raise InvalidInputError(f"{len(raw_scores)} scores and {len(went_up)} outcomes cannot be calibrated")
    centre = float(np.median(raw_scores))
    distances = raw_scores - centre
    slope = max(MIN_SLOPE, min(MAX_SLOPE, _logistic_slope(distances, went_up)))
    quantiles = np.quantile(np.abs(distances), np.linspace(0, 1, _STRENGTH_STEPS + 1))
    return Calibration(centre=centre, slope=slope, strengths=tuple(float(value) for value in quantiles))


def _logistic_slope(distances: Floats, went_up: NDArray[np.bool_]) -> float:
    """Newton's method for the one slope of a logistic regression without intercept."""
    slope, outcome = 0.0, went_up.astype(np.float64)
    for _ in range(_NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(slope * distances, -30, 30)))
        curvature = float((probability * (1 - probability) * distances**2).sum())
        if curvature < 1e-12:
            break
        step = float(((outcome - probability) * distances).sum()) / curvature
        slope = max(-10.0, min(10.0, slope + step))
        if abs(step) < 1e-10:
            break
    return slope
