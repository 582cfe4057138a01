"""What every event bus does when something fails, stops or dies, over memory, one Redis and a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.backoff import Backoff
from shared.clock import ManualClock, SystemClock
from shared.errors import ConnectionLostError, InvalidInputError
from shared.events.codec import MAX_PAYLOAD_BYTES, decode
from shared.events.envelope import Event
from shared.events.streams import event_stream, event_type_of
from tests.support.bus_stage import Recorder, Stage, policy, quick, raw, settled
from tests.support.event_payloads import candle, risk_alert
from tests.support.eventually import eventually


def with_version(version: str) -> dict[bytes, bytes]:
    fields = raw(candle(), "candle.closed")
    return fields | {b"metadata": fields[b"metadata"].replace(b'"version":"3.0"', f'"version":"{version}"'.encode())}


# -- failures ------------------------------------------------------------------------------------------------------


async def test_several_handlers_run_in_order_and_settle_as_one(stage: Stage) -> None:
    bus = stage.bus()
    calls: list[str] = []

    async def first(_event: Event[Any]) -> None:
        calls.append("first")

    async def second(_event: Event[Any]) -> None:
        calls.append("second")
        if len(calls) == 2:
            raise ValueError("not yet")

    bus.subscribe("candle.*", first)
    bus.subscribe("candle.closed", second)
    await bus.start()
    await bus.publish("candle.closed", candle())

    await eventually(lambda: len(calls) == 4, what="second try")
    await settled(stage)
    assert calls == ["first", "second", "first", "second"]
    assert await stage.dead_letters() == []


async def test_a_retry_holds_back_its_own_key_and_no_other(stage: Stage) -> None:
    bus = stage.bus(options=quick(policy=policy(max_attempts=1_000_000)))
    handled: list[tuple[str, float]] = []

    async def handle(event: Event[Any]) -> None:
        candle_seen = (event.payload.symbol, event.payload.close)
        if candle_seen == ("BTCUSDT", 100.0) and ("ETHUSDT", 102.0) not in handled:
            raise ValueError("waits for another key")
        handled.append(candle_seen)

    bus.subscribe("candle.closed", handle)
    await bus.start()
    await bus.publish("candle.closed", candle("BTCUSDT", 0))
    await bus.publish("candle.closed", candle("BTCUSDT", 1))
    await bus.publish("candle.closed", candle("ETHUSDT", 2))

    await settled(stage)
    assert handled == [("ETHUSDT", 102.0), ("BTCUSDT", 100.0), ("BTCUSDT", 101.0)]


async def test_a_wait_between_tries_takes_no_handlers_place(stage: Stage) -> None:
    an_hour = Backoff(base_seconds=3600.0, cap_seconds=3600.0)
    bus, seen = stage.bus(options=quick(policy=policy(backoff=an_hour), concurrency=1)), Recorder()

    async def fail_for_btc(event: Event[Any]) -> None:
        if event.payload.symbol == "BTCUSDT":
            raise ValueError("not now")
        await seen(event)

    bus.subscribe("candle.closed", fail_for_btc)
    await bus.start()
    await bus.publish("candle.closed", candle("BTCUSDT"))
    await bus.publish("candle.closed", candle("ETHUSDT"))

    await eventually(lambda: seen.events, what="the other key's event")


async def test_what_keeps_failing_becomes_a_dead_letter(stage: Stage) -> None:
    bus, seen = stage.bus(options=quick(policy=policy(max_attempts=3))), Recorder()

    async def fail_for_btc(event: Event[Any]) -> None:
        await seen(event)
        if event.payload.symbol == "BTCUSDT":
            raise ValueError("no such thing")

    bus.subscribe("candle.closed", fail_for_btc)
    await bus.start()
    bad = await bus.publish("candle.closed", candle("BTCUSDT"))
    good = await bus.publish("candle.closed", candle("ETHUSDT"))

    await settled(stage)
    assert seen.ids.count(bad.metadata.event_id) == 3
    assert seen.ids.count(good.metadata.event_id) == 1
    (letter,) = await stage.dead_letters()
    stored = [dict(fields) for fields in await stage.entries(event_stream("candle.closed"))]
    assert event_type_of(letter[b"origin"].decode()) == "candle.closed"
    assert letter[b"error"] == b"ValueError: no such thing"
    assert letter[b"attempts"] == b"3"
    assert datetime.fromisoformat(letter[b"failed_at"].decode()).tzinfo is not None
    raw_fields = {name.removeprefix(b"raw_"): value for name, value in letter.items() if name.startswith(b"raw_")}
    assert raw_fields in stored
    assert decode(raw_fields) == bad


async def test_a_permanent_error_is_not_tried_again(stage: Stage) -> None:
    bus, seen = stage.bus(), Recorder()

    async def refuse(event: Event[Any]) -> None:
        await seen(event)
        raise InvalidInputError("never right")

    bus.subscribe("candle.closed", refuse)
    await bus.start()
    await bus.publish("candle.closed", candle())

    await settled(stage)
    assert len(seen.events) == 1
    (letter,) = await stage.dead_letters()
    assert letter[b"error"] == b"InvalidInputError: never right"
    assert letter[b"attempts"] == b"1"


async def test_lost_connections_of_a_handler_are_waited_out(stage: Stage) -> None:
    bus = stage.bus(options=quick(policy=policy(max_attempts=2, max_outages=None)))
    calls = 0

    async def fail_while_the_database_is_away(_event: Event[Any]) -> None:
        nonlocal calls
        calls += 1
        if calls <= 6:
            raise ConnectionLostError("database away")

    bus.subscribe("candle.closed", fail_while_the_database_is_away)
    await bus.start()
    await bus.publish("candle.closed", candle())

    await settled(stage)
    assert calls == 7
    assert await stage.dead_letters() == []


async def test_a_cancelled_wait_inside_a_handler_is_a_failure_like_others(stage: Stage) -> None:
    bus, seen = stage.bus(), Recorder()

    async def wait_for_something_that_is_cancelled(event: Event[Any]) -> None:
        await seen(event)
        if len(seen.events) == 1:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.cancel()
            await waiting

    bus.subscribe("candle.closed", wait_for_something_that_is_cancelled)
    await bus.start()
    first = await bus.publish("candle.closed", candle(number=1))
    second = await bus.publish("candle.closed", candle(number=2))

    await settled(stage)
    assert seen.ids == [first.metadata.event_id, first.metadata.event_id, second.metadata.event_id]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({b"noise": b"\xff\x00\x01"}, id="strange fields"),
        pytest.param({b"metadata": b"{", b"payload": b"{}"}, id="broken JSON"),
        pytest.param({b"metadata": b"[1]", b"payload": b"null"}, id="no objects"),
        pytest.param(raw(candle(), "candle.closed") | {b"payload": b'{"close": NaN}'}, id="NaN"),
        pytest.param(raw(candle(), "candle.closed") | {b"payload": b"{}"}, id="empty payload"),
        pytest.param(raw(candle(), "candle.closed") | {b"payload": b'{"symbol": "\xff\xfe"}'}, id="invalid UTF-8"),
        pytest.param(raw(candle(), "candle.closed") | {b"payload": b"[" * 100_000}, id="deep nesting"),
        pytest.param(
            raw(candle(), "candle.closed") | {b"payload": b'{"x":' * 2000 + b"1" + b"}" * 2000}, id="deep objects"
        ),
        pytest.param(
            raw(candle(), "candle.closed") | {b"payload": b'{"x":"' + b"y" * MAX_PAYLOAD_BYTES + b'"}'}, id="oversized"
        ),
        pytest.param(with_version("9.0"), id="unknown version"),
        pytest.param(raw(candle(), "candle.opened"), id="unknown type"),
        pytest.param(raw(risk_alert(), "risk.alert"), id="type of another stream"),
    ],
)
async def test_what_cannot_be_decoded_is_put_aside_with_its_bytes_and_the_rest_flows(
    stage: Stage, fields: dict[bytes, bytes]
) -> None:
    bus, seen = stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    before = await bus.publish("candle.closed", candle(number=1))
    await stage.append_raw(event_stream("candle.closed"), fields)
    after = await bus.publish("candle.closed", candle(number=2))

    await bus.start()

    await settled(stage)
    assert seen.ids == [before.metadata.event_id, after.metadata.event_id]
    (letter,) = await stage.dead_letters()
    assert {name.removeprefix(b"raw_"): value for name, value in letter.items() if name.startswith(b"raw_")} == fields
    assert letter[b"attempts"] == b"1"
    assert letter[b"error"].startswith(b"DecodeError: ")


# -- restarts ------------------------------------------------------------------------------------------------------


async def test_what_a_crashed_instance_had_in_hand_is_delivered_to_its_successor(stage: Stage) -> None:
    crashed, successor = stage.bus(options=quick(stop_timeout_seconds=0.0)), stage.bus()
    begun, seen = Recorder(), Recorder()

    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        await asyncio.Event().wait()

    crashed.subscribe("candle.closed", never_end)
    successor.subscribe("candle.closed", seen)
    await crashed.start()
    published = [(await crashed.publish("candle.closed", candle(number=n))).metadata.event_id for n in range(3)]
    await eventually(lambda: crashed.progress().pending == 3, what="three in hand")

    await stage.kill(crashed)
    await successor.start()

    await eventually(lambda: len(seen.events) == 3, what="redelivery")
    assert begun.ids == published[:1]
    assert seen.ids == published


async def test_stopping_lets_a_running_handler_finish_and_settles_it(stage: Stage) -> None:
    bus, seen = stage.bus(), Recorder()
    finish = asyncio.Event()

    async def handle(event: Event[Any]) -> None:
        await seen(event)
        await finish.wait()

    bus.subscribe("candle.closed", handle)
    await bus.start()
    first = await bus.publish("candle.closed", candle(number=1))
    second = await bus.publish("candle.closed", candle(number=2))
    await eventually(lambda: bus.progress().pending == 2, what="both in hand")

    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    finish.set()
    await stopping

    assert seen.ids == [first.metadata.event_id]
    successor, rest = stage.bus(), Recorder()
    successor.subscribe("candle.closed", rest)
    await successor.start()
    await settled(stage)
    assert rest.ids == [second.metadata.event_id]


async def test_stopping_does_not_wait_for_retries(stage: Stage) -> None:
    bus = stage.bus(options=quick(policy=policy(max_attempts=1_000_000)))
    failures = 0

    async def fail(_event: Event[Any]) -> None:
        nonlocal failures
        failures += 1
        raise ValueError("not now")

    bus.subscribe("candle.closed", fail)
    await bus.start()
    await bus.publish("candle.closed", candle())
    await eventually(lambda: failures > 2, what="a few tries")

    await bus.stop()

    assert await stage.unsettled() == 1


async def test_a_handler_that_does_not_end_is_cut_off_at_the_stop_and_its_event_comes_again(stage: Stage) -> None:
    bus, begun = stage.bus(options=quick(stop_timeout_seconds=0.01)), Recorder()
    cut_off: list[str] = []

    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        try:
            await asyncio.Event().wait()
        finally:
            cut_off.append(event.metadata.event_id)

    bus.subscribe("candle.closed", never_end)
    await bus.start()
    event = await bus.publish("candle.closed", candle())
    await eventually(lambda: begun.events, what="handler at work")

    await bus.stop()

    assert cut_off == [event.metadata.event_id]
    successor, seen = stage.bus(), Recorder()
    successor.subscribe("candle.closed", seen)
    await successor.start()
    await settled(stage)
    assert seen.ids == [event.metadata.event_id]


async def test_what_a_stopped_instance_leaves_goes_to_its_sibling(stage: Stage) -> None:
    stopped = stage.bus(instance="one", options=quick(stop_timeout_seconds=0.0, claim_idle_seconds=30.0))
    begun, seen = Recorder(), Recorder()

    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        await asyncio.Event().wait()

    stopped.subscribe("candle.closed", never_end)
    await stopped.start()
    event = await stopped.publish("candle.closed", candle())
    await eventually(lambda: begun.events, what="handler at work")
    clock = ManualClock(datetime.now(UTC))  # noqa: TID251 - only the sibling's waits are made to pass
    sibling = stage.bus(instance="two", clock=clock, options=quick(claim_idle_seconds=30.0))
    sibling.subscribe("candle.closed", seen)
    await sibling.start()

    await stopped.stop()

    def one_look_later() -> bool:
        clock.advance(1.0)
        return bool(seen.events)

    await eventually(one_look_later, what="delivery to the sibling")
    assert seen.ids == [event.metadata.event_id]


async def test_tries_are_counted_across_restarts(stage: Stage) -> None:
    """An event that never lets its handler end is put aside instead of killing its consumer for ever."""
    begun, after = Recorder(), Recorder()

    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        await asyncio.Event().wait()

    options = quick(policy=policy(max_deliveries=2), stop_timeout_seconds=0.0)
    buses = []
    for restart in range(2):
        bus = stage.bus(options=options)
        buses.append(bus)
        bus.subscribe("candle.closed", never_end)
        await bus.start()
        if restart == 0:
            await bus.publish("candle.closed", candle(number=1))
            await bus.publish("candle.closed", candle(number=2))
        await eventually(lambda: len(begun.events) == len(buses), what="a try")
        await bus.stop()

    last = stage.bus(options=options)
    last.subscribe("candle.closed", after)
    await last.start()

    await settled(stage)
    (letter,) = await stage.dead_letters()
    assert b"2 tries began and none ended" in letter[b"error"]
    assert [event.payload.close for event in after.events] == [102.0], "what only waited behind it is handled"


# -- strange producers ---------------------------------------------------------------------------------------------


async def test_a_clock_that_goes_backwards_loses_nothing(stage: Stage) -> None:
    """Order and loss are told by the stream and by sequences, never by timestamps."""
    now = SystemClock().now()
    times = [now, now - timedelta(hours=1), now - timedelta(days=1), now + timedelta(hours=1)]
    publisher, bus, seen = stage.bus("ai-service", clock=BackwardClock(times)), stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    await bus.start()

    published = [(await publisher.publish("candle.closed", candle(number=n))).metadata.event_id for n in range(4)]

    await settled(stage)
    assert seen.ids == published
    assert [event.metadata.timestamp for event in seen.events] == times
    assert bus.progress().lag_seconds >= 0


class BackwardClock(SystemClock):
    """Tells the times that it was given."""

    def __init__(self, times: Sequence[datetime]) -> None:
        self._times: Iterator[datetime] = iter(times)

    def now(self) -> datetime:
        return next(self._times)


async def test_an_oversized_event_is_refused_where_it_is_published(stage: Stage) -> None:
    publisher = stage.bus("ai-service")
    oversized = candle().model_copy(update={"metadata": {"note": "y" * MAX_PAYLOAD_BYTES}})

    with pytest.raises(InvalidInputError, match=r"candle\.closed takes \d+ bytes, 1048576 are allowed"):
        await publisher.publish("candle.closed", oversized)

    after = await publisher.publish("candle.closed", candle())
    assert after.metadata.sequence == 1, "what was never placed leaves no gap"
