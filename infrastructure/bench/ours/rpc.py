"""RPC in benchmarks: a client and a server as services have them, and a command that does next to nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from infrastructure.bench.cue import Cue, seconds_now
from infrastructure.bench.statistics import percentile
from shared.clock import SystemClock
from shared.errors import RpcError
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.client import RpcClient
from shared.rpc.commands import ValidateRiskRequest, ValidateRiskResult
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.server import RpcServer
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import Metrics

SERVICE = "exec-risk-service"
COMMAND = "validate_risk"
PARAMETERS = {"symbol": "BTCUSDT", "size_usd": 250.0, "leverage": 3.0, "side": "BUY"}
#: Calls before the first that counts.
_WARM_UP = 50
_TIMEOUT_SECONDS = 10.0


@asynccontextmanager
async def _connected(cue: Cue, service: str) -> AsyncIterator[RedisConnection]:
    configure_logging(service, "WARNING", stream=sys.stderr.buffer)
    connection = RedisConnection(cue.options["redis_url"], clock=SystemClock())
    await connection.start()
    try:
        yield connection
    finally:
        await connection.stop()


async def answer(request: ValidateRiskRequest) -> ValidateRiskResult:
    """Approve."""
    return ValidateRiskResult(approved=True, max_allowed_size=request.size_usd)


async def serve(cue: Cue) -> dict[str, Any]:
    """Answer until the client is done."""
    async with _connected(cue, SERVICE) as connection:
        clock = SystemClock()
        server = RpcServer(
            RedisRpcTransport(connection),
            service=SERVICE,
            instance="bench-1",
            clock=clock,
            max_in_flight=256,
            metrics=Metrics(SERVICE, clock),
        )
        server.register(COMMAND, answer)
        await server.start()
        await cue.started()
        await cue.until(lambda _: True)
        await server.stop()
        return {}


async def call(cue: Cue) -> dict[str, Any]:
    """Call, ``in_flight`` at a time, and measure each call."""
    async with _connected(cue, "ai-service") as connection:
        clock = SystemClock()
        client = RpcClient(
            RedisRpcTransport(connection),
            service="ai-service",
            instance="bench-1",
            clock=clock,
            ids=RandomIds(),
            metrics=Metrics("ai-service", clock),
        )
        await client.start()

        async def call_once() -> None:
            response = await client.call(
                service=SERVICE, command=COMMAND, parameters=PARAMETERS, timeout=_TIMEOUT_SECONDS
            )
            if not response.succeeded:
                raise RpcError(response.error_code or "ERROR", response.error_message or "no answer")

        result = await measure_calls(cue, call_once)
        await client.stop()
        return result


async def measure_calls(cue: Cue, call_once: Callable[[], Awaitable[object]]) -> dict[str, Any]:
    """Run ``call_once`` as often as possible in the given time; return how long calls took and how many there were."""
    for _ in range(_WARM_UP):
        await call_once()
    await cue.started()
    began = seconds_now()
    deadline = began + cue.options["seconds"]
    times: list[float] = []

    async def call_on() -> None:
        while (start := seconds_now()) < deadline:
            await call_once()
            times.append(seconds_now() - start)

    await asyncio.gather(*[call_on() for _ in range(cue.options["in_flight"])])
    return latency_figures(times, seconds_now() - began)


def latency_figures(times: list[float], seconds: float) -> dict[str, Any]:
    """Return the figures of calls that took ``times`` in all of ``seconds``."""
    return {
        "count": len(times),
        "calls_per_s": len(times) / seconds,
        "p50_us": percentile(times, 0.50) * 1e6,
        "p99_us": percentile(times, 0.99) * 1e6,
    }
