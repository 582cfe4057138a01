"""analytics-os as it runs, on a real Redis and a real PostgreSQL: archive, portfolio, heartbeats, questions."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from infrastructure.embedded.loopback import free_port
from services.analytics_os_service.app import create_app
from services.analytics_os_service.config import AnalyticsSettings
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.events.streams import dead_letter_stream, event_stream
from shared.events.v3 import ServiceHeartbeatPayload
from shared.ids import RandomIds
from shared.redis_connection import RedisConnection
from shared.rpc.client import RpcClient
from shared.rpc.redis_transport import RedisRpcTransport
from tests.support.event_payloads import START, candle, execution_request, position_opened
from tests.support.event_payloads import signal as buy_signal
from tests.support.eventually import eventually

SERVICE = "analytics-os-service"
API = "/api/v1/analytics"


@dataclass
class Stage:
    """The servers, another service's voice, and a look into the table."""

    redis_url: str
    database_url: str
    connection: RedisConnection
    bus: RedisStreamsBus
    sql: asyncpg.Connection
    state_dir: Path

    @asynccontextmanager
    async def service(self, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        """Run the service in this process until the block ends, and give a client of its API."""
        app = create_app(
            AnalyticsSettings(
                _env_file=None,
                redis_url=self.redis_url,
                postgres_url=self.database_url,
                qt_run_id="run",
                state_dir=self.state_dir,
                heartbeat_interval_seconds=0.05,
                **settings,
            )
        )
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://analytics")
        async with app.router.lifespan_context(app), client:

            async def is_ready() -> bool:
                return (await client.get("/health/ready")).status_code == 200

            await eventually(is_ready, what="readiness")
            yield client

    async def archived(self, event_type: str) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self.sql.fetch(
            "SELECT * FROM analytics.events WHERE event_type = $1 ORDER BY timestamp, sequence", event_type
        )
        return rows

    async def has_archived(self, event_type: str, count: int) -> None:
        async def is_there() -> bool:
            return len(await self.archived(event_type)) >= count

        await eventually(is_there, what=f"{count} {event_type} in the archive")

    async def pending(self, event_type: str) -> int:
        groups: Any = await self.connection.client.xinfo_groups(event_stream(event_type))
        return sum(int(group["pending"]) for group in groups)

    async def beat(self, service: str) -> None:
        payload = ServiceHeartbeatPayload(
            service_name=service,
            status="HEALTHY",
            uptime_seconds=1.0,
            cpu_percent=1.0,
            memory_percent=1.0,
            memory_used_mb=1.0,
        )
        await self.bus.publish("service.heartbeat", payload)


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Stage]:
    clock = SystemClock()
    connection = RedisConnection(redis_url, clock=clock)
    await connection.start()
    bus = RedisStreamsBus(
        connection, service="exec-risk-service", instance="test", clock=clock, ids=RandomIds(), market_clock=clock
    )
    sql = await asyncpg.connect(database_url)
    yield Stage(redis_url, database_url, connection, bus, sql, tmp_path)
    await sql.close()
    await bus.stop()
    await connection.stop()


async def test_every_event_is_archived_once_with_envelope_and_payload_also_what_came_before_the_start(
    stage: Stage,
) -> None:
    first = await stage.bus.publish("candle.closed", candle(number=0))

    async with stage.service():
        for number in range(1, 40):
            await stage.bus.publish("candle.closed", candle(number=number))
        again = await stage.bus.publish("candle.closed", candle(number=0), event_id=first.metadata.event_id)
        late = await stage.bus.publish("execution.request", execution_request())
        await stage.has_archived("candle.closed", 40)
        await stage.has_archived("execution.request", 1)

        async def is_settled() -> bool:
            return await stage.pending("candle.closed") == 0

        await eventually(is_settled, what="acknowledgement")

    rows = await stage.archived("candle.closed")
    assert again.metadata.event_id == first.metadata.event_id
    assert len(rows) == 40
    assert rows[0]["event_id"] == first.metadata.event_id
    assert rows[0]["timestamp"] == first.metadata.timestamp
    assert (rows[0]["run_id"], rows[0]["symbol"], rows[0]["source"]) == ("run", "BTCUSDT", "exec-risk-service")
    assert [row["event_id"] for row in await stage.archived("execution.request")] == [late.metadata.event_id]


