"""What a bus must never break, one test each: the list of the architecture, over memory, one Redis and a cluster."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import pytest
from redis.crc import key_slot

from shared.bus.dead_letters import DeadLetterBox
from shared.bus.housekeeping import HousekeepingRule
from shared.bus.trimming import TrimRule
from shared.clock import ManualClock, SystemClock
from shared.errors import InvalidInputError
from shared.events.codec import UPCASTERS, encode
from shared.events.envelope import Event, EventMetadata
from shared.events.streams import StreamNames, event_stream
from shared.telemetry.metrics import Metrics
from tests.support.bus_stage import SERVICE, MemoryStage, Recorder, RedisStage, Stage, policy, quick, settled
from tests.support.event_payloads import START, candle, execution_request, position_opened
from tests.support.eventually import eventually

STREAM = event_stream("candle.closed")
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT", "ADAUSDT", "DOGEUSDT", "LINKUSDT")


async def test_group_repair(stage: Stage) -> None:
    """A group that the broker lost is made again, and nothing is missed or handled twice."""
    bus, seen = stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    await bus.start()
    before = await bus.publish("candle.closed", candle(number=1))
    await eventually(lambda: len(seen.events) == 1, what="the first one")

    await stage.lose_group()
    after = await bus.publish("candle.closed", candle(number=2))

    await eventually(lambda: len(seen.events) == 2, what="delivery after the repair")
    await settled(stage)
    assert seen.ids == [before.metadata.event_id, after.metadata.event_id]


async def test_own_pending_entries_are_read_again_at_the_start(stage: Stage) -> None:
    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        await asyncio.Event().wait()

    crashed, begun = stage.bus(options=quick(stop_timeout_seconds=0.0)), Recorder()
    crashed.subscribe("candle.closed", never_end)
    await crashed.start()
    in_hand = await crashed.publish("candle.closed", candle())
    await eventually(lambda: begun.events, what="handler at work")
    await stage.kill(crashed)

    restarted, seen = stage.bus(), Recorder()
    restarted.subscribe("candle.closed", seen)
    await restarted.start()

    await eventually(lambda: seen.events, what="the entry again")
    assert seen.ids == [in_hand.metadata.event_id]


async def test_what_a_dead_consumer_had_is_claimed_by_another(stage: Stage) -> None:
    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        await asyncio.Event().wait()

    dying, begun = stage.bus(instance="one", options=quick(stop_timeout_seconds=0.0)), Recorder()
    dying.subscribe("candle.closed", never_end)
    await dying.start()
    in_hand = await dying.publish("candle.closed", candle())
    await eventually(lambda: begun.events, what="handler at work")
    sibling, seen = stage.bus(instance="two", options=quick(claim_idle_seconds=0.2)), Recorder()
    sibling.subscribe("candle.closed", seen)
    await sibling.start()

    await stage.kill(dying)

    await eventually(lambda: seen.events, what="delivery to the sibling")
    assert seen.ids == [in_hand.metadata.event_id]


async def test_attempts_are_counted_across_lives(stage: Stage) -> None:
    tries = 0

    async def fail(_event: Event[Any]) -> None:
        nonlocal tries
        tries += 1
        raise RuntimeError("not yet")

    options = quick(policy=policy(max_attempts=3), stop_timeout_seconds=0.0)
    first = stage.bus(options=options)
    first.subscribe("candle.closed", fail)
    await first.start()
    await first.publish("candle.closed", candle())
    await eventually(lambda: tries >= 1, what="a try")
    await first.stop()

    second = stage.bus(options=options)
    second.subscribe("candle.closed", fail)
    await second.start()

    await eventually(stage.dead_letters, what="a dead letter")
    (letter,) = await stage.dead_letters()
    assert letter[b"attempts"] == b"3"


async def test_a_delayed_retry_blocks_nobody_else(stage: Stage) -> None:
    go_on = asyncio.Event()
    handled: list[str] = []

    async def fail_for_btc(event: Event[Any]) -> None:
        if event.payload.symbol == "BTCUSDT" and not go_on.is_set():
            raise RuntimeError("not yet")
        handled.append(event.payload.symbol)

    bus = stage.bus(options=quick(policy=policy(max_attempts=1000)))
    bus.subscribe("candle.closed", fail_for_btc)
    await bus.start()
    for symbol in SYMBOLS:
        await bus.publish("candle.closed", candle(symbol))

    await eventually(lambda: len(handled) == len(SYMBOLS) - 1, what="everybody else")
    go_on.set()
    await settled(stage)
    assert handled[-1] == "BTCUSDT"


async def test_dead_letters_keep_their_raw_bytes_and_can_be_redriven(stage: Stage) -> None:
    mended = False
    handled = Recorder()

    async def refuse_until_mended(event: Event[Any]) -> None:
        if not mended:
            raise InvalidInputError("this handler has a bug")
        await handled(event)

    bus = stage.bus()
    bus.subscribe("candle.closed", refuse_until_mended)
    await bus.start()
    event = await bus.publish("candle.closed", candle())
    await eventually(stage.dead_letters, what="a dead letter")
    (letter,), (entry,) = await stage.dead_letters(), await stage.entries(STREAM)
    assert {name: letter[b"raw_" + name] for name in entry} == dict(entry)

    mended = True
    if isinstance(stage, RedisStage):
        box = DeadLetterBox(stage.connection)
        (found,) = await box.page(SERVICE, limit=10)
        await box.redrive(found)
    else:
        assert isinstance(stage, MemoryStage)
        stage.broker.redrive(SERVICE)

    await eventually(lambda: handled.events, what="handling after the redrive")
    assert handled.ids == [event.metadata.event_id]
    assert await stage.dead_letters() == []


async def test_order_per_key_with_bounded_concurrency(stage: Stage) -> None:
    at_work, most = 0, 0
    handled: dict[str, list[str]] = {}

    async def handle(event: Event[Any]) -> None:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0)
        handled.setdefault(event.payload.symbol, []).append(event.metadata.event_id)
        at_work -= 1

    bus = stage.bus(options=quick(concurrency=3))
    bus.subscribe("candle.closed", handle)
    await bus.start()
    published: dict[str, list[str]] = {}
    for number in range(10):
        for symbol in SYMBOLS:
            event = await bus.publish("candle.closed", candle(symbol, number))
            published.setdefault(symbol, []).append(event.metadata.event_id)

    await settled(stage)
    assert handled == published
    assert most <= 3


async def test_wildcards(stage: Stage) -> None:
    bus, positions, everything = stage.bus(), Recorder(), Recorder()
    bus.subscribe("position.*", positions)
    bus.subscribe("*", everything)
    await bus.start()

    await bus.publish("candle.closed", candle())
    await bus.publish("position.opened", position_opened())

    await settled(stage)
    assert positions.types == ["position.opened"]
    assert sorted(everything.types) == ["candle.closed", "position.opened"]


async def test_trimming_drops_nothing_that_a_group_has_not_settled(stage: Stage) -> None:
    """Redis trims whole nodes of a hundred entries, so there must be some hundreds of them."""
    let_go = asyncio.Event()
    slow, fast, slowly = stage.bus("exec-risk-service"), stage.bus("analytics-os-service"), Recorder()

    async def wait(event: Event[Any]) -> None:
        await let_go.wait()
        await slowly(event)

    rule = HousekeepingRule(trim=TrimRule(target=50, hard_cap=100))
    publisher = stage.bus("ai-service", housekeeping=rule)
    slow.subscribe("candle.closed", wait)
    fast.subscribe("candle.closed", Recorder())
    await slow.start()
    await fast.start()
    publishing = [publisher.publish("candle.closed", candle(number=number)) for number in range(600)]
    published = [event.metadata.event_id for event in await asyncio.gather(*publishing)]

    await publisher.tidy()

    assert len(await stage.entries(STREAM)) == 600, "one group has settled nothing yet"
    (alarm,) = await stage.entries(event_stream("system.alert"))
    assert "exec-risk-service" in orjson.loads(alarm[b"payload"])["message"]

    let_go.set()
    await settled(stage)
    await publisher.tidy()
    assert slowly.ids == published
    assert 50 <= len(await stage.entries(STREAM)) < 200
    assert len(await stage.entries(event_stream("system.alert"))) == 1, "one cause, one alarm"


async def test_a_gap_in_the_sequence_is_found(stage: Stage) -> None:
    """Whoever gets everything can tell that something never came."""
    clock = SystemClock()
    metrics = Metrics("analytics-os-service", clock)
    ticking = ManualClock(clock.now())
    bus = stage.bus("analytics-os-service", clock=ticking, metrics=metrics)
    seen = Recorder()
    bus.subscribe("*", seen)
    await bus.start()

    for sequence in (1, 2, 5):
        metadata = EventMetadata(f"id-{sequence}", "candle.closed", "trace", None, START, "ai-service", sequence)
        fields = {name.encode(): value for name, value in encode(Event(metadata, candle(number=sequence))).items()}
        await stage.append_raw(STREAM, {**fields, b"producer": b"ai-service:one:life"})
    await eventually(lambda: len(seen.events) == 3, what="what there is")

    async def reported() -> bool:
        ticking.advance(11.0)
        await bus.tidy()
        return bool(await stage.entries(event_stream("system.alert")))

    await eventually(reported, what="an alarm")
    (alarm,) = await stage.entries(event_stream("system.alert"))
    assert "2 events of ai-service:one:life never arrived, sequences 3 to 4" in alarm[b"payload"].decode()
    assert metrics.registry.get_sample_value("events_missing_total", {"service": "analytics-os-service"}) == 2


async def test_an_event_that_comes_twice_is_handled_once(stage: Stage) -> None:
    """Its producer lost the answer and published it again, under the same event id."""
    bus, seen = stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    await bus.start()

    for _ in range(3):
        await bus.publish("candle.closed", candle(), event_id="11111111-1111-4111-8111-111111111111")

    await settled(stage)
    assert seen.ids == ["11111111-1111-4111-8111-111111111111"]


async def test_late_commands_are_refused_and_late_facts_are_not(stage: Stage) -> None:
    publishing = ManualClock(SystemClock().now() - timedelta(hours=1))
    publisher = stage.bus("ai-service", clock=publishing)
    await publisher.publish("execution.request", execution_request())
    fact = await publisher.publish("candle.closed", candle())
    bus, seen, refused = stage.bus(), Recorder(), Recorder()
    bus.subscribe("*", seen)
    bus.on_expired(refused)

    await bus.start()

    await settled(stage)
    assert seen.ids == [fact.metadata.event_id]
    assert refused.types == ["execution.request"]


async def test_a_graceful_stop_leaves_nothing_half_settled(stage: Stage) -> None:
    """What was begun is finished and settled; what was not begun is there for the next one, untouched."""
    finish, begun, finished = asyncio.Event(), Recorder(), Recorder()

    async def handle(event: Event[Any]) -> None:
        await begun(event)
        await finish.wait()
        await finished(event)

    bus = stage.bus(options=quick(concurrency=2))
    bus.subscribe("candle.closed", handle)
    await bus.start()
    events = [await bus.publish("candle.closed", candle(symbol)) for symbol in SYMBOLS]
    await eventually(lambda: len(begun.events) == 2, what="two at work")

    stopping = asyncio.create_task(bus.stop())
    await asyncio.sleep(0)
    finish.set()
    await stopping

    assert finished.ids == begun.ids
    successor, rest = stage.bus(), Recorder()
    successor.subscribe("candle.closed", rest)
    await successor.start()
    await settled(stage)
    assert sorted(begun.ids + rest.ids) == sorted(event.metadata.event_id for event in events)


async def test_an_older_schema_version_is_lifted_beside_the_current_one(stage: Stage) -> None:
    def from_version_2(_event_type: str, payload: dict[str, Any]) -> dict[str, Any]:
        return {**payload, "symbol": payload["pair"].replace("/", "")}

    bus, seen = stage.bus(options=quick(upcasters={**UPCASTERS, "2.0": from_version_2})), Recorder()
    bus.subscribe("candle.closed", seen)
    current = encode(Event(EventMetadata("new", "candle.closed", "t", None, START, "x", 1), candle()))
    payload = orjson.loads(current["payload"])
    payload["pair"] = "ETH/USDT"
    del payload["symbol"]
    old_metadata = {**orjson.loads(current["metadata"]), "event_id": "old", "version": "2.0"}
    await bus.start()
    await stage.append_raw(STREAM, {b"metadata": orjson.dumps(old_metadata), b"payload": orjson.dumps(payload)})
    await stage.append_raw(STREAM, {name.encode(): value for name, value in current.items()})
    await eventually(lambda: len(seen.events) == 2, what="both")

    by_id = {event.metadata.event_id: event for event in seen.events}
    assert by_id["old"].payload.symbol == "ETHUSDT"
    assert by_id["old"].metadata.version == by_id["new"].metadata.version == "3.0"


@pytest.mark.parametrize("by", ["id", "time"])
async def test_events_are_replayed_from_an_id_or_a_time(stage: Stage, by: str) -> None:
    clock = ManualClock(SystemClock().now())
    publisher = stage.bus("ai-service", clock=clock)
    events = []
    for number in range(4):
        events.append(await publisher.publish("candle.closed", candle(number=number)))
        if number == 1 and isinstance(stage, MemoryStage):
            clock.advance(60.0)
            await asyncio.sleep(0)
    listed = [entry async for entry in publisher.history("candle.closed", since="0")]
    assert [event.metadata.event_id for event in listed] == [event.metadata.event_id for event in events]
    bus, seen = stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    await bus.start()
    await settled(stage)
    await bus.stop()

    since = await _third(stage) if by == "id" else events[0].metadata.timestamp - timedelta(seconds=1)
    await publisher.rewind("candle.closed", to=since, service=SERVICE)

    again, replayed = stage.bus(), Recorder()
    again.subscribe("candle.closed", replayed)
    await again.start()
    await settled(stage)
    expected = events[2:] if by == "id" else events
    assert replayed.ids == [event.metadata.event_id for event in expected]


async def _third(stage: Stage) -> str:
    """Return the entry id of the third candle."""
    if isinstance(stage, MemoryStage):
        return "3"
    assert isinstance(stage, RedisStage)
    return await stage.entry_id(STREAM, 2)


async def test_two_partitions_of_one_type_lie_on_different_masters() -> None:
    """Redis hashes what stands in braces, so the slots follow from the names alone: three masters, a third each."""
    masters = {key_slot(stream.encode()) * 3 // 16384 for stream in StreamNames(8).streams("signal.generated")}

    assert masters == {0, 1, 2}
