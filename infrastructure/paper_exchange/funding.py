"""When funding is settled and at which rate."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.klines import slot_start

FUNDING_INTERVAL = timedelta(hours=8)
#: Used where the source knows no rate; Binance's neutral rate.
DEFAULT_RATE = Decimal("0.0001")


def next_funding_time(now: datetime) -> datetime:
    """Return the first settlement after ``now``: 00:00, 08:00 or 16:00 UTC."""
    return slot_start(now, FUNDING_INTERVAL) + FUNDING_INTERVAL


def rate_at(source: CandleSource, symbol: str, moment: datetime) -> Decimal:
    """Return the rate that is settled at ``moment``; above 0 longs pay shorts."""
    rate = source.funding_rate(symbol, moment)
    return DEFAULT_RATE if rate is None else rate
