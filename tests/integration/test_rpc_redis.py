"""What RPC leaves in Redis, and what it survives there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.clock import SystemClock
from shared.events.streams import rpc_request_stream, rpc_response_stream
from shared.redis_connection import RedisConnection
from shared.redis_links.slots import slot_of
from shared.rpc.codec import encode_request
from shared.rpc.messages import Fields
from shared.rpc.redis_keys import RpcKeys
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.transport import CallerChannel, CancellationFeed, ClaimBook, Reply, ResponderChannel, Settlement
from tests.support.eventually import eventually
from tests.support.reply_thief import ReplyThief
from tests.support.rpc_stage import Cast, Doubler, Gate, RedisRpcStage, nothing_left


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[RedisRpcStage]:
    stage = RedisRpcStage(redis_url)
    yield stage
    await stage.connection.stop()


@pytest.fixture
async def redis(stage: RedisRpcStage) -> Any:
    """redis-py, to look around with."""
    return stage.connection.client


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

    def claims(self, service: str) -> ClaimBook:
        return self._back.claims(service)

    def cancellations(self, service: str) -> CancellationFeed:
        return self._back.cancellations(service)


class RobbedChannel:
    """The channel of such a caller."""

    def __init__(self, out: CallerChannel, back: CallerChannel) -> None:
        self._out = out
        self._back = back

    async def open(self) -> None:
        await self._back.open()

    async def send(self, service: str, *, requests: Sequence[Fields], cancellations: Sequence[Fields]) -> None:
        await self._out.send(service, requests=requests, cancellations=cancellations)

    async def receive(self) -> Sequence[Fields]:
        return await self._back.receive()

    async def close(self) -> None:
        await self._back.close()


async def test_what_is_answered_leaves_no_request_and_everything_else_expires(
    cast: Cast, stage: RedisRpcStage, redis: Any
) -> None:
    await cast.serve(gate := Gate())
    client = await cast.client()
    gate.open.set()

    await cast.ask(client, 1, command="deposit", request_id="once")
    await cast.ask(client, 1, command="halve", timeout=0.0001)  # leaves a cancellation

    await eventually(lambda: nothing_left(stage))
    keys = RpcKeys(cluster=False)
    expected = {
        keys.requests(stage.service): False,
        keys.inbox("asking-service", "caller"): True,
        keys.cancellations(stage.service): True,
        keys.claim(stage.service, ("asking-service", "once")): True,
    }

    async def expiring() -> bool:
        names = [key.decode() for key in await redis.keys("quantum:*")]
        return {name: await redis.ttl(name) > 0 for name in names} == expected

    await eventually(expiring)


def test_the_names_are_those_of_the_architecture_and_on_a_cluster_one_service_has_one_slot() -> None:
    one, many = RpcKeys(cluster=False), RpcKeys(cluster=True)
    key = ("ai-service", "call-1")

    assert one.requests("exec-risk-service") == rpc_request_stream("exec-risk-service")
    assert one.inbox("ai-service", "host-1") == rpc_response_stream("ai-service", "host-1")
    slots = {
        slot_of(name)
        for name in (
            many.requests("exec-risk-service"),
            many.cancellations("exec-risk-service"),
            many.claim("exec-risk-service", key),
        )
    }
    assert len(slots) == 1
    assert slot_of(many.requests("ai-service")) not in slots


async def test_a_caller_that_stops_takes_its_inbox_with_it(cast: Cast, redis: Any) -> None:
    await cast.serve(Doubler())
    client = await cast.client()
    await cast.ask(client)

    await client.stop()

    assert not await redis.exists(rpc_response_stream("asking-service", "caller"))


async def test_a_group_that_redis_lost_is_created_again(cast: Cast, redis: Any) -> None:
    await cast.serve(Doubler())
    client = await cast.client()
    await redis.flushdb()

    assert (await cast.ask(client, 1)).result == {"number": 2}


async def test_a_request_that_was_trimmed_while_pending_is_put_aside(
    cast: Cast, stage: RedisRpcStage, redis: Any
) -> None:
    dead = stage.transport().responder(stage.service, "dead")
    await dead.open()
    await stage.put(encode_request(cast.request(1)))
    await eventually(lambda: dead.receive(10))
    await dead.close()
    await redis.xtrim(stage.requests, maxlen=0, approximate=False)

    await cast.serve(Doubler(), transport=stage.transport(reclaim_after_seconds=0.1))

    async def nothing_pending() -> bool:
        pending = await redis.xpending(stage.requests, stage.service)
        return bool(pending["pending"] == 0)

    await eventually(nothing_pending)


async def test_an_own_request_that_was_trimmed_is_put_aside_at_the_start(cast: Cast, stage: RedisRpcStage) -> None:
    early = stage.transport().responder(stage.service, "one")
    await early.open()
    await stage.put(encode_request(cast.request(1)))
    await eventually(lambda: early.receive(10))
    await early.close()
    await stage.connection.execute(("XTRIM", stage.requests, "MAXLEN", "0"))

    server = await cast.serve(Doubler(), instance="one")

    await eventually(lambda: server.refused == {"unreadable": 1})
    assert (await cast.ask(await cast.client(), 1)).succeeded


async def test_nobody_is_taken_for_dead_right_after_an_outage(cast: Cast, stage: RedisRpcStage, redis: Any) -> None:
    busy = stage.transport().responder(stage.service, "busy")
    await busy.open()
    await stage.put(encode_request(cast.request(1)))
    await eventually(lambda: busy.receive(10))

    async def looks_abandoned() -> bool:
        (row,) = await redis.xpending_range(stage.requests, stage.service, min="-", max="+", count=1)
        return bool(row["time_since_delivered"] > 300)

    await eventually(looks_abandoned)
    other = stage.transport(reclaim_after_seconds=0.3).responder(stage.service, "other")

    assert await other.take_over(10) == []  # it does not know for how long Redis was away
    assert len(await eventually(lambda: other.take_over(10))) == 1
    await busy.close()
    await other.close()


# -- settling ---------------------------------------------------------------------------------------------------------


async def test_an_inbox_that_cannot_be_written_keeps_no_other_answer_back(
    cast: Cast, stage: RedisRpcStage, redis: Any
) -> None:
    responder = stage.transport().responder(stage.service, "one")
    await responder.open()
    await redis.set(rpc_response_stream("asking-service", "broken"), "no stream")
    inbox = stage.transport().caller("asking-service", "whole")
    await inbox.open()
    fields = {b"metadata": b"m"}

    outcomes = await responder.settle(
        [
            Settlement("1-1", Reply("asking-service", "broken", fields)),
            Settlement("1-2", Reply("asking-service", "whole", fields)),
        ]
    )

    assert [type(outcome).__name__ for outcome in outcomes] == ["TransientError", "NoneType"]
    assert await eventually(inbox.receive)
    await responder.close()
    await inbox.close()


async def test_an_answer_that_redis_has_no_memory_for_waits_until_it_has(
    cast: Cast, stage: RedisRpcStage, redis: Any
) -> None:
    await cast.serve(gate := Gate())
    client = await cast.client()
    call = asyncio.create_task(cast.ask(client, 1, command="deposit", request_id="once"))
    await eventually(lambda: gate.entered == [1])

    await redis.config_set("maxmemory", 1)
    try:
        gate.open.set()
        refusals = RefusalCount(redis)
        await eventually(refusals.is_above(2))
        assert await stage.unsettled() == 1  # neither answered nor forgotten
    finally:
        await redis.config_set("maxmemory", 0)

    assert (await call).result == {"number": 2}
    assert gate.entered == [1]


class RefusalCount:
    """How often Redis refused a transaction, counted from now on."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    def is_above(self, count: int) -> Any:
        async def is_above() -> bool:
            stats = await self._redis.info("commandstats")
            exec_stats = stats.get("cmdstat_exec", {})
            return bool(exec_stats.get("failed_calls", 0) + exec_stats.get("rejected_calls", 0) > count)

        return is_above


