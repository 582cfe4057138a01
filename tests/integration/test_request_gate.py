"""One weight budget and one pause for all services: two clients, one Redis, one exchange that runs out of patience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infrastructure.paper_exchange.faults import Fault
from shared.clock import Clock, ManualClock, SystemClock
from shared.errors import ConnectionLostError
from shared.exchange.client import BinanceUsdm, create_exchange
from shared.exchange.outcome import Answer
from shared.exchange.request_costs import request_of
from shared.exchange.request_gate import RequestGate
from shared.redis_connection import RedisConnection
from tests.support.eventually import eventually
from tests.support.exchanges import paper_exchange

SCOPE = "exchange:1"
NOON = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
CANDLES = request_of("GET", "klines", {"limit": 1500})
INCOME = request_of("GET", "income", {})
ENTRY = request_of("POST", "order", {})
EXIT = request_of("POST", "order", {"reduceOnly": "true"})
CANCEL = request_of("DELETE", "order", {})


def answer(status: int, body: str = "{}") -> Answer:
    return Answer("GET", "/fapi/v1/x", status, body)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[RedisConnection]:
    connection = RedisConnection(redis_url, clock=SystemClock())
    await connection.start()
    yield connection
    await connection.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


# -- weight ------------------------------------------------------------------------------------------------------------


async def test_services_count_together_and_candles_stop_first(redis: RedisConnection, clock: ManualClock) -> None:
    ai, risk = (RequestGate(SCOPE, clock=clock, redis=redis) for _ in range(2))

    for _ in range(120):  # half of the minute's weight
        await ai.admit(CANDLES)
    waiting = asyncio.create_task(ai.admit(CANDLES))

    await risk.admit(INCOME)
    assert risk.budget.used == 1230
    assert not waiting.done()
    for _ in range(59):
        await _pass_second(clock)
        assert not waiting.done()
    await _pass_second(clock)
    await asyncio.wait_for(waiting, 5)


async def test_looks_at_the_account_stop_before_exits_do(redis: RedisConnection, clock: ManualClock) -> None:
    gate = RequestGate(SCOPE, clock=clock, redis=redis)
    for _ in range(64):
        await gate.admit(INCOME)

    with pytest.raises(ConnectionLostError, match=r"GET income: not sent, 1920 of 2400 weight .* in 60 s"):
        await gate.admit(INCOME)
    for request in (EXIT, CANCEL, ENTRY):
        await gate.admit(request)


async def test_what_the_exchange_says_corrects_the_count_of_all(redis: RedisConnection, clock: ManualClock) -> None:
    ai, risk = (RequestGate(SCOPE, clock=clock, redis=redis) for _ in range(2))
    await ai.admit(CANDLES)

    await ai.answered(CANDLES, answer(200), {"X-MBX-USED-WEIGHT-1M": "1900"})

    with pytest.raises(ConnectionLostError, match="not sent"):
        await risk.admit(INCOME)
    assert risk.budget.used == 1900


async def test_cancels_count_although_they_never_wait(redis: RedisConnection, clock: ManualClock) -> None:
    gate, other = (RequestGate(SCOPE, clock=clock, redis=redis) for _ in range(2))
    for _ in range(5):
        await gate.admit(CANCEL)
        await gate.answered(CANCEL, answer(200), {})

    await other.admit(INCOME)

    assert other.budget.used == 35


async def test_without_redis_a_process_keeps_to_a_quarter(clock: ManualClock) -> None:
    away = RedisConnection("redis://127.0.0.1:1", clock=SystemClock())
    gate = RequestGate(SCOPE, clock=clock, redis=away)
    for _ in range(16):  # 480 of 2400: four fifths of a quarter
        await gate.admit(INCOME)

    with pytest.raises(ConnectionLostError, match="not sent"):
        await gate.admit(INCOME)
    assert not gate.budget.is_shared
    await gate.admit(CANCEL)
    await away.stop()


# -- pauses ------------------------------------------------------------------------------------------------------------


async def test_one_service_is_told_to_wait_and_all_do(redis: RedisConnection, clock: ManualClock) -> None:
    ai, risk = (RequestGate(SCOPE, clock=clock, redis=redis) for _ in range(2))

    await ai.answered(CANDLES, answer(429, ""), {"Retry-After": "20"})
    await risk.start()

    assert risk.paused_seconds == 20
    assert "until 2026-01-01 12:00:20 UTC" in str(risk.bar())
    for request in (ENTRY, EXIT, CANCEL, INCOME):
        with pytest.raises(ConnectionLostError, match="not sent, the exchange asked for a pause"):
            await risk.admit(request)
    assert risk.ban() is None
    exits = asyncio.create_task(risk.opened())
    candles = asyncio.create_task(ai.admit(CANDLES))
    for _ in range(20):
        await asyncio.sleep(0.005)
        assert not exits.done()
        assert not candles.done()
        clock.advance(1)
    await asyncio.wait_for(asyncio.gather(exits, candles), 5)
    assert risk.bar() is None
    await risk.stop()


async def test_a_ban_survives_a_restart_without_redis(clock: ManualClock, tmp_path: Path) -> None:
    file = tmp_path / "exchange" / "pause.json"
    gate = RequestGate(SCOPE, clock=clock, file=file)
    until = int(NOON.timestamp() * 1000) + 600_000
    body = f'{{"code":-1003,"msg":"Way too many requests; IP banned until {until}."}}'

    await gate.answered(INCOME, answer(418, body), {})
    await gate.answered(INCOME, answer(418, body.replace(str(until), str(until + 1000))), {})
    again = RequestGate(SCOPE, clock=clock, file=file)

    assert "has banned this address until 2026-01-01 12:10:01 UTC" in str(again.ban())
    assert again.paused_seconds == 601
    with pytest.raises(ConnectionLostError):
        await again.admit(CANDLES)  # too long to be waited out by a request
    clock.advance(602)
    await again.admit(CANDLES)


async def test_a_ban_survives_in_redis_and_comes_back_into_one_that_lost_it(
    redis: RedisConnection, clock: ManualClock
) -> None:
    first = RequestGate(SCOPE, clock=clock, redis=redis)
    await first.answered(INCOME, answer(418, ""), {"Retry-After": "600"})
    await redis.client.flushdb()
    await first.start()
    second = RequestGate(SCOPE, clock=clock, redis=redis)

    await second.start()

    assert second.paused_seconds == 600
    await first.stop()
    await second.stop()


async def test_an_order_rate_holds_back_entries_only(clock: ManualClock) -> None:
    gate = RequestGate(SCOPE, clock=clock)

    await gate.answered(ENTRY, answer(400, '{"code":-1015,"msg":"Too many new orders"}'), {})

    with pytest.raises(ConnectionLostError):
        await gate.admit(ENTRY)
    assert gate.bar() is not None
    for request in (EXIT, CANCEL, INCOME):
        await gate.admit(request)
    await asyncio.wait_for(gate.opened(), 1)
    clock.advance(11)
    assert gate.bar() is None
    await gate.admit(ENTRY)


# -- with the exchange -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_clients(url: str, redis: RedisConnection, clock: Clock) -> AsyncIterator[tuple[BinanceUsdm, BinanceUsdm]]:
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(2):
            client = create_exchange("paper", base_url=url, api_key="paper", secret="paper")
            client.gate = RequestGate(client.rest_host, clock=clock, redis=redis)
            stack.push_async_callback(client.close)
            clients.append(client)
        yield clients[0], clients[1]


async def test_a_limit_of_the_exchange_stops_both_clients_and_nobody_is_banned(redis: RedisConnection) -> None:
    async with (
        paper_exchange() as exchange,
        two_clients(exchange.url, redis, SystemClock()) as (one, other),
    ):
        exchange.live.faults.arm(Fault("rate_limit", seconds=2))
        await eventually(lambda: not exchange.live.faults.armed(), what="the limit in force")
        await _refused(one.fapiPrivateV3GetAccount())

        await other.gate.start()
        await _refused(other.fapiPrivateV3GetAccount(), match="not sent")
        await other.gate.opened()

        assert float((await other.fapiPrivateV3GetAccount())["totalWalletBalance"]) == 10_000
        await other.gate.stop()


async def test_the_weight_of_both_clients_is_what_the_exchange_counts(redis: RedisConnection) -> None:
    async with (
        paper_exchange() as exchange,
        two_clients(exchange.url, redis, SystemClock()) as (one, other),
    ):
        told = 0
        for client, call, parameters in (
            (one, "fapiPublicGetExchangeInfo", {}),
            (other, "fapiPrivateV3GetAccount", {}),
            (one, "fapiPrivateV3GetPositionRisk", {}),
            (other, "fapiPrivateGetOpenOrders", {}),
            (one, "fapiPrivateGetOpenOrders", {"symbol": "BTCUSDT"}),
            (other, "fapiPrivateGetOpenAlgoOrders", {}),
            (one, "fapiPrivateGetUserTrades", {"symbol": "BTCUSDT"}),
            (other, "fapiPrivateGetIncome", {}),
            (one, "fapiPrivateGetLeverageBracket", {}),
            (other, "fapiPrivateGetPositionSideDual", {}),
            (one, "fapiPrivateGetMultiAssetsMargin", {}),
            (other, "fapiPublicGetKlines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "10"}),
            (one, "fapiPublicGetKlines", {"symbol": "BTCUSDT", "interval": "1m"}),
            (other, "fapiPublicGetKlines", {"symbol": "BTCUSDT", "interval": "1m", "limit": "1500"}),
            (one, "fapiPublicGetDepth", {"symbol": "BTCUSDT", "limit": "50"}),
            (other, "fapiPublicGetDepth", {"symbol": "BTCUSDT", "limit": "1000"}),
            (one, "fapiPublicGetPremiumIndex", {"symbol": "BTCUSDT"}),
            (other, "fapiPrivatePostListenKey", {}),
            (one, "fapiPublicGetTime", {}),
        ):
            before = client.gate.budget.used
            await getattr(client, call)(parameters)
            headers = {name.lower(): value for name, value in client.last_response_headers.items()}
            told = int(headers["x-mbx-used-weight-1m"])
            assert client.gate.budget.used == told, (call, parameters, before)


async def test_the_fence_is_looked_at_after_the_request_was_signed() -> None:
    async with paper_exchange() as exchange:
        client = create_exchange("paper", base_url=exchange.url, api_key="paper", secret="paper")
        seen: list[Any] = []

        def fence() -> str:
            seen.append(client.last_request_body)
            return "the lease ran out"

        client.gate.entry_bar = fence
        order = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.01"}
        await _refused(client.fapiPrivatePostOrder(order), match="POST order: not sent, the lease ran out")

        assert "timestamp=" in seen[0]
        assert "recvWindow=3000" in seen[0]
        assert exchange.live.engine.orders("BTCUSDT") == []
        await _refused(client.fapiPrivatePostOrder({**order, "reduceOnly": "true"}), match="-2022")
        await client.close()


async def _refused(call: Any, match: str | None = None) -> None:
    with pytest.raises(Exception, match=match):
        await call


async def _pass_second(clock: ManualClock) -> None:
    await asyncio.sleep(0.005)  # Redis answers, and who waits goes to sleep on this clock
    clock.advance(1)


async def test_pauses_of_others_are_learnt_while_running(redis: RedisConnection) -> None:
    one, other = (RequestGate(SCOPE, clock=SystemClock(), redis=redis) for _ in range(2))
    await other.start()

    await one.answered(INCOME, answer(429, ""), {"Retry-After": "30"})

    await eventually(lambda: other.paused_seconds > 0, what="the pause")
    await other.stop()
