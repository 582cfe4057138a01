"""The same event as one JSON object, for buses that carry one body per message."""

from __future__ import annotations

from pydantic import BaseModel

from infrastructure.bench.samples import EVENT_TYPE, SignalSamples
from shared.clock import SystemClock
from shared.events.envelope import EventMetadata
from shared.events.v3 import SignalGeneratedPayload
from shared.ids import RandomIds


class SignalEvent(BaseModel):
    """Metadata and payload as the bus has them, validated by the same models."""

    metadata: EventMetadata
    payload: SignalGeneratedPayload


class SignalEvents:
    """Makes one event after the other."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._samples = SignalSamples(self._clock)
        self._ids = RandomIds()
        self._number = 0

    def next(self) -> SignalEvent:
        """Return the next event; what was made here is not validated a second time."""
        self._number += 1
        metadata = EventMetadata(
            event_id=self._ids.new(),
            event_type=EVENT_TYPE,
            trace_id=self._ids.new(),
            causation_id=None,
            timestamp=self._clock.now(),
            source="ai-service",
            sequence=self._number,
        )
        return SignalEvent.model_construct(metadata=metadata, payload=self._samples.payload())
