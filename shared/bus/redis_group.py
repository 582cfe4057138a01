"""One service's consumer group in Redis: the commands of its life, on any set of streams."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import structlog

from shared.bus.transport import Entry, EntryKey
from shared.errors import TransientError
from shared.events.streams import dead_letter_stream
from shared.redis_connection import BLOCK_SECONDS, RedisConnection
from shared.redis_wire import Command, ErrorReply, Reply

log = structlog.get_logger(__name__)

#: Entries per stream and look when leftovers are taken over.
_PAGE = 500
#: A durable cursor is taken back by this much, milliseconds: the clock of another master may be behind.
_CURSOR_MARGIN_MS = 60_000


class ConsumerGroup:
    """The group of ``service`` as ``instance`` uses it.

    A try's number is the delivery count of Redis's pending list, so it survives the process. Reading sets it to 1.
    Taking over keeps it, and ``hold`` sets it when the next try begins, so that entries which only lay in a dead
    process's memory are not counted as tried. XAUTOCLAIM does not tell the count; XPENDING with IDLE and XCLAIM,
    which together do the same, do.
    """

    def __init__(self, connection: RedisConnection, *, service: str, instance: str) -> None:
        self._connection = connection
        self._service = service
        self._instance = instance

    async def create(self, streams: Sequence[str], cursors: Mapping[str, str]) -> None:
        """Make sure that the group exists on every stream; a new one begins at its cursor, else at the first entry."""
        replies = await self._connection.execute(
            *(
                ("XGROUP", "CREATE", stream, self._service, _safely_before(cursors.get(stream, "0")), "MKSTREAM")
                for stream in streams
            ),
            raise_on_error=False,
        )
        for reply in replies:
            if isinstance(reply, ErrorReply) and not str(reply).startswith("BUSYGROUP"):
                raise TransientError(f"Redis refused XGROUP: {reply}") from reply

    def read_command(self, streams: Sequence[str], limit: int) -> Command:
        """Return the blocking command that reads what no consumer of the group has yet."""
        options = ("COUNT", limit, "BLOCK", int(BLOCK_SECONDS * 1000), "STREAMS")
        return ("XREADGROUP", "GROUP", self._service, self._instance, *options, *streams, *(b">" for _ in streams))

    async def leftovers(self, streams: Sequence[str], *, idle_seconds: float | None, whose: str | None) -> list[Entry]:
        """Return, still without fields, what is pending: of one consumer or anyone (None), idle for so long."""
        idle = () if idle_seconds is None else ("IDLE", int(idle_seconds * 1000))
        consumer = () if whose is None else (whose,)
        found: list[Entry] = []
        begins = dict.fromkeys(streams, "-")
        while begins:
            pages = await self._connection.execute(
                *(
                    ("XPENDING", stream, self._service, *idle, begin, "+", _PAGE, *consumer)
                    for stream, begin in begins.items()
                )
            )
            by_stream = dict(zip(begins, pages, strict=True))
            for stream, page in by_stream.items():
                found.extend(Entry(stream, row[0].decode(), {}, row[3] + 1) for row in page)
            begins = {stream: f"({page[-1][0].decode()}" for stream, page in by_stream.items() if len(page) == _PAGE}
        return found

    async def claim(self, leftovers: Sequence[Entry], *, idle_seconds: float, skip: Container[EntryKey]) -> list[Entry]:
        """Make this consumer the owner and fetch the fields; who else claims at the same moment gets nothing."""
        wanted = [entry for entry in leftovers if entry.key not in skip]
        if not wanted:
            return []
        answers = await self._connection.execute(
            *(self._claim_command(entry, int(idle_seconds * 1000), "RETRYCOUNT", entry.attempt - 1) for entry in wanted)
        )
        claimed, trimmed = [], []
        for entry, answer in zip(wanted, answers, strict=True):
            if not answer:
                continue
            if answer[0] is None or answer[0][1] is None:
                trimmed.append(entry)
                continue
            entry.fields = fields_of(answer[0][1])
            claimed.append(entry)
        if trimmed:
            await self._forget(trimmed)
        return claimed

    async def hold(self, entries: Sequence[Entry]) -> None:
        """Keep others from taking the entries, and write down the number of their try."""
        if entries:
            await self._connection.execute(
                *(self._claim_command(entry, 0, "RETRYCOUNT", entry.attempt, "JUSTID") for entry in entries)
            )

    async def let_go(self, entries: Sequence[Entry], *, idle_seconds: float) -> None:
        """Make the entries look as if nobody had touched them for so long."""
        if entries:
            await self._connection.execute(
                *(self._claim_command(entry, 0, "IDLE", int(idle_seconds * 1000), "JUSTID") for entry in entries)
            )

    async def ack(self, entries: Sequence[Entry]) -> None:
        """Mark the entries as dealt with."""
        by_stream: dict[str, list[str]] = {}
        for entry in entries:
            by_stream.setdefault(entry.stream, []).append(entry.entry_id)
        await self._connection.execute(*(("XACK", stream, self._service, *ids) for stream, ids in by_stream.items()))

    async def dead_letter(self, entry: Entry, fields: Mapping[bytes, bytes]) -> None:
        """Add ``fields`` to the dead letters and settle ``entry``; on a cluster a crash can add them twice."""
        add: Command = ("XADD", dead_letter_stream(self._service), "*", *_flat(fields))
        ack: Command = ("XACK", entry.stream, self._service, entry.entry_id)
        if self._connection.is_cluster:  # two slots, so no transaction can hold both
            await self._connection.execute(add)
            await self._connection.execute(ack)
        else:
            await self._connection.execute_atomically(add, ack)

    def _claim_command(self, entry: Entry, min_idle_ms: int, *options: Any) -> Command:
        return ("XCLAIM", entry.stream, self._service, self._instance, min_idle_ms, entry.entry_id, *options)

    async def _forget(self, trimmed: Sequence[Entry]) -> None:
        """Redis 6.2 keeps the pending mark of an entry that was trimmed away; its content is gone."""
        for entry in trimmed:
            log.error("entry_trimmed_before_it_was_handled", stream=entry.stream, entry_id=entry.entry_id)
        await self.ack(trimmed)


def entries_of(stream: str, rows: Sequence[Reply]) -> list[Entry]:
    """Return the entries of a raw reply ``[[id, [name, value, ...]], ...]``."""
    return [Entry(stream, row[0].decode(), fields_of(row[1])) for row in rows]


def fields_of(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of an entry in a raw reply."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _flat(fields: Mapping[bytes, bytes]) -> list[bytes]:
    return [part for pair in fields.items() for part in pair]


def _safely_before(cursor: str) -> str:
    milliseconds = int(cursor.partition("-")[0])
    return str(max(0, milliseconds - _CURSOR_MARGIN_MS))
