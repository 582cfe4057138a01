"""Executions by the real process, over Redis, PostgreSQL and the paper exchange's HTTP: requested, worked, resumed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infrastructure.paper_exchange.records import TimeInForce
from shared.clock import SystemClock
from shared.events.envelope import Event
from shared.events.v3 import ExecutionRequestPayload, PortfolioBalancePayload
from shared.events.v3.analytics_os import PortfolioAdjustment
from shared.trading.orders import OrderType
from tests.support.account_stage import AccountStage, account_stage
from tests.support.eventually import eventually
from tests.support.markets import BTC, Prices, flat

#: Stands still for a minute, then rises a little.
PRICES: list[Prices] = [*flat(50_000, 1), (50_000, 50_050, 50_000, 50_050), *flat(50_050, 60)]


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path, prices=PRICES) as opened:
        yield opened


async def ask(stage: AccountStage, **changes: Any) -> Event[Any]:
    fields: dict[str, Any] = {
        "symbol": BTC,
        "side": "BUY",
        "position_size_usd": 990.0,
        "leverage": 5,
        "execution_strategy": "MARKET",
        "signal_confidence": 1.0,
        "signal_source": "a person",
    }
    return await stage.bus.publish("execution.request", ExecutionRequestPayload(**fields | changes))


async def test_requests_over_the_bus_open_reduce_as_a_maker_and_rebalance(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()

    await ask(stage)
    (opened,) = await stage.told("execution.result")
    assert (opened.status, opened.filled_quantity) == ("SUCCESS", 0.019)
    await stage.orders_rest(2)
    await ask(stage, side="SELL", position_size_usd=500.0, reduce_only=True, execution_strategy="LIMIT")
    await eventually(lambda: stage.engine.open_orders(BTC), what="the limit order in the exchange's book")
    (resting,) = stage.engine.open_orders(BTC)
    assert (resting.type, resting.time_in_force) == (OrderType.LIMIT, TimeInForce.GTX)
    assert resting.reduce_only
    await stage.candle(seconds=100.0)  # the market rises through it
    _, reduced = await stage.told("execution.result", 2)
    assert (reduced.status, reduced.strategy) == ("SUCCESS", "LIMIT")
    assert reduced.slippage_pct <= 0
    await stage.bus.publish(
        "portfolio.balance",
        PortfolioBalancePayload(
            action="REBALANCE_REQUIRED",
            total_exposure_usd=500.0,
            max_allowed_exposure_usd=0.0,
            position_count=1,
            max_positions=0,
            adjustments=(PortfolioAdjustment(symbol=BTC, delta_usd=-500.0),),
        ),
    )

    (closed,) = await stage.told("position.closed")
    assert closed.exit_reason == "REBALANCE"
    await stage.orders_rest(0)
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_a_twap_of_a_killed_process_is_finished_by_the_next_one(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()

    ends = SystemClock().now() + timedelta(seconds=40)
    await ask(stage, execution_strategy="TWAP", urgency="HIGH", expires_at=ends)
    await eventually(lambda: stage.engine.position(BTC).quantity > 0, what="the first slice")
    await stage.kill()
    first = stage.engine.position(BTC).quantity
    assert first < Decimal("0.019")
    await stage.launch()

    (result,) = await stage.told("execution.result")
    assert (result.status, result.strategy, result.filled_quantity) == ("SUCCESS", "TWAP", 0.019)
    assert stage.engine.position(BTC).quantity == Decimal("0.019")
    await stage.orders_rest(2)
    await stage.end()
    await stage.assert_sound()
