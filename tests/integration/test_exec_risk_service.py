"""The service as a process: real Redis, real PostgreSQL, ccxt, a paper exchange over HTTP, and SIGKILL."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from infrastructure.paper_exchange.faults import Fault
from shared.trading.orders import OrderType
from tests.support.account_stage import AccountStage, account_stage
from tests.support.eventually import eventually
from tests.support.markets import BTC, START


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


async def test_a_signal_becomes_a_protected_position_and_a_fall_closes_it(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()

    sent = await stage.signal("BUY")
    opened = (await stage.told("position.opened"))[0]
    await stage.orders_rest(2)

    assert opened.size_usd == pytest.approx(500.005)
    assert (await stage.told("execution.result"))[0].status == "SUCCESS"
    trace = [e.metadata.event_type for e in stage.heard if e.metadata.trace_id == sent.metadata.trace_id]
    assert {"signal.generated", "order.updated", "execution.result", "position.opened"} <= set(trace)
    answer = await stage.rpc.call(
        service="exec-risk-service", command="get_position_status", parameters={"symbol": BTC}, timeout=5
    )
    assert answer.result is not None
    assert answer.result["position"]["position_id"] == opened.position_id
    async with httpx.AsyncClient() as client:
        shown = (await client.get(f"{stage.url}/api/v1/positions")).json()
        assert [position["symbol"] for position in shown["positions"]] == [BTC]

        async def is_well() -> bool:
            return bool((await client.get(f"{stage.url}/health")).json()["status"] == "OK")

        await eventually(is_well, what="health OK")  # a busy machine may have slowed it down for a moment

    stage.engine.advance_to(START + timedelta(minutes=5))
    stage.exchange.live.send_events()

    closed = (await stage.told("position.closed"))[0]
    assert closed.exit_reason == "STOP_LOSS"
    await stage.orders_rest(0)
    await stage.end()
    await stage.assert_sound()


async def test_killed_while_the_answer_of_its_order_is_held_back(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("hold_order_answer", seconds=60, hold_events=True))

    await stage.signal("BUY")
    await eventually(lambda: stage.engine.orders(BTC), what="the order on the exchange")
    await stage.kill()
    assert stage.engine.position(BTC).quantity == Decimal("0.01")  # naked, and nobody knows
    await stage.launch()

    stops = [algo for algo in stage.engine.open_algos(BTC) if algo.type is OrderType.STOP_MARKET]
    assert [stop.quantity for stop in stops] == [Decimal("0.01")], "ready means protected"
    await stage.told("position.opened")
    await stage.orders_rest(2)
    assert len([order for order in stage.engine.orders(BTC) if order.algo_id is None]) == 1
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_killed_again_and_again_while_it_trades(stage: AccountStage) -> None:
    await stage.launch()
    for round_number in range(3):
        await stage.marked()
        held = "BUY" if stage.engine.position(BTC).quantity == 0 else "SELL"
        await stage.signal(held)
        await asyncio.sleep(0.004 * round_number)  # a moment that differs, not a wait for something
        await stage.kill()
        await stage.launch()
        await stage.signal("SELL" if held == "BUY" else "BUY")

    await eventually(lambda: _is_quiet(stage), timeout=40, what="quiet")
    await stage.end()
    await stage.assert_sound()


async def _is_quiet(stage: AccountStage) -> bool:
    unsettled = await stage.database.fetchval(
        "SELECT count(*) FROM exec_risk.order_intent WHERE NOT settled AND status <> 'NEW'"
    )
    flat_now = stage.engine.position(BTC).quantity == 0
    return bool(unsettled == 0 and len(stage.engine.open_algos(BTC)) == (0 if flat_now else 2))


async def test_an_order_without_an_answer_is_found_and_protected(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("lose_order_answer"))
    stage.exchange.live.faults.arm(Fault("drop_user_event", count=3))

    await stage.signal("BUY")
    await stage.told("position.opened")
    await stage.orders_rest(2)

    assert [alert.alert_type for alert in stage.of("risk.alert")] == ["ORDER_OUTCOME_UNKNOWN"]
    await stage.end()
    await stage.assert_sound()


async def test_a_stream_that_breaks_hides_nothing(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    await stage.signal("BUY")
    await stage.told("position.opened")
    await stage.orders_rest(2)

    stage.exchange.live.hub.close(user=True, market=False)
    stage.engine.advance_to(START + timedelta(minutes=5))
    stage.engine.take_events()  # the stop fired while nobody listened

    assert (await stage.told("position.closed"))[0].exit_reason == "STOP_LOSS"
    await stage.orders_rest(0)
    await stage.end()
    await stage.assert_sound()


async def test_validate_risk_answers_over_redis(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()

    async def ask(size_usd: float, leverage: float) -> Any:
        parameters = {"symbol": BTC, "size_usd": size_usd, "leverage": leverage}
        answer = await stage.rpc.call(
            service="exec-risk-service", command="validate_risk", parameters=parameters, timeout=5
        )
        return answer.result

    assert await ask(500, 5) == {"approved": True, "reason": None, "code": None, "max_allowed_size": 1000.0}
    too_large = await ask(5_000, 5)
    assert (too_large["approved"], too_large["max_allowed_size"]) == (False, 1000.0)
    assert "cap" in too_large["reason"]
    assert too_large["code"] == "SIZE_TOO_LARGE"
    assert "leverage" in (await ask(500, 50))["reason"]


async def test_a_wrong_setting_stops_the_start_with_one_line_and_code_4(stage: AccountStage) -> None:
    environment = {**stage.environment, "MAX_LEVERAGE": "a lot"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.exec_risk_service",
        env=environment,
        cwd=Path(__file__).parents[2],
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 30)

    assert process.returncode == 4
    lines = said.decode().strip().splitlines()
    assert len(lines) == 1
    assert "MAX_LEVERAGE=a lot" in lines[0]
