"""Two exec-risk processes on one account: one acts, whatever happens to it; the other waits for its turn."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest

from infrastructure.embedded.loopback import free_port
from tests.support.account_stage import AccountStage, account_stage
from tests.support.eventually import eventually
from tests.support.markets import BTC

ROOT = Path(__file__).parents[2]
LEASE_SECONDS, RECV_WINDOW_SECONDS = 2.0, 3.0


@dataclass
class Neighbour:
    """A second process on the same account, Redis, PostgreSQL and exchange."""

    url: str
    process: asyncio.subprocess.Process

    async def health(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            return dict((await client.get(f"{self.url}/health")).json())

    async def is_ready(self) -> bool:
        async with httpx.AsyncClient() as client:
            try:
                return (await client.get(f"{self.url}/health/ready")).status_code == 200
            except httpx.TransportError:
                return False

    async def is_waiting(self) -> bool:
        try:
            lease = (await self.health())["dependencies"]["account-lease"]
        except httpx.TransportError:
            return False
        return lease["status"] == "DEGRADED" and "is held by process" in (lease["error"] or "")


@asynccontextmanager
async def neighbour_of(stage: AccountStage, state: Path) -> AsyncIterator[Neighbour]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.exec_risk_service",
        env={**stage.environment, "QT_PORT": str(port), "QT_STATE_DIR": str(state)},
        cwd=ROOT,
    )
    try:
        yield Neighbour(f"http://127.0.0.1:{port}", process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), 30)


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path / "first") as made:
        made.environment |= {
            "EXECUTOR_LEASE_SECONDS": str(LEASE_SECONDS),
            "EXECUTOR_STATUS_LAG_SECONDS": "0",
        }
        await made.launch()
        yield made


async def test_the_second_waits_and_follows_at_once_after_a_kill(stage: AccountStage, tmp_path: Path) -> None:
    async with neighbour_of(stage, tmp_path / "second") as second:
        await eventually(second.is_waiting, timeout=40, what="the second process waiting")
        epoch = await stage.database.fetchval("SELECT epoch FROM exec_risk.account")
        assert not await second.is_ready()

        began = monotonic()
        await stage.kill()
        await eventually(second.is_ready, timeout=40, what="the second process ready")

        assert monotonic() - began < LEASE_SECONDS + RECV_WINDOW_SECONDS, "a proven death needs no waiting"
        assert await stage.database.fetchval("SELECT epoch FROM exec_risk.account") > epoch
        await stage.marked()
        await stage.signal("BUY")
        await stage.orders_rest(2)


@pytest.mark.long
async def test_a_frozen_first_that_wakes_up_sends_nothing_and_ends(stage: AccountStage, tmp_path: Path) -> None:
    assert stage.process is not None
    await stage.marked()
    async with neighbour_of(stage, tmp_path / "second") as second:
        await eventually(second.is_waiting, timeout=40, what="the second process waiting")
        began = monotonic()
        stage.process.send_signal(signal.SIGSTOP)
        await stage.signal("BUY")  # lies in the stream when the first wakes up
        await eventually(second.is_ready, timeout=40, what="the second process ready")
        assert monotonic() - began >= LEASE_SECONDS / 2 + RECV_WINDOW_SECONDS, "what is alive is waited out"

        stage.process.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(stage.process.wait(), 30) == 1

        # The second may have taken the signal over by now; the first could only have sent what it did not store.
        sent = [order.client_order_id for order in stage.engine.orders(BTC) if order.algo_id is None]
        rows = await stage.database.fetch("SELECT client_order_id FROM exec_risk.order_intent WHERE leg = 'entry'")
        assert sent == [row["client_order_id"] for row in rows if row["client_order_id"] in sent]
        assert len(sent) <= 1
