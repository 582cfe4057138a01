"""Archived events in the order of cause and effect, and as the tree that they form. Pure."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.analytics_os_service.domain.archived_event import ArchivedEvent, Cursor


def causal_order(records: Iterable[ArchivedEvent]) -> list[ArchivedEvent]:
    """Return the events by time, but never an effect before its cause: clocks of processes differ by a little.

    An event whose cause is not among ``records`` counts as a root. An event that comes twice is returned once.
    """
    by_id = {record.metadata.event_id: record for record in records}
    effects: dict[str, list[ArchivedEvent]] = defaultdict(list)
    startable: list[Cursor] = []
    for record in by_id.values():
        cause = _cause_of(record, by_id)
        if cause is None:
            heapq.heappush(startable, Cursor.of(record))
        else:
            effects[cause].append(record)
    ordered: list[ArchivedEvent] = []
    while startable:
        record = by_id[heapq.heappop(startable).event_id]
        ordered.append(record)
        for effect in effects.pop(record.metadata.event_id, ()):
            heapq.heappush(startable, Cursor.of(effect))
    # Causes in a circle cannot come from our publishers; should the archive hold some, they are shown last, not lost.
    ordered.extend(sorted((record for circle in effects.values() for record in circle), key=Cursor.of))
    return ordered


def tree_order(records: Sequence[ArchivedEvent]) -> list[tuple[int, ArchivedEvent]]:
    """Return (number of causes before it, event), every event below its cause and siblings by time."""
    ordered = causal_order(records)
    by_id = {record.metadata.event_id: record for record in ordered}
    effects: dict[str | None, list[ArchivedEvent]] = defaultdict(list)
    for record in ordered:
        effects[_cause_of(record, by_id)].append(record)
    lines: list[tuple[int, ArchivedEvent]] = []
    waiting = [(0, record) for record in reversed(effects.pop(None, []))]
    while waiting:
        depth, record = waiting.pop()
        lines.append((depth, record))
        waiting.extend((depth + 1, effect) for effect in reversed(effects.pop(record.metadata.event_id, [])))
    return lines


def as_json(record: ArchivedEvent) -> dict[str, Any]:
    """Return the event as one JSON object: the envelope's fields, then symbol and payload."""
    metadata = record.metadata
    return {
        "event_id": metadata.event_id,
        "event_type": metadata.event_type,
        "trace_id": metadata.trace_id,
        "causation_id": metadata.causation_id,
        "timestamp": metadata.timestamp,
        "source": metadata.source,
        "sequence": metadata.sequence,
        "version": metadata.version,
        "symbol": record.symbol,
        "payload": dict(record.payload),
    }


def _cause_of(record: ArchivedEvent, by_id: Mapping[str, ArchivedEvent]) -> str | None:
    cause = record.metadata.causation_id
    return cause if cause is not None and cause in by_id and cause != record.metadata.event_id else None
