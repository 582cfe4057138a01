"""Redis does not die but stands still: connections stay open, and nothing answers."""

from __future__ import annotations

import asyncio

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.chaos_books import ALL_IS_WELL
from tests.support.chaos_events import symbols
from tests.support.chaos_programs import ConsumerProgram, Crew, PublisherProgram, findings, tell
from tests.support.chaos_redis import RedisView, freeze_server, thaw_server

TYPES = ("order.updated", "candle.closed")

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


async def start_load(crew: Crew, url: str) -> tuple[PublisherProgram, ConsumerProgram]:
    publisher = crew.publisher(url, event_types=TYPES, keys=symbols(10), last=400, per_second=40.0)
    consumer = crew.consumer(url, patterns=TYPES)
    await consumer.start()
    publisher.launch()
    await publisher.has_told(publisher.order.total // 4)
    return publisher, consumer


async def assert_nothing_lost_or_doubled(
    view: RedisView, publisher: PublisherProgram, consumer: ConsumerProgram, what: str
) -> None:
    status = await publisher.finished()
    state = await view.is_settled(consumer.order.service)
    await consumer.stop()
    assert findings([publisher], consumer) == ALL_IS_WELL
    assert consumer.effects.count() == publisher.order.total
    assert state.dead_letters == 0
    assert status.refusals == 0
    tell(
        f"{what}: {publisher.order.total} published, {consumer.effects.count()} effects, "
        f"{consumer.effects.count('repeats')} repeated deliveries recognised, up to {status.buffered_most} in the "
        f"disk buffer, longest publish {status.longest_publish_seconds:.2f} s"
    )


async def test_a_short_hang_is_sat_out(crew: Crew, server: EmbeddedRedis, view: RedisView) -> None:
    publisher, consumer = await start_load(crew, server.url)

    freeze_server(server)
    await asyncio.sleep(5.0)  # what is tested is a hang of this length
    thaw_server(server)

    await assert_nothing_lost_or_doubled(view, publisher, consumer, "Redis hung for 5 s")


async def test_a_hang_that_outlasts_the_patience_of_publishers(
    crew: Crew, server: EmbeddedRedis, view: RedisView
) -> None:
    """What was sent into the hang is carried out when it ends, and was put into the buffer as well: a doubled entry."""
    publisher, consumer = await start_load(crew, server.url)

    freeze_server(server)
    await publisher.until(lambda: publisher.status().buffered > 0, "events in the buffer")
    await publisher.goes_on()
    thaw_server(server)

    await assert_nothing_lost_or_doubled(view, publisher, consumer, "Redis hung until publishers gave up on it")
