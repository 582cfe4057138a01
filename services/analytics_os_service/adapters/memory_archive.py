"""The archive in memory, for replay and tests: the same answers as the real one, gone with the process."""

from __future__ import annotations

from collections.abc import Sequence

from services.analytics_os_service.domain.archived_event import ArchivedEvent, Cursor, EventQuery
from services.analytics_os_service.domain.portfolio import PORTFOLIO_FACTS


class MemoryArchive:
    """``EventArchive`` in a dictionary."""

    def __init__(self) -> None:
        self._records: dict[str, ArchivedEvent] = {}

    async def append(self, record: ArchivedEvent) -> None:
        self._records.setdefault(record.metadata.event_id, record)

    async def find(self, query: EventQuery) -> list[ArchivedEvent]:
        found = [record for record in self._records.values() if query.matches(record)]
        return sorted(found, key=Cursor.of, reverse=query.newest_first)[: query.limit]

    async def portfolio_facts(self) -> Sequence[ArchivedEvent]:
        wanted = {}
        for record in sorted(self._records.values(), key=Cursor.of):
            if record.metadata.event_type in PORTFOLIO_FACTS:
                wanted[_replaced_with(record)] = record
        return sorted(wanted.values(), key=Cursor.of)

    async def last_heartbeats(self, services: Sequence[str]) -> list[ArchivedEvent]:
        newest = {}
        for record in sorted(self._records.values(), key=Cursor.of):
            if record.metadata.event_type == "service.heartbeat":
                newest[record.payload["service_name"]] = record
        return [newest[service] for service in services if service in newest]


def _replaced_with(record: ArchivedEvent) -> tuple[str, str]:
    """Return what a later fact must have in common with ``record`` to replace it."""
    match record.metadata.event_type:
        case "account.updated":
            return "account.updated", ""
        case "position.updated":
            return "position.updated", record.payload["position_id"]
        case event_type:
            return event_type, record.metadata.event_id
