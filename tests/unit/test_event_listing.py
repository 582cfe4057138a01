"""Archived events as people and programs see them, and how following goes on without gaps and doubles."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from infrastructure.cli.event_listing import EventListing, readable, show_events
from services.analytics_os_service.domain.archived_event import ArchivedEvent, Cursor, EventQuery
from shared.clock import ManualClock
from shared.errors import QuantumTraderError
from shared.events.envelope import EventMetadata
from tests.support.eventually import eventually

NOON = datetime(2025, 5, 4, 12, tzinfo=UTC)


def event(
    event_id: str, *, seconds: float = 0.0, cause: str | None = None, trace: str = "t", kind: str = "candle.closed"
) -> ArchivedEvent:
    metadata = EventMetadata(
        event_id=event_id,
        event_type=kind,
        trace_id=trace,
        causation_id=cause,
        timestamp=NOON + timedelta(seconds=seconds),
        source="ai-service",
        sequence=1,
    )
    return ArchivedEvent(metadata, "BTCUSDT", {"symbol": "BTCUSDT", "close": 64250.123456789})


class Archive:
    """Events in memory, found by the same query as in the database."""

    def __init__(self, *records: ArchivedEvent) -> None:
        self.records = list(records)

    async def find(self, query: EventQuery) -> list[ArchivedEvent]:
        matching = sorted(filter(query.matches, self.records), key=Cursor.of, reverse=query.newest_first)
        return matching[: query.limit]


def ids(output: str) -> list[str]:
    return [json.loads(line)["event_id"] for line in output.splitlines()]


async def test_json_lines_hold_the_newest_events_oldest_first(capsys: pytest.CaptureFixture[str]) -> None:
    archive = Archive(*(event(str(number), seconds=number) for number in range(5)))

    await show_events(EventListing(limit=3), archive, clock=ManualClock(NOON), json=True)

    assert ids(capsys.readouterr().out) == ["2", "3", "4"]


async def test_a_trace_is_whole_whatever_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    archive = Archive(event("b", cause="a"), event("a", seconds=1), event("x", trace="other"))

    await show_events(EventListing(trace_id="t", limit=1), archive, clock=ManualClock(NOON), json=True)

    assert ids(capsys.readouterr().out) == ["a", "b"]


async def test_people_see_a_trace_as_a_tree(capsys: pytest.CaptureFixture[str]) -> None:
    archive = Archive(event("a"), event("b", seconds=1, cause="a", kind="signal.generated"))

    await show_events(EventListing(trace_id="t"), archive, clock=ManualClock(NOON), json=False)

    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["12:00:00.000", "candle.closed", "BTCUSDT", "ai-service", "close=64250.1"]
    assert second.split()[1:3] == ["└", "signal.generated"]


async def test_a_trace_that_is_not_there_is_an_error() -> None:
    with pytest.raises(QuantumTraderError, match="no event of trace nope"):
        await show_events(EventListing(trace_id="nope"), Archive(), clock=ManualClock(NOON), json=True)


async def test_following_shows_every_later_event_once_and_also_one_that_came_late(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = ManualClock(NOON + timedelta(seconds=100))
    archive = Archive(*(event(str(number), seconds=number) for number in range(98)))
    shown: list[str] = []

    def news() -> list[str]:
        shown.extend(ids(capsys.readouterr().out))
        clock.advance(1.0)
        return shown

    following = asyncio.create_task(show_events(EventListing(limit=4, follow=True), archive, clock=clock, json=True))
    await eventually(lambda: news() == ["94", "95", "96", "97"])
    archive.records.append(event("new", seconds=99))
    await eventually(lambda: news()[4:] == ["new"])
    archive.records.append(event("late", seconds=95.5))
    await eventually(lambda: news()[5:] == ["late"])
    following.cancel()


def test_a_line_without_a_symbol_is_still_a_line() -> None:
    record = event("a")
    line = readable(ArchivedEvent(record.metadata, None, {"service_name": "ai-service", "status": "HEALTHY"}))

    assert line.split()[2:] == ["-", "ai-service", "service_name=ai-service", "status=HEALTHY"]
