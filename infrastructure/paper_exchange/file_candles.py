"""Candles from a folder of files in freqtrade's layout: ``BTC_USDT_USDT-1m-futures.parquet``, .feather or .csv."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl

from infrastructure.paper_exchange.klines import aggregate
from shared.errors import ConfigurationError
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration, unified_symbol
from shared.trading.money import to_decimal

_COLUMNS = ("open", "high", "low", "close", "volume")
_PRICES = ("open", "high", "low", "close")
_READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    "parquet": pl.read_parquet,
    "feather": pl.read_ipc,
    "csv": lambda path: pl.read_csv(path, try_parse_dates=True),
}
_TIMEFRAMES = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
#: Funding stamps in files jitter by some milliseconds around their hour.
_FUNDING_GRID_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class _Series:
    """Candles of one symbol as columns: open times in epoch milliseconds, and ``_COLUMNS`` as rows of floats."""

    opens: np.ndarray[tuple[int], np.dtype[np.int64]]
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]]


class FileCandleSource:
    """Reads every needed file at construction, checks it, and serves slices from memory.

    Args:
        directory: Folder of the files.
        symbols: Venue symbols.
        timeframe: Timeframe of the market; joined from a finer file when there is none of its own.

    Raises:
        ConfigurationError: A folder, file or timeframe is missing, or a file holds NaN, prices of 0, duplicates or
            gaps; the message names file and moment.
    """

    def __init__(self, directory: Path, symbols: Sequence[str], timeframe: str) -> None:
        if not directory.is_dir():
            raise ConfigurationError(
                f"candle folder {directory} does not exist; name a folder with files such as "
                f"BTC_USDT_USDT-1h-futures.parquet, or 'synthetic'"
            )
        self._symbols = tuple(symbols)
        self._timeframe = timeframe
        self._series = {symbol: _load(directory, symbol, timeframe) for symbol in self._symbols}
        self._funding = {symbol: _load_funding(directory, symbol) for symbol in self._symbols}

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._symbols

    @property
    def timeframe(self) -> str:
        return self._timeframe

    def first_open(self, symbol: str) -> datetime:
        return _moment(int(self._series[symbol].opens[0]))

    def last_open(self, symbol: str) -> datetime | None:
        return _moment(int(self._series[symbol].opens[-1]))

    def candles(self, symbol: str, start: datetime, end: datetime) -> list[Candle]:
        series = self._series[symbol]
        low, high = np.searchsorted(series.opens, [_epoch_ms(start), _epoch_ms(end)])
        return _to_candles(symbol, self._timeframe, series.opens[low:high], series.values[:, low:high])

    def funding_rate(self, symbol: str, moment: datetime) -> Decimal | None:
        return self._funding[symbol].get(_epoch_ms(moment))


def _load(directory: Path, symbol: str, timeframe: str) -> _Series:
    path, found = _find(directory, symbol, timeframe)
    series = _checked(path, _read(path), timeframe_duration(found))
    if found == timeframe:
        return series
    length = timeframe_duration(timeframe)
    parts = length // timeframe_duration(found)
    joined = [
        candle
        for candle, group_size in _joined(symbol, found, series, timeframe)
        if group_size == parts  # a slot of which the file holds only a part is no candle
    ]
    if not joined:
        raise ConfigurationError(f"candle file {path} is too short for one candle of {timeframe}")
    return _Series(
        np.array([_epoch_ms(candle.open_time) for candle in joined], dtype=np.int64),
        np.array([[getattr(candle, name) for candle in joined] for name in _COLUMNS], dtype=np.float64),
    )


def _joined(symbol: str, found: str, series: _Series, timeframe: str) -> list[tuple[Candle, int]]:
    candles = _to_candles(symbol, found, series.opens, series.values)
    length_ms = int(timeframe_duration(timeframe).total_seconds() * 1000)
    sizes = np.unique(series.opens // length_ms, return_counts=True)[1]
    return list(zip(aggregate(candles, timeframe), sizes.tolist(), strict=True))


def _find(directory: Path, symbol: str, timeframe: str) -> tuple[Path, str]:
    """Return the file for ``timeframe``, or the coarsest finer one that divides it."""
    stem = unified_symbol(symbol).replace("/", "_").replace(":", "_")
    present = {
        frame: path
        for frame in _TIMEFRAMES
        for suffix in reversed(tuple(_READERS))
        if (path := directory / f"{stem}-{frame}-futures.{suffix}").is_file()
    }
    wanted = timeframe_duration(timeframe)
    for frame in sorted(present, key=timeframe_duration, reverse=True):
        if wanted % timeframe_duration(frame) == timedelta(0):
            return present[frame], frame
    holds = f"the folder has {', '.join(present)} of it" if present else "the folder has no candles of it"
    raise ConfigurationError(
        f"candle folder {directory} has no {timeframe} candles for {symbol}: "
        f"expected {stem}-{timeframe}-futures.parquet (.feather, .csv) or a finer timeframe that divides it; {holds}"
    )


def _read(path: Path) -> pl.DataFrame:
    try:
        frame = _READERS[path.suffix[1:]](path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ConfigurationError(f"candle file {path} cannot be read: {str(error).splitlines()[0]}") from None
    missing = [name for name in ("date", *_COLUMNS) if name not in frame.columns]
    if missing:
        raise ConfigurationError(f"candle file {path} has no column {', '.join(missing)}")
    if frame.is_empty():
        raise ConfigurationError(f"candle file {path} is empty")
    return frame.select(_epoch_column(frame, path), *(pl.col(name).cast(pl.Float64) for name in _COLUMNS)).sort("date")


def _epoch_column(frame: pl.DataFrame, path: Path) -> pl.Expr:
    kind = frame.schema["date"]
    if isinstance(kind, pl.Date):
        return pl.col("date").cast(pl.Datetime("ms")).dt.epoch("ms").alias("date")
    if isinstance(kind, pl.Datetime):
        return pl.col("date").dt.epoch("ms").alias("date")
    if kind.is_integer():  # epoch milliseconds, as exchanges export them
        return pl.col("date").cast(pl.Int64)
    raise ConfigurationError(f"candle file {path} has dates of type {kind}; expected timestamps or epoch milliseconds")


def _checked(path: Path, frame: pl.DataFrame, length: timedelta) -> _Series:
    opens = frame["date"].to_numpy().astype(np.int64)
    values = frame.select(_COLUMNS).to_numpy().T.astype(np.float64)
    for row, name in zip(values, _COLUMNS, strict=True):
        bad = ~np.isfinite(row) | ((row <= 0) if name in _PRICES else (row < 0))
        if bad.any():
            at = int(np.argmax(bad))
            when = _moment(int(opens[at])).isoformat()
            raise ConfigurationError(f"candle file {path} has {name} {row[at]} at {when}; repair or replace it")
    _check_grid(path, opens, length)
    _check_ranges(path, opens, values)
    return _Series(opens, np.ascontiguousarray(values))


def _check_grid(path: Path, opens: np.ndarray[tuple[int], np.dtype[np.int64]], length: timedelta) -> None:
    step = int(length.total_seconds() * 1000)
    wrong = np.flatnonzero(np.diff(opens) != step)
    if not wrong.size:
        return
    at = int(wrong[0])
    before, after = _moment(int(opens[at])).isoformat(), _moment(int(opens[at + 1])).isoformat()
    what = "twice the same candle" if opens[at + 1] == opens[at] else "a gap"
    raise ConfigurationError(
        f"candle file {path} has {what} between {before} and {after} ({wrong.size} such places); download it again"
    )


def _check_ranges(
    path: Path,
    opens: np.ndarray[tuple[int], np.dtype[np.int64]],
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> None:
    first, high, low, last, _ = values
    bad = (high < np.maximum(first, last)) | (low > np.minimum(first, last))
    if bad.any():
        at = int(np.argmax(bad))
        raise ConfigurationError(
            f"candle file {path} has a high below or a low above its prices at {_moment(int(opens[at])).isoformat()}"
        )


def _load_funding(directory: Path, symbol: str) -> dict[int, Decimal]:
    """Return funding rates by settlement time in epoch milliseconds; empty when the folder has none."""
    stem = unified_symbol(symbol).replace("/", "_").replace(":", "_")
    for suffix in _READERS:
        path = directory / f"{stem}-8h-funding_rate.{suffix}"
        if path.is_file():
            frame = _read(path)
            return {
                round(stamp / _FUNDING_GRID_MS) * _FUNDING_GRID_MS: to_decimal(rate, name="funding rate")
                for stamp, rate in zip(frame["date"].to_list(), frame["open"].to_list(), strict=True)
            }
    return {}


def _to_candles(
    symbol: str,
    timeframe: str,
    opens: np.ndarray[tuple[int], np.dtype[np.int64]],
    values: np.ndarray[tuple[int, int], np.dtype[np.float64]],
) -> list[Candle]:
    rows = zip(opens.tolist(), *values.tolist(), strict=True)
    return [Candle(symbol, timeframe, _moment(stamp), *numbers) for stamp, *numbers in rows]


def _moment(epoch_ms: int) -> datetime:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC)


def _epoch_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
