"""VWAP: slices in proportion to the volume that the market usually trades at that time of day."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from services.exec_risk_service.domain.executions import Slice
from services.exec_risk_service.domain.strategies import slicing
from services.exec_risk_service.domain.strategies.slicing import Frame
from shared.trading.candles import Candle
from shared.trading.instruments import Instrument, timeframe_duration

_DAY = timedelta(days=1)
#: A slice gets at least this share of an even one: the history of a quiet hour must not leave the target unmet.
_FLOOR = 0.1

plan = slicing.plan


def schedule(
    quantity: Decimal, price: Decimal, instrument: Instrument, frame: Frame, candles: Sequence[Candle]
) -> tuple[Slice, ...]:
    """Return ``quantity`` in slices along the volume curve of ``candles``; equal ones where these do not tell it."""
    times = slicing.due_times(frame, slicing.slice_count(quantity, price, instrument, frame.slices))
    return slicing.cut(quantity, times, volume_curve(candles, times), instrument)


def volume_curve(candles: Sequence[Candle], times: Sequence[datetime]) -> list[Decimal]:
    """Return the volume to expect at each of ``times``: the mean of the candles over that time of day, as weights."""
    if not candles:
        return [Decimal(1)] * len(times)
    length = timeframe_duration(candles[-1].timeframe)
    overall = sum(candle.volume for candle in candles) / len(candles)
    if overall <= 0:
        return [Decimal(1)] * len(times)
    expected = []
    for moment in times:
        at_that_time = [candle.volume for candle in candles if _covers(candle, moment, length)]
        mean = sum(at_that_time) / len(at_that_time) if at_that_time else overall
        expected.append(Decimal(str(round(max(mean / overall, _FLOOR), 6))))
    return expected


def knows_the_day(candles: Sequence[Candle]) -> bool:
    """Tell whether ``candles`` cover a whole day, so that they have something to say about any time of it."""
    return bool(candles) and candles[-1].open_time - candles[0].open_time >= _DAY


def _covers(candle: Candle, moment: datetime, length: timedelta) -> bool:
    return (moment - candle.open_time) % _DAY < length
