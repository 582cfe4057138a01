"""TWAP: equal slices over a time, each taken from the book within the slippage guard."""

from __future__ import annotations

from decimal import Decimal

from services.exec_risk_service.domain.executions import Slice
from services.exec_risk_service.domain.strategies import slicing
from services.exec_risk_service.domain.strategies.slicing import Frame
from shared.trading.instruments import Instrument

plan = slicing.plan


def schedule(quantity: Decimal, price: Decimal, instrument: Instrument, frame: Frame) -> tuple[Slice, ...]:
    """Return ``quantity`` (base asset, on the lot grid) in equal slices; ``price`` (USDT) values them."""
    times = slicing.due_times(frame, slicing.slice_count(quantity, price, instrument, frame.slices))
    return slicing.cut(quantity, times, [Decimal(1)] * len(times), instrument)
