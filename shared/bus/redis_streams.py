"""The bus over Redis Streams: one stream per event type, one consumer group per service."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import structlog
from redis.exceptions import ResponseError

from shared.bus.consumer import ConsumerOptions
from shared.bus.stream_bus import StreamBus
from shared.bus.transport import Entry, EntryKey
from shared.clock import Clock
from shared.events.streams import dead_letter_stream
from shared.ids import IdSource
from shared.redis_connection import BLOCK_SECONDS, SOCKET_TIMEOUT_SECONDS, RedisConnection, redis_errors
from shared.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

#: Entries per stream and look when leftovers are taken over.
_PAGE = 500


class RedisStreamsTransport:
    """``Appender`` and ``EntrySource`` of one service instance.

    A try's number is the delivery count of Redis's pending list, so it survives the process. Reading sets it to 1.
    Taking over keeps it, and ``hold`` sets it when the next try begins, so that entries which only lay in a dead
    process's memory are not counted as tried. XAUTOCLAIM does not tell the count; XPENDING with IDLE and XCLAIM,
    which together do the same, do.
    """

    def __init__(self, connection: RedisConnection, *, service: str, instance: str, idle_seconds: float | None) -> None:
        """Prepare, without connecting.

        Args:
            connection: The process's connection.
            service: Name of the consumer group.
            instance: Name of the consumer in it.
            idle_seconds: From when on others may take over; ``release`` makes entries look that idle.
        """
        # Any: redis-py types its arguments with invariant unions that no plain dict or list fits.
        self._redis: Any = connection.client
        # XREADGROUP blocks its connection: nothing else may wait behind it.
        self._reader: Any = connection.new_client()
        self._service = service
        self._instance = instance
        self._idle_seconds = idle_seconds or 0.0
        self._streams: list[str] = []

    async def append(self, stream: str, fields: Mapping[str, bytes]) -> None:
        with redis_errors():
            await self._redis.xadd(stream, dict(fields))

    async def open(self, streams: Sequence[str]) -> None:
        self._streams = list(streams)
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream in streams:
                    pipe.xgroup_create(stream, self._service, id="0", mkstream=True)
                for result in await pipe.execute(raise_on_error=False):
                    _raise_unless_group_exists(result)

    async def read(self, limit: int) -> list[Entry]:
        unread = dict.fromkeys(self._streams, ">")
        with redis_errors():
            # Redis may re-arm BLOCK, and a dead peer stays silent: then nothing else would end the read.
            async with asyncio.timeout(BLOCK_SECONDS + SOCKET_TIMEOUT_SECONDS):
                answer = await self._reader.xreadgroup(
                    self._service, self._instance, unread, count=limit, block=int(BLOCK_SECONDS * 1000)
                )
        return _in_order_of_arrival(answer or [])

    async def reclaim(self, *, idle_seconds: float | None, skip: Container[EntryKey]) -> list[Entry]:
        leftovers = [entry for entry in await self._leftovers(idle_seconds) if entry.key not in skip]
        return await self._claim(leftovers, idle_seconds) if leftovers else []

    async def hold(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in entries:
                    pipe.xclaim(
                        entry.stream,
                        self._service,
                        self._instance,
                        0,
                        [entry.entry_id],
                        retrycount=entry.attempt,
                        justid=True,
                    )
                await pipe.execute()

    async def ack(self, entries: Sequence[Entry]) -> None:
        ids_by_stream: dict[str, list[str]] = {}
        for entry in entries:
            ids_by_stream.setdefault(entry.stream, []).append(entry.entry_id)
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for stream, ids in ids_by_stream.items():
                    pipe.xack(stream, self._service, *ids)
                await pipe.execute()

    async def dead_letter(self, entry: Entry, fields: Mapping[bytes, bytes]) -> None:
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xadd(dead_letter_stream(self._service), dict(fields))
                pipe.xack(entry.stream, self._service, entry.entry_id)
                await pipe.execute()

    async def release(self) -> None:
        with redis_errors():
            await self._reader.aclose()
            leftovers = await self._leftovers(idle_seconds=None)
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in leftovers:
                    pipe.xclaim(
                        entry.stream,
                        self._service,
                        self._instance,
                        0,
                        [entry.entry_id],
                        idle=int(self._idle_seconds * 1000),
                        justid=True,
                    )
                await pipe.execute()

    async def _leftovers(self, idle_seconds: float | None) -> list[Entry]:
        """Return, still without fields, what this consumer has pending (None), or what anyone left idle."""
        whose: dict[str, Any] = {"consumername": self._instance}
        if idle_seconds is not None:
            whose = {"idle": int(idle_seconds * 1000)}
        found: list[Entry] = []
        begins = dict.fromkeys(self._streams, "-")
        while begins:
            with redis_errors():
                async with self._redis.pipeline(transaction=False) as pipe:
                    for stream, begin in begins.items():
                        pipe.xpending_range(stream, self._service, begin, "+", _PAGE, **whose)
                    pages = dict(zip(begins, await pipe.execute(), strict=True))
            for stream, page in pages.items():
                found.extend(Entry(stream, row["message_id"].decode(), {}, row["times_delivered"] + 1) for row in page)
            begins = {
                stream: f"({page[-1]['message_id'].decode()}" for stream, page in pages.items() if len(page) == _PAGE
            }
        return found

    async def _claim(self, leftovers: Sequence[Entry], idle_seconds: float | None) -> list[Entry]:
        """Make this consumer the owner and fetch the fields; who else claims at the same moment gets nothing."""
        min_idle = int((idle_seconds or 0.0) * 1000)
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for entry in leftovers:
                    pipe.xclaim(
                        entry.stream,
                        self._service,
                        self._instance,
                        min_idle,
                        [entry.entry_id],
                        retrycount=entry.attempt - 1,
                    )
                answers = await pipe.execute()
        claimed = []
        for entry, answer in zip(leftovers, answers, strict=True):
            if answer and answer[0][1] is not None:
                entry.fields = answer[0][1]
                claimed.append(entry)
            elif answer:
                await self._forget_trimmed(entry)
        return claimed

    async def _forget_trimmed(self, entry: Entry) -> None:
        """Redis 6.2 keeps the pending mark of an entry that was trimmed away; its content is gone."""
        log.error("entry_trimmed_before_it_was_handled", stream=entry.stream, entry_id=entry.entry_id)
        await self.ack([entry])


def _raise_unless_group_exists(result: object) -> None:
    if isinstance(result, ResponseError) and str(result).startswith("BUSYGROUP"):
        return
    if isinstance(result, Exception):
        raise result


def _in_order_of_arrival(answer: Iterable[tuple[bytes, list[tuple[bytes, dict[bytes, bytes]]]]]) -> list[Entry]:
    """Merge the streams of one read by the time at which Redis took the entries, so that causes precede effects."""
    streams = [
        [Entry(stream.decode(), entry_id.decode(), fields) for entry_id, fields in rows] for stream, rows in answer
    ]
    return streams[0] if len(streams) == 1 else list(heapq.merge(*streams, key=_arrival))


def _arrival(entry: Entry) -> int:
    return int(entry.entry_id.partition("-")[0])


class RedisStreamsBus(StreamBus):
    """The bus of one service instance on Redis."""

    def __init__(
        self,
        connection: RedisConnection,
        *,
        service: str,
        instance: str,
        clock: Clock,
        ids: IdSource,
        market_clock: Clock,
        options: ConsumerOptions = ConsumerOptions(),  # noqa: B008 - frozen
        metrics: Metrics | None = None,
    ) -> None:
        transport = RedisStreamsTransport(
            connection, service=service, instance=instance, idle_seconds=options.claim_idle_seconds
        )
        super().__init__(
            transport,
            transport,
            service=service,
            clock=clock,
            market_clock=market_clock,
            ids=ids,
            options=options,
            metrics=metrics,
        )
