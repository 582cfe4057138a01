"""The bus when Redis misbehaves: lost groups, lost data, restarts, dead and slow consumers, lost answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.bus.redis_streams import RedisSource, RedisStreamsBus
from shared.clock import SystemClock
from shared.errors import ConnectionLostError, InvalidInputError
from shared.events.codec import encode
from shared.events.envelope import Event, EventMetadata
from shared.events.streams import event_stream
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from tests.support.bus_stage import SERVICE, Recorder, RedisStage, policy, quick
from tests.support.event_payloads import START, candle, position_opened
from tests.support.eventually import eventually
from tests.support.reply_thief import ReplyThief


class DelayRecorder(SystemClock):
    """Remembers how long it was asked to wait, and does not."""

    def __init__(self) -> None:
        self.delays: list[float] = []

    async def sleep(self, seconds: float) -> None:
        if seconds >= 1.0:  # housekeeping, which has time
            await asyncio.Event().wait()
        self.delays.append(seconds)
        await asyncio.sleep(0)


STREAM = event_stream("candle.closed")
#: Never refreshes what it has in hand, and ends at once when the test does.
DEAD = quick(claim_idle_seconds=None, stop_timeout_seconds=0.0)


@pytest.fixture
async def stage(redis_url: str) -> AsyncIterator[RedisStage]:
    stage = RedisStage(redis_url)
    await stage.open()
    yield stage
    await stage.close()


@pytest.fixture
async def server(server_folder: Path, tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A Redis that the test may stop and start."""
    server = EmbeddedRedis(server_folder / tmp_path.name)
    await server.start()
    yield server
    await server.stop()


async def no_cursors() -> dict[str, str]:
    return {}


async def is_settled(stage: RedisStage) -> bool:
    return await stage.unsettled() == 0


# -- lost groups and data ------------------------------------------------------------------------------------------


async def test_a_destroyed_group_is_made_again_and_nothing_is_missed(stage: RedisStage) -> None:
    bus, seen = stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    await bus.start()
    before = await bus.publish("candle.closed", candle(number=1))
    await eventually(lambda: seen.events, what="first delivery")

    await stage.redis.execute_command("XGROUP", "DESTROY", STREAM, SERVICE)
    meanwhile = await bus.publish("candle.closed", candle(number=2))

    await eventually(lambda: meanwhile.metadata.event_id in seen.ids, what="delivery after the repair")
    # The new group begins at 0: what was handled comes a second time, which handlers must bear.
    assert set(seen.ids) == {before.metadata.event_id, meanwhile.metadata.event_id}


async def test_what_is_in_hand_is_not_taken_twice_after_the_repair(stage: RedisStage) -> None:
    bus, begun, finish = stage.bus(), Recorder(), asyncio.Event()

    async def hold_btc(event: Event[Any]) -> None:
        await begun(event)
        if event.payload.symbol == "BTCUSDT":
            await finish.wait()

    bus.subscribe("candle.closed", hold_btc)
    await bus.start()
    in_hand = await bus.publish("candle.closed", candle("BTCUSDT"))
    await eventually(lambda: begun.events, what="handler at work")

    await stage.redis.execute_command("XGROUP", "DESTROY", STREAM, SERVICE)
    later = await bus.publish("candle.closed", candle("ETHUSDT"))
    await eventually(lambda: later.metadata.event_id in begun.ids, what="delivery after the repair")
    finish.set()

    await eventually(lambda: is_settled(stage), what="everything settled")
    assert begun.ids.count(in_hand.metadata.event_id) == 1


async def test_a_flushed_server_is_set_up_again(stage: RedisStage) -> None:
    bus, seen = stage.bus(), Recorder()
    bus.subscribe("candle.closed", seen)
    bus.subscribe("position.*", seen)
    await bus.start()
    await bus.publish("candle.closed", candle(number=1))
    await eventually(lambda: seen.events, what="first delivery")

    await stage.redis.flushdb()
    events = [
        await bus.publish("candle.closed", candle(number=2)),
        await bus.publish("position.opened", position_opened()),
    ]

    await eventually(lambda: len(seen.events) == 3, what="delivery after the repair")
    assert set(seen.ids[1:]) == {event.metadata.event_id for event in events}


async def test_a_reader_that_keeps_failing_waits_longer_and_longer(stage: RedisStage) -> None:
    clock = DelayRecorder()
    bus = stage.bus(clock=clock)
    bus.subscribe("candle.closed", Recorder())
    await bus.start()

    # A value of another type: neither reading nor making the group again can work.
    await stage.redis.delete(STREAM)
    await stage.redis.set(STREAM, "no stream")

    await eventually(lambda: len(clock.delays) >= 6, what="six failed reads")
    assert clock.delays[:6] == [0.01, 0.02, 0.04, 0.08, 0.1, 0.1]


