"""The feed against a real exchange server and a real Redis: what the stream loses, REST brings, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.ai_service.adapters.exchange_candles import ExchangeCandleHistory, ExchangeCandleStream, ExchangeLink
from services.ai_service.adapters.feed_cursor import FileFeedCursor
from services.ai_service.adapters.market_data import CandleFeed
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import Clock, SystemClock
from shared.errors import ConnectionLostError, ExchangeError
from shared.events.codec import decode
from shared.events.envelope import Event
from shared.events.streams import event_stream
from shared.exchange.client import BinanceUsdm, create_exchange
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.telemetry.metrics import Metrics
from shared.trading.candles import expected_last_open
from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange
from tests.support.markets import START

MINUTE = timedelta(minutes=1)
SYMBOLS = ("BTCUSDT", "ETHUSDT")


def market_clock(exchange: RunningExchange) -> Clock:
    return exchange.live._market_clock


@asynccontextmanager
async def client_of(exchange: RunningExchange) -> AsyncIterator[BinanceUsdm]:
    client = create_exchange("paper", base_url=exchange.url, api_key="paper", secret="paper")
    try:
        yield client
    finally:
        await client.close()


@dataclass
class Run:
    """A feed between a real exchange and a real Redis."""

    exchange: RunningExchange
    redis: RedisConnection
    metrics: Metrics
    feed: CandleFeed

    async def out(self, symbol: str = "BTCUSDT") -> list[Event[Any]]:
        rows: Any = await self.redis.client.xrange(event_stream("candle.closed"))
        events: list[Event[Any]] = [decode(fields) for _, fields in rows]
        return [event for event in events if event.payload.symbol == symbol]

    async def has(self, count: int) -> list[Event[Any]]:
        async def enough() -> list[Event[Any]]:
            found = await self.out()
            return found if len(found) >= count else []

        return await eventually(enough, what=f"{count} candles")


@asynccontextmanager
async def feeding(exchange: RunningExchange, redis_url: str, folder: Path) -> AsyncIterator[Run]:
    clock = SystemClock()
    redis = RedisConnection(redis_url, clock=clock)
    await redis.start()
    metrics = Metrics("ai-service", clock)
    async with client_of(exchange) as client:
        market = market_clock(exchange)
        feed = CandleFeed(
            symbols=SYMBOLS,
            timeframe="1m",
            run_id="r1",
            stream=ExchangeCandleStream(client, SYMBOLS, "1m"),
            history=ExchangeCandleHistory(client, market),
            cursor=FileFeedCursor(folder, mode="paper", run_id="r1", timeframe="1m"),
            bus=RedisStreamsBus(
                redis, service="ai-service", instance="one", clock=clock, ids=RandomIds(), market_clock=market
            ),
            clock=clock,
            market_clock=market,
            quiet_seconds=1.0,
            max_backfill_candles=500,
            metrics=metrics,
        )
        await feed.start()
        try:
            yield Run(exchange, redis, metrics, feed)
        finally:
            await feed.stop()
    await redis.stop()


def assert_whole(events: list[Event[Any]], exchange: RunningExchange) -> None:
    """Check that the candles are consecutive, each there once, and equal to the exchange's own."""
    opened = [event.payload.open_time for event in events]
    assert opened == [opened[0] + MINUTE * number for number in range(len(opened))]
    truth = exchange.live.engine.candles("BTCUSDT", "1m", opened[0], opened[-1] + MINUTE)
    assert [event.payload.close for event in events] == [candle.close for candle in truth]


async def test_candles_flow_from_the_exchange_to_redis(redis_url: str, tmp_path: Path) -> None:
    async with paper_exchange(rate=240) as exchange, feeding(exchange, redis_url, tmp_path) as run:
        found = await run.has(6)

        assert_whole(found, exchange)
        assert {event.payload.source for event in found} == {"websocket"}
        assert all(event.metadata.causation_id is None for event in found)


async def test_candles_that_close_while_the_stream_is_cut_come_by_rest_in_order(redis_url: str, tmp_path: Path) -> None:
    async with paper_exchange(rate=600) as exchange, feeding(exchange, redis_url, tmp_path) as run:
        await run.has(3)
        await exchange.admin.post("/admin/streams/close", json={"which": "market"})
        count = len(await run.out())
        found = await run.has(count + 8)

        assert_whole(found, exchange)
        assert "rest" in {event.payload.source for event in found}


