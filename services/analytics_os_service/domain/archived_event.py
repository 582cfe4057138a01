"""One event as the archive keeps it, and how it is found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.errors import InvalidInputError
from shared.events.envelope import Event, EventMetadata
from shared.events.registry import spec_for

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ArchivedEvent:
    """The envelope, the symbol it is about, and the payload as it travelled.

    Attributes:
        metadata: Who said it, when, and because of what.
        symbol: Venue symbol, or None for events that belong to no symbol.
        payload: The payload as JSON values; kept as it was written, whatever the schema says today.
    """

    metadata: EventMetadata
    symbol: str | None
    payload: Mapping[str, Any]


def archived(event: Event[Any]) -> ArchivedEvent:
    """Return ``event`` as the archive keeps it."""
    payload = event.payload.model_dump(mode="json", exclude_none=True)
    symbol = payload.get("symbol")
    return ArchivedEvent(event.metadata, symbol if isinstance(symbol, str) else None, payload)


def restored(record: ArchivedEvent) -> Event[Any]:
    """Return the event that was archived as ``record``.

    Raises:
        DecodeError: Its type is no longer registered.
        pydantic.ValidationError: Its payload does not fit the registered model.
    """
    model = spec_for(record.metadata.event_type).payload
    return Event(record.metadata, model.model_validate(record.payload))


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the archive: everything before it was seen. Time first, then the id, so that no two are equal."""

    timestamp: datetime
    sequence: int
    event_id: str

    @classmethod
    def of(cls, record: ArchivedEvent) -> Cursor:
        """Return the place of ``record``."""
        return cls(record.metadata.timestamp, record.metadata.sequence, record.metadata.event_id)

    def encode(self) -> str:
        """Return the text that a caller hands back to get the next page."""
        return f"{(self.timestamp - _EPOCH) // _MICROSECOND}.{self.sequence}.{self.event_id}"

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Return the cursor that ``encode`` wrote.

        Raises:
            InvalidInputError: ``text`` is no cursor.
        """
        try:
            microseconds, sequence, event_id = text.split(".", 2)
            return cls(_EPOCH + int(microseconds) * _MICROSECOND, int(sequence), event_id)
        except (ValueError, OverflowError):
            raise InvalidInputError(f"cursor {text[:80]!r} is none; send the next_cursor of the last page") from None


@dataclass(frozen=True, slots=True)
class EventQuery:
    """Which events to return, oldest or newest first; None means "any".

    Attributes:
        trace_id: Only this trace.
        event_type: Only this type.
        symbol: Only this venue symbol.
        since: Not older than this, aware.
        newest_first: Order by time, descending.
        after: Where the last page ended.
        limit: At most this many, at least 1.
    """

    trace_id: str | None = None
    event_type: str | None = None
    symbol: str | None = None
    since: datetime | None = None
    newest_first: bool = False
    after: Cursor | None = None
    limit: int = 100

    def matches(self, record: ArchivedEvent) -> bool:
        """Tell whether ``record`` is asked for and lies behind the cursor."""
        metadata = record.metadata
        wanted = (
            (self.trace_id, metadata.trace_id),
            (self.event_type, metadata.event_type),
            (self.symbol, record.symbol),
        )
        if any(asked is not None and asked != actual for asked, actual in wanted):
            return False
        if self.since is not None and metadata.timestamp < self.since:
            return False
        return self.after is None or self._lies_behind(Cursor.of(record), self.after)

    def _lies_behind(self, place: Cursor, mark: Cursor) -> bool:
        return place < mark if self.newest_first else place > mark