async def test_an_entry_that_was_trimmed_while_pending_does_not_stop_its_successors(stage: RedisStage) -> None:
    crashed, successor, seen = stage.bus(options=quick(stop_timeout_seconds=0.0)), stage.bus(), Recorder()

    async def never_end(_event: Event[Any]) -> None:
        await asyncio.Event().wait()

    crashed.subscribe("candle.closed", never_end)
    successor.subscribe("candle.closed", seen)
    await crashed.start()
    await crashed.publish("candle.closed", candle(number=1))
    kept = await crashed.publish("candle.closed", candle(number=2))
    await eventually(lambda: crashed.progress().pending == 2, what="both in hand")
    await crashed.stop()
    await stage.redis.xtrim(STREAM, maxlen=1, approximate=False)

    await successor.start()

    await eventually(lambda: is_settled(stage), what="everything settled")
    assert seen.ids == [kept.metadata.event_id]


async def test_events_of_one_read_come_in_the_order_in_which_redis_took_them(stage: RedisStage) -> None:
    bus, seen = stage.bus(), Recorder()
    alternating = [("position.opened", position_opened()), ("candle.closed", candle())] * 3
    for milliseconds, (event_type, payload) in enumerate(alternating, start=1):
        metadata = EventMetadata(str(milliseconds), event_type, "trace", None, START, "test", milliseconds)
        await stage.redis.xadd(event_stream(event_type), encode(Event(metadata, payload)), id=f"{milliseconds}-0")
    bus.subscribe("candle.closed", seen)
    bus.subscribe("position.*", seen)

    await bus.start()

    await eventually(lambda: len(seen.events) == 6, what="delivery")
    assert seen.ids == ["1", "2", "3", "4", "5", "6"]


# -- dead and slow consumers ---------------------------------------------------------------------------------------


async def test_what_a_dead_consumer_had_in_hand_is_taken_over_by_a_living_one(stage: RedisStage) -> None:
    dead, begun, seen = stage.bus(instance="dead", options=DEAD), Recorder(), Recorder()

    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        await asyncio.Event().wait()

    dead.subscribe("candle.closed", never_end)
    await dead.start()
    event = await dead.publish("candle.closed", candle())
    await eventually(lambda: begun.events, what="handler at work")
    living = stage.bus(instance="living", options=quick(claim_idle_seconds=0.1))
    living.subscribe("candle.closed", seen)

    await living.start()

    await eventually(lambda: seen.events, what="take-over")
    await eventually(lambda: is_settled(stage), what="everything settled")
    assert seen.ids == [event.metadata.event_id]


async def test_what_a_slow_consumer_works_on_stays_fresh(stage: RedisStage) -> None:
    bus, begun, finish = stage.bus(options=quick(claim_idle_seconds=0.2)), Recorder(), asyncio.Event()
    idle_times: list[int] = []

    async def work_for_long(event: Event[Any]) -> None:
        await begun(event)
        await finish.wait()

    async def was_refreshed_often() -> bool:
        (pending,) = await stage.redis.xpending_range(STREAM, SERVICE, "-", "+", 10)
        idle_times.append(pending["time_since_delivered"])
        assert pending["times_delivered"] == 1, "holding on is no further try"
        return sum(later < earlier for earlier, later in pairwise(idle_times)) >= 3

    bus.subscribe("candle.closed", work_for_long)
    await bus.start()
    event = await bus.publish("candle.closed", candle())
    await eventually(lambda: begun.events, what="handler at work")

    await eventually(was_refreshed_often)

    finish.set()
    await eventually(lambda: is_settled(stage), what="everything settled")
    assert begun.ids == [event.metadata.event_id]


async def test_what_a_living_consumer_keeps_fresh_is_not_taken(stage: RedisStage) -> None:
    living, begun = stage.bus(instance="living", options=DEAD), Recorder()

    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        await asyncio.Event().wait()

    living.subscribe("candle.closed", never_end)
    await living.start()
    await living.publish("candle.closed", candle())
    await eventually(lambda: begun.events, what="handler at work")
    transport = RedisSource(stage.connection, service=SERVICE, instance="taker", idle_seconds=60, cursors=no_cursors)
    await transport.open([STREAM])

    assert await transport.reclaim(idle_seconds=60, skip=()) == []
    assert await transport.reclaim(idle_seconds=None, skip=()) == []
    (entry,) = await transport.reclaim(idle_seconds=0, skip=())
    assert entry.attempt == 2
    assert await transport.reclaim(idle_seconds=0, skip=[entry.key]) == []


