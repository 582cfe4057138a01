"""The golden call trace: an unmodified ccxt client drives the paper exchange, and sends exactly what is written here.

When an upgrade of ccxt changes a request, the test that names it fails.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ccxt
import pytest

from infrastructure.paper_exchange.arrived_requests import ArrivedRequest
from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange, plain_ccxt
from tests.support.markets import WrittenSource, flat

S = "BTC/USDT:USDT"


@dataclass
class Session:
    """A client, the exchange it talks to, and the last price."""

    client: Any
    exchange: RunningExchange
    price: float

    def at(self, factor: float) -> float:
        return float(self.client.price_to_precision(S, self.price * factor))


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with paper_exchange() as exchange, plain_ccxt(exchange.url) as client:
        exchange.live.freeze(frozen=True)  # so that prices below stay what they are
        await client.load_markets()
        yield Session(client, exchange, (await client.fetch_ticker(S))["last"])


async def enter(s: Session) -> Any:
    return await s.client.create_order(S, "market", "buy", 0.02, None, {"clientOrderId": "entry"})


async def rest(s: Session) -> Any:
    return await s.client.create_order(S, "limit", "buy", 0.012, s.at(0.97), {"clientOrderId": "cid-1"})


async def protect(s: Session) -> Any:
    more = {"stopLossPrice": s.at(0.9), "reduceOnly": True, "clientOrderId": "sl-1"}
    return await s.client.create_order(S, "market", "sell", 0.01, None, more)


Call = Callable[[Session], Awaitable[Any]]

# -- the golden trace ----------------------------------------------------------------------------------------------

#: A copy of the calls that were recorded once; lines of ``name, request`` and of what came back.
TRACE = Path(__file__).parents[1] / "golden" / "ccxt_trace.txt"
_LINE = re.compile(r"^(.{34}) (GET|POST|PUT|DELETE) (\S+) (QS|BODY) \[(.*)\] sig=(True|None)$")
#: Client ids that ccxt makes up.
_MADE_UP = re.compile(r"x-cvBPrNm9[0-9a-f]+")


def recorded_trace() -> dict[str, list[str]]:
    """Return the requests of each call in the trace."""
    calls: dict[str, list[str]] = {}
    for line in TRACE.read_text().splitlines():
        if match := _LINE.match(line):
            name, method, path, where, parameters, signed = match.groups()
            calls.setdefault(name.strip(), []).append(
                f"{method} {path} {where} [{_MADE_UP.sub('x-', parameters)}] sig={signed}"
            )
    return calls


def as_recorded(request: ArrivedRequest) -> str:
    """Return a request that arrived in the words of the trace."""
    where = "QS" if request.query else "BODY"
    parameters = _MADE_UP.sub("x-", request.query + request.body)
    return f"{request.method} {request.path} {where} [{parameters}] sig={request.is_signed or None}"


async def buy(s: Session) -> None:
    await s.client.create_order(S, "market", "buy", 0.05, None, {"clientOrderId": "entry"})


async def rest_again(s: Session) -> None:
    await s.client.create_order(S, "limit", "buy", 0.012, 50000.1, {"clientOrderId": "cid-1"})


async def start_hedging(s: Session) -> None:
    """Leave nothing open, go to hedge mode, and hold something long."""
    await s.client.cancel_all_orders(S)
    await s.client.cancel_all_orders(S, {"trigger": True})
    held = s.exchange.live.engine.position("BTCUSDT").quantity
    if held:
        await s.client.create_order(S, "market", "sell", float(held), None, {"reduceOnly": True})
    await s.client.set_position_mode(True)
    await s.client.create_order(S, "market", "buy", 0.01, None, {"positionSide": "LONG"})


def conditional(kind: str, **more: object) -> Call:
    return lambda s: s.client.create_order(S, kind, "sell", None if "closePosition" in more else 0.01, None, more)


LIMIT = {"symbol": S, "type": "limit", "amount": 0.01}

#: Name in the trace: (what is done first, the call). In an order in which every call succeeds at prices around 50100.
CALLS: dict[str, tuple[tuple[Call, ...], Call]] = {
    "load_markets": ((), lambda s: s.client.load_markets(True)),
    "fetch_time": ((), lambda s: s.client.fetch_time()),
    "fetch_ohlcv": ((), lambda s: s.client.fetch_ohlcv(S, "1m")),
    "fetch_order_book": ((), lambda s: s.client.fetch_order_book(S, 20)),
    "fetch_ticker": ((), lambda s: s.client.fetch_ticker(S)),
    "fetch_bids_asks": ((), lambda s: s.client.fetch_bids_asks([S])),
    "fetch_funding_rate": ((), lambda s: s.client.fetch_funding_rate(S)),
    "fetch_mark_price": ((), lambda s: s.client.fetch_mark_price(S)),
    "fetch_funding_rate_history": ((), lambda s: s.client.fetch_funding_rate_history(S)),
    "fetch_balance": ((), lambda s: s.client.fetch_balance()),
    "fetch_positions([S])": ((), lambda s: s.client.fetch_positions([S])),
    "fetch_positions useV2": ((), lambda s: s.client.fetch_positions([S], {"useV2": True})),
    "set_leverage": ((), lambda s: s.client.set_leverage(5, S)),
    "set_margin_mode": ((), lambda s: s.client.set_margin_mode("isolated", S)),
    "fetch_position_mode": ((), lambda s: s.client.fetch_position_mode(S)),
    "fetch_leverage_tiers": ((), lambda s: s.client.fetch_leverage_tiers([S])),
    "fetch_trading_fee": ((), lambda s: s.client.fetch_trading_fee(S)),
    "fetch_leverage": ((), lambda s: s.client.fetch_leverage(S)),
    "create limit": ((), rest_again),
    "create limit postOnly": (
        (),
        lambda s: s.client.create_order(S, "limit", "buy", 0.01, 50000, {"postOnly": True}),
    ),
    "edit_order": ((), lambda s: s.client.edit_order("1", S, "limit", "buy", 0.01, 50001)),
    "fetch_order id": ((), lambda s: s.client.fetch_order("1", S)),
    "fetch_order cid": ((), lambda s: s.client.fetch_order(None, S, {"clientOrderId": "cid-1"})),
    "fetch_open_orders": ((), lambda s: s.client.fetch_open_orders(S)),
    "cancel_orders": ((), lambda s: s.client.cancel_orders(["1", "2"], S)),
    "cancel_order cid": (
        (rest_again,),
        lambda s: s.client.cancel_order(None, S, {"clientOrderId": "cid-1"}),
    ),
    "create market reduceOnly": (
        (buy,),
        lambda s: s.client.create_order(S, "market", "sell", 0.01, None, {"reduceOnly": True}),
    ),
    "create stopLossPrice market": (
        (),
        conditional("market", stopLossPrice=40000, reduceOnly=True, clientOrderId="sl-1"),
    ),
    "create STOP_MARKET closePosition": (
        (),
        conditional("STOP_MARKET", stopPrice=40000, closePosition=True, workingType="MARK_PRICE"),
    ),
    "create takeProfit market": ((), conditional("market", takeProfitPrice=60000, reduceOnly=True)),
    "create trailing": ((), conditional("TRAILING_STOP_MARKET", callbackRate=1, reduceOnly=True)),
    "fetch_order trigger cid": (
        (),
        lambda s: s.client.fetch_order(None, S, {"trigger": True, "clientAlgoId": "sl-1"}),
    ),
    "fetch_open_orders trigger": ((), lambda s: s.client.fetch_open_orders(S, None, None, {"trigger": True})),
    "cancel_order trigger": (
        (),
        lambda s: s.client.cancel_order(None, S, {"trigger": True, "clientAlgoId": "sl-1"}),
    ),
    "create_orders batch": (
        (),
        lambda s: s.client.create_orders(
            [{**LIMIT, "side": "buy", "price": 50000}, {**LIMIT, "side": "sell", "price": 51000}]
        ),
    ),
    "fetch_orders": ((), lambda s: s.client.fetch_orders(S)),
    "fetch_my_trades": ((), lambda s: s.client.fetch_my_trades(S)),
    "cancel_all_orders": ((), lambda s: s.client.cancel_all_orders(S)),
    "cancel_all trigger": ((), lambda s: s.client.cancel_all_orders(S, {"trigger": True})),
    "countdown": (
        (),
        lambda s: s.client.fapiPrivatePostCountdownCancelAll({"symbol": "BTCUSDT", "countdownTime": 120000}),
    ),
    "fetch_funding_history": ((), lambda s: s.client.fetch_funding_history(S)),
    "fetch_ledger": ((), lambda s: s.client.fetch_ledger()),
    "create market hedged": (
        (start_hedging,),
        lambda s: s.client.create_order(S, "market", "sell", 0.01, None, {"positionSide": "LONG", "hedged": True}),
    ),
    "set_position_mode": ((), lambda s: s.client.set_position_mode(False)),
}


@pytest.fixture
async def around_50100() -> AsyncIterator[Session]:
    async with (
        paper_exchange(WrittenSource(flat(50_100, 3_000), history=1_500)) as exchange,
        plain_ccxt(exchange.url) as client,
    ):
        exchange.live.freeze(frozen=True)
        yield Session(client, exchange, 50_100)


async def test_what_arrives_equals_the_golden_trace(around_50100: Session) -> None:
    arrived: dict[str, list[str]] = {}
    requests = around_50100.exchange.live.requests
    for name, (first, call) in CALLS.items():
        for step in first:
            await step(around_50100)
        before = len(requests)
        await call(around_50100)
        new = list(requests)[before:]
        arrived[name] = [as_recorded(request) for request in new]
        assert [request.status for request in new] == [200] * len(new), name
    recorded = recorded_trace()
    (batch,), (cut_off,) = arrived["create_orders batch"], recorded["create_orders batch"]
    assert batch.startswith(cut_off.removesuffix("] sig=True"))
    recorded["create_orders batch"] = [batch]
    assert arrived == recorded


def test_the_copy_of_the_trace_is_the_recorded_one() -> None:
    original = Path(__file__).parents[3] / "shared" / "golden" / "ccxt_trace.txt"
    if not original.is_file():
        pytest.skip("the recorded trace does not lie beside the checkout")
    assert TRACE.read_text() == original.read_text()


async def test_calls_that_ccxt_refuses_itself_send_nothing(session: Session) -> None:
    before = len(session.exchange.live.requests)
    stop = {**LIMIT, "side": "sell", "type": "market", "params": {"stopLossPrice": session.at(0.9)}}
    with pytest.raises(ccxt.NotSupported):
        await session.client.create_orders([stop])
    session.client.options["fetchOpenOrders"]["warnWithoutSymbol"] = True
    with pytest.raises(ccxt.ExchangeError, match="stricter rate limits"):
        await session.client.fetch_open_orders()
    assert len(session.exchange.live.requests) == before


#: Further calls of ccxt and what they send: (what is done first, the call, the request).
MORE: dict[str, tuple[tuple[Call, ...], Call, str]] = {
    "fetch_last_prices": ((), lambda s: s.client.fetch_last_prices([S]), "GET /fapi/v2/ticker/price BODY [] sig=None"),
    "fetch_tickers": ((), lambda s: s.client.fetch_tickers(), "GET /fapi/v1/ticker/24hr BODY [] sig=None"),
    "fetch_open_interest": (
        (),
        lambda s: s.client.fetch_open_interest(S),
        "GET /fapi/v1/openInterest QS [symbol=BTCUSDT] sig=None",
    ),
    "fetch_trades": ((), lambda s: s.client.fetch_trades(S), "GET /fapi/v1/aggTrades QS [symbol=BTCUSDT] sig=None"),
    "fetch_funding_rates": ((), lambda s: s.client.fetch_funding_rates(), "GET /fapi/v1/premiumIndex BODY [] sig=None"),
    "fetch_funding_intervals": (
        (),
        lambda s: s.client.fetch_funding_intervals(),
        "GET /fapi/v1/fundingInfo BODY [] sig=None",
    ),
    "mark price candles": (
        (),
        lambda s: s.client.fetch_ohlcv(S, "1m", None, 5, {"price": "mark"}),
        "GET /fapi/v1/markPriceKlines QS [interval=1m&limit=5&symbol=BTCUSDT] sig=None",
    ),
    "index price candles": (
        (),
        lambda s: s.client.fetch_ohlcv(S, "1m", None, 5, {"price": "index"}),
        "GET /fapi/v1/indexPriceKlines QS [interval=1m&limit=5&pair=BTCUSDT] sig=None",
    ),
    "set_margin_mode cross": (
        (lambda s: s.client.set_margin_mode("isolated", S),),
        lambda s: s.client.set_margin_mode("cross", S),
        "POST /fapi/v1/marginType BODY [symbol=BTCUSDT&marginType=CROSSED&recvWindow=10000] sig=True",
    ),
    "add_margin": (
        (lambda s: s.client.set_margin_mode("isolated", S), enter),
        lambda s: s.client.add_margin(S, 20),
        "POST /fapi/v1/positionMargin BODY [type=1&symbol=BTCUSDT&amount=20&recvWindow=10000] sig=True",
    ),
    "reduce_margin": (
        (),
        lambda s: s.client.reduce_margin(S, 5),
        "POST /fapi/v1/positionMargin BODY [type=2&symbol=BTCUSDT&amount=5&recvWindow=10000] sig=True",
    ),
    "fetch_margin_adjustment_history": (
        (),
        lambda s: s.client.fetch_margin_adjustment_history(S),
        "GET /fapi/v1/positionMargin/history QS [symbol=BTCUSDT&recvWindow=10000] sig=True",
    ),
    "fetch_my_liquidations": (
        (enter,),
        lambda s: s.client.fetch_my_liquidations(S),
        "GET /fapi/v1/forceOrders QS [autoCloseType=LIQUIDATION&symbol=BTCUSDT&recvWindow=10000] sig=True",
    ),
    "fetch_open_orders everywhere": (
        (rest,),
        lambda s: s.client.fetch_open_orders(),
        "GET /fapi/v1/openOrders QS [recvWindow=10000] sig=True",
    ),
    "fetch_orders trigger": (
        (protect,),
        lambda s: s.client.fetch_orders(S, None, None, {"trigger": True}),
        "GET /fapi/v1/allAlgoOrders QS [symbol=BTCUSDT&recvWindow=10000] sig=True",
    ),
    "fetch_closed_orders": (
        (enter,),
        lambda s: s.client.fetch_closed_orders(S),
        "GET /fapi/v1/allOrders QS [symbol=BTCUSDT&recvWindow=10000] sig=True",
    ),
}


async def test_further_calls(session: Session) -> None:
    expected, arrived = {}, {}
    for name, (first, call, request) in MORE.items():
        for step in first:
            await step(session)
        await call(session)
        expected[name], arrived[name] = request, as_recorded(session.exchange.live.requests[-1])
    assert arrived == expected
    assert {request.status for request in session.exchange.live.requests} == {200}


async def test_markets_carry_the_filters(session: Session) -> None:
    market = session.client.market(S)
    assert (market["id"], market["linear"], market["active"]) == ("BTCUSDT", True, True)
    assert market["precision"]["price"] == 0.1
    assert market["precision"]["amount"] == 0.001
    assert market["limits"]["cost"]["min"] == 100
    assert market["limits"]["market"]["max"] == 120


async def test_a_trade_seen_from_every_side(session: Session) -> None:
    entry = await enter(session)
    assert (entry["status"], entry["filled"], entry["clientOrderId"]) == ("closed", 0.02, "entry")
    (trade,) = await session.client.fetch_my_trades(S)
    assert trade["order"] == entry["id"]
    assert trade["fee"]["cost"] == pytest.approx(trade["price"] * 0.02 * 0.0005)
    assert trade["takerOrMaker"] == "taker"
    (position,) = await session.client.fetch_positions([S])
    assert (position["side"], position["contracts"]) == ("long", 0.02)
    assert position["entryPrice"] == pytest.approx(entry["average"])
    balance = await session.client.fetch_balance()
    assert float(balance["info"]["totalWalletBalance"]) == pytest.approx(10_000 - trade["fee"]["cost"])
    assert 0 < balance["USDT"]["used"] < balance["USDT"]["total"]
    ledger = await session.client.fetch_ledger()
    assert [row["amount"] for row in ledger] == [pytest.approx(trade["fee"]["cost"])]
    stop = await protect(session)
    assert (stop["status"], stop["triggerPrice"], stop["reduceOnly"]) == ("open", session.at(0.9), True)
    assert (await session.client.cancel_order(stop["id"], S, {"trigger": True}))["clientOrderId"] == "sl-1"
    assert await session.client.fetch_open_orders(S, None, None, {"trigger": True}) == []


async def test_candles_are_history_and_the_forming_one(session: Session) -> None:
    rows = await session.client.fetch_ohlcv(S, "1m", None, 100)
    assert len(rows) == 100
    now = session.exchange.live.engine.now.timestamp() * 1000
    assert rows[-1][0] <= now < rows[-1][0] + 60_000
    assert all(later[0] - earlier[0] == 60_000 for earlier, later in itertools.pairwise(rows))
    since = rows[10][0]
    assert await session.client.fetch_ohlcv(S, "1m", since, 5) == rows[10:15]
    hours = await session.client.fetch_ohlcv(S, "1h", None, 3)
    assert [row[0] % 3_600_000 for row in hours] == [0, 0, 0]


REFUSED: dict[str, Call] = {
    "-2019": lambda s: s.client.create_order(S, "market", "buy", 5),
    "-4164": lambda s: s.client.create_order("ETH/USDT:USDT", "market", "buy", 0.001),
    "-2022": lambda s: s.client.create_order(S, "market", "sell", 0.01, None, {"reduceOnly": True}),
    "-2021": lambda s: s.client.create_order(S, "market", "sell", 0.01, None, {"stopLossPrice": s.at(1.1)}),
    "-2013": lambda s: s.client.fetch_order("77", S),
    "-2011": lambda s: s.client.cancel_order("77", S),
    "-4046": lambda s: s.client.set_margin_mode("cross", S),
    "-4059": lambda s: s.client.set_position_mode(False),
    "-4061": lambda s: s.client.create_order(S, "market", "sell", 0.01, None, {"hedged": True}),
    "-1125": lambda s: s.client.fapiPrivatePutListenKey(),
}


async def test_refusals_reach_the_client(session: Session) -> None:
    for code, call in REFUSED.items():
        with pytest.raises(ccxt.ExchangeError, match=f'"code":{code},'):
            await call(session)


async def test_streams_of_an_unmodified_client(session: Session) -> None:
    client, exchange = session.client, session.exchange
    exchange.live.freeze(frozen=False)
    watches = [
        asyncio.ensure_future(each)
        for each in (client.watch_orders(), client.watch_balance(), client.watch_my_trades(), client.watch_positions())
    ]
    await eventually(lambda: len(exchange.live.hub._connections) == 1, what="the user stream")
    entry = await enter(session)
    orders, balance, trades, positions = await asyncio.wait_for(asyncio.gather(*watches), 20)
    assert orders[-1]["clientOrderId"] == "entry"
    assert balance["USDT"]["total"] < 10_000
    assert (trades[-1]["order"], trades[-1]["amount"]) == (entry["id"], 0.02)
    assert (positions[-1]["contracts"], positions[-1]["side"]) == (0.02, "long")
    (row,) = await asyncio.wait_for(client.watch_ohlcv(S, "1m"), 20)
    assert row[0] % 60_000 == 0
    best = await asyncio.wait_for(client.watch_bids_asks([S]), 20)
    assert best[S]["bid"] < best[S]["ask"]
    mark = await asyncio.wait_for(client.watch_mark_price(S), 20)
    assert mark["markPrice"] == pytest.approx(row[4], rel=0.05)
