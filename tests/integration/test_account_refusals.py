"""An account that must not be traded ends the start of the process: one line, exit code 4, and nothing was sent."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.account_stage import AccountStage, account_stage
from tests.support.markets import BTC


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


async def ended(environment: dict[str, str]) -> tuple[int | None, list[str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.exec_risk_service",
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, said.decode().strip().splitlines()


async def test_a_key_that_can_withdraw_is_refused(stage: AccountStage) -> None:
    answer = await stage.exchange.admin.post("/admin/account/settings", json={"enableWithdrawals": True})
    assert answer.json()["enableWithdrawals"] is True

    code, lines = await ended(stage.environment)

    assert code == 4
    assert any("BINANCE_API_KEY can withdraw money" in line for line in lines)
    assert stage.engine.orders(BTC) == []


async def test_hedge_mode_and_multi_assets_mode_are_refused(stage: AccountStage) -> None:
    stage.engine.force_hedge_mode()
    await stage.exchange.admin.post("/admin/account/settings", json={"multiAssetsMargin": True})

    code, lines = await ended(stage.environment)

    assert code == 4
    assert any("hedge mode" in line and "multi-assets mode" in line for line in lines)


@pytest.mark.parametrize("wrong", [{"enableWithdrawals": "yes"}, {"enableEverything": True}])
async def test_the_admin_port_takes_what_it_knows(stage: AccountStage, wrong: dict[str, Any]) -> None:
    assert (await stage.exchange.admin.post("/admin/account/settings", json=wrong)).status_code == 400
