"""Clocks that are handed in: wall time, market time that runs faster, and time moved by hand.

Services hold two: ``clock`` (always the wall: heartbeats, leases, timeouts, signing) and ``market_clock``
(candle closes, expiry of signals, position age), which is scaled when a recorded market runs at speed.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import math
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from shared.errors import ConfigurationError


class Clock(Protocol):
    """A source of time."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of this clock's time."""
        ...


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251 - the one place that reads the wall clock

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class ClockOrigin:
    """Where market time started, stored so that every process of a run tells the same market time.

    Attributes:
        wall: Wall time of the start, aware UTC.
        market: Market time at that moment, aware UTC.
        rate: Market seconds per wall second, above 0.
    """

    wall: datetime
    market: datetime
    rate: float

    def save(self, path: Path) -> None:
        """Write the origin as JSON; a reader sees the old file or the new one, never half of it."""
        fields = {"wall": self.wall.isoformat(), "market": self.market.isoformat(), "rate": self.rate}
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(fields), encoding="utf-8")
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> ClockOrigin:
        """Read what ``save`` wrote.

        Raises:
            ConfigurationError: The file is missing or is no clock origin.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            origin = cls(
                wall=datetime.fromisoformat(fields["wall"]),
                market=datetime.fromisoformat(fields["market"]),
                rate=float(fields["rate"]),
            )
        except OSError as error:
            raise ConfigurationError(f"clock file {str(path)!r} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"clock file {str(path)!r} is no clock origin: {error!r}") from error
        if origin.wall.tzinfo is None or origin.market.tzinfo is None:
            raise ConfigurationError(f"clock file {str(path)!r}: times must carry their offset from UTC")
        if not (origin.rate > 0 and math.isfinite(origin.rate)):
            raise ConfigurationError(f"clock file {str(path)!r}: rate {origin.rate} must be above 0")
        return origin


class ScaledClock:
    """Market time that runs ``origin.rate`` times as fast as the wall."""

    def __init__(self, origin: ClockOrigin, wall: Clock | None = None) -> None:
        self._origin = origin
        self._wall = wall or SystemClock()

    def now(self) -> datetime:
        elapsed = (self._wall.now() - self._origin.wall).total_seconds()
        return self._origin.market + timedelta(seconds=elapsed * self._origin.rate)

    def monotonic(self) -> float:
        return self._wall.monotonic() * self._origin.rate

    async def sleep(self, seconds: float) -> None:
        await self._wall.sleep(seconds / self._origin.rate)


class ManualClock:
    """Time that moves only when told to; sleepers wake in order of their deadlines."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._start = start
        self._order = itertools.count()
        self._sleepers: list[tuple[datetime, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._start).total_seconds()

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + timedelta(seconds=seconds), next(self._order), future))
        await future

    def advance_to(self, moment: datetime) -> None:
        """Move to ``moment`` (never back) and wake every sleeper whose deadline has come."""
        self._now = max(self._now, moment)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward as a person would: nobody slept, and the monotonic clock goes on."""
        by = timedelta(seconds=seconds)
        self._start, self._now = self._start + by, self._now + by
        self._sleepers = [(deadline + by, order, future) for deadline, order, future in self._sleepers]

    def advance(self, seconds: float) -> None:
        """Move forward by ``seconds``."""
        self.advance_to(self._now + timedelta(seconds=seconds))
