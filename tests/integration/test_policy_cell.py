"""Compare-and-set on one key: answers that are lost, writers in between, and a server that refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from infrastructure.embedded.redis_server import EmbeddedRedis
from shared.clock import SystemClock
from shared.errors import ConnectionLostError, InvalidInputError, TransientError
from shared.policy.redis_cell import RedisCell
from shared.redis_connection import RedisConnection
from tests.support.reply_thief import ReplyThief

KEY = "cell"


@dataclass
class Stage:
    """A cell behind a proxy that can keep answers, and the same key seen directly."""

    thief: ReplyThief
    cell: RedisCell
    direct: RedisCell
    connection: RedisConnection


@pytest.fixture
async def stage(redis_url: str, redis_server: EmbeddedRedis) -> AsyncIterator[Stage]:
    host, _, port = redis_server.url.rpartition("@")[2].partition("/")[0].partition(":")
    thief = ReplyThief(host, int(port))
    await thief.start()
    clock = SystemClock()
    behind = RedisConnection(redis_url.replace(f"{host}:{port}", f"{host}:{thief.port}"), clock=clock)
    connection = RedisConnection(redis_url, clock=clock)
    yield Stage(thief, RedisCell(behind, KEY), RedisCell(connection, KEY), connection)
    await behind.stop()
    await connection.stop()
    await thief.stop()


async def test_a_change_whose_answer_alone_was_lost_is_recognised_and_not_made_twice(stage: Stage) -> None:
    asked: list[bytes | None] = []

    async def decide(stored: bytes | None) -> bytes:
        asked.append(stored)
        stage.thief.steal_next()
        return b"%s+" % (stored or b"")

    assert await stage.cell.change(decide) == b"+"
    assert asked == [None]
    assert await stage.direct.read() == b"+"
    assert stage.thief.stolen == 1


async def test_when_nobody_can_tell_any_more_the_message_says_so(stage: Stage) -> None:
    async def decide(_stored: bytes | None) -> bytes:
        stage.thief.stealing = True
        return b"1"

    with pytest.raises(ConnectionLostError, match="the change may have been made or not, look again"):
        await stage.cell.change(decide)
    assert await stage.direct.read() == b"1"


async def test_before_anything_was_written_a_lost_connection_leaves_no_doubt(stage: Stage) -> None:
    stage.thief.stealing = True

    async def decide(_stored: bytes | None) -> bytes:
        raise AssertionError("nothing could be read")

    with pytest.raises(ConnectionLostError) as raised:
        await stage.cell.change(decide)
    assert "may have been" not in str(raised.value)


async def test_who_writes_in_between_is_built_upon(stage: Stage) -> None:
    rivals = [b"a", b"b"]

    async def decide(stored: bytes | None) -> bytes:
        if rivals:
            await stage.connection.execute(("SET", KEY, rivals.pop(0)))
        return b"%s+" % (stored or b"")

    assert await stage.cell.change(decide) == b"b+"


async def test_who_is_never_let_gives_up_and_has_changed_nothing(stage: Stage) -> None:
    count = 0

    async def decide(_stored: bytes | None) -> bytes:
        nonlocal count
        count += 1
        await stage.connection.execute(("SET", KEY, f"rival {count}"))
        return b"ours"

    with pytest.raises(TransientError, match=r"cell was changed by others \d+ times in a row"):
        await stage.cell.change(decide)
    assert await stage.direct.read() == f"rival {count}".encode()


async def test_a_change_that_is_called_off_leaves_the_value_and_the_connection_usable(stage: Stage) -> None:
    await stage.connection.execute(("SET", KEY, "1"))

    async def refuse(_stored: bytes | None) -> bytes:
        raise InvalidInputError("no")

    async def keep(_stored: bytes | None) -> None:
        return None

    async def change(stored: bytes | None) -> bytes:
        return b"%s+" % (stored or b"")

    with pytest.raises(InvalidInputError):
        await stage.cell.change(refuse)
    assert await stage.cell.change(keep) == b"1"
    assert await stage.cell.change(change) == b"1+"


async def test_a_server_that_takes_no_writes_says_why_and_nothing_is_changed(stage: Stage) -> None:
    await stage.connection.execute(("LPUSH", KEY, "a list"))

    async def change(_stored: bytes | None) -> bytes:
        return b"1"

    with pytest.raises(TransientError, match="WRONGTYPE"):
        await stage.cell.change(change)
