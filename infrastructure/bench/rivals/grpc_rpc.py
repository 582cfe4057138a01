"""grpc.aio with bytes handlers: JSON of the same size as ours, the same models validate it."""

from __future__ import annotations

from typing import Any

import grpc.aio  # type: ignore[import-untyped]  # it ships no types
import orjson

from infrastructure.bench.cue import Cue
from infrastructure.bench.ours.rpc import COMMAND, PARAMETERS, SERVICE, answer, measure_calls
from infrastructure.bench.rivals.rpc_bodies import RpcBodies
from shared.rpc.commands import ValidateRiskRequest


async def serve(cue: Cue) -> dict[str, Any]:
    """Answer until the client is done."""
    bodies = RpcBodies()

    async def handle(request: bytes, context: Any) -> bytes:
        fields = orjson.loads(request)
        result = await answer(ValidateRiskRequest.model_validate(fields["payload"]["parameters"]))
        return orjson.dumps(bodies.response(result.model_dump(mode="json"), fields))

    server = grpc.aio.server()
    methods = {COMMAND: grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await cue.started(port=port)
    await cue.until(lambda _: True)
    await server.stop(grace=None)
    return {}


async def call(cue: Cue) -> dict[str, Any]:
    """Call, ``in_flight`` at a time, and measure each call."""
    bodies = RpcBodies()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{cue.options['port']}") as channel:
        method = channel.unary_unary(f"/{SERVICE}/{COMMAND}")

        async def call_once() -> None:
            orjson.loads(await method(orjson.dumps(bodies.request(PARAMETERS)), timeout=10.0))

        return await measure_calls(cue, call_once)
