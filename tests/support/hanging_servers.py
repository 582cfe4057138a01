"""Servers that stop answering without going away, and what ``/health`` of a service that needs them does meanwhile.

Run as a program it is that service: a process with everything that a real one has around its ``/health``.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from infrastructure.embedded.loopback import HOST, free_port
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.events.envelope import Event
from shared.health.checks import HealthMonitor
from shared.health.consuming import consumer_check
from shared.health.dependencies import HttpEndpoint, http_check, postgres_check, redis_check
from shared.health.event_loop import EventLoopLag, event_loop_check
from shared.health.heartbeat import Heartbeat
from shared.health.resources import Resources, resource_check
from shared.health.routes import create_service_api
from shared.health.server import serve
from shared.ids import RandomIds
from shared.postgres.pool import PostgresPool
from shared.redis_connection import RedisConnection
from shared.service import Service
from shared.telemetry.logs import configure_logging
from shared.telemetry.metrics import Metrics
from tests.support.eventually import eventually

#: A check of the stage is repeated after this long, and has failed after twice as long (2 s at most).
INTERVAL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Answer:
    """What one request got.

    Attributes:
        code: HTTP status.
        body: JSON, or ``{}``.
        took_ms: From before the connect to the last byte, milliseconds.
    """

    code: int
    body: dict[str, Any]
    took_ms: float

    def status_of(self, dependency: str) -> str:
        """Return its status, ``?`` while there is none."""
        return str(self.body.get("dependencies", {}).get(dependency, {}).get("status", "?"))


@dataclass(frozen=True, slots=True)
class HangStage:
    """A service process, and the processes of the servers that it needs.

    Attributes:
        port: Where the service answers.
        servers: Process id by name of the dependency.
    """

    port: int
    servers: dict[str, int]

    async def get(self, path: str = "/health") -> Answer:
        """Ask as curl does: one connection, one request.

        Raises:
            OSError: Nobody answers.
        """
        began = time.perf_counter()
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        took_ms = (time.perf_counter() - began) * 1000.0
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        is_json = b"application/json" in head
        return Answer(int(head.split(b" ", 2)[1]), json.loads(body) if is_json else {}, took_ms)

    async def reaches(self, told: Callable[[Answer], bool]) -> list[Answer]:
        """Ask until ``told`` likes the answer; return all answers on the way."""
        answers: list[Answer] = []

        async def asked() -> bool:
            with suppress(OSError, IndexError):
                answers.append(await self.get())
                return told(answers[-1])
            return False

        await eventually(asked, what="the answer of /health", timeout=60)
        return answers

    async def ask(self, requests: int) -> list[Answer]:
        """Ask so many times, one after the other."""
        return [await self.get() for _ in range(requests)]


@contextmanager
def hanging(process_ids: Sequence[int]) -> Iterator[None]:
    """Stop the processes and their children: connections stay, nothing answers; then let them go on."""
    stopped: list[psutil.Process] = []
    try:
        for process_id in process_ids:
            parent = psutil.Process(process_id)
            _stop(parent, stopped)  # first, so that it starts no child between the look and the signal
            for child in parent.children(recursive=True):
                _stop(child, stopped)
        yield
    finally:
        for process in reversed(stopped):
            with suppress(psutil.NoSuchProcess):
                process.resume()


def _stop(process: psutil.Process, stopped: list[psutil.Process]) -> None:
    with suppress(psutil.NoSuchProcess):
        process.suspend()
        stopped.append(process)


@asynccontextmanager
async def hang_stage(
    *,
    redis_url: str,
    redis_pid: int,
    postgres_url: str,
    postgres_pid: int,
    folder: Path,
    interval_seconds: float = INTERVAL_SECONDS,
) -> AsyncIterator[HangStage]:
    """Start an HTTP server and a service that needs it, Redis and PostgreSQL; end both.

    Args:
        redis_url: A running Redis, and ``redis_pid`` its process.
        redis_pid: See there.
        postgres_url: A running PostgreSQL, and ``postgres_pid`` its first process.
        postgres_pid: See there.
        folder: An empty folder for the state of the service.
        interval_seconds: Time between two checks; what a real service has is 5 s.
    """
    http_port, port = free_port(), free_port()
    http = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "http.server", str(http_port), "--bind", HOST, cwd=folder, stdout=DEVNULL, stderr=DEVNULL
    )
    endpoint = f"http://{HOST}:{http_port}/"
    arguments = [redis_url, postgres_url, endpoint, str(folder), str(interval_seconds), str(port)]
    service = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.hanging_servers",
        *arguments,
        cwd=Path(__file__).parents[2],
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        stage = HangStage(port, {"redis": redis_pid, "postgres": postgres_pid, "endpoint": http.pid})
        await stage.reaches(lambda answer: answer.body.get("status") == "OK")
        yield stage
    finally:
        for process in (service, http):
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


@dataclass(frozen=True, slots=True)
class HangFigures:
    """How quickly ``/health`` answered while every dependency hung, milliseconds.

    Attributes:
        requests: How many were made.
        median: Half were quicker.
        p99: Ninety-nine of a hundred were quicker.
        worst: The slowest.
    """

    requests: int
    median: float
    p99: float
    worst: float


async def health_hang_ms(stage: HangStage, *, requests: int = 500) -> HangFigures:
    """Measure ``/health`` from the moment at which every dependency begins to hang; needs a stage that is well."""
    with hanging(list(stage.servers.values())):
        answers = await stage.ask(requests)
        answers += await stage.reaches(lambda answer: answer.code == 503)
        answers += await stage.ask(requests)
    took = sorted(answer.took_ms for answer in answers)
    return HangFigures(requests=len(took), median=took[len(took) // 2], p99=took[int(len(took) * 0.99)], worst=took[-1])


def main(*arguments: str) -> int:
    """Run the service until it is killed."""
    redis_url, postgres_url, endpoint_url, state_dir, interval, port = arguments
    configure_logging("desk-service")
    clock, ids = SystemClock(), RandomIds()
    metrics = Metrics("desk-service", clock)
    redis, pool = RedisConnection(redis_url, clock=clock), PostgresPool(postgres_url, clock=clock)
    endpoint = HttpEndpoint(endpoint_url, clock=clock)
    bus = RedisStreamsBus(
        redis, service="desk-service", instance=socket.gethostname(), clock=clock, ids=ids, market_clock=clock
    )
    bus.subscribe("service.heartbeat", _ignore)  # something to read for, so that there is a consumer
    loop_lag = EventLoopLag("desk-service", clock=clock, registry=metrics.registry)
    health = HealthMonitor(
        {
            "redis": redis_check(redis),
            "postgres": postgres_check(pool),
            "endpoint": http_check(endpoint),
            "eventbus": consumer_check(bus.progress, explained_by=("redis", "postgres")),
            "event-loop": event_loop_check(loop_lag),
            "system": resource_check(Resources(Path(state_dir))),
        },
        clock=clock,
        interval_seconds=float(interval),
        recheck_seconds=float(interval),
        timeout_seconds=min(2.0, 2 * float(interval)),
    )
    heartbeat = Heartbeat(
        bus=bus, service=lambda: service, health=health, clock=clock, interval_seconds=float(interval)
    )
    service = Service("desk-service", [redis, heartbeat, pool, endpoint, bus, loop_lag])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return serve(create_service_api("Desk", service, health, metrics=metrics, ids=ids), host=HOST, port=int(port))


async def _ignore(_event: Event[Any]) -> None:
    """Nothing to do."""


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
