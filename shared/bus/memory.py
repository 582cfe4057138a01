"""The bus inside one process: replay and tests run the live consume loop over it.

Deterministic: one log in the order of publishing, no threads, no sets, no wall time of its own. Two runs with the
same inputs, clock and ids are equal bit for bit.

Time stands still while the bus works: a failed try is repeated at once, because nothing recovers by waiting when
nothing else runs, and because a clock that only the caller moves would never end the wait. For the same reason a
handler that keeps losing its connection is put aside after ``max_outages`` tries. Options with real delays are
followed as they are; then ``settled`` ends when the caller has moved the clock far enough.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from shared.backoff import Backoff
from shared.bus.consumer import ConsumerOptions
from shared.bus.delivery_policy import DeliveryPolicy
from shared.bus.stream_bus import StreamBus
from shared.bus.transport import Entry, EntryKey
from shared.clock import Clock
from shared.events.streams import dead_letter_stream
from shared.ids import IdSource
from shared.telemetry.metrics import Metrics

#: Retries at once, and never without end.
MEMORY_OPTIONS = ConsumerOptions(
    policy=DeliveryPolicy(max_outages=5, backoff=Backoff(base_seconds=0.0)), claim_idle_seconds=None
)


@dataclass(frozen=True, slots=True)
class _Stored:
    """An entry in the log; numbers count over all streams, so they tell the order of publishing."""

    stream: str
    number: int
    fields: Mapping[bytes, bytes]


@dataclass(slots=True, eq=False)
class _Share:
    """What one group knows of an entry: how often it was tried, and who has it in hand."""

    stored: _Stored
    tries: int = 0
    consumer: str | None = None

    def next_try(self) -> Entry:
        return Entry(self.stored.stream, str(self.stored.number), self.stored.fields, self.tries + 1)


@dataclass(slots=True, eq=False)
class _Group:
    """The consumers of one service: what waits for them, and what they have in hand."""

    streams: list[str] = field(default_factory=list)
    waiting: deque[_Share] = field(default_factory=deque)
    pending: dict[EntryKey, _Share] = field(default_factory=dict)
    consumers: list[str] = field(default_factory=list)
    readers: deque[asyncio.Future[None]] = field(default_factory=deque)

    @property
    def busy(self) -> bool:
        """Whether a running consumer still has something to do."""
        return bool(self.consumers) and bool(self.waiting or self.pending)

    def offer(self, stored: _Stored) -> None:
        self.waiting.append(_Share(stored))
        self.wake_one()

    def wake_one(self) -> None:
        while self.waiting and self.readers:
            reader = self.readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return

    def take(self, consumer: str, limit: int) -> list[Entry]:
        entries: list[Entry] = []
        while self.waiting and len(entries) < limit:
            share = self.waiting.popleft()
            entry = share.next_try()
            # As in Redis: reading counts as one try, later ones are counted by ``hold`` when they begin.
            share.tries, share.consumer = max(share.tries, 1), consumer
            self.pending[entry.key] = share
            entries.append(entry)
        self.wake_one()
        return entries

    def give_back(self, consumer: str) -> None:
        """Put what ``consumer`` has in hand back to the front, in its order."""
        keys = [key for key, share in self.pending.items() if share.consumer == consumer]
        self.waiting.extendleft([self.pending.pop(key) for key in reversed(keys)])
        self.consumers.remove(consumer)
        self.wake_one()


class MemoryBroker:
    """The streams and groups that all services of the process share."""

    def __init__(self, *, keep: int = 10_000) -> None:
        """Begin empty.

        Args:
            keep: Entries per stream that stay for services which start later; older ones are dropped from the
                history, never from a group that still waits for them.
        """
        self._keep = keep
        self._streams: dict[str, deque[_Stored]] = {}
        self._groups: dict[str, _Group] = {}
        self._count = 0
        self._settled_waiters: list[asyncio.Future[None]] = []

    async def settled(self) -> None:
        """Wait until no running consumer has anything in hand or waiting."""
        while any(group.busy for group in self._groups.values()):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settled_waiters.append(waiter)
            await waiter

    def entries(self, stream: str) -> list[Mapping[bytes, bytes]]:
        """Return the raw fields of the entries in ``stream``, oldest first."""
        return [stored.fields for stored in self._streams.get(stream, ())]

    def dead_letters(self, service: str) -> list[Mapping[bytes, bytes]]:
        """Return what ``service`` could not handle, oldest first."""
        return self.entries(dead_letter_stream(service))

    def unsettled(self, service: str) -> int:
        """Return how many entries ``service`` has in hand or waiting."""
        group = self._groups.get(service)
        return len(group.waiting) + len(group.pending) if group else 0

    def add(self, stream: str, fields: Mapping[bytes, bytes]) -> None:
        """Append one entry with raw fields."""
        self._count += 1
        stored = _Stored(stream, self._count, fields)
        history = self._streams.setdefault(stream, deque(maxlen=self._keep))
        history.append(stored)
        for group in self._groups.values():
            if stream in group.streams:
                group.offer(stored)

    def join(self, service: str, consumer: str, streams: Sequence[str]) -> _Group:
        """Let ``consumer`` take part in the group of ``service``; streams new to the group begin at their oldest."""
        group = self._groups.setdefault(service, _Group())
        unread = [
            stored for stream in streams if stream not in group.streams for stored in self._streams.get(stream, ())
        ]
        group.streams.extend(stream for stream in streams if stream not in group.streams)
        for stored in sorted(unread, key=lambda stored: stored.number):
            group.offer(stored)
        if consumer not in group.consumers:
            group.consumers.append(consumer)
        return group

    def note_progress(self) -> None:
        """Wake those who wait for ``settled``; they look for themselves."""
        waiters, self._settled_waiters = self._settled_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class MemoryTransport:
    """``Appender`` and ``EntrySource`` of one consumer."""

    def __init__(self, broker: MemoryBroker, *, service: str, instance: str) -> None:
        self._broker = broker
        self._service = service
        self._instance = instance
        self._group = _Group()

    async def append(self, stream: str, fields: Mapping[str, bytes]) -> None:
        self._broker.add(stream, {name.encode(): value for name, value in fields.items()})

    async def open(self, streams: Sequence[str]) -> None:
        self._group = self._broker.join(self._service, self._instance, streams)

    async def read(self, limit: int) -> list[Entry]:
        group = self._group
        while not group.waiting:
            reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            group.readers.append(reader)
            await reader
        return group.take(self._instance, limit)

    async def reclaim(self, *, idle_seconds: float | None, skip: Container[EntryKey]) -> list[Entry]:
        if idle_seconds is not None:
            return []  # consumers of one process do not die alone
        return [
            share.next_try()
            for key, share in self._group.pending.items()
            if share.consumer == self._instance and key not in skip
        ]

    async def hold(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            share = self._group.pending.get(entry.key)
            if share is not None:
                share.tries, share.consumer = entry.attempt, self._instance

    async def ack(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._group.pending.pop(entry.key, None)
        self._broker.note_progress()

    async def dead_letter(self, entry: Entry, fields: Mapping[bytes, bytes]) -> None:
        self._broker.add(dead_letter_stream(self._service), fields)
        await self.ack([entry])

    async def release(self) -> None:
        if self._instance in self._group.consumers:
            self._group.give_back(self._instance)
        self._broker.note_progress()


class MemoryBus(StreamBus):
    """The bus of one service instance on a shared ``MemoryBroker``."""

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        service: str,
        instance: str,
        clock: Clock,
        ids: IdSource,
        market_clock: Clock,
        options: ConsumerOptions = MEMORY_OPTIONS,
        metrics: Metrics | None = None,
    ) -> None:
        transport = MemoryTransport(broker, service=service, instance=instance)
        super().__init__(
            transport,
            transport,
            service=service,
            clock=clock,
            market_clock=market_clock,
            ids=ids,
            options=options,
            metrics=metrics,
        )
