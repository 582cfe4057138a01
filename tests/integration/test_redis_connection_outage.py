"""Outages of a real server: killed, hanging, read-only. The breaker opens, commands fail at once, all comes back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.backoff import Backoff
from shared.circuit_breaker import BreakerState
from shared.clock import SystemClock
from shared.errors import ConnectionLostError
from shared.redis_connection import RedisConnection
from tests.support.eventually import eventually
from tests.support.scripted_redis import ScriptedRedis

QUICK = Backoff(base_seconds=0.05, cap_seconds=0.2)


@pytest.fixture
async def server(server_folder: Path, tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A server that a test may kill."""
    server = EmbeddedRedis(server_folder / tmp_path.name)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def connection(server: EmbeddedRedis) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(server.url, clock=SystemClock(), backoff=QUICK)
    await connection.start()
    yield connection
    await connection.stop()


def kill(server: EmbeddedRedis, number: signal.Signals) -> None:
    assert server.process_id is not None
    os.kill(server.process_id, number)


async def fails(connection: RedisConnection) -> str:
    try:
        await connection.execute(("PING",))
    except ConnectionLostError as error:
        return str(error)
    return ""


async def works(connection: RedisConnection) -> bool:
    return not await fails(connection)


async def test_after_a_kill_commands_fail_the_breaker_opens_and_all_comes_back_by_itself(
    server: EmbeddedRedis, connection: RedisConnection
) -> None:
    before = connection.generation
    kill(server, signal.SIGKILL)

    await eventually(lambda: fails(connection), what="a command that fails")
    assert not connection.connected
    await eventually(lambda: not connection.available, what="an open breaker")
    reason = await fails(connection)
    assert "is away since" in reason
    assert "next probe" in reason
    with pytest.raises(ConnectionLostError, match="is away since"):
        await connection.new_reader().execute(("PING",))
    health = await connection.health()
    assert (health.latency_ms, health.breaker is not BreakerState.CLOSED) == (None, True)
    assert "is away since" in (health.error or "")
    assert health.version  # the last one that could be had

    waiting = asyncio.create_task(connection.wait_available())
    await server.start()
    await waiting

    assert await connection.execute(("PING",)) == [b"PONG"]
    assert connection.generation == before + 1
    assert (await connection.health()).reconnects == 1


async def test_a_quick_restart_is_met_by_the_next_command(server: EmbeddedRedis, connection: RedisConnection) -> None:
    before = connection.generation
    await connection.execute(("SET", "key", "value"))
    kill(server, signal.SIGKILL)
    await eventually(lambda: not connection.connected, what="a lost connection")
    await eventually(lambda: not server.running, what="a dead server")
    await server.start()

    assert await connection.execute(("GET", "key")) == [b"value"]

    assert connection.generation == before + 1
    assert connection.available


async def test_when_a_hanging_server_opens_the_breaker_everything_that_waits_fails_at_once(
    server: EmbeddedRedis, connection: RedisConnection
) -> None:
    reader, newcomer = connection.new_reader(), connection.new_reader()
    await reader.execute(("PING",))
    before = connection.generation
    kill(server, signal.SIGSTOP)

    waiting: list[asyncio.Task[object]] = [asyncio.create_task(connection.execute(("INCR", "n"))) for _ in range(50)]
    waiting.append(asyncio.create_task(reader.execute(("BLPOP", "queue", 30), wait_seconds=30.0)))
    waiting.append(asyncio.create_task(newcomer.execute(("PING",))))
    # Without the breaker they would wait for 10 and for 40 seconds.
    done, pending = await asyncio.wait(waiting, timeout=9.0)

    assert not pending
    assert all(isinstance(task.exception(), ConnectionLostError) for task in done)
    assert not connection.available
    kill(server, signal.SIGCONT)
    await connection.wait_available()
    assert await connection.execute(("PING",)) == [b"PONG"]
    assert connection.generation == before + 1


@pytest.mark.long
async def test_a_start_that_meets_a_hanging_server_ends_with_a_connection_that_takes_commands(
    server: EmbeddedRedis,
) -> None:
    kill(server, signal.SIGSTOP)
    connection = RedisConnection(server.url, clock=SystemClock(), backoff=QUICK)
    starting = asyncio.create_task(connection.start())
    await eventually(lambda: not connection.available, what="an open breaker")

    kill(server, signal.SIGCONT)
    await starting

    assert await connection.execute(("PING",)) == [b"PONG"]
    await connection.stop()


async def test_a_server_that_is_slow_for_a_moment_keeps_its_connection(
    server: EmbeddedRedis, connection: RedisConnection
) -> None:
    before = connection.generation
    kill(server, signal.SIGSTOP)
    waiting = asyncio.create_task(connection.execute(("INCR", "n")))
    await asyncio.wait([waiting], timeout=1.3)  # it is late, and the prober looks

    kill(server, signal.SIGCONT)

    assert await waiting == [1]
    for _ in range(200):  # time for the prober to draw the wrong conclusion
        await connection.execute(("PING",))
    assert (connection.generation, connection.available) == (before, True)


async def test_a_connection_that_is_dead_alone_is_replaced() -> None:
    server = await ScriptedRedis(lambda _: b"+OK\r\n").start()
    connection = RedisConnection(f"redis://127.0.0.1:{server.port}", clock=SystemClock(), backoff=QUICK)
    await connection.connect()

    server.mute()  # as a firewall does that has forgotten it
    with pytest.raises(ConnectionLostError, match="it stopped answering"):
        await connection.execute(("GET", "key"))

    assert await connection.execute(("GET", "key")) == [b"OK"]
    assert (connection.generation, connection.available) == (2, True)
    await connection.stop()
    await server.stop()


async def test_a_server_that_became_a_replica_is_a_lost_connection_until_it_is_a_master_again(
    server: EmbeddedRedis, connection: RedisConnection, redis_server: EmbeddedRedis
) -> None:
    other = urlsplit(redis_server.url)
    await connection.execute(("REPLICAOF", "127.0.0.1", other.port or 0))

    with pytest.raises(ConnectionLostError, match=r"READONLY|MASTERDOWN|LOADING"):
        await connection.execute(("SET", "a", 1))
    assert not connection.connected

    await connection.execute(("REPLICAOF", "NO", "ONE"))
    assert await connection.execute(("SET", "a", 1)) == [b"OK"]


async def test_one_attempt_at_a_connection_serves_all_who_want_it(
    server: EmbeddedRedis, connection: RedisConnection
) -> None:
    await connection.execute(("CONFIG", "RESETSTAT"))
    await connection.execute(("QUIT",))
    await eventually(lambda: not connection.connected, what="a lost connection")

    await asyncio.gather(*(connection.execute(("PING",)) for _ in range(20)))

    (info,) = await connection.execute(("INFO", "stats"))
    assert b"total_connections_received:1\r\n" in info
