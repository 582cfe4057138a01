"""Completes an event's metadata, numbers it, and appends it to its stream."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.bus.transport import Appender
from shared.clock import Clock
from shared.errors import InvalidInputError
from shared.events.codec import encode
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.events.registry import EVENTS
from shared.events.streams import event_stream
from shared.ids import IdSource
from shared.telemetry.metrics import Metrics
from shared.telemetry.trace import TraceContext, current_trace


class Publisher:
    """Publishes for one producer instance, one event at a time.

    One at a time, because ``sequence`` must have no gap: consumers read a gap as loss. The number of an event that
    could not be appended goes to the next one. When only the answer was lost, two events carry one number, which
    nobody can mistake for loss.
    """

    def __init__(
        self, appender: Appender, *, service: str, clock: Clock, ids: IdSource, metrics: Metrics | None = None
    ) -> None:
        self._appender = appender
        self._service = service
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._sequence = 0
        self._turn = asyncio.Lock()

    async def publish(
        self,
        event_type: str,
        payload: EventPayload,
        *,
        trace_id: str | None = None,
        causation_id: str | None = None,
        event_id: str | None = None,
    ) -> Event[Any]:
        """Append one event; see ``EventBus.publish``."""
        _require_registered(event_type, payload)
        async with self._turn:
            metadata = self._metadata(event_type, trace_id, causation_id, event_id)
            event = Event(metadata, payload)
            await self._appender.append(event_stream(event_type), encode(event))
            self._sequence = metadata.sequence
        if self._metrics is not None:
            self._metrics.event_published(event_type)
        return event

    def _metadata(
        self, event_type: str, trace_id: str | None, causation_id: str | None, event_id: str | None
    ) -> EventMetadata:
        inherited = current_trace() or TraceContext(trace_id or self._ids.new())
        return EventMetadata(
            event_id=event_id or self._ids.new(),
            event_type=event_type,
            trace_id=trace_id or inherited.trace_id,
            causation_id=causation_id or inherited.causation_id,
            timestamp=self._clock.now(),
            source=self._service,
            sequence=self._sequence + 1,
        )


def _require_registered(event_type: str, payload: EventPayload) -> None:
    spec = EVENTS.get(event_type)
    if spec is None:
        raise InvalidInputError(f"event type {event_type!r} is not in the catalogue; see docs/events.md")
    if type(payload) is not spec.payload:
        raise InvalidInputError(
            f"{event_type} needs a payload of type {spec.payload.__name__}, was {type(payload).__name__}"
        )
