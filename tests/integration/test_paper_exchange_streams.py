"""The streams on the wire: every kind of message, addresses and their silence, and the limits of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import ccxt
import httpx
import pytest
import websockets

from infrastructure.paper_exchange.connection_rules import ConnectionRules
from shared.clock import ManualClock
from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange, plain_ccxt
from tests.support.markets import BTC, START

S = BTC.lower()


@contextlib.asynccontextmanager
async def connected(exchange: RunningExchange, path: str) -> AsyncIterator[Any]:
    async with websockets.connect(exchange.url.replace("http", "ws") + path, ping_interval=None) as socket:
        yield socket


async def ask(socket: Any, method: str, params: Any = None, number: int = 1) -> Any:
    """Send a request and return its answer, whatever streams say in between."""
    await socket.send(json.dumps({"method": method, "params": params or [], "id": number}))
    while True:
        answer = json.loads(await asyncio.wait_for(socket.recv(), 10))
        if "id" in answer:
            return answer


async def gather(socket: Any, count: int) -> list[dict[str, Any]]:
    return [json.loads(await asyncio.wait_for(socket.recv(), 10)) for _ in range(count)]


@pytest.fixture
async def exchange() -> AsyncIterator[RunningExchange]:
    async with paper_exchange(rate=60.0) as running:
        yield running


@pytest.fixture
async def stepped() -> AsyncIterator[tuple[RunningExchange, ManualClock]]:
    """An exchange that stands still until the test moves its clock and ticks."""
    clock = ManualClock(START)
    rules = ConnectionRules(messages=3, streams=2, connects=4)
    async with paper_exchange(clock=clock, rules=rules) as running:
        yield running, clock


def move(stage: tuple[RunningExchange, ManualClock], seconds: float) -> None:
    running, clock = stage
    clock.advance(seconds)
    running.live.tick()


async def age(stage: tuple[RunningExchange, ManualClock], seconds: float) -> None:
    """Let time pass in steps that leave the client the time to answer pings."""
    (connection,) = stage[0].live.hub._connections
    while seconds > 0:
        step = min(seconds, 500.0)
        move(stage, step)
        seconds -= step
        if step >= 180.0:
            await eventually(lambda: connection._heard_at == stage[1].monotonic(), what="the pong")


async def until_connected(running: RunningExchange, count: int = 1) -> None:
    await eventually(lambda: len(running.live.hub._connections) == count, what=f"{count} connections")


async def test_depth_differences_are_numbered_without_gaps_and_follow_on_the_snapshot(
    exchange: RunningExchange,
) -> None:
    async with connected(exchange, f"/public/ws/{S}@depth@100ms") as socket:
        before = await gather(socket, 1)
        async with httpx.AsyncClient(base_url=exchange.url) as http:
            snapshot = (await http.get("/fapi/v1/depth", params={"symbol": BTC, "limit": 1000})).json()
        events = before + await gather(socket, 6)
    assert {tuple(event) for event in events} == {("e", "E", "T", "s", "U", "u", "pu", "b", "a")}
    for earlier, later in itertools.pairwise(events):
        assert later["pu"] == earlier["u"] < later["U"] <= later["u"]
    seen = snapshot["lastUpdateId"]
    first = next(event for event in events if event["u"] >= seen)
    assert first["U"] <= seen or first["pu"] == seen


async def test_every_market_stream_speaks_with_binances_keys(exchange: RunningExchange) -> None:
    expected = {
        "/market/ws": {
            f"{S}@aggTrade": "e E s a p q f l T m",
            f"{S}@markPrice@1s": "e E s p i P r T",
            f"{S}@kline_1m": "e E s k",
        },
        "/public/ws": {
            f"{S}@bookTicker": "e u s b B a A T E",
            f"{S}@depth@500ms": "e E T s U u pu b a",
            f"{S}@depth5@100ms": "e E T s U u pu b a",
            f"{S}@trade": "e E T s t p q X m",
        },
    }
    for path, streams in expected.items():
        for name, keys in streams.items():
            async with connected(exchange, f"{path}/{name}") as socket:
                (message,) = await gather(socket, 1)
                assert " ".join(message) == keys, name
                assert message["s"] == BTC
    assert len(message["p"]) > 0


async def test_trades_come_once_each_and_within_the_candles(exchange: RunningExchange) -> None:
    async with connected(exchange, f"/market/ws/{S}@aggTrade") as socket:
        trades = await gather(socket, 40)
    assert all(earlier["l"] < later["f"] for earlier, later in itertools.pairwise(trades))
    assert {trade["m"] for trade in trades} == {True, False}


async def test_a_combined_connection_wraps_messages_and_can_be_told_not_to(exchange: RunningExchange) -> None:
    async with connected(exchange, f"/public/stream?streams={S}@bookTicker/{S}@depth@100ms") as socket:
        names = {message["stream"] for message in await gather(socket, 12)}
        assert names == {f"{S}@bookTicker", f"{S}@depth@100ms"}
        assert (await ask(socket, "GET_PROPERTY", ["combined"]))["result"] is True
        assert (await ask(socket, "SET_PROPERTY", ["combined", False]))["result"] is None
        assert "e" in (await gather(socket, 1))[0]
        assert (await ask(socket, "SET_PROPERTY", ["colour", True]))["error"]["code"] == 2


async def test_a_stream_is_silent_on_an_address_of_another_kind(exchange: RunningExchange) -> None:
    both = [f"{S}@bookTicker", f"{S}@kline_1m"]
    heard = {"/public/ws": {"bookTicker"}, "/market/ws": {"kline"}, "/ws": {"bookTicker"}}
    for path, kinds in heard.items():
        async with connected(exchange, path) as socket:
            assert (await ask(socket, "SUBSCRIBE", both))["result"] is None
            assert (await ask(socket, "LIST_SUBSCRIPTIONS"))["result"] == both
            assert {message["e"] for message in await gather(socket, 4)} == kinds, path
            await asyncio.wait_for(await socket.ping(), 5)


async def test_the_user_stream_is_silent_on_the_old_address_and_combined_on_stream(
    stepped: tuple[RunningExchange, ManualClock],
) -> None:
    running, _ = stepped
    key = running.live.listen_keys.create(running.live.clock.now())
    paths = [f"/ws/{key}", f"/private/ws?listenKey={key}", f"/private/stream?streams={key}"]
    async with contextlib.AsyncExitStack() as stack:
        old, plain, combined = [await stack.enter_async_context(connected(running, path)) for path in paths]
        await until_connected(running, 3)
        running.live.expire_listen_key()
        assert (await gather(plain, 1))[0]["e"] == "listenKeyExpired"
        wrapped = (await gather(combined, 1))[0]
        assert (wrapped["stream"], wrapped["data"]["e"]) == (key, "listenKeyExpired")
        # The old address says nothing, and after the expiry nobody hears anything, though every socket stays open.
        running.live.hub.publish_user(running.live.listen_keys.current, {"e": "ORDER_TRADE_UPDATE"})
        for socket in (old, plain, combined):
            assert "result" in await ask(socket, "LIST_SUBSCRIPTIONS")


async def test_a_listen_key_ends_an_hour_after_its_last_renewal(
    stepped: tuple[RunningExchange, ManualClock],
) -> None:
    running, clock = stepped
    async with httpx.AsyncClient(base_url=running.url, headers={"X-MBX-APIKEY": "paper"}) as http:
        key = (await http.post("/fapi/v1/listenKey")).json()["listenKey"]
        async with connected(running, f"/private/ws?listenKey={key}") as socket:
            await until_connected(running)
            for minutes in (59, 58):
                await age(stepped, minutes * 60)
                assert (await http.put("/fapi/v1/listenKey")).status_code == 200
            await age(stepped, 3570)
            clock.advance(30)
            assert (await http.put("/fapi/v1/listenKey")).json()["code"] == -1125
            assert (await gather(socket, 1))[0] == {
                "e": "listenKeyExpired",
                "E": round(clock.now().timestamp() * 1000),
                "listenKey": key,
            }
            assert (await http.post("/fapi/v1/listenKey")).json()["listenKey"] != key
            running.live.hub.publish_user(running.live.listen_keys.current, {"e": "ORDER_TRADE_UPDATE"})
            assert "result" in await ask(socket, "LIST_SUBSCRIPTIONS"), "open, and nothing in between"


async def test_a_connection_ends_after_a_day(stepped: tuple[RunningExchange, ManualClock]) -> None:
    async with connected(stepped[0], "/public/ws") as socket:
        await until_connected(stepped[0])
        await age(stepped, 86_390.0)
        assert "result" in await ask(socket, "LIST_SUBSCRIPTIONS")
        move(stepped, 10.0)
        with pytest.raises(websockets.ConnectionClosedOK):
            await asyncio.wait_for(socket.recv(), 5)


async def test_the_exchange_pings_every_three_minutes_and_closes_without_a_pong(
    stepped: tuple[RunningExchange, ManualClock],
) -> None:
    reader, writer = await raw_connection(stepped[0])
    move(stepped, 179.0)
    move(stepped, 1.0)
    assert (await asyncio.wait_for(reader.readexactly(2), 5)) == b"\x89\x00", "one ping frame, and no more"
    writer.write(b"\x8a\x80\x00\x00\x00\x00")  # a masked pong without payload
    (connection,) = stepped[0].live.hub._connections
    await eventually(lambda: connection._heard_at == 180.0, what="the pong")
    move(stepped, 599.0)
    assert not reader.at_eof()
    move(stepped, 1.0)
    rest = await read_until_close(reader)
    assert rest.startswith(b"\x89\x00"), "it went on pinging"
    assert b"\x88\x02\x03\xe8" in rest, "then a close frame with code 1000"
    writer.close()


async def raw_connection(running: RunningExchange) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket client that gives no pong by itself."""
    host, port = running.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"GET /public/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert b"101" in await reader.readuntil(b"\r\n\r\n")
    await until_connected(running)
    return reader, writer


