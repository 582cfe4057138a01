"""The emergency stop of a real process over real servers; every test asks the exchange's book what is left."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infrastructure.paper_exchange.faults import Fault
from infrastructure.paper_exchange.records import OrderRequest, TimeInForce
from services.exec_risk_service.adapters.stop_latch import latch_path
from shared.rpc.commands import EmergencyStopRequest
from shared.trading.orders import OrderType, Side
from tests.support.account_stage import TOKEN, AccountStage, account_stage
from tests.support.command_line import Finished, run_command
from tests.support.eventually import eventually
from tests.support.markets import BTC
from tests.support.tcp_gate import tcp_gate

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


def rest_a_limit(stage: AccountStage) -> None:
    stage.engine.place_order(
        OrderRequest(
            symbol=BTC,
            side=Side.BUY,
            type=OrderType.LIMIT,
            quantity=Decimal("0.01"),
            price=Decimal(40_000),
            time_in_force=TimeInForce.GTC,
            client_order_id="stranger",
        )
    )


def is_flat(stage: AccountStage) -> bool:
    engine = stage.engine
    return engine.position(BTC).quantity == 0 and not engine.open_orders() and not engine.open_algos()


async def opened(stage: AccountStage) -> None:
    await stage.signal("BUY")
    await stage.orders_rest(2)
    assert stage.engine.position(BTC).quantity > 0


async def verified(stage: AccountStage) -> None:
    await stage.stop_is_verified()
    assert is_flat(stage)


async def test_stopped_by_http_killed_halted_and_resumed_by_a_person(stage: AccountStage, tmp_path: Path) -> None:
    await stage.launch()
    await stage.marked()
    rest_a_limit(stage)  # a stranger's, and there is no position

    refused = await stage.control("emergency-stop", {"reason": "hands off"}, token=None)
    assert refused.status_code == 401
    answer = await stage.control("emergency-stop", {"reason": "hands off", "requested_by": "ada"})
    assert (answer.status_code, answer.json()["status"]) == (202, "in_progress")
    await verified(stage)
    joined = await stage.rpc.call(
        service="exec-risk-service",
        command="emergency_stop",
        parameters=EmergencyStopRequest(reason="me too", requested_by="bob").model_dump(),
        timeout=10,
    )
    assert joined.result is not None
    assert joined.result["status"] == "stopped"

    await stage.kill()
    await stage.launch()
    assert (await stage.trading())["state"] == "HALTED"
    await stage.marked()
    await stage.signal("BUY")
    await stage.told("execution.result")
    assert is_flat(stage)
    assert len(stage.of("emergency.stop")) == 1

    assert (await stage.control("resume", {"reason": "all is well", "by": "ada"}, token=None)).status_code == 401
    assert (await stage.control("resume", {"by": "ada"})).status_code == 422
    assert (await stage.control("resume", {"reason": "all is well"})).status_code == 422
    await verified(stage)
    resumed = await stage.control("resume", {"reason": "all is well", "by": "ada"})
    assert (resumed.status_code, resumed.json()["state"]) == (200, "ACTIVE")
    assert not latch_path(tmp_path, "paper", "test").exists()
    assert (await stage.control("resume", {"reason": "all is well", "by": "ada"})).status_code == 409
    await opened(stage)


@pytest.mark.long
async def test_a_touched_file_stops_while_the_exchange_is_away_and_the_process_dies(
    stage: AccountStage, tmp_path: Path
) -> None:
    await stage.launch()
    await stage.marked()
    await opened(stage)
    stage.exchange.live.faults.arm(Fault("maintenance", seconds=12))

    path = latch_path(tmp_path, "paper", "test")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

    async def is_latched() -> bool:
        return bool((await stage.trading())["state"] == "HALTED")

    await eventually(is_latched, timeout=1.5, what="a latch that was seen")
    assert stage.engine.position(BTC).quantity > 0
    await stage.kill()
    await stage.start()  # recovery waits for the exchange; the stop does not wait for recovery
    await eventually(lambda: is_flat(stage), timeout=60, what="an empty book")
    await stage.ready()
    await verified(stage)
    await eventually(lambda: stage.of("emergency.stop"), timeout=20, what="emergency.stop")
    # What was sent into the maintenance is called absent after half a minute at the earliest.
    await eventually(lambda: _is_settled(stage), timeout=90, what="settled orders")
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_stopped_while_postgres_is_away_and_told_when_it_is_back(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    target = urlsplit(database_url)
    async with tcp_gate(target.port or 5432) as gate, account_stage(redis_url, database_url, tmp_path) as stage:
        stage.environment["POSTGRES_URL"] = database_url.replace(f":{target.port}", f":{gate.port}")
        await stage.launch()
        await stage.marked()
        await opened(stage)
        rest_a_limit(stage)

        await gate.shut()
        answer = await stage.control("emergency-stop", {"reason": "the database is gone", "requested_by": "ada"})
        assert answer.status_code == 202
        await verified(stage)
        assert (await stage.control("resume", {"reason": "all is well", "by": "ada"})).status_code == 503

        await gate.open()
        await eventually(lambda: stage.of("emergency.stop"), timeout=40, what="emergency.stop")
        await eventually(lambda: _is_settled(stage), timeout=40, what="settled orders")
        await stage.end()
        assert is_flat(stage)


@pytest.mark.long
async def test_stopped_while_redis_is_away(redis_url: str, database_url: str, tmp_path: Path) -> None:
    target = urlsplit(redis_url)
    async with tcp_gate(target.port or 6379) as gate, account_stage(redis_url, database_url, tmp_path) as stage:
        stage.environment["REDIS_URL"] = redis_url.replace(f":{target.port}", f":{gate.port}")
        await stage.launch()
        await stage.marked()
        await opened(stage)

        await gate.shut()
        assert (await stage.control("emergency-stop", {"reason": "no bus"})).status_code == 202
        await verified(stage)

        await gate.open()
        await eventually(lambda: stage.of("emergency.stop"), timeout=40, what="emergency.stop")


async def _is_settled(stage: AccountStage) -> bool:
    rows = await stage.database.fetch("SELECT status FROM exec_risk.order_intent WHERE NOT settled")
    unpublished = await stage.database.fetchval("SELECT count(*) FROM exec_risk.outbox")
    closing = await stage.database.fetchval(
        "SELECT count(*) FROM exec_risk.order_intent WHERE client_order_id LIKE 'qt3-es-%'"
    )
    return not rows and unpublished == 0 and closing >= 1


# -- from the shell ----------------------------------------------------------------------------------------------------


async def test_stopped_from_a_shell_with_and_without_the_service(stage: AccountStage, tmp_path: Path) -> None:
    environment = {
        "QT_STATE_DIR": str(tmp_path),
        "QT_RUN_ID": "test",
        "QT_EXEC_RISK_URL": stage.url,
        "QT_API_TOKEN": TOKEN,
    }

    async def shell(*arguments: str) -> Finished:
        return await run_command(*arguments, cwd=tmp_path, environment=environment)

    alone = await shell("emergency-stop", "--reason", "before the start", "--json")
    assert alone.exit_code == 3
    assert json.loads(alone.stdout)["way"] == "latch file"
    rest_a_limit(stage)
    await stage.launch()
    await verified(stage)

    assert (await shell("resume", "--by", "ada")).exit_code == 2
    resumed = await shell("resume", "--reason", "looked into it", "--by", "ada")
    assert (resumed.exit_code, resumed.stdout) == (0, "trading is ACTIVE: looked into it\n")
    again = await shell("resume", "--reason", "looked into it", "--by", "ada")
    assert (again.exit_code, len(again.stderr.splitlines())) == (1, 1)

    await stage.marked()
    await opened(stage)
    done = await shell("emergency-stop", "--reason", "hands off")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("the running service took the stop\nthe account is flat")
    assert is_flat(stage)
