"""A real paper exchange on free ports inside the test's event loop, and plain ccxt pointed at it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import ccxt.pro
import httpx

from infrastructure.paper_exchange.candle_port import CandleSource
from infrastructure.paper_exchange.connection_rules import BINANCE_RULES, ConnectionRules
from infrastructure.paper_exchange.live_exchange import LiveExchange
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.request_security import Credentials
from infrastructure.paper_exchange.request_weight import BINANCE_LIMITS, Limit
from infrastructure.paper_exchange.server import bind, serving
from infrastructure.paper_exchange.synthetic_candles import SyntheticCandleSource
from shared.clock import Clock, ClockOrigin, ScaledClock, SystemClock
from tests.support.markets import START


@dataclass(frozen=True)
class RunningExchange:
    """Addresses of a running exchange, and the exchange itself to look inside."""

    url: str
    admin_url: str
    live: LiveExchange
    admin: httpx.AsyncClient


@contextlib.asynccontextmanager
async def paper_exchange(
    source: CandleSource | None = None,
    *,
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT"),
    timeframe: str = "1m",
    rate: float = 1.0,
    start: datetime = START,
    port: int = 0,
    clock: Clock | None = None,
    rules: ConnectionRules = BINANCE_RULES,
    limits: tuple[Limit, ...] = BINANCE_LIMITS,
) -> AsyncIterator[RunningExchange]:
    """Run an exchange on ``source`` (a made-up market by default) whose market time starts at ``start`` now.

    With a ``clock`` that a test moves, the test also calls ``live.tick()``: the exchange does not move by itself.
    """
    clock = clock or SystemClock()
    market = source or SyntheticCandleSource(5, symbols, timeframe)
    live = LiveExchange(
        MatchingEngine(market, start=start, wallet=Decimal(10_000)),
        clock=clock,
        market_clock=ScaledClock(ClockOrigin(wall=clock.now(), market=start, rate=rate), clock),
        credentials=Credentials("paper", "paper"),
        rules=rules,
        limits=limits,
    )
    listener, admin_listener = bind(port, "--port"), bind(0, "--admin-port")
    url, admin_url = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in (listener, admin_listener))
    async with serving(live, listener, admin_listener), httpx.AsyncClient(base_url=admin_url) as admin:
        yield RunningExchange(url, admin_url, live, admin)


@contextlib.asynccontextmanager
async def plain_ccxt(url: str) -> AsyncIterator[Any]:
    """Give an unmodified ``ccxt.pro.binanceusdm`` with nothing but its URLs changed."""
    exchange = ccxt.pro.binanceusdm({"apiKey": "paper", "secret": "paper", "enableRateLimit": False})
    addresses = exchange.urls["api"]
    for name in [name for name in addresses if name != "ws"]:
        if "fapi.binance.com" in addresses[name]:
            addresses[name] = addresses[name].replace("https://fapi.binance.com", url)
        else:
            del addresses[name]
    addresses["ws"]["linear"] = url.replace("http", "ws") + "/ws"
    addresses["ws"]["ws-api"]["linear"] = url.replace("http", "ws") + "/ws-fapi/v1"
    exchange.options["fetchCurrencies"] = False
    exchange.options["fetchOpenOrders"]["warnWithoutSymbol"] = False
    try:
        yield exchange
    finally:
        await exchange.close()
        await asyncio.sleep(0)
