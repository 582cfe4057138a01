"""One broker with as many buses on it as a test wants, the same way for memory, for Redis and for a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from shared.backoff import Backoff
from shared.bus.consumer import ConsumerOptions
from shared.bus.delivery_policy import DeliveryPolicy
from shared.bus.housekeeping import HousekeepingRule
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.redis_streams import RedisStreamsBus
from shared.bus.stream_bus import StreamBus
from shared.bus.transport import EventBuffer
from shared.bus.trimming import entry_order
from shared.clock import Clock, SystemClock
from shared.events.codec import encode
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.events.registry import EVENTS
from shared.events.streams import StreamNames, dead_letter_stream, event_type_of
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.redis_wire import ErrorReply
from shared.telemetry.metrics import Metrics
from tests.support.event_payloads import START
from tests.support.eventually import eventually

SERVICE = "exec-risk-service"
PARTITIONS = 4

#: Short delays: what is tested is the order of things, not how long they take.
QUICK = ConsumerOptions(
    policy=DeliveryPolicy(max_attempts=3, backoff=Backoff(base_seconds=0.005)),
    claim_idle_seconds=None,
    lease_seconds=0.8,
    stop_timeout_seconds=2.0,
    reconnect=Backoff(base_seconds=0.01, cap_seconds=0.1),
)


def quick(*, policy: DeliveryPolicy | None = None, **changes: Any) -> ConsumerOptions:
    """Return quick options with some of them changed."""
    return replace(QUICK, policy=policy or QUICK.policy, **changes)


def policy(**changes: Any) -> DeliveryPolicy:
    """Return the quick policy with some of it changed."""
    return replace(QUICK.policy, **changes)


@dataclass(slots=True)
class Recorder:
    """A handler that remembers what it got."""

    events: list[Event[Any]] = field(default_factory=list)

    async def __call__(self, event: Event[Any]) -> None:
        self.events.append(event)

    @property
    def ids(self) -> list[str]:
        return [event.metadata.event_id for event in self.events]

    @property
    def types(self) -> list[str]:
        return [event.metadata.event_type for event in self.events]


class Stage(Protocol):
    """A broker, seen from outside."""

    def bus(
        self,
        service: str = SERVICE,
        instance: str = "one",
        *,
        clock: Clock | None = None,
        market_clock: Clock | None = None,
        options: ConsumerOptions = QUICK,
        housekeeping: HousekeepingRule = HousekeepingRule(),  # noqa: B008 - frozen
        buffer: EventBuffer | None = None,
        metrics: Metrics | None = None,
    ) -> StreamBus: ...

    async def kill(self, bus: StreamBus) -> None:
        """Let the instance of ``bus`` die: it settles and releases nothing any more."""
        ...

    async def lose_group(self, service: str = SERVICE) -> None:
        """Let the broker forget the group, as a failover can."""
        ...

    async def append_raw(self, stream: str, fields: Mapping[bytes, bytes]) -> None: ...

    async def entries(self, stream: str) -> list[Mapping[bytes, bytes]]: ...

    async def dead_letters(self, service: str = SERVICE) -> list[Mapping[bytes, bytes]]: ...

    async def unsettled(self, service: str = SERVICE) -> int: ...

    async def close(self) -> None: ...


class MemoryStage:
    """The stage of ``MemoryBus``."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._buses: list[MemoryBus] = []

    async def open(self) -> None:
        """Nothing to prepare."""

    def bus(
        self,
        service: str = SERVICE,
        instance: str = "one",
        *,
        clock: Clock | None = None,
        market_clock: Clock | None = None,
        options: ConsumerOptions = QUICK,
        housekeeping: HousekeepingRule = HousekeepingRule(),  # noqa: B008 - frozen
        buffer: EventBuffer | None = None,
        metrics: Metrics | None = None,
    ) -> StreamBus:
        clock = clock or SystemClock()
        bus = MemoryBus(
            self.broker,
            service=service,
            instance=instance,
            clock=clock,
            ids=RandomIds(),
            market_clock=market_clock or clock,
            options=options,
            housekeeping=housekeeping,
            metrics=metrics,
        )
        self._buses.append(bus)
        return bus

    async def kill(self, bus: StreamBus) -> None:
        await bus.stop()  # in one process nobody dies alone

    async def lose_group(self, service: str = SERVICE) -> None:
        self.broker.lose_group(service)

    async def append_raw(self, stream: str, fields: Mapping[bytes, bytes]) -> None:
        self.broker.add(stream, fields)

    async def entries(self, stream: str) -> list[Mapping[bytes, bytes]]:
        return self.broker.entries(stream)

    async def dead_letters(self, service: str = SERVICE) -> list[Mapping[bytes, bytes]]:
        return self.broker.dead_letters(service)

    async def unsettled(self, service: str = SERVICE) -> int:
        return self.broker.unsettled(service)

    async def close(self) -> None:
        for bus in self._buses:
            await bus.stop()


