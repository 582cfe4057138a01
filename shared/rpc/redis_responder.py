"""One replica's share of a request stream in Redis: XREADGROUP, and settlements that lose no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from shared.errors import ConnectionLostError, TransientError
from shared.redis_connection import BLOCK_SECONDS, RedisConnection
from shared.redis_wire import Command, ErrorReply, Reply
from shared.rpc.messages import RESULT_LIFETIME_SECONDS
from shared.rpc.redis_keys import RpcKeys
from shared.rpc.transport import Delivery, Settlement

#: A request that nobody held for this long belongs to a dead replica.
RECLAIM_AFTER_SECONDS = 15.0
#: An inbox that got no answer for this long has no reader any more.
_INBOX_LIFETIME_SECONDS = 600
_INBOX_LENGTH = 1000

log = structlog.get_logger(__name__)


class RedisResponderChannel:
    """A consumer in the group of its service."""

    def __init__(
        self,
        connection: RedisConnection,
        keys: RpcKeys,
        *,
        service: str,
        instance: str,
        reclaim_after_seconds: float,
    ) -> None:
        """Prepare, without connecting.

        Args:
            connection: The process's connection.
            keys: Names in Redis.
            service: Name of the group.
            instance: Name of the consumer in it.
            reclaim_after_seconds: See ``patience_seconds``.
        """
        self._connection = connection
        self._reader = connection.new_reader()
        self._keys = keys
        self._service = service
        self._instance = instance
        self._requests = keys.requests(service)
        self._patience_seconds = reclaim_after_seconds
        self._generation = -1
        self._everybody_had_time_at = 0.0

    @property
    def patience_seconds(self) -> float:
        return self._patience_seconds

    # -- taking part --------------------------------------------------------------------------------------------------

    async def open(self) -> Sequence[Delivery]:
        await self._create_group()
        (found,) = await self._connection.execute(
            ("XREADGROUP", "GROUP", self._service, self._instance, "STREAMS", self._requests, "0")
        )
        rows = found[0][1] if found else []
        # A request that was trimmed while it was pending comes without fields: an empty one, which is put aside.
        return [Delivery(row[0].decode(), fields_of(row[1] or ()), taken_over=True) for row in rows]

    async def receive(self, limit: int, *, wait: bool = True) -> Sequence[Delivery]:
        group = ("XREADGROUP", b"GROUP", self._service, self._instance, b"COUNT", limit)
        streams = (b"STREAMS", self._requests, b">")
        try:
            if wait:
                block = (b"BLOCK", int(BLOCK_SECONDS * 1000))
                found: Reply = await self._reader.execute((*group, *block, *streams), wait_seconds=BLOCK_SECONDS)
            else:
                (found,) = await self._connection.execute((*group, *streams))
        except TransientError as error:
            await self._repair_group(error)
            return []
        return [Delivery(row[0].decode(), fields_of(row[1])) for row in found[0][1]] if found else []

    async def close(self) -> None:
        await self._reader.close()

    async def _repair_group(self, error: TransientError) -> None:
        """Create the group again where Redis lost it (a flush, a failover); anything else is not ours to repair."""
        if isinstance(error, ConnectionLostError) or "NOGROUP" not in str(error):
            raise error
        log.warning("rpc_group_lost", stream=self._requests)
        await self._create_group()

    async def _create_group(self) -> None:
        # From the first entry: what was asked while no replica lived is answered if it is not late.
        (reply,) = await self._connection.execute(
            ("XGROUP", "CREATE", self._requests, self._service, "0", "MKSTREAM"), raise_on_error=False
        )
        if isinstance(reply, ErrorReply) and not str(reply).startswith("BUSYGROUP"):
            raise TransientError(f"Redis refused XGROUP: {reply}") from reply

    # -- settling -----------------------------------------------------------------------------------------------------

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[TransientError | None]:
        try:
            await self._settle(settlements)
        except TransientError as error:
            if len(settlements) == 1 or (isinstance(error, ConnectionLostError) and not self._connection.is_cluster):
                return [error] * len(settlements)
            # One inbox that cannot be written, or one master that is away, is no reason to keep the others waiting.
            return await asyncio.gather(*map(self._settle_alone, settlements))
        return [None] * len(settlements)

    async def _settle_alone(self, settlement: Settlement) -> TransientError | None:
        try:
            await self._settle([settlement])
        except TransientError as error:
            return error
        return None

    async def _settle(self, settlements: Sequence[Settlement]) -> None:
        """Store results, send answers, forget requests: in this order, so that nothing is lost wherever it ends.

        On one server it is a transaction. On a cluster each step begins when the one before is done, because inboxes
        lie on other masters than the requests.
        """
        steps = [step for step in (self._stored(settlements), self._answered(settlements)) if step]
        steps.append(self._forgotten(settlements))
        if self._connection.is_cluster:
            for step in steps:
                await self._connection.execute(*step)
        elif len(steps) == 1:
            await self._connection.execute(*steps[0])
        else:
            await self._connection.execute_atomically(*(command for step in steps for command in step))

    def _stored(self, settlements: Sequence[Settlement]) -> list[Command]:
        commands: list[Command] = []
        for result in (settlement.result for settlement in settlements):
            if result is not None:
                name = self._keys.claim(self._service, result.key)
                commands.append(("HSET", name, *flat(result.fields)))
                commands.append(("EXPIRE", name, RESULT_LIFETIME_SECONDS))
        return commands

    def _answered(self, settlements: Sequence[Settlement]) -> list[Command]:
        commands: list[Command] = []
        inboxes: dict[str, None] = {}
        for reply in (settlement.reply for settlement in settlements):
            if reply is not None:
                inbox = self._keys.inbox(reply.service, reply.instance)
                commands.append(("XADD", inbox, b"MAXLEN", b"~", _INBOX_LENGTH, b"*", *flat(reply.fields)))
                inboxes[inbox] = None
        commands += [("EXPIRE", inbox, _INBOX_LIFETIME_SECONDS) for inbox in inboxes]
        return commands

    def _forgotten(self, settlements: Sequence[Settlement]) -> list[Command]:
        entry_ids = [settlement.entry_id for settlement in settlements]
        return [("XACK", self._requests, self._service, *entry_ids), ("XDEL", self._requests, *entry_ids)]

    # -- what takes long, and what is left ----------------------------------------------------------------------------

    async def hold(self, entry_ids: Sequence[str]) -> None:
        await self._connection.execute(
            ("XCLAIM", self._requests, self._service, self._instance, 0, *entry_ids, "JUSTID")
        )

    async def take_over(self, limit: int) -> Sequence[Delivery]:
        if not self._everybody_had_time():
            return []
        try:
            return await self._take_over(int(self._patience_seconds * 1000), limit)
        except TransientError as error:
            await self._repair_group(error)
            return []

    def _everybody_had_time(self) -> bool:
        """Whether Redis was there for long enough that who does not hold its requests must be dead.

        During an outage nobody can hold anything; right after it every request looks abandoned.
        """
        now = asyncio.get_running_loop().time()
        if self._connection.generation != self._generation:
            self._generation = self._connection.generation
            self._everybody_had_time_at = now + self._patience_seconds
        return now >= self._everybody_had_time_at

    async def _take_over(self, idle: int, limit: int) -> list[Delivery]:
        # Not XAUTOCLAIM: on 6.2 it gives entries that were trimmed away without the id that would settle them.
        (pending,) = await self._connection.execute(
            ("XPENDING", self._requests, self._service, "IDLE", idle, "-", "+", limit)
        )
        if not pending:
            return []
        entry_ids = [row[0] for row in pending]
        answers = await self._connection.execute(
            *(("XCLAIM", self._requests, self._service, self._instance, idle, entry_id) for entry_id in entry_ids)
        )
        taken, trimmed = [], []
        for entry_id, answer in zip(entry_ids, answers, strict=True):
            if not answer:
                continue  # somebody else was quicker
            if answer[0] is None or answer[0][1] is None:
                trimmed.append(entry_id)
            else:
                taken.append(Delivery(entry_id.decode(), fields_of(answer[0][1]), taken_over=True))
        if trimmed:
            log.warning("rpc_requests_trimmed", stream=self._requests, entry_ids=[one.decode() for one in trimmed])
            await self._connection.execute(("XACK", self._requests, self._service, *trimmed))
        return taken


def fields_of(row: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of an entry, or of a hash, in a raw reply."""
    return dict(zip(row[::2], row[1::2], strict=True))


def flat(fields: Mapping[bytes, bytes]) -> list[bytes]:
    """Return ``fields`` as they stand in a command."""
    return [part for pair in fields.items() for part in pair]
