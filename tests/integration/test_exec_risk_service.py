"""The service as a process: real Redis, real PostgreSQL, ccxt, a paper exchange over HTTP, and SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from infrastructure.paper_exchange.faults import Fault
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.events.envelope import Event
from shared.events.v3 import CandleClosedPayload, SignalGeneratedPayload
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.client import RpcClient
from shared.rpc.redis_transport import RedisRpcTransport
from shared.trading.orders import OrderType
from tests.support.eventually import eventually
from tests.support.exchanges import RunningExchange, paper_exchange
from tests.support.exec_risk_checks import assert_one_tree_per_trace
from tests.support.markets import BTC, START, Prices, WrittenSource, flat

PRICES: list[Prices] = [*flat(50_000, 3), (50_000, 50_000, 48_000, 48_000), *flat(48_000, 600)]


@dataclass
class Stage:
    """Servers, the exchange, and a neighbour on the bus that speaks as ai-service and hears everything."""

    exchange: RunningExchange
    environment: dict[str, str]
    bus: RedisStreamsBus
    rpc: RpcClient
    url: str
    database: asyncpg.Connection[Any]
    heard: list[Event[Any]] = field(default_factory=list)
    process: asyncio.subprocess.Process | None = None

    @property
    def engine(self) -> MatchingEngine:
        return self.exchange.live.engine

    async def launch(self) -> None:
        """Start the service and wait until it is ready."""
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.exec_risk_service", env=self.environment, cwd=Path(__file__).parents[2]
        )
        await self.ready()

    async def ready(self) -> None:
        async with httpx.AsyncClient() as client:

            async def probe() -> bool:
                try:
                    return (await client.get(f"{self.url}/health/ready")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(probe, timeout=40, what="readiness")

    async def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def end(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(self.process.wait(), 30)

    async def candle(self) -> None:
        """Let a second of market time pass and close a candle at the price of then."""
        self.engine.advance_to(self.engine.now + timedelta(seconds=1))
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

    async def signal(self, action: str = "BUY") -> Event[Any]:
        return await self.bus.publish(
            "signal.generated",
            SignalGeneratedPayload(
                symbol=BTC,
                action=action,
                confidence=0.9,
                model_source="ensemble",
                score=0.9,
                price=float(self.engine.quote(BTC).last),
                suggested_size_usd=500.0,
                suggested_leverage=5.0,
                metadata={"stop_loss_pct": 2.0, "take_profit_pct": 4.0, "candle_close_time": START.isoformat()},
            ),
        )

    def of(self, event_type: str) -> list[Any]:
        unique = {event.metadata.event_id: event for event in self.heard}
        return [event.payload for event in unique.values() if event.metadata.event_type == event_type]

    async def told(self, event_type: str, count: int = 1) -> list[Any]:
        await eventually(lambda: len(self.of(event_type)) >= count, timeout=40, what=event_type)
        return self.of(event_type)

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
        sent = regular + [algo.client_algo_id for algo in engine.algos(BTC)]
        assert len(sent) == len(set(sent))
        assert set(sent) <= intents
        assert await self.database.fetchval("SELECT count(*) FROM exec_risk.outbox") == 0
        ours = [event for event in self.heard if event.metadata.source == "exec-risk-service"]
        assert_one_tree_per_trace([e for e in ours if e.metadata.event_type != "service.heartbeat"], in_order=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@asynccontextmanager
async def made_stage(redis_url: str, database_url: str, state: Path) -> AsyncIterator[Stage]:
    clock = SystemClock()
    connection = RedisConnection(redis_url, clock=clock)
    await connection.start()
    bus = RedisStreamsBus(
        connection, service="ai-service", instance="test", clock=clock, ids=RandomIds(), market_clock=clock
    )
    rpc = RpcClient(RedisRpcTransport(connection), service="test", instance="one", clock=clock, ids=RandomIds())
    port = free_port()
    async with paper_exchange(WrittenSource(PRICES, volume=100_000.0)) as exchange:
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
            "POSITION_CHECK_INTERVAL_SECONDS": "2",
        }
        database = await asyncpg.connect(database_url)
        stage = Stage(exchange, environment, bus, rpc, f"http://127.0.0.1:{port}", database)

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


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    async with made_stage(redis_url, database_url, tmp_path) as made:
        yield made


async def test_a_signal_becomes_a_protected_position_and_a_fall_closes_it(stage: Stage) -> None:
    await stage.launch()
    await stage.marked()

    sent = await stage.signal("BUY")
    opened = (await stage.told("position.opened"))[0]
    await stage.orders_rest(2)

    assert opened.size_usd == pytest.approx(500.005)
    assert (await stage.told("execution.result"))[0].status == "SUCCESS"
    trace = [e.metadata.event_type for e in stage.heard if e.metadata.trace_id == sent.metadata.trace_id]
    assert {"signal.generated", "order.updated", "execution.result", "position.opened"} <= set(trace)
    answer = await stage.rpc.call(
        service="exec-risk-service", command="get_position_status", parameters={"symbol": BTC}, timeout=5
    )
    assert answer.result is not None
    assert answer.result["position"]["position_id"] == opened.position_id
    async with httpx.AsyncClient() as client:
        shown = (await client.get(f"{stage.url}/api/v1/positions")).json()
        assert [position["symbol"] for position in shown["positions"]] == [BTC]

        async def is_well() -> bool:
            return bool((await client.get(f"{stage.url}/health")).json()["status"] == "OK")

        await eventually(is_well, what="health OK")  # a busy machine may have slowed it down for a moment

    stage.engine.advance_to(START + timedelta(minutes=5))
    stage.exchange.live.send_events()

    closed = (await stage.told("position.closed"))[0]
    assert closed.exit_reason == "STOP_LOSS"
    await stage.orders_rest(0)
    await stage.end()
    await stage.assert_sound()


async def test_killed_while_the_answer_of_its_order_is_held_back(stage: Stage) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("hold_order_answer", seconds=60, hold_events=True))

    await stage.signal("BUY")
    await eventually(lambda: stage.engine.orders(BTC), what="the order on the exchange")
    await stage.kill()
    assert stage.engine.position(BTC).quantity == Decimal("0.01")  # naked, and nobody knows
    await stage.launch()

    stops = [algo for algo in stage.engine.open_algos(BTC) if algo.type is OrderType.STOP_MARKET]
    assert [stop.quantity for stop in stops] == [Decimal("0.01")], "ready means protected"
    await stage.told("position.opened")
    await stage.orders_rest(2)
    assert len([order for order in stage.engine.orders(BTC) if order.algo_id is None]) == 1
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_killed_again_and_again_while_it_trades(stage: Stage) -> None:
    await stage.launch()
    for round_number in range(3):
        await stage.marked()
        held = "BUY" if stage.engine.position(BTC).quantity == 0 else "SELL"
        await stage.signal(held)
        await asyncio.sleep(0.004 * round_number)  # a moment that differs, not a wait for something
        await stage.kill()
        await stage.launch()
        await stage.signal("SELL" if held == "BUY" else "BUY")

    await eventually(lambda: _is_quiet(stage), timeout=40, what="quiet")
    await stage.end()
    await stage.assert_sound()


async def _is_quiet(stage: Stage) -> bool:
    unsettled = await stage.database.fetchval(
        "SELECT count(*) FROM exec_risk.order_intent WHERE NOT settled AND status <> 'NEW'"
    )
    flat_now = stage.engine.position(BTC).quantity == 0
    return bool(unsettled == 0 and len(stage.engine.open_algos(BTC)) == (0 if flat_now else 2))


async def test_an_order_without_an_answer_is_found_and_protected(stage: Stage) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("lose_order_answer"))
    stage.exchange.live.faults.arm(Fault("drop_user_event", count=3))

    await stage.signal("BUY")
    await stage.told("position.opened")
    await stage.orders_rest(2)

    assert [alert.alert_type for alert in stage.of("risk.alert")] == ["ORDER_OUTCOME_UNKNOWN"]
    await stage.end()
    await stage.assert_sound()


async def test_a_stream_that_breaks_hides_nothing(stage: Stage) -> None:
    await stage.launch()
    await stage.marked()
    await stage.signal("BUY")
    await stage.told("position.opened")
    await stage.orders_rest(2)

    stage.exchange.live.hub.close(user=True, market=False)
    stage.engine.advance_to(START + timedelta(minutes=5))
    stage.engine.take_events()  # the stop fired while nobody listened

    assert (await stage.told("position.closed"))[0].exit_reason == "STOP_LOSS"
    await stage.orders_rest(0)
    await stage.end()
    await stage.assert_sound()


async def test_validate_risk_answers_over_redis(stage: Stage) -> None:
    await stage.launch()
    await stage.marked()

    async def ask(size_usd: float, leverage: float) -> Any:
        parameters = {"symbol": BTC, "size_usd": size_usd, "leverage": leverage}
        answer = await stage.rpc.call(
            service="exec-risk-service", command="validate_risk", parameters=parameters, timeout=5
        )
        return answer.result

    assert await ask(500, 5) == {"approved": True, "reason": None, "max_allowed_size": 1000.0}
    too_large = await ask(5_000, 5)
    assert (too_large["approved"], too_large["max_allowed_size"]) == (False, 1000.0)
    assert "cap" in too_large["reason"]
    assert "leverage" in (await ask(500, 50))["reason"]


async def test_a_wrong_setting_stops_the_start_with_one_line_and_code_4(stage: Stage) -> None:
    environment = {**stage.environment, "MAX_LEVERAGE": "a lot"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.exec_risk_service",
        env=environment,
        cwd=Path(__file__).parents[2],
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 4
    lines = said.decode().strip().splitlines()
    assert len(lines) == 1
    assert "MAX_LEVERAGE=a lot" in lines[0]
