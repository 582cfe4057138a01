"""The connection to a real cluster: commands find their master, and follow keys that move and masters that die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infrastructure.embedded.loopback import free_port
from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.backoff import Backoff
from shared.clock import SystemClock
from shared.errors import ConfigurationError, ConnectionLostError, InvalidInputError, TransientError
from shared.events.streams import event_stream
from shared.redis_connection import RedisConnection
from shared.redis_links.slots import slot_of
from shared.redis_wire import Command, Reply
from tests.support.eventually import eventually
from tests.support.redis_cluster import RedisClusterServers, client_of, node_id, port_of

QUICK = Backoff(base_seconds=0.05, cap_seconds=0.2)


def connection_to(url: str) -> RedisConnection:
    return RedisConnection(url, clock=SystemClock(), backoff=QUICK, max_retries=0)


@pytest.fixture
async def connection(redis_cluster_url: str) -> AsyncIterator[RedisConnection]:
    connection = connection_to(redis_cluster_url)
    await connection.start()
    yield connection
    await connection.stop()


def elsewhere(cluster: RedisClusterServers, key: str) -> EmbeddedRedis:
    """Return a master that does not have the key's slot."""
    owner = cluster.owner(slot_of(key))
    return next(master for master in cluster.masters if master is not owner)


# -- finding the master -----------------------------------------------------------------------------------------------


async def test_keys_lie_on_all_masters_and_answers_come_in_the_order_of_the_commands(
    redis_cluster: RedisClusterServers, connection: RedisConnection
) -> None:
    count = 300
    await connection.execute(*(("SET", f"key-{n}", n) for n in range(count)))

    assert await connection.execute(*(("GET", f"key-{n}") for n in range(count))) == [
        str(n).encode() for n in range(count)
    ]
    sizes = []
    for master in redis_cluster.masters:
        with client_of(master) as client:
            sizes.append(client.dbsize())
    assert sum(sizes) == count
    assert min(sizes) > count / 6
    assert connection.is_cluster
    assert connection.connected


async def test_partitions_of_one_event_type_lie_on_different_masters(
    redis_cluster: RedisClusterServers, connection: RedisConnection
) -> None:
    streams = [event_stream("signal.generated", partition) for partition in range(8)]

    await connection.execute(*(("XADD", stream, "*", "field", "value") for stream in streams))

    owners = {port_of(redis_cluster.owner(slot_of(stream))) for stream in streams}
    assert len(owners) == 3


async def test_concurrent_callers_get_their_own_answers(connection: RedisConnection) -> None:
    answers = await asyncio.gather(
        *(connection.execute(("SET", f"k{n}", n), ("GET", f"k{n}"), ("STRLEN", f"k{n}")) for n in range(200))
    )

    assert answers == [[b"OK", str(n).encode(), len(str(n))] for n in range(200)]


async def test_a_refused_command_says_so_and_the_others_have_run(connection: RedisConnection) -> None:
    with pytest.raises(TransientError, match="Redis refused LPUSH: WRONGTYPE"):
        await connection.execute(("SET", "text", 1), ("LPUSH", "text", 1), ("SET", "other", 1))

    assert await connection.execute(("GET", "other")) == [b"1"]


async def test_a_command_of_unknown_form_is_refused_before_anything_is_sent(connection: RedisConnection) -> None:
    with pytest.raises(InvalidInputError, match="EVAL cannot be routed"):
        await connection.execute(("SET", "key", 1), ("EVAL", "return 1", 0))

    assert await connection.execute(("GET", "key")) == [None]


async def test_a_reader_waits_on_the_master_of_its_streams(connection: RedisConnection) -> None:
    streams = [event_stream(event_type, 5) for event_type in ("signal.generated", "position.opened")]
    for stream in streams:
        await connection.execute(("XGROUP", "CREATE", stream, "group", "$", "MKSTREAM"))
    reader = connection.new_reader()
    reading = asyncio.create_task(
        reader.execute(("XREADGROUP", "GROUP", "group", "one", "BLOCK", 2000, "STREAMS", *streams, ">", ">"))
    )
    await eventually(lambda: _blocked_clients(connection), what="a blocked reader")

    await connection.execute(("XADD", streams[1], "7-1", "field", "value"))

    assert await reading == [[streams[1].encode(), [[b"7-1", [b"field", b"value"]]]]]