async def test_a_try_of_a_dead_consumer_counts(stage: RedisStage) -> None:
    dead, begun = stage.bus(instance="dead", options=DEAD), Recorder()

    async def never_end(event: Event[Any]) -> None:
        await begun(event)
        await asyncio.Event().wait()

    async def fail(_event: Event[Any]) -> None:
        raise ValueError("no")

    dead.subscribe("candle.closed", never_end)
    await dead.start()
    await dead.publish("candle.closed", candle())
    await eventually(lambda: begun.events, what="handler at work")
    living = stage.bus(instance="living", options=quick(policy=policy(max_attempts=2), claim_idle_seconds=0.1))
    living.subscribe("candle.closed", fail)

    await living.start()

    await eventually(lambda: is_settled(stage), what="everything settled")
    (letter,) = await stage.dead_letters()
    assert letter[b"attempts"] == b"2"


# -- restarts and lost answers -------------------------------------------------------------------------------------


async def test_a_restart_of_the_server_is_survived(server: EmbeddedRedis) -> None:
    stage, seen = RedisStage(server.url), Recorder()
    try:
        bus = stage.bus()
        bus.subscribe("candle.closed", seen)
        await bus.start()
        before = await bus.publish("candle.closed", candle(number=1))
        await eventually(lambda: seen.events, what="first delivery")

        await server.stop()
        with pytest.raises(ConnectionLostError):
            await bus.publish("candle.closed", candle(number=2))
        await server.start()
        after = await bus.publish("candle.closed", candle(number=2))

        await eventually(lambda: after.metadata.event_id in seen.ids, what="delivery after the restart")
        assert after.metadata.sequence == before.metadata.sequence + 1
        await eventually(lambda: is_settled(stage), what="everything settled")
    finally:
        await stage.close()


async def test_what_was_finished_while_the_server_was_away_is_settled_later(server: EmbeddedRedis) -> None:
    stage, begun, finish = RedisStage(server.url), Recorder(), asyncio.Event()

    async def work(event: Event[Any]) -> None:
        await begun(event)
        await finish.wait()
        if event.payload.symbol == "ETHUSDT":
            raise InvalidInputError("never right")

    try:
        bus = stage.bus()
        bus.subscribe("candle.closed", work)
        await bus.start()
        await bus.publish("candle.closed", candle("BTCUSDT"))
        await bus.publish("candle.closed", candle("ETHUSDT"))
        await eventually(lambda: len(begun.events) == 2, what="handlers at work")

        await server.stop()
        finish.set()
        await server.start()

        await eventually(lambda: is_settled(stage), what="everything settled")
        assert len(begun.events) == 2
        assert len(await stage.dead_letters()) == 1
    finally:
        await stage.close()


@pytest.fixture
async def thief(server: EmbeddedRedis) -> AsyncIterator[ReplyThief]:
    """A proxy before the server."""
    address = urlsplit(server.url)
    assert address.hostname is not None
    assert address.port is not None
    thief = ReplyThief(address.hostname, address.port)
    await thief.start()
    yield thief
    await thief.stop()


@pytest.fixture
async def robbed_bus(server: EmbeddedRedis, thief: ReplyThief) -> AsyncIterator[RedisStreamsBus]:
    """A bus whose answers pass by the thief."""
    url = f"redis://:{urlsplit(server.url).password}@127.0.0.1:{thief.port}/0"
    clock = SystemClock()
    connection = RedisConnection(url, clock=clock)
    bus = RedisStreamsBus(
        connection, service=SERVICE, instance="one", clock=clock, ids=RandomIds(), market_clock=clock, options=quick()
    )
    yield bus
    await bus.stop()
    await connection.stop()


async def test_a_publish_whose_answer_is_lost_is_not_repeated(
    server: EmbeddedRedis, thief: ReplyThief, robbed_bus: RedisStreamsBus
) -> None:
    stage = RedisStage(server.url)
    await robbed_bus.publish("candle.closed", candle(number=1))

    thief.steal_next()
    with pytest.raises(ConnectionLostError):
        await robbed_bus.publish("candle.closed", candle(number=2))

    assert thief.stolen == 1
    assert len(await stage.entries(STREAM)) == 2
    await stage.close()


async def test_events_of_a_read_whose_answer_is_lost_are_delivered(
    server: EmbeddedRedis, thief: ReplyThief, robbed_bus: RedisStreamsBus
) -> None:
    stage, seen = RedisStage(server.url), Recorder()
    robbed_bus.subscribe("candle.closed", seen)
    await robbed_bus.start()
    await eventually(lambda: _is_reading(stage), what="a blocked read")

    # Redis hands the event to the consumer, who never hears of it: it is pending under his name.
    thief.steal_next()
    event = await stage.bus("ai-service").publish("candle.closed", candle())

    await eventually(lambda: is_settled(stage), what="everything settled")
    assert thief.stolen == 1
    assert seen.ids == [event.metadata.event_id]
    await stage.close()


async def _is_reading(stage: RedisStage) -> bool:
    return bool((await stage.redis.info("clients"))["blocked_clients"])
