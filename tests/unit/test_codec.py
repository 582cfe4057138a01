from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from shared.errors import DecodeError, InvalidInputError
from shared.events.codec import UPCASTERS, decode, encode
from shared.events.envelope import SCHEMA_VERSION, Event, EventMetadata
from shared.events.registry import EVENTS
from shared.events.v3 import TradingStateChangedPayload
from tests.support.event_samples import SAMPLES

AT = datetime(2026, 1, 1, 10, 30, 0, 123456, tzinfo=UTC)


def event(event_type: str = "signal.generated", **changes: Any) -> Event[Any]:
    metadata = EventMetadata(
        event_id="event-1",
        event_type=event_type,
        trace_id="trace-1",
        causation_id="cause-1",
        timestamp=AT,
        source="ai-service",
        sequence=7,
    )
    return Event(metadata, EVENTS[event_type].payload.model_validate({**SAMPLES[event_type], **changes}))


def on_the_wire(event: Event[Any]) -> dict[bytes, bytes]:
    return {name.encode(): value for name, value in encode(event).items()}


def changed(field: str, **changes: Any) -> dict[bytes, bytes]:
    """Return a good entry with some keys of one field changed; None removes the key."""
    fields = on_the_wire(event())
    content = json.loads(fields[field.encode()]) | changes
    kept = {key: value for key, value in content.items() if value is not ...}
    return {**fields, field.encode(): json.dumps(kept).encode()}


@pytest.mark.parametrize("event_type", sorted(EVENTS))
def test_an_event_comes_back_as_it_was(event_type: str) -> None:
    sent = event(event_type, metadata={"note": "ü", "deep": [1, {"x": None}]})

    received = decode(on_the_wire(sent))

    assert received == sent
    assert type(received.payload) is EVENTS[event_type].payload


def test_anyone_can_read_an_entry_as_two_json_objects() -> None:
    fields = encode(event())

    payload, metadata = json.loads(fields["payload"]), json.loads(fields["metadata"])

    assert sorted(fields) == ["metadata", "payload"]
    assert payload["symbol"] == "BTCUSDT"
    assert payload["models_voted"] == ["xgboost", "lightgbm"]
    assert metadata == {
        "event_id": "event-1",
        "event_type": "signal.generated",
        "trace_id": "trace-1",
        "causation_id": "cause-1",
        "timestamp": "2026-01-01T10:30:00.123456Z",
        "source": "ai-service",
        "version": "3.0",
        "sequence": 7,
    }


def test_fields_that_were_not_given_are_written_as_null() -> None:
    fields = encode(event(price=None))

    assert json.loads(fields["payload"])["price"] is None


@pytest.mark.parametrize("value", [object(), "\ud800", {1, object()}])
def test_what_json_has_no_word_for_cannot_be_published(value: object) -> None:
    with pytest.raises(InvalidInputError, match=r"signal\.generated"):
        encode(event(metadata={"x": value}))


def test_free_form_decimals_travel_as_text() -> None:
    fields = on_the_wire(event(metadata={"price": Decimal("0.10")}))

    assert decode(fields).payload.metadata == {"price": "0.10"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        pytest.param({}, "no field 'metadata'", id="nothing"),
        pytest.param({b"metadata": b"{}"}, "EventMetadata.event_id", id="empty metadata"),
        pytest.param({b"data": b"{}"}, "fields: .*data", id="other fields"),
        pytest.param({**on_the_wire(event()), b"payload": b"{"}, "'payload' is not JSON", id="cut off"),
        pytest.param({**on_the_wire(event()), b"payload": b"\xff\xfe"}, "'payload' is not JSON", id="no utf-8"),
        pytest.param({**on_the_wire(event()), b"payload": b"[]"}, "must be a JSON object, was list", id="list"),
        pytest.param({**on_the_wire(event()), b"payload": b"null"}, "was NoneType", id="null"),
        pytest.param({**on_the_wire(event()), b"payload": b'{"x":NaN}'}, "'payload' is not JSON", id="NaN"),
        pytest.param({**on_the_wire(event()), b"payload": b'{"x":-Infinity}'}, "is not JSON", id="infinity"),
        pytest.param({**on_the_wire(event()), b"payload": b'{"x":1e999}'}, "is not JSON", id="too large"),
        pytest.param({**on_the_wire(event()), b"payload": b"[" * 100_000}, "is not JSON", id="too deep"),
        pytest.param({b"metadata": on_the_wire(event())[b"metadata"]}, "no field 'payload'", id="no payload"),
        pytest.param(changed("payload", symbol=...), r"SignalGeneratedPayload.symbol: Field required", id="no symbol"),
        pytest.param(changed("payload", confidence=7), r"confidence: .*less than or equal to 1, was 7", id="bounds"),
        pytest.param(changed("metadata", event_type="x.y"), "'x.y' is not in the catalogue", id="unknown type"),
        pytest.param(changed("metadata", event_id=...), "event_id: Field required", id="no event id"),
        pytest.param(changed("metadata", event_id=""), "event_id", id="empty event id"),
        pytest.param(changed("metadata", timestamp="2026-01-01T10:00:00"), "timestamp", id="naive time"),
        pytest.param(changed("metadata", sequence=0), "sequence", id="sequence 0"),
        pytest.param(changed("metadata", source=5), "source", id="source is a number"),
        pytest.param(changed("metadata", version="2.0"), "version '2.0' cannot be read; known: 3.0", id="old version"),
        pytest.param(changed("metadata", version="4.0"), "version '4.0'", id="new major version"),
        pytest.param(changed("metadata", version="3.x"), "version '3.x'", id="no version"),
    ],
)
def test_what_is_no_event_is_refused_with_its_bytes(fields: dict[bytes, bytes], complaint: str) -> None:
    with pytest.raises(DecodeError, match=complaint) as caught:
        decode(fields)

    assert caught.value.raw == fields
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_metadata_and_payload_may_hold_more_than_we_know() -> None:
    assert decode(changed("metadata", signature="abc")) == decode(changed("payload", colour="green")) == event()


def test_a_cause_may_be_missing() -> None:
    assert decode(changed("metadata", causation_id=None)).metadata.causation_id is None


def test_a_newer_minor_version_is_read_as_the_present_one() -> None:
    received = decode(changed("metadata", version="3.7"))

    assert received == event()
    assert received.metadata.version == SCHEMA_VERSION


def test_an_old_version_is_lifted_on_read_beside_the_present_one() -> None:
    def lift(event_type: str, payload: dict[str, Any]) -> dict[str, Any]:
        assert event_type == "trading_state.changed"
        return {**payload, "previous": payload.pop("before"), "current": payload.pop("after")}

    upcasters = {**UPCASTERS, "2.9": lift}
    new = event("trading_state.changed")
    old = on_the_wire(new)
    old[b"metadata"] = old[b"metadata"].replace(b'"3.0"', b'"2.9"')
    old[b"payload"] = b'{"before":"ACTIVE","after":"HALTED","reason":"drawdown","changed_by":"rule"}'

    lifted = decode(old, upcasters=upcasters)

    assert lifted == decode(on_the_wire(new), upcasters=upcasters) == new
    assert isinstance(lifted.payload, TradingStateChangedPayload)
    with pytest.raises(DecodeError, match=r"2\.9"):
        decode(old)
