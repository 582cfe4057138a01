"""The connection to a master behind sentinels: finds it, refuses who is none, follows a failover at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infrastructure.embedded.loopback import free_port
from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.backoff import Backoff
from shared.clock import SystemClock
from shared.errors import ConfigurationError, ConnectionLostError
from shared.redis_connection import RedisConnection
from shared.redis_links.reader import BlockingReader
from tests.support.eventually import eventually
from tests.support.redis_cluster import client_of
from tests.support.redis_sentinels import MASTER_NAME, SentinelServers
from tests.support.scripted_redis import ScriptedRedis, array, bulk

QUICK = Backoff(base_seconds=0.05, cap_seconds=0.2)
#: The issue asks for less than this from the death of the master until commands work again.
FAILOVER_SECONDS = 5.0


@asynccontextmanager
async def connection_to(url: str, *, backoff: Backoff = QUICK) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(url, clock=SystemClock(), backoff=backoff, max_retries=0)
    try:
        yield connection
    finally:
        await connection.stop()


# -- real sentinels ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def servers(server_folder: Path, tmp_path: Path) -> AsyncIterator[SentinelServers]:
    """Three sentinels, a master and a replica, for one test to harm."""
    servers = SentinelServers(server_folder / tmp_path.name)
    await servers.start()
    yield servers
    for server in servers.servers:
        if server.running and server.process_id is not None:
            os.kill(server.process_id, signal.SIGCONT)
    await servers.stop()


def kill(server: EmbeddedRedis, how: signal.Signals) -> float:
    assert server.process_id is not None
    os.kill(server.process_id, how)
    return asyncio.get_running_loop().time()


async def works(connection: RedisConnection) -> bool:
    try:
        await connection.execute(("SET", "works", 1))
    except ConnectionLostError:
        return False
    return True


async def read(reader: BlockingReader) -> object:
    """Read for as long as it takes, as consumers do."""
    while True:
        try:
            if (answer := await reader.execute(("BLPOP", "queue", 1), wait_seconds=1.0)) is not None:
                return answer
        except ConnectionLostError:
            await asyncio.sleep(0)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.long)])
async def test_a_master_that_goes_away_is_replaced_within_seconds(
    servers: SentinelServers, how: signal.Signals
) -> None:
    # The delays between probes are those of production: it is the announcement that makes it quick.
    async with connection_to(servers.url, backoff=Backoff(base_seconds=5.0, cap_seconds=30.0)) as connection:
        await connection.start()
        await connection.execute(("SET", "key", "value"))
        await connection.client.wait(1, 5000)
        reader = connection.new_reader()
        reading = asyncio.create_task(read(reader))
        old = servers.master()

        killed_at = kill(old, how)
        await eventually(lambda: works(connection), timeout=30.0, what="a command that works again")
        seconds = asyncio.get_running_loop().time() - killed_at

        assert servers.master() is not old
        assert await connection.execute(("GET", "key")) == [b"value"]
        assert await connection.client.get("key") == b"value"
        await connection.execute(("RPUSH", "queue", "here"))
        assert await reading == [b"queue", b"here"]
        assert (connection.generation, connection.available) == (2, True)
        assert (await connection.health()).reconnects == 1
        assert seconds < FAILOVER_SECONDS


@pytest.mark.long
async def test_a_failover_while_the_old_master_lives_moves_everything_to_the_new_one(servers: SentinelServers) -> None:
    async with connection_to(servers.url) as connection:
        await connection.start()
        reading = asyncio.create_task(read(connection.new_reader()))
        await connection.client.set("key", "value")
        old = servers.master()

        with client_of(servers.sentinels[1]) as sentinel:
            sentinel.execute_command("SENTINEL FAILOVER", MASTER_NAME)
        await eventually(lambda: connection.generation > 1 and connection.connected, what="the new master")
        await eventually(lambda: works(connection), what="a command that works")

        assert servers.master() is not old
        await connection.client.set("key", "newer")
        await connection.execute(("RPUSH", "queue", "here"))
        assert await reading == [b"queue", b"here"]
        with client_of(servers.master()) as client:
            assert client.get("key") == b"newer"


# -- sentinels that say what a test wants -----------------------------------------------------------------------------


class ScriptedSentinel(ScriptedRedis):
    """A sentinel that names ``master``."""

    def __init__(self, master: ScriptedRedis | None) -> None:
        super().__init__(self._answer)
        self.master = master

    def announce(self, name: str, before: ScriptedRedis, now: ScriptedRedis) -> None:
        text = f"{name} 127.0.0.1 {before.port} 127.0.0.1 {now.port}"
        self.say(array(bulk("message"), bulk("+switch-master"), bulk(text)))

    def is_listened_to(self, *, connections: int, times: int = 1) -> bool:
        """Tell whether a listener is at rest, for the ``times``-th time; it asks, as every connection made does."""
        subscriptions = self.commands.count([b"SUBSCRIBE", b"+switch-master"])
        questions = sum(command[0] == b"SENTINEL" for command in self.commands)
        return (subscriptions, questions, self.connections) == (times, connections + times, 1)

    def _answer(self, command: list[bytes]) -> bytes:
        if command[0] == b"SUBSCRIBE":
            return array(bulk("subscribe"), bulk("+switch-master"), b":1\r\n")
        assert command[:2] == [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME"]
        return b"*-1\r\n" if self.master is None else array(bulk("127.0.0.1"), bulk(str(self.master.port)))


async def sentinel_naming(master: ScriptedRedis | None) -> ScriptedSentinel:
    sentinel = ScriptedSentinel(master)
    await sentinel.start()
    return sentinel


async def server_with_role(role: str) -> ScriptedRedis:
    answers = {b"ROLE": array(bulk(role), b":0\r\n", b"*0\r\n"), b"PING": b"+PONG\r\n"}
    return await ScriptedRedis(lambda command: answers.get(command[0], b"+OK\r\n")).start()


def url_of(*sentinels: ScriptedRedis | int) -> str:
    ports = [sentinel if isinstance(sentinel, int) else sentinel.port for sentinel in sentinels]
    return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{MASTER_NAME}"


async def stop(*servers: ScriptedRedis) -> None:
    for server in servers:
        await server.stop()


async def test_a_sentinel_that_is_away_or_knows_nothing_is_passed_over() -> None:
    master = await server_with_role("master")
    ignorant, knowing = await sentinel_naming(None), await sentinel_naming(master)

    async with connection_to(url_of(free_port(), ignorant, knowing)) as connection:
        assert await connection.execute(("GET", "key")) == [b"OK"]

    await stop(ignorant, knowing, master)


async def test_a_demoted_master_is_refused_and_another_sentinel_is_asked() -> None:
    master, demoted = await server_with_role("master"), await server_with_role("slave")
    stale, current = await sentinel_naming(demoted), await sentinel_naming(master)

    async with connection_to(url_of(stale, current)) as connection:
        await connection.connect()

        assert [b"GET", b"key"] not in demoted.commands
        await connection.execute(("GET", "key"))
        assert [b"GET", b"key"] in master.commands
        await connection.client.set("rare", 1)
        assert [b"SET", b"rare", b"1"] in master.commands
        assert demoted.connections == 0

    await stop(stale, current, master, demoted)


async def test_when_only_replicas_are_named_there_is_no_connection() -> None:
    demoted = await server_with_role("slave")
    sentinels = [await sentinel_naming(demoted), await sentinel_naming(demoted)]

    async with connection_to(url_of(*sentinels)) as connection:
        with pytest.raises(
            ConnectionLostError, match=r"no sentinel leads to the master 'mymaster'.*no master any more"
        ):
            await connection.connect()
        assert demoted.commands.count([b"ROLE"]) == 1  # several sentinels, one opinion

    await stop(*sentinels, demoted)


async def test_an_unknown_name_is_told_with_the_sentinel() -> None:
    sentinel = await sentinel_naming(None)

    async with connection_to(url_of(sentinel)) as connection:
        with pytest.raises(ConnectionLostError, match=f"127.0.0.1:{sentinel.port} knows no master 'mymaster'"):
            await connection.start()

    await stop(sentinel)


async def test_a_sentinel_that_refuses_our_password_stops_the_start() -> None:
    sentinel = await ScriptedRedis(lambda _: b"-NOAUTH Authentication required.\r\n").start()

    async with connection_to(url_of(sentinel)) as connection:
        with pytest.raises(ConfigurationError, match="NOAUTH"):
            await connection.start()

    await stop(sentinel)


async def test_an_announced_master_is_followed_without_a_command() -> None:
    first, second = await server_with_role("master"), await server_with_role("master")
    sentinel = await sentinel_naming(first)
    async with connection_to(url_of(sentinel)) as connection:
        await connection.execute(("GET", "key"))
        await connection.client.set("key", 1)
        reader = connection.new_reader()
        await reader.execute(("GET", "key"))
        await eventually(lambda: sentinel.is_listened_to(connections=3), what="a subscription")

        sentinel.master = second
        sentinel.announce(MASTER_NAME, first, second)
        await eventually(lambda: connection.generation == 2, what="a connection to the new master")

        await connection.execute(("GET", "new"))
        await reader.execute(("GET", "newer"))
        await eventually(lambda: first.connections == 0, what="nothing that leads to the old master")
        await connection.client.set("newest", 1)
        for command in ([b"GET", b"new"], [b"GET", b"newer"], [b"SET", b"newest", b"1"]):
            assert command in second.commands

    await stop(sentinel, first, second)


async def test_the_failover_of_another_master_is_none_of_ours() -> None:
    master, other = await server_with_role("master"), await server_with_role("master")
    sentinel = await sentinel_naming(master)
    async with connection_to(url_of(sentinel)) as connection:
        await connection.execute(("GET", "key"))
        await eventually(lambda: sentinel.is_listened_to(connections=1), what="a subscription")

        sentinel.announce("elsewhere", master, other)
        sentinel.disconnect()  # who asks again has heard everything
        await eventually(lambda: sentinel.is_listened_to(connections=1, times=2), what="a second subscription")
        await connection.execute(("GET", "key"))

        assert (connection.generation, other.connections) == (1, 0)

    await stop(sentinel, master, other)


async def test_what_was_announced_while_nobody_listened_is_asked_for() -> None:
    first, second = await server_with_role("master"), await server_with_role("master")
    sentinel = await sentinel_naming(first)
    async with connection_to(url_of(sentinel)) as connection:
        await connection.execute(("GET", "key"))
        await eventually(lambda: sentinel.is_listened_to(connections=1), what="a subscription")

        sentinel.master = second
        sentinel.disconnect()

        await eventually(lambda: connection.generation == 2, what="a connection to the new master")
        await eventually(lambda: second.connections == 1, what="a connection to the new master")

    await stop(sentinel, first, second)


async def test_a_silent_master_is_left_when_the_sentinels_name_another_one_even_unannounced() -> None:
    first, second = await server_with_role("master"), await server_with_role("master")
    sentinel = await sentinel_naming(first)
    async with connection_to(url_of(sentinel)) as connection:
        reader = connection.new_reader()
        await asyncio.gather(connection.execute(("GET", "key")), reader.execute(("GET", "key")))
        await eventually(lambda: sentinel.is_listened_to(connections=2), what="a subscription")

        sentinel.master = second
        for connected in (first, sentinel):
            connected.mute()
        reading = asyncio.create_task(reader.execute(("BLPOP", "queue", 60), wait_seconds=60.0))
        with pytest.raises(ConnectionLostError):
            await connection.execute(("GET", "key"))

        done, _ = await asyncio.wait([reading], timeout=20.0)  # not the 70 seconds that it would wait
        assert done
        assert isinstance(reading.exception(), ConnectionLostError)
        await connection.execute(("GET", "new"))
        assert [b"GET", b"new"] in second.commands

    await stop(sentinel, first, second)