async def test_a_command_that_came_too_late_to_be_carried_out_is_archived_all_the_same(stage: Stage) -> None:
    async with stage.service():
        late = await stage.bus.publish("signal.generated", buy_signal(expires_at=START))
        await stage.has_archived("signal.generated", 1)

    assert [row["event_id"] for row in await stage.archived("signal.generated")] == [late.metadata.event_id]


async def test_what_cannot_be_read_is_put_aside_and_the_rest_flows(stage: Stage) -> None:
    async with stage.service():
        redis: Any = stage.connection.client
        await redis.xadd(event_stream("candle.closed"), {"metadata": b"{", "payload": b"NaN"})
        await stage.bus.publish("candle.closed", candle())
        await stage.has_archived("candle.closed", 1)

        async def put_aside() -> Any:
            return await redis.xrange(dead_letter_stream(SERVICE))

        ((_, letter),) = await eventually(put_aside, what="dead letter")

    assert letter[b"raw_payload"] == b"NaN"
    assert b"DecodeError" in letter[b"error"]


async def test_an_event_that_postgres_cannot_hold_is_put_aside_alone(stage: Stage) -> None:
    async with stage.service():
        redis: Any = stage.connection.client
        poison = candle(number=1).model_copy(update={"source": "nul \x00 byte"})
        await asyncio.gather(
            *(stage.bus.publish("candle.closed", each) for each in (candle(number=0), poison, candle(number=2)))
        )
        await stage.has_archived("candle.closed", 2)

        async def put_aside() -> int:
            return int(await redis.xlen(dead_letter_stream(SERVICE)))

        assert await eventually(put_aside, what="dead letter") == 1


async def test_a_restart_keeps_portfolio_and_archive_and_reads_what_came_meanwhile(stage: Stage) -> None:
    async with stage.service() as http:
        await stage.bus.publish("position.opened", position_opened("BTCUSDT"))
        await stage.has_archived("position.opened", 1)

    await stage.bus.publish("position.opened", position_opened("ETHUSDT"))
    async with stage.service() as http:
        await stage.has_archived("position.opened", 2)

        async def symbols() -> list[str]:
            answer = (await http.get(f"{API}/positions")).json()
            return sorted(position["symbol"] for position in answer["positions"])

        async def both() -> bool:
            return await symbols() == ["BTCUSDT", "ETHUSDT"]

        await eventually(both, what="both positions")
        assert (await http.get(f"{API}/summary")).json()["open_positions"] == 2


async def test_a_silent_service_is_told_once_and_its_return_too(stage: Stage) -> None:
    quick = {
        "heartbeat_timeout_seconds": 0.6,
        "heartbeat_grace_seconds": 0.1,
        "heartbeat_check_interval_seconds": 0.02,
    }
    async with stage.service(**quick) as http:
        await stage.beat("ai-service")
        await stage.beat("exec-risk-service")

        async def told(severity: str, component: str) -> int:
            return int(
                await stage.sql.fetchval(
                    "SELECT count(*) FROM analytics.events WHERE event_type = 'system.alert'"
                    " AND payload ->> 'severity' = $1 AND payload ->> 'component' = $2",
                    severity,
                    component,
                )
            )

        async def ai_and_exec_are_missing() -> bool:
            return await told("CRITICAL", "ai-service") == 1 and await told("CRITICAL", "exec-risk-service") == 1

        await eventually(ai_and_exec_are_missing, what="alerts")
        services = (await http.get(f"{API}/services")).json()
        assert {entry["service"]: entry["status"] for entry in services["services"]}["ai-service"] == "CRITICAL"

        await stage.beat("ai-service")

        async def ai_is_back() -> bool:
            return await told("INFO", "ai-service") == 1

        await eventually(ai_is_back, what="end of the outage")
        assert await told("CRITICAL", "exec-risk-service") == 1
        assert await told("INFO", "exec-risk-service") == 0


