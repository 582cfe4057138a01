"""Keeps every event."""

from __future__ import annotations

from typing import Any

from services.analytics_os_service.domain.archived_event import archived
from services.analytics_os_service.ports import EventArchive
from shared.events.envelope import Event


class EventArchivist:
    """Handler of every event: returns, and so lets the bus acknowledge, when the row is durable."""

    def __init__(self, archive: EventArchive) -> None:
        self._archive = archive

    async def on_event(self, event: Event[Any]) -> None:
        """Archive ``event``; one that is there already changes nothing."""
        await self._archive.append(archived(event))
