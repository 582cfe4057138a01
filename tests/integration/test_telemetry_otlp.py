"""Spans as a collector gets them: one trace from candle to order, and a collector that is away hurts nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from infrastructure.embedded.loopback import free_port
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.clock import SystemClock
from shared.events.envelope import Event, EventPayload
from shared.ids import RandomIds
from shared.telemetry.masking import Masker, use_masker
from shared.telemetry.otlp_spans import OtlpSpans
from shared.telemetry.spans import Spans, span_number, trace_number
from shared.telemetry.trace import current_trace
from tests.support.bus_stage import QUICK
from tests.support.event_payloads import candle, signal
from tests.support.eventually import eventually
from tests.support.otlp_collector import OtlpCollector

TRACE = "0d7f6a52-0b7a-4f8e-9c0a-4b8f0a5a1111"


@pytest.fixture
def collector() -> Any:
    with OtlpCollector() as running:
        yield running


def spans_of(service: str, endpoint: str, **options: Any) -> Spans:
    return Spans(
        OtlpSpans(service, instance="one", clock=SystemClock(), endpoint=endpoint, send_every_seconds=0.02, **options)
    )


class Desk:
    """One service on the bus whose publishing and handling show as spans."""

    def __init__(self, broker: MemoryBroker, service: str, endpoint: str) -> None:
        clock = SystemClock()
        self.spans = spans_of(service, endpoint)
        self.bus = MemoryBus(
            broker, service=service, instance="one", clock=clock, ids=RandomIds(), market_clock=clock, options=QUICK
        )

    async def publish(self, event_type: str, payload: EventPayload, event_id: str) -> None:
        trace = current_trace()
        with self.spans.publish(
            event_type,
            event_id=event_id,
            trace_id=trace.trace_id if trace else TRACE,
            causation_id=trace.causation_id if trace else None,
            symbol="BTCUSDT",
        ):
            await self.bus.publish(event_type, payload, trace_id=trace.trace_id if trace else TRACE, event_id=event_id)

    def subscribe(self, event_type: str, handler: Callable[[Event[Any]], Awaitable[None]]) -> None:
        async def handle(event: Event[Any]) -> None:
            with self.spans.handle(event) as span:
                await handler(event)
                span.end_as("ack")

        self.bus.subscribe(event_type, handle)


@pytest.fixture
async def desks(collector: OtlpCollector) -> AsyncIterator[tuple[Desk, Desk]]:
    broker = MemoryBroker()
    ai, execution = (Desk(broker, name, collector.endpoint) for name in ("ai-service", "exec-risk-service"))
    yield ai, execution
    for desk in (ai, execution):
        await desk.bus.stop()
        await desk.spans.stop()


async def test_one_trace_from_the_candle_to_the_order(collector: OtlpCollector, desks: tuple[Desk, Desk]) -> None:
    ai, execution = desks
    sent: list[asyncio.Task[None]] = []

    async def on_candle(_event: Event[Any]) -> None:
        await ai.publish("signal.generated", signal(), "signal-1")

    async def send_order(cause: str) -> None:
        with execution.spans.send_order(
            client_order_id="qt3-en-1",
            symbol="BTCUSDT",
            side="BUY",
            order_type="MARKET",
            trace_id=TRACE,
            causation_id=cause,
        ) as span:
            await asyncio.sleep(0)
            span.end_as("accepted")

    async def on_signal(event: Event[Any]) -> None:
        sent.append(asyncio.create_task(send_order(event.metadata.event_id)))

    ai.subscribe("candle.closed", on_candle)
    execution.subscribe("signal.generated", on_signal)
    await ai.bus.start()
    await execution.bus.start()
    await ai.publish("candle.closed", candle(), "candle-1")
    await eventually(lambda: len(collector.spans) == 5, what="five spans")

    told = {span.name: span for span in collector.spans}
    assert {span.trace_id for span in collector.spans} == {TRACE.replace("-", "")}
    parents = [
        ("publish candle.closed", None),
        ("handle candle.closed", "publish candle.closed"),
        ("publish signal.generated", "handle candle.closed"),
        ("handle signal.generated", "publish signal.generated"),
        ("send order", "handle signal.generated"),
    ]
    for name, parent in parents:
        assert told[name].parent_id == (told[parent].span_id if parent else ""), name
    assert [(told[name].service, told[name].kind) for name, _ in parents] == [
        ("ai-service", "producer"),
        ("ai-service", "consumer"),
        ("ai-service", "producer"),
        ("exec-risk-service", "consumer"),
        ("exec-risk-service", "client"),
    ]
    assert told["handle signal.generated"].attributes == {
        "event_type": "signal.generated",
        "event_id": "signal-1",
        "symbol": "BTCUSDT",
        "source": "ai-service",
        "outcome": "ack",
    }
    assert told["send order"].attributes["outcome"] == "accepted"
    assert all(span.seconds >= 0 for span in collector.spans)


async def test_what_is_published_later_still_hangs_under_its_cause(collector: OtlpCollector) -> None:
    """An outbox publishes outside of the handler; the cause is all that it knows."""
    spans = spans_of("exec-risk-service", collector.endpoint)
    with spans.publish("position.opened", event_id="position-1", trace_id=TRACE, causation_id="signal-1"):
        pass
    await spans.stop()

    assert collector.named("publish position.opened").parent_id == f"{span_number('signal-1'):016x}"


async def test_what_arrives_or_belongs_to_another_trace_hangs_under_its_own_cause(collector: OtlpCollector) -> None:
    """Even when it happens inside of another span: a bus in memory delivers where it is published."""
    spans = spans_of("exec-risk-service", collector.endpoint)
    with spans.publish("candle.closed", event_id="candle-1", trace_id=TRACE, causation_id=None):
        with spans.serve("get_positions", request_id="r1", trace_id=TRACE, source="analytics-os-service"):
            pass
        with spans.publish("order.updated", event_id="order-1", trace_id="another", causation_id="signal-2"):
            pass
    await spans.stop()

    assert collector.named("serve get_positions").parent_id == f"{span_number('r1'):016x}"
    assert collector.named("publish order.updated").parent_id == f"{span_number('signal-2'):016x}"
    assert collector.named("publish order.updated").trace_id == f"{trace_number('another'):032x}"


async def test_a_call_and_its_service_are_one_branch(collector: OtlpCollector) -> None:
    caller, server = (spans_of(name, collector.endpoint) for name in ("analytics-os-service", "exec-risk-service"))
    with caller.call("exec-risk-service", "get_positions", request_id="r1", trace_id=TRACE, causation_id=None) as call:
        with server.serve("get_positions", request_id="r1", trace_id=TRACE, source="analytics-os-service") as served:
            served.end_as("success")
        call.end_as("timeout", "no answer within 1 s")
    await caller.stop()
    await server.stop()

    asked, answered = collector.named("call get_positions"), collector.named("serve get_positions")
    assert answered.parent_id == asked.span_id
    assert (asked.is_error, asked.message) == (True, "no answer within 1 s")
    assert (answered.is_error, answered.attributes["outcome"]) == (False, "success")


async def test_an_exception_passes_through_and_is_told_without_its_secret(collector: OtlpCollector) -> None:
    use_masker(Masker(["canary-secret"]))
    spans = spans_of("ai-service", collector.endpoint, headers="authorization=Bearer%20token-1,x-team=desk")
    with (
        pytest.raises(ValueError, match="canary"),
        spans.publish("candle.closed", event_id="e", trace_id=TRACE, causation_id=None),
    ):
        raise ValueError("refused canary-secret\nand signature=abcdef")
    with (
        pytest.raises(asyncio.CancelledError),
        spans.publish("order.updated", event_id="f", trace_id=TRACE, causation_id=None),
    ):
        raise asyncio.CancelledError
    await spans.stop()
    use_masker(Masker())

    failed = collector.named("publish candle.closed")
    assert (failed.is_error, failed.attributes["outcome"]) == (True, "error")
    assert failed.message == "ValueError: refused *** and signature=***"
    assert b"canary" not in b"".join(collector.bodies)
    assert collector.named("publish order.updated").attributes["outcome"] == "cancelled"
    assert (collector.headers["authorization"], collector.headers["x-team"]) == ("Bearer token-1", "desk")


async def test_a_share_of_the_traces_is_sent_whole(collector: OtlpCollector) -> None:
    ids = [RandomIds().new() for _ in range(400)]
    services = [spans_of(name, collector.endpoint, sample_ratio=0.25) for name in ("one", "other")]
    for spans in services:
        for trace_id in ids:
            with spans.publish("candle.closed", event_id=f"e-{trace_id}", trace_id=trace_id, causation_id=None):
                pass
        await spans.stop()

    chosen = [{span.trace_id for span in collector.spans if span.service == name} for name in ("one", "other")]
    assert chosen[0] == chosen[1]
    assert 50 < len(chosen[0]) < 160


@pytest.mark.parametrize("trouble", ["away", "hangs", "refuses"])
async def test_a_collector_in_trouble_neither_fails_nor_holds_up_the_work(
    collector: OtlpCollector, trouble: str
) -> None:
    endpoint = collector.endpoint if trouble != "away" else f"http://127.0.0.1:{free_port()}"
    collector.status = 503
    if trouble == "hangs":
        collector.gate.clear()
    spans = spans_of("ai-service", endpoint, answer_seconds=0.5, close_seconds=0.5)
    for number in range(10_000):  # more than the queue holds
        with spans.publish("candle.closed", event_id=f"e{number}", trace_id=TRACE, causation_id=None):
            pass

    beats = 0
    closing = asyncio.create_task(spans.stop())
    while not closing.done():
        beats += 1
        await asyncio.sleep(0.01)
    await closing

    assert collector.spans == []
    assert beats > 10 or trouble != "hangs"  # the loop ran on while the close waited


async def test_spans_arrive_once_the_collector_is_back(collector: OtlpCollector) -> None:
    collector.gate.clear()
    spans = spans_of("ai-service", collector.endpoint)
    with spans.publish("candle.closed", event_id="e1", trace_id=TRACE, causation_id=None):
        pass
    collector.gate.set()
    await eventually(lambda: len(collector.spans) == 1, what="the span")
    await spans.stop()
