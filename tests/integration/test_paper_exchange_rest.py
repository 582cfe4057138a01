"""The REST surface: every endpoint answers, costs what it costs on Binance, and refuses with Binance's codes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from infrastructure.paper_exchange.endpoints import ENDPOINTS
from infrastructure.paper_exchange.request_security import Security
from infrastructure.paper_exchange.request_weight import BINANCE_LIMITS, Limit
from tests.support.exchanges import paper_exchange
from tests.support.markets import BTC, START, WrittenSource, flat
from tests.support.raw_client import RawClient, raw_client, seen


@pytest.fixture
async def client() -> AsyncIterator[RawClient]:
    async with paper_exchange() as exchange, raw_client(exchange) as client:
        yield client


@contextlib.asynccontextmanager
async def still(price: float = 50_000.0, hours: int = 24) -> AsyncIterator[RawClient]:
    """A market of one-hour candles that stands still and is moved on by hand."""
    async with (
        paper_exchange(WrittenSource(flat(price, hours), timeframe="1h"), timeframe="1h") as exchange,
        raw_client(exchange) as client,
    ):
        exchange.live.freeze(frozen=True)
        yield client


# -- what requests cost --------------------------------------------------------------------------------------------

#: Method, path, parameters, weight.
WEIGHTS: list[tuple[str, str, dict[str, object], int]] = [
    ("GET", "v1/ping", {}, 1),
    ("GET", "v1/exchangeInfo", {}, 1),
    *(
        ("GET", "v1/depth", {"symbol": BTC, "limit": n}, w)
        for n, w in ((5, 2), (50, 2), (100, 5), (500, 10), (1000, 20))
    ),
    ("GET", "v1/depth", {"symbol": BTC}, 10),
    *(
        ("GET", "v1/klines", {"symbol": BTC, "interval": "1m", "limit": n}, w)
        for n, w in ((99, 1), (100, 2), (499, 2), (500, 5), (1000, 5), (1001, 10))
    ),
    ("GET", "v1/ticker/24hr", {"symbol": BTC}, 1),
    ("GET", "v1/ticker/24hr", {}, 40),
    ("GET", "v1/ticker/bookTicker", {}, 5),
    ("GET", "v1/premiumIndex", {}, 10),
    ("GET", "v1/aggTrades", {"symbol": BTC}, 20),
    ("GET", "v3/account", {}, 5),
    ("GET", "v3/positionRisk", {}, 5),
    ("GET", "v1/openOrders", {"symbol": BTC}, 1),
    ("GET", "v1/openOrders", {}, 40),
    ("GET", "v1/openAlgoOrders", {"symbol": BTC}, 1),
    ("GET", "v1/openAlgoOrders", {}, 40),
    ("GET", "v1/allOrders", {"symbol": BTC}, 5),
    ("GET", "v1/userTrades", {"symbol": BTC}, 5),
    ("GET", "v1/income", {}, 30),
    ("GET", "v1/commissionRate", {"symbol": BTC}, 20),
    ("GET", "v1/positionSide/dual", {}, 30),
    ("GET", "v1/multiAssetsMargin", {}, 30),
    ("GET", "v1/forceOrders", {"symbol": BTC}, 20),
    ("GET", "v1/forceOrders", {}, 50),
    ("GET", "v1/accountConfig", {}, 5),
    ("GET", "v1/symbolConfig", {}, 5),
    ("POST", "v1/countdownCancelAll", {"symbol": BTC, "countdownTime": 0}, 10),
    ("POST", "v1/listenKey", {}, 1),
]


async def test_every_request_costs_its_weight(client: RawClient) -> None:
    used = 0
    for method, path, parameters, weight in WEIGHTS:
        answer = await client.ask(method, path, **parameters)
        assert answer.status_code == 200, (path, answer.text)
        total = int(answer.headers["X-MBX-USED-WEIGHT-1M"])
        # A minute may end on the way: the count then begins anew.
        assert total in (used + weight, weight), (path, parameters)
        used = total


async def test_orders_count_on_their_own_counters(client: RawClient) -> None:
    first = await client.order()
    assert (first.headers["X-MBX-ORDER-COUNT-10S"], first.headers["X-MBX-ORDER-COUNT-1M"]) == ("1", "1")
    assert first.headers["X-MBX-USED-WEIGHT-1M"] == "0"
    second = await client.stop("stop")
    assert second.headers["X-MBX-ORDER-COUNT-1M"] == "2"
    order = {"symbol": BTC, "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    batch = await client.ask("POST", "v1/batchOrders", batchOrders=json.dumps([order, order]))
    assert batch.headers["X-MBX-ORDER-COUNT-1M"] == "7", "a batch counts five"
    assert batch.headers["X-MBX-USED-WEIGHT-1M"] == "5"
    limits = {row["interval"]: row for row in (await client.ask("GET", "v1/rateLimit/order")).json()}
    assert (limits["MINUTE"]["limit"], limits["MINUTE"]["count"], limits["SECOND"]["limit"]) == (1200, 7, 300)
    assert "X-MBX-ORDER-COUNT-1M" not in (await client.ask("GET", "v1/time")).headers


def limits(**most: int) -> tuple[Limit, ...]:
    """Return Binance's limits with some of them lowered, by their header's last word."""
    return tuple(
        Limit(each.kind, each.interval, each.number, each.seconds, most.get(each.kind, each.most), each.header)
        for each in BINANCE_LIMITS
    )


async def test_who_asks_too_much_is_turned_away_and_then_banned() -> None:
    async with paper_exchange(limits=limits(REQUEST_WEIGHT=100)) as exchange, raw_client(exchange) as client:
        while (answer := await client.ask("GET", "v1/openOrders")).status_code == 200:
            pass
        assert seen(answer) == (429, -1003)
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert (await client.order()).status_code == 429
        assert client.filled() == 0
        statuses = {(await client.ask("GET", "v1/time")).status_code for _ in range(12)}
        assert statuses == {429, 418}
        assert (await client.ask("GET", "v1/time")).json()["msg"].startswith("Way too many requests; IP banned until ")


async def test_too_many_orders_are_refused_and_queries_go_on() -> None:
    async with paper_exchange(limits=limits(ORDERS=3)) as exchange, raw_client(exchange) as client:
        answers = [await client.order(quantity="0.002") for _ in range(8)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 2
        assert refused[0].json()["code"] == -1015
        assert refused[0].json()["msg"].startswith("Too many new orders; current limit is 3 orders per ")
        assert int(refused[0].headers["Retry-After"]) >= 1
        assert client.filled() == 8 - len(refused)
        assert (await client.ask("GET", "v1/time")).status_code == 200


# -- who may ask, and how ------------------------------------------------------------------------------------------


async def test_no_private_endpoint_answers_without_key_and_signature(client: RawClient) -> None:
    for endpoint in ENDPOINTS:
        if endpoint.security is Security.NONE:
            continue
        bare = await client.http.request(endpoint.method, endpoint.path)
        assert seen(bare) == (401, -2014), endpoint.path
        if endpoint.security is Security.SIGNED:
            unsigned = await client.http.request(endpoint.method, endpoint.path, headers={"X-MBX-APIKEY": "paper"})
            assert seen(unsigned) == (400, -1102), endpoint.path
    assert (await client.exchange.admin.get("/admin/requests")).json()[-1]["is_signed"] is False


async def test_the_two_texts_of_a_wrong_time(client: RawClient) -> None:
    now = (await client.ask("GET", "v1/time")).json()["serverTime"]
    late = await client.ask("GET", "v3/account", timestamp=now - 6_000)
    assert late.json() == {"code": -1021, "msg": "Timestamp for this request is outside of the recvWindow."}
    assert (await client.ask("GET", "v3/account", timestamp=now - 6_000, recvWindow=10_000)).status_code == 200
    early = await client.ask("GET", "v3/account", timestamp=now + 3_000)
    text = "Timestamp for this request was 1000ms ahead of the server's time."
    assert early.json() == {"code": -1021, "msg": text}


async def test_a_parameter_that_is_sent_twice_is_refused(client: RawClient) -> None:
    answer = await client.http.get(f"/fapi/v1/klines?symbol={BTC}&symbol={BTC}&interval=1m")
    assert answer.json() == {"code": -1101, "msg": "Duplicate values for a parameter detected."}
    assert answer.headers["X-MBX-USED-WEIGHT-1M"] == "5", "what is refused costs as well"


# -- orders --------------------------------------------------------------------------------------------------------

#: What is wrong with an order at 50000: changes, code.
WRONG_ORDERS: list[tuple[dict[str, object], int]] = [
    ({"type": "STOP", "stopPrice": "1"}, -4120),
    ({"type": "TRAILING_STOP_MARKET", "callbackRate": "1"}, -4120),
    ({"timeInForce": "GTC"}, -1106),
    ({"price": "50000"}, -1106),
    ({"newOrderRespType": "EVERYTHING"}, -1136),
    ({"priceMatch": "OPPONENT"}, -5037),
    ({"newClientOrderId": "with space"}, -4015),
    ({"newClientOrderId": "x" * 37}, -4015),
    ({"quantity": "0"}, -4003),
    ({"quantity": "0.0001"}, -1111),
    ({"quantity": "121"}, -4005),
    ({"quantity": "0.001"}, -4164),
    ({"type": "LIMIT", "timeInForce": "GTC"}, -1102),
    ({"type": "LIMIT", "price": "49000"}, -1102),
    ({"type": "LIMIT", "price": "49000", "timeInForce": "SOON"}, -1115),
    ({"type": "LIMIT", "price": "-1", "timeInForce": "GTC"}, -4001),
    ({"type": "LIMIT", "price": "49000.05", "timeInForce": "GTC"}, -4014),
    ({"type": "LIMIT", "price": "49000.001", "timeInForce": "GTC"}, -1111),
    ({"type": "LIMIT", "price": "99999999", "timeInForce": "GTC"}, -4002),
    ({"type": "LIMIT", "price": "53000", "timeInForce": "GTC"}, -4016),
    ({"type": "LIMIT", "price": "47000", "side": "SELL", "timeInForce": "GTC"}, -4024),
    ({"type": "LIMIT", "price": "49000", "quantity": "0.002", "timeInForce": "GTC"}, -4164),
    ({"type": "LIMIT", "price": "51000", "timeInForce": "GTX"}, -5022),
    ({"reduceOnly": "true"}, -2022),
    ({"quantity": "20"}, -2019),
]


async def test_orders_that_filters_refuse() -> None:
    async with still() as client:
        for changes, code in WRONG_ORDERS:
            answer = await client.order(**changes)
            assert (answer.status_code, answer.json()["code"]) == (400, code), changes
            assert set(answer.json()) == {"code", "msg"}
            if code not in (-2019, -2022, -4016, -4024, -4164, -5022):
                tested = await client.ask("POST", "v1/order/test", symbol=BTC, side="BUY", **_market(changes))
                assert tested.json()["code"] == code, changes
        assert client.engine.books().orders == ()
        assert (await client.ask("POST", "v1/order/test", symbol=BTC, side="BUY", **_market({}))).json() == {}


def _market(changes: dict[str, object]) -> dict[str, object]:
    return {"type": "MARKET", "quantity": "0.01", **changes}


async def test_a_batch_succeeds_and_fails_order_by_order() -> None:
    async with still() as client:
        order = {"symbol": BTC, "side": "BUY", "type": "LIMIT", "quantity": "0.01", "timeInForce": "GTC"}
        rows: list[dict[str, Any]] = [
            {**order, "price": "49000", "newClientOrderId": "one"},
            {**order, "price": "49000.05"},
            {**order, "price": "49100", "newClientOrderId": "three"},
            {**order, "type": "STOP_MARKET", "stopPrice": "48000"},
        ]
        answer = (await client.ask("POST", "v1/batchOrders", batchOrders=json.dumps(rows))).json()
        assert [row.get("code", row.get("clientOrderId")) for row in answer] == ["one", -4014, "three", -4120]
        for wrong in ("[]", json.dumps(rows * 2), "{", '["x"]'):
            assert (await client.ask("POST", "v1/batchOrders", batchOrders=wrong)).status_code == 400
        ids = json.dumps([answer[0]["orderId"], 99])
        cancelled = (await client.ask("DELETE", "v1/batchOrders", symbol=BTC, orderIdList=ids)).json()
        assert [row.get("code", row.get("status")) for row in cancelled] == ["CANCELED", -2011]
        by_name = await client.ask("DELETE", "v1/batchOrders", symbol=BTC, origClientOrderIdList='["three"]')
        assert by_name.json()[0]["status"] == "CANCELED"
        assert seen(await client.ask("DELETE", "v1/batchOrders", symbol=BTC)) == (400, -1102)
        assert client.engine.open_orders() == []


async def test_an_open_order_is_found_until_it_ends(client: RawClient) -> None:
    await client.limit("rests")
    query = {"symbol": BTC, "origClientOrderId": "rests"}
    assert (await client.ask("GET", "v1/openOrder", **query)).json()["status"] == "NEW"
    await client.ask("DELETE", "v1/order", **query)
    assert seen(await client.ask("GET", "v1/openOrder", **query)) == (400, -2013)
    assert (await client.ask("GET", "v1/order", **query)).json()["status"] == "CANCELED"


async def test_an_order_is_changed_and_the_changes_are_listed() -> None:
    async with still() as client:
        first, second = [(await client.limit(name)).json() for name in ("one", "two")]
        change = {"symbol": BTC, "side": "BUY", "quantity": "0.02", "price": "49000"}
        changed = (await client.ask("PUT", "v1/order", orderId=first["orderId"], **change)).json()
        assert (changed["orderId"], changed["price"], changed["origQty"]) == (first["orderId"], "49000", "0.02")
        rows = [{**change, "orderId": second["orderId"], "price": price} for price in ("49100", "49100", "1.23")]
        batch = await client.ask("PUT", "v1/batchOrders", batchOrders=json.dumps(rows))
        assert [row.get("code", row.get("price")) for row in batch.json()] == ["49100", -5027, -4014]
        assert batch.headers["X-MBX-ORDER-COUNT-1M"] == "8"
        listed = (await client.ask("GET", "v1/orderAmendment", symbol=BTC, orderId=first["orderId"])).json()
        (amendment,) = listed
        assert amendment["amendment"]["origQty"] == {"before": "0.01", "after": "0.02"}
        for changes, code in (
            ({"orderId": 99}, -2013),
            ({"orderId": first["orderId"], "side": "SELL"}, -1130),
            ({"orderId": first["orderId"], "price": "60000"}, -4016),
            ({}, -1102),
        ):
            assert seen(await client.ask("PUT", "v1/order", **{**change, **changes})) == (400, code)


async def test_conditional_orders_of_every_type_and_what_they_are_refused_for() -> None:
    async with still() as client:
        await client.order()
        order = {"symbol": BTC, "side": "SELL", "quantity": "0.01", "algoType": "CONDITIONAL", "reduceOnly": "true"}
        kinds: list[tuple[dict[str, object], dict[str, object]]] = [
            (
                {"type": "STOP_MARKET", "triggerPrice": "45000", "workingType": "MARK_PRICE"},
                {"workingType": "MARK_PRICE"},
            ),
            ({"type": "TAKE_PROFIT_MARKET", "triggerPrice": "55000", "priceProtect": "true"}, {"priceProtect": True}),
            ({"type": "STOP", "triggerPrice": "45000", "price": "44900"}, {"price": "44900"}),
            ({"type": "TAKE_PROFIT", "triggerPrice": "55000", "price": "54900"}, {"orderType": "TAKE_PROFIT"}),
            (
                {"type": "TRAILING_STOP_MARKET", "callbackRate": "1.5", "activatePrice": "51000"},
                {"callbackRate": "1.5"},
            ),
        ]
        for fields, shown in kinds:
            answer = await client.ask("POST", "v1/algoOrder", **order, **fields)
            assert answer.status_code == 200, answer.text
            assert shown.items() <= answer.json().items()
        wrong: list[tuple[dict[str, object], int]] = [
            ({"type": "MARKET", "triggerPrice": "45000"}, -1116),
            ({"type": "STOP_MARKET"}, -1102),
            ({"type": "STOP_MARKET", "triggerPrice": "55000"}, -2021),
            ({"type": "STOP_MARKET", "triggerPrice": "45000.05"}, -4014),
            ({"type": "STOP_MARKET", "triggerPrice": "45000", "workingType": "MOOD"}, -4031),
            ({"type": "STOP", "triggerPrice": "45000"}, -1102),
            ({"type": "TRAILING_STOP_MARKET", "callbackRate": "50"}, -1130),
            ({"type": "STOP_MARKET", "triggerPrice": "45000", "closePosition": "true"}, -4137),
            ({"type": "STOP_MARKET", "triggerPrice": "45000", "algoType": "VP"}, -1116),
            ({"type": "STOP_MARKET", "triggerPrice": "45000", "positionSide": "LONG"}, -4061),
            ({"type": "STOP_MARKET", "triggerPrice": "45000", "positionSide": "UP"}, -4060),
        ]
        for fields, code in wrong:
            assert seen(await client.ask("POST", "v1/algoOrder", **{**order, **fields})) == (400, code), fields
        assert len((await client.ask("GET", "v1/openAlgoOrders")).json()) == 5
        (row,) = (await client.ask("GET", "v1/allAlgoOrders", symbol=BTC, algoId=5)).json()
        assert row["orderType"] == "TRAILING_STOP_MARKET"


async def test_a_date_until_which_an_order_is_good() -> None:
    async with still() as client:
        now = round(START.timestamp() * 1000)
        order = {"type": "LIMIT", "timeInForce": "GTD", "price": "49000"}
        assert seen(await client.order(**order)) == (400, -1102)
        assert seen(await client.order(**order, goodTillDate=now + 500_000)) == (400, -5040)
        placed = (await client.order(**order, goodTillDate=now + 7_200_000)).json()
        assert (placed["status"], placed["goodTillDate"]) == ("NEW", now + 7_200_000)
        client.engine.advance_to(START + timedelta(hours=3))
        gone = (await client.ask("GET", "v1/order", symbol=BTC, orderId=placed["orderId"])).json()
        assert gone["status"] == "EXPIRED"


async def test_hedge_mode_has_two_positions() -> None:
    async with still() as client:
        assert seen(await client.ask("POST", "v1/positionSide/dual", dualSidePosition="false")) == (400, -4059)
        assert (await client.ask("POST", "v1/positionSide/dual", dualSidePosition="true")).json()["code"] == 200
        assert seen(await client.order()) == (400, -4061)
        await client.order(positionSide="LONG", quantity="0.02")
        await client.order(positionSide="SHORT", side="SELL")
        rows = (await client.ask("GET", "v3/positionRisk", symbol=BTC)).json()
        assert {row["positionSide"]: row["positionAmt"] for row in rows} == {"LONG": "0.02", "SHORT": "-0.01"}
        quantile = (await client.ask("GET", "v1/adlQuantile", symbol=BTC)).json()["adlQuantile"]
        assert quantile.keys() == {"LONG", "SHORT"}
        trades = (await client.ask("GET", "v1/userTrades", symbol=BTC)).json()
        assert [row["positionSide"] for row in trades] == ["LONG", "SHORT"]
        assert seen(await client.ask("POST", "v1/positionSide/dual", dualSidePosition="false")) == (400, -4068)


async def test_isolated_margin_is_set_aside_and_moved() -> None:
    async with still() as client:
        assert seen(await client.ask("POST", "v1/marginType", symbol=BTC, marginType="CROSSED")) == (400, -4046)
        assert (await client.ask("POST", "v1/marginType", symbol=BTC, marginType="ISOLATED")).json()["code"] == 200
        await client.order()
        more = {"symbol": BTC, "amount": "20", "type": 1}
        assert (await client.ask("POST", "v1/positionMargin", **more)).json()["amount"] == 20
        for changes, code in (({"amount": "99999"}, -4050), ({"type": 3}, -1130), ({"amount": "0"}, -4055)):
            assert seen(await client.ask("POST", "v1/positionMargin", **{**more, **changes})) == (400, code)
        (row,) = (await client.ask("GET", "v1/positionMargin/history", symbol=BTC)).json()
        assert (row["type"], row["amount"]) == (1, "20")
        (risk,) = (await client.ask("GET", "v2/positionRisk", symbol=BTC)).json()
        assert risk["marginType"] == "isolated"
        assert float(risk["isolatedWallet"]) > 20
        (config,) = (await client.ask("GET", "v1/symbolConfig", symbol=BTC)).json()
        assert config["marginType"] == "ISOLATED"
        assert seen(await client.ask("POST", "v1/marginType", symbol=BTC, marginType="CROSSED")) == (400, -4048)


# -- looking back --------------------------------------------------------------------------------------------------


async def test_queries_forget_as_binance_does() -> None:
    async with still(hours=24 * 95) as client:
        await client.order(newClientOrderId="filled")
        await client.limit("cancelled")
        await client.ask("DELETE", "v1/order", symbol=BTC, origClientOrderId="cancelled")
        await client.limit("open")

        async def found() -> set[str]:
            names = ("filled", "cancelled", "open")
            answers = {name: await client.ask("GET", "v1/order", symbol=BTC, origClientOrderId=name) for name in names}
            return {name for name, answer in answers.items() if answer.status_code == 200}

        listed: list[set[str]] = []
        for days, expected in ((2, {"filled", "cancelled", "open"}), (4, {"filled", "open"}), (91, {"open"})):
            client.engine.advance_to(START + timedelta(days=days))
            assert await found() == expected
            rows = (await client.ask("GET", "v1/allOrders", symbol=BTC, orderId=1)).json()
            listed.append({row["clientOrderId"] for row in rows})
            assert listed[-1] == expected
        assert (await client.ask("GET", "v1/income", incomeType="COMMISSION")).json() == [], "the last seven days"
        assert (await client.ask("GET", "v1/allOrders", symbol=BTC)).json() == []
        assert len((await client.ask("GET", "v1/userTrades", symbol=BTC, fromId=1)).json()) == 1


async def test_time_windows() -> None:
    async with still(hours=24 * 20) as client:
        start = round(START.timestamp() * 1000)
        day = 86_400_000
        for number in range(3):
            client.engine.advance_to(START + timedelta(days=5 * number))
            await client.order(newClientOrderId=f"order-{number}")
        for path, key in (("v1/allOrders", "time"), ("v1/userTrades", "time")):
            rows = (await client.ask("GET", path, symbol=BTC, startTime=start, endTime=start + 7 * day)).json()
            assert [(row[key] - start) // day for row in rows] == [0, 5], path
            rows = (await client.ask("GET", path, symbol=BTC)).json()
            assert [(row[key] - start) // day for row in rows] == [5, 10], "the last seven days"
            rows = (await client.ask("GET", path, symbol=BTC, startTime=start + day)).json()
            assert [(row[key] - start) // day for row in rows] == [5], "seven days from there"
            rows = (await client.ask("GET", path, symbol=BTC, startTime=start, limit=1)).json()
            assert [(row[key] - start) // day for row in rows] == [0], "oldest first"
            too_long = await client.ask("GET", path, symbol=BTC, startTime=start, endTime=start + 8 * day)
            assert seen(too_long) == (400, -4165)
            assert seen(await client.ask("GET", path, symbol=BTC, startTime=start + 5, endTime=start)) == (400, -1023)
        both = await client.ask("GET", "v1/userTrades", symbol=BTC, startTime=start, fromId=1)
        assert seen(both) == (400, -1128)
        rows = (await client.ask("GET", "v1/income", incomeType="COMMISSION", startTime=start)).json()
        assert [(row["time"] - start) // day for row in rows] == [0, 5, 10]
        asked = {"incomeType": "COMMISSION", "startTime": start, "limit": 2}
        pages = [(await client.ask("GET", "v1/income", **asked, page=page)).json() for page in (1, 2, 3)]
        assert [len(page) for page in pages] == [2, 1, 0]


async def test_forced_orders_are_listed(client: RawClient) -> None:
    for kind in ("liquidate", "adl"):
        await client.order()
        await client.arm(kind, symbol=BTC)
    rows = (await client.ask("GET", "v1/forceOrders", symbol=BTC)).json()
    assert [row["clientOrderId"][:9] for row in rows] == ["autoclose", "adl_autoc"]
    for kind, count in (("LIQUIDATION", 1), ("ADL", 1)):
        assert len((await client.ask("GET", "v1/forceOrders", autoCloseType=kind)).json()) == count
    assert seen(await client.ask("GET", "v1/forceOrders", autoCloseType="MOOD")) == (400, -1130)


# -- market --------------------------------------------------------------------------------------------------------


async def test_trades_and_aggregate_trades(client: RawClient) -> None:
    client.exchange.live.freeze(frozen=True)
    newest = (await client.ask("GET", "v1/aggTrades", symbol=BTC, limit=5)).json()
    assert len(newest) == 5
    assert [row["a"] for row in newest] == sorted(row["a"] for row in newest)
    again = (await client.ask("GET", "v1/aggTrades", symbol=BTC, fromId=newest[2]["a"], limit=2)).json()
    assert again == newest[2:4]
    window = {"startTime": newest[1]["T"], "endTime": newest[3]["T"]}
    assert newest[1] in (await client.ask("GET", "v1/aggTrades", symbol=BTC, **window)).json()
    both = await client.ask("GET", "v1/aggTrades", symbol=BTC, fromId=1, **window)
    assert seen(both) == (400, -1128)
    plain = (await client.ask("GET", "v1/trades", symbol=BTC, limit=5)).json()
    assert [row["id"] for row in plain] == [row["a"] for row in newest]
    assert {row["isBuyerMaker"] for row in plain} <= {True, False}


async def test_small_answers(client: RawClient) -> None:
    assert (await client.ask("GET", "v1/fundingInfo")).json()[0]["fundingIntervalHours"] == 8
    assert float((await client.ask("GET", "v1/openInterest", symbol=BTC)).json()["openInterest"]) > 0
    assert (await client.ask("GET", "v1/constituents", symbol=BTC)).json()["symbol"] == BTC
    assert (await client.ask("GET", "v1/accountConfig")).json()["canTrade"] is True
    assert (await client.ask("GET", "v1/apiTradingStatus")).json()["indicators"] == {}
    assert (await client.ask("GET", "v1/feeBurn")).json() == {"feeBurn": False}
    assert (await client.ask("GET", "v1/adlQuantile", symbol=BTC)).json()["symbol"] == BTC
    assert seen(await client.ask("POST", "v1/multiAssetsMargin", multiAssetsMargin="false")) == (400, -4171)
    rights = (await client.ask("GET", "/sapi/v1/account/apiRestrictions")).json()
    assert (rights["enableFutures"], rights["enableWithdrawals"], rights["ipRestrict"]) == (True, False, True)
    candles = (await client.ask("GET", "v1/indexPriceKlines", pair=BTC, interval="1m", limit=2)).json()
    assert len(candles) == 2
