"""The event that benchmarks send is a real one, and rivals send the same."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from infrastructure.bench.rivals.hand_packed import EventPacker, pack
from infrastructure.bench.rivals.whole_event import SignalEvent, SignalEvents
from infrastructure.bench.samples import EVENT_TYPE, SignalSamples, plain_metadata
from shared.clock import ManualClock
from shared.events.codec import encode_payload
from shared.events.v3 import SignalGeneratedPayload
from shared.ids import SeededIds

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_every_field_of_the_signal_is_set() -> None:
    payload = SignalSamples(ManualClock(NOW)).payload()

    assert all(getattr(payload, name) is not None for name in SignalGeneratedPayload.model_fields if name != "metadata")
    assert payload.expires_at is not None
    assert payload.expires_at > NOW


def test_no_two_signals_are_alike() -> None:
    samples = SignalSamples(ManualClock(NOW))

    assert len({samples.payload().model_dump_json() for _ in range(100)}) == 100


def test_rivals_send_the_same_signal() -> None:
    ours, plain = SignalSamples(ManualClock(NOW)), SignalSamples(ManualClock(NOW))

    for _ in range(3):
        assert orjson.loads(orjson.dumps(plain.plain(), option=orjson.OPT_UTC_Z)) == orjson.loads(
            encode_payload(EVENT_TYPE, ours.payload())
        )


def test_rivals_send_metadata_of_the_same_fields() -> None:
    metadata = plain_metadata(7, NOW, SeededIds(1), source="ai-service")

    event = SignalEvents().next()
    assert set(metadata) == set(orjson.loads(orjson.dumps(event.metadata)))
    assert metadata["sequence"] == 7


def test_the_event_in_one_body_survives_its_way() -> None:
    event = SignalEvents().next()

    assert SignalEvent.model_validate_json(event.model_dump_json()) == event


def test_commands_are_packed_as_redis_reads_them() -> None:
    assert pack(b"XACK", b"s", b"", b"1-1") == b"*4\r\n$4\r\nXACK\r\n$1\r\ns\r\n$0\r\n\r\n$3\r\n1-1\r\n"


@pytest.mark.parametrize("validated", [True, False])
def test_a_batch_holds_as_many_commands_as_asked_for(validated: bool) -> None:
    assert EventPacker(validated=validated).batch(5).count(b"*9\r\n$4\r\nXADD\r\n") == 5