async def test_a_transaction_runs_within_one_slot_and_is_refused_over_two(connection: RedisConnection) -> None:
    assert await connection.execute_atomically(("INCR", "{a}1"), ("INCR", "{a}2"), ("INCR", "{a}1")) == [1, 1, 2]

    with pytest.raises(InvalidInputError, match="one slot of the cluster, not in 2"):
        await connection.execute_atomically(("INCR", "a"), ("INCR", "b"))


async def test_the_client_for_rare_commands_knows_the_cluster(connection: RedisConnection) -> None:
    for n in range(20):
        await connection.client.set(f"key-{n}", n)

    assert await connection.execute(*(("GET", f"key-{n}") for n in range(20))) == [str(n).encode() for n in range(20)]


async def test_health_sums_up_the_masters(connection: RedisConnection) -> None:
    health = await connection.health()

    assert (health.masters, health.role, health.open_connections, health.reconnects) == (3, "master", 3, 0)
    assert health.used_memory_bytes > 3 * 100_000
    assert health.latency_ms is not None


async def test_one_seed_that_lives_is_enough(redis_cluster: RedisClusterServers, redis_cluster_url: str) -> None:
    password = urlsplit(redis_cluster_url).password
    seeds = f"127.0.0.1:{free_port()},127.0.0.1:{port_of(redis_cluster.masters[1])}"
    connection = connection_to(f"redis+cluster://:{password}@{seeds}")

    await connection.start()

    assert await connection.execute(*(("SET", f"k{n}", n) for n in range(20))) == [b"OK"] * 20
    await connection.stop()


async def test_wrong_credentials_stop_the_start(redis_cluster: RedisClusterServers) -> None:
    connection = connection_to(f"redis+cluster://:wrong@127.0.0.1:{port_of(redis_cluster.masters[0])}")

    with pytest.raises(ConfigurationError, match="WRONGPASS"):
        await connection.start()

    await connection.stop()


# -- keys that move ---------------------------------------------------------------------------------------------------


async def test_a_slot_that_moved_is_followed_and_makes_a_new_generation(
    redis_cluster: RedisClusterServers, connection: RedisConnection
) -> None:
    before = connection.generation
    redis_cluster.assign(slot_of("moving"), elsewhere(redis_cluster, "moving"))

    replies = await connection.execute(("SET", "moving", 1), ("SET", "staying", 2), ("INCR", "moving"))

    assert replies == [b"OK", b"OK", 2]
    states = [connection.connected]
    await connection.connect()
    states.append(connection.connected)
    assert states == [False, True]
    assert connection.generation > before
    with client_of(redis_cluster.owner(slot_of("moving"))) as client:
        assert client.get("moving") == b"2"


async def test_a_slot_in_the_middle_of_its_move_is_followed_key_by_key(
    redis_cluster: RedisClusterServers, connection: RedisConnection
) -> None:
    await connection.execute(("SET", "{tag}old", 1))
    source, slot = redis_cluster.owner(slot_of("{tag}")), slot_of("{tag}")
    target = elsewhere(redis_cluster, "{tag}")
    with client_of(target) as to, client_of(source) as at:
        to.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", node_id(source))
        at.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", node_id(target))

        replies = await connection.execute(("GET", "{tag}old"), ("SET", "{tag}new", 2), ("INCR", "{tag}new"))

        assert replies == [b"1", b"OK", 3]
        assert connection.connected  # the slot is still where it was
        assert at.execute_command("CLUSTER COUNTKEYSINSLOT", slot) == 1
        assert to.execute_command("CLUSTER COUNTKEYSINSLOT", slot) == 1
        for server in (at, to):
            server.execute_command("CLUSTER SETSLOT", slot, "STABLE")
            server.flushall()


