"""Our client against the real paper exchange: what errors say, and streams that come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import ccxt
import pytest

from infrastructure.paper_exchange.faults import Fault
from shared.clock import SystemClock
from shared.errors import (
    ConnectionLostError,
    ExchangeError,
    InvalidInputError,
    OrderRejectedError,
    OutcomeUnknownError,
)
from shared.exchange.client import STREAM_CONNECTED, BinanceUsdm, create_exchange
from shared.exchange.clock_offset import ClockOffset
from shared.exchange.klines import candle_from_event
from shared.exchange.outcome import translate
from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange
from tests.support.markets import BTC

S = "BTC/USDT:USDT"


@contextlib.asynccontextmanager
async def connected(url: str, *, secret: str = "paper") -> AsyncIterator[BinanceUsdm]:
    client = create_exchange("paper", base_url=url, api_key="paper", secret=secret)
    try:
        yield client
    finally:
        await client.close()
        await asyncio.sleep(0)


@pytest.fixture
async def exchange() -> AsyncIterator[RunningExchange]:
    async with paper_exchange() as running:
        yield running


@contextlib.asynccontextmanager
async def following(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def failure(call: Awaitable[Any]) -> Exception:
    with pytest.raises(Exception) as caught:
        await call
    return caught.value


async def place(client: BinanceUsdm, quantity: float = 0.01, **more: Any) -> Any:
    return await client.create_order(S, "market", "buy", quantity, None, more)


async def test_orders_pass_and_refusals_carry_code_and_status(exchange: RunningExchange) -> None:
    async with connected(exchange.url) as client:
        await client.load_markets()
        order = await place(client, clientOrderId="qt3-1")
        assert (order["clientOrderId"], order["status"]) == ("qt3-1", "closed")
        refused = await failure(place(client, 5))
        assert isinstance(refused, ccxt.InsufficientFunds), "as on the real exchange"
        translated = translate(refused)
        assert isinstance(translated, OrderRejectedError)
        assert (translated.code, translated.http_status) == (-2019, 400)
        unknown = translate(await failure(client.fetch_order("77", S)))
        assert isinstance(unknown, OutcomeUnknownError)
        assert unknown.code == -2013
        nothing_to_do = translate(await failure(client.set_margin_mode("cross", S)))
        assert type(nothing_to_do) is ExchangeError
        assert nothing_to_do.code == -4046
        too_small = translate(await failure(place(client, 0.00001)))
        assert isinstance(too_small, OrderRejectedError), "refused by the client itself, nothing was sent"


async def test_a_wrong_secret_is_a_refusal(exchange: RunningExchange) -> None:
    async with connected(exchange.url, secret="wrong") as client:
        refused = translate(await failure(client.fetch_balance()))
        assert isinstance(refused, OrderRejectedError)
        assert refused.code == -1022


@pytest.mark.parametrize("kind", ["lose_order_answer", "lose_order", "garble_order_answer"])
async def test_an_answer_that_proves_nothing_is_an_unknown_outcome(exchange: RunningExchange, kind: str) -> None:
    async with connected(exchange.url) as client:
        await client.load_markets()
        await exchange.admin.post("/admin/faults", json={"kind": kind})
        error = translate(await failure(place(client)))
        assert isinstance(error, OutcomeUnknownError)
        assert len(exchange.live.engine.fills(BTC)) == (0 if kind == "lose_order" else 1)


async def test_an_answer_that_does_not_come_is_an_unknown_outcome(exchange: RunningExchange) -> None:
    async with connected(exchange.url) as client:
        await client.load_markets()
        client.timeout = 300
        await exchange.admin.post("/admin/faults", json={"kind": "hold_order_answer", "seconds": 60})
        error = translate(await failure(place(client)))
        assert isinstance(error, OutcomeUnknownError)
        assert error.http_status is None


async def test_an_exchange_that_is_not_there_got_nothing() -> None:
    async with paper_exchange() as gone:
        url = gone.url
    async with connected(url) as client:
        error = translate(await failure(client.fapiPrivatePostOrder({"symbol": BTC})))
        assert isinstance(error, ConnectionLostError)
        assert isinstance(translate(await failure(client.fetch_time())), ConnectionLostError)


async def next_event(client: BinanceUsdm, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    while not fits(event := await asyncio.wait_for(client.user_events.get(), 20)):
        pass
    return event


def is_connect(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["e"] == STREAM_CONNECTED and event["connection"] == number


async def test_user_events_come_raw_and_the_stream_comes_back(exchange: RunningExchange) -> None:
    async with connected(exchange.url) as client, following(client.follow_user_stream()):
        assert await next_event(client, is_connect(1))
        await client.load_markets()
        await place(client, clientOrderId="first")
        event = await next_event(
            client, lambda event: event["e"] == "ORDER_TRADE_UPDATE" and event["o"]["x"] == "TRADE"
        )
        assert (event["o"]["c"], event["o"]["X"]) == ("first", "FILLED")

        await exchange.admin.post("/admin/streams/close", json={"which": "user"})
        assert await next_event(client, is_connect(2))
        await place(client, clientOrderId="second")
        assert await next_event(client, lambda event: event.get("o", {}).get("c") == "second")

        await exchange.admin.post("/admin/listen_key/expire")
        assert await next_event(client, lambda event: event["e"] == "listenKeyExpired")
        assert await next_event(client, is_connect(3))
        await place(client, clientOrderId="third")
        assert await next_event(client, lambda event: event.get("o", {}).get("c") == "third")


async def test_streams_find_an_exchange_that_was_started_again() -> None:
    async with paper_exchange() as first:
        url = first.url
    port = int(url.rpartition(":")[2])
    async with connected(url) as client, following(client.follow_user_stream()):
        for number in (1, 2):
            async with paper_exchange(port=port):
                assert await next_event(client, is_connect(number))


async def closed_after_marker(client: BinanceUsdm) -> tuple[dict[str, Any], dict[str, Any]]:
    while (marker := await asyncio.wait_for(client.closed_klines.get(), 20))["e"] != STREAM_CONNECTED:
        pass
    return marker, await asyncio.wait_for(client.closed_klines.get(), 20)


async def test_closed_candles_arrive_and_the_stream_comes_back() -> None:
    async with (
        paper_exchange(rate=600.0) as fast,
        connected(fast.url) as client,
        following(client.follow_klines([S, "ETHUSDT"], "1m")),
    ):
        marker, kline = await closed_after_marker(client)
        assert (marker["stream"], marker["connection"]) == ("klines", 1)
        candle = candle_from_event(kline)
        assert candle in fast.live.engine.candles(candle.symbol, "1m", candle.open_time, candle.close_time)
        await fast.admin.post("/admin/streams/close", json={"which": "market"})
        marker, kline = await closed_after_marker(client)
        assert marker["connection"] == 2
        assert candle_from_event(kline).open_time > candle.open_time


async def test_a_broken_candle_reaches_the_queue_and_is_refused_there(exchange: RunningExchange) -> None:
    async with connected(exchange.url) as client, following(client.follow_klines([S], "1m")):
        assert (await asyncio.wait_for(client.closed_klines.get(), 20))["e"] == STREAM_CONNECTED
        await exchange.admin.post("/admin/market/candle", json={"symbol": BTC, "fields": {"c": "NaN"}})
        kline = await asyncio.wait_for(client.closed_klines.get(), 20)
        with pytest.raises(InvalidInputError, match="close"):
            candle_from_event(kline)
        await exchange.admin.post("/admin/market/candle", json={"symbol": BTC, "fields": {"c": None}})
        assert (await asyncio.wait_for(client.closed_klines.get(), 20))["k"]["c"] is None


async def test_a_message_that_cannot_be_read_does_not_end_the_stream(exchange: RunningExchange) -> None:
    async with connected(exchange.url) as client, following(client.follow_klines([S], "1m")):
        assert (await asyncio.wait_for(client.closed_klines.get(), 20))["e"] == STREAM_CONNECTED
        exchange.live.hub.publish("btcusdt@kline_1m", {"e": "kline"})
        await exchange.admin.post("/admin/market/candle", json={"symbol": BTC, "fields": {}})
        kline = await asyncio.wait_for(client.closed_klines.get(), 20)
        assert kline["k"]["x"] is True
        await eventually(client.closed_klines.empty)


async def test_signatures_follow_the_exchange_when_the_clocks_differ(exchange: RunningExchange) -> None:
    async with connected(exchange.url) as client:
        offset = ClockOffset(client.fapiPublicGetTime, clock=SystemClock(), correct=client.correct_time)
        client.on_wrong_time = offset.doubt
        await offset.start()
        exchange.live.faults.arm(Fault("clock_offset", value="-5000", seconds=60))
        await eventually(lambda: bool(exchange.live.clock_offset), what="the exchange's clock set back")

        refused = await failure(client.fapiPrivateV3GetAccount())
        assert "-1021" in str(translate(refused))
        await eventually(lambda: offset.bar() is not None, what="the offset measured again")

        assert "5000 ms ahead of the exchange's" in str(offset.bar()).replace("5001", "5000").replace("4999", "5000")
        assert await client.fapiPrivateV3GetAccount()  # reads, exits and cancels work
        await offset.stop()
