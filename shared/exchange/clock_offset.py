"""How far this machine's clock is from the exchange's: measured, corrected in signatures, and told when it is large.

Signed requests carry the time, and the exchange refuses those that are too old or too new (-1021). Signatures are
corrected by the measured offset, so exits work with a wrong clock, too. Entries do not rely on that: a clock that is
off by more than a second may jump again, and the fence of the lease stands on the time stamp.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import ExchangeError, TransientError
from shared.exchange.outcome import translate
from shared.telemetry.metrics import Metrics

#: From here on a person is told, and from here on entries wait, seconds.
ALARM_SECONDS = 0.5
LIMIT_SECONDS = 1.0
#: Time between two measurements while nothing is suspicious.
_PERIOD_SECONDS = 60.0
#: Time between two looks whether the clock has jumped, which costs no request.
_LOOK_SECONDS = 1.0
#: Wall clock and monotonic clock may drift apart this much between two looks.
_JUMP_SECONDS = 0.2
_SAMPLES = 3

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Offset:
    """One measurement.

    Attributes:
        seconds: Exchange's clock minus ours.
        uncertainty: Half of the round trip: the truth lies within this distance, seconds.
    """

    seconds: float
    uncertainty: float

    @property
    def least(self) -> float:
        """The smallest distance that fits the measurement, seconds, without sign."""
        return max(0.0, abs(self.seconds) - self.uncertainty)

    def __str__(self) -> str:
        direction = "behind" if self.seconds > 0 else "ahead of"
        return f"{abs(self.seconds) * 1000:.0f} ms {direction} the exchange's"


class ClockOffset:
    """Measures the offset at the start, every minute, when the clock has jumped, and when a time stamp was refused.

    Attributes:
        name: Component name.
        is_alarming: The offset is above ``ALARM_SECONDS``; told once in the log, and by health while it lasts.
        measured: The last measurement; None before the first.
    """

    name = "exchange-clock"

    def __init__(
        self,
        server_time: Callable[[], Awaitable[Any]],
        *,
        clock: Clock,
        correct: Callable[[float], None],
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare, without measuring.

        Args:
            server_time: Answers ``{"serverTime": epoch milliseconds}``.
            clock: Wall clock.
            correct: Gets each measured offset, seconds, to sign with.
            metrics: Shows the offset.
        """
        self._server_time = server_time
        self._clock = clock
        self._correct = correct
        self._doubted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_alarming = False
        self.measured: Offset | None = None
        self._has_jumped = False
        if metrics is not None:
            metrics.watch_exchange_clock(lambda: self.measured.seconds if self.measured is not None else float("nan"))

    async def start(self) -> None:
        """Measure once, if the exchange answers, and go on in the background."""
        with suppress(TransientError, ExchangeError):
            await self.measure()
        self._task = asyncio.create_task(self._keep_measuring(), name=self.name)

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await end_task(task)

    def bar(self) -> str | None:
        """Tell why no entry may be sent: the clock is off by more than a second, or was never measured."""
        if self.measured is None:
            return "the exchange's clock was not measured yet"
        if self._has_jumped:
            return "the clock of this machine has jumped and was not measured again yet"
        if self.measured.least > LIMIT_SECONDS:
            return f"the clock of this machine is {self.measured}; set it, entries wait until then"
        return None

    def doubt(self) -> None:
        """A time stamp was refused: measure now."""
        self._doubted.set()

    async def measure(self) -> Offset:
        """Measure now; the sample with the shortest round trip counts.

        Raises:
            TransientError: The exchange cannot be asked.
            ExchangeError: It refused.
        """
        samples = [await self._sample() for _ in range(_SAMPLES)]
        best = min(samples, key=lambda sample: sample.uncertainty)
        self.measured, self._has_jumped = best, False
        self._correct(best.seconds)
        self._tell(best)
        return best

    async def _sample(self) -> Offset:
        asked, began = self._clock.now().timestamp(), self._clock.monotonic()
        try:
            answer = await self._server_time()
        except Exception as error:
            raise translate(error) from error
        half = (self._clock.monotonic() - began) / 2
        return Offset(int(answer["serverTime"]) / 1000 - (asked + half), half)

    def _tell(self, offset: Offset) -> None:
        is_large = offset.least > ALARM_SECONDS
        if is_large and not self.is_alarming:
            log.error("clock_offset", offset_ms=round(offset.seconds * 1000), hint="set the clock, and keep it set")
        self.is_alarming = is_large

    async def _keep_measuring(self) -> None:
        next_due = self._clock.monotonic() + _PERIOD_SECONDS
        ahead = self._wall_ahead()
        while True:
            await self._next_look()
            jumped = abs(self._wall_ahead() - ahead) > _JUMP_SECONDS
            if not (jumped or self._doubted.is_set() or self.measured is None or self._clock.monotonic() >= next_due):
                continue
            self._doubted.clear()
            ahead, next_due = self._wall_ahead(), self._clock.monotonic() + _PERIOD_SECONDS
            if jumped:
                self._has_jumped = True
                log.warning("clock_jumped", hint="measuring the exchange's clock again")
            try:
                await self.measure()
            except Exception as error:  # noqa: BLE001 - the next look tries again; the last measurement still counts
                next_due = self._clock.monotonic()
                log.warning("clock_not_measured", error=str(error))

    async def _next_look(self) -> None:
        """Wait for the next look; a refused time stamp does not wait."""
        waiting = asyncio.create_task(self._doubted.wait())
        sleeping = asyncio.ensure_future(self._clock.sleep(_LOOK_SECONDS))
        try:
            await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            sleeping.cancel()

    def _wall_ahead(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