class RedisStage:
    """The stage of ``RedisStreamsBus``; every bus has a connection of its own, like a process."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._clock = SystemClock()
        self.connection = RedisConnection(url, clock=self._clock)
        # Any: redis-py types its answers as unions that every test would have to take apart.
        self.redis: Any = self.connection.client
        self._buses: list[tuple[StreamBus, RedisConnection]] = []
        self._names = StreamNames(PARTITIONS if self.connection.is_cluster else 0)

    async def open(self) -> None:
        await self.connection.start()

    def bus(
        self,
        service: str = SERVICE,
        instance: str = "one",
        *,
        clock: Clock | None = None,
        market_clock: Clock | None = None,
        options: ConsumerOptions = QUICK,
        housekeeping: HousekeepingRule = HousekeepingRule(),  # noqa: B008 - frozen
        buffer: EventBuffer | None = None,
        metrics: Metrics | None = None,
    ) -> StreamBus:
        clock = clock or self._clock
        connection = RedisConnection(self._url, clock=self._clock)
        bus = RedisStreamsBus(
            connection,
            service=service,
            instance=instance,
            clock=clock,
            ids=RandomIds(),
            market_clock=market_clock or clock,
            options=options,
            metrics=metrics,
            buffer=buffer,
            partitions=PARTITIONS,
            housekeeping=housekeeping,
        )
        self._buses.append((bus, connection))
        return bus

    async def kill(self, bus: StreamBus) -> None:
        """Cut its connections: its tasks go on, and reach nobody."""
        (connection,) = [connection for one, connection in self._buses if one is bus]
        await connection.stop()

    async def lose_group(self, service: str = SERVICE) -> None:
        streams = [stream for event_type in EVENTS for stream in self._names.streams(event_type)]
        await self.connection.execute(
            *(("XGROUP", "DESTROY", stream, service) for stream in streams), raise_on_error=False
        )

    async def append_raw(self, stream: str, fields: Mapping[bytes, bytes]) -> None:
        target = self._names.streams(event_type_of(stream))[0]
        await self.connection.execute(("XADD", target, "*", *(part for pair in fields.items() for part in pair)))

    async def entries(self, stream: str) -> list[Mapping[bytes, bytes]]:
        return await self._entries(self._names.streams(event_type_of(stream)))

    async def dead_letters(self, service: str = SERVICE) -> list[Mapping[bytes, bytes]]:
        return await self._entries([dead_letter_stream(service)])

    async def entry_id(self, stream: str, index: int) -> str:
        """Return the id of the entry at ``index`` on the stream, on whichever partition it lies."""
        replies = await self.connection.execute(
            *(("XRANGE", one, "-", "+") for one in self._names.streams(event_type_of(stream)))
        )
        ids: list[str] = [row[0].decode() for reply in replies for row in reply]
        return sorted(ids, key=entry_order)[index]

    async def _entries(self, streams: Sequence[str]) -> list[Mapping[bytes, bytes]]:
        replies = await self.connection.execute(*(("XRANGE", stream, "-", "+") for stream in streams))
        rows = sorted((row for reply in replies for row in reply), key=lambda row: entry_order(row[0].decode()))
        return [dict(zip(row[1][::2], row[1][1::2], strict=True)) for row in rows]

    async def unsettled(self, service: str = SERVICE) -> int:
        """Count what the group has pending and what it has not read yet."""
        streams = [stream for event_type in EVENTS for stream in self._names.streams(event_type)]
        replies = await self.connection.execute(
            *(("XINFO", "GROUPS", stream) for stream in streams), raise_on_error=False
        )
        count = 0
        for stream, groups in zip(streams, replies, strict=True):
            for group in [] if isinstance(groups, ErrorReply) else groups:
                info = dict(zip(group[::2], group[1::2], strict=True))
                if info[b"name"].decode() == service:
                    unread = ("XRANGE", stream, f"({info[b'last-delivered-id'].decode()}", "+")
                    count += info[b"pending"] + len((await self.connection.execute(unread))[0])
        return count

    async def close(self) -> None:
        for bus, _ in self._buses:
            await bus.stop()
        for _, connection in self._buses:
            await connection.stop()
        await self.connection.stop()


async def settled(stage: Stage, *services: str) -> None:
    """Wait until the services have nothing left to read or to settle."""

    async def nothing_left() -> bool:
        return not any([await stage.unsettled(service) for service in services or (SERVICE,)])

    await eventually(nothing_left, what="everything settled")


def raw(payload: EventPayload, event_type: str) -> dict[bytes, bytes]:
    """Return the fields of an event as a stranger would write them."""
    metadata = EventMetadata("id", event_type, "trace", None, START, "stranger", 1)
    return {name.encode(): value for name, value in encode(Event(metadata, payload)).items()}
