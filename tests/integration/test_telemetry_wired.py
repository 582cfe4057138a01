"""The bus and the order sender show what they do as spans: one trace from the candle to the order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from services.exec_risk_service.handlers.order_sender import OrderSender
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.clock import SystemClock
from shared.errors import PermanentError
from shared.events.envelope import Event
from shared.ids import RandomIds
from shared.service import Component
from shared.telemetry.otlp_spans import OtlpSpans
from shared.telemetry.spans import Spans
from tests.support.bus_stage import QUICK
from tests.support.event_payloads import candle
from tests.support.eventually import eventually
from tests.support.exec_risk_desk import started_desk
from tests.support.markets import flat
from tests.support.otlp_collector import OtlpCollector

TRACE = "0d7f6a52-0b7a-4f8e-9c0a-4b8f0a5a1111"
CLOCK = SystemClock()


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with OtlpCollector() as running:
        yield running


def spans_of(service: str, collector: OtlpCollector) -> Spans:
    return Spans(OtlpSpans(service, instance="one", clock=CLOCK, endpoint=collector.endpoint, send_every_seconds=0.02))


async def test_one_trace_from_the_candle_over_the_signal_to_the_order(collector: OtlpCollector) -> None:
    desk = await started_desk(flat(50_000, 5))
    broker = MemoryBroker()
    spans = {name: spans_of(name, collector) for name in ("ai-service", "exec-risk-service")}
    buses = {
        name: MemoryBus(
            broker,
            service=name,
            instance="one",
            clock=CLOCK,
            ids=RandomIds(),
            market_clock=desk.market_clock,
            options=QUICK,
            spans=spans[name],
        )
        for name in ("ai-service", "exec-risk-service")
    }

    async def on_candle(_event: Event[Any]) -> None:
        await buses["ai-service"].publish("signal.generated", desk.signal_event("BUY").payload)

    async def on_signal(event: Event[Any]) -> None:
        await desk.service.handlers.order_executor.on_signal(event)

    sender = OrderSender(desk.service.ledger, desk.venue, None, spans["exec-risk-service"])
    desk.service.ledger._lanes.open(lambda request: sender.submit(request.client_order_id))  # type: ignore[attr-defined]
    buses["ai-service"].subscribe("candle.closed", on_candle)
    buses["exec-risk-service"].subscribe("signal.generated", on_signal)
    components: list[Component] = [*spans.values(), *buses.values()]
    for component in components:
        await component.start()

    await buses["ai-service"].publish("candle.closed", candle(), trace_id=TRACE)
    await eventually(lambda: any(span.name == "handle signal.generated" for span in collector.spans))
    for component in reversed(components):
        await component.stop()

    told = {span.name: span for span in collector.spans}
    assert {span.trace_id for span in collector.spans} == {TRACE.replace("-", "")}
    parents = {
        "publish candle.closed": "",
        "handle candle.closed": "publish candle.closed",
        "publish signal.generated": "handle candle.closed",
        "handle signal.generated": "publish signal.generated",
        "send order": "handle signal.generated",
    }
    assert set(told) == set(parents)
    for name, parent in parents.items():
        assert told[name].parent_id == (told[parent].span_id if parent else ""), name
    assert told["send order"].attributes["outcome"] == "accepted"
    assert told["handle signal.generated"].attributes["outcome"] == "ack"


async def test_a_dead_letter_is_a_span_that_failed(collector: OtlpCollector) -> None:
    spans = spans_of("exec-risk-service", collector)
    bus = MemoryBus(
        MemoryBroker(),
        service="exec-risk-service",
        instance="one",
        clock=CLOCK,
        ids=RandomIds(),
        market_clock=CLOCK,
        options=QUICK,
        spans=spans,
    )

    async def refuse(_event: Event[Any]) -> None:
        raise PermanentError("never")

    bus.subscribe("candle.closed", refuse)
    await bus.start()
    await bus.publish("candle.closed", candle())
    await eventually(lambda: any(span.name == "handle candle.closed" for span in collector.spans))
    await bus.stop()
    await spans.stop()

    failed = collector.named("handle candle.closed")
    assert (failed.is_error, failed.attributes["outcome"]) == (True, "dead_letter")
    assert "never" in failed.message
