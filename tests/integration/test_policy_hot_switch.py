"""A switch of the policy reaches every process in less than a second: by its event, and without it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

import httpx
import pytest

from infrastructure.embedded.loopback import free_port
from services.ai_service.handlers.policy_watcher import PolicyWatcher
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import SystemClock
from shared.ids import RandomIds
from shared.policy.redis_store import RedisPolicyStore
from shared.policy.snapshot import PolicySnapshot
from shared.redis_connection import RedisConnection
from shared.trading.policy import RiskMode
from tests.support.command_line import run_command
from tests.support.eventually import eventually
from tests.support.policy_stage import wish

TOKEN = "canary-4f1d7c0ba98e5d32-0123456789"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NORMAL, DEFENSIVE, SMALL = RiskMode


@asynccontextmanager
async def connected(redis_url: str) -> AsyncIterator[RedisConnection]:
    """Give a connection for the block."""
    connection = RedisConnection(redis_url, clock=SystemClock())
    try:
        yield connection
    finally:
        await connection.stop()


@asynccontextmanager
async def process(redis_url: str, service: str) -> AsyncIterator[RedisPolicyStore]:
    """Give a policy store as a service has it: a bus of its own, and never a look at Redis without an event."""
    clock = SystemClock()
    async with connected(redis_url) as connection:
        bus = RedisStreamsBus(
            connection, service=service, instance="one", clock=clock, ids=RandomIds(), market_clock=clock
        )
        store = RedisPolicyStore(connection, clock=clock, bus=bus, refresh_seconds=3600, stale_after_seconds=3600)
        bus.subscribe("policy.updated", PolicyWatcher(store).on_policy_updated)
        try:
            await store.start()
            await bus.start()
            yield store
        finally:
            await bus.stop()
            await store.stop()


def all_hold(stores: Sequence[RedisPolicyStore], mode: RiskMode) -> bool:
    return all(store.current().mode is mode for store in stores)


@pytest.mark.parametrize("place", ["redis", "cluster"])
async def test_the_event_alone_brings_a_switch_to_the_other_services_at_once(
    place: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("redis_url" if place == "redis" else "redis_cluster_url")
    async with AsyncExitStack() as stack:
        writer, *others = [await stack.enter_async_context(process(url, name)) for name in ("one", "two", "three")]
        took = []
        for mode in (DEFENSIVE, SMALL, NORMAL):
            began = time.perf_counter()
            await writer.change(wish(mode))
            await eventually(partial(all_hold, others, mode), what="the switch")
            took.append(time.perf_counter() - began)

    assert median(took) < 1.0


@asynccontextmanager
async def analytics(redis_url: str, database_url: str, folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Run the analytics-os-service as a process for the block."""
    port = free_port()
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("QT_", "REDIS_", "POSTGRES_"))
    }
    told = {
        "REDIS_URL": redis_url,
        "POSTGRES_URL": database_url,
        "QT_PORT": str(port),
        "QT_STATE_DIR": str(folder / "var"),
        "QT_RUN_ID": "run",
        "QT_API_TOKEN": TOKEN,
        "QT_API_TOKEN_OWNER": "desk",
    }
    service = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.analytics_os_service"), env={**inherited, **told}, stdout=PIPE, stderr=DEVNULL
    )
    assert service.stdout is not None
    lines = asyncio.create_task(service.stdout.read())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:

        async def is_ready() -> bool:
            try:
                return (await http.get("/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

        try:
            await eventually(is_ready, timeout=60, what="the service")
            yield http
        finally:
            if service.returncode is None:
                service.terminate()
            assert b"canary" not in await lines
            await service.wait()


async def test_a_whole_service_follows_the_command_line_and_leads_by_its_routes(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    environment = {"REDIS_URL": redis_url}

    async with analytics(redis_url, database_url, tmp_path) as http, process(redis_url, "ai-service") as other:

        async def holds(mode: RiskMode) -> bool:
            return bool((await http.get("/api/v1/policy")).json()["active_mode"] == mode)

        took = []
        for mode in (DEFENSIVE, SMALL, DEFENSIVE):
            arguments = ("policy", "mode", mode.value, "--reason", "storm", "--by", "ann")
            finished = await run_command(*arguments, cwd=tmp_path, environment=environment)
            began = time.perf_counter()  # the command ends after its change is stored and told
            assert finished.exit_code == 0, finished.stderr
            await eventually(partial(holds, mode), what="the switch")
            took.append(time.perf_counter() - began)
        assert median(took) < 1.0
        assert other.current().mode is DEFENSIVE

        read = await http.get("/api/v1/policy")
        body = {"reason": "calm", "active_mode": "NORMAL", "modes": {"NORMAL": {"max_leverage": 4}}}
        changed = await http.put("/api/v1/policy", json=body, headers={**BEARER, "If-Match": read.headers["ETag"]})
        assert changed.status_code == 200, changed.text
        await eventually(lambda: other.current().policy.max_leverage == 4, what="the change in another service")

        history = (await http.get("/api/v1/policy/history")).json()["revisions"]
        assert [row["updated_by"] for row in history] == ["desk", "ann", "ann", "ann", "system_init"]
        await eventually(
            lambda: PolicySnapshot(tmp_path / "var/policy/paper/analytics-os-service.json").load() == other.document(),
            what="the snapshot of the service",
        )

        metrics = (await http.get("/metrics")).text
        assert 'policy_mode{mode="NORMAL",service="analytics-os-service"} 1.0' in metrics
        assert "policy_write_seconds_count" in metrics
