"""Which events are shown, and how: a tree or lines for people, JSON lines for programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from infrastructure.cli.causation import as_json, causal_order, tree_order
from infrastructure.cli.output import write_json_line, write_line
from services.analytics_os_service.domain.archived_event import ArchivedEvent, EventQuery
from shared.clock import Clock
from shared.errors import QuantumTraderError

#: A trace is always shown whole: cut off, it would not be one tree.
_WHOLE_TRACE = 100_000
_FOLLOW_SECONDS = 0.5
#: Services archive at their own pace: an event may appear so long after a later one.
_LATE_ARRIVAL = timedelta(seconds=30)
_FOLLOW_PAGE = 10_000
#: The fields that tell what an event is about, in the order of reading.
_TELLING_FIELDS = (
    "service_name", "action", "side", "is_long", "status", "order_type", "outcome", "alert_type", "reason",
    "rejection_reason", "exit_reason", "message", "confidence", "close", "price", "quantity", "filled_quantity",
    "filled_price", "entry_price", "exit_price", "size_usd", "suggested_size_usd", "recommended_size_usd", "pnl_usd",
    "equity_usd",
)  # fmt: skip


class EventReader(Protocol):
    """Where archived events are read from."""

    async def find(self, query: EventQuery) -> list[ArchivedEvent]:
        """Return the events that match, in the order that the query asks for."""
        ...


@dataclass(frozen=True, slots=True)
class EventListing:
    """What the user asked for; None means "any".

    Attributes:
        trace_id: Only this trace, whole.
        event_type: Only this type.
        symbol: Only this venue symbol.
        limit: Without a trace: the newest so many.
        follow: Go on with what comes.
    """

    trace_id: str | None = None
    event_type: str | None = None
    symbol: str | None = None
    limit: int = 100
    follow: bool = False

    def query(self, *, since: datetime | None = None, newest_first: bool, limit: int) -> EventQuery:
        """Return the archive's query for this listing."""
        return EventQuery(
            trace_id=self.trace_id,
            event_type=self.event_type,
            symbol=self.symbol,
            since=since,
            newest_first=newest_first,
            limit=limit,
        )


async def show_events(listing: EventListing, reader: EventReader, *, clock: Clock, json: bool) -> None:
    """Write the events to stdout; with ``follow`` until cancelled.

    Raises:
        QuantumTraderError: The trace that was asked for is not in the archive.
    """
    found = await _existing(listing, reader)
    if listing.trace_id is not None and not found and not listing.follow:
        raise QuantumTraderError(f"no event of trace {listing.trace_id} is in the archive; see quantum-trader events")
    _write(found, tree=listing.trace_id is not None, json=json)
    if listing.follow:
        async for records in _news(listing, reader, known=found, clock=clock):
            _write(records, tree=False, json=json)


async def _existing(listing: EventListing, reader: EventReader) -> list[ArchivedEvent]:
    if listing.trace_id is not None:
        return causal_order(await reader.find(listing.query(newest_first=False, limit=_WHOLE_TRACE)))
    return causal_order(await reader.find(listing.query(newest_first=True, limit=listing.limit)))


async def _news(
    listing: EventListing, reader: EventReader, *, known: Sequence[ArchivedEvent], clock: Clock
) -> AsyncIterator[list[ArchivedEvent]]:
    """Yield what was not shown yet, again and again.

    The window that is read overlaps the last one, because an event can reach the archive after a later one.
    """
    shown = _times(known)
    since = clock.now() - _LATE_ARRIVAL
    if shown:
        # What lies before the first event shown was left out on purpose.
        since = max(max(shown.values()) - _LATE_ARRIVAL, min(shown.values()))
    while True:
        found = await reader.find(listing.query(since=since, newest_first=False, limit=_FOLLOW_PAGE))
        fresh = [record for record in found if record.metadata.event_id not in shown]
        if fresh:
            yield causal_order(fresh)
            shown.update(_times(fresh))
            since = max(since, max(_times(fresh).values()) - _LATE_ARRIVAL)
            shown = {event_id: moment for event_id, moment in shown.items() if moment >= since}
        await clock.sleep(_FOLLOW_SECONDS)


def _times(records: Iterable[ArchivedEvent]) -> dict[str, datetime]:
    return {record.metadata.event_id: record.metadata.timestamp for record in records}


def _write(records: Sequence[ArchivedEvent], *, tree: bool, json: bool) -> None:
    if json:
        for record in records:
            write_json_line(as_json(record))
        return
    placed = tree_order(records) if tree else [(0, record) for record in records]
    for depth, record in placed:
        write_line(readable(record, depth))


def readable(record: ArchivedEvent, depth: int = 0) -> str:
    """Return one line for people: when, what (indented below its cause), who, and the fields that tell."""
    what = ("  " * (depth - 1) + "└ " if depth else "") + record.metadata.event_type
    told = (
        f"{name}={_short(record.payload[name])}" for name in _TELLING_FIELDS if record.payload.get(name) is not None
    )
    head = f"{record.metadata.timestamp:%H:%M:%S.%f}"[:12]
    return f"{head}  {what:<30} {record.symbol or '-':<10} {record.metadata.source:<21} {' '.join(told)}".rstrip()


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
