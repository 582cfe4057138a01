"""On a real cluster: replicas of a service die or stand still, a master dies; each symbol keeps its order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.support.chaos_books import ALL_IS_WELL
from tests.support.chaos_events import symbols
from tests.support.chaos_programs import ConsumerProgram, Crew, PublisherProgram, findings, tell
from tests.support.chaos_redis import (
    RedisView,
    cut_replication,
    is_gone,
    is_master,
    kill_server,
    replicated_ids,
    replicates,
)
from tests.support.eventually import eventually
from tests.support.redis_cluster import RedisClusterServers

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

TYPES = ("order.updated", "candle.closed")
#: More lanes than handlers that may run at once, so that there is always something in hand that has not begun.
KEYS = 40
LAST = 150
LEASE_SECONDS = 1.0


@pytest.fixture
async def cluster_view(redis_cluster: RedisClusterServers) -> AsyncIterator[RedisView]:
    view = RedisView(*(master.url for master in redis_cluster.masters))
    yield view
    await view.close()


@pytest.fixture
def publisher(crew: Crew, redis_cluster_url: str) -> PublisherProgram:
    return crew.publisher(redis_cluster_url, event_types=TYPES, keys=symbols(KEYS), last=LAST, per_second=25.0)


@pytest.fixture
async def replicas(crew: Crew, redis_cluster_url: str) -> Sequence[ConsumerProgram]:
    """Two replicas of one service, each with its share of the partitions."""
    replicas = [
        crew.consumer(
            redis_cluster_url, instance=name, patterns=TYPES, work_seconds=0.01, claim_idle_seconds=LEASE_SECONDS
        )
        for name in ("one", "two")
    ]
    for replica in replicas:
        await replica.start()
    return replicas


async def assert_all_is_handled_in_order(
    view: RedisView, publisher: PublisherProgram, replicas: Sequence[ConsumerProgram], what: str
) -> None:
    await publisher.finished()
    await replicas[0].has_had(publisher.order.total)
    state = await view.is_settled(replicas[0].order.service)
    for replica in replicas:
        if replica.running:
            await replica.stop()
    assert findings([publisher], replicas[0]) == ALL_IS_WELL
    assert replicas[0].effects.count() == publisher.order.total
    assert state.dead_letters == 0
    shares = [replica.effects.had_by(replica.pid) for replica in replicas]
    assert min(shares) > 0
    tell(
        f"{what}: {publisher.order.total} published, {replicas[0].effects.count()} effects "
        f"({' + '.join(map(str, shares))} by each replica), {replicas[0].effects.count('repeats')} repeated "
        f"deliveries recognised, every symbol in order"
    )


async def test_a_replica_dies(
    cluster_view: RedisView, publisher: PublisherProgram, replicas: Sequence[ConsumerProgram]
) -> None:
    publisher.launch()
    await replicas[0].has_had(publisher.order.total // 3)

    await replicas[0].kill()

    await assert_all_is_handled_in_order(cluster_view, publisher, replicas, "A replica of a service killed")


async def test_a_replica_stands_still_for_longer_than_its_lease(
    cluster_view: RedisView, publisher: PublisherProgram, replicas: Sequence[ConsumerProgram]
) -> None:
    publisher.launch()
    await replicas[0].has_had(publisher.order.total // 3)

    frozen, other = replicas
    frozen.freeze()
    at_the_freeze = publisher.ledger.count()
    before = other.effects.had_by(other.pid)
    # All partitions are the other's: it has handled more than its half of what came since.
    await publisher.until(
        lambda: other.effects.had_by(other.pid) - before > 0.75 * max(600, publisher.ledger.count() - at_the_freeze),
        "the other replica doing all the work",
    )
    frozen.thaw()

    await assert_all_is_handled_in_order(cluster_view, publisher, replicas, "A replica of a service frozen and thawed")


async def test_the_only_replica_stands_still_for_longer_than_its_lease(
    crew: Crew, redis_cluster_url: str, cluster_view: RedisView, publisher: PublisherProgram
) -> None:
    """It gets its own partitions again, and must not let what it had in hand overtake what it had dropped."""
    lonely = crew.consumer(redis_cluster_url, patterns=TYPES, work_seconds=0.01, claim_idle_seconds=LEASE_SECONDS)
    await lonely.start()
    publisher.launch()

    for share in (3, 2):
        await lonely.has_had(publisher.order.total // share)
        lonely.freeze()
        await publisher.goes_on(int(3 * LEASE_SECONDS * 25.0 * KEYS))
        lonely.thaw()

    await assert_all_is_handled_in_order(cluster_view, publisher, [lonely], "The only replica frozen twice")


@pytest.fixture
async def mortal(server_folder: Path, tmp_path: Path) -> AsyncIterator[RedisClusterServers]:
    """A cluster of this test alone, whose masters have a replica each."""
    servers = RedisClusterServers(server_folder / tmp_path.name, replicas=3, node_timeout_ms=1500)
    await servers.start()
    yield servers
    await servers.stop()


async def test_a_master_dies_and_what_replication_lost_is_published_again(
    crew: Crew, mortal: RedisClusterServers
) -> None:
    publisher = crew.publisher(mortal.url, event_types=TYPES, keys=symbols(KEYS), last=LAST, per_second=25.0)
    through = crew.consumer(mortal.url, "analytics-os-service", patterns=TYPES)
    # Away while replication is cut: what it gets can only come from the new master.
    away = crew.consumer(mortal.url, "exec-risk-service", patterns=TYPES, claim_idle_seconds=LEASE_SECONDS)
    old, new = mortal.masters[0], mortal.replicas[0]
    spared = [master.url for master in mortal.masters[1:]]
    old_view, spared_view, new_view = RedisView(old.url, *spared), RedisView(*spared), RedisView(new.url, *spared)
    await through.start()
    await away.start()
    publisher.launch()
    await publisher.has_told(publisher.order.total // 4)

    await away.kill()
    cut_replication(new)
    await eventually(lambda: not replicates(new), what="replication cut")
    await publisher.goes_on(2000)
    publisher.freeze()
    had = set(await old_view.event_ids())
    lost = had - replicated_ids(new) - set(await spared_view.event_ids())
    kill_server(old)
    await is_gone(old)
    publisher.thaw()
    await eventually(lambda: is_master(new), timeout=30.0, what="a promoted replica")
    await away.start()

    status = await publisher.finished()
    for consumer in (through, away):
        await new_view.is_settled(consumer.order.service)
        await consumer.stop()
        assert findings([publisher], consumer) == ALL_IS_WELL
        assert consumer.effects.count() == publisher.order.total
    assert len(lost) > 0
    assert lost - set(await new_view.event_ids()) == set()
    for view in (old_view, spared_view, new_view):
        await view.close()
    tell(
        f"A master of the cluster killed: {len(lost)} events that it had acknowledged were missing on the new one, 0 "
        f"after they were published again; {publisher.order.total} published, {through.effects.count()} + "
        f"{away.effects.count()} effects, longest publish {status.longest_publish_seconds:.2f} s"
    )
