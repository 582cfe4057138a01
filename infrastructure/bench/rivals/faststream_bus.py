"""FastStream over Redis Streams, tuned as its documentation says: pipelines to publish, batches to consume.

Its own JSON is orjson where that is installed, as here; logging is off.
"""

from __future__ import annotations

import asyncio
from typing import Any

from faststream.redis import RedisBroker, StreamSub

from infrastructure.bench.cue import Cue, seconds_now
from infrastructure.bench.rivals.hand_packed import BlockingRedis, pack
from infrastructure.bench.rivals.whole_event import SignalEvent, SignalEvents

STREAM = "bench:faststream"
GROUP = "faststream"


def _broker(cue: Cue) -> RedisBroker:
    # Its annotation does not say so, its documentation does: None silences it.
    return RedisBroker(cue.options["redis_url"], logger=None)  # type: ignore[arg-type]


async def produce(cue: Cue) -> dict[str, Any]:
    """Publish as much as it can, ``in_flight`` publishers at once, each waiting for its message."""
    events = SignalEvents()
    async with _broker(cue) as broker:
        await broker.connect()
        await cue.started()
        began = seconds_now()
        deadline = began + cue.options["seconds"]

        async def publish_on() -> int:
            count = 0
            while seconds_now() < deadline:
                await broker.publish(events.next(), stream=STREAM)
                count += 1
            return count

        counts = await asyncio.gather(*[publish_on() for _ in range(cue.options["in_flight"])])
        return {"count": sum(counts), "began": began, "ended": seconds_now()}


async def produce_pipelines(cue: Cue) -> dict[str, Any]:
    """Publish pipelines of ``batch`` messages, two of them on their way at a time."""
    size = cue.options["batch"]
    events = SignalEvents()
    async with _broker(cue) as broker:
        client = await broker.connect()
        await cue.started()
        began = seconds_now()
        deadline = began + cue.options["seconds"]

        async def publish_on() -> int:
            count = 0
            async with client.pipeline(transaction=False) as pipeline:
                while seconds_now() < deadline:
                    for _ in range(size):
                        await broker.publish(events.next(), stream=STREAM, pipeline=pipeline)
                    await pipeline.execute()
                    count += size
            return count

        counts = await asyncio.gather(publish_on(), publish_on())
        return {"count": sum(counts), "began": began, "ended": seconds_now()}


async def consume(cue: Cue) -> dict[str, Any]:
    """Handle validated batches until as many events as expected are acknowledged."""
    broker = _broker(cue)
    handled = 0

    @broker.subscriber(
        stream=StreamSub(STREAM, group=GROUP, consumer="bench", batch=True, max_records=cue.options["batch"])
    )
    async def handle(events: list[SignalEvent]) -> None:
        nonlocal handled
        handled += len(events)

    await broker.start()
    try:
        await cue.started()
        await cue.until(lambda expected: handled >= expected)
        redis = BlockingRedis(cue.options["redis_url"])
        await cue.until(lambda _: not redis.ask(pack(b"XPENDING", STREAM.encode(), GROUP.encode()))[0])
        return {"count": handled, "ended": seconds_now()}
    finally:
        await broker.stop()
