"""The archive in PostgreSQL: what arrives while one batch is written becomes the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import asyncpg
import orjson
import structlog

from services.analytics_os_service.domain.archived_event import ArchivedEvent, EventQuery
from shared.errors import ConnectionLostError, InvalidInputError
from shared.events.envelope import EventMetadata
from shared.postgres.pool import PostgresPool, postgres_errors

log = structlog.get_logger(__name__)

#: Most events of one commit.
_BATCH_SIZE = 1000
_COLUMNS = "event_id, event_type, trace_id, causation_id, timestamp, source, version, sequence, symbol, payload"
_SELECT = f"SELECT {_COLUMNS} FROM analytics.events"  # noqa: S608 - our own names
_INSERT = f"""
    INSERT INTO analytics.events (run_id, {_COLUMNS})
    SELECT $1, event_id, event_type, trace_id, causation_id, moment, source, version, sequence, symbol, payload::jsonb
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[],
                $9::bigint[], $10::text[], $11::text[])
      AS batch (event_id, event_type, trace_id, causation_id, moment, source, version, sequence, symbol, payload)
    ON CONFLICT (event_id) DO NOTHING
"""  # noqa: S608 - our own names
_FACTS = f"""
    ({_SELECT} WHERE run_id = $1 AND event_type IN ('position.opened', 'position.closed', 'execution.result'))
    UNION ALL
    (SELECT DISTINCT ON (payload ->> 'position_id') {_COLUMNS} FROM analytics.events
      WHERE run_id = $1 AND event_type = 'position.updated'
      ORDER BY payload ->> 'position_id', timestamp DESC, sequence DESC, event_id DESC)
    UNION ALL
    ({_SELECT} WHERE run_id = $1 AND event_type = 'account.updated'
      ORDER BY timestamp DESC, sequence DESC, event_id DESC LIMIT 1)
    ORDER BY timestamp, sequence, event_id
"""  # noqa: S608 - our own names
_HEARTBEATS = f"""
    SELECT newest.* FROM unnest($2::text[]) WITH ORDINALITY AS wanted (name, place)
    CROSS JOIN LATERAL (
      {_SELECT} WHERE run_id = $1 AND event_type = 'service.heartbeat' AND payload ->> 'service_name' = wanted.name
      ORDER BY timestamp DESC LIMIT 1
    ) AS newest ORDER BY wanted.place
