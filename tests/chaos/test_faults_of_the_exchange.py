"""Rows 8 to 16 and 30 to 31 of the fault table: requests whose answers lie, are lost, or never come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from infrastructure.paper_exchange.faults import Fault
from shared.trading.orders import OrderType
from tests.support.account_stage import AccountStage, account_stage
from tests.support.crash_script import comes_to_rest
from tests.support.eventually import eventually
from tests.support.markets import BTC, START
from tests.support.tcp_gate import tcp_gate

pytestmark = pytest.mark.timeout(180)

ENTRY, ORDER_PATH, ALGO_PATH = "qt3-en-", "/fapi/v1/order", "/fapi/v1/algoOrder"


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


def entries(stage: AccountStage) -> list[str]:
    return [o.client_order_id for o in stage.engine.orders(BTC) if o.client_order_id.startswith(ENTRY)]


@pytest.mark.long
async def test_row_08_an_exchange_that_cannot_be_reached_was_not_asked(stage: AccountStage) -> None:
    async with tcp_gate(urlsplit(stage.exchange.url).port or 0) as gate:
        await stage.launch(EXCHANGE_URL=f"http://127.0.0.1:{gate.port}")
        await stage.marked()
        await gate.shut()
        await stage.signal("BUY")
        refused = (await stage.told("execution.result"))[0]

        assert refused.status in ("FAILED", "REJECTED")
        assert stage.engine.orders(BTC) == []
        await gate.open()
        await comes_to_rest(stage)
        await eventually(stage.is_healthy, timeout=40, what="a healthy service")
        await stage.signal("BUY")
        await stage.orders_rest(2)
        await comes_to_rest(stage)
        assert len(entries(stage)) == 1
        await stage.end()
    await stage.assert_sound()


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([Fault("reset_after", path=ORDER_PATH)], id="row_09_cut_after_the_request"),
        pytest.param([Fault("lose_order_answer", path=ORDER_PATH)], id="row_10_unknown_error"),
        pytest.param([Fault("status_unknown", path=ORDER_PATH, value="-1007")], id="row_10_minus_1007"),
        pytest.param(
            [Fault("status_unknown", path=ORDER_PATH, value="-1006")], id="row_10_minus_1006", marks=pytest.mark.long
        ),
        pytest.param([Fault("garble_order_answer", path=ORDER_PATH, value="truncated")], id="row_11_truncated"),
        pytest.param(
            [Fault("garble_order_answer", path=ORDER_PATH, value="html")], id="row_11_html", marks=pytest.mark.long
        ),
        pytest.param(
            [Fault("garble_order_answer", path=ORDER_PATH, value="empty")], id="row_11_empty", marks=pytest.mark.long
        ),
        pytest.param([Fault("duplicate_answer", path=ORDER_PATH)], id="row_12_duplicate_id"),
        pytest.param(
            [
                Fault("lose_order_answer", path=ORDER_PATH),
                Fault("order_not_found", count=2),
                Fault("drop_user_event", count=12),
            ],
            id="row_13_found_late",
        ),
    ],
)
async def test_an_order_whose_answer_is_lost_is_found_and_protected(stage: AccountStage, faults: list[Fault]) -> None:
    await stage.launch()
    await stage.marked()
    for fault in faults:
        stage.exchange.live.faults.arm(fault)

    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)

    assert {fault.kind for fault in faults} <= set(stage.exchange.live.faults.struck)
    assert len(entries(stage)) == 1
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["reset_before", "lose_order"])
async def test_rows_09_and_10_an_order_that_never_arrived_is_proven_absent_before_another(
    stage: AccountStage, kind: str
) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault(kind, path=ORDER_PATH))

    await stage.signal("BUY")
    await stage.told("risk.alert")
    await stage.signal("BUY")  # the symbol is blocked as long as nobody knows
    await comes_to_rest(stage)

    assert entries(stage) == []
    assert "ABSENT" in (await stage.intents()).values()
    await stage.signal("BUY")
    await stage.orders_rest(2)
    assert len(entries(stage)) == 1
    await stage.end()
    await stage.assert_sound()


async def test_row_14_a_cancel_that_knows_no_order_is_looked_into(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)
    stage.exchange.live.faults.arm(Fault("reject_order", count=2, method="DELETE", path=ALGO_PATH, value="-2011"))

    await stage.signal("SELL")

    await stage.orders_rest(0)
    await comes_to_rest(stage)
    assert stage.exchange.live.faults.struck.count("reject_order") == 2
    assert stage.engine.position(BTC).quantity == 0
    await stage.end()
    await stage.assert_sound()


async def test_row_15_the_stop_is_as_large_as_what_has_filled(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("partial_fills", path=ORDER_PATH, client_id=ENTRY, seconds=0.4, value="0.4"))

    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)

    assert len(stage.engine.fills(BTC)) > 1
    position = stage.engine.position(BTC).quantity
    assert [algo.quantity for algo in stage.engine.open_algos(BTC)] == [position, position]
    await stage.end()
    await stage.assert_sound()


async def test_row_30_an_overloaded_exchange_gets_no_entries_and_still_closes(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)
    stage.exchange.live.faults.arm(Fault("overload", count=0))

    await stage.signal("SELL")
    await stage.orders_rest(0)
    await comes_to_rest(stage)
    before = entries(stage)
    await stage.signal("BUY")
    await stage.told("execution.result", 3)

    assert stage.engine.position(BTC).quantity == 0
    assert entries(stage) == before
    await stage.end()
    await stage.assert_sound()


async def test_row_31_a_stop_whose_order_is_refused_is_followed_by_a_market_exit(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)
    stage.exchange.live.faults.arm(Fault("reject_triggered"))

    stage.engine.advance_to(START + timedelta(minutes=5))
    stage.exchange.live.send_events()

    await eventually(lambda: stage.engine.position(BTC).quantity == 0, timeout=40, what="a flat position")
    assert stage.exchange.live.faults.struck == ["reject_triggered"]
    await stage.orders_rest(0)
    await stage.end()
    await stage.assert_sound()


async def test_row_31_a_stop_that_would_trigger_at_once_is_an_exit(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("reject_order", path=ALGO_PATH, client_id="qt3-st-", value="-2021"))

    await stage.signal("BUY")

    assert (await stage.told("position.closed"))[0].exit_reason == "STOP_LOSS"
    await comes_to_rest(stage)
    assert stage.engine.position(BTC).quantity == 0
    assert [algo.type for algo in stage.engine.open_algos(BTC) if algo.type is OrderType.STOP_MARKET] == []
    await stage.end()
    await stage.assert_sound()
