"""Types of payload fields: each says once what range and unit a value has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, Field


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _require_finite(free_form: dict[str, Any]) -> dict[str, Any]:
    if not free_form:  # as almost always
        return free_form
    # A list instead of recursion: the depth of what comes from outside is not ours to choose.
    left: list[Any] = [free_form]
    while left:
        value = left.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"every number in it must be finite, one was {value}")
        if isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            left.extend(value)
    return free_form


#: Venue symbol, ``BTCUSDT``: never ccxt's form with a slash.
Symbol = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,40}$", examples=["BTCUSDT"])]
#: Length of a candle: ``1m``, ``4h``, ``1d``.
Timeframe = Annotated[str, Field(pattern=r"^[1-9][0-9]*[mhd]$", examples=["1h"])]
#: Text that says something.
Text = Annotated[str, Field(min_length=1)]
#: A confidence, agreement, probability or score, 0 to 1.
Score = Annotated[float, Field(ge=0, le=1)]
#: A price in USDT, above 0.
Price = Annotated[float, Field(gt=0)]
#: An amount in USDT, above 0.
PositiveUsd = Annotated[float, Field(gt=0)]
#: An amount, quantity or duration that is never negative.
NotNegative = Annotated[float, Field(ge=0)]
#: Multiple of the margin, 1 to 125.
Leverage = Annotated[float, Field(ge=1, le=125)]
#: Percent above 0: 3.3 means 3.3 %.
PositivePercent = Annotated[float, Field(gt=0)]
#: A number of things.
Count = Annotated[int, Field(ge=0)]
#: A moment, aware, in UTC; on the wire ISO 8601.
UtcTime = Annotated[AwareDatetime, AfterValidator(_in_utc)]
#: Free-form JSON object whose numbers are finite.
FreeForm = Annotated[dict[str, Any], AfterValidator(_require_finite)]
