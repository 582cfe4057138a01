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
from bisect import bisect_left
from collections import deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared.backoff import Backoff
from shared.bus.consumer import ConsumerOptions
from shared.bus.delivery_policy import DeliveryPolicy
from shared.bus.housekeeping import HousekeepingRule
from shared.bus.stream_bus import StreamBus
from shared.bus.transport import Entry, EntryKey, NewEntry
from shared.bus.trimming import StreamState, entry_order
from shared.clock import Clock
from shared.disk_buffer import Remembered
from shared.errors import DecodeError, TransientError
from shared.events.codec import decode
from shared.events.streams import dead_letter_stream
from shared.ids import IdSource
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import NO_SPANS, Spans

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
    lost: bool = False

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

    def redrive(self, service: str) -> None:
        """Put the dead letters of ``service`` back on the streams that they came from."""
        letters = self._streams.pop(dead_letter_stream(service), deque())
        for letter in letters:
            raw = {
                name.removeprefix(b"raw_"): value for name, value in letter.fields.items() if name.startswith(b"raw_")
            }
            self.add(letter.fields[b"origin"].decode(), raw)

    def unsettled(self, service: str) -> int:
        """Return how many entries ``service`` has in hand or waiting."""
        group = self._groups.get(service)
        return len(group.waiting) + len(group.pending) if group else 0

    def add(self, stream: str, fields: Mapping[bytes, bytes]) -> str:
        """Append one entry with raw fields; return its id."""
        self._count += 1
        stored = _Stored(stream, self._count, fields)
        history = self._streams.setdefault(stream, deque(maxlen=self._keep))
        history.append(stored)
        for group in self._groups.values():
            if stream in group.streams:
                group.offer(stored)
        return str(self._count)

    def states(self, streams: Sequence[str]) -> list[StreamState]:
        """Return length and positions of the streams that exist."""
        return [
            StreamState(
                stream,
                len(self._streams[stream]),
                {name: self._floor(group, stream) for name, group in self._groups.items() if stream in group.streams},
            )
            for stream in streams
            if stream in self._streams
        ]

    def trim(self, stream: str, *, below: str, at_most: int) -> int:
        """Drop up to ``at_most`` of the oldest entries with numbers lower than ``below``; return how many went."""
        history = self._streams[stream]
        dropped = 0
        while dropped < at_most and history and (history[0].number, 0) < entry_order(below):
            history.popleft()
            dropped += 1
        return dropped

    def stored(self, stream: str, *, since: str, until: str, limit: int) -> list[Entry]:
        """Return up to ``limit`` entries by id, oldest first; ``(`` excludes the first, ``+`` has no end."""
        history = list(self._streams.get(stream, ()))
        first = int(since.lstrip("(")) + since.startswith("(") if since != "-" else 0
        begin = bisect_left(history, first, key=lambda stored: stored.number)
        end = len(history) if until == "+" else bisect_left(history, int(until) + 1, key=lambda stored: stored.number)
        return [
            Entry(stored.stream, str(stored.number), stored.fields)
            for stored in history[begin : min(end, begin + limit)]
        ]

    def rewind(self, streams: Sequence[str], *, service: str, to: str) -> list[str]:
        """Offer the group of ``service`` again what lies in the streams from ``to`` on; return those that it reads."""
        group = self._groups.get(service, _Group())
        read = [stream for stream in streams if stream in group.streams]
        at_hand = {share.stored.number for share in (*group.waiting, *group.pending.values())}
        again = [
            stored
            for stream in read
            for stored in self._streams.get(stream, ())
            if stored.number >= int(to) and stored.number not in at_hand
        ]
        group.waiting = deque(
            sorted(
                (*group.waiting, *(_Share(stored) for stored in again)),
                key=lambda share: share.stored.number,
            )
        )
        group.wake_one()
        return read

    def lose_group(self, service: str) -> None:
        """Forget the group of ``service``, as Redis does in a failover; its consumers find out at their next read."""
        group = self._groups.pop(service)
        group.lost = True
        for reader in group.readers:
            if not reader.done():
                reader.set_result(None)

    def first_number_at(self, moment: datetime) -> str:
        """Return the lowest number of the entries published at ``moment`` or later."""
        numbers = [
            stored.number
            for history in self._streams.values()
            for stored in history
            if (published := _published_at(stored)) is not None and published >= moment
        ]
        return str(min(numbers, default=self._count + 1))

    def _floor(self, group: _Group, stream: str) -> str:
        unsettled = [
            share.stored.number for share in (*group.waiting, *group.pending.values()) if share.stored.stream == stream
        ]
        return str(min(unsettled, default=self._count + 1))

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


def _published_at(stored: _Stored) -> datetime | None:
    try:
        return decode(stored.fields).metadata.timestamp
    except DecodeError:
        return None


class MemoryTransport:
    """All ports of one instance: publisher, consumer, keeper and history.

    Attributes:
        generation: Always the same: there is no connection to lose.
        connected: Always.
    """

    generation = 0
    connected = True

    def __init__(self, broker: MemoryBroker, *, service: str, instance: str) -> None:
        self._broker = broker
        self._service = service
        self._instance = instance
        self._group = _Group()

    async def connect(self) -> None:
        """Nothing to connect to."""

    async def wait_available(self) -> None:
        """Nothing to wait for."""

    async def append(self, entries: Sequence[NewEntry]) -> list[str | TransientError]:
        return [self._broker.add(entry.stream, entry.fields) for entry in entries]

    async def missing(self, remembered: Sequence[Remembered]) -> list[Remembered]:
        return []

    async def open(self, streams: Sequence[str]) -> None:
        self._group = self._broker.join(self._service, self._instance, streams)

    async def read(self, limit: int) -> list[Entry]:
        group = self._group
        while not group.waiting and not group.lost:
            reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            group.readers.append(reader)
            await reader
        if group.lost:
            raise TransientError(f"the group of {self._service} is gone")
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

    def owns(self, entry: Entry) -> bool:
        return True

    def let_go(self, entry: Entry) -> None:
        """Nothing to note."""

    async def ack(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._group.pending.pop(entry.key, None)
        self._broker.note_progress()

    async def dead_letter(self, entry: Entry, fields: Mapping[bytes, bytes]) -> None:
        self._broker.add(dead_letter_stream(self._service), fields)
        await self.ack([entry])

    async def states(self, streams: Sequence[str]) -> list[StreamState]:
        return self._broker.states(streams)

    async def trim(self, stream: str, *, below: str, at_most: int) -> int:
        return self._broker.trim(stream, below=below, at_most=at_most)

    def id_at(self, moment: datetime) -> str:
        return self._broker.first_number_at(moment)

    async def entries(self, stream: str, *, since: str, until: str, limit: int) -> list[Entry]:
        return self._broker.stored(stream, since=since, until=until, limit=limit)

    async def rewind(self, streams: Sequence[str], *, service: str, to: str) -> list[str]:
        return self._broker.rewind(streams, service=service, to=to)

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
        spans: Spans = NO_SPANS,
        housekeeping: HousekeepingRule = HousekeepingRule(),  # noqa: B008 - frozen
    ) -> None:
        transport = MemoryTransport(broker, service=service, instance=instance)
        super().__init__(
            transport,
            transport,
            service=service,
            producer=f"{service}:{instance}",
            clock=clock,
            market_clock=market_clock,
            ids=ids,
            options=options,
            keeper=transport,
            history=transport,
            metrics=metrics,
            spans=spans,
            housekeeping=housekeeping,
            # Rounds by a clock that only the caller moves would never come, and the history keeps itself short.
            tidies_itself=False,
        )
