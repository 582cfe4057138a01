"""A publisher is killed while Redis is away: what it was told is published waits on its disk for the next life."""

from __future__ import annotations

from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.chaos_books import ALL_IS_WELL
from tests.support.chaos_events import symbols
from tests.support.chaos_programs import Crew, findings, tell
from tests.support.chaos_redis import RedisView, is_gone, kill_server

TYPES = ("order.updated", "candle.closed")


async def test_what_waits_on_disk_survives_the_publisher(crew: Crew, server: EmbeddedRedis, view: RedisView) -> None:
    publisher = crew.publisher(server.url, event_types=TYPES, keys=symbols(5), last=300, per_second=150.0)
    consumer = crew.consumer(server.url, patterns=TYPES)
    await consumer.start()
    publisher.launch()
    await publisher.has_told(publisher.order.total // 4)

    kill_server(server)
    await is_gone(server)
    await publisher.until(lambda: publisher.status().buffered > 0, "events on disk")
    await publisher.goes_on(500)
    await publisher.kill()
    told = publisher.ledger.count()
    await server.start()
    publisher.launch()

    await publisher.finished()
    state = await view.is_settled(consumer.order.service)
    await consumer.stop()
    assert findings([publisher], consumer) == ALL_IS_WELL
    assert consumer.effects.count() == publisher.ledger.count() == publisher.order.total
    assert state.dead_letters == 0
    tell(
        f"Publisher killed while Redis was away, {told} events told as published: {publisher.order.total} published in "
        f"two lives, {consumer.effects.count()} effects"
    )
