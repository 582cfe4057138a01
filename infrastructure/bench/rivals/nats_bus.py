"""NATS with nats-py: core (at most once, nothing kept) and JetStream (kept in a file, acknowledged one by one)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import PubAck

from infrastructure.bench.cue import Cue, seconds_now
from infrastructure.bench.rivals.whole_event import SignalEvent, SignalEvents

_SUBJECT = "bench.signal.generated"
_STREAM = "BENCH"
_ENCODE = SignalEvent.__pydantic_serializer__.to_json
_DECODE = SignalEvent.__pydantic_validator__.validate_json
#: Publishes to JetStream that wait for their acknowledgement.
_IN_FLIGHT = 1000
_NO_LIMIT = -1


@asynccontextmanager
async def _connected(cue: Cue) -> AsyncIterator[Client]:
    client = await nats.connect(cue.options["nats_url"], pending_size=64 * 1024 * 1024)
    try:
        yield client
    finally:
        await client.close()


async def produce_core(cue: Cue) -> dict[str, Any]:
    """Publish batches, each flushed to the server before the next."""
    events = SignalEvents()
    async with _connected(cue) as client:
        await cue.started()
        began = seconds_now()
        deadline, count = began + cue.options["seconds"], 0
        while seconds_now() < deadline:
            for _ in range(cue.options["batch"]):
                await client.publish(_SUBJECT, _ENCODE(events.next()))
            await client.flush()
            count += cue.options["batch"]
        return {"count": count, "began": began, "ended": seconds_now()}


async def consume_core(cue: Cue) -> dict[str, Any]:
    """Validate every message; core NATS acknowledges nothing."""
    handled = 0

    async def handle(message: Msg) -> None:
        nonlocal handled
        _DECODE(message.data)
        handled += 1

    async with _connected(cue) as client:
        await client.subscribe(_SUBJECT, cb=handle, pending_msgs_limit=_NO_LIMIT, pending_bytes_limit=_NO_LIMIT)
        await client.flush()
        await cue.started()
        await cue.until(lambda expected: handled >= expected)
        return {"count": handled, "ended": seconds_now()}


async def produce_stream(cue: Cue) -> dict[str, Any]:
    """Publish to JetStream, a bounded number of acknowledgements outstanding."""
    events = SignalEvents()
    async with _connected(cue) as client:
        stream = client.jetstream(publish_async_max_pending=2 * _IN_FLIGHT)
        await cue.started()
        began = seconds_now()
        deadline, count = began + cue.options["seconds"], 0
        waiting: deque[asyncio.Future[PubAck]] = deque()
        while seconds_now() < deadline:
            waiting.append(await stream.publish_async(_SUBJECT, _ENCODE(events.next())))
            count += 1
            if len(waiting) >= _IN_FLIGHT:
                await waiting.popleft()
        await asyncio.gather(*waiting)
        return {"count": count, "began": began, "ended": seconds_now()}


async def consume_stream(cue: Cue) -> dict[str, Any]:
    """Fetch batches, validate and acknowledge every message."""
    async with _connected(cue) as client:
        stream = client.jetstream()
        await stream.add_stream(name=_STREAM, subjects=[_SUBJECT])
        subscription = await stream.pull_subscribe(_SUBJECT, durable="bench")
        await cue.started()
        handled = 0
        while cue.expected is None or handled < cue.expected:
            try:
                messages = await subscription.fetch(cue.options["batch"], timeout=0.1)
            except TimeoutError:  # there was nothing yet
                continue
            for message in messages:
                _DECODE(message.data)
                await message.ack()
            handled += len(messages)
        await client.flush()
        ended = seconds_now()
        await stream.delete_stream(_STREAM)
        return {"count": handled, "ended": ended}
