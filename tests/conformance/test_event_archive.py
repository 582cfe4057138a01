"""What every archive must do, in memory and in PostgreSQL: each event once, found again in one order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.analytics_os_service.adapters import migrations
from services.analytics_os_service.adapters.memory_archive import MemoryArchive
from services.analytics_os_service.adapters.postgres_archive import PostgresArchive
from services.analytics_os_service.domain.archived_event import ArchivedEvent, Cursor, EventQuery
from services.analytics_os_service.ports import EventArchive
from shared.clock import SystemClock
from shared.events.envelope import EventMetadata
from shared.postgres.migrate import migrate
from shared.postgres.pool import PostgresPool

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """URL of an empty database, or None for the memory; not async, so that the server starts outside the loop."""
    return None if request.param == "memory" else str(request.getfixturevalue("database_url"))


@pytest.fixture
async def archive(url: str | None) -> AsyncIterator[EventArchive]:
    if url is None:
        yield MemoryArchive()
        return
    await migrate(url, "analytics", Path(migrations.__path__[0]), clock=SystemClock())
    pool = PostgresPool(url, clock=SystemClock(), max_size=3)
    await pool.start()
    store = PostgresArchive(pool, run_id="run-1")
    yield store
    await store.stop()
    await pool.stop()


def record(
    name: str,
    *,
    kind: str = "candle.closed",
    seconds: float = 0.0,
    trace: str = "t",
    symbol: str | None = "BTCUSDT",
    sequence: int = 1,
    **payload: Any,
) -> ArchivedEvent:
    metadata = EventMetadata(
        event_id=name,
        event_type=kind,
        trace_id=trace,
        causation_id=None,
        timestamp=NOON + timedelta(seconds=seconds),
        source="ai-service",
        sequence=sequence,
    )
    return ArchivedEvent(metadata, symbol, payload)


def names(records: Any) -> list[str]:
    return [each.metadata.event_id for each in records]


async def test_an_event_comes_back_as_it_went_in(archive: EventArchive) -> None:
    kept = record("a", close=64250.1, metadata={"nested": [1, "ü", None, {"x": 1e-9}]})
    kept = replace(
        kept, metadata=replace(kept.metadata, causation_id="cause", timestamp=NOON + timedelta(microseconds=7))
    )

    await archive.append(kept)

    assert await archive.find(EventQuery()) == [kept]


async def test_an_event_id_that_is_there_already_changes_nothing(archive: EventArchive) -> None:
    await archive.append(record("a", close=1.0))
    await archive.append(record("a", close=2.0))
    await asyncio.gather(*(archive.append(record("b", seconds=1, close=float(n))) for n in range(5)))

    found = await archive.find(EventQuery())
    assert names(found) == ["a", "b"]
    assert found[0].payload == {"close": 1.0}


async def test_many_at_once_are_all_kept(archive: EventArchive) -> None:
    await asyncio.gather(*(archive.append(record(f"e{n:04}", seconds=n)) for n in range(2500)))

    assert names(await archive.find(EventQuery(limit=5000))) == [f"e{n:04}" for n in range(2500)]


async def test_order_is_time_then_sequence_then_id_in_both_directions(archive: EventArchive) -> None:
    for kept in (record("z"), record("B", sequence=2), record("a", sequence=2), record("late", seconds=1)):
        await archive.append(kept)

    assert names(await archive.find(EventQuery())) == ["z", "B", "a", "late"]
    assert names(await archive.find(EventQuery(newest_first=True))) == ["late", "a", "B", "z"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (EventQuery(trace_id="u"), ["b"]),
        (EventQuery(event_type="signal.generated"), ["c"]),
        (EventQuery(symbol="ETHUSDT"), ["c"]),
        (EventQuery(since=NOON + timedelta(seconds=1)), ["b", "c", "d"]),
        (EventQuery(symbol="BTCUSDT", since=NOON + timedelta(seconds=1)), ["b"]),
        (EventQuery(limit=2), ["a", "b"]),
        (EventQuery(trace_id="nobody"), []),
    ],
)
async def test_filters(archive: EventArchive, query: EventQuery, expected: list[str]) -> None:
    await archive.append(record("a"))
    await archive.append(record("b", seconds=1, trace="u"))
    await archive.append(record("c", seconds=2, kind="signal.generated", symbol="ETHUSDT"))
    await archive.append(record("d", seconds=3, symbol=None))

    assert names(await archive.find(query)) == expected


@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_meet_without_gap_or_repeat_also_within_one_moment(
    archive: EventArchive, newest_first: bool
) -> None:
    for number in range(7):
        await archive.append(record(f"e{number}", seconds=number // 4))

    seen: list[str] = []
    after: Cursor | None = None
    while page := await archive.find(EventQuery(newest_first=newest_first, after=after, limit=2)):
        seen += names(page)
        after = Cursor.decode(Cursor.of(page[-1]).encode())

    expected = [f"e{number}" for number in range(7)]
    assert seen == (expected[::-1] if newest_first else expected)


async def test_portfolio_facts_leave_out_what_was_replaced(archive: EventArchive) -> None:
    for number in range(3):
        await archive.append(record(f"account{number}", kind="account.updated", seconds=number))
        await archive.append(record(f"mark{number}", kind="position.updated", seconds=number, position_id="p"))
    await archive.append(record("other", kind="position.updated", position_id="q"))
    await archive.append(record("opened", kind="position.opened", seconds=-1, position_id="p"))
    await archive.append(record("closed", kind="position.closed", seconds=9, position_id="p"))
    await archive.append(record("result", kind="execution.result", seconds=8))
    await archive.append(record("candle", seconds=8))

    found = names(await archive.portfolio_facts())

    assert found == ["opened", "other", "account2", "mark2", "result", "closed"]


async def test_the_newest_heartbeat_of_each_service_in_the_order_asked_for(archive: EventArchive) -> None:
    for number, service in enumerate(["ai", "exec", "ai", "other"]):
        kept = record(f"h{number}", kind="service.heartbeat", seconds=number, symbol=None, service_name=service)
        await archive.append(kept)

    assert names(await archive.last_heartbeats(["exec", "nobody", "ai"])) == ["h1", "h2"]
