"""A program that publishes numbered events, and writes down which ones it was told are published.

It reads its order as JSON on stdin. An event that could not be published is published again under its old id, as an
outbox would do; the next one of its lane waits.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from shared.bus.redis_streams import RedisStreamsBus
from shared.cancellation import end_task
from shared.clock import SystemClock
from shared.disk_buffer import DiskBuffer
from shared.errors import TransientError
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.telemetry.logs import configure_logging
from tests.support.chaos_books import Ledger
from tests.support.chaos_events import Lane, lanes

_SERVICE = "exec-risk-service"
_RETRY_SECONDS = 0.05
_TELL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class PublisherOrder:
    """What to publish.

    Attributes:
        url: Redis.
        folder: Where ledger, status and log lie.
        name: Names the publisher and its files.
        event_types: Types; there is a lane for each type and key.
        keys: Symbols or services.
        last: Number of the last event of each lane.
        per_second: Events per second and lane; None as fast as it goes.
        padding_bytes: Makes every event larger.
        buffer_folder: Folder of the disk buffer; ``folder`` when None.
        buffer_bytes: Bound of the disk buffer.
        age_seconds: How long ago the first events say that they happened; each later number says a little less.
        youngest_seconds: How long ago the last events say that they happened.
    """

    url: str
    folder: str
    name: str
    event_types: Sequence[str]
    keys: Sequence[str]
    last: int
    per_second: float | None = None
    padding_bytes: int = 0
    buffer_folder: str | None = None
    buffer_bytes: int = 256 * 1024 * 1024
    age_seconds: float = 0.0
    youngest_seconds: float = 0.0

    @property
    def lanes(self) -> tuple[Lane, ...]:
        return lanes(self.event_types, self.keys)

    @property
    def total(self) -> int:
        return len(self.lanes) * self.last

    @property
    def ledger(self) -> Ledger:
        return Ledger(Path(self.folder) / f"{self.name}.ledger")

    @property
    def status_file(self) -> Path:
        return Path(self.folder) / f"{self.name}.status"


@dataclass(slots=True)
class PublisherStatus:
    """What a publisher tells while it runs.

    Attributes:
        buffered: Events that wait in the disk buffer.
        buffered_most: Most that ever did.
        alarm: What the buffer complains about.
        refusals: Publishes that raised.
        errors: What they said, each once.
        longest_publish_seconds: Longest that one took.
        finished: Everything is published and the buffer is empty.
    """

    buffered: int = 0
    buffered_most: int = 0
    alarm: str | None = None
    refusals: int = 0
    errors: list[str] = field(default_factory=list)
    longest_publish_seconds: float = 0.0
    finished: bool = False

    def save(self, file: Path) -> None:
        """Write it down; a reader sees the old one or the new one."""
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self)), encoding="utf-8")
        draft.replace(file)

    @classmethod
    def load(cls, file: Path) -> PublisherStatus:
        """Read what ``save`` wrote; a fresh one when there is none."""
        with suppress(FileNotFoundError):
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        return cls()


class BackdatedClock(SystemClock):
    """Says that it is earlier; waits like any other."""

    def __init__(self, behind_seconds: float) -> None:
        self.behind_seconds = behind_seconds

    def now(self) -> datetime:
        return super().now() - timedelta(seconds=self.behind_seconds)


class ChaosPublisher:
    """Publishes what was ordered, every lane at its own pace."""

    def __init__(self, order: PublisherOrder) -> None:
        self._order = order
        self._clock = BackdatedClock(order.age_seconds)
        self._connection = RedisConnection(order.url, clock=SystemClock())
        self._buffer = DiskBuffer(
            Path(order.buffer_folder or order.folder) / f"{order.name}.buffer",
            clock=SystemClock(),
            service=_SERVICE,
            limit_bytes=order.buffer_bytes,
        )
        self._bus = RedisStreamsBus(
            self._connection,
            service=_SERVICE,
            instance=order.name,
            clock=self._clock,
            ids=RandomIds(),
            market_clock=self._clock,
            buffer=self._buffer,
        )
        self._ledger = order.ledger
        self._told: list[tuple[Lane, int]] = []
        self._status = PublisherStatus()

    async def run(self) -> None:
        """Publish all that is not in the ledger yet, and wait until it lies on its stream."""
        done = dict.fromkeys(self._order.lanes, 0)
        done.update(self._ledger.events())  # in order of numbers, so the last one stays
        await self._buffer.start()
        await self._bus.start()
        telling = asyncio.create_task(self._tell())
        await asyncio.gather(*(self._publish_lane(lane, done[lane] + 1) for lane in self._order.lanes))
        while self._buffer.events:
            await self._clock.sleep(_TELL_SECONDS)
        await end_task(telling)
        await self._bus.stop()
        await self._buffer.stop()
        await self._connection.stop()
        self._tell_status(finished=True)

    async def _publish_lane(self, lane: Lane, first: int) -> None:
        began = self._clock.monotonic()
        for number in range(first, self._order.last + 1):
            if self._order.per_second is not None:
                due = began + (number - first) / self._order.per_second
                await self._clock.sleep(due - self._clock.monotonic())
            self._grow_younger(number)
            await self._publish(lane, number)
            self._note(lane, number)

    def _grow_younger(self, number: int) -> None:
        order = self._order
        left = 1.0 - number / order.last
        self._clock.behind_seconds = order.youngest_seconds + (order.age_seconds - order.youngest_seconds) * left

    async def _publish(self, lane: Lane, number: int) -> None:
        payload = lane.payload(number, padding_bytes=self._order.padding_bytes)
        event_id = lane.event_id(number)
        while True:
            began = self._clock.monotonic()
            try:
                await self._bus.publish(lane.event_type, payload, event_id=event_id)
                break
            except TransientError as error:
                self._status.refusals += 1
                if (said := f"{lane.event_type}: {error}") not in self._status.errors:
                    self._status.errors.append(said)
                await self._clock.sleep(_RETRY_SECONDS)
            finally:
                took = self._clock.monotonic() - began
                self._status.longest_publish_seconds = max(took, self._status.longest_publish_seconds)

    def _note(self, lane: Lane, number: int) -> None:
        """Write down what one batch settled in one go."""
        if not self._told:
            asyncio.get_running_loop().call_soon(self._write_down)
        self._told.append((lane, number))

    def _write_down(self) -> None:
        self._ledger.append(self._told)
        self._told = []

    async def _tell(self) -> None:
        while True:
            self._tell_status()
            await self._clock.sleep(_TELL_SECONDS)

    def _tell_status(self, *, finished: bool = False) -> None:
        self._status.buffered = self._buffer.events
        self._status.buffered_most = max(self._buffer.events, self._status.buffered_most)
        self._status.alarm = self._buffer.alarm
        self._status.finished = finished
        self._status.save(self._order.status_file)


if __name__ == "__main__":
    configure_logging("chaos-publisher")
    asyncio.run(ChaosPublisher(PublisherOrder(**json.load(sys.stdin))).run())