async def test_an_outage_while_a_command_runs_loses_no_answer_and_repeats_nothing(server_folder: Path) -> None:
    server = EmbeddedRedis(server_folder / "rpc-outage")
    await server.start()
    stage = RedisRpcStage(server.url)
    await stage.connection.start()
    cast = Cast(stage)
    transport = stage.transport(reclaim_after_seconds=1.0)
    await cast.serve(gate := Gate(), instance="one", transport=transport)
    await cast.serve(other := Doubler(), instance="two", transport=transport)
    client = await cast.client()
    # Until one of them has it; the Doubler would answer at once.
    number, call = 0, asyncio.create_task(cast.ask(client, 0, command="deposit", timeout=60))
    while not gate.entered:
        await asyncio.wait([call], timeout=0.05)
        if call.done():
            number += 1
            call = asyncio.create_task(cast.ask(client, number, command="deposit", timeout=60))

    await server.stop()
    gate.open.set()
    await server.start()

    assert (await call).result == {"number": number * 2}
    assert gate.entered == [number]
    assert number not in other.asked
    await cast.close()
    await stage.connection.stop()
    await server.stop()


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
    call = asyncio.create_task(cast.ask(client, 21, command="deposit", timeout=20))
    await eventually(lambda: thief.stolen >= 3)
    thief.stealing = False

    assert (await call).result == {"number": 42}
    assert handler.asked == [21]
    await robbed.stop()
    await thief.stop()
