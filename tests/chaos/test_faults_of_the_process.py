"""Rows 1 to 7 of the fault table: exec-risk dies at the worst moments. The exchange's book is the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from infrastructure.paper_exchange.faults import Fault
from shared.trading.orders import OrderType
from tests.support.account_stage import AccountStage, account_stage
from tests.support.crash_script import comes_to_rest, live_until_the_crash
from tests.support.eventually import eventually
from tests.support.held_account import held_account, someone_waits
from tests.support.markets import BTC

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


@pytest.mark.long
async def test_row_01_a_crash_before_the_intent_is_committed_leaves_nothing(
    stage: AccountStage, database_url: str
) -> None:
    await stage.launch()
    await stage.marked()
    async with held_account(database_url) as connection:
        await stage.signal("BUY", seconds_left=3.0)
        await someone_waits(connection)
        await stage.kill()
    await eventually(stage.signal_is_late, what="the end of the signal's life")

    await stage.launch()
    await comes_to_rest(stage)

    assert stage.engine.orders(BTC) == []
    assert await stage.intents() == {}
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_row_02_a_crash_after_the_intent_and_before_the_send_sends_nothing_stale(stage: AccountStage) -> None:
    await live_until_the_crash(stage, "gateway.set_leverage:before")
    assert set((await stage.intents()).values()) == {"INITIALIZED"}

    await stage.launch()
    await comes_to_rest(stage)

    assert stage.engine.orders(BTC) == []
    assert set((await stage.intents()).values()) == {"ABSENT"}
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_row_03_a_crash_after_the_send_finds_the_order_by_its_id(stage: AccountStage) -> None:
    await live_until_the_crash(stage, "gateway.submit:after")
    (sent,) = stage.engine.orders(BTC)

    await stage.launch()
    await comes_to_rest(stage)

    assert [order.client_order_id for order in stage.engine.orders(BTC)] == [sent.client_order_id]
    assert (await stage.intents())[sent.client_order_id] == "FILLED"
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_row_04_a_fill_that_was_not_stored_is_read_again_and_counts_once(
    stage: AccountStage, database_url: str
) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("hold_order_answer", seconds=3.0, hold_events=True))
    await stage.signal("BUY")
    await eventually(lambda: stage.engine.orders(BTC), what="the order on the exchange")
    async with held_account(database_url) as connection:
        await someone_waits(connection)  # the fill has come and is about to be stored
        await stage.kill()
    assert await stage.database.fetchval("SELECT count(*) FROM exec_risk.fill") == 0

    await stage.launch()
    await comes_to_rest(stage)

    assert len(stage.of("position.opened")) == 1
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_row_05_a_crash_before_the_stop_is_placed_ends_protected(stage: AccountStage) -> None:
    await live_until_the_crash(stage, "gateway.submit:before#2")
    position = stage.engine.position(BTC).quantity
    assert position > 0
    assert stage.engine.open_algos(BTC) == [], "naked"

    await stage.launch()

    stops = [algo for algo in stage.engine.open_algos(BTC) if algo.type is OrderType.STOP_MARKET]
    assert [stop.quantity for stop in stops] == [position], "ready means protected"
    await stage.end()


async def test_row_06_a_signal_that_was_handled_but_not_acknowledged_is_not_handled_again(stage: AccountStage) -> None:
    await live_until_the_crash(stage, "redis.XACK:before#3")
    (entry,) = [name for name in await stage.intents() if name.startswith("qt3-en-")]

    await stage.launch()
    await comes_to_rest(stage)

    assert [name for name in await stage.intents() if name.startswith("qt3-en-")] == [entry]
    assert {order.client_order_id for order in stage.engine.orders(BTC)} <= {entry}
    await stage.end()
    await stage.assert_sound()


async def test_row_07_killed_while_it_starts_it_starts_again(stage: AccountStage, database_url: str) -> None:
    lock = await asyncpg.connect(database_url)
    await lock.execute("SELECT pg_advisory_lock($1)", 0x51_54_33_01)  # the lock of all migrations
    await stage.start()
    await someone_waits(lock)
    await stage.kill()
    await lock.close()

    await stage.launch()
    await stage.marked()
    await stage.signal("BUY")
    await comes_to_rest(stage)

    assert stage.engine.position(BTC).quantity > 0
    await stage.end()
    await stage.assert_sound()
