"""Group commit of the archive, on a database that is slow, away, or refuses a row."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import asyncpg
import pytest

from services.analytics_os_service.adapters.postgres_archive import PostgresArchive
from services.analytics_os_service.domain.archived_event import ArchivedEvent
from shared.errors import ConnectionLostError, InvalidInputError
from shared.events.envelope import EventMetadata
from shared.postgres.pool import PostgresPool
from tests.support.event_payloads import START
from tests.support.eventually import eventually


class Table:
    """The one statement that the archive writes with; each call waits for the gate and may fail."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.failures: list[Exception] = []
        self.poison = ""

    @property
    def pool(self) -> Table:
        return self

    async def execute(self, _sql: str, _run_id: str, event_ids: list[str], *_columns: Any) -> None:
        self.batches.append(event_ids)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop()
        if self.poison in event_ids:
            raise asyncpg.UntranslatableCharacterError("\\u0000 cannot be converted to text.")


def record(name: str, **changes: Any) -> ArchivedEvent:
    metadata = EventMetadata(name, "candle.closed", "t", None, START, "ai-service", 1)
    return ArchivedEvent(replace(metadata, **changes), None, {})


def archive_on(table: Table, run_id: str | None = "run") -> PostgresArchive:
    return PostgresArchive(cast("PostgresPool", table), run_id=run_id)


async def appended(archive: PostgresArchive, *names: str) -> list[asyncio.Task[None]]:
    """Begin to append each of ``names``, one after the other."""
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(archive.append(record(name))))
        await asyncio.sleep(0)
    return tasks


async def test_what_comes_during_a_commit_is_the_next_commit_and_nobody_returns_before_his_own() -> None:
    table = Table()
    archive = archive_on(table)
    tasks = await appended(archive, "a")
    await eventually(lambda: table.batches == [["a"]])
    tasks += await appended(archive, "b", "c", "d")
    assert not any(task.done() for task in tasks)

    table.gate.set()
    await asyncio.gather(*tasks)

    assert table.batches == [["a"], ["b", "c", "d"]]


async def test_a_server_that_is_away_fails_everyone_who_waits_and_the_next_try_succeeds() -> None:
    table = Table()
    table.gate.set()
    table.failures = [ConnectionRefusedError("nobody there")]
    archive = archive_on(table)

    results = await asyncio.gather(*(archive.append(record(name)) for name in "abc"), return_exceptions=True)
    await archive.append(record("a"))

    assert all(isinstance(result, ConnectionLostError) for result in results)
    assert table.batches[-1] == ["a"]


async def test_a_row_that_cannot_be_stored_fails_alone() -> None:
    table = Table()
    table.gate.set()
    table.poison = "b"
    archive = archive_on(table)

    results = await asyncio.gather(*(archive.append(record(name)) for name in "abc"), return_exceptions=True)

    assert [type(result) for result in results] == [type(None), InvalidInputError, type(None)]


async def test_the_end_finishes_the_commit_in_hand_and_refuses_the_rest() -> None:
    table = Table()
    archive = archive_on(table)
    (in_hand,) = await appended(archive, "a")
    await eventually(lambda: bool(table.batches))
    (queued,) = await appended(archive, "b")

    stopping = asyncio.create_task(archive.stop())
    await eventually(queued.done)
    assert not stopping.done()
    table.gate.set()
    await stopping

    assert in_hand.result() is None
    assert isinstance(queued.exception(), ConnectionLostError)
    with pytest.raises(ConnectionLostError):
        await archive.append(record("c"))


async def test_a_cancelled_handler_does_not_take_its_neighbours_with_it() -> None:
    table = Table()
    archive = archive_on(table)
    cancelled, other = await appended(archive, "a", "b")
    await eventually(lambda: bool(table.batches))

    cancelled.cancel()
    table.gate.set()
    await other

    assert cancelled.cancelled()


async def test_an_archive_of_all_runs_only_reads() -> None:
    with pytest.raises(InvalidInputError, match="only reads"):
        await archive_on(Table(), run_id=None).append(record("a"))
