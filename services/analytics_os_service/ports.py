"""What analytics-os needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.analytics_os_service.domain.archived_event import ArchivedEvent, EventQuery


class EventArchive(Protocol):
    """Keeps every event of one run, once."""

    async def append(self, record: ArchivedEvent) -> None:
        """Keep ``record``; return when it is durable. An event id that is already there changes nothing.

        Raises:
            InvalidInputError: The store can never hold this record.
            ConnectionLostError: The archive is stopping; the record was not kept.
        """
        ...

    async def find(self, query: EventQuery) -> list[ArchivedEvent]:
        """Return the events that match, in order of time, then sequence, then id.

        Raises:
            ConnectionLostError: The store cannot be reached.
        """
        ...

    async def portfolio_facts(self) -> Sequence[ArchivedEvent]:
        """Return the facts from which the portfolio is folded: of updates that replace each other only the last.

        Raises:
            ConnectionLostError: The store cannot be reached.
        """
        ...

    async def last_heartbeats(self, services: Sequence[str]) -> list[ArchivedEvent]:
        """Return the newest ``service.heartbeat`` of each of ``services`` that has one.

        Raises:
            ConnectionLostError: The store cannot be reached.
        """
        ...
