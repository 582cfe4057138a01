"""The pipelining connection: answers reach who asked, and a connection that cannot be trusted any more ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from infrastructure.embedded.loopback import free_port
from shared.errors import ConnectionLostError
from shared.redis_topology import Endpoint
from shared.redis_wire import LATE_SECONDS, ErrorReply, RedisWire, pack
from tests.support.eventually import eventually
from tests.support.scripted_redis import ScriptedRedis, array, bulk


def echo(command: list[bytes]) -> bytes | None:
    """Answer with the last part; silence to ``WAIT``."""
    return None if command[0] == b"WAIT" else b"$%d\r\n%b\r\n" % (len(command[-1]), command[-1])


@pytest.fixture
async def server() -> AsyncIterator[ScriptedRedis]:
    server = await ScriptedRedis(echo).start()
    yield server
    await server.stop()


async def wire_to(
    server: ScriptedRedis,
    *,
    password: str | None = None,
    database: int = 0,
    answer_seconds: float = 5.0,
    on_late: Callable[[], None] | None = None,
) -> RedisWire:
    endpoint = Endpoint(port=server.port, password=password, database=database)
    return await RedisWire.open(endpoint, connect_seconds=5.0, answer_seconds=answer_seconds, on_late=on_late)


def test_parts_travel_as_bytes_whatever_they_are() -> None:
    packed = pack([("SET", b"\x00\xff", 12), ("ZADD", "ø", 1.5, "")])

    assert packed == (
        b"*3\r\n$3\r\nSET\r\n$2\r\n\x00\xff\r\n$2\r\n12\r\n*4\r\n$4\r\nZADD\r\n$2\r\n\xc3\xb8\r\n$3\r\n1.5\r\n$0\r\n\r\n"
    )


async def test_many_callers_get_their_own_answers_in_order(server: ScriptedRedis) -> None:
    wire = await wire_to(server)

    answers = [wire.send([("ECHO", f"{n}-a"), ("ECHO", f"{n}-b")], answer_seconds=5.0) for n in range(100)]

    assert await asyncio.gather(*answers) == [[f"{n}-a".encode(), f"{n}-b".encode()] for n in range(100)]
    assert wire.is_idle
    wire.close()


async def test_no_commands_have_no_answers_and_keep_their_turn(server: ScriptedRedis) -> None:
    wire = await wire_to(server)

    assert await wire.send([], answer_seconds=5.0) == []
    before, none, after = (wire.send(c, answer_seconds=5.0) for c in ([("ECHO", "a")], [], [("ECHO", "b")]))

    assert list(await asyncio.gather(before, none, after)) == [[b"a"], [], [b"b"]]
    wire.close()


async def test_an_answer_that_comes_in_pieces_is_put_together(server: ScriptedRedis) -> None:
    server.script = lambda _: None
    wire = await wire_to(server)
    answer = wire.send([("GET", "a"), ("GET", "b")], answer_seconds=5.0)
    await eventually(lambda: len(server.commands) == 2, what="two commands")

    for piece in (b"$4\r\nfi", b"ve\r\n*2\r\n:1\r", b"\n$-1\r\n"):
        server.say(piece)
        assert not answer.done()
        await asyncio.sleep(0)

    assert await answer == [b"five", [1, None]]
    wire.close()


async def test_who_stops_waiting_does_not_shift_the_answers_of_others(server: ScriptedRedis) -> None:
    wire = await wire_to(server)
    first = asyncio.ensure_future(wire.send([("ECHO", "first")], answer_seconds=5.0))
    second = wire.send([("ECHO", "second")], answer_seconds=5.0)

    first.cancel()

    assert await second == [b"second"]
    wire.close()


async def test_a_refused_command_is_one_of_the_replies(server: ScriptedRedis) -> None:
    server.script = lambda command: b"-ERR unknown\r\n" if command[0] == b"BAD" else b"+OK\r\n"
    wire = await wire_to(server)

    refused, fine = await wire.send([("BAD",), ("GOOD",)], answer_seconds=5.0)

    assert (isinstance(refused, ErrorReply), str(refused), fine) == (True, "ERR unknown", b"OK")
    wire.close()


async def test_credentials_and_database_come_first(server: ScriptedRedis) -> None:
    server.script = lambda _: b"+OK\r\n"

    wire = await wire_to(server, password="word", database=3)

    assert server.commands == [[b"AUTH", b"word"], [b"SELECT", b"3"]]
    wire.close()


async def test_refused_credentials_end_the_connection_and_say_who_refused(server: ScriptedRedis) -> None:
    server.script = lambda _: b"-WRONGPASS no\r\n"

    with pytest.raises(ConnectionLostError, match="WRONGPASS") as raised:
        await wire_to(server, password="canary")

    assert isinstance(raised.value.__cause__, ErrorReply)
    assert "canary" not in str(raised.value)
    await eventually(lambda: server.connections == 0, what="a closed connection")


async def test_a_server_that_answers_no_credentials_is_given_up(server: ScriptedRedis) -> None:
    server.script = lambda _: None

    with pytest.raises(ConnectionLostError, match="did not answer in time"):
        await wire_to(server, password="word", answer_seconds=0.05)

    await eventually(lambda: server.connections == 0, what="a closed connection")


async def test_an_attempt_that_is_cancelled_leaves_no_connection(server: ScriptedRedis) -> None:
    server.script = lambda _: None
    opening = asyncio.create_task(wire_to(server, password="word"))
    await eventually(lambda: server.commands, what="a greeting")

    opening.cancel()

    await eventually(lambda: server.connections == 0, what="a closed connection")


async def test_nobody_there_is_a_lost_connection_that_names_the_address() -> None:
    port = free_port()

    with pytest.raises(ConnectionLostError, match=f"127.0.0.1:{port} cannot be reached"):
        await RedisWire.open(Endpoint(port=port), connect_seconds=5.0, answer_seconds=5.0)


async def test_a_host_that_cannot_be_one_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLostError, match="cannot be reached"):
        await RedisWire.open(Endpoint(host="a" * 300), connect_seconds=5.0, answer_seconds=5.0)


async def test_an_answer_that_does_not_come_ends_the_connection_for_all(server: ScriptedRedis) -> None:
    server.script = lambda _: None
    wire = await wire_to(server)
    late = wire.send([("GET", "a")], answer_seconds=0.05)
    other = wire.send([("GET", "b")], answer_seconds=5.0)

    for answer in (late, other):
        with pytest.raises(ConnectionLostError, match="did not answer in time"):
            await answer

    assert not wire.is_open
    with pytest.raises(ConnectionLostError):
        wire.send([("ECHO", "1")], answer_seconds=5.0)


async def test_a_short_deadline_behind_a_long_one_is_kept(server: ScriptedRedis) -> None:
    wire = await wire_to(server)
    wire.send([("WAIT", "1")], answer_seconds=500.0, wait_seconds=500.0)

    with pytest.raises(ConnectionLostError, match="did not answer in time"):
        await wire.send([("WAIT", "1")], answer_seconds=0.05)


async def test_a_silent_server_is_reported_while_it_is_silent(server: ScriptedRedis) -> None:
    reports: list[float] = []
    loop = asyncio.get_running_loop()
    wire = await wire_to(server, on_late=lambda: reports.append(loop.time()))
    began = loop.time()
    answer = wire.send([("WAIT", "1")], answer_seconds=60.0)
    lateness = [wire.is_late]

    await eventually(lambda: reports, what="a report")

    assert reports[0] - began >= LATE_SECONDS
    lateness.append(wire.is_late)
    server.say(bulk("at last"))
    assert await answer == [b"at last"]
    lateness.append(wire.is_late)
    assert lateness == [False, True, False]
    wire.close()


async def test_a_command_that_asks_the_server_to_wait_is_not_late_while_it_waits(server: ScriptedRedis) -> None:
    reports: list[str] = []
    wire = await wire_to(server, on_late=lambda: reports.append("late"))
    wire.send([("WAIT", "1")], answer_seconds=60.0, wait_seconds=60.0)
    other = await wire_to(server, on_late=lambda: reports.append("other"))
    other.send([("WAIT", "1")], answer_seconds=60.0)

    await eventually(lambda: reports, what="a report of the other connection")

    assert reports == ["other"]
    wire.close()
    other.close()


async def test_a_server_that_hangs_up_ends_what_waits(server: ScriptedRedis) -> None:
    wire = await wire_to(server)
    answer = wire.send([("WAIT", "1")], answer_seconds=5.0)
    await eventually(lambda: server.commands, what="a command")

    server.disconnect()

    with pytest.raises(ConnectionLostError, match="it closed the connection"):
        await answer
    assert not wire.is_open


async def test_what_is_no_answer_ends_the_connection(server: ScriptedRedis) -> None:
    server.script = lambda _: b"HTTP/1.1 400 Bad Request\r\n"
    wire = await wire_to(server)

    with pytest.raises(ConnectionLostError, match="its answer cannot be read"):
        await wire.send([("PING",)], answer_seconds=5.0)


async def test_the_reason_for_closing_reaches_who_waits(server: ScriptedRedis) -> None:
    wire = await wire_to(server)
    answer = wire.send([("WAIT", "1")], answer_seconds=5.0)

    wire.close("the master changed")

    with pytest.raises(ConnectionLostError, match="the master changed"):
        await answer


async def test_what_a_server_says_unasked_is_received_before_or_after_somebody_waits(server: ScriptedRedis) -> None:
    server.script = lambda _: array(bulk("subscribe"), bulk("news"), b":1\r\n") + array(bulk("message"), bulk("one"))
    wire = await wire_to(server)
    assert await wire.send([("SUBSCRIBE", "news")], answer_seconds=5.0) == [[b"subscribe", b"news", 1]]

    assert await wire.receive(answer_seconds=5.0) == [[b"message", b"one"]]
    waiting = wire.receive(answer_seconds=5.0)
    server.say(array(bulk("message"), bulk("two")))

    assert await waiting == [[b"message", b"two"]]
    wire.close()


async def test_a_server_that_reads_nothing_does_not_fill_our_memory() -> None:
    held = asyncio.Event()

    async def hold(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0, limit=1024)
    port: int = server.sockets[0].getsockname()[1]
    wire = await RedisWire.open(Endpoint(port=port), connect_seconds=5.0, answer_seconds=5.0)
    megabyte = bytes(1024 * 1024)

    def fill() -> None:
        for _ in range(100):
            wire.send([("SET", "key", megabyte)], answer_seconds=5.0)

    with pytest.raises(ConnectionLostError, match="it reads nothing"):
        fill()

    assert not wire.is_open
    held.set()
    server.close()
    await server.wait_closed()
