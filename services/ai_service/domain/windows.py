"""The last candles of each symbol as columns of numbers: idempotent on repeats, aware of gaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from shared.errors import InvalidInputError
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

Floats = NDArray[np.float64]
Milliseconds = NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PRICE_FIELDS = ("open", "high", "low", "close", "volume")


def epoch_ms(moment: datetime) -> int:
    """Return whole milliseconds since 1970, without passing through a float."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_epoch_ms(milliseconds: int) -> datetime:
    """Return the aware UTC moment of ``milliseconds`` since 1970."""
    return _EPOCH + timedelta(milliseconds=int(milliseconds))


@dataclass(frozen=True, slots=True)
class CandleColumns:
    """Consecutive candles of one symbol, oldest first, one array per column.

    Attributes:
        open_time_ms: Start of each slot, milliseconds since 1970 UTC.
        open: First prices, USDT; likewise ``high``, ``low`` and ``close``.
        volume: Traded quantities, base asset.
    """

    open_time_ms: Milliseconds
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    def __len__(self) -> int:
        return len(self.close)

    def between(self, start: int, stop: int) -> CandleColumns:
        """Return the rows ``start`` to ``stop - 1``; the arrays are views."""
        cut = slice(start, stop)
        return CandleColumns(
            self.open_time_ms[cut], self.open[cut], self.high[cut], self.low[cut], self.close[cut], self.volume[cut]
        )


def columns_of(candles: Sequence[Candle]) -> CandleColumns:
    """Return ``candles`` (consecutive, oldest first) as columns."""
    times = np.array([epoch_ms(candle.open_time) for candle in candles], dtype=np.int64)
    numbers = (np.array([getattr(candle, name) for candle in candles], dtype=np.float64) for name in _PRICE_FIELDS)
    return CandleColumns(times, *numbers)


class Placement(Enum):
    """Where a candle fell relative to those already in the window."""

    APPENDED = "appended"
    REPEATED = "repeated"
    GAP = "gap"


class RollingWindow:
    """The newest candles of one symbol and timeframe without a hole, in preallocated columns.

    Holds up to ``capacity`` candles; more than a model needs, so that a candle that is delivered again finds the
    window that ended at it.
    """

    def __init__(self, timeframe: str, capacity: int) -> None:
        self._step_ms = timeframe_duration(timeframe) // timedelta(milliseconds=1)
        self._capacity = capacity
        # Twice the room: the columns are moved once per ``capacity`` candles instead of once per candle.
        self._times = np.zeros(2 * capacity, dtype=np.int64)
        self._numbers = np.zeros((len(_PRICE_FIELDS), 2 * capacity), dtype=np.float64)
        self._stop = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def newest_open_ms(self) -> int | None:
        """Open time of the newest candle, milliseconds since 1970; None while empty."""
        return int(self._times[self._stop - 1]) if self._size else None

    def add(self, candle: Candle) -> Placement:
        """Take the next candle; a known or older one changes nothing, one after a hole is refused as GAP."""
        newest, opened = self.newest_open_ms, epoch_ms(candle.open_time)
        if newest is not None and opened <= newest:
            return Placement.REPEATED
        if newest is not None and opened != newest + self._step_ms:
            return Placement.GAP
        self._append(opened, candle)
        return Placement.APPENDED

    def replace(self, candles: Iterable[Candle]) -> None:
        """Forget everything and take ``candles``, consecutive and oldest first.

        Raises:
            InvalidInputError: There is a hole between two of them.
        """
        self._stop = self._size = 0
        for candle in candles:
            if self.add(candle) is not Placement.APPENDED:
                moment = candle.open_time.isoformat()
                raise InvalidInputError(f"candles of {candle.symbol} are not consecutive at {moment}: fetch them again")

    def ending_at(self, open_time: datetime, length: int) -> CandleColumns | None:
        """Return a copy of the ``length`` candles up to the one opened at ``open_time``; None if not all here."""
        newest = self.newest_open_ms
        if newest is None:
            return None
        behind = (newest - epoch_ms(open_time)) // self._step_ms
        if behind < 0 or behind + length > self._size:
            return None
        stop = self._stop - behind
        cut = slice(stop - length, stop)
        return CandleColumns(self._times[cut].copy(), *(column[cut].copy() for column in self._numbers))

    def _append(self, opened: int, candle: Candle) -> None:
        if self._stop == 2 * self._capacity:
            kept = self._capacity - 1
            self._times[:kept] = self._times[self._stop - kept :]
            self._numbers[:, :kept] = self._numbers[:, self._stop - kept :]
            self._stop = kept
        self._times[self._stop] = opened
        self._numbers[:, self._stop] = [getattr(candle, name) for name in _PRICE_FIELDS]
        self._stop += 1
        self._size = min(self._size + 1, self._capacity)
