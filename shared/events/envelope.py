"""The frozen envelope around every event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from shared.events.fields import FreeForm, Text, UtcTime

SCHEMA_VERSION = "3.0"


class EventPayload(BaseModel):
    """Base of all payloads: frozen, finite numbers only, unknown fields ignored on read and kept out on write."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())

    metadata: FreeForm = Field(default_factory=dict, description="Free form.")


P_co = TypeVar("P_co", bound=EventPayload, covariant=True)


@dataclass(frozen=True, slots=True)
class EventMetadata:
    """Who said it, when, and because of what. The annotations bind what comes from the wire.

    Attributes:
        event_id: UUID; consumers use it to recognise a repeated delivery.
        event_type: For example ``signal.generated``.
        trace_id: One id from the candle to the PnL.
        causation_id: ``event_id`` of the event that this one answers; None at the root of a trace.
        timestamp: Wall time of the publish, aware UTC.
        source: Name of the publishing service.
        version: Schema version of the payload.
        sequence: Gapless count per producer instance, from 1.
    """

    event_id: Text
    event_type: Text
    trace_id: Text
    causation_id: str | None
    timestamp: UtcTime
    source: Text
    sequence: Annotated[int, Field(ge=1)]
    version: Text = SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Event(Generic[P_co]):
    """One event as handlers get it."""

    metadata: EventMetadata
    payload: P_co
