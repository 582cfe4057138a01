"""Where in its candles a run begins: history behind it to learn from, a future before it to trade. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from infrastructure.paper_exchange.candle_port import CandleSource
from shared.errors import ConfigurationError
from shared.trading.instruments import timeframe_duration

#: Share of the candles that lies before the start.
HISTORY_SHARE = 0.75
#: Fewer candles than this before the start train no model.
LEAST_HISTORY = 500
#: Fewer candles than this after the start are no market.
LEAST_FUTURE = 10
#: A market without an end begins here.
ENDLESS_START = datetime(2025, 1, 6, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def market_start(source: CandleSource, *, speed: float, run_seconds: float | None) -> datetime:
    """Return the market time at which the run begins, aligned to the open of a candle.

    Args:
        source: The candles.
        speed: Market seconds per wall second.
        run_seconds: Wall seconds that the run is to last, None for "until stopped".

    Raises:
        ConfigurationError: The candles of the symbols overlap too little for history and future.
    """
    step = timeframe_duration(source.timeframe)
    first = max(source.first_open(symbol) for symbol in source.symbols)
    ends = [last for symbol in source.symbols if (last := source.last_open(symbol)) is not None]
    if not ends:
        return max(ENDLESS_START, _aligned(first + step * LEAST_HISTORY, step))
    end = min(ends) + step
    start = _aligned(first + (end - first) * HISTORY_SHARE, step)
    if start - first < step * LEAST_HISTORY or end - start < step * LEAST_FUTURE:
        raise ConfigurationError(
            f"the {source.timeframe} candles of {', '.join(source.symbols)} have {max(0, (end - first) // step)} slots "
            f"in common; at least {round(LEAST_HISTORY / HISTORY_SHARE)} are needed: give longer files or fewer symbols"
        )
    if run_seconds is not None and start + timedelta(seconds=run_seconds * speed) > end:
        raise ConfigurationError(
            f"the candles end {(end - start).total_seconds() / speed:.0f} s after the start at speed {speed:g}, before "
            f"--for {run_seconds:g}; lower --speed or --for"
        )
    return start


def _aligned(moment: datetime, step: timedelta) -> datetime:
    """Return the last open time of a candle that is not after ``moment``."""
    return _EPOCH + step * ((moment - _EPOCH) // step)