async def read_until_close(reader: asyncio.StreamReader) -> bytes:
    read = b""
    while b"\x88" not in read:
        read += await asyncio.wait_for(reader.read(100), 5)
    return read


async def test_too_many_messages_close_the_connection(stepped: tuple[RunningExchange, ManualClock]) -> None:
    async with connected(stepped[0], "/market/ws") as socket:
        for _ in range(3):
            await ask(socket, "LIST_SUBSCRIPTIONS")
        stepped[1].advance(1.0)
        for _ in range(3):
            await ask(socket, "LIST_SUBSCRIPTIONS")
        with pytest.raises(websockets.ConnectionClosed):
            await ask(socket, "LIST_SUBSCRIPTIONS")


async def test_too_many_streams_are_refused(stepped: tuple[RunningExchange, ManualClock]) -> None:
    async with connected(stepped[0], "/market/ws") as socket:
        assert (await ask(socket, "SUBSCRIBE", ["a@trade", "b@trade"]))["result"] is None
        assert "at most 2 streams" in (await ask(socket, "SUBSCRIBE", ["c@trade"]))["error"]["msg"]
        assert (await ask(socket, "LIST_SUBSCRIPTIONS"))["result"] == ["a@trade", "b@trade"]
        stepped[1].advance(1.0)
        assert "must be a list" in (await ask(socket, "SUBSCRIBE", "a@trade"))["error"]["msg"]


