"""The golden call trace: an unmodified ccxt client drives the paper exchange, and sends exactly what is written here.

When an upgrade of ccxt changes a request, the test that names it fails.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import ccxt
import pytest

from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange, plain_ccxt

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


def sent(client: Any) -> str:
    """Return path and parameters of the last request, without what changes with time."""
    parts = urlsplit(client.last_request_url)
    parameters = "&".join(text for text in (parts.query, client.last_request_body or "") if text)
    kept = [each for each in parameters.split("&") if each.split("=")[0] not in ("timestamp", "signature", "")]
    return f"{parts.path} {unquote('&'.join(kept))}".strip()


async def enter(s: Session) -> Any:
    return await s.client.create_order(S, "market", "buy", 0.02, None, {"clientOrderId": "entry"})


async def rest(s: Session) -> Any:
    return await s.client.create_order(S, "limit", "buy", 0.012, s.at(0.97), {"clientOrderId": "cid-1"})


async def protect(s: Session) -> Any:
    more = {"stopLossPrice": s.at(0.9), "reduceOnly": True, "clientOrderId": "sl-1"}
    return await s.client.create_order(S, "market", "sell", 0.01, None, more)


Call = Callable[[Session], Awaitable[Any]]

#: Name: (what is done first, the call, what it sends). {p97} stands for 97 % of the price.
CALLS: dict[str, tuple[tuple[Call, ...], Call, str]] = {
    "fetch_time": ((), lambda s: s.client.fetch_time(), "/fapi/v1/time"),
    "fetch_ohlcv": (
        (),
        lambda s: s.client.fetch_ohlcv(S, "1m"),
        "/fapi/v1/klines interval=1m&limit=500&symbol=BTCUSDT",
    ),
    "fetch_order_book": (
        (),
        lambda s: s.client.fetch_order_book(S, 20),
        "/fapi/v1/depth symbol=BTCUSDT&limit=20",
    ),
    "fetch_ticker": ((), lambda s: s.client.fetch_ticker(S), "/fapi/v1/ticker/24hr symbol=BTCUSDT"),
    "fetch_bids_asks": (
        (),
        lambda s: s.client.fetch_bids_asks([S]),
        "/fapi/v1/ticker/bookTicker symbol=BTCUSDT",
    ),
    "fetch_funding_rate": ((), lambda s: s.client.fetch_funding_rate(S), "/fapi/v1/premiumIndex symbol=BTCUSDT"),
    "fetch_mark_price": ((), lambda s: s.client.fetch_mark_price(S), "/fapi/v1/premiumIndex symbol=BTCUSDT"),
    "fetch_funding_rate_history": (
        (),
        lambda s: s.client.fetch_funding_rate_history(S),
        "/fapi/v1/fundingRate symbol=BTCUSDT",
    ),
    "fetch_balance": ((), lambda s: s.client.fetch_balance(), "/fapi/v3/account recvWindow=10000"),
    "fetch_positions": ((enter,), lambda s: s.client.fetch_positions([S]), "/fapi/v3/positionRisk recvWindow=10000"),
    "fetch_positions v2": (
        (enter,),
        lambda s: s.client.fetch_positions([S], {"useV2": True}),
        "/fapi/v2/positionRisk recvWindow=10000",
    ),
    "set_leverage": (
        (),
        lambda s: s.client.set_leverage(5, S),
        "/fapi/v1/leverage symbol=BTCUSDT&leverage=5&recvWindow=10000",
    ),
    "fetch_position_mode": (
        (),
        lambda s: s.client.fetch_position_mode(S),
        "/fapi/v1/positionSide/dual recvWindow=10000",
    ),
    "fetch_leverage_tiers": (
        (),
        lambda s: s.client.fetch_leverage_tiers([S]),
        "/fapi/v1/leverageBracket recvWindow=10000",
    ),
    "fetch_trading_fee": (
        (),
        lambda s: s.client.fetch_trading_fee(S),
        "/fapi/v1/commissionRate symbol=BTCUSDT&recvWindow=10000",
    ),
    "fetch_leverage": ((), lambda s: s.client.fetch_leverage(S), "/fapi/v1/symbolConfig recvWindow=10000"),
    "create limit": (
        (),
        rest,
        "/fapi/v1/order symbol=BTCUSDT&side=BUY&newClientOrderId=cid-1&newOrderRespType=RESULT&type=LIMIT"
        "&quantity=0.012&price={p97}&timeInForce=GTC&recvWindow=10000",
    ),
    "create limit post only": (
        (),
        lambda s: s.client.create_order(
            S, "limit", "buy", 0.01, s.at(0.97), {"postOnly": True, "clientOrderId": "po"}
        ),
        "/fapi/v1/order symbol=BTCUSDT&side=BUY&newClientOrderId=po&newOrderRespType=RESULT&type=LIMIT"
        "&quantity=0.01&price={p97}&timeInForce=GTX&recvWindow=10000",
    ),
    "create market": (
        (),
        enter,
        "/fapi/v1/order symbol=BTCUSDT&side=BUY&newClientOrderId=entry&newOrderRespType=RESULT&type=MARKET"
        "&quantity=0.02&recvWindow=10000",
    ),
    "create market reduce only": (
        (enter,),
        lambda s: s.client.create_order(
            S, "market", "sell", 0.01, None, {"reduceOnly": True, "clientOrderId": "exit"}
        ),
        "/fapi/v1/order symbol=BTCUSDT&side=SELL&newClientOrderId=exit&newOrderRespType=RESULT&type=MARKET"
        "&quantity=0.01&reduceOnly=true&recvWindow=10000",
    ),
    "create stop loss": (
        (enter,),
        protect,
        "/fapi/v1/algoOrder symbol=BTCUSDT&side=SELL&clientAlgoId=sl-1&newOrderRespType=RESULT&type=STOP_MARKET"
        "&quantity=0.01&triggerPrice={p90}&reduceOnly=true&algoType=CONDITIONAL&recvWindow=10000",
    ),
    "create close position": (
        (enter,),
        lambda s: s.client.create_order(
            S,
            "STOP_MARKET",
            "sell",
            None,
            None,
            {"stopPrice": s.at(0.9), "closePosition": True, "workingType": "MARK_PRICE", "clientOrderId": "cp"},
        ),
        "/fapi/v1/algoOrder symbol=BTCUSDT&side=SELL&clientAlgoId=cp&newOrderRespType=RESULT&type=STOP_MARKET"
        "&triggerPrice={p90}&closePosition=true&workingType=MARK_PRICE&algoType=CONDITIONAL&recvWindow=10000",
    ),
    "create take profit": (
        (enter,),
        lambda s: s.client.create_order(
            S, "market", "sell", 0.01, None,
            {"takeProfitPrice": s.at(1.1), "reduceOnly": True, "clientOrderId": "tp"},
        ),
        "/fapi/v1/algoOrder symbol=BTCUSDT&side=SELL&clientAlgoId=tp&newOrderRespType=RESULT&type=TAKE_PROFIT_MARKET"
        "&quantity=0.01&triggerPrice={p110}&reduceOnly=true&algoType=CONDITIONAL&recvWindow=10000",
    ),
    "fetch_order by id": (
        (rest,),
        lambda s: s.client.fetch_order("1", S),
        "/fapi/v1/order symbol=BTCUSDT&orderId=1&recvWindow=10000",
    ),
    "fetch_order by client id": (
        (rest,),
        lambda s: s.client.fetch_order(None, S, {"clientOrderId": "cid-1"}),
        "/fapi/v1/order symbol=BTCUSDT&origClientOrderId=cid-1&recvWindow=10000",
    ),
    "fetch_order trigger": (
        (protect,),
        lambda s: s.client.fetch_order(None, S, {"trigger": True, "clientAlgoId": "sl-1"}),
        "/fapi/v1/algoOrder symbol=BTCUSDT&clientAlgoId=sl-1&recvWindow=10000",
    ),
    "fetch_open_orders": (
        (rest,),
        lambda s: s.client.fetch_open_orders(S),
        "/fapi/v1/openOrders symbol=BTCUSDT&recvWindow=10000",
    ),
    "fetch_open_orders trigger": (
        (protect,),
        lambda s: s.client.fetch_open_orders(S, None, None, {"trigger": True}),
        "/fapi/v1/openAlgoOrders symbol=BTCUSDT&recvWindow=10000",
    ),
    "fetch_orders": (
        (rest,),
        lambda s: s.client.fetch_orders(S),
        "/fapi/v1/allOrders symbol=BTCUSDT&recvWindow=10000",
    ),
    "fetch_my_trades": (
        (enter,),
        lambda s: s.client.fetch_my_trades(S),
        "/fapi/v1/userTrades symbol=BTCUSDT&recvWindow=10000",
    ),
    "cancel_order": (
        (rest,),
        lambda s: s.client.cancel_order(None, S, {"clientOrderId": "cid-1"}),
        "/fapi/v1/order symbol=BTCUSDT&origClientOrderId=cid-1&recvWindow=10000",
    ),
    "cancel_order trigger": (
        (protect,),
        lambda s: s.client.cancel_order(None, S, {"trigger": True, "clientAlgoId": "sl-1"}),
        "/fapi/v1/algoOrder symbol=BTCUSDT&clientAlgoId=sl-1&recvWindow=10000",
    ),
    "cancel_all_orders": (
        (rest,),
        lambda s: s.client.cancel_all_orders(S),
        "/fapi/v1/allOpenOrders symbol=BTCUSDT&recvWindow=10000",
    ),
    "cancel_all_orders trigger": (
        (protect,),
        lambda s: s.client.cancel_all_orders(S, {"trigger": True}),
        "/fapi/v1/algoOpenOrders symbol=BTCUSDT&recvWindow=10000",
    ),
    "countdown": (
        (),
        lambda s: s.client.fapiPrivatePostCountdownCancelAll({"symbol": "BTCUSDT", "countdownTime": 120000}),
        "/fapi/v1/countdownCancelAll symbol=BTCUSDT&countdownTime=120000&recvWindow=10000",
    ),
    "fetch_funding_history": (
        (),
        lambda s: s.client.fetch_funding_history(S),
        "/fapi/v1/income incomeType=FUNDING_FEE&symbol=BTCUSDT&recvWindow=10000",
    ),
    "fetch_ledger": ((enter,), lambda s: s.client.fetch_ledger(), "/fapi/v1/income recvWindow=10000"),
}  # fmt: skip


@pytest.mark.parametrize("before", [(), (enter,), (rest,), (protect,)])
async def test_the_golden_trace(session: Session, before: tuple[Call, ...]) -> None:
    factors = {"p90": 0.9, "p97": 0.97, "p110": 1.1}
    places = {name: session.client.number_to_string(session.at(factor)) for name, factor in factors.items()}
    for step in before:
        await step(session)
    seen, expected = {}, {}
    for name, (first, call, request) in CALLS.items():
        if first == before:
            await call(session)
            seen[name], expected[name] = sent(session.client), request.format(**places)
    assert seen == expected
    assert len(seen) >= 3


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
    "-4084": lambda s: s.client.set_margin_mode("isolated", S),
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
