"""The wire itself: security, headers, errors, streams without any client library in between, and the admin port."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
import websockets

from shared.clock import SystemClock
from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange
from tests.support.markets import BTC, START, WrittenSource


@pytest.fixture
async def exchange() -> AsyncIterator[RunningExchange]:
    async with paper_exchange() as running:
        yield running


def signed(parameters: dict[str, Any], *, secret: str = "paper", shift_ms: int = 0) -> str:
    now = round(SystemClock().now().timestamp() * 1000) + shift_ms
    text = urlencode({**parameters, "timestamp": now})
    return f"{text}&signature={hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()}"


async def ask(
    exchange: RunningExchange, method: str, path: str, query: str = "", *, key: str | None = "paper", body: str = ""
) -> httpx.Response:
    headers = {} if key is None else {"X-MBX-APIKEY": key}
    if body:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    async with httpx.AsyncClient(base_url=exchange.url) as client:
        return await client.request(method, f"{path}?{query}" if query else path, headers=headers, content=body)


ORDER = {"symbol": BTC, "side": "BUY", "type": "MARKET", "quantity": "0.01"}


async def test_signed_requests_pass_in_query_or_body(exchange: RunningExchange) -> None:
    for query, body in ((signed(ORDER), ""), ("", signed(ORDER))):
        answer = await ask(exchange, "POST", "/fapi/v1/order", query, body=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "FILLED"
        assert int(answer.headers["X-MBX-USED-WEIGHT-1M"]) >= 0
        assert int(answer.headers["X-MBX-ORDER-COUNT-10S"]) >= 1


async def test_unsigned_and_forged_requests_are_refused(exchange: RunningExchange) -> None:
    requests = {
        -2014: (signed({}), None, 401),
        -2015: (signed({}), "other", 401),
        -1022: (signed({}, secret="wrong"), "paper", 400),
        -1021: ("timestamp=1&signature=x", "paper", 400),
        -1102: ("", "paper", 400),
    }
    for code, (query, key, status) in requests.items():
        answer = await ask(exchange, "GET", "/fapi/v3/account", query, key=key)
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_requests_outside_their_window_are_refused(exchange: RunningExchange) -> None:
    for shift, text in ((-6_000, "outside of the recvWindow"), (5_000, "1000ms ahead")):
        answer = await ask(exchange, "GET", "/fapi/v3/account", signed({}, shift_ms=shift))
        assert answer.json()["code"] == -1021
        assert text in answer.json()["msg"]


async def test_the_time_is_wall_time_while_candles_carry_market_time(exchange: RunningExchange) -> None:
    now = (await ask(exchange, "GET", "/fapi/v1/time")).json()["serverTime"]
    assert abs(now - SystemClock().now().timestamp() * 1000) < 5_000
    rows = (await ask(exchange, "GET", "/fapi/v1/klines", f"symbol={BTC}&interval=1m&limit=2")).json()
    assert rows[-1][0] == START.timestamp() * 1000


WRONG_QUERIES = [
    ("/fapi/v1/klines", "interval=1m", -1102),
    ("/fapi/v1/klines", "symbol=NOPEUSDT&interval=1m", -1121),
    ("/fapi/v1/klines", "symbol=BTCUSDT&interval=7m", -1120),
    ("/fapi/v1/klines", "symbol=BTCUSDT&interval=1m&limit=x", -1102),
    ("/fapi/v1/klines", "symbol=BTCUSDT&interval=1m&limit=0", -1130),
    ("/fapi/v1/klines", "symbol=BTCUSDT&interval=1m&startTime=99999999999999999", -1130),
    ("/fapi/v1/depth", "symbol=BTCUSDT&limit=7", -4021),
    ("/fapi/v1/premiumIndex", "symbol=NOPEUSDT", -1121),
]


async def test_wrong_market_requests_are_refused(exchange: RunningExchange) -> None:
    for path, query, code in WRONG_QUERIES:
        answer = await ask(exchange, "GET", path, query)
        assert (answer.status_code, answer.json()["code"]) == (400, code), query


WRONG_ORDERS = [
    ({"type": "STOP_MARKET", "stopPrice": "1"}, -4120),
    ({"type": "ICEBERG"}, -1116),
    ({"side": "HOLD"}, -1117),
    ({"quantity": "abc"}, -1102),
    ({"quantity": "NaN"}, -1102),
    ({"positionSide": "LONG"}, -4061),
    ({"type": "LIMIT", "price": "100000"}, -1102),
    ({"type": "LIMIT", "price": "100000", "timeInForce": "GTD"}, -1102),
    ({"type": "LIMIT", "price": "100000", "timeInForce": "GTE_GTC"}, -1115),
    ({"reduceOnly": "maybe"}, -1130),
    ({"symbol": "NOPEUSDT"}, -1121),
]


async def test_wrong_orders_are_refused(exchange: RunningExchange) -> None:
    for change, code in WRONG_ORDERS:
        answer = await ask(exchange, "POST", "/fapi/v1/order", body=signed({**ORDER, **change}))
        assert (answer.status_code, answer.json()["code"]) == (400, code), change
    assert exchange.live.engine.books().orders == ()


async def test_klines_by_time_and_depth_around_the_price(exchange: RunningExchange) -> None:
    newest = (await ask(exchange, "GET", "/fapi/v1/klines", f"symbol={BTC}&interval=5m&limit=10")).json()
    since, until = newest[2][0], newest[6][0]
    some = await ask(exchange, "GET", "/fapi/v1/klines", f"symbol={BTC}&interval=5m&startTime={since}&endTime={until}")
    assert some.json() == newest[2:7]
    last_three = await ask(exchange, "GET", "/fapi/v1/klines", f"symbol={BTC}&interval=5m&endTime={until}&limit=3")
    assert last_three.json() == newest[4:7]
    book = (await ask(exchange, "GET", "/fapi/v1/depth", f"symbol={BTC}&limit=20")).json()
    bids, asks = ([float(level[0]) for level in book[side]] for side in ("bids", "asks"))
    assert len(bids) == len(asks) == 20
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]


async def test_klines_that_start_before_the_listing_begin_with_the_oldest() -> None:
    long_ago = round(START.timestamp() * 1000) - 10_000 * 60_000
    async with paper_exchange(WrittenSource([(100, 100, 100, 100)] * 10, history=5)) as running:
        query = urlencode({"symbol": BTC, "interval": "1m", "startTime": long_ago, "limit": 3})
        rows = (await ask(running, "GET", "/fapi/v1/klines", query)).json()

    opened = round(START.timestamp() * 1000) - 5 * 60_000
    assert [row[0] for row in rows] == [opened, opened + 60_000, opened + 120_000]


async def test_every_closed_candle_is_streamed_exactly_once_at_high_speed() -> None:
    async with paper_exchange(rate=3000.0, symbols=(BTC,)) as fast:
        stream = f"{BTC.lower()}@kline_1m"
        async with websockets.connect(fast.url.replace("http", "ws") + "/market/ws") as socket:
            await socket.send(json.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 7}))
            assert json.loads(await socket.recv()) == {"result": None, "id": 7}
            closed: list[dict[str, Any]] = []
            forming = 0
            while len(closed) < 150:
                kline = json.loads(await socket.recv())["k"]
                closed += [kline] if kline["x"] else []
                forming += not kline["x"]
        opens = [kline["t"] for kline in closed]
        assert opens == [opens[0] + 60_000 * number for number in range(len(opens))]
        query = f"symbol={BTC}&interval=1m&startTime={opens[0]}&limit={len(opens)}"
        rows = (await ask(fast, "GET", "/fapi/v1/klines", query)).json()
        assert [row[:6] for row in rows] == [[each[key] for key in "tohlcv"] for each in closed]
        assert forming > 0


async def test_subscriptions_can_be_listed_ended_and_misused(exchange: RunningExchange) -> None:
    async with websockets.connect(exchange.url.replace("http", "ws") + "/ws/btcusdt@kline_1m") as socket:

        async def answer_to(message: str) -> dict[str, Any]:
            await socket.send(message)
            while "e" in (answer := json.loads(await socket.recv())):
                pass
            return dict(answer)

        assert (await answer_to('{"method": "LIST_SUBSCRIPTIONS", "id": 1}'))["result"] == ["btcusdt@kline_1m"]
        await answer_to('{"method": "UNSUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 2}')
        await answer_to('{"method": "SUBSCRIBE", "params": ["nopeusdt@kline_1m", "btcusdt@kline_7x", "a@b"], "id": 3}')
        assert (await answer_to("no json"))["error"]["code"] == 2
        assert (await answer_to('{"method": "DANCE", "id": 4}'))["error"]["code"] == 2
        listed = (await answer_to('{"method": "LIST_SUBSCRIPTIONS", "id": 5}'))["result"]
        assert listed == ["a@b", "btcusdt@kline_7x", "nopeusdt@kline_1m"]


async def test_the_user_stream_opens_by_listen_key_and_tells_its_end(exchange: RunningExchange) -> None:
    first, again = [(await ask(exchange, "POST", "/fapi/v1/listenKey")).json()["listenKey"] for _ in range(2)]
    assert first == again
    assert (await ask(exchange, "PUT", "/fapi/v1/listenKey")).status_code == 200
    address = exchange.url.replace("http", "ws") + f"/private/ws?listenKey={first}"
    async with websockets.connect(address) as socket:
        await ask(exchange, "POST", "/fapi/v1/order", body=signed({**ORDER, "newClientOrderId": "mine"}))
        events = [json.loads(await socket.recv()) for _ in range(4)]
        kinds = ["ORDER_TRADE_UPDATE", "TRADE_LITE", "ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE"]
        assert [event["e"] for event in events] == kinds
        assert (await exchange.admin.post("/admin/listen_key/expire")).json() == {"expired": True}
        assert json.loads(await socket.recv())["e"] == "listenKeyExpired"
        assert (await ask(exchange, "PUT", "/fapi/v1/listenKey")).json()["code"] == -1125
        assert (await ask(exchange, "POST", "/fapi/v1/listenKey")).json()["listenKey"] != first


async def test_the_dead_mans_switch_cancels_regular_orders_only(exchange: RunningExchange) -> None:
    last = float((await ask(exchange, "GET", "/fapi/v1/ticker/price", f"symbol={BTC}")).json()["price"])
    low = str(round(last * 0.96))
    rest = {**ORDER, "type": "LIMIT", "price": low, "timeInForce": "GTC"}
    await ask(exchange, "POST", "/fapi/v1/order", body=signed(rest))
    algo = {**ORDER, "side": "SELL", "type": "STOP_MARKET", "algoType": "CONDITIONAL", "triggerPrice": low}
    assert (await ask(exchange, "POST", "/fapi/v1/algoOrder", body=signed(algo))).status_code == 200
    await ask(exchange, "POST", "/fapi/v1/countdownCancelAll", body=signed({"symbol": BTC, "countdownTime": 50}))
    await eventually(lambda: not exchange.live.engine.open_orders(), what="the switch")
    assert len(exchange.live.engine.open_algos()) == 1


async def test_admin_books_fills_and_faults(exchange: RunningExchange) -> None:
    await ask(exchange, "POST", "/fapi/v1/order", body=signed(ORDER))
    books = (await exchange.admin.get("/admin/books")).json()
    (fill,) = books["fills"]
    assert (fill["symbol"], fill["side"], fill["quantity"], fill["trade_id"]) == (BTC, "BUY", "0.01", 1)
    assert books["positions"][0]["quantity"] == "0.01"
    assert (books["wallet_start"], books["orders"][0]["status"]) == ("10000", "FILLED")
    assert (await exchange.admin.delete(f"/admin/fills/{BTC}/1")).status_code == 200
    assert (await exchange.admin.get("/admin/books")).json()["fills"] == []
    assert (await ask(exchange, "GET", "/fapi/v1/userTrades", signed({"symbol": BTC}))).json() == []
    gone = await exchange.admin.delete(f"/admin/fills/{BTC}/1")
    assert (gone.status_code, gone.json()) == (400, {"error": "there is no fill 1 of BTCUSDT"})
    for wrong in ({"kind": "earthquake"}, {"kind": "lose_order", "count": -1}, {"kind": "lose_order", "x": 1}, {}):
        assert (await exchange.admin.post("/admin/faults", json=wrong)).status_code == 400
    assert (await exchange.admin.get("/admin/faults")).json()["armed"] == []


async def test_a_held_answer_leaves_the_order_in_the_book(exchange: RunningExchange) -> None:
    key = (await ask(exchange, "POST", "/fapi/v1/listenKey")).json()["listenKey"]
    async with websockets.connect(exchange.url.replace("http", "ws") + f"/private/ws?listenKey={key}") as socket:

        async def next_order() -> str:
            while (event := json.loads(await socket.recv()))["e"] != "ORDER_TRADE_UPDATE" or event["o"]["x"] != "NEW":
                pass
            return str(event["o"]["c"])

        waiting = []
        for count, hold_events in enumerate((False, True), start=1):
            fault = {"kind": "hold_order_answer", "seconds": 60, "hold_events": hold_events}
            await exchange.admin.post("/admin/faults", json=fault)
            order = signed({**ORDER, "newClientOrderId": f"held-{count}"})
            waiting.append(asyncio.create_task(ask(exchange, "POST", "/fapi/v1/order", body=order)))
            await eventually(lambda: len(exchange.live.engine.fills(BTC)) == count)  # noqa: B023 - awaited at once
        await ask(exchange, "POST", "/fapi/v1/order", body=signed({**ORDER, "newClientOrderId": "plain"}))
        assert [await next_order(), await next_order()] == ["held-1", "plain"], "the events of held-2 wait as well"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await exchange.admin.post("/admin/faults", json={"kind": "hold_order_answer", "seconds": 0.1})
        assert (await ask(exchange, "POST", "/fapi/v1/order", body=signed(ORDER))).json()["status"] == "FILLED"


async def test_lost_and_garbled_answers(exchange: RunningExchange) -> None:
    for kind, status, fills in (
        ("lose_order_answer", 503, 1),
        ("lose_order", 503, 1),
        ("garble_order_answer", 200, 2),
    ):
        await exchange.admin.post("/admin/faults", json={"kind": kind})
        answer = await ask(exchange, "POST", "/fapi/v1/order", body=signed(ORDER))
        assert answer.status_code == status
        assert len(exchange.live.engine.fills(BTC)) == fills
        if status == 200:
            with pytest.raises(json.JSONDecodeError):
                answer.json()


async def test_dropped_user_events(exchange: RunningExchange) -> None:
    key = (await ask(exchange, "POST", "/fapi/v1/listenKey")).json()["listenKey"]
    async with websockets.connect(exchange.url.replace("http", "ws") + f"/private/ws?listenKey={key}") as socket:
        await exchange.admin.post("/admin/faults", json={"kind": "drop_user_event", "event": "ACCOUNT_UPDATE"})
        await ask(exchange, "POST", "/fapi/v1/order", body=signed(ORDER))
        seen = [json.loads(await socket.recv())["e"] for _ in range(3)]
        assert seen == ["ORDER_TRADE_UPDATE", "TRADE_LITE", "ORDER_TRADE_UPDATE"]


async def test_a_frozen_market_stands_still_and_then_plays_what_it_missed() -> None:
    prices = [(100.0 + number, 101.0 + number, 99.0 + number, 101.0 + number) for number in range(400)]
    async with paper_exchange(WrittenSource(prices, symbol="LTCUSDT"), rate=600.0) as fast:
        frozen_at = (await fast.admin.post("/admin/market/freeze")).json()["market_time"]
        before = fast.live.engine.quote("LTCUSDT")
        await eventually(lambda: (fast.live._market_clock.now() - before.time).total_seconds() > 300)
        assert fast.live.engine.now.isoformat() == frozen_at
        assert fast.live.engine.quote("LTCUSDT") == before
        await fast.admin.post("/admin/market/resume")
        assert (fast.live.engine.now - before.time).total_seconds() > 300
        assert fast.live.engine.quote("LTCUSDT").last > before.last


async def test_an_injected_candle_reaches_the_stream(exchange: RunningExchange) -> None:
    async with websockets.connect(exchange.url.replace("http", "ws") + "/market/ws/btcusdt@kline_1m") as socket:
        asked = {"symbol": "BTC/USDT:USDT", "timeframe": "1m", "fields": {"c": "NaN"}}
        await eventually(exchange.live.hub.wanted)
        await exchange.admin.post("/admin/market/candle", json=asked)
        while (kline := json.loads(await socket.recv())["k"])["c"] != "NaN":
            pass
        assert kline["x"] is True
        for wrong in ({"symbol": "?"}, {"symbol": "NOPEUSDT"}, {"symbol": BTC, "fields": 3}):
            assert (await exchange.admin.post("/admin/market/candle", json=wrong)).status_code == 400


async def test_unknown_paths_are_not_found(exchange: RunningExchange) -> None:
    assert (await ask(exchange, "GET", "/fapi/v1/nothing")).status_code == 404
