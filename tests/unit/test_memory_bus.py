"""What replay needs from the memory bus beyond the port: an end, and the same run twice."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from shared.bus.memory import MemoryBroker, MemoryBus
from shared.clock import ManualClock
from shared.errors import ConnectionLostError
from shared.events.envelope import Event
from shared.events.streams import event_stream
from shared.ids import SeededIds
from shared.telemetry.metrics import Metrics
from tests.support.bus_stage import Recorder
from tests.support.event_payloads import START, candle, risk_alert, signal

SERVICES = ("ai-service", "exec-risk-service", "analytics-os-service")


def bus_on(broker: MemoryBroker, service: str = "ai-service", seed: int = 1, **more: Any) -> MemoryBus:
    clock = ManualClock(START)
    return MemoryBus(
        broker, service=service, instance="one", clock=clock, ids=SeededIds(seed), market_clock=clock, **more
    )


async def test_settled_waits_for_effects_of_effects() -> None:
    broker = MemoryBroker()
    ai, risk, analytics = [bus_on(broker, service, seed) for seed, service in enumerate(SERVICES)]
    archive = Recorder()

    async def think(event: Event[Any]) -> None:
        await asyncio.sleep(0)
        await ai.publish("signal.generated", signal(event.payload.symbol))

    async def decide(event: Event[Any]) -> None:
        await asyncio.sleep(0)
        await risk.publish("risk.alert", risk_alert(event.payload.symbol))

    ai.subscribe("candle.closed", think)
    risk.subscribe("signal.generated", decide)
    analytics.subscribe("*", archive)
    for bus in (ai, risk, analytics):
        await bus.start()

    await ai.publish("candle.closed", candle())
    await broker.settled()

    assert archive.types == ["candle.closed", "signal.generated", "risk.alert"]


async def test_settled_returns_at_once_when_there_is_nothing_to_do() -> None:
    broker = MemoryBroker()
    await broker.settled()
    bus = bus_on(broker)
    await bus.publish("candle.closed", candle())

    await broker.settled()


@pytest.mark.parametrize("error", [ValueError("bug"), ConnectionLostError("away")])
async def test_failing_handlers_do_not_keep_settled_waiting_while_time_stands_still(error: Exception) -> None:
    broker = MemoryBroker()
    bus, tries = bus_on(broker), Recorder()

    async def fail(event: Event[Any]) -> None:
        await tries(event)
        raise error

    bus.subscribe("candle.closed", fail)
    await bus.start()
    await bus.publish("candle.closed", candle())

    await broker.settled()

    assert len(tries.events) == 5
    assert len(broker.dead_letters("ai-service")) == 1


async def test_a_stopped_service_does_not_keep_settled_waiting() -> None:
    broker = MemoryBroker()
    bus = bus_on(broker)
    bus.subscribe("candle.closed", Recorder())
    await bus.start()
    await bus.stop()
    await bus.publish("candle.closed", candle())

    await broker.settled()


async def test_old_entries_leave_the_history_but_not_the_queues() -> None:
    broker = MemoryBroker(keep=3)
    bus, seen = bus_on(broker), Recorder()
    bus.subscribe("candle.closed", seen)
    await bus.start()

    for number in range(10):
        await bus.publish("candle.closed", candle(number=number))
    await broker.settled()

    assert len(seen.events) == 10
    assert len(broker.entries(event_stream("candle.closed"))) == 3


async def run_of_a_small_suite() -> list[Mapping[bytes, bytes]]:
    """Three services that answer one another, with failures, on three keys."""
    broker = MemoryBroker()
    ai, risk, analytics = [bus_on(broker, service, seed) for seed, service in enumerate(SERVICES)]
    failed: list[str] = []

    async def think(event: Event[Any]) -> None:
        for _ in range(int(event.payload.close) % 4):
            await asyncio.sleep(0)
        await ai.publish("signal.generated", signal(event.payload.symbol))

    async def decide(event: Event[Any]) -> None:
        if event.metadata.sequence % 5 == 0 and event.metadata.event_id not in failed:
            failed.append(event.metadata.event_id)
            raise ValueError("once")
        await risk.publish("risk.alert", risk_alert(event.payload.symbol))

    ai.subscribe("candle.closed", think)
    risk.subscribe("signal.generated", decide)
    analytics.subscribe("*", Recorder())
    for bus in (ai, risk, analytics):
        await bus.start()
    for number in range(20):
        for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
            await ai.publish("candle.closed", candle(symbol, number))
        if number % 3 == 0:
            await broker.settled()
    await broker.settled()
    assert failed
    for bus in (ai, risk, analytics):
        await bus.stop()
    return [
        fields
        for event_type in ("candle.closed", "signal.generated", "risk.alert")
        for fields in broker.entries(event_stream(event_type))
    ]


async def test_two_runs_are_equal_bit_for_bit() -> None:
    assert await run_of_a_small_suite() == await run_of_a_small_suite()


async def test_every_verdict_is_counted() -> None:
    metrics = Metrics("ai-service", ManualClock(START))
    broker = MemoryBroker()
    bus = bus_on(broker, metrics=metrics)
    tries = 0

    async def fail_twice(_event: Event[Any]) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise ValueError("not yet")

    bus.subscribe("candle.closed", fail_twice)
    bus.subscribe("signal.generated", Recorder())
    await bus.start()
    await bus.publish("candle.closed", candle())
    await bus.publish("signal.generated", signal(expires_at=START.replace(year=2020)))
    broker.add(event_stream("candle.closed"), {b"noise": b"1"})
    await broker.settled()

    def count(event_type: str, outcome: str) -> float | None:
        labels = {"service": "ai-service", "event_type": event_type, "outcome": outcome}
        return metrics.registry.get_sample_value("events_consumed_total", labels)

    assert count("candle.closed", "retry") == 2
    assert count("candle.closed", "ack") == 1
    assert count("candle.closed", "dead_letter") == 1
    assert count("signal.generated", "expired") == 1
