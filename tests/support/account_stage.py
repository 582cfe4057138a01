"""exec-risk as a process with everything real around it, and a neighbour on the bus who speaks and hears all."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from infrastructure.embedded.loopback import free_port
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from services.exec_risk_service.ports import OUR_PREFIX
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.events.envelope import Event
from shared.events.streams import event_stream
from shared.events.v3 import CandleClosedPayload, SignalGeneratedPayload
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.client import RpcClient
from shared.rpc.redis_transport import RedisRpcTransport
from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange
from tests.support.exec_risk_checks import assert_one_tree_per_trace
from tests.support.markets import BTC, START, Prices, WrittenSource, flat

PRICES: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 600)]

#: Opens the control routes of the service on a stage.
TOKEN = "0123456789abcdef0123456789abcdef"


@dataclass
class AccountStage:
    """Servers, the exchange, and a neighbour on the bus that speaks as ai-service and hears everything."""

    exchange: RunningExchange
    connection: RedisConnection
    environment: dict[str, str]
    bus: RedisStreamsBus
    rpc: RpcClient
    url: str
    database: asyncpg.Connection[Any]
    heard: list[Event[Any]] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None
    late_at: datetime | None = None

    @property
    def engine(self) -> MatchingEngine:
        return self.exchange.live.engine

    async def start(self, **environment: str) -> asyncio.subprocess.Process:
        """Start the service, with more in its environment if wanted, and do not wait."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.exec_risk_service",
            env={**self.environment, **environment},
            cwd=Path(__file__).parents[2],
        )
        return self.process

    async def launch(self, **environment: str) -> None:
        """Start the service and wait until it is ready."""
        await self.start(**environment)
        await self.ready()

    async def ready(self) -> None:
        async with httpx.AsyncClient() as client:

            async def probe() -> bool:
                try:
                    return (await client.get(f"{self.url}/health/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(probe, timeout=40, what="readiness")

    async def is_healthy(self) -> bool:
        """Tell whether the service and all that it needs is OK."""
        async with httpx.AsyncClient() as client:
            return bool((await client.get(f"{self.url}/health")).json()["status"] == "OK")

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.wait(), 30)

    async def candle(self, seconds: float = 1.0) -> None:
        """Let some market time pass and close a candle at the price of then."""
        self.engine.advance_to(self.engine.now + timedelta(seconds=seconds))
        self.exchange.live.send_events()
        now = self.engine.now
        await self.bus.publish(
            "candle.closed",
            CandleClosedPayload(
                symbol=BTC,
                timeframe="1m",
                open_time=now - timedelta(minutes=1),
                close_time=now,
                **dict.fromkeys(("open", "high", "low", "close"), float(self.engine.quote(BTC).last)),
                volume=1.0,
                source="test",
            ),
        )

    async def signal(
        self, action: str = "BUY", *, seconds_left: float = 60.0, price: float | None = None
    ) -> Event[Any]:
        """Speak as ai-service, at the exchange's price if no other; the signal is late after ``seconds_left``."""
        self.late_at = SystemClock().now() + timedelta(seconds=seconds_left)
        return await self.bus.publish(
            "signal.generated",
            SignalGeneratedPayload(
                symbol=BTC,
                action=action,
                confidence=0.9,
                model_source="ensemble",
                score=0.9,
                price=float(self.engine.quote(BTC).last) if price is None else price,
                suggested_size_usd=500.0,
                suggested_leverage=5.0,
                expires_at=self.late_at,
                metadata={"stop_loss_pct": 2.0, "take_profit_pct": 4.0, "candle_close_time": START.isoformat()},
            ),
        )

    def signal_is_late(self) -> bool:
        """Tell whether the newest signal may not be acted upon any more."""
        return self.late_at is not None and SystemClock().now() > self.late_at

    async def control(self, path: str, body: dict[str, str], *, token: str | None = TOKEN) -> httpx.Response:
        """Send a POST to a control route of the service, as the person who holds the token."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient() as client:
            return await client.post(f"{self.url}/api/v1/{path}", json=body, headers=headers)

    async def trading(self) -> dict[str, Any]:
        """Return what the service says of its trading state."""
        async with httpx.AsyncClient() as client:
            return dict((await client.get(f"{self.url}/api/v1/trading-state")).json())

    async def stop_is_verified(self) -> None:
        """Wait until the service says that the account is flat."""

        async def is_verified() -> bool:
            return bool((await self.trading())["emergency_stop"]["status"] == "stopped")

        await eventually(is_verified, timeout=60, what="a verified stop")

    async def intents(self) -> dict[str, str]:
        """Return the status of every intent in the journal by client order id."""
        rows = await self.database.fetch("SELECT client_order_id, status FROM exec_risk.order_intent")
        return {row["client_order_id"]: row["status"] for row in rows}

    def of(self, event_type: str) -> list[Any]:
        unique = {event.metadata.event_id: event for event in self.heard}
        return [event.payload for event in unique.values() if event.metadata.event_type == event_type]

    async def told(self, event_type: str, count: int = 1) -> list[Any]:
        await eventually(lambda: len(self.of(event_type)) >= count, timeout=40, what=event_type)
        return self.of(event_type)

    async def has_handled(self, event_type: str) -> bool:
        """Tell whether the service has read and acknowledged every event of this type."""
        stream = event_stream(event_type)
        if not await self.connection.client.exists(stream):
            return True
        last = (await self.connection.client.xinfo_stream(stream))["last-generated-id"]
        for group in await self.connection.client.xinfo_groups(stream):
            if group["name"] in ("exec-risk-service", b"exec-risk-service"):
                return bool(group["pending"] == 0 and group["last-delivered-id"] == last)
        return False

    async def marked(self) -> None:
        """Close a candle and wait until the service knows the price."""
        before = len(self.of("account.updated"))
        await self.candle()
        await self.told("account.updated", before + 1)

    async def orders_rest(self, count: int) -> None:
        await eventually(lambda: len(self.engine.open_algos(BTC)) == count, timeout=40, what=f"{count} resting orders")

    async def assert_sound(self) -> None:
        """Compare the journal in PostgreSQL with the books of the exchange."""
        engine = self.engine
        quantity = await self.database.fetchval(
            "SELECT coalesce(sum(CASE side WHEN 'BUY' THEN quantity ELSE -quantity END), 0) FROM exec_risk.fill"
        )
        assert quantity == engine.position(BTC).quantity
        fills = await self.database.fetch("SELECT trade_id FROM exec_risk.fill ORDER BY trade_id")
        assert [row["trade_id"] for row in fills] == [record.fill.trade_id for record in engine.fills(BTC)]
        wallet = await self.database.fetchval("SELECT wallet FROM exec_risk.account")
        assert wallet == engine.account().wallet
        intents = {row["client_order_id"] for row in await self.database.fetch("SELECT * FROM exec_risk.order_intent")}
        regular = [order.client_order_id for order in engine.orders(BTC) if order.algo_id is None]
        sent = [name for name in regular if name.startswith(OUR_PREFIX)]
        sent += [algo.client_algo_id for algo in engine.algos(BTC)]
        assert len(sent) == len(set(sent))
        assert set(sent) <= intents
        assert await self.database.fetchval("SELECT count(*) FROM exec_risk.outbox") == 0
        ours = [event for event in self.heard if event.metadata.source == "exec-risk-service"]
        assert_one_tree_per_trace([e for e in ours if e.metadata.event_type != "service.heartbeat"], in_order=False)


@asynccontextmanager
async def account_stage(
    redis_url: str, database_url: str, state: Path, *, prices: Sequence[Prices] = PRICES
) -> AsyncIterator[AccountStage]:
    """Yield a stage on a market that stands still at the first of ``prices`` until a test moves it."""
    clock = SystemClock()
    connection = RedisConnection(redis_url, clock=clock)
    await connection.start()
    bus = RedisStreamsBus(
        connection, service="ai-service", instance="test", clock=clock, ids=RandomIds(), market_clock=clock
    )
    rpc = RpcClient(RedisRpcTransport(connection), service="test", instance="one", clock=clock, ids=RandomIds())
    port = free_port()
    async with paper_exchange(WrittenSource(prices, volume=100_000.0)) as exchange:
        exchange.live.freeze(frozen=True)  # market time moves only when a test says so
        environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "POSTGRES_URL": database_url,
            "EXCHANGE_URL": exchange.url,
            "QT_SYMBOLS": BTC,
            "QT_TIMEFRAME": "1m",
            "QT_RUN_ID": "test",
            "QT_PORT": str(port),
            "QT_STATE_DIR": str(state),
            "POSITION_CHECK_INTERVAL_SECONDS": "5",  # one comparison costs about 125 of 2400 weight per minute
            "QT_API_TOKEN": TOKEN,
        }
        database = await asyncpg.connect(database_url)
        stage = AccountStage(exchange, connection, environment, bus, rpc, f"http://127.0.0.1:{port}", database)

        async def hear(event: Event[Any]) -> None:
            stage.heard.append(event)

        bus.subscribe("*", hear)
        await bus.start()
        await rpc.start()
        try:
            yield stage
        finally:
            await stage.end()
            await rpc.stop()
            await bus.stop()
            await connection.stop()
            await database.close()
