"""RPC over Redis streams: replicas share a request stream through a group, each caller has one reply stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from redis.exceptions import ResponseError

from shared.errors import ConnectionLostError, TransientError
from shared.events.streams import rpc_request_stream, rpc_response_stream
from shared.redis_connection import BLOCK_SECONDS, RedisConnection, redis_errors
from shared.rpc.messages import Fields
from shared.rpc.transport import Busy, Claim, Delivery, Done, Granted, Reply

#: A request that nobody touched for this long belongs to a dead replica.
RECLAIM_AFTER_SECONDS = 15.0
#: How long a claim and a stored result are kept: longer than a caller that timed out waits before it asks again.
RESULT_LIFETIME_SECONDS = 600
#: An inbox that got no answer for this long has no reader any more.
INBOX_LIFETIME_SECONDS = 600
#: Bounds on the streams. Requests beyond it are older than any caller waits.
_INBOX_LENGTH = 1000
_REQUESTS_LENGTH = 10_000
#: Redis may re-arm BLOCK, and a dead peer stays silent: a read that takes this much longer than it asked for ends.
_WATCHDOG_SECONDS = 3.0
_READ_COUNT = 32

log = structlog.get_logger(__name__)


class RedisRpcTransport:
    """Makes channels over one connection; blocking reads get connections of their own."""

    def __init__(self, connection: RedisConnection, *, reclaim_after_seconds: float = RECLAIM_AFTER_SECONDS) -> None:
        self._connection = connection
        self._reclaim_after_seconds = reclaim_after_seconds

    def caller(self, service: str, instance: str) -> RedisCallerChannel:
        """Return the channel of one calling process."""
        return RedisCallerChannel(self._connection, rpc_response_stream(service, instance))

    def responder(self, service: str, instance: str) -> RedisResponderChannel:
        """Return the channel of one answering process."""
        return RedisResponderChannel(self._connection, service, instance, self._reclaim_after_seconds)


class RedisCallerChannel:
    """One caller: XADD to the target's requests, XREAD from its own inbox."""

    def __init__(self, connection: RedisConnection, inbox: str) -> None:
        # Any: redis-py types its arguments with invariant unions that no plain dict or list fits.
        self._client: Any = connection.client
        self._reader: Any = connection.new_client()
        self._inbox = inbox
        self._cursor = "0-0"

    async def open(self) -> None:
        with redis_errors():
            await self._client.delete(self._inbox)  # answers to an earlier life

    async def send(self, service: str, fields: Fields) -> None:
        with redis_errors():
            await self._client.xadd(
                rpc_request_stream(service), dict(fields), maxlen=_REQUESTS_LENGTH, approximate=True
            )

    async def receive(self) -> Sequence[Fields]:
        with redis_errors():
            async with asyncio.timeout(BLOCK_SECONDS + _WATCHDOG_SECONDS):
                found = await self._reader.xread(
                    {self._inbox: self._cursor}, count=_READ_COUNT, block=_milliseconds(BLOCK_SECONDS)
                )
        answers = [] if not found else found[0][1]
        if answers:
            self._cursor = answers[-1][0].decode()
        return [fields for _, fields in answers]

    async def close(self) -> None:
        with redis_errors():
            await self._reader.aclose()
            await self._client.delete(self._inbox)