async def test_the_archive_is_paged_and_filtered_over_http(stage: Stage) -> None:
    async with stage.service() as http:
        for number in range(5):
            event = await stage.bus.publish("candle.closed", candle("ETHUSDT" if number == 4 else "BTCUSDT", number))
        await stage.has_archived("candle.closed", 5)

        async def page(**parameters: Any) -> Any:
            return (await http.get(f"{API}/events", params={"type": "candle.closed", **parameters})).json()

        seen, cursor = [], None
        while True:
            found = await page(limit=2, order="asc", **({"cursor": cursor} if cursor else {}))
            seen += [entry["payload"]["close"] for entry in found["events"]]
            cursor = found["next_cursor"]
            if cursor is None:
                break
        assert seen == [100.0, 101.0, 102.0, 103.0, 104.0]
        assert [entry["symbol"] for entry in (await page(symbol="ETH/USDT:USDT"))["events"]] == ["ETHUSDT"]
        assert len((await page(trace_id=event.metadata.trace_id))["events"]) == 1
        assert [entry["payload"]["close"] for entry in (await page(limit=1))["events"]] == [104.0]
        since = event.metadata.timestamp.isoformat()
        assert [entry["payload"]["close"] for entry in (await page(since=since))["events"]] == [104.0]
        for wrong in ({"symbol": "nope!"}, {"cursor": "x"}, {"limit": 0}, {"since": "2026-01-01T00:00:00"}):
            assert (await http.get(f"{API}/events", params=wrong)).status_code == 422, wrong


async def test_commands_are_answered_over_the_bus(stage: Stage) -> None:
    client = RpcClient(
        RedisRpcTransport(stage.connection), service="ai-service", instance="test", clock=SystemClock(), ids=RandomIds()
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(stage.service())
        await client.start()
        stack.push_async_callback(client.stop)

        health = await client.call(service=SERVICE, command="get_system_health", parameters={}, timeout=10.0)
        state = await client.call(service=SERVICE, command="get_portfolio_state", parameters={}, timeout=10.0)

    assert health.result is not None
    assert set(health.result["services"]) == {"ai-service", "exec-risk-service", SERVICE}
    assert state.result is not None
    assert (state.result["run_id"], list(state.result["positions"])) == ("run", [])


async def process(stage: Stage, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.analytics_os_service"),
        env={**os.environ, "REDIS_URL": stage.redis_url, "POSTGRES_URL": stage.database_url, **environment},
        stderr=asyncio.subprocess.PIPE,
    )


async def test_as_a_process_it_survives_sigkill_without_loss_and_ends_cleanly_on_sigterm(stage: Stage) -> None:
    port = free_port()
    running = await process(stage, QT_PORT=str(port), QT_RUN_ID="run")

    async def is_ready() -> bool:
        try:
            async with httpx.AsyncClient(trust_env=False) as http:
                return (await http.get(f"http://127.0.0.1:{port}/health/ready")).status_code == 200
        except httpx.HTTPError:
            return False

    await eventually(is_ready, timeout=60, what="readiness")
    published = {(await stage.bus.publish("candle.closed", candle(number=n))).metadata.event_id for n in range(200)}
    await stage.has_archived("candle.closed", 1)
    running.kill()
    await running.communicate()
    published |= {
        (await stage.bus.publish("candle.closed", candle(number=n))).metadata.event_id for n in range(200, 250)
    }

    running = await process(stage, QT_PORT=str(port), QT_RUN_ID="run")
    await stage.has_archived("candle.closed", 250)
    assert {row["event_id"] for row in await stage.archived("candle.closed")} == published
    await eventually(is_ready, timeout=60, what="readiness")
    running.send_signal(signal.SIGTERM)
    await running.communicate()
    assert running.returncode == 0


async def test_a_wrong_setting_is_one_line_and_exit_code_4(stage: Stage) -> None:
    running = await process(stage, HEARTBEAT_TIMEOUT_SECONDS="soon")

    _, errors = await running.communicate()

    assert running.returncode == 4
    (line,) = errors.decode().strip().splitlines()
    assert "HEARTBEAT_TIMEOUT_SECONDS=soon" in line