async def test_a_nan_kline_is_refused_and_the_true_candle_published(redis_url: str, tmp_path: Path) -> None:
    async with paper_exchange(rate=240) as exchange, feeding(exchange, redis_url, tmp_path) as run:
        await run.has(2)
        for value in ("NaN", "0", "-5", "Infinity"):
            await exchange.admin.post("/admin/market/candle", json={"symbol": "BTCUSDT", "fields": {"c": value}})
        found = await run.has(len(await run.out()) + 4)

        assert_whole(found, exchange)
        refused = run.metrics.registry.get_sample_value("candles_refused_total", {"service": "ai-service"})
        assert refused == 4


async def test_a_kline_that_claims_to_have_closed_already_is_not_believed(redis_url: str, tmp_path: Path) -> None:
    async with paper_exchange(rate=120) as exchange, feeding(exchange, redis_url, tmp_path) as run:
        await run.has(1)
        lie = {"c": "1", "l": "1"}
        await exchange.admin.post("/admin/market/candle", json={"symbol": "BTCUSDT", "fields": lie})
        found = await run.has(4)

        assert_whole(found, exchange)


async def test_a_restarted_feed_goes_on_where_it_stopped(redis_url: str, tmp_path: Path) -> None:
    async with paper_exchange(rate=600) as exchange:
        async with feeding(exchange, redis_url, tmp_path) as run:
            before = len(await run.has(3))
        gone_at = expected_last_open(market_clock(exchange).now(), "1m")
        await eventually(lambda: market_clock(exchange).now() > gone_at + 10 * MINUTE, what="ten minutes away")
        async with feeding(exchange, redis_url, tmp_path) as run:
            found = await run.has(before + 12)

            assert_whole(found, exchange)


async def test_history_is_paged_clamped_and_in_order() -> None:
    async with paper_exchange(rate=1, start=START) as exchange, client_of(exchange) as client:
        history = ExchangeCandleHistory(client, market_clock(exchange))
        start = START - 3_200 * MINUTE

        found = await history.candles("BTCUSDT", "1m", start, START + 60 * MINUTE)
        few = await history.candles("BTCUSDT", "1m", start, start + 7 * MINUTE)

        # The candle that closes at the very start is left out until it has settled.
        assert 3_199 <= len(found) <= 3_200
        assert [candle.open_time for candle in found] == [start + MINUTE * number for number in range(len(found))]
        assert few == found[:7]
        assert await history.candles("BTCUSDT", "1m", START, START) == []


async def test_a_candle_that_is_still_forming_never_comes_from_the_history() -> None:
    async with paper_exchange(rate=30) as exchange, client_of(exchange) as client:
        clock = market_clock(exchange)
        history = ExchangeCandleHistory(client, clock)
        for _ in range(20):
            newest = (await history.candles("BTCUSDT", "1m", START - 5 * MINUTE, START + 600 * MINUTE))[-1]

            assert newest.close_time <= clock.now()


async def test_an_unknown_symbol_is_refused_by_the_exchange() -> None:
    async with paper_exchange() as exchange, client_of(exchange) as client:
        history = ExchangeCandleHistory(client, market_clock(exchange))

        with pytest.raises(ExchangeError):
            await history.candles("NOPEUSDT", "1m", START - 10 * MINUTE, START - 5 * MINUTE)


async def test_an_exchange_that_is_not_there_is_said_to_be_away() -> None:
    client = create_exchange("paper", base_url="http://127.0.0.1:9", api_key="paper", secret="paper")
    clock = SystemClock()
    now: datetime = clock.now()
    try:
        with pytest.raises(ConnectionLostError):
            await ExchangeCandleHistory(client, clock).candles("BTCUSDT", "1m", now - 10 * MINUTE, now)
        with pytest.raises(ConnectionLostError):
            await ExchangeLink(client, clock).ping()
    finally:
        await client.close()
        await asyncio.sleep(0)


async def test_the_link_measures_how_long_an_answer_takes() -> None:
    async with paper_exchange() as exchange, client_of(exchange) as client:
        assert 0 < await ExchangeLink(client, SystemClock()).ping() < 2_000
