"""What RPC leaves in Redis, and what it survives there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit, urlunsplit

import pytest

from shared.clock import SystemClock
from shared.events.streams import rpc_request_stream, rpc_response_stream
from shared.redis_connection import RedisConnection
from shared.rpc.messages import Fields, encode_request
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.transport import CallerChannel, ResponderChannel
from tests.support.eventually import eventually
from tests.support.reply_thief import ReplyThief
from tests.support.rpc_stage import Cast, Doubler, RedisRpcStage


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[RedisRpcStage]:
    stage = RedisRpcStage(redis_url)
    yield stage
    await stage.connection.stop()


@pytest.fixture
async def cast(stage: RedisRpcStage) -> AsyncIterator[Cast]:
    cast = Cast(stage)
    yield cast
    await cast.close()


class RobbedTransport:
    """Callers send over one connection and read answers over another."""

    def __init__(self, out: RedisConnection, back: RedisConnection) -> None:
        self._out = RedisRpcTransport(out)
        self._back = RedisRpcTransport(back)

    def caller(self, service: str, instance: str) -> CallerChannel:
        return RobbedChannel(self._out.caller(service, instance), self._back.caller(service, instance))

    def responder(self, service: str, instance: str) -> ResponderChannel:
        return self._back.responder(service, instance)


class RobbedChannel:
    """The channel of such a caller."""

    def __init__(self, out: CallerChannel, back: CallerChannel) -> None:
        self._out = out
        self._back = back

    async def open(self) -> None:
        await self._back.open()

    async def send(self, service: str, fields: Fields) -> None:
        await self._out.send(service, fields)

    async def receive(self) -> Sequence[Fields]:
        return await self._back.receive()

    async def close(self) -> None:
        await self._back.close()


async def test_what_is_answered_leaves_no_request_and_everything_else_expires(cast: Cast, stage: RedisRpcStage) -> None:
    await cast.serve(Doubler())
    client = await cast.client()

    await client.call(service=stage.service, command="deposit", parameters={"number": 1}, timeout=10)

    async def nothing_left() -> bool:
        return await stage.unsettled() == 0

    await eventually(nothing_left)
    kept = {key.decode(): await stage.redis.ttl(key) for key in await stage.redis.keys("quantum:*")}
    assert kept.pop(rpc_request_stream(stage.service)) == -1
    assert kept.pop(rpc_response_stream("asking-service", "caller")) > 0
    (result,) = kept
    assert result.startswith(f"quantum:rpc:result:{stage.service}:")
    assert kept[result] > 0


async def test_a_caller_that_stops_takes_its_inbox_with_it(cast: Cast, stage: RedisRpcStage) -> None:
    await cast.serve(Doubler())
    client = await cast.client()
    await client.call(service=stage.service, command="double", parameters={"number": 1}, timeout=10)

    await client.stop()

    assert not await stage.redis.exists(rpc_response_stream("asking-service", "caller"))


async def test_a_group_that_redis_lost_is_created_again(cast: Cast, stage: RedisRpcStage) -> None:
    await cast.serve(Doubler())
    client = await cast.client()
    await stage.redis.flushall()

    response = await client.call(service=stage.service, command="double", parameters={"number": 1}, timeout=10)

    assert response.result == {"number": 2}


async def test_a_request_that_was_trimmed_while_pending_is_put_aside(cast: Cast, stage: RedisRpcStage) -> None:
    dead = stage.transport().responder(stage.service, "dead")
    await dead.open()
    await stage.put(encode_request(cast.request(1)))
    await eventually(dead.receive)
    await dead.close()
    await stage.redis.xtrim(rpc_request_stream(stage.service), maxlen=0, approximate=False)

    await cast.serve(Doubler(), transport=stage.transport(reclaim_after_seconds=0.1))

    async def nothing_pending() -> bool:
        pending = await stage.redis.xpending(rpc_request_stream(stage.service), stage.service)
        return bool(pending["pending"] == 0)

    await eventually(nothing_pending)


async def test_a_request_whose_receipt_was_lost_is_sent_again_and_runs_once(
    cast: Cast, stage: RedisRpcStage, redis_url: str
) -> None:
    handler = Doubler()
    await cast.serve(handler, instance="one")
    await cast.serve(handler, instance="two")
    parts = urlsplit(redis_url)
    assert parts.hostname is not None
    assert parts.port is not None
    thief = ReplyThief(parts.hostname, parts.port)
    await thief.start()
    robbed = RedisConnection(
        urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{thief.port}")),
        clock=SystemClock(),
    )
    await robbed.start()
    # The inbox goes round the thief: only the receipt of the request is stolen.
    client = await cast.client(transport=RobbedTransport(robbed, stage.connection))

    thief.stealing = True
    call = asyncio.create_task(
        client.call(service=stage.service, command="deposit", parameters={"number": 21}, timeout=20)
    )
    await eventually(lambda: thief.stolen >= 3)
    thief.stealing = False

    assert (await call).result == {"number": 42}
    assert handler.asked == [21]
    await robbed.stop()
    await thief.stop()
