"""One RPC transport with as many servers and callers on it as a test wants, the same way for memory and for Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from shared.backoff import Backoff
from shared.clock import Clock, SystemClock
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.client import RpcClient
from shared.rpc.commands import CommandSpec, Question, RpcModel
from shared.rpc.memory_transport import MemoryRpcTransport
from shared.rpc.messages import Fields, RPCRequest, RPCResponse
from shared.rpc.redis_keys import RpcKeys
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.server import RpcServer
from shared.rpc.signing import Signer
from shared.rpc.transport import RpcTransport
from shared.telemetry.metrics import Metrics


class Number(RpcModel):
    """Parameters and result of the commands of these tests."""

    number: int


class Square(Question[Number]):
    """The parameters of a command that can be asked by type."""

    number: int


def commands_of(service: str) -> Mapping[str, CommandSpec]:
    """Return commands that only read, one with an effect, and one that is urgent."""
    return {
        "double": CommandSpec(service, Number, Number),
        "square": CommandSpec(service, Square, Number),
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


class Gate:
    """A handler that waits until the test lets it go on.

    Attributes:
        entered: What it was asked.
        cancelled: What was cut off.
    """

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.entered: list[int] = []
        self.cancelled: list[int] = []

    async def __call__(self, request: Number) -> Number:
        self.entered.append(request.number)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.number)
            raise
        return Number(number=request.number * 2)


class RpcStage(Protocol):
    """A transport, seen from outside.

    Attributes:
        service: Service that is asked.
    """

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
    """The stage on Redis, under a name of its own."""

    def __init__(self, url: str) -> None:
        self.service = f"asked-{RandomIds().new()}"
        self.connection = RedisConnection(url, clock=SystemClock())
        self.keys = RpcKeys(cluster=self.connection.is_cluster)
        self.requests = self.keys.requests(self.service)

    def transport(self, *, reclaim_after_seconds: float = 15.0) -> RedisRpcTransport:
        return RedisRpcTransport(self.connection, reclaim_after_seconds=reclaim_after_seconds)

    async def put(self, fields: Fields) -> None:
        parts = [part for pair in fields.items() for part in pair]
        await self.connection.execute(("XADD", self.requests, "*", *parts))

    async def unsettled(self) -> int:
        (length,) = await self.connection.execute(("XLEN", self.requests))
        return int(length)


@asynccontextmanager
async def open_stage(url: str | None) -> AsyncIterator[RpcStage]:
    """Give a stage on the Redis at ``url``; in memory when None."""
    if url is None:
        yield MemoryRpcStage()
        return
    stage = RedisRpcStage(url)
    try:
        yield stage
    finally:
        await stage.connection.stop()


async def nothing_left(stage: RpcStage) -> bool:
    """Whether every request was dealt with."""
    return await stage.unsettled() == 0


@dataclass(slots=True)
class Cast:
    """Servers and callers that end with the test.

    Attributes:
        stage: What they play on.
        signer: The key that all of them have, unless told otherwise.
    """

    stage: RpcStage
    signer: Signer | None = None
    started: list[RpcServer | RpcClient] = field(default_factory=list)

    def server(
        self,
        instance: str = "one",
        *,
        service: str | None = None,
        transport: RpcTransport | None = None,
        **options: Any,
    ) -> RpcServer:
        """Return a server that is not started."""
        service = service or self.stage.service
        usual = {"clock": SystemClock(), "signer": self.signer, "commands": commands_of(service)}
        return RpcServer(
            transport or self.stage.transport(), service=service, instance=instance, **{**usual, **options}
        )

    async def serve(self, handler: Any, *, instance: str = "one", **options: Any) -> RpcServer:
        """Start a server that answers every command with ``handler``."""
        server = self.server(instance, **options)
        for command in commands_of("any"):
            server.register(command, handler)
        await server.start()
        self.started.append(server)
        return server

    async def client(
        self,
        instance: str = "caller",
        *,
        service: str = "asking-service",
        clock: Clock | None = None,
        transport: RpcTransport | None = None,
        metrics: Metrics | None = None,
        signer: Signer | None = None,
    ) -> RpcClient:
        """Start a caller."""
        client = RpcClient(
            transport or self.stage.transport(),
            service=service,
            instance=instance,
            clock=clock or SystemClock(),
            ids=RandomIds(),
            backoff=Backoff(base_seconds=0.01, cap_seconds=0.1),
            commands=commands_of(self.stage.service),
            signer=signer or self.signer,
            metrics=metrics,
        )
        await client.start()
        self.started.append(client)
        return client

    async def ask(
        self,
        client: RpcClient,
        number: int = 21,
        *,
        command: str = "double",
        timeout: float = 10.0,
        request_id: str | None = None,
    ) -> RPCResponse:
        """Let ``client`` ask the service of the stage."""
        return await client.call(
            service=self.stage.service,
            command=command,
            parameters={"number": number},
            timeout=timeout,
            request_id=request_id,
        )

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
