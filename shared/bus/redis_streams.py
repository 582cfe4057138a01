"""The bus over Redis Streams: a stream per event type, on a cluster also per partition; a group per service."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from datetime import datetime

from shared.bus.consumer import ConsumerOptions
from shared.bus.housekeeping import HousekeepingRule
from shared.bus.partitions import PartitionedSource
from shared.bus.redis_group import ConsumerGroup, entries_of, fields_of
from shared.bus.stream_bus import StreamBus
from shared.bus.transport import Entry, EntryKey, EventBuffer, NewEntry
from shared.bus.trimming import StreamState, entry_order
from shared.clock import Clock
from shared.disk_buffer import Remembered
from shared.errors import ConnectionLostError, TransientError
from shared.events.streams import StreamNames
from shared.ids import IdSource
from shared.redis_connection import RedisConnection
from shared.redis_wire import Command, ErrorReply, Reply
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import NO_SPANS, Spans

#: Entries asked about at once after an outage.
_PAGE = 500
#: Streams per type on a cluster; more than masters, so that replicas of a service can share them evenly.
CLUSTER_PARTITIONS = 8

Cursors = Callable[[], Awaitable[Mapping[str, str]]]


class RedisAppender:
    """``Appender`` over one connection."""

    def __init__(self, connection: RedisConnection, *, trim_target: int) -> None:
        """Prepare, without connecting.

        Args:
            connection: The process's connection.
            trim_target: Length below which streams are not trimmed.
        """
        self._connection = connection
        self._trim_target = trim_target

    @property
    def generation(self) -> int:
        return self._connection.generation

    @property
    def connected(self) -> bool:
        return self._connection.connected

    async def connect(self) -> None:
        await self._connection.connect()

    async def wait_available(self) -> None:
        await self._connection.wait_available()

    async def append(self, entries: Sequence[NewEntry]) -> list[str | TransientError]:
        commands: list[Command] = [("XADD", entry.stream, b"*", *_flat(entry.fields)) for entry in entries]
        replies = await self._connection.execute(*commands, raise_on_error=False)
        return [_appended(reply) for reply in replies]

    async def missing(self, remembered: Sequence[Remembered]) -> list[Remembered]:
        if not remembered:
            return []
        trimmed_below = await self._trimmed_below({one.entry.stream for one in remembered})
        missing = []
        for begin in range(0, len(remembered), _PAGE):
            page = remembered[begin : begin + _PAGE]
            replies = await self._connection.execute(
                *(("XRANGE", one.entry.stream, one.entry_id, one.entry_id) for one in page)
            )
            missing += [
                one
                for one, rows in zip(page, replies, strict=True)
                if not _holds(rows, one) and entry_order(one.entry_id) >= entry_order(trimmed_below[one.entry.stream])
            ]
        return missing

    async def _trimmed_below(self, streams: Iterable[str]) -> dict[str, str]:
        """Return for each stream the id below which entries were trimmed, for all that is known.

        A stream that is shorter than trimming leaves it was never trimmed: what is missing before its first entry was
        lost, and somebody else has begun to publish again already.
        """
        names = sorted(streams)
        commands: list[Command] = []
        for name in names:
            commands += [("XLEN", name), ("XRANGE", name, "-", "+", "COUNT", 1)]
        replies = await self._connection.execute(*commands)
        return {
            name: rows[0][0].decode() if length >= self._trim_target else "0"
            for name, length, rows in zip(names, replies[::2], replies[1::2], strict=True)
        }


def _appended(reply: Reply) -> str | TransientError:
    if not isinstance(reply, ErrorReply):
        return str(reply.decode())
    if str(reply).startswith(("OOM", "MISCONF", "NOREPLICAS")):
        # It takes no writes at all at present; that is an outage to whoever publishes.
        raise ConnectionLostError(f"Redis takes no events: {reply}") from reply
    return TransientError(f"Redis refused an event: {reply}")


def _holds(rows: Sequence[Reply], one: Remembered) -> bool:
    """Tell whether the entry is this event: another master may have given its id to another one."""
    return bool(rows) and one.entry.event_id.encode() in fields_of(rows[0][1]).get(b"metadata", b"")


def _flat(fields: Mapping[bytes, bytes]) -> list[bytes]:
    return [part for pair in fields.items() for part in pair]


class RedisSource:
    """``EntrySource`` of one consumer on one server, where all streams can be read in one call."""

    def __init__(
        self, connection: RedisConnection, *, service: str, instance: str, idle_seconds: float | None, cursors: Cursors
    ) -> None:
        """Prepare, without connecting.

        Args:
            connection: The process's connection.
            service: Name of the consumer group.
            instance: Name of the consumer in it.
            idle_seconds: From when on others may take over; ``release`` makes entries look that idle.
            cursors: Durable position per stream, for groups that Redis lost.
        """
        self._group = ConsumerGroup(connection, service=service, instance=instance)
        # XREADGROUP blocks its connection: nothing else may wait behind it.
        self._reader = connection.new_reader()
        self._instance = instance
        self._idle_seconds = idle_seconds or 0.0
        self._cursors = cursors
        self._streams: list[str] = []

    async def open(self, streams: Sequence[str]) -> None:
        self._streams = list(streams)
        await self._group.create(self._streams, await self._cursors())

    async def read(self, limit: int) -> list[Entry]:
        answer = await self._reader.execute(self._group.read_command(self._streams, limit))
        return _in_order_of_arrival(answer or ())

    async def reclaim(self, *, idle_seconds: float | None, skip: Container[EntryKey]) -> list[Entry]:
        whose = self._instance if idle_seconds is None else None
        leftovers = await self._group.leftovers(self._streams, idle_seconds=idle_seconds, whose=whose)
        return await self._group.claim(leftovers, idle_seconds=idle_seconds or 0.0, skip=skip)

    async def hold(self, entries: Sequence[Entry]) -> None:
        await self._group.hold(entries)

    def owns(self, entry: Entry) -> bool:
        return True

    def let_go(self, entry: Entry) -> None:
        """Nothing to note: who takes over asks Redis."""

    async def ack(self, entries: Sequence[Entry]) -> None:
        await self._group.ack(entries)

    async def dead_letter(self, entry: Entry, fields: Mapping[bytes, bytes]) -> None:
        await self._group.dead_letter(entry, fields)

    async def release(self) -> None:
        await self._reader.close()
        leftovers = await self._group.leftovers(self._streams, idle_seconds=None, whose=self._instance)
        await self._group.let_go(leftovers, idle_seconds=self._idle_seconds)


def _in_order_of_arrival(answer: Iterable[tuple[bytes, list[Reply]]]) -> list[Entry]:
    """Merge the streams of one read by the time at which Redis took the entries, so that causes precede effects."""
    streams = [entries_of(stream.decode(), rows) for stream, rows in answer]
    return streams[0] if len(streams) == 1 else list(heapq.merge(*streams, key=_arrival))


def _arrival(entry: Entry) -> int:
    return int(entry.entry_id.partition("-")[0])


class RedisStreamKeeper:
    """``StreamKeeper`` over one connection."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    async def states(self, streams: Sequence[str]) -> list[StreamState]:
        commands: list[Command] = []
        for stream in streams:
            commands += [("XLEN", stream), ("XINFO", "GROUPS", stream)]
        replies = await self._connection.execute(*commands, raise_on_error=False)
        states = []
        for index, stream in enumerate(streams):
            length, groups = replies[2 * index : 2 * index + 2]
            if not isinstance(groups, ErrorReply):  # the stream does not exist yet
                states.append(StreamState(stream, int(length), await self._floors(stream, groups)))
        return states

    async def trim(self, stream: str, *, below: str, at_most: int) -> int:
        # Only together with ~ does Redis take a LIMIT; it drops whole nodes of about a hundred entries.
        (trimmed,) = await self._connection.execute(("XTRIM", stream, "MINID", "~", below, "LIMIT", at_most))
        return int(trimmed)

    async def _floors(self, stream: str, groups: Sequence[Reply]) -> dict[str, str]:
        by_name = {info[b"name"].decode(): info for info in (fields_of(group) for group in groups)}
        busy = [name for name, info in by_name.items() if info[b"pending"]]
        pending = await self._connection.execute(*(("XPENDING", stream, name) for name in busy)) if busy else []
        lowest = {name: summary[1].decode() for name, summary in zip(busy, pending, strict=True) if summary[1]}
        # What was delivered last is settled when nothing is pending, and it stays: the floor is a safe one.
        return {name: lowest.get(name, info[b"last-delivered-id"].decode()) for name, info in by_name.items()}


