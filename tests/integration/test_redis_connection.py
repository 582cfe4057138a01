"""The process's connection: what it waits for, what it refuses, what its errors become."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.exceptions import ReadOnlyError, ResponseError

from infrastructure.embedded.loopback import free_port
from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.backoff import Backoff
from shared.clock import SystemClock
from shared.errors import ConfigurationError, ConnectionLostError, TransientError
from shared.redis_connection import RedisConnection, redis_errors
from tests.support.eventually import eventually

QUICK = Backoff(base_seconds=0.01, cap_seconds=0.05)


def connection_to(url: str) -> RedisConnection:
    return RedisConnection(url, clock=SystemClock(), backoff=QUICK)


async def test_it_starts_against_a_living_server_and_measures_the_round_trip(redis_url: str) -> None:
    connection = connection_to(redis_url)

    await connection.start()

    assert 0 < await connection.ping() < 10_000
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


async def test_wrong_credentials_stop_the_start_with_one_line_without_secrets(
    server_folder: Path, tmp_path: Path
) -> None:
    server = EmbeddedRedis(server_folder / tmp_path.name)
    parts = urlsplit(await server.start())
    connection = connection_to(f"redis://:not-the-password@{parts.hostname}:{parts.port}/0")

    with pytest.raises(ConfigurationError, match="REDIS_URL") as raised:
        await connection.start()

    assert "not-the-password" not in str(raised.value)
    assert f"{parts.hostname}:{parts.port}" in str(raised.value)
    await connection.stop()
    await server.stop()


async def test_an_unreachable_server_is_a_lost_connection_at_the_first_try() -> None:
    connection = connection_to(f"redis://127.0.0.1:{free_port()}/0")

    with pytest.raises(ConnectionLostError, match="Redis cannot be reached"):
        await connection.ping()

    await connection.stop()


def test_an_url_of_no_known_kind_is_refused_without_its_password() -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL") as raised:
        connection_to("http://user:secret@example.test/0")

    assert "secret" not in str(raised.value)


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


async def test_a_blocking_reader_does_not_hold_up_other_commands(redis_url: str) -> None:
    connection = connection_to(redis_url)
    reader: Any = connection.new_client()
    others: Any = connection.client
    blocked = asyncio.create_task(reader.blpop("what-comes-late", 20))
    await eventually(lambda: _has_blocked_client(others), what="a blocked reader")

    await others.rpush("what-comes-late", "here")

    assert await blocked == (b"what-comes-late", b"here")
    await connection.stop()


async def _has_blocked_client(redis: Any) -> bool:
    return bool((await redis.info("clients"))["blocked_clients"])
