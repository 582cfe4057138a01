"""The process's connection: what it waits for at the start, what it refuses, what commands and readers get."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.exceptions import ReadOnlyError, ResponseError

from infrastructure.embedded.loopback import free_port
from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.backoff import Backoff
from shared.circuit_breaker import BreakerState
from shared.clock import SystemClock
from shared.errors import ConfigurationError, ConnectionLostError, TransientError
from shared.redis_connection import RedisConnection, redis_errors
from shared.redis_wire import ErrorReply
from shared.settings import ServiceSettings
from shared.telemetry.metrics import Metrics
from tests.support.eventually import eventually
from tests.support.reply_thief import ReplyThief
from tests.support.scripted_redis import ScriptedRedis, bulk

QUICK = Backoff(base_seconds=0.01, cap_seconds=0.05)


def connection_to(url: str, *, max_retries: int = 10_000, metrics: Metrics | None = None) -> RedisConnection:
    return RedisConnection(url, clock=SystemClock(), backoff=QUICK, max_retries=max_retries, metrics=metrics)


# -- start ------------------------------------------------------------------------------------------------------------


async def test_it_starts_against_a_living_server_and_measures_the_round_trip(redis_url: str) -> None:
    connection = connection_to(redis_url)

    await connection.start()

    assert 0 < await connection.ping() < 10_000
    assert connection.connected
    assert connection.available
    assert not connection.is_cluster
    await connection.stop()


async def test_it_waits_for_a_server_that_comes_later(server_folder: Path, tmp_path: Path) -> None:
    server = EmbeddedRedis(server_folder / tmp_path.name)
    url = await server.start()
    await server.stop()
    connection = connection_to(url)
    starting = asyncio.create_task(connection.start())
    await asyncio.wait([starting], timeout=0.1)
    assert not starting.done()

    await server.start()

    await starting
    await connection.stop()
    await server.stop()


async def test_the_start_gives_up_after_its_tries_with_one_line() -> None:
    connection = connection_to(f"redis://:canary@127.0.0.1:{free_port()}/0", max_retries=2)

    with pytest.raises(ConnectionLostError, match="was not there in 3 tries, see REDIS_URL") as raised:
        await connection.start()

    assert "canary" not in str(raised.value)
    assert "\n" not in str(raised.value)
    await connection.stop()


async def test_wrong_credentials_stop_the_start_with_one_line_without_secrets(redis_server: EmbeddedRedis) -> None:
    parts = urlsplit(redis_server.url)
    connection = connection_to(f"redis://:not-the-password@{parts.hostname}:{parts.port}/0")

    with pytest.raises(ConfigurationError, match="REDIS_URL") as raised:
        await connection.start()

    assert "not-the-password" not in str(raised.value)
    assert f"{parts.hostname}:{parts.port}" in str(raised.value)
    await connection.stop()


async def test_missing_credentials_stop_the_start(redis_server: EmbeddedRedis) -> None:
    connection = connection_to(f"redis://127.0.0.1:{urlsplit(redis_server.url).port}")

    with pytest.raises(ConfigurationError, match="NOAUTH"):
        await connection.start()

    await connection.stop()


async def test_a_database_that_is_not_there_stops_the_start(redis_server: EmbeddedRedis) -> None:
    connection = connection_to(f"{redis_server.url.rpartition('/')[0]}/99")

    with pytest.raises(ConfigurationError, match="DB index is out of range"):
        await connection.start()

    await connection.stop()


async def test_a_cluster_url_for_a_single_server_stops_the_start(redis_server: EmbeddedRedis) -> None:
    parts = urlsplit(redis_server.url)
    connection = connection_to(f"redis+cluster://:{parts.password}@127.0.0.1:{parts.port}")

    with pytest.raises(ConfigurationError, match="cluster support disabled"):
        await connection.start()

    await connection.stop()


async def test_a_server_that_is_too_old_stops_the_start() -> None:
    info = bulk("# Server\r\nredis_version:6.0.9\r\nuptime_in_seconds:1\r\nused_memory:1\r\nconnected_clients:1\r\n")
    server = await ScriptedRedis(lambda command: info if command[0] == b"INFO" else b"+PONG\r\n").start()
    connection = connection_to(f"redis://127.0.0.1:{server.port}")

    with pytest.raises(ConfigurationError, match=r"version 6\.0\.9; 6\.2 or newer"):
        await connection.start()

    await connection.stop()
    await server.stop()


async def test_a_server_that_still_loads_its_data_is_waited_for() -> None:
    answers = iter([b"-LOADING Redis is loading the dataset in memory\r\n", b"+PONG\r\n"])
    server = await ScriptedRedis(lambda command: next(answers) if command[0] == b"PING" else b"-NOPERM no\r\n").start()
    connection = connection_to(f"redis://127.0.0.1:{server.port}")

    await connection.start()

    assert [command[0] for command in server.commands].count(b"PING") == 2
    await connection.stop()
    await server.stop()


def test_a_url_of_no_known_kind_is_refused_without_its_password() -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL") as raised:
        connection_to("http://user:secret@example.test/0")

    assert "secret" not in str(raised.value)


async def test_settings_say_where_to_connect_and_how_often_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    monkeypatch.setenv("REDIS_MAX_RETRIES", "1")
    monkeypatch.setenv("REDIS_RETRY_BASE_SECONDS", "0.01")
    connection = RedisConnection.from_settings(ServiceSettings(port=8009), clock=SystemClock())

    with pytest.raises(ConnectionLostError, match="in 2 tries"):
        await connection.start()

    await connection.stop()


# -- commands ---------------------------------------------------------------------------------------------------------


async def test_an_unreachable_server_is_a_lost_connection_at_the_first_try() -> None:
    connection = connection_to(f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(ConnectionLostError, match="cannot be reached"):
        await connection.ping()

    await connection.stop()


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (ReadOnlyError("You can't write against a read only replica."), ConnectionLostError),
        (OSError("reset"), ConnectionLostError),
        (TimeoutError(), ConnectionLostError),
        (ResponseError("WRONGTYPE"), TransientError),
    ],
)
def test_errors_of_the_client_library_become_ours(raised: Exception, becomes: type[Exception]) -> None:
    with pytest.raises(becomes) as translated, redis_errors():
        raise raised

    assert type(translated.value) is becomes
    assert translated.value.__cause__ is raised


async def test_commands_of_one_call_answer_in_order_and_share_one_connection(redis_url: str) -> None:
    connection = connection_to(redis_url)

    answers = await asyncio.gather(*(connection.execute(("SET", n, n), ("GET", n)) for n in range(50)))

    assert answers == [[b"OK", str(n).encode()] for n in range(50)]
    assert connection.generation == 1
    await connection.stop()


async def test_a_refused_command_raises_or_stands_in_the_list(redis_url: str) -> None:
    connection = connection_to(redis_url)
    commands = (("SET", "text", "word"), ("LPUSH", "text", "x"), ("GET", "text"))

    with pytest.raises(TransientError, match="Redis refused LPUSH: WRONGTYPE"):
        await connection.execute(*commands)
    replies = await connection.execute(*commands, raise_on_error=False)

    assert replies[::2] == [b"OK", b"word"]
    assert isinstance(replies[1], ErrorReply)
    await connection.stop()


async def test_a_caller_that_is_cancelled_does_not_shift_the_answers_of_others(redis_url: str) -> None:
    connection = connection_to(redis_url)
    await connection.execute(("MSET", *(part for n in range(100) for part in (n, n))))
    tasks = [asyncio.create_task(connection.execute(("GET", n))) for n in range(100)]
    await asyncio.sleep(0)

    for task in tasks[::2]:
        task.cancel()

    for n, task in list(enumerate(tasks))[1::2]:
        assert await task == [str(n).encode()]
    await connection.stop()


async def test_a_transaction_runs_as_one_and_returns_its_replies(redis_url: str) -> None:
    connection = connection_to(redis_url)

    replies = await asyncio.gather(
        *(connection.execute_atomically(("INCR", "n"), ("INCR", "n"), ("GET", "n")) for _ in range(20))
    )

    assert replies == [[2 * n + 1, 2 * n + 2, str(2 * n + 2).encode()] for n in range(20)]
    await connection.stop()


async def test_a_transaction_with_a_wrong_command_changes_nothing_and_says_which(redis_url: str) -> None:
    connection = connection_to(redis_url)

    with pytest.raises(TransientError, match="Redis refused NONSENSE: ERR unknown command"):
        await connection.execute_atomically(("SET", "a", 1), ("NONSENSE", "a"))

    assert await connection.execute(("GET", "a")) == [None]
    await connection.stop()


async def test_an_entry_whose_answer_was_lost_is_not_added_again(redis_server: EmbeddedRedis, redis_url: str) -> None:
    parts = urlsplit(redis_url)
    thief = ReplyThief("127.0.0.1", parts.port or 0)
    await thief.start()
    robbed = connection_to(f"redis://:{parts.password}@127.0.0.1:{thief.port}{parts.path}")
    await robbed.connect()

    thief.steal_next()
    with pytest.raises(ConnectionLostError):
        await robbed.execute(("XADD", "stream", "*", "field", "value"))

    assert await robbed.execute(("XLEN", "stream")) == [1]
    assert (thief.stolen, robbed.generation) == (1, 2)
    await robbed.stop()
    await thief.stop()


# -- readers ----------------------------------------------------------------------------------------------------------


async def test_a_blocking_reader_does_not_hold_up_other_commands(redis_url: str) -> None:
    connection = connection_to(redis_url)
    reader = connection.new_reader()
    blocked = asyncio.create_task(reader.execute(("BLPOP", "what-comes-late", 20), wait_seconds=20.0))
    await eventually(lambda: _has_blocked_client(connection), what="a blocked reader")

    await connection.execute(("RPUSH", "what-comes-late", "here"))

    assert await blocked == [b"what-comes-late", b"here"]
    await connection.stop()


async def test_a_cancelled_read_takes_no_entry_with_it(redis_url: str) -> None:
    connection = connection_to(redis_url)
    reader = connection.new_reader()
    blocked = asyncio.create_task(reader.execute(("BLPOP", "queue", 60), wait_seconds=60.0))
    await eventually(lambda: _has_blocked_client(connection), what="a blocked reader")

    blocked.cancel()
    await asyncio.wait([blocked])
    await eventually(lambda: _has_no_blocked_client(connection), what="no blocked reader")
    await connection.execute(("RPUSH", "queue", "here"))

    assert await reader.execute(("BLPOP", "queue", 20), wait_seconds=20.0) == [b"queue", b"here"]
    await connection.stop()


async def test_a_refused_read_is_no_lost_connection(redis_url: str) -> None:
    connection = connection_to(redis_url)
    reader = connection.new_reader()

    with pytest.raises(TransientError, match="Redis refused XREADGROUP: NOGROUP") as raised:
        await reader.execute(("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"))

    assert not isinstance(raised.value, ConnectionLostError)
    await connection.stop()


async def test_stop_ends_a_reader_that_waits(redis_url: str) -> None:
    connection = connection_to(redis_url)
    reader = connection.new_reader()
    blocked = asyncio.create_task(reader.execute(("BLPOP", "nothing", 60), wait_seconds=60.0))
    await eventually(lambda: _has_blocked_client(connection), what="a blocked reader")

    await connection.stop()

    with pytest.raises(ConnectionLostError, match="the reader was closed"):
        await blocked
    with pytest.raises(ConnectionLostError, match="the reader was closed"):
        await reader.execute(("PING",))


# -- figures ----------------------------------------------------------------------------------------------------------


async def test_health_tells_about_the_server_and_the_connection(redis_url: str) -> None:
    connection = connection_to(redis_url)
    await connection.start()
    reader = connection.new_reader()
    await reader.execute(("PING",))

    health = await connection.health()

    assert health.latency_ms is not None
    assert health.latency_ms > 0
    assert (health.error, health.role, health.masters, health.breaker) == (None, "master", 1, BreakerState.CLOSED)
    assert int(health.version.partition(".")[0]) >= 6
    assert health.uptime_seconds >= 0
    assert health.used_memory_bytes > 100_000
    assert health.connected_clients >= 2
    assert (health.open_connections, health.reconnects) == (2, 0)
    assert health.last_check.tzinfo is not None
    await connection.stop()


async def test_round_trips_and_reconnects_are_counted(redis_url: str) -> None:
    metrics = Metrics("desk", SystemClock())
    connection = connection_to(redis_url, metrics=metrics)
    await connection.execute(("PING",))
    await connection.execute(("QUIT",))
    await eventually(lambda: not connection.connected, what="a lost connection")

    await connection.execute(("PING",))

    text = metrics.render()[0].decode()
    assert 'redis_reconnects_total{service="desk"} 1.0' in text
    assert 'redis_latency_seconds_count{service="desk"} 3.0' in text
    await connection.stop()


async def _has_blocked_client(connection: RedisConnection) -> bool:
    (info,) = await connection.execute(("INFO", "clients"))
    return b"blocked_clients:0" not in info


async def _has_no_blocked_client(connection: RedisConnection) -> bool:
    return not await _has_blocked_client(connection)
