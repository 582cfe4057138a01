"""Every kind of fault over real HTTP: armed by the admin port, seen by a client. One test per row of the table."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import websockets

from infrastructure.paper_exchange.faults import FAULTS
from shared.clock import SystemClock
from tests.support.eventually import eventually
from tests.support.exchanges import paper_exchange
from tests.support.markets import BTC
from tests.support.raw_client import RawClient, raw_client, seen


@pytest.fixture
async def client() -> AsyncIterator[RawClient]:
    async with paper_exchange() as exchange, raw_client(exchange) as client:
        yield client


def test_every_kind_has_a_test() -> None:
    assert {f"test_{kind}" for kind in FAULTS} <= globals().keys()


# -- the request is not executed ---------------------------------------------------------------------------------


async def test_maintenance(client: RawClient) -> None:
    for status in ("503", "504"):
        await client.arm("maintenance", value=status, seconds=0.2)
        answer = await client.ask("GET", "v1/time")
        assert (answer.status_code, answer.headers["content-type"]) == (int(status), "text/html; charset=utf-8")
        assert (await client.order()).status_code == int(status)
    assert client.filled() == 0

    async def is_over() -> bool:
        return (await client.ask("GET", "v1/time")).status_code == 200

    await eventually(is_over, what="the end of the maintenance")


async def test_rate_limit(client: RawClient) -> None:
    await client.arm("rate_limit", seconds=60)
    answer = await client.ask("GET", "v1/time")
    assert seen(answer) == (429, -1003)
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    statuses = [(await client.ask("GET", "v1/time")).status_code for _ in range(10)]
    assert statuses == [429] * 9 + [418], "who does not wait is banned"
    banned = await client.order()
    assert seen(banned) == (418, -1003)
    assert banned.json()["msg"].startswith("Way too many requests; IP banned until ")
    assert int(banned.headers["Retry-After"]) > 60
    assert client.filled() == 0
    await client.clear()
    assert (await client.ask("GET", "v1/time")).status_code == 200


async def test_ip_ban(client: RawClient) -> None:
    await client.arm("ip_ban", seconds=30)
    answer = await client.ask("GET", "v1/time")
    assert seen(answer) == (418, -1003)
    assert 0 < int(answer.headers["Retry-After"]) <= 30


async def test_reset_before(client: RawClient) -> None:
    await client.arm("reset_before")
    with pytest.raises(httpx.TransportError):
        await client.order()
    assert client.filled() == 0
    assert (await client.order()).status_code == 200


async def test_late_execution(client: RawClient) -> None:
    await client.arm("late_execution", seconds=0.6, count=2)
    assert seen(await client.order(recvWindow=500)) == (400, -5028)
    assert client.filled() == 0
    assert (await client.order(recvWindow=5000)).status_code == 200


async def test_lose_order(client: RawClient) -> None:
    await client.arm("lose_order")
    answer = await client.order()
    assert seen(answer) == (503, -1000)
    assert answer.json()["msg"] == "Unknown error, please check your request or try again later."
    assert client.filled() == 0


async def test_service_unavailable(client: RawClient) -> None:
    await client.arm("service_unavailable")
    answer = await client.order()
    assert (answer.status_code, answer.text) == (503, "Service Unavailable.")
    assert client.filled() == 0


async def test_internal_error(client: RawClient) -> None:
    await client.arm("internal_error")
    answer = await client.order()
    assert answer.status_code == 503
    assert answer.json()["msg"] == "Internal error; unable to process your request. Please try again."
    assert client.filled() == 0


async def test_overload(client: RawClient) -> None:
    await client.order()
    await client.limit("rests")
    await client.arm("overload", count=0)
    assert seen(await client.order()) == (503, -1008)
    assert (await client.order(side="SELL", reduceOnly="true")).status_code == 200, "exits pass"
    assert (await client.stop("stop")).status_code == 200
    assert (await client.ask("DELETE", "v1/order", symbol=BTC, origClientOrderId="rests")).status_code == 200
    assert client.filled() == 2


async def test_reject_order(client: RawClient) -> None:
    for code in (-2022, -4116, -2019):
        await client.arm("reject_order", value=str(code))
        assert seen(await client.order()) == (400, code)
    assert client.filled() == 0


# -- the request is executed -----------------------------------------------------------------------------------


async def test_partial_fills(client: RawClient) -> None:
    await client.arm("partial_fills", value="0.4", seconds=0.05)
    async with client.user_stream() as stream:
        first = (await client.order(quantity="0.010", newClientOrderId="parts")).json()
        assert (first["status"], first["executedQty"]) == ("PARTIALLY_FILLED", "0.004")
        filled: list[float] = []
        while sum(filled) < 0.0099:
            event = (await stream.next("ORDER_TRADE_UPDATE"))["o"]
            filled += [float(event["l"])] if event["x"] == "TRADE" else []
    assert filled == [0.004, 0.004, 0.002]
    (order,) = client.engine.orders(BTC)
    assert (order.status, order.executed) == ("FILLED", order.quantity)


async def test_hide_order(client: RawClient) -> None:
    await client.arm("hide_order", seconds=0.3, count=2)
    assert (await client.limit("hidden")).status_code == 200
    assert (await client.stop("hidden-stop")).status_code == 200
    regular = {"symbol": BTC, "origClientOrderId": "hidden"}
    conditional = {"symbol": BTC, "clientAlgoId": "hidden-stop"}
    assert seen(await client.ask("GET", "v1/order", **regular)) == (400, -2013)
    assert seen(await client.ask("DELETE", "v1/order", **regular)) == (400, -2011)
    assert seen(await client.ask("GET", "v1/algoOrder", **conditional)) == (400, -2013)
    assert seen(await client.ask("DELETE", "v1/algoOrder", **conditional)) == (400, -2011)
    for path in ("v1/openOrders", "v1/allOrders", "v1/openAlgoOrders", "v1/allAlgoOrders"):
        assert (await client.ask("GET", path, symbol=BTC)).json() == [], path
    assert len(client.engine.open_orders()) == len(client.engine.open_algos()) == 1

    async def are_found() -> bool:
        answers = [
            await client.ask("GET", "v1/order", **regular),
            await client.ask("GET", "v1/algoOrder", **conditional),
        ]
        return [answer.status_code for answer in answers] == [200, 200]

    await eventually(are_found, what="the orders to be found")


async def test_reset_after(client: RawClient) -> None:
    await client.arm("reset_after")
    with pytest.raises(httpx.TransportError):
        await client.order()
    assert client.filled() == 1


async def test_hold_order_answer(client: RawClient) -> None:
    await client.arm("hold_order_answer", seconds=0.3)
    async with client.user_stream() as stream:
        answer = asyncio.create_task(client.order(newClientOrderId="held"))
        event = await stream.next("ORDER_TRADE_UPDATE")
        assert event["o"]["c"] == "held"
        assert not answer.done(), "the event comes before the answer"
        assert (await answer).json()["status"] == "FILLED"


async def test_lose_order_answer(client: RawClient) -> None:
    await client.arm("lose_order_answer")
    assert seen(await client.order()) == (503, -1000)
    assert client.filled() == 1


async def test_status_unknown(client: RawClient) -> None:
    for code in (-1007, -1006):
        await client.arm("status_unknown", value=str(code))
        assert seen(await client.order()) == (503, code)
    assert client.filled() == 2


async def test_duplicate_answer(client: RawClient) -> None:
    await client.arm("duplicate_answer")
    assert seen(await client.limit("twice")) == (400, -4116)
    assert [order.client_order_id for order in client.engine.open_orders()] == ["twice"]


async def test_garble_order_answer(client: RawClient) -> None:
    bodies = {}
    for body in ("truncated", "html", "empty"):
        await client.arm("garble_order_answer", value=body)
        answer = await client.order()
        assert answer.status_code == 200
        bodies[body] = answer.text
        with pytest.raises(json.JSONDecodeError):
            answer.json()
    assert bodies["truncated"].startswith('{"')
    assert bodies["html"].startswith("<html>")
    assert bodies["empty"] == ""
    assert client.filled() == 3


async def test_slow_answer(client: RawClient) -> None:
    await client.arm("slow_answer", seconds=0.2, path="/fapi/v1/time")
    clock = SystemClock()
    before = clock.monotonic()
    await client.ask("GET", "v1/ping")
    quick = clock.monotonic()
    await client.ask("GET", "v1/time")
    assert clock.monotonic() - quick >= 0.2 > quick - before


MARKET_PRICES: dict[str, Callable[[Any], str]] = {
    "v1/klines": lambda rows: str(rows[-1][4]),
    "v1/depth": lambda book: str(book["asks"][0][0]),
    "v1/ticker/bookTicker": lambda row: str(row["bidPrice"]),
    "v1/premiumIndex": lambda row: str(row["markPrice"]),
    "v2/ticker/price": lambda row: str(row["price"]),
}


async def test_wrong_answer_price(client: RawClient) -> None:
    client.exchange.live.freeze(frozen=True)
    for path, field in MARKET_PRICES.items():
        asked = {"symbol": BTC, "interval": "1m"} if "klines" in path else {"symbol": BTC}
        right = field((await client.ask("GET", path, **asked)).json())
        for how, wrong in (("nan", "NaN"), ("zero", "0"), ("negative", f"-{right}")):
            await client.arm("wrong_answer_price", value=how)
            assert field((await client.ask("GET", path, **asked)).json()) == wrong, path
        await client.arm("wrong_answer_price", value="spike", symbol=BTC)
        assert float(field((await client.ask("GET", path, **asked)).json())) == pytest.approx(float(right) * 10)
    assert (await client.order()).status_code == 200


async def test_order_not_found(client: RawClient) -> None:
    await client.limit("there")
    await client.arm("order_not_found", count=2)
    query = {"symbol": BTC, "origClientOrderId": "there"}
    answers = [(await client.ask("GET", "v1/order", **query)).status_code for _ in range(3)]
    assert answers == [400, 400, 200]


# -- streams -----------------------------------------------------------------------------------------------------


async def test_drop_user_event(client: RawClient) -> None:
    async with client.user_stream() as stream:
        await client.arm("drop_user_event", event="ACCOUNT_UPDATE")
        await client.order()
        assert [(await stream.next())["e"] for _ in range(3)] == [
            "ORDER_TRADE_UPDATE",
            "TRADE_LITE",
            "ORDER_TRADE_UPDATE",
        ]


async def test_duplicate_user_event(client: RawClient) -> None:
    async with client.user_stream() as stream:
        await client.arm("duplicate_user_event", event="ORDER_TRADE_UPDATE", after=1)
        await client.order()
        events = [await stream.next("ORDER_TRADE_UPDATE") for _ in range(3)]
        assert events[1] == events[2]
        assert [event["o"]["x"] for event in events] == ["NEW", "TRADE", "TRADE"]


async def test_reorder_user_event(client: RawClient) -> None:
    async with client.user_stream() as stream:
        await client.arm("reorder_user_event", event="ORDER_TRADE_UPDATE")
        await client.order()
        assert [(await stream.next())["e"] for _ in range(2)] == ["TRADE_LITE", "ORDER_TRADE_UPDATE"]
        await client.arm("reorder_user_event", event="ORDER_TRADE_UPDATE", after=1, seconds=0.05)
        await client.limit("alone")
        await client.ask("DELETE", "v1/order", symbol=BTC, origClientOrderId="alone")
        assert (await stream.next("ORDER_TRADE_UPDATE"))["o"]["x"] == "TRADE"
        assert [(await stream.next())["o"]["x"] for _ in range(2)] == ["NEW", "CANCELED"], "late, not lost"


async def test_drop_market_message(client: RawClient) -> None:
    async with client.stream("/market/ws") as stream:
        await stream.subscribe("btcusdt@test", "ethusdt@test")
        await client.arm("drop_market_message", event="btcusdt@")
        for number in (1, 2):
            for symbol in ("btcusdt", "ethusdt"):
                client.exchange.live.hub.publish(f"{symbol}@test", {"e": "test", "s": symbol, "n": number})
        got = [await stream.next("test") for _ in range(3)]
        assert [(each["s"], each["n"]) for each in got] == [("ethusdt", 1), ("btcusdt", 2), ("ethusdt", 2)]


async def test_depth_gap(client: RawClient) -> None:
    async with client.stream("/public/ws") as stream:
        await stream.subscribe("btcusdt@test")
        await client.arm("depth_gap", after=1)
        for number in range(4):
            message = {"e": "depthUpdate", "s": BTC, "U": number, "u": number, "pu": number - 1, "b": [], "a": []}
            client.exchange.live.hub.publish("btcusdt@test", message)
        assert [(await stream.next("depthUpdate"))["u"] for _ in range(3)] == [0, 2, 3]


WRONG = {"nan": "NaN", "zero": "0", "negative": "-100.5", "spike": "1005.0"}
PRICED: list[tuple[dict[str, Any], Callable[[dict[str, Any]], str]]] = [
    ({"e": "bookTicker", "s": BTC, "b": "100.5", "a": "100.5"}, lambda message: str(message["a"])),
    ({"e": "kline", "s": BTC, "k": {"o": "1", "h": "1", "l": "1", "c": "100.5"}}, lambda got: str(got["k"]["c"])),
    ({"e": "depthUpdate", "s": BTC, "b": [["100.5", "1"]], "a": []}, lambda message: str(message["b"][0][0])),
]


async def test_wrong_price(client: RawClient) -> None:
    async with client.stream("/public/ws") as stream:
        await stream.subscribe("btcusdt@test")
        for how, wrong in WRONG.items():
            for message, price in PRICED:
                await client.arm("wrong_price", value=how, symbol=BTC)
                client.exchange.live.hub.publish("btcusdt@test", message)
                assert price(await stream.next(message["e"])) == wrong


# -- what happens by itself ---------------------------------------------------------------------------------------


async def test_expire_listen_key(client: RawClient) -> None:
    async with client.user_stream() as stream:
        await client.arm("expire_listen_key", path="/fapi/v1/order")
        await client.order()
        await stream.next("listenKeyExpired")
        await client.order()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stream.socket.recv(), 0.1)
        await stream.socket.ping()
        assert seen(await client.ask("PUT", "v1/listenKey")) == (400, -1125)


async def test_close_streams(client: RawClient) -> None:
    async with client.user_stream() as user, client.stream("/market/ws") as market:
        await market.subscribe("btcusdt@test")
        await client.arm("close_streams", value="user")
        with pytest.raises(websockets.ConnectionClosedOK):
            await user.socket.recv()
        await (await market.socket.ping())
        await client.arm("close_streams", value="market")
        with pytest.raises(websockets.ConnectionClosedOK):
            await market.socket.recv()


async def test_cut_streams(client: RawClient) -> None:
    async with client.user_stream() as user:
        await client.arm("cut_streams", value="user")
        with pytest.raises(websockets.ConnectionClosedError):
            await user.socket.recv()


async def test_ignore_pings(client: RawClient) -> None:
    async with client.stream("/market/ws") as stream:
        await (await stream.socket.ping())
        await client.arm("ignore_pings")
        pong = await stream.socket.ping()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pong, 0.1)
        await client.clear()
        await asyncio.wait_for(await stream.socket.ping(), 1)


async def test_legacy_silence(client: RawClient) -> None:
    """Public streams are what the old addresses still carry."""
    async with client.stream("/ws") as old, client.stream("/public/ws") as new:
        for stream in (old, new):
            await stream.subscribe("btcusdt@test")
        await client.arm("legacy_silence")
        client.exchange.live.hub.publish("btcusdt@test", {"e": "test"})
        await new.next("test")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(old.socket.recv(), 0.1)
        await (await old.socket.ping())
        await client.clear()
        client.exchange.live.hub.publish("btcusdt@test", {"e": "test"})
        await old.next("test")


async def test_clock_offset(client: RawClient) -> None:
    for offset, text in ((-3_000, "1000ms ahead"), (9_000, "outside of the recvWindow")):
        await client.arm("clock_offset", value=str(offset))
        now = round(SystemClock().now().timestamp() * 1000)
        server = (await client.ask("GET", "v1/time")).json()["serverTime"]
        assert abs(server - now - offset) < 500
        answer = await client.order()
        assert seen(answer) == (400, -1021)
        assert text in answer.json()["msg"]
        assert (await client.order(timestamp=server)).status_code == 200
        await client.clear()
    assert (await client.order()).status_code == 200


async def test_flatten(client: RawClient) -> None:
    await client.order()
    await client.arm("flatten", symbol="BTC/USDT:USDT")
    assert seen(await client.order(side="SELL", reduceOnly="true")) == (400, -2022)
    assert [order.client_order_id[:4] for order in client.engine.orders(BTC)][1:] == ["web_"]


async def test_liquidate(client: RawClient) -> None:
    await client.order()
    async with client.user_stream() as stream:
        await client.arm("liquidate", symbol=BTC)
        assert (await stream.next("ORDER_TRADE_UPDATE"))["o"]["c"].startswith("autoclose-")
    assert client.engine.position(BTC).quantity == 0


async def test_adl(client: RawClient) -> None:
    await client.order()
    async with client.user_stream() as stream:
        await client.arm("adl", symbol=BTC)
        assert (await stream.next("ORDER_TRADE_UPDATE"))["o"]["c"] == "adl_autoclose"
    assert client.engine.position(BTC).quantity == 0


async def test_settle_funding(client: RawClient) -> None:
    await client.order()
    async with client.user_stream() as stream:
        await client.arm("settle_funding", symbol=BTC, value="0.01")
        assert (await stream.next("ACCOUNT_UPDATE"))["a"]["m"] == "FUNDING_FEE"
    rows = (await client.ask("GET", "v1/income", incomeType="FUNDING_FEE")).json()
    value = float(client.engine.quote(BTC).mark) * 0.01
    assert [float(row["income"]) for row in rows] == [pytest.approx(-value * 0.01, rel=0.01)]


async def test_funding_interval(client: RawClient) -> None:
    before = (await client.ask("GET", "v1/premiumIndex", symbol=BTC)).json()["nextFundingTime"]
    await client.arm("funding_interval", symbol=BTC, value="1")
    after = (await client.ask("GET", "v1/premiumIndex", symbol=BTC)).json()["nextFundingTime"]
    assert after < before
    assert after % 3_600_000 == 0
    hours = {row["symbol"]: row["fundingIntervalHours"] for row in (await client.ask("GET", "v1/fundingInfo")).json()}
    assert hours[BTC] == 1
    assert hours["ETHUSDT"] == 8


async def test_reject_triggered(client: RawClient) -> None:
    await client.order()
    await client.stop("refused")
    await client.arm("reject_triggered", value="-2019")
    algo = client.engine.algo(client_algo_id="refused")
    client.engine._algos._fire(algo, client.engine.now)
    row = (await client.ask("GET", "v1/algoOrder", clientAlgoId="refused")).json()
    assert (row["algoStatus"], row["rejectReason"]) == ("REJECTED", "Margin is insufficient.")
    assert float(client.engine.position(BTC).quantity) == 0.01


async def test_change_filters(client: RawClient) -> None:
    await client.arm("change_filters", symbol=BTC, value={"lot_step": "0.1", "min_quantity": "0.1", "tick_size": "5"})
    assert seen(await client.order()) == (400, -4004)
    (info,) = [row for row in (await client.ask("GET", "v1/exchangeInfo")).json()["symbols"] if row["symbol"] == BTC]
    filters = {row["filterType"]: row for row in info["filters"]}
    assert (filters["LOT_SIZE"]["stepSize"], filters["PRICE_FILTER"]["tickSize"]) == ("0.1", "5")


async def test_delist(client: RawClient) -> None:
    await client.order()
    await client.arm("delist", symbol=BTC)
    rows = (await client.ask("GET", "v1/exchangeInfo")).json()["symbols"]
    assert {row["symbol"]: row["status"] for row in rows}[BTC] == "SETTLING"
    assert seen(await client.order()) == (400, -4140)
    await client.arm("delist", symbol=BTC, value="CLOSE")
    assert seen(await client.order(side="SELL", reduceOnly="true")) == (400, -4141)
    await client.arm("delist", symbol=BTC, value="TRADING")
    assert (await client.order()).status_code == 200


async def test_hedge_mode(client: RawClient) -> None:
    await client.order()
    await client.arm("hedge_mode")
    assert (await client.ask("GET", "v1/positionSide/dual")).json() == {"dualSidePosition": True}
    assert seen(await client.order()) == (400, -4061)


# -- conditions and scripts ---------------------------------------------------------------------------------------


async def test_conditions_narrow_a_fault_down(client: RawClient) -> None:
    await client.arm("lose_order", client_id="bot-")
    assert (await client.order(newClientOrderId="hand-1")).status_code == 200
    assert (await client.order(newClientOrderId="bot-1")).status_code == 503
    await client.arm("lose_order", symbol="ETH/USDT:USDT")
    assert (await client.order()).status_code == 200
    assert (await client.order(symbol="ETHUSDT", quantity="0.5")).status_code == 503
    await client.arm("lose_order", after=2)
    assert [(await client.order()).status_code for _ in range(3)] == [200, 200, 503]
    await client.arm("lose_order_answer", method="DELETE", path="/fapi/v1/order")
    await client.limit("rests")
    assert (await client.ask("DELETE", "v1/order", symbol=BTC, origClientOrderId="rests")).status_code == 503
    assert client.engine.open_orders() == []
    await client.arm("lose_order", start=60)
    assert (await client.order()).status_code == 200


async def test_a_script_with_one_seed_strikes_the_same_requests_again(client: RawClient) -> None:
    async def run(seed: int) -> list[int]:
        script = {"seed": seed, "faults": [{"kind": "lose_order", "probability": 0.5, "count": 0}]}
        assert (await client.exchange.admin.post("/admin/faults/script", json=script)).status_code == 200
        return [(await client.order(quantity="0.002")).status_code for _ in range(12)]

    first = await run(7)
    assert {200, 503} == set(first)
    assert await run(7) == first
    assert await run(8) != first
    listed = (await client.exchange.admin.get("/admin/faults")).json()
    assert listed["kinds"].keys() == FAULTS.keys()
    assert (listed["armed"][0]["kind"], listed["struck"][0]) == ("lose_order", "lose_order")


NONSENSE: list[dict[str, Any]] = [
    {"kind": "earthquake"},
    {"kind": "lose_order", "probability": 2},
    {"kind": "lose_order", "seconds": -1},
    {"kind": "lose_order", "x": 1},
    {"kind": "garble_order_answer", "value": "burnt"},
    {"kind": "reject_order", "value": "-9"},
    {"kind": "flatten"},
    {"kind": "flatten", "symbol": "NOPEUSDT"},
    {"kind": "clock_offset", "value": "late"},
    {"kind": "change_filters", "symbol": BTC, "value": {"colour": "red"}},
    {"kind": "settle_funding", "symbol": BTC, "value": "much"},
    {"kind": "funding_interval", "symbol": BTC, "value": "7"},
    {"kind": "partial_fills", "value": "2"},
    {"kind": "lose_order", "count": "many"},
]


async def test_nonsense_is_refused(client: RawClient) -> None:
    for fault in NONSENSE:
        for path, body in (("/admin/faults", fault), ("/admin/faults/script", {"faults": [fault]})):
            answer = await client.exchange.admin.post(path, json=body)
            assert answer.status_code == 400, fault
    for script in ({"faults": 3}, {"faults": [1]}, {"faults": [], "seed": "x"}):
        assert (await client.exchange.admin.post("/admin/faults/script", json=script)).status_code == 400
    assert (await client.exchange.admin.get("/admin/faults")).json()["armed"] == []
