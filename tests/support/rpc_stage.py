"""One RPC transport with as many servers and callers on it as a test wants, the same way for memory and for Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.backoff import Backoff
from shared.clock import Clock, SystemClock
from shared.events.streams import rpc_request_stream
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.client import RpcClient
from shared.rpc.commands import CommandSpec, RpcModel
from shared.rpc.memory_transport import MemoryRpcTransport
from shared.rpc.messages import Fields, RPCRequest
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.server import RpcServer
from shared.rpc.transport import RpcTransport
from shared.telemetry.metrics import Metrics


class Number(RpcModel):
    """Parameters and result of the commands of these tests."""

    number: int


def commands_of(service: str) -> Mapping[str, CommandSpec]:
    """Return a command that only reads, one with an effect, and one that is urgent."""
    return {
        "double": CommandSpec(service, Number, Number),
        "deposit": CommandSpec(service, Number, Number, has_effect=True),
        "halt": CommandSpec(service, Number, Number, urgent=True),
    }


@dataclass(slots=True)
class Doubler:
    """A handler that remembers what it was asked."""

    asked: list[int] = field(default_factory=list)

    async def __call__(self, request: Number) -> Number:
        self.asked.append(request.number)
        return Number(number=request.number * 2)


class RpcStage(Protocol):
    """A transport, seen from outside."""

    service: str

    def transport(self, *, reclaim_after_seconds: float = 15.0) -> RpcTransport: ...

    async def put(self, fields: Fields) -> None: ...

    async def unsettled(self) -> int: ...


class MemoryRpcStage:
    """The stage in memory; one transport, whose patience the test chooses at first use."""

    def __init__(self) -> None:
        self.service = "asked-service"
        self._transport: MemoryRpcTransport | None = None

    def transport(self, *, reclaim_after_seconds: float = 15.0) -> MemoryRpcTransport:
        if self._transport is None:
            self._transport = MemoryRpcTransport(reclaim_after_seconds=reclaim_after_seconds)
        return self._transport

    async def put(self, fields: Fields) -> None:
        self.transport().put_request(self.service, fields)

    async def unsettled(self) -> int:
        return self.transport().unsettled(self.service)


class RedisRpcStage:
    """The stage on Redis, on streams of its own."""

    def __init__(self, url: str) -> None:
        self.service = f"asked-{RandomIds().new()}"
        self.connection = RedisConnection(url, clock=SystemClock())
        self.redis: Any = self.connection.client

    def transport(self, *, reclaim_after_seconds: float = 15.0) -> RedisRpcTransport:
        return RedisRpcTransport(self.connection, reclaim_after_seconds=reclaim_after_seconds)

    async def put(self, fields: Fields) -> None:
        await self.redis.xadd(rpc_request_stream(self.service), dict(fields))

    async def unsettled(self) -> int:
        length: int = await self.redis.xlen(rpc_request_stream(self.service))
        return length


@dataclass(slots=True)
class Cast:
    """Servers and callers that end with the test."""

    stage: RpcStage
    started: list[RpcServer | RpcClient] = field(default_factory=list)

    def server(self, instance: str = "one", *, transport: RpcTransport | None = None, **options: Any) -> RpcServer:
        """Return a server that is not started."""
        options.setdefault("clock", SystemClock())
        return RpcServer(
            transport or self.stage.transport(),
            service=self.stage.service,
            instance=instance,
            commands=commands_of(self.stage.service),
            **options,
        )

    async def serve(self, handler: Any, *, instance: str = "one", **options: Any) -> RpcServer:
        """Start a server that answers every command with ``handler``."""
        server = self.server(instance, **options)
        for command in commands_of(self.stage.service):
            server.register(command, handler)
        await server.start()
        self.started.append(server)
        return server

    async def client(
        self,
        instance: str = "caller",
        *,
        clock: Clock | None = None,
        transport: RpcTransport | None = None,
        metrics: Metrics | None = None,
    ) -> RpcClient:
        """Start a caller."""
        client = RpcClient(
            transport or self.stage.transport(),
            service="asking-service",
            instance=instance,
            clock=clock or SystemClock(),
            ids=RandomIds(),
            backoff=Backoff(base_seconds=0.01, cap_seconds=0.1),
            metrics=metrics,
        )
        await client.start()
        self.started.append(client)
        return client

    async def close(self) -> None:
        for component in reversed(self.started):
            await component.stop()

    def request(self, number: int, command: str = "double", **changes: Any) -> RPCRequest:
        """Return a request that nobody in particular sends."""
        values: dict[str, Any] = {
            "request_id": RandomIds().new(),
            "service_target": self.stage.service,
            "command": command,
            "parameters": {"number": number},
            "timeout_seconds": 10.0,
            "source": "asking-service",
            "instance": "elsewhere",
            "timestamp": SystemClock().now(),
            "sequence": 1,
            "trace_id": "trace-1",
        }
        return RPCRequest(**{**values, **changes})
