"""``EntrySource`` on a Redis Cluster: a consumer reads the partitions that it holds the lease of, and only those.

One owner per partition at a time is what keeps the order of a symbol when a replica dies: the next owner first takes
over everything that is unsettled there, whoever had it, and only then reads on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from shared.backoff import Backoff
from shared.bus.leases import PartitionLeases
from shared.bus.redis_group import ConsumerGroup, entries_of
from shared.bus.transport import Entry, EntryKey
from shared.cancellation import end_task
from shared.clock import Clock
from shared.errors import ConnectionLostError, TransientError
from shared.events.streams import partition_of
from shared.redis_connection import BLOCK_SECONDS, RedisConnection

log = structlog.get_logger(__name__)

#: Entries per stream and read.
_READ_LIMIT = 200
#: How long a partition above this instance's share waits for what is in hand before it is released all the same.
_HAND_OVER_SECONDS = 10.0
_RETRY = Backoff(base_seconds=0.1, factor=2.0, cap_seconds=5.0)


@dataclass(slots=True, eq=False)
class _Partition:
    """One partition that this consumer reads."""

    number: int
    streams: list[str]
    term: int
    task: asyncio.Task[None] | None = None
    leaving: bool = False
    in_hand: set[EntryKey] = field(default_factory=set)
    nothing_in_hand: asyncio.Event = field(default_factory=asyncio.Event)


class PartitionedSource:
    """The partitions of one consumer."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        service: str,
        instance: str,
        clock: Clock,
        cursors: Callable[[], Awaitable[Mapping[str, str]]],
        lease_seconds: float,
    ) -> None:
        """Prepare, without connecting.

        Args:
            connection: To the cluster.
            service: Name of the consumer group.
            instance: Name of the consumer in it.
            clock: Wall clock.
            cursors: Durable position per stream, for groups that Redis lost.
            lease_seconds: How long a dead owner's partitions wait for the next one.
        """
        self._connection = connection
        self._group = ConsumerGroup(connection, service=service, instance=instance)
        self._leases = PartitionLeases(
            connection, service=service, instance=instance, clock=clock, lease_seconds=lease_seconds
        )
        self._clock = clock
        self._cursors = cursors
        self._round_seconds = lease_seconds / 4
        self._streams: dict[int, list[str]] = {}
        self._held: dict[int, _Partition] = {}
        self._terms = 0
        self._arrived: asyncio.Queue[list[Entry]] = asyncio.Queue(maxsize=1)
        self._unread: deque[Entry] = deque()
        self._next: asyncio.Task[list[Entry]] | None = None
        self._balancing: asyncio.Task[None] | None = None
        self._hand_overs: set[asyncio.Task[None]] = set()

    async def open(self, streams: Sequence[str]) -> None:
        for stream in streams:
            partition = partition_of(stream)
            assert partition is not None
            known = self._streams.setdefault(partition, [])
            if stream not in known:
                known.append(stream)
        await self._group.create(streams, await self._cursors())
        if self._balancing is None:
            await self._balance_once()
            self._balancing = asyncio.create_task(self._balance(), name="bus-leases")

    async def read(self, limit: int) -> list[Entry]:
        if self._unread:
            return self._next_of_unread(limit)
        # Not a timeout around get(): before Python 3.13 its cancellation can come back later, at another await.
        if self._next is None:
            self._next = asyncio.create_task(self._arrived.get(), name="bus-arrivals")
        done, _ = await asyncio.wait([self._next], timeout=BLOCK_SECONDS)
        if not done:
            return []
        self._unread.extend(self._next.result())
        self._next = None
        return self._next_of_unread(limit)

    def _next_of_unread(self, limit: int) -> list[Entry]:
        return [self._unread.popleft() for _ in range(min(limit, len(self._unread)))]

    async def reclaim(self, *, idle_seconds: float | None, skip: Container[EntryKey]) -> list[Entry]:
        """Return nothing: who takes a partition takes all that is unsettled in it."""
        return []

    async def hold(self, entries: Sequence[Entry]) -> None:
        # With leases nobody takes single entries; what is left to do is to write down the number of a later try.
        await self._group.hold([entry for entry in entries if entry.attempt > 1])

    def owns(self, entry: Entry) -> bool:
        held = self._holding(entry)
        return held is not None and not held.leaving and self._leases.owns(held.number)

    def let_go(self, entry: Entry) -> None:
        self._settled([entry])

    async def ack(self, entries: Sequence[Entry]) -> None:
        await self._group.ack(entries)
        self._settled(entries)

    async def dead_letter(self, entry: Entry, fields: Mapping[bytes, bytes]) -> None:
        await self._group.dead_letter(entry, fields)
        self._settled([entry])

    async def release(self) -> None:
        for task in (self._next, self._balancing, *self._hand_overs, *(held.task for held in self._held.values())):
            if task is not None:
                await end_task(task)
        self._held.clear()
        await self._leases.leave()

    # -- which partitions ---------------------------------------------------------------------------------------------

    async def _balance(self) -> None:
        while True:
            await self._clock.sleep(self._round_seconds)
            try:
                await self._balance_once()
            except TransientError as error:
                log.warning("partition_leases_not_renewed", reason=str(error))

    async def _balance_once(self) -> None:
        lost = [self._held.pop(partition) for partition in await self._leases.renew() if partition in self._held]
        # All are gone before any can be taken again: what was read under a lost lease must never look owned.
        for held in lost:
            log.warning("partition_lost", partition=held.number, in_hand=len(held.in_hand))
            if held.task is not None:
                await end_task(held.task)
        share = await self._leases.take(sorted(self._streams))
        for partition in share.taken:
            self._start_reading(partition)
        for partition in share.surplus:
            self._hand_over(partition)

    def _start_reading(self, partition: int) -> None:
        self._terms += 1
        held = _Partition(partition, self._streams[partition], self._terms)
        self._held[partition] = held
        held.task = asyncio.create_task(self._serve(held), name=f"bus-partition-{partition}")
        log.info("partition_taken", partition=partition)

    def _hand_over(self, partition: int) -> None:
        held = self._held.get(partition)
        if held is None or held.leaving:
            return
        held.leaving = True  # what is not begun is dropped from now on
        task = asyncio.create_task(self._release_when_idle(held), name=f"bus-hand-over-{partition}")
        self._hand_overs.add(task)
        task.add_done_callback(self._hand_overs.discard)

    async def _release_when_idle(self, held: _Partition) -> None:
        if held.task is not None:
            await end_task(held.task)
        if held.in_hand:
            waiting = asyncio.create_task(held.nothing_in_hand.wait())
            await asyncio.wait([waiting], timeout=_HAND_OVER_SECONDS)
            await end_task(waiting)
        self._held.pop(held.number, None)
        try:
            await self._leases.release(held.number)
        except TransientError as error:
            log.warning("partition_lease_runs_out", partition=held.number, reason=str(error))
        log.info("partition_handed_over", partition=held.number)

    # -- one partition ------------------------------------------------------------------------------------------------

    async def _serve(self, held: _Partition) -> None:
        reader = self._connection.new_reader()
        failures = 0
        try:
            while self._leases.owns(held.number):
                try:
                    await self._take_over(held)
                    failures = 0
                    while self._leases.owns(held.number):
                        answer = await reader.execute(self._group.read_command(held.streams, _READ_LIMIT))
                        rows = [entry for stream, found in answer or () for entry in entries_of(stream.decode(), found)]
                        await self._offer(held, sorted(rows, key=_arrival))
                except (ConnectionLostError, TransientError) as error:
                    failures += 1
                    delay = _RETRY.delay(failures)
                    log.warning("partition_unreadable", partition=held.number, reason=str(error))
                    await self._clock.sleep(delay)
        finally:
            await reader.close()

    async def _take_over(self, held: _Partition) -> None:
        """Bring in what is unsettled, whoever had it: the lease says that nobody works on it any more."""
        await self._group.create(held.streams, await self._cursors())
        leftovers = await self._group.leftovers(held.streams, idle_seconds=None, whose=None)
        claimed = await self._group.claim(leftovers, idle_seconds=0.0, skip=held.in_hand)
        await self._offer(held, sorted(claimed, key=_arrival))

    async def _offer(self, held: _Partition, entries: list[Entry]) -> None:
        if not entries:
            return
        held.nothing_in_hand.clear()
        held.in_hand.update(entry.key for entry in entries)
        for entry in entries:
            entry.term = held.term
        try:
            await self._arrived.put(entries)
        except asyncio.CancelledError:
            held.in_hand.difference_update(entry.key for entry in entries)  # they stay for the next owner
            raise

    def _holding(self, entry: Entry) -> _Partition | None:
        """Return the partition that the entry was read from, unless it was lost since."""
        partition = partition_of(entry.stream)
        held = self._held.get(partition) if partition is not None else None
        return held if held is not None and held.term == entry.term else None

    def _settled(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            held = self._holding(entry)
            if held is not None:
                held.in_hand.discard(entry.key)
                if not held.in_hand:
                    held.nothing_in_hand.set()


def _arrival(entry: Entry) -> tuple[int, int]:
    milliseconds, _, count = entry.entry_id.partition("-")
    return int(milliseconds), int(count)
