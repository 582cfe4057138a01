from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import DecodeError
from shared.events.codec import decode, encode
from shared.events.envelope import Event, EventMetadata
from shared.events.registry import EVENTS
from shared.events.v3 import CandleClosedPayload, SignalGeneratedPayload
from tests.support.event_samples import SAMPLES

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
FREE_FORM = st.dictionaries(TEXT, JSON, max_size=5)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds must be naive
PRICES = st.floats(1e-8, 1e8)


def wire(event: Event[Any]) -> dict[bytes, bytes]:
    return {name.encode(): value for name, value in encode(event).items()}


def metadata(event_type: str, timestamp: datetime) -> EventMetadata:
    return EventMetadata("event", event_type, "trace", None, timestamp, "ai-service", 1)


@given(st.tuples(PRICES, PRICES, PRICES, PRICES), TIMES, FREE_FORM)
def test_any_candle_comes_back_to_the_last_bit(
    prices: tuple[float, float, float, float], opened: datetime, free: dict[str, Any]
) -> None:
    changes = dict(zip(("open", "high", "low", "close"), prices, strict=True)) | {"open_time": opened, "metadata": free}
    payload = CandleClosedPayload.model_validate({**SAMPLES["candle.closed"], **changes})
    event = Event(metadata("candle.closed", opened), payload)

    assert decode(wire(event)) == event


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_rubbish_is_never_more_than_a_decode_error(first: bytes, second: bytes) -> None:
    fields = {b"metadata": first, b"payload": second}

    with pytest.raises(DecodeError) as caught:
        decode(fields)

    assert caught.value.raw == fields


@given(st.sampled_from(sorted(EVENTS)), st.dictionaries(TEXT, JSON, max_size=3), st.data())
def test_a_payload_of_the_wrong_shape_is_never_more_than_a_decode_error(
    event_type: str, extra: dict[str, Any], data: st.DataObject
) -> None:
    field = data.draw(st.sampled_from(sorted(SAMPLES[event_type])))
    payload = {**SAMPLES[event_type], **extra, field: data.draw(JSON)}
    fields = {
        b"metadata": orjson.dumps(metadata(event_type, datetime(2026, 1, 1, tzinfo=UTC))),
        b"payload": orjson.dumps(payload),
    }

    try:
        event = decode(fields)
    except DecodeError:
        return
    assert decode(wire(event)) == event  # what was let through can be passed on


@given(JSON)
def test_a_confidence_outside_its_range_never_gets_through(value: Any) -> None:
    fields = {
        b"metadata": orjson.dumps(metadata("signal.generated", datetime(2026, 1, 1, tzinfo=UTC))),
        b"payload": orjson.dumps({**SAMPLES["signal.generated"], "confidence": value}),
    }

    try:
        payload: SignalGeneratedPayload = decode(fields).payload
    except DecodeError:
        return
    assert 0 <= payload.confidence <= 1
