"""Several forecasts of the same candles become one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from services.ai_service.domain.forecasts import Forecast
from shared.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Member:
    """One voice of the ensemble.

    Attributes:
        name: Model family, for example ``lightgbm``.
        version: Version of the model.
        forecast: What it says.
        weight: Say in the mean, above 0.
    """

    name: str
    version: str
    forecast: Forecast
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class EnsembleForecast:
    """The joint outlook.

    Attributes:
        forecast: Weighted mean of the members.
        agreement: Share of members on the side of the joint forecast, 0 to 1; None with one member, for nobody
            can agree with himself.
        voters: Names of the members, in the order given.
        source: ``ensemble``, or the member's own name when there is one only.
        version: Versions of the members joined by ``+``.
    """

    forecast: Forecast
    agreement: float | None
    voters: tuple[str, ...]
    source: str
    version: str


def combine(members: Sequence[Member]) -> EnsembleForecast:
    """Return the joint forecast of ``members``.

    Raises:
        InvalidInputError: There is no member, or a weight is not above 0.
    """
    if not members or any(not member.weight > 0 for member in members):
        raise InvalidInputError(f"an ensemble needs members with weights above 0, was given {list(members)}")
    joint = members[0].forecast if len(members) == 1 else _mean(members)
    side = joint.p_up >= 0.5
    agreeing = sum((member.forecast.p_up >= 0.5) == side for member in members)
    return EnsembleForecast(
        forecast=joint,
        agreement=agreeing / len(members) if len(members) > 1 else None,
        voters=tuple(member.name for member in members),
        source="ensemble" if len(members) > 1 else members[0].name,
        version="+".join(member.version for member in members),
    )


def _mean(members: Sequence[Member]) -> Forecast:
    total = math.fsum(member.weight for member in members)

    def mean(name: str) -> float:
        return math.fsum(member.weight * float(getattr(member.forecast, name)) for member in members) / total

    return Forecast(
        p_up=mean("p_up"),
        expected_return_pct=mean("expected_return_pct"),
        strength=mean("strength"),
        barrier_pct=mean("barrier_pct"),
    )
