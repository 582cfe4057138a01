"""The HTTP side of a service, with a service that starts slowly, hangs on a dependency, or fails."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from shared.clock import SystemClock
from shared.errors import ConfigurationError, ConnectionLostError
from shared.health.checks import DependencyCheck, HealthMonitor
from shared.health.routes import create_service_api
from shared.ids import RandomIds
from shared.service import Component, Service
from shared.telemetry.metrics import Metrics
from tests.support.eventually import eventually


class Gate:
    """A component that starts when it is told to, or fails."""

    name = "gate"

    def __init__(self, failure: Exception | None = None) -> None:
        self.open = asyncio.Event()
        self.failure = failure

    async def start(self) -> None:
        await self.open.wait()
        if self.failure:
            raise self.failure

    async def stop(self) -> None:
        self.open.clear()


async def hangs() -> float:
    await asyncio.Event().wait()
    return 0.0


async def answers() -> float:
    return 1.5


async def refuses() -> float:
    raise ConnectionLostError("nobody there")


@asynccontextmanager
async def running(
    gate: Component, checks: dict[str, DependencyCheck]
) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    clock = SystemClock()
    health = HealthMonitor(checks, clock=clock, interval_seconds=0.01, modules=lambda: {"model": "training 40 %"})
    service = Service("demo-service", [gate])
    app = create_service_api("Demo", service, health, metrics=Metrics("demo-service", clock), ids=RandomIds())
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://demo") as http:
        yield app, http


async def test_health_answers_before_the_service_is_ready() -> None:
    gate = Gate()
    async with running(gate, {"redis": DependencyCheck(answers, slow_ms=100)}) as (_, http):
        assert (await http.get("/health/live")).status_code == 200
        ready = await http.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["modules"]["model"] == "training 40 %"

        gate.open.set()

        async def is_ready() -> bool:
            return (await http.get("/health/ready")).status_code == 200

        await eventually(is_ready)
        body = (await http.get("/health")).json()
        assert (body["service"], body["status"]) == ("demo-service", "OK")
        assert body["dependencies"]["redis"] == {"status": "OK", "latency_ms": 1.5, "error": None, "details": {}}


async def test_a_hanging_dependency_never_delays_the_answer() -> None:
    gate = Gate()
    gate.open.set()
    async with running(gate, {"redis": DependencyCheck(hangs, slow_ms=100)}) as (_, http):
        async with asyncio.timeout(1.0):  # far below the 2 s that the check itself may take
            body = (await http.get("/health")).json()

        assert body["dependencies"]["redis"]["error"] == "not checked yet"


async def test_a_critical_dependency_that_is_away_makes_503_with_the_reason() -> None:
    gate = Gate()
    gate.open.set()
    async with running(gate, {"redis": DependencyCheck(refuses, slow_ms=100)}) as (_, http):

        async def down() -> httpx.Response | None:
            answer = await http.get("/health")
            return answer if answer.status_code == 503 else None

        answer = await eventually(down)
        assert answer is not None
        assert answer.json()["dependencies"]["redis"]["error"] == "nobody there"


async def test_a_correlation_id_comes_back_and_a_dangerous_one_is_replaced() -> None:
    async with running(Gate(), {}) as (_, http):
        kept = await http.get("/health/live", headers={"X-Correlation-ID": "desk-7"})
        made = await http.get("/health/live", headers={"X-Correlation-ID": "x" * 500})

    assert kept.headers["X-Correlation-ID"] == "desk-7"
    assert len(made.headers["X-Correlation-ID"]) == 36


async def test_metrics_carry_the_names_of_the_specification() -> None:
    async with running(Gate(), {}) as (_, http):
        text = (await http.get("/metrics")).text

    assert 'service_uptime_seconds{service="demo-service"}' in text


async def test_a_start_that_fails_asks_the_server_to_stop_with_a_code() -> None:
    gate = Gate(ConfigurationError("REDIS_URL is wrong"))
    async with running(gate, {}) as (app, _):
        stopped = asyncio.Event()
        app.state.stop_server = stopped.set
        gate.open.set()

        await asyncio.wait_for(stopped.wait(), 5)
        assert app.state.exit_code == 4


PROGRAM = """
import sys
from fastapi import FastAPI
from shared.errors import QuantumTraderError
from shared.health.server import serve
try:
    sys.exit(serve(FastAPI(), host="127.0.0.1", port=int(sys.argv[1])))
except QuantumTraderError as error:
    print(error, file=sys.stderr)
    sys.exit(4)
"""


def test_a_busy_port_gives_one_clear_line() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(port)], capture_output=True, text=True, timeout=30, check=False
        )

    assert ended.returncode == 4
    assert ended.stderr.strip() == f"port {port} on 127.0.0.1 is in use; stop what uses it or set QT_PORT"
