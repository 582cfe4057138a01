"""A replica as a process of its own: ``python -m tests.support.rpc_program URL SERVICE INSTANCE KEY``."""

from __future__ import annotations

import asyncio
import sys

from shared.clock import SystemClock
from shared.redis_connection import RedisConnection
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.server import RpcServer
from shared.rpc.signing import Signer
from shared.telemetry.logs import configure_logging
from tests.support.rpc_stage import Number, commands_of

#: How long the replicas wait for one that may be dead.
RECLAIM_AFTER_SECONDS = 1.0


async def serve(url: str, service: str, instance: str, key: str) -> None:
    """Answer until the process is ended; say so when the first request can come."""
    configure_logging(service, "ERROR", stream=sys.stderr.buffer)
    connection = RedisConnection(url, clock=SystemClock())
    await connection.start()
    server = RpcServer(
        RedisRpcTransport(connection, reclaim_after_seconds=RECLAIM_AFTER_SECONDS),
        service=service,
        instance=instance,
        clock=SystemClock(),
        commands=commands_of(service),
        signer=Signer(key.encode()),
    )

    async def double_slowly(request: Number) -> Number:
        await asyncio.sleep(0.005)  # so that some are always in hand
        return Number(number=request.number * 2)

    server.register("double", double_slowly)
    await server.start()
    sys.stdout.write("serving\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
