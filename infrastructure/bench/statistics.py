"""The few numbers that say what a series of measurements came to. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from shared.errors import InvalidInputError


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that ``share`` of ``values`` (0 to 1) do not exceed.

    Raises:
        InvalidInputError: There are no values, or ``share`` is not between 0 and 1.
    """
    if not values or not 0 <= share <= 1:
        raise InvalidInputError(f"percentile {share} of {len(values)} values does not exist")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def paired_ratio(ours: Sequence[float], rivals: Sequence[float]) -> float | None:
    """Return the median of the ratios round by round; None without a round, or when a rival measured 0.

    Neighbours in time are compared with each other: on a machine whose speed drifts that tells more than the ratio of
    two medians.
    """
    if not ours or len(ours) != len(rivals) or not all(rivals):
        return None
    return median(own / rival for own, rival in zip(ours, rivals, strict=True))


def spread(values: Sequence[float]) -> float | None:
    """Return how far the rounds lie apart: (largest - smallest) / median; None for fewer than two."""
    if len(values) < 2 or not median(values):
        return None
    return (max(values) - min(values)) / median(values)
