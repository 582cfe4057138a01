"""An entry in hand: decoded on arrival, or with the reason why it cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.bus.transport import Entry
from shared.errors import DecodeError
from shared.events.codec import UPCASTERS, Upcaster, decode
from shared.events.envelope import Event
from shared.events.registry import spec_for
from shared.telemetry.masking import mask_text


@dataclass(slots=True, eq=False)
class Delivery:
    """One entry on its way from the stream to its verdict.

    Attributes:
        entry: As the store gave it.
        event_type: Type of the events on its stream.
        content: The event, or why the entry holds none.
        outages: Tries in a row that a lost connection ended.
    """

    entry: Entry
    event_type: str
    content: Event[Any] | DecodeError
    outages: int = 0

    @property
    def ordering_key(self) -> str:
        """What it must keep its place among: deliveries of the same symbol, service or model, else of its stream."""
        if isinstance(self.content, DecodeError):
            return self.entry.stream
        return spec_for(self.event_type).ordering_key(self.content.payload) or self.entry.stream


def receive(entry: Entry, event_type: str, upcasters: Mapping[str, Upcaster] = UPCASTERS) -> Delivery:
    """Decode ``entry``, which lay on the stream of ``event_type``."""
    try:
        event = decode(entry.fields, upcasters=upcasters)
    except DecodeError as error:
        return Delivery(entry, event_type, error)
    except Exception as error:  # noqa: BLE001 - whatever these bytes do to the decoder, they are what is wrong
        return Delivery(entry, event_type, DecodeError(f"{type(error).__name__}: {error}", raw=entry.fields))
    if event.metadata.event_type != event_type:
        misplaced = DecodeError(f"event type {event.metadata.event_type!r} on the stream of {event_type!r}")
        return Delivery(entry, event_type, misplaced)
    return Delivery(entry, event_type, event)


def dead_letter_fields(delivery: Delivery, reason: str, *, failed_at: str) -> dict[bytes, bytes]:
    """Return the fields of a dead letter: the raw fields under ``raw_*``, where they were, and why they are here."""
    entry = delivery.entry
    return {
        b"origin": entry.stream.encode(),
        b"entry_id": entry.entry_id.encode(),
        b"error": mask_text(reason).encode(),
        b"attempts": str(entry.attempt).encode(),
        b"failed_at": failed_at.encode(),
        **{b"raw_" + name: value for name, value in entry.fields.items()},
    }
