"""The checks of Redis, PostgreSQL and HTTP: their thresholds, and an endpoint that answers, refuses or is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from infrastructure.embedded.loopback import free_port
from shared.circuit_breaker import BreakerState
from shared.clock import ManualClock, SystemClock
from shared.errors import ConnectionLostError
from shared.health.checks import DependencyCheck, HealthMonitor
from shared.health.contract import DependencyHealth, HealthStatus
from shared.health.dependencies import HttpEndpoint, http_check, postgres_check, redis_check
from shared.redis_links.health import RedisHealth
from shared.service import Service
from tests.support.eventually import eventually

START = datetime(2025, 5, 4, 12, tzinfo=UTC)


class Server:
    """Answers a ping after so many milliseconds; its pool may not be open yet."""

    def __init__(self, latency_ms: float = 1.0) -> None:
        self.latency_ms = latency_ms
        self.opened = True

    @property
    def pool(self) -> object:
        if not self.opened:
            raise ConnectionLostError("the connections to PostgreSQL are not open")
        return self

    async def ping(self) -> float:
        assert self.pool
        return self.latency_ms

    async def health(self) -> RedisHealth:
        return redis_health(latency_ms=self.latency_ms)


def redis_health(**changes: Any) -> RedisHealth:
    well = RedisHealth(
        latency_ms=1.2,
        error=None,
        version="7.4.7",
        role="master",
        uptime_seconds=3600,
        used_memory_bytes=1_101_004,
        connected_clients=4,
        masters=1,
        open_connections=2,
        breaker=BreakerState.CLOSED,
        reconnects=0,
        last_check=START,
    )
    return replace(well, **changes)


class Redis:
    """A connection that tells what it is told."""

    def __init__(self, **changes: Any) -> None:
        self.told = redis_health(**changes)

    async def health(self) -> RedisHealth:
        return self.told


async def found_by(check: DependencyCheck) -> DependencyHealth:
    monitor = HealthMonitor({"it": check}, clock=ManualClock(START), timeout_seconds=10)
    await monitor.start()
    service = Service("desk", [])
    await eventually(lambda: monitor.report(service).dependencies["it"].error != "not checked yet")
    await monitor.stop()
    return monitor.report(service).dependencies["it"]


@pytest.mark.parametrize(("check", "limit_ms"), [(redis_check, 100.0), (postgres_check, 200.0), (http_check, 500.0)])
async def test_each_kind_of_server_is_slow_above_its_own_limit(
    check: Callable[[Server], DependencyCheck], limit_ms: float
) -> None:
    assert (await found_by(check(Server(limit_ms)))).status is HealthStatus.OK
    late = await found_by(check(Server(limit_ms + 0.1)))
    assert (late.status, late.error) == (HealthStatus.DEGRADED, f"slower than {limit_ms:g} ms")


async def test_redis_tells_its_figures() -> None:
    found = await found_by(redis_check(Redis()))

    assert (found.status, found.latency_ms) == (HealthStatus.OK, 1.2)
    assert found.model_dump(mode="json")["details"] == {
        "version": "7.4.7",
        "role": "master",
        "uptime_seconds": 3600,
        "used_memory_bytes": 1_101_004,
        "connected_clients": 4,
        "masters": 1,
        "open_connections": 2,
        "breaker": BreakerState.CLOSED.value,
        "reconnects": 0,
        "last_check": "2025-05-04T12:00:00Z",
    }


async def test_redis_that_is_away_is_down_with_the_figures_that_are_left() -> None:
    found = await found_by(redis_check(Redis(latency_ms=None, error="nobody there", reconnects=3)))

    assert (found.status, found.latency_ms, found.error) == (HealthStatus.DOWN, None, "nobody there")
    assert (found.details["version"], found.details["reconnects"]) == ("7.4.7", 3)


def test_redis_and_postgres_are_critical_and_http_is_when_it_is_said() -> None:
    assert redis_check(Server()).is_critical
    assert postgres_check(Server()).is_critical
    assert not http_check(Server()).is_critical
    assert http_check(Server(), is_critical=True).is_critical


async def test_a_pool_that_is_still_closed_is_waited_for() -> None:
    server = Server()
    server.opened = False
    asked = asyncio.create_task(found_by(postgres_check(server)))
    await asyncio.sleep(0)
    server.opened = True

    assert (await asked).status is HealthStatus.OK


async def test_a_pool_that_stays_closed_is_down() -> None:
    server, service = Server(), Service("desk", [])
    server.opened = False
    monitor = HealthMonitor({"postgres": postgres_check(server)}, clock=ManualClock(START), timeout_seconds=0.01)
    await monitor.start()

    await eventually(lambda: monitor.report(service).status is HealthStatus.DOWN)
    assert monitor.report(service).dependencies["postgres"].error == "no answer within 0.01 s"
    await monitor.stop()


@asynccontextmanager
async def answering(status_line: str) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status_line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://reader:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/health?key=secret"


async def found_at(url: str) -> DependencyHealth:
    endpoint = HttpEndpoint(url, clock=SystemClock())
    await endpoint.start()
    try:
        return await found_by(http_check(endpoint))
    finally:
        await endpoint.stop()


async def test_an_endpoint_that_answers_with_success_is_ok() -> None:
    async with answering("204 No Content") as url:
        found = await found_at(url)

    assert found.error is None or "slower" in found.error
    assert found.latency_ms is not None
    assert found.latency_ms > 0


@pytest.mark.parametrize("status_line", ["503 Service Unavailable", "404 Not Found", "302 Found"])
async def test_any_other_answer_is_an_outage_and_shows_no_secret(status_line: str) -> None:
    async with answering(status_line) as url:
        found = await found_at(url)

    assert found.status is HealthStatus.DOWN
    assert found.error is not None
    assert found.error.endswith(f"/health answers {status_line[:3]}")
    assert "secret" not in found.error


async def test_an_endpoint_that_is_not_there_is_down() -> None:
    found = await found_at(f"http://127.0.0.1:{free_port()}/")

    assert found.status is HealthStatus.DOWN
    assert "cannot be reached: ConnectError" in (found.error or "")