async def test_a_transaction_follows_its_slot(redis_cluster: RedisClusterServers, connection: RedisConnection) -> None:
    redis_cluster.assign(slot_of("moving"), elsewhere(redis_cluster, "moving"))

    assert await connection.execute_atomically(("SET", "moving", 1), ("INCR", "moving")) == [b"OK", 2]


async def test_a_reader_that_waits_follows_its_slot(
    redis_cluster: RedisClusterServers, connection: RedisConnection
) -> None:
    reader = connection.new_reader()
    reading = asyncio.create_task(reader.execute(("BLPOP", "moving", 20), wait_seconds=20.0))
    await eventually(lambda: _blocked_clients(connection), what="a blocked reader")

    redis_cluster.assign(slot_of("moving"), elsewhere(redis_cluster, "moving"))
    await eventually(lambda: _blocked_clients(connection), what="a reader blocked elsewhere")
    await connection.execute(("RPUSH", "moving", "here"))

    assert await reading == [b"moving", b"here"]


async def _blocked_clients(connection: RedisConnection) -> bool:
    infos: list[Reply] = await connection._link.broadcast(("INFO", "clients"))
    return any(b"blocked_clients:0" not in info for info in infos)


# -- masters that die -------------------------------------------------------------------------------------------------


@pytest.fixture
async def mortal_cluster(server_folder: Path, tmp_path: Path) -> AsyncIterator[RedisClusterServers]:
    """A cluster with a replica of every master, for one test to harm."""
    servers = RedisClusterServers(server_folder / tmp_path.name, replicas=3, node_timeout_ms=1500)
    await servers.start()
    yield servers
    for server in (*servers.masters, *servers.replicas):
        if server.running and server.process_id is not None:
            os.kill(server.process_id, signal.SIGCONT)
    await servers.stop()


def a_key_of(cluster: RedisClusterServers, master: EmbeddedRedis) -> str:
    return next(key for key in map(str, range(10_000)) if cluster.owner(slot_of(key)) is master)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)])
async def test_a_master_that_goes_away_is_a_lost_connection_until_its_replica_has_taken_over(
    mortal_cluster: RedisClusterServers, how: signal.Signals
) -> None:
    connection = connection_to(mortal_cluster.url)
    await connection.start()
    victim = mortal_cluster.masters[1]
    key = a_key_of(mortal_cluster, victim)
    before = connection.generation
    await connection.execute(("SET", key, "value"))
    with client_of(victim) as client:
        client.wait(1, 5000)
    reader = connection.new_reader()
    await reader.execute(("GET", key))
    assert victim.process_id is not None
    os.kill(victim.process_id, how)

    with pytest.raises(ConnectionLostError):
        await connection.execute(("GET", key))
    await eventually(lambda: _works(connection, ("GET", key)), timeout=30.0, what="a replica that took over")

    assert await connection.execute(("GET", key)) == [b"value"]
    assert await reader.execute(("GET", key)) == b"value"
    await connection.connect()
    assert connection.generation > before
    assert (await connection.health()).masters == 3
    await connection.stop()


@pytest.mark.long
async def test_a_cluster_that_is_gone_opens_the_breaker_and_comes_back(mortal_cluster: RedisClusterServers) -> None:
    connection = connection_to(mortal_cluster.url)
    await connection.start()
    servers = [*mortal_cluster.masters, *mortal_cluster.replicas]
    for server in servers:
        assert server.process_id is not None
        os.kill(server.process_id, signal.SIGSTOP)
    waiting = [asyncio.create_task(connection.execute(("SET", n, n))) for n in range(50)]

    _, pending = await asyncio.wait(waiting, timeout=9.5)

    assert not pending
    states = [connection.available]
    for server in servers:
        assert server.process_id is not None
        os.kill(server.process_id, signal.SIGCONT)
    await eventually(lambda: _works(connection, *(("SET", n, n) for n in range(50))), timeout=30.0, what="a cluster")
    states.append(connection.available)
    assert states == [False, True]
    await connection.stop()


async def _works(connection: RedisConnection, *commands: Command) -> bool:
    try:
        await connection.execute(*commands)
    except ConnectionLostError:
        return False
    return True
