"""Spans that go nowhere cost nothing, ids follow from ours, and a wrong setting stops the start."""

from __future__ import annotations

import subprocess
import sys
import uuid
from contextlib import AbstractContextManager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import SystemClock
from shared.errors import ConfigurationError
from shared.events.envelope import Event, EventMetadata
from shared.telemetry.spans import NO_SPAN, NO_SPANS, Span, Spans, SpanStart, create_spans, span_number, trace_number
from tests.support.event_payloads import START, candle

CLOSED = Event(
    EventMetadata(
        event_id="event-1",
        event_type="candle.closed",
        trace_id="trace-1",
        causation_id=None,
        timestamp=START,
        source="tests",
        sequence=1,
    ),
    candle(),
)


class Noting:
    """A sink that remembers what was begun."""

    def __init__(self) -> None:
        self.starts: list[SpanStart] = []

    def open(self, start: SpanStart) -> AbstractContextManager[Span]:
        self.starts.append(start)
        return NO_SPAN

    async def close(self) -> None:
        self.starts.clear()


@given(st.uuids())
def test_a_uuid_keeps_its_bits_so_that_it_can_be_searched_for(trace_id: uuid.UUID) -> None:
    assert f"{trace_number(str(trace_id)):032x}" == (trace_id.hex if trace_id.int else f"{trace_number(''):032x}")


@given(st.text())
def test_any_text_gives_valid_ids_and_always_the_same(text: str) -> None:
    assert 0 < trace_number(text) < 2**128
    assert 0 < span_number(text) < 2**64
    assert (trace_number(text), span_number(text)) == (trace_number(text), span_number(text))


def test_the_ids_of_a_text_are_those_of_every_version_of_this_project() -> None:
    assert f"{trace_number('trace-1'):032x}" == "17fe6f303311c0b164b937e419518c1f"
    assert f"{span_number('event-1'):016x}" == "ce36863f51b6baf9"


async def test_without_a_sink_nothing_is_begun() -> None:
    assert not NO_SPANS.enabled
    with NO_SPANS.handle(CLOSED) as span:
        span.end_as("ack")
    await NO_SPANS.start()
    await NO_SPANS.stop()


def test_what_follows_from_an_event_names_it_as_its_cause() -> None:
    sink = Noting()
    spans = Spans(sink)
    spans.publish("candle.closed", event_id="event-1", trace_id="trace-1", causation_id=None, symbol="BTCUSDT")
    spans.handle(CLOSED)
    spans.call("ai-service", "get_signal", request_id="r1", trace_id="t1", causation_id="e1")
    spans.serve("get_signal", request_id="r1", trace_id="t1", source="exec-risk-service")
    spans.send_order(
        client_order_id="qt3-en-1", symbol="BTCUSDT", side="BUY", order_type="MARKET", trace_id="t1", causation_id="e2"
    )

    assert [(start.name, start.kind, start.announces, start.causation_id) for start in sink.starts] == [
        ("publish candle.closed", "producer", "event-1", None),
        ("handle candle.closed", "consumer", None, "event-1"),
        ("call get_signal", "client", "r1", "e1"),
        ("serve get_signal", "server", None, "r1"),
        ("send order", "client", None, "e2"),
    ]
    assert sink.starts[0].attributes == {"event_type": "candle.closed", "event_id": "event-1", "symbol": "BTCUSDT"}
    assert sink.starts[1].attributes == {**sink.starts[0].attributes, "source": "tests"}


@pytest.mark.parametrize(
    ("endpoint", "headers", "message"),
    [
        ("collector:4318", "", "OTEL_EXPORTER_OTLP_ENDPOINT is wrong"),
        ("ftp://collector", "", "OTEL_EXPORTER_OTLP_ENDPOINT is wrong"),
        ("http://127.0.0.1:4318", "authorization", "OTEL_EXPORTER_OTLP_HEADERS is wrong"),
        ("http://127.0.0.1:4318", "=secret", "OTEL_EXPORTER_OTLP_HEADERS is wrong"),
    ],
)
def test_a_setting_that_cannot_be_used_stops_the_start(endpoint: str, headers: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        create_spans("ai-service", instance="one", clock=SystemClock(), endpoint=endpoint, headers=headers)
    assert "secret" not in str(caught.value)


def test_no_endpoint_means_no_spans() -> None:
    assert create_spans("ai-service", instance="one", clock=SystemClock(), endpoint=None) is NO_SPANS


PROGRAM = """
import sys
sys.modules["opentelemetry.exporter"] = None  # as if it were not installed
from shared.clock import SystemClock
from shared.errors import ConfigurationError
from shared.telemetry.spans import NO_SPANS, create_spans
import shared.health.routes, shared.bus.redis_streams, shared.rpc.redis_transport
assert "shared.telemetry.otlp_spans" not in sys.modules
assert create_spans("s", instance="i", clock=SystemClock(), endpoint=None) is NO_SPANS
try:
    create_spans("s", instance="i", clock=SystemClock(), endpoint="http://127.0.0.1:4318")
except ConfigurationError as error:
    print(error)
"""


def test_opentelemetry_is_loaded_only_when_it_is_used_and_missed_in_one_clear_line() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)

    assert ended.stderr == ""
    assert ended.stdout == (
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, but opentelemetry.exporter.otlp is not installed; "
        "install quantum-trader[otel] or remove the setting\n"
    )
