"""Redis is killed and restarted while events flow, and a consumer with it: nothing is lost, doubled or overtaken."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.chaos_books import ALL_IS_WELL
from tests.support.chaos_events import symbols
from tests.support.chaos_programs import Crew, findings, tell
from tests.support.chaos_redis import RedisView, is_gone, kill_server

#: Two ranks of the disk buffer, and both keyed by symbol.
TYPES = ("order.updated", "candle.closed")


@dataclass(frozen=True, slots=True)
class Size:
    """How much happens.

    Attributes:
        keys: Symbols; twice as many lanes.
        last: Events per lane.
        per_second: Events per second and lane.
        deaths: How often Redis is killed.
    """

    keys: int
    last: int
    per_second: float
    deaths: int


SMALL = Size(keys=5, last=300, per_second=150.0, deaths=1)
FULL = Size(keys=10, last=1000, per_second=100.0, deaths=3)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(SMALL, id="3000 events, 1 death"),
        pytest.param(FULL, id="20000 events, 3 deaths", marks=[pytest.mark.long, pytest.mark.timeout(400)]),
    ],
)
async def test_redis_dies_and_a_consumer_dies(crew: Crew, server: EmbeddedRedis, view: RedisView, size: Size) -> None:
    publisher = crew.publisher(
        server.url, event_types=TYPES, keys=symbols(size.keys), last=size.last, per_second=size.per_second
    )
    # Handlers take a while, so that there is always something in hand when the worst comes.
    killed = crew.consumer(server.url, "exec-risk-service", patterns=TYPES, work_seconds=0.005)
    spared = crew.consumer(server.url, "analytics-os-service", patterns=TYPES)
    total = publisher.order.total
    await killed.start()
    await spared.start()
    publisher.launch()

    for death in range(size.deaths):
        await publisher.has_told((2 * death + 1) * total // (2 * size.deaths + 2))
        kill_server(server)
        await is_gone(server)
        await publisher.goes_on()
        if death == 0:  # it has had effects that it cannot acknowledge
            await killed.kill()
        await server.start()
        if death == 0:
            await killed.start()

    status = await publisher.finished()
    states = [await view.is_settled(consumer.order.service) for consumer in (killed, spared)]
    for consumer in (killed, spared):
        await consumer.stop()
        assert findings([publisher], consumer) == ALL_IS_WELL
        assert consumer.effects.count() == publisher.ledger.count() == total
    assert [state.dead_letters for state in states] == [0, 0]
    assert killed.effects.count("repeats") > 0
    assert status.buffered_most > 0
    assert status.refusals == 0
    tell(
        f"Redis killed {size.deaths} times, a consumer once: {total} published, {killed.effects.count()} effects, "
        f"{killed.effects.count('repeats')} repeated deliveries recognised by the inbox, "
        f"up to {status.buffered_most} in the disk buffer, longest publish {status.longest_publish_seconds:.2f} s"
    )


@pytest.mark.long
async def test_redis_comes_back_empty(crew: Crew, server: EmbeddedRedis, view: RedisView) -> None:
    """Its file is gone as well; publishers still have what they published lately."""
    publisher = crew.publisher(server.url, event_types=TYPES, keys=symbols(5), last=300, per_second=100.0)
    early = crew.consumer(server.url, "analytics-os-service", patterns=TYPES)
    late = crew.consumer(server.url, "exec-risk-service", patterns=TYPES)
    await early.start()
    publisher.launch()
    await publisher.has_told(publisher.order.total // 2)

    kill_server(server)
    await is_gone(server)
    for file in (server.folder / "data").glob("appendonly*"):
        file.unlink()
    await publisher.goes_on()
    await server.start()
    await late.start()

    await publisher.finished()
    for consumer in (early, late):
        await view.is_settled(consumer.order.service)
        await consumer.stop()
        assert findings([publisher], consumer) == ALL_IS_WELL
        assert consumer.effects.count() == publisher.order.total
    tell(
        f"Redis came back empty after {publisher.order.total // 2} events: {publisher.order.total} published, "
        f"{early.effects.count()} + {late.effects.count()} effects"
    )
