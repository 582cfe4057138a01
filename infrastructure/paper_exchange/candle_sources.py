"""The candle sources an exchange can run on, and how a command line names them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.file_candles import FileCandleSource
from infrastructure.paper_exchange.klines import slot_start
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from shared.trading.instruments import timeframe_duration

__all__ = ["CandleSource", "FileCandleSource", "SyntheticCandleSource", "default_start", "open_source"]

#: Share of the recorded candles that is history when a run starts; the rest is played.
_HISTORY_SHARE = 2 / 3


def open_source(spec: str, symbols: Sequence[str], timeframe: str, *, seed: int = 1) -> CandleSource:
    """Return the source that ``spec`` names: ``synthetic``, or a folder of candle files.

    Raises:
        ConfigurationError: The folder or a file is missing or damaged.
    """
    if spec == "synthetic":
        return SyntheticCandleSource(seed, symbols, timeframe)
    return FileCandleSource(Path(spec), symbols, timeframe)


def default_start(source: CandleSource, now: datetime) -> datetime:
    """Return a market start with history before it and market after it.

    Recorded candles start after two thirds of what all symbols share; an endless market starts ``now``.
    """
    length: timedelta = timeframe_duration(source.timeframe)
    ends = [last for symbol in source.symbols if (last := source.last_open(symbol)) is not None]
    if not ends:
        return slot_start(now, length)
    first = max(source.first_open(symbol) for symbol in source.symbols)
    return slot_start(first + (min(ends) - first) * _HISTORY_SHARE, length)