class RedisHistory:
    """``EventHistory`` over one connection."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def id_at(self, moment: datetime) -> str:
        return f"{int(moment.timestamp() * 1000)}-0"

    async def entries(self, stream: str, *, since: str, until: str, limit: int) -> list[Entry]:
        (rows,) = await self._connection.execute(("XRANGE", stream, since, until, "COUNT", limit))
        return entries_of(stream, rows)

    async def rewind(self, streams: Sequence[str], *, service: str, to: str) -> list[str]:
        replies = await self._connection.execute(
            *(("XGROUP", "SETID", stream, service, _before(to)) for stream in streams), raise_on_error=False
        )
        # An error says that there is no such stream or group: nobody of the service reads it.
        return [stream for stream, reply in zip(streams, replies, strict=True) if not isinstance(reply, ErrorReply)]


def _before(entry_id: str) -> str:
    """Return the id right before: a group's position is what it has read last."""
    milliseconds, count = entry_order(entry_id)
    if count:
        return f"{milliseconds}-{count - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else "0-0"


class RedisStreamsBus(StreamBus):
    """The bus of one service instance on Redis: one server, Sentinel, or a cluster."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        service: str,
        instance: str,
        clock: Clock,
        ids: IdSource,
        market_clock: Clock,
        options: ConsumerOptions = ConsumerOptions(),  # noqa: B008 - frozen
        metrics: Metrics | None = None,
        spans: Spans = NO_SPANS,
        buffer: EventBuffer | None = None,
        partitions: int = CLUSTER_PARTITIONS,
        housekeeping: HousekeepingRule = HousekeepingRule(),  # noqa: B008 - frozen
    ) -> None:
        """Prepare, without connecting.

        Args:
            connection: The process's connection.
            service: Consumer group, and ``source`` of what is published.
            instance: Consumer in the group.
            clock: Wall clock.
            ids: New event and trace ids.
            market_clock: Market time.
            options: Bounds and times of the consumer.
            metrics: Counters of the process.
            spans: What a tracing system sees.
            buffer: Keeps facts while Redis is away; started before and stopped after the bus.
            partitions: Streams per event type on a cluster; the same for all services of an installation.
            housekeeping: When and how streams are kept short.
        """
        appender = RedisAppender(connection, trim_target=housekeeping.trim.target)

        async def cursors() -> Mapping[str, str]:
            return {} if buffer is None else await buffer.cursors()

        source: RedisSource | PartitionedSource
        if connection.is_cluster:
            source = PartitionedSource(
                connection,
                service=service,
                instance=instance,
                clock=clock,
                cursors=cursors,
                lease_seconds=options.lease_seconds,
            )
        else:
            source = RedisSource(
                connection,
                service=service,
                instance=instance,
                idle_seconds=options.claim_idle_seconds,
                cursors=cursors,
            )
        super().__init__(
            appender,
            source,
            service=service,
            producer=f"{service}:{instance}:{ids.new()}",
            clock=clock,
            market_clock=market_clock,
            ids=ids,
            options=options,
            metrics=metrics,
            spans=spans,
            buffer=buffer,
            keeper=RedisStreamKeeper(connection),
            history=RedisHistory(connection),
            streams=StreamNames(partitions if connection.is_cluster else 0),
            housekeeping=housekeeping,
        )
