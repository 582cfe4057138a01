"""An unmodified ccxt.pro keeps its own order book from our snapshot and differences: it must equal the exchange's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import ccxt
import pytest

from infrastructure.paper_exchange.depth_diffs import DepthBook
from infrastructure.paper_exchange.market_streams import MarketStreams
from infrastructure.paper_exchange.records import OrderRequest
from shared.trading.orders import OrderType, Side
from tests.support.exchanges import RunningExchange, paper_exchange, plain_ccxt
from tests.support.markets import BTC

S = "BTC/USDT:USDT"


class RecordingStreams(MarketStreams):
    """Remembers every book that was told, and how many snapshots were asked for."""

    def __init__(self, running: RunningExchange) -> None:
        super().__init__(running.live.engine, running.live.hub)
        self.told: dict[int, DepthBook] = {}
        self.snapshots = 0

    def snapshot(self, symbol: str, count: int) -> DepthBook:
        self.snapshots += 1
        return super().snapshot(symbol, count)

    def _book(self, symbol: str) -> DepthBook:
        book = super()._book(symbol)
        self.told[book.update_id] = book
        return book


@contextlib.asynccontextmanager
async def followed(rate: float) -> AsyncIterator[tuple[RunningExchange, RecordingStreams, Any]]:
    async with paper_exchange(rate=rate) as running, plain_ccxt(running.url) as client:
        running.live.streams = streams = RecordingStreams(running)
        yield running, streams, client


def levels(book: DepthBook) -> tuple[list[list[float]], list[list[float]]]:
    """Return both sides as ccxt writes them."""
    bids = sorted(book.bids.items(), reverse=True)
    asks = sorted(book.asks.items())
    return [[float(x) for x in level] for level in bids], [[float(x) for x in level] for level in asks]


async def stay_in_step(running: RunningExchange, streams: RecordingStreams, client: Any, seconds: float) -> int:
    """Compare the client's whole book with the exchange's at every update; return how many were compared."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    compared = 0
    while loop.time() < end:
        mine = await client.watch_order_book(S)
        # Read before anything is awaited: the client changes its book in place.
        bids, asks, number = list(map(list, mine["bids"])), list(map(list, mine["asks"])), mine["nonce"]
        assert (bids, asks) == levels(streams.told.pop(number)), f"update {number}, after {compared}"
        compared += 1
        if compared % 5 == 0:  # orders of the account eat into the book between two steps
            side = Side.BUY if compared % 10 else Side.SELL
            running.live.engine.place_order(OrderRequest(BTC, side, OrderType.MARKET, Decimal("0.01")))
    return compared


async def test_ccxts_own_book_stays_in_step_with_the_exchange() -> None:
    async with followed(rate=120.0) as (running, streams, client):
        assert await stay_in_step(running, streams, client, 3.0) > 15
        assert streams.snapshots == 1, "it never had to start again"


async def test_a_lost_difference_is_noticed_and_the_book_is_built_again() -> None:
    async with followed(rate=120.0) as (running, streams, client):
        await stay_in_step(running, streams, client, 0.5)
        await running.admin.post("/admin/faults", json={"kind": "depth_gap"})
        with pytest.raises(ccxt.ChecksumError):
            await stay_in_step(running, streams, client, 5.0)
        assert await stay_in_step(running, streams, client, 1.0) > 3
        assert streams.snapshots == 2


@pytest.mark.long
@pytest.mark.timeout(700)
async def test_ccxts_own_book_stays_in_step_for_ten_minutes() -> None:
    async with followed(rate=60.0) as (running, streams, client):
        compared = await stay_in_step(running, streams, client, 600.0)
        print(f"{compared} books compared, {streams.snapshots} snapshot")  # noqa: T201 - the measured result
        assert compared > 3000
        assert streams.snapshots == 1
