"""The bus in benchmarks: a producer and a consumer as services have them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from infrastructure.bench.cue import Cue, seconds_now
from infrastructure.bench.samples import EVENT_TYPE, SignalSamples
from infrastructure.bench.statistics import percentile
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.disk_buffer.buffer import DiskBuffer
from shared.events.envelope import Event
from shared.events.v3 import SignalGeneratedPayload
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import Metrics

#: Time between two groups of a schedule; timers are no finer than this.
_TICK_SECONDS = 0.001


@asynccontextmanager
async def _open_bus(options: Mapping[str, Any], service: str) -> AsyncIterator[RedisStreamsBus]:
    """Yield the bus of one service, wired as its composition root does, not started."""
    clock = SystemClock()
    configure_logging(service, "WARNING", stream=sys.stderr.buffer)
    metrics = Metrics(service, clock)
    connection = RedisConnection(options["redis_url"], clock=clock)
    buffer = DiskBuffer(
        Path(options["folder"]) / f"{service}-{options['instance']}.db", clock=clock, service=service, metrics=metrics
    )
    await connection.start()
    await buffer.start()
    bus = RedisStreamsBus(
        connection,
        service=service,
        instance=options["instance"],
        clock=clock,
        ids=RandomIds(),
        market_clock=clock,
        metrics=metrics,
        buffer=buffer,
    )
    try:
        yield bus
    finally:
        await bus.stop()
        await buffer.stop()
        await connection.stop()


async def produce(cue: Cue) -> dict[str, Any]:
    """Publish as much as it can, ``in_flight`` publishers at once, each waiting for its event to be acknowledged.

    With a ``rate`` it offers that many per second instead, and skips none: it falls behind when it cannot.
    """
    options = cue.options
    async with _open_bus(options, "ai-service") as bus:
        await bus.start()
        samples = SignalSamples(SystemClock())
        await cue.started()
        began = seconds_now()
        deadline = began + options["seconds"]
        turns = _Turns(began, options.get("rate"))

        async def publish_on() -> int:
            count = 0
            while seconds_now() < deadline:
                if turns.are_limited:
                    await turns.next()
                await bus.publish(EVENT_TYPE, samples.payload())
                count += 1
            return count

        counts = await asyncio.gather(*[publish_on() for _ in range(options["in_flight"])])
        return {"count": sum(counts), "began": began, "ended": seconds_now()}


class _Turns:
    """Moments to publish at, ``rate`` per second; None knows no limit."""

    def __init__(self, began: float, rate: float | None) -> None:
        self.are_limited = rate is not None
        self._began = began
        self._seconds_apart = 1 / rate if rate else 0.0
        self._given = 0

    async def next(self) -> None:
        """Wait for the next turn; one that is overdue comes at once."""
        due = self._began + self._given * self._seconds_apart
        self._given += 1
        if due > seconds_now() + _TICK_SECONDS:
            await asyncio.sleep(due - seconds_now())


async def consume(cue: Cue) -> dict[str, Any]:
    """Handle events until as many as expected are acknowledged."""
    async with _open_bus(cue.options, "exec-risk-service") as bus:
        handled = 0

        async def handle(event: Event[SignalGeneratedPayload]) -> None:
            nonlocal handled
            handled += 1

        bus.subscribe(EVENT_TYPE, handle)
        await bus.start()
        await cue.started()
        await cue.until(lambda expected: handled >= expected and not bus.progress().pending)
        return {"count": handled, "ended": seconds_now()}


async def publish_on_schedule(cue: Cue) -> dict[str, Any]:
    """Publish at a fixed rate whatever the bus does; latency counts from the moment at which an event was due."""
    options = cue.options
    async with _open_bus(options, "ai-service") as bus:
        await bus.start()
        samples = SignalSamples(SystemClock())
        latencies: list[float] = []

        async def publish(due: float) -> None:
            await bus.publish(EVENT_TYPE, samples.payload())
            latencies.append(seconds_now() - due)

        await cue.started()
        began = seconds_now()
        at_once = round(options["rate"] * _TICK_SECONDS)
        async with asyncio.TaskGroup() as group:
            for tick in range(round(options["seconds"] / _TICK_SECONDS)):
                due = began + tick * _TICK_SECONDS
                if due > seconds_now():
                    await asyncio.sleep(due - seconds_now())
                for _ in range(at_once):
                    group.create_task(publish(due))
        return {
            "count": len(latencies),
            "p50_ms": percentile(latencies, 0.50) * 1000,
            "p99_ms": percentile(latencies, 0.99) * 1000,
        }
