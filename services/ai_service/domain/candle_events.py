"""Between candles and ``candle.closed``: names that the same candle always gets, and the way back."""

from __future__ import annotations

from shared.events.v3.market import CandleClosedPayload
from shared.ids import derive_id
from shared.trading.candles import Candle


def candle_event_id(run_id: str, candle: Candle) -> str:
    """Return the event id of ``candle`` in this run; a candle that is published again is recognised by it."""
    return derive_id("candle", run_id, candle.symbol, candle.timeframe, candle.open_time.isoformat())


def candle_trace_id(event_id: str) -> str:
    """Return the trace that begins with the candle of ``event_id``; published again, it goes on in the same trace."""
    return derive_id("trace", event_id)


def candle_closed(candle: Candle, source: str) -> CandleClosedPayload:
    """Return the payload that announces ``candle``; ``source`` says where it came from."""
    return CandleClosedPayload(
        symbol=candle.symbol,
        timeframe=candle.timeframe,
        open_time=candle.open_time,
        close_time=candle.close_time,
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
        source=source,
    )


def candle_of(payload: CandleClosedPayload) -> Candle:
    """Return the candle that ``payload`` announced."""
    return Candle(
        symbol=payload.symbol,
        timeframe=payload.timeframe,
        open_time=payload.open_time,
        open=payload.open,
        high=payload.high,
        low=payload.low,
        close=payload.close,
        volume=payload.volume,
    )
