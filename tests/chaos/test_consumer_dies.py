"""A consumer is killed in the middle of a batch: some effects had, nothing acknowledged."""

from __future__ import annotations

from infrastructure.embedded.redis_server import EmbeddedRedis
from tests.support.chaos_books import ALL_IS_WELL
from tests.support.chaos_events import symbols
from tests.support.chaos_programs import ConsumerProgram, Crew, PublisherProgram, findings, tell
from tests.support.chaos_redis import RedisView
from tests.support.eventually import eventually

TYPES = ("order.updated",)
KEYS = 20
LAST = 50
#: Events that had their effect, one of every second symbol, when their consumer died.
HAD = KEYS // 2


async def die_mid_batch(crew: Crew, server: EmbeddedRedis, view: RedisView) -> tuple[PublisherProgram, ConsumerProgram]:
    """Return a publisher that is done, and the consumer that died with half a batch of effects."""
    publisher = crew.publisher(server.url, event_types=TYPES, keys=symbols(KEYS), last=LAST)
    victim = crew.consumer(server.url, instance="victim", patterns=TYPES, behaviour="stall", claim_idle_seconds=1.0)
    await victim.start()
    publisher.launch()
    # The first event of every lane is in a handler that does not return, half of them with their effect had.
    await victim.has_had(HAD)
    await publisher.finished()
    await eventually(lambda: has_pending(view, victim), what="a batch in hand")
    await victim.kill()
    assert victim.effects.count() == HAD
    return publisher, victim


async def has_pending(view: RedisView, consumer: ConsumerProgram) -> bool:
    return (await view.group(consumer.order.service)).pending > HAD


async def assert_all_is_handled(
    view: RedisView, publisher: PublisherProgram, heir: ConsumerProgram, how: str, *, in_order: bool
) -> None:
    state = await view.is_settled(heir.order.service)
    await heir.stop()
    found = findings([publisher], heir)
    assert (found.missing, found.doubled) == ((), ())
    if in_order:
        assert found == ALL_IS_WELL
    assert heir.effects.count() == KEYS * LAST
    assert heir.effects.count("repeats") == HAD
    assert state.dead_letters == 0
    tell(
        f"A consumer killed with {HAD} effects had and none acknowledged, {how}: {KEYS * LAST} published, "
        f"{heir.effects.count()} effects, {heir.effects.had_by(heir.pid)} of them by the heir, "
        f"{heir.effects.count('repeats')} repeated deliveries recognised"
    )


async def test_it_is_restarted(crew: Crew, server: EmbeddedRedis, view: RedisView) -> None:
    publisher, victim = await die_mid_batch(crew, server, view)

    reborn = crew.consumer(server.url, instance=victim.order.instance, patterns=TYPES)
    await reborn.start()

    await assert_all_is_handled(view, publisher, reborn, "restarted", in_order=True)


async def test_it_stays_away_and_a_replica_takes_over(crew: Crew, server: EmbeddedRedis, view: RedisView) -> None:
    publisher, _ = await die_mid_batch(crew, server, view)

    replica = crew.consumer(server.url, instance="replica", patterns=TYPES, claim_idle_seconds=1.0)
    await replica.start()

    # Without a cluster's leases replicas share entries without regard to the key, so order is not promised here.
    await assert_all_is_handled(view, publisher, replica, "taken over by a replica", in_order=False)
