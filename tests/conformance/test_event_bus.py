"""What every event bus does, over memory, one Redis and a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from shared.clock import ManualClock, SystemClock
from shared.errors import ConfigurationError, InvalidInputError
from shared.events.codec import decode
from shared.events.envelope import Event
from shared.events.streams import event_stream
from shared.ids import RandomIds
from shared.telemetry.trace import TraceContext, use_trace
from tests.support.bus_stage import QUICK, Recorder, Stage, quick, settled
from tests.support.event_payloads import START, candle, execution_request, position_opened, risk_alert, signal
from tests.support.eventually import eventually

# -- publish and subscribe -----------------------------------------------------------------------------------------


async def test_a_published_event_reaches_its_subscriber_as_it_was_published(stage: Stage) -> None:
    bus, seen = stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    await bus.start()

    published = await bus.publish("candle.closed", candle("ETHUSDT", 3))

    await eventually(lambda: seen.events, what="delivery")
    assert seen.events == [published]
    assert seen.events[0].payload == candle("ETHUSDT", 3)
    assert seen.events[0].metadata.source == "exec-risk-service"


async def test_nobody_gets_what_he_did_not_subscribe_to(stage: Stage) -> None:
    bus, positions, everything = stage.bus(), Recorder(), Recorder()
    bus.subscribe("position.*", positions)
    bus.subscribe("*", everything)
    await bus.start()

    await bus.publish("candle.closed", candle())
    await bus.publish("position.opened", position_opened())

    await settled(stage)
    assert positions.types == ["position.opened"]
    assert sorted(everything.types) == ["candle.closed", "position.opened"]


async def test_a_pattern_that_matches_no_event_type_is_refused(stage: Stage) -> None:
    with pytest.raises(ConfigurationError, match=r"'postion\.\*'"):
        stage.bus().subscribe("postion.*", Recorder())


async def test_subscribing_after_the_start_is_refused(stage: Stage) -> None:
    bus = stage.bus()
    bus.subscribe("candle.closed", Recorder())
    await bus.start()

    with pytest.raises(ConfigurationError, match="started"):
        bus.subscribe("signal.generated", Recorder())


async def test_a_payload_of_another_type_is_not_published(stage: Stage) -> None:
    bus = stage.bus()

    with pytest.raises(InvalidInputError, match="SignalGeneratedPayload"):
        await bus.publish("signal.generated", candle())
    with pytest.raises(InvalidInputError, match=r"signal\.gone"):
        await bus.publish("signal.gone", candle())

    assert await stage.entries(event_stream("signal.generated")) == []


async def test_two_services_each_get_every_event(stage: Stage) -> None:
    risk, analytics = stage.bus("exec-risk-service"), stage.bus("analytics-os-service")
    seen_by_risk, seen_by_analytics = Recorder(), Recorder()
    risk.subscribe("candle.closed", seen_by_risk)
    analytics.subscribe("candle.closed", seen_by_analytics)
    await risk.start()
    await analytics.start()

    published = [(await risk.publish("candle.closed", candle(number=n))).metadata.event_id for n in range(5)]

    await settled(stage, "exec-risk-service", "analytics-os-service")
    assert seen_by_risk.ids == published
    assert seen_by_analytics.ids == published


async def test_a_service_that_starts_later_gets_what_was_published_before(stage: Stage) -> None:
    publisher = stage.bus("ai-service")
    published = [(await publisher.publish("candle.closed", candle(number=n))).metadata.event_id for n in range(3)]
    late, seen = stage.bus(), Recorder()
    late.subscribe("candle.closed", seen)

    await late.start()

    await settled(stage)
    assert seen.ids == published


async def test_two_instances_of_a_service_share_its_events(stage: Stage) -> None:
    seen: list[tuple[str, str]] = []
    published: list[str] = []

    def at(instance: str) -> Callable[[Event[Any]], Awaitable[None]]:
        async def handle(event: Event[Any]) -> None:
            seen.append((instance, event.metadata.event_id))

        return handle

    one = stage.bus(instance="one", options=quick(max_in_hand=1))
    two = stage.bus(instance="two", options=quick(max_in_hand=1))
    one.subscribe("candle.closed", at("one"))
    two.subscribe("candle.closed", at("two"))
    await one.start()
    await two.start()

    async def both_got_some() -> bool:
        symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT", "ADAUSDT", "DOGEUSDT", "LINKUSDT")
        published.extend([(await one.publish("candle.closed", candle(symbol))).metadata.event_id for symbol in symbols])
        return {instance for instance, _ in seen} == {"one", "two"}

    await eventually(both_got_some, what="both at work")
    await settled(stage)
    assert sorted(event_id for _, event_id in seen) == sorted(published)


# -- order and concurrency -----------------------------------------------------------------------------------------


async def test_events_of_one_key_are_handled_in_order(stage: Stage) -> None:
    bus, seen = stage.bus(), Recorder()

    async def slower_for_every_third(event: Event[Any]) -> None:
        for _ in range(3 if event.payload.close % 3 == 0 else 0):
            await asyncio.sleep(0)
        await seen(event)

    bus.subscribe("candle.closed", slower_for_every_third)
    await bus.start()

    for number in range(30):
        await bus.publish("candle.closed", candle("BTCUSDT" if number % 2 else "ETHUSDT", number))

    await settled(stage)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        closes = [event.payload.close for event in seen.events if event.payload.symbol == symbol]
        assert len(closes) == 15
        assert closes == sorted(closes)


async def test_events_without_a_key_are_handled_in_order(stage: Stage) -> None:
    bus, seen = stage.bus(), Recorder()

    async def slower_at_first(event: Event[Any]) -> None:
        for _ in range(10 - int(event.payload.message)):
            await asyncio.sleep(0)
        await seen(event)

    bus.subscribe("risk.alert", slower_at_first)
    await bus.start()

    published = [(await bus.publish("risk.alert", risk_alert(str(n)))).metadata.event_id for n in range(10)]

    await settled(stage)
    assert seen.ids == published


async def test_one_key_never_has_two_handlers_at_work_across_event_types(stage: Stage) -> None:
    bus = stage.bus()
    at_work: list[str] = []
    overlaps: list[str] = []

    async def handle(event: Event[Any]) -> None:
        overlaps.extend(at_work)
        at_work.append(event.metadata.event_type)
        await asyncio.sleep(0)
        at_work.remove(event.metadata.event_type)

    bus.subscribe("candle.closed", handle)
    bus.subscribe("position.opened", handle)
    for number in range(5):
        await bus.publish("candle.closed", candle(number=number))
        await bus.publish("position.opened", position_opened())
    await bus.start()

    await settled(stage)
    assert overlaps == []


async def test_different_keys_are_handled_concurrently(stage: Stage) -> None:
    bus = stage.bus()
    both = asyncio.Barrier(2)

    async def meet(_event: Event[Any]) -> None:
        await both.wait()

    bus.subscribe("candle.closed", meet)
    await bus.start()

    await bus.publish("candle.closed", candle("BTCUSDT"))
    await bus.publish("candle.closed", candle("ETHUSDT"))

    await settled(stage)


async def test_no_more_handlers_than_allowed_are_at_work(stage: Stage) -> None:
    bus = stage.bus(options=quick(concurrency=2))
    at_work = 0
    most = 0

    async def handle(_event: Event[Any]) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        for _ in range(5):
            await asyncio.sleep(0)
        at_work -= 1

    bus.subscribe("candle.closed", handle)
    for symbol in ("AUSDT", "BUSDT", "CUSDT", "DUSDT", "EUSDT"):
        await bus.publish("candle.closed", candle(symbol))
    await bus.start()

    await settled(stage)
    assert most == 2


async def test_reading_pauses_when_enough_is_in_hand(stage: Stage) -> None:
    bus, seen = stage.bus(options=quick(max_in_hand=3)), Recorder()
    go_on = asyncio.Event()

    async def wait_then_record(event: Event[Any]) -> None:
        await go_on.wait()
        await seen(event)

    bus.subscribe("candle.closed", wait_then_record)
    published = [(await bus.publish("candle.closed", candle(number=n))).metadata.event_id for n in range(10)]
    await bus.start()
    await eventually(lambda: bus.progress().pending == 3, what="three in hand")

    go_on.set()

    await settled(stage)
    assert seen.ids == published


# -- trace, ids, sequence ------------------------------------------------------------------------------------------


async def test_a_publish_inside_a_handler_inherits_the_trace_and_names_its_cause(stage: Stage) -> None:
    bus, answers = stage.bus(), Recorder()

    async def answer(event: Event[Any]) -> None:
        await bus.publish("signal.generated", signal(event.payload.symbol))

    bus.subscribe("candle.closed", answer)
    bus.subscribe("signal.generated", answers)
    await bus.start()
    causes = [await bus.publish("candle.closed", candle(symbol)) for symbol in ("BTCUSDT", "ETHUSDT")]

    await eventually(lambda: len(answers.events) == 2, what="answers")
    assert len({event.metadata.trace_id for event in causes}) == 2
    assert [event.metadata.causation_id for event in causes] == [None, None]
    for cause in causes:
        (effect,) = [event for event in answers.events if event.payload.symbol == cause.payload.symbol]
        assert effect.metadata.trace_id == cause.metadata.trace_id
        assert effect.metadata.causation_id == cause.metadata.event_id


async def test_trace_cause_and_id_can_be_given(stage: Stage) -> None:
    bus = stage.bus()

    with use_trace(TraceContext("trace-in-hand", causation_id="event-in-hand")):
        given = await bus.publish("candle.closed", candle(), trace_id="t", causation_id="c", event_id="e")
        inherited = await bus.publish("candle.closed", candle())

    assert (given.metadata.trace_id, given.metadata.causation_id, given.metadata.event_id) == ("t", "c", "e")
    assert (inherited.metadata.trace_id, inherited.metadata.causation_id) == ("trace-in-hand", "event-in-hand")


async def test_sequence_has_no_gap_and_is_the_order_in_the_stream(stage: Stage) -> None:
    bus = stage.bus()

    await asyncio.gather(*[bus.publish("candle.closed", candle(number=n)) for n in range(20)])
    with pytest.raises(InvalidInputError):
        await bus.publish("candle.closed", risk_alert())
    await bus.publish("candle.closed", candle(number=20))

    stored = [decode(fields) for fields in await stage.entries(event_stream("candle.closed"))]
    assert [event.metadata.sequence for event in stored] == list(range(1, 22))


# -- late commands -------------------------------------------------------------------------------------------------

MARKET_NOW = START + timedelta(hours=5)


async def test_a_command_after_its_expiry_is_refused_and_reported(stage: Stage) -> None:
    bus, seen, expired = stage.bus(market_clock=ManualClock(MARKET_NOW)), Recorder(), Recorder()
    bus.subscribe("signal.generated", seen)
    bus.on_expired(expired)
    await bus.start()

    late = await bus.publish("signal.generated", signal(expires_at=MARKET_NOW - timedelta(seconds=1)))
    on_time = await bus.publish("signal.generated", signal(expires_at=MARKET_NOW))

    await settled(stage)
    assert seen.ids == [on_time.metadata.event_id]
    assert expired.ids == [late.metadata.event_id]
    assert await stage.dead_letters() == []


async def test_a_report_of_a_late_command_that_fails_is_repeated(stage: Stage) -> None:
    bus, reports = stage.bus(market_clock=ManualClock(MARKET_NOW)), Recorder()

    async def fail_once(event: Event[Any]) -> None:
        await reports(event)
        if len(reports.events) == 1:
            raise ValueError("not yet")

    bus.subscribe("signal.generated", Recorder())
    bus.on_expired(fail_once)
    await bus.start()

    await bus.publish("signal.generated", signal(expires_at=START))

    await settled(stage)
    assert len(reports.events) == 2


async def test_commands_grow_too_old_by_the_wall_clock_and_facts_never_do(stage: Stage) -> None:
    published_at = SystemClock().now() - timedelta(seconds=61)
    past, present, seen = stage.bus("ai-service", clock=ManualClock(published_at)), stage.bus(), Recorder()
    present.subscribe("execution.request", seen)
    present.subscribe("candle.closed", seen)
    await present.start()

    await past.publish("execution.request", execution_request("BTCUSDT"))
    fact = await past.publish("candle.closed", candle())
    fresh = await present.publish("execution.request", execution_request("ETHUSDT"))

    await settled(stage)
    assert sorted(seen.ids) == sorted([fact.metadata.event_id, fresh.metadata.event_id])
    assert await stage.dead_letters() == []


async def test_who_only_records_gets_late_commands_too(stage: Stage) -> None:
    bus = stage.bus(market_clock=ManualClock(MARKET_NOW), options=quick(refuse_late_commands=False))
    seen = Recorder()
    bus.subscribe("*", seen)
    await bus.start()

    late = await bus.publish("signal.generated", signal(expires_at=START))

    await settled(stage)
    assert seen.ids == [late.metadata.event_id]


# -- progress ------------------------------------------------------------------------------------------------------


async def test_progress_tells_what_is_in_hand_and_what_was_settled(stage: Stage) -> None:
    bus = stage.bus(options=QUICK)
    go_on = asyncio.Event()

    async def wait(_event: Event[Any]) -> None:
        await go_on.wait()

    bus.subscribe("candle.closed", wait)
    assert bus.progress().last_event_id is None
    await bus.start()
    for number in range(3):
        last = await bus.publish("candle.closed", candle(number=number))
    await eventually(lambda: bus.progress().pending == 3, what="three in hand")

    go_on.set()

    await eventually(lambda: bus.progress().pending == 0, what="nothing in hand")
    progress = bus.progress()
    assert progress.processed_last_minute == 3
    assert progress.last_event_id == last.metadata.event_id
    assert 0 <= progress.lag_seconds < 60


async def test_a_bus_without_subscriptions_publishes_only(stage: Stage) -> None:
    bus = stage.bus()
    await bus.start()

    await bus.publish("candle.closed", candle(), event_id=RandomIds().new())
    await bus.stop()

    assert len(await stage.entries(event_stream("candle.closed"))) == 1
    assert bus.progress().pending == 0