"""  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class _Row:
    """One event in the order of ``_COLUMNS``."""

    event_id: str
    event_type: str
    trace_id: str
    causation_id: str | None
    timestamp: Any
    source: str
    version: str
    sequence: int
    symbol: str | None
    payload: str


@dataclass(slots=True, eq=False)
class _Waiting:
    """A row and who waits for its commit."""

    row: _Row
    done: asyncio.Future[None]


class PostgresArchive:
    """``EventArchive`` over the table ``analytics.events``; a component, so that what is in hand is written at the end.

    Group commit: one batch is under way at any time, and everything that comes meanwhile is the next one. A quiet
    archive so answers after one commit, and a busy one writes hundreds of rows with each.

    Attributes:
        name: Component name.
    """

    name = "archive"

    def __init__(self, pool: PostgresPool, *, run_id: str | None) -> None:
        """Prepare.

        Args:
            pool: Connections; started before and stopped after this component.
            run_id: The run whose events are kept and found; None finds those of every run, and keeps none.
        """
        self._pool = pool
        self._run_id = run_id
        self._waiting: deque[_Waiting] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        self._stopping = False

    async def stop(self) -> None:
        """Finish the batch in hand; refuse the rest, which is delivered again after the next start."""
        self._stopping = True
        while self._waiting:
            _fail(self._waiting.popleft(), ConnectionLostError("the archive is stopping"))
        if self._writer is not None:
            await self._writer

    # -- writing -----------------------------------------------------------------------------------------------------

    async def append(self, record: ArchivedEvent) -> None:
        if self._run_id is None:
            raise InvalidInputError("an archive without a run id only reads")
        if self._stopping:
            raise ConnectionLostError("the archive is stopping")
        waiting = _Waiting(_row_of(record), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="archive-writer")
        await waiting.done

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _BATCH_SIZE))]
                await self._write_batch(batch)
        finally:
            self._writer = None

    async def _write_batch(self, batch: Sequence[_Waiting]) -> None:
        try:
            await self._insert([waiting.row for waiting in batch])
        except (asyncpg.DataError, asyncpg.ProgramLimitExceededError, InvalidInputError) as error:
            if len(batch) > 1:
                # One row that cannot be stored must not take its neighbours with it.
                for waiting in batch:
                    await self._write_batch([waiting])
                return
            reason = " ".join(str(error).split())
            _fail(batch[0], InvalidInputError(f"event {batch[0].row.event_id} cannot be archived: {reason}"))
        except Exception as error:  # noqa: BLE001 - whoever waits must learn of it, whatever it is
            for waiting in batch:
                _fail(waiting, error)
        else:
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_result(None)

    async def _insert(self, rows: Sequence[_Row]) -> None:
        columns = zip(*(astuple(row) for row in rows), strict=True)
        with postgres_errors():
            try:
                await self._pool.pool.execute(_INSERT, self._run_id, *map(list, columns))
            except ValueError as error:  # asyncpg: a value that its column cannot hold; to its class also a lost server
                raise InvalidInputError(str(error)) from error

    # -- reading -----------------------------------------------------------------------------------------------------

    async def find(self, query: EventQuery) -> list[ArchivedEvent]:
        conditions, values = _conditions(query, self._run_id)
        direction = "DESC" if query.newest_first else "ASC"
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        order = f"ORDER BY timestamp {direction}, sequence {direction}, event_id {direction}"
        return await self._fetch(f"{_SELECT} {where} {order} LIMIT ${len(values) + 1}", *values, query.limit)

    async def portfolio_facts(self) -> Sequence[ArchivedEvent]:
        return await self._fetch(_FACTS, self._run_id)

    async def last_heartbeats(self, services: Sequence[str]) -> list[ArchivedEvent]:
        return await self._fetch(_HEARTBEATS, self._run_id, list(services))

    async def _fetch(self, sql: str, *values: object) -> list[ArchivedEvent]:
        with postgres_errors():
            return [_record_of(row) for row in await self._pool.pool.fetch(sql, *values)]


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)


def _conditions(query: EventQuery, run_id: str | None) -> tuple[list[str], list[object]]:
    """Return the conditions of ``query`` and the values that they number."""
    conditions: list[str] = []
    values: list[object] = []
    equal = {"run_id": run_id, "trace_id": query.trace_id, "event_type": query.event_type, "symbol": query.symbol}
    for column, value in equal.items():
        if value is not None:
            values.append(value)
            conditions.append(f"{column} = ${len(values)}")
    if query.since is not None:
        values.append(query.since)
        conditions.append(f"timestamp >= ${len(values)}")
    if query.after is not None:
        sign, first = "<" if query.newest_first else ">", len(values) + 1
        values.extend((query.after.timestamp, query.after.sequence, query.after.event_id))
        conditions.append(f"(timestamp, sequence, event_id) {sign} (${first}, ${first + 1}, ${first + 2})")
    return conditions, values


def _row_of(record: ArchivedEvent) -> _Row:
    metadata = record.metadata
    return _Row(
        event_id=metadata.event_id,
        event_type=metadata.event_type,
        trace_id=metadata.trace_id,
        causation_id=metadata.causation_id,
        timestamp=metadata.timestamp,
        source=metadata.source,
        version=metadata.version,
        sequence=metadata.sequence,
        symbol=record.symbol,
        payload=orjson.dumps(record.payload).decode(),
    )


def _record_of(row: Mapping[str, Any]) -> ArchivedEvent:
    metadata = EventMetadata(
        event_id=row["event_id"],
        event_type=row["event_type"],
        trace_id=row["trace_id"],
        causation_id=row["causation_id"],
        timestamp=row["timestamp"],
        source=row["source"],
        version=row["version"],
        sequence=row["sequence"],
    )
    return ArchivedEvent(metadata, row["symbol"], row["payload"])