async def test_too_many_handshakes_are_refused(stepped: tuple[RunningExchange, ManualClock]) -> None:
    for _ in range(4):
        async with connected(stepped[0], "/public/ws"):
            pass
    with pytest.raises(websockets.InvalidStatus, match="429"):
        async with connected(stepped[0], "/public/ws"):
            pass
    stepped[1].advance(300.0)
    async with connected(stepped[0], "/public/ws") as socket:
        assert "result" in await ask(socket, "LIST_SUBSCRIPTIONS")


# -- requests over a WebSocket ---------------------------------------------------------------------------------------


async def test_an_unmodified_client_trades_over_the_request_socket() -> None:
    symbol = "BTC/USDT:USDT"
    async with paper_exchange() as running, plain_ccxt(running.url) as client:
        await client.load_markets()
        book = await client.fetch_order_book_ws(symbol)
        assert book["bids"][0][0] < book["asks"][0][0]
        entry = await client.create_order_ws(symbol, "market", "buy", 0.02, None, {"clientOrderId": "ws-1"})
        assert (entry["status"], entry["filled"], entry["clientOrderId"]) == ("closed", 0.02, "ws-1")
        price = float(client.price_to_precision(symbol, entry["average"] * 0.97))
        resting = await client.create_order_ws(symbol, "limit", "buy", 0.01, price)
        assert (await client.fetch_order_ws(resting["id"], symbol))["status"] == "open"
        assert (await client.cancel_order_ws(resting["id"], symbol))["status"] == "canceled"
        (position,) = [each for each in await client.fetch_positions_ws() if each["contracts"]]
        assert (position["side"], position["contracts"]) == ("long", 0.02)
        assert (await client.fetch_balance_ws())["USDT"]["total"] > 0
        with pytest.raises(ccxt.ExchangeError, match="Margin is insufficient"):
            await client.create_order_ws(symbol, "market", "buy", 50)
        assert len(running.live.engine.books().orders) == 2


async def test_wrong_requests_are_answered_with_a_code(exchange: RunningExchange) -> None:
    async with connected(exchange, "/ws-fapi/v1") as socket:
        for text, code in (
            ("no json", -1135),
            ('{"id": 1, "method": "dance"}', -1020),
            ('{"id": 2, "method": "order.place", "params": {"apiKey": "other"}}', -2015),
            (
                '{"id": 3, "method": "order.place", "params": {"apiKey": "paper", "timestamp": 1, "signature": "x"}}',
                -1021,
            ),
        ):
            await socket.send(text)
            (answer,) = await gather(socket, 1)
            assert answer["error"]["code"] == code, text
            assert answer["status"] in (400, 401)