class RedisResponderChannel:
    """One replica: XREADGROUP, and answer, result and settlement in one transaction."""

    def __init__(self, connection: RedisConnection, service: str, instance: str, reclaim_after_seconds: float) -> None:
        # Any: redis-py types its arguments with invariant unions that no plain dict or list fits.
        self._client: Any = connection.client
        self._reader: Any = connection.new_client()
        self._service = service
        self._instance = instance
        self._requests = rpc_request_stream(service)
        self._reclaim_after_seconds = reclaim_after_seconds
        self._reclaim_due = 0.0

    async def open(self) -> Sequence[Delivery]:
        with redis_errors():
            await self._create_group()
            found = await self._client.xreadgroup(self._service, self._instance, {self._requests: "0"})
        return _deliveries(found[0][1]) if found else []

    async def receive(self) -> Sequence[Delivery]:
        if left := await self._reclaim_when_due():
            return left
        wait = min(BLOCK_SECONDS, self._reclaim_after_seconds)
        try:
            with redis_errors():
                async with asyncio.timeout(wait + _WATCHDOG_SECONDS):
                    found = await self._reader.xreadgroup(
                        self._service,
                        self._instance,
                        {self._requests: ">"},
                        count=_READ_COUNT,
                        block=_milliseconds(wait),
                    )
        except TransientError as error:
            await self._repair_group(error)
            return []
        return _deliveries(found[0][1]) if found else []

    async def claim(self, request_id: str, entry_id: str) -> Claim:
        key = self._result_key(request_id)
        with redis_errors():
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.hsetnx(key, "entry", entry_id)
                pipe.expire(key, RESULT_LIFETIME_SECONDS)
                pipe.hgetall(key)
                stored: dict[bytes, bytes] = (await pipe.execute())[-1]
        owner = stored.pop(b"entry").decode()
        if stored:
            return Done(stored)
        return Granted() if owner == entry_id else Busy()

    async def settle(self, delivery: Delivery, reply: Reply | None) -> None:
        with redis_errors():
            async with self._client.pipeline(transaction=True) as pipe:
                if reply is not None:
                    self._queue_answer(pipe, reply)
                pipe.xack(self._requests, self._service, delivery.entry_id)
                pipe.xdel(self._requests, delivery.entry_id)
                await pipe.execute()

    async def hold(self, entry_ids: Sequence[str]) -> None:
        with redis_errors():
            await self._client.xclaim(
                self._requests, self._service, self._instance, min_idle_time=0, message_ids=list(entry_ids), justid=True
            )

    async def close(self) -> None:
        with redis_errors():
            await self._reader.aclose()

    def _queue_answer(self, pipe: Any, reply: Reply) -> None:
        inbox = rpc_response_stream(reply.service, reply.instance)
        pipe.xadd(inbox, dict(reply.fields), maxlen=_INBOX_LENGTH, approximate=True)
        pipe.expire(inbox, INBOX_LIFETIME_SECONDS)
        if reply.stored_as is not None:
            key = self._result_key(reply.stored_as)
            pipe.hset(key, mapping=dict(reply.fields))
            pipe.expire(key, RESULT_LIFETIME_SECONDS)

    async def _reclaim_when_due(self) -> list[Delivery]:
        now = asyncio.get_running_loop().time()
        if now < self._reclaim_due:
            return []
        self._reclaim_due = now + self._reclaim_after_seconds / 2
        try:
            with redis_errors():
                return await self._reclaim(_milliseconds(self._reclaim_after_seconds))
        except TransientError as error:
            await self._repair_group(error)
            return []

    async def _reclaim(self, idle: int) -> list[Delivery]:
        # Not XAUTOCLAIM: on 6.2 it gives entries that were trimmed away without the id that would settle them.
        pending = await self._client.xpending_range(
            self._requests, self._service, min="-", max="+", count=_READ_COUNT, idle=idle
        )
        entry_ids = [row["message_id"] for row in pending]
        async with self._client.pipeline(transaction=False) as pipe:
            for entry_id in entry_ids:
                pipe.xclaim(self._requests, self._service, self._instance, idle, [entry_id])
            answers = await pipe.execute()
        claimed = []
        for entry_id, answer in zip(entry_ids, answers, strict=True):
            if answer and answer[0][1] is not None:
                claimed.append(Delivery(entry_id.decode(), answer[0][1]))
            elif answer:
                log.warning("rpc_request_trimmed", stream=self._requests, entry_id=entry_id.decode())
                await self._client.xack(self._requests, self._service, entry_id)
        return claimed

    async def _repair_group(self, error: TransientError) -> None:
        """Create the group again where Redis lost it (a flush, a failover); anything else is not ours to repair."""
        if isinstance(error, ConnectionLostError) or "NOGROUP" not in str(error):
            raise error
        log.warning("rpc_group_lost", stream=self._requests)
        with redis_errors():
            await self._create_group()

    async def _create_group(self) -> None:
        # From the first entry: what was asked while no replica lived is answered if it is not late.
        try:
            await self._client.xgroup_create(self._requests, self._service, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    def _result_key(self, request_id: str) -> str:
        return f"quantum:rpc:result:{self._service}:{request_id}"


def _deliveries(rows: Sequence[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Delivery]:
    # A request that was trimmed while it was pending comes without fields: an empty one, which the server puts aside.
    return [Delivery(entry_id.decode(), fields or {}) for entry_id, fields in rows]


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
