"""One broker with as many buses on it as a test wants, the same way for memory and for Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from shared.backoff import Backoff
from shared.bus.consumer import ConsumerOptions
from shared.bus.delivery_policy import DeliveryPolicy
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.bus.redis_streams import RedisStreamsBus
from shared.bus.stream_bus import StreamBus
from shared.clock import Clock, SystemClock
from shared.events.envelope import Event
from shared.events.streams import dead_letter_stream
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection

SERVICE = "exec-risk-service"

#: Short delays: what is tested is the order of things, not how long they take.
QUICK = ConsumerOptions(
    policy=DeliveryPolicy(max_attempts=3, backoff=Backoff(base_seconds=0.005)),
    claim_idle_seconds=None,
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
    ) -> StreamBus: ...

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
        )
        self._buses.append(bus)
        return bus

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
        self._buses: list[StreamBus] = []
        self._connections = [self.connection]

    async def open(self) -> None:
        await self.connection.start()
        await self.redis.flushdb()

    def bus(
        self,
        service: str = SERVICE,
        instance: str = "one",
        *,
        clock: Clock | None = None,
        market_clock: Clock | None = None,
        options: ConsumerOptions = QUICK,
    ) -> StreamBus:
        clock = clock or self._clock
        connection = RedisConnection(self._url, clock=clock)
        bus = RedisStreamsBus(
            connection,
            service=service,
            instance=instance,
            clock=clock,
            ids=RandomIds(),
            market_clock=market_clock or clock,
            options=options,
        )
        self._connections.append(connection)
        self._buses.append(bus)
        return bus

    async def append_raw(self, stream: str, fields: Mapping[bytes, bytes]) -> None:
        await self.redis.xadd(stream, dict(fields))

    async def entries(self, stream: str) -> list[Mapping[bytes, bytes]]:
        return [fields for _, fields in await self.redis.xrange(stream)]

    async def dead_letters(self, service: str = SERVICE) -> list[Mapping[bytes, bytes]]:
        return await self.entries(dead_letter_stream(service))

    async def unsettled(self, service: str = SERVICE) -> int:
        """Count what the group has pending and what it has not read yet."""
        count = 0
        async for stream in self.redis.scan_iter("quantum:stream:*"):
            for group in await self.redis.xinfo_groups(stream):
                if group["name"].decode() == service:
                    last_read = group["last-delivered-id"].decode()
                    count += group["pending"] + len(await self.redis.xrange(stream, f"({last_read}"))
        return count

    async def close(self) -> None:
        for bus in self._buses:
            await bus.stop()
        for connection in self._connections:
            await connection.stop()
