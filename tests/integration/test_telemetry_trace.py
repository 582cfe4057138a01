"""One id from an HTTP request through events, RPC, tasks and threads, over memory and over Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from shared.events.envelope import Event
from shared.ids import RandomIds
from shared.telemetry.correlation import CORRELATION_HEADER, Correlation
from shared.telemetry.trace import TraceContext, current_trace
from tests.support.bus_stage import MemoryStage, Recorder, RedisStage, Stage
from tests.support.event_payloads import candle, position_opened, signal
from tests.support.eventually import eventually
from tests.support.rpc_stage import Cast, MemoryRpcStage, Number, RedisRpcStage

TRACE = "request-17"


@dataclass(slots=True)
class Desk:
    """Two services on a bus and an RPC server, all of which note the trace that they work in."""

    stage: Stage
    cast: Cast
    seen: dict[str, TraceContext | None] = field(default_factory=dict)

    def note(self, place: str) -> None:
        self.seen[place] = current_trace()

    async def open(self) -> httpx.AsyncClient:
        bus, other = self.stage.bus("ai-service"), self.stage.bus("exec-risk-service")
        await self.cast.serve(self.serve)
        caller = await self.cast.client()

        async def on_candle(_event: Event[Any]) -> None:
            self.note("handler")
            await asyncio.create_task(self.in_a_task(), name="inner")
            await asyncio.to_thread(self.note, "thread of handler")
            await bus.publish("signal.generated", signal())

        async def on_signal(_event: Event[Any]) -> None:
            self.note("next handler")
            answer = await caller.call(
                service=self.cast.stage.service, command="double", parameters={"number": 1}, timeout=10.0
            )
            assert answer.succeeded
            await other.publish("position.opened", position_opened())

        bus.subscribe("candle.closed", on_candle)
        other.subscribe("signal.generated", on_signal)
        await bus.start()
        await other.start()

        app = FastAPI()

        @app.post("/candle")
        async def take_candle() -> None:
            await bus.publish("candle.closed", candle())

        app.add_middleware(Correlation, ids=RandomIds())
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://desk")

    async def in_a_task(self) -> None:
        self.note("task of handler")

    async def serve(self, request: Number) -> Number:
        self.note("RPC handler")
        await asyncio.to_thread(self.note, "thread of RPC handler")
        return request


@pytest.fixture(params=["memory", "redis"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    if request.param == "memory":
        stage: MemoryStage | RedisStage = MemoryStage()
        rpc: MemoryRpcStage | RedisRpcStage = MemoryRpcStage()
    else:
        url = request.getfixturevalue("redis_url")
        stage, rpc = RedisStage(url), RedisRpcStage(url)
    await stage.open()
    cast = Cast(rpc)
    yield Desk(stage, cast)
    await stage.close()
    await cast.close()
    if isinstance(rpc, RedisRpcStage):
        await rpc.connection.stop()


async def test_one_id_goes_all_the_way(desk: Desk) -> None:
    http, last = await desk.open(), Recorder()
    watcher = desk.stage.bus("analytics-os-service")
    watcher.subscribe("*", last)
    await watcher.start()
    async with http:
        answer = await http.post("/candle", headers={CORRELATION_HEADER: TRACE})
    assert (answer.status_code, answer.headers[CORRELATION_HEADER]) == (200, TRACE)
    await eventually(lambda: len(last.events) == 3, what="the three events")

    by_type = {event.metadata.event_type: event.metadata for event in last.events}
    closed, generated = by_type["candle.closed"], by_type["signal.generated"]
    assert {metadata.trace_id for metadata in by_type.values()} == {TRACE}
    assert closed.causation_id is None
    assert generated.causation_id == closed.event_id
    assert by_type["position.opened"].causation_id == generated.event_id

    handled, next_handled = TraceContext(TRACE, closed.event_id), TraceContext(TRACE, generated.event_id)
    served = desk.seen.pop("RPC handler")
    assert served is not None
    assert served.trace_id == TRACE
    assert served.causation_id not in (None, closed.event_id, generated.event_id)  # it answers the request
    assert desk.seen == {
        "handler": handled,
        "task of handler": handled,
        "thread of handler": handled,
        "next handler": next_handled,
        "thread of RPC handler": served,
    }
