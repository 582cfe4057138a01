"""A service as a real process: exit codes, signals, answers while it recovers."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from infrastructure.embedded.loopback import free_port
from tests.support.eventually import eventually

PROGRAM = """
import asyncio, sys
from shared.clock import SystemClock
from shared.errors import ConfigurationError, ConnectionLostError
from shared.health.checks import DependencyCheck, HealthMonitor
from shared.health.routes import create_service_api
from shared.health.server import serve
from shared.ids import RandomIds
from shared.service import Service
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import Metrics

manner, port = sys.argv[1], int(sys.argv[2])


class Part:
    name = "part"

    async def start(self):
        if manner == "recovers":
            await asyncio.Event().wait()
        if manner == "refuses":
            raise ConfigurationError("REDIS_URL is wrong")
        if manner == "breaks":
            raise ConnectionLostError("nobody there")

    async def stop(self):
        print("stopped", flush=True)


async def hangs():
    await asyncio.Event().wait()


configure_logging("desk-service")
clock = SystemClock()
health = HealthMonitor({"redis": DependencyCheck(hangs, slow_ms=100)}, clock=clock)
service = Service("desk-service", [Part()])
api = create_service_api("Desk", service, health, metrics=Metrics("desk-service", clock), ids=RandomIds())
sys.exit(serve(api, host="127.0.0.1", port=port))
"""


@asynccontextmanager
async def running(manner: str) -> AsyncIterator[tuple[Process, httpx.AsyncClient]]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, manner, str(port), stdout=PIPE, stderr=PIPE
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        try:
            yield process, http
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def answers(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health/live")).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("manner", "code", "error"),
    [("refuses", 4, "ConfigurationError: REDIS_URL is wrong"), ("breaks", 1, "ConnectionLostError: nobody there")],
)
async def test_a_start_that_fails_ends_the_process_with_its_code_and_one_line(
    manner: str, code: int, error: str
) -> None:
    async with running(manner) as (process, _):
        output, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == code
        assert output == b"stopped\n"
        lines = [json.loads(line) for line in errors.splitlines()]
        assert [line["error"] for line in lines if line["level"] in {"error", "critical"}] == [error]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("manner", ["works", "recovers"])
async def test_a_signal_stops_the_service_and_the_process_ends_well(manner: str, number: signal.Signals) -> None:
    async with running(manner) as (process, http):
        await eventually(lambda: answers(http), what="the first answer")
        process.send_signal(number)
        output, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, errors
        assert output == b"stopped\n"
        assert b"Traceback" not in errors


async def test_health_answers_quickly_while_the_service_recovers_and_a_dependency_hangs() -> None:
    async with running("recovers") as (_, http):
        await eventually(lambda: answers(http), what="the first answer")
        took = []
        for _ in range(20):
            began = time.perf_counter()
            health = await http.get("/health")
            took.append(time.perf_counter() - began)
        assert sorted(took)[10] < 0.05
        body = health.json()
        assert body["modules"]["part"] == "STARTING"
        assert set(body) == {
            "service", "status", "version", "timestamp", "uptime_seconds", "dependencies", "modules", "metrics",
        }  # fmt: skip
        ready = await http.get("/health/ready")
        assert ready.status_code == 503
        assert ready.headers["X-Correlation-ID"]
