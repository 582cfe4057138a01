"""A process with a resting entry dies: the exchange itself cancels the entry, whoever else is dead too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.crashpoints import EXIT_CODE
from shared.events.v3 import ExecutionRequestPayload
from tests.support.account_stage import AccountStage, account_stage
from tests.support.eventually import eventually
from tests.support.markets import BTC


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        made.environment["ENTRY_COUNTDOWN_SECONDS"] = "3"
        yield made


async def ask_for_a_resting_entry(stage: AccountStage) -> None:
    await stage.marked()
    await stage.bus.publish(
        "execution.request",
        ExecutionRequestPayload(
            symbol=BTC,
            side="BUY",
            position_size_usd=500.0,
            leverage=5.0,
            stop_loss_pct=2.0,
            execution_strategy="LIMIT",
            signal_confidence=0.9,
            signal_source="test",
        ),
    )
    await eventually(lambda: stage.engine.open_orders(BTC), timeout=30, what="a resting entry")


@pytest.mark.parametrize(
    "point",
    [
        "countdown.count_down:after",
        pytest.param("countdown.count_down:after#2", marks=pytest.mark.long),
    ],
)
async def test_the_exchange_cancels_the_entries_of_a_dead_process(stage: AccountStage, point: str) -> None:
    await stage.launch(QT_CRASHPOINT=point)
    await ask_for_a_resting_entry(stage)
    assert stage.process is not None
    assert await stage.process.wait() == EXIT_CODE

    await eventually(lambda: not stage.engine.open_orders(BTC), timeout=15, what="the entry cancelled")

    assert stage.engine.position(BTC).quantity == 0


@pytest.mark.long
async def test_a_living_process_keeps_its_entry_and_leaves_it_to_the_next_one(stage: AccountStage) -> None:
    await stage.launch()
    await ask_for_a_resting_entry(stage)
    (entry,) = stage.engine.open_orders(BTC)

    await eventually(lambda: len(_asked(stage)) >= 6, timeout=30, what="the countdown refreshed beyond its time")
    assert [order.client_order_id for order in stage.engine.open_orders(BTC)] == [entry.client_order_id]
    await stage.end()

    assert "countdownTime=3000" in _asked(stage)[-2]
    assert "countdownTime=0" in _asked(stage)[-1]


def _asked(stage: AccountStage) -> list[str]:
    return [request.body for request in stage.exchange.live.requests if request.path.endswith("countdownCancelAll")]
