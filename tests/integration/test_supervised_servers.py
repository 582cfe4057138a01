"""Embedded servers under the supervisor come back at the same address, and what Redis knows of handled events."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from infrastructure.supervisor.drain import StreamBooks, entry_id
from infrastructure.supervisor.server_program import embedded_program
from infrastructure.supervisor.supervisor import ProgramState, Supervisor
from shared.clock import SystemClock
from shared.errors import ConfigurationError
from shared.events.streams import event_stream
from shared.redis_connection import RedisConnection
from tests.support.eventually import eventually

CANDLES = event_stream("candle.closed")


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[RedisConnection]:
    server = EmbeddedRedis(tmp_path / "redis")
    connection = RedisConnection(await server.start(), clock=SystemClock())
    await connection.start()
    yield connection
    await connection.stop()
    await server.stop()


async def take_one(redis: Any) -> bytes:
    [[_, [(entry, _)]]] = await redis.xreadgroup("analytics-os-service", "one", {CANDLES: ">"})
    assert isinstance(entry, bytes)
    return entry


async def test_a_killed_redis_comes_back_at_the_same_address(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    supervisor = Supervisor([embedded_program(server, SystemClock())], clock=SystemClock())
    await supervisor.start()
    url, pid = server.url, supervisor.statuses()["redis"].pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    await eventually(lambda: supervisor.statuses()["redis"].restarts == 1, what="restart counted")
    await eventually(lambda: supervisor.statuses()["redis"].state is ProgramState.READY, what="ready again")
    assert server.url == url
    await supervisor.stop()
    assert not server.running


async def test_a_server_that_cannot_start_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    holder = EmbeddedRedis(tmp_path / "redis")
    await holder.start()
    supervisor = Supervisor([embedded_program(EmbeddedRedis(tmp_path / "redis"), SystemClock())], clock=SystemClock())

    with pytest.raises(ConfigurationError, match="in use by another"):
        await supervisor.start()

    await supervisor.stop()
    await holder.stop()


async def test_an_entry_counts_as_handled_only_when_it_was_taken_and_settled(connection: RedisConnection) -> None:
    redis, books = connection.client, StreamBooks(connection)
    await redis.xgroup_create(CANDLES, "analytics-os-service", id="0", mkstream=True)
    assert await books.has_handled("analytics-os-service", await books.heads(), every_stream=True)

    await redis.xadd(CANDLES, {"payload": b"{}"})
    heads = await books.heads()
    assert not await books.has_handled("analytics-os-service", heads, every_stream=True)

    taken = await take_one(redis)
    assert not await books.has_handled("analytics-os-service", heads, every_stream=True)

    await redis.xack(CANDLES, "analytics-os-service", taken)
    assert await books.has_handled("analytics-os-service", heads, every_stream=True)


async def test_later_entries_do_not_count(connection: RedisConnection) -> None:
    redis, books = connection.client, StreamBooks(connection)
    await redis.xgroup_create(CANDLES, "analytics-os-service", id="0", mkstream=True)
    await redis.xadd(CANDLES, {"payload": b"{}"})
    heads = await books.heads()
    taken = await take_one(redis)
    await redis.xack(CANDLES, "analytics-os-service", taken)
    await redis.xadd(CANDLES, {"payload": b"{}"})

    assert await books.has_handled("analytics-os-service", heads, every_stream=True)
    assert not await books.has_handled("analytics-os-service", await books.heads(), every_stream=True)


async def test_a_missing_group_is_a_debt_of_the_archive_and_no_business_of_others(connection: RedisConnection) -> None:
    await connection.client.xadd(CANDLES, {"payload": b"{}"})
    books = StreamBooks(connection)
    heads = await books.heads()

    assert not await books.has_handled("analytics-os-service", heads, every_stream=True)
    assert await books.has_handled("exec-risk-service", heads, every_stream=False)


@pytest.mark.parametrize(("text", "number"), [(b"7-3", (7, 3)), ("12-0", (12, 0)), ("5", (5, 0))])
def test_entry_ids_compare_in_order_of_time(text: bytes | str, number: tuple[int, int]) -> None:
    assert entry_id(text) == number
