"""RPC over Redis streams: replicas share a request stream through a group, each caller has one reply stream."""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import ConnectionLostError
from shared.redis_connection import BLOCK_SECONDS, RedisConnection
from shared.redis_wire import Command, Reply
from shared.rpc.messages import RESULT_LIFETIME_SECONDS, CallKey, Fields
from shared.rpc.redis_keys import RpcKeys
from shared.rpc.redis_responder import RECLAIM_AFTER_SECONDS, RedisResponderChannel, fields_of, flat
from shared.rpc.transport import Busy, Claim, Done, Granted

#: Bounds on the streams. Requests beyond it are older than any caller waits.
_REQUESTS_LENGTH = 10_000
_CANCELLATIONS_LENGTH = 1000
#: A service that nobody cancelled anything of for this long has nothing left to cancel.
_CANCELLATIONS_LIFETIME_SECONDS = 600
_READ_COUNT = 256


class RedisRpcTransport:
    """Makes channels over one connection; blocking reads get connections of their own."""

    def __init__(self, connection: RedisConnection, *, reclaim_after_seconds: float = RECLAIM_AFTER_SECONDS) -> None:
        self._connection = connection
        self._reclaim_after_seconds = reclaim_after_seconds
        self._keys = RpcKeys(cluster=connection.is_cluster)

    def caller(self, service: str, instance: str) -> RedisCallerChannel:
        """Return the channel of one calling process."""
        return RedisCallerChannel(self._connection, self._keys, self._keys.inbox(service, instance))

    def responder(self, service: str, instance: str) -> RedisResponderChannel:
        """Return the channel of one answering process."""
        return RedisResponderChannel(
            self._connection,
            self._keys,
            service=service,
            instance=instance,
            reclaim_after_seconds=self._reclaim_after_seconds,
        )

    def claims(self, service: str) -> RedisClaimBook:
        """Return the claims of ``service``."""
        return RedisClaimBook(self._connection, self._keys, service)

    def cancellations(self, service: str) -> RedisCancellationFeed:
        """Return what the callers of ``service`` no longer wait for."""
        return RedisCancellationFeed(self._connection, self._keys.cancellations(service))


class RedisCallerChannel:
    """One caller: XADD to the target's requests, XREAD from its own inbox."""

    def __init__(self, connection: RedisConnection, keys: RpcKeys, inbox: str) -> None:
        self._connection = connection
        self._keys = keys
        self._inbox = inbox
        self._tail = _StreamTail(connection, inbox)

    async def open(self) -> None:
        await self._connection.execute(("DEL", self._inbox))  # answers to an earlier life

    async def send(self, service: str, *, requests: Sequence[Fields], cancellations: Sequence[Fields]) -> None:
        stream = self._keys.requests(service)
        commands: list[Command] = [
            ("XADD", stream, b"MAXLEN", b"~", _REQUESTS_LENGTH, b"*", *flat(fields)) for fields in requests
        ]
        if cancellations:
            stream = self._keys.cancellations(service)
            commands += [
                ("XADD", stream, b"MAXLEN", b"~", _CANCELLATIONS_LENGTH, b"*", *flat(fields))
                for fields in cancellations
            ]
            commands.append(("EXPIRE", stream, _CANCELLATIONS_LIFETIME_SECONDS))
        await self._connection.execute(*commands)

    async def receive(self) -> Sequence[Fields]:
        return await self._tail.read()

    async def close(self) -> None:
        await self._tail.close()
        await self._connection.execute(("DEL", self._inbox))


class RedisCancellationFeed:
    """One replica's ear: XREAD, because each of them must hear everything."""

    def __init__(self, connection: RedisConnection, stream: str) -> None:
        self._tail = _StreamTail(connection, stream)

    async def receive(self) -> Sequence[Fields]:
        return await self._tail.read()

    async def close(self) -> None:
        await self._tail.close()


class _StreamTail:
    """Reads one stream from its beginning on, and waits at its end."""

    def __init__(self, connection: RedisConnection, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._reader = connection.new_reader()
        self._cursor = b"0-0"

    async def read(self) -> list[Fields]:
        block = int(BLOCK_SECONDS * 1000)
        command = ("XREAD", b"COUNT", _READ_COUNT, b"BLOCK", block, b"STREAMS", self._stream, self._cursor)
        try:
            found: Reply = await self._reader.execute(command, wait_seconds=BLOCK_SECONDS)
        except ConnectionLostError:
            # Another server may count from further back. What is read twice was answered or noted already.
            self._cursor = b"0-0"
            raise
        if not found:
            return []
        rows = found[0][1]
        self._cursor = rows[-1][0]
        return [fields_of(row[1]) for row in rows]

    async def close(self) -> None:
        await self._reader.close()


class RedisClaimBook:
    """One hash per call with an effect: ``entry`` runs it, ``asked`` tells what it is, the rest is its answer."""

    def __init__(self, connection: RedisConnection, keys: RpcKeys, service: str) -> None:
        self._connection = connection
        self._keys = keys
        self._service = service

    async def claim(self, key: CallKey, *, entry_id: str, fingerprint: bytes) -> Claim:
        name = self._keys.claim(self._service, key)
        *_, flat_fields = await self._connection.execute_atomically(
            ("HSETNX", name, "entry", entry_id),
            ("HSETNX", name, "asked", fingerprint),
            ("EXPIRE", name, RESULT_LIFETIME_SECONDS),
            ("HGETALL", name),
        )
        stored = fields_of(flat_fields)
        owner, asked = stored.pop(b"entry").decode(), stored.pop(b"asked")
        if stored:
            return Done(asked, stored)
        return Granted() if owner == entry_id else Busy()

    async def keep(self, keys: Sequence[CallKey]) -> None:
        await self._connection.execute(
            *(("EXPIRE", self._keys.claim(self._service, key), RESULT_LIFETIME_SECONDS) for key in keys)
        )

    async def release(self, key: CallKey, *, entry_id: str) -> None:
        name = self._keys.claim(self._service, key)
        owner, fields = await self._connection.execute(("HGET", name, "entry"), ("HLEN", name))
        # Only this delivery could store a result meanwhile, and it is in our hands.
        if owner == entry_id.encode() and fields == 2:
            await self._connection.execute(("DEL", name))
