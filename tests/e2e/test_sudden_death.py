"""SIGKILL of any one service in the middle of a run: it comes back by itself, and nothing is lost or doubled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Finished
from tests.support.eventually import eventually
from tests.support.live_run import LiveRun, live_run, with_models_of
from tests.support.recorded_run import Recorded

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("whole-runs")]

SECONDS = 20.0


@pytest.fixture
def state_dir(run: Recorded, tmp_path: Path) -> Path:
    return with_models_of(run.state_dir, tmp_path)


def assert_nothing_was_lost_or_doubled(finished: Finished, killed: str) -> None:
    assert finished.exit_code == 0, finished.stderr
    report = finished.json()
    assert report["invariants"] == dict.fromkeys(report["invariants"], True)
    assert report["dead_letters"] == 0
    assert {name: service["restarts"] for name, service in report["services"].items() if service["restarts"]} == {
        killed: 1
    }
    assert min(report["candles"], report["signals"], report["intents"], report["fills"]) > 0


@pytest.mark.parametrize(
    "service",
    ["ai-service", "exec-risk-service", pytest.param("analytics-os-service", marks=pytest.mark.long)],
)
async def test_a_killed_service_comes_back_and_the_books_agree(run: Recorded, state_dir: Path, service: str) -> None:
    async with live_run(state_dir, candles=run.candles, seconds=SECONDS) as live:
        await live.ready()
        await live.has_positions(1)

        await live.is_back(service, live.kill(service))

        finished = await live.command.ended()
    assert_nothing_was_lost_or_doubled(finished, service)


async def test_exec_risk_dies_while_an_orders_answer_is_held_back(run: Recorded, state_dir: Path) -> None:
    async with live_run(state_dir, candles=run.candles, seconds=SECONDS) as live:
        await live.ready()
        fault = {"kind": "hold_order_answer", "count": 1, "seconds": 10.0, "hold_events": True}
        await live.post("exchange-admin", "/admin/faults", fault)
        await eventually(lambda: order_is_held(live), timeout=60.0, what="an order whose answer is held back")

        await live.is_back("exec-risk-service", live.kill("exec-risk-service"))

        finished = await live.command.ended()
    assert_nothing_was_lost_or_doubled(finished, "exec-risk-service")


async def order_is_held(live: LiveRun) -> bool:
    """The fault has struck: the exchange has executed the order, nobody was told."""
    armed: Any = await live.get("exchange-admin", "/admin/faults")
    return armed is not None and not armed["armed"]
