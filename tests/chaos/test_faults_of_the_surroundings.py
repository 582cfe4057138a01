"""Rows 27 to 29 and 34 to 43 of the fault table: clocks, limits, Redis and PostgreSQL around exec-risk."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from infrastructure.embedded.redis_server import EmbeddedRedis
from infrastructure.paper_exchange.faults import Fault
from shared.clock import SystemClock
from tests.support.account_stage import AccountStage, account_stage
from tests.support.crash_script import comes_to_rest
from tests.support.eventually import eventually
from tests.support.markets import BTC, START
from tests.support.tcp_gate import tcp_gate

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


async def opened(stage: AccountStage) -> None:
    await stage.marked()
    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)


@pytest.mark.long
async def test_row_27_a_clock_that_is_wrong_opens_nothing_until_it_is_right(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("clock_offset", value="5000", seconds=4.0))
    await eventually(lambda: stage.exchange.live.faults.struck, what="a wrong clock")

    await stage.signal("BUY")
    refused = (await stage.told("execution.result"))[0]

    assert refused.status in ("REJECTED", "FAILED")
    assert stage.engine.fills(BTC) == []
    await eventually(lambda: _clock_is_right(stage), timeout=30, what="the right time")
    await eventually(stage.is_healthy, timeout=60, what="health once the clock is right")
    await eventually(lambda: _trades_again(stage), timeout=60, what="entries let through again")
    await comes_to_rest(stage)
    await opened(stage)
    await stage.end()
    await stage.assert_sound()


def _trades_again(stage: AccountStage) -> bool:
    changes = stage.of("trading_state.changed")
    return len(changes) > 1 and changes[-1].current == "ACTIVE"


@pytest.mark.long
async def test_row_28_at_the_limit_entries_wait_and_the_account_is_sound(stage: AccountStage) -> None:
    await stage.launch()
    await opened(stage)
    stage.exchange.live.faults.arm(Fault("rate_limit", seconds=4.0))
    await eventually(lambda: stage.exchange.live.faults.struck, what="the limit")

    await stage.signal("SELL")

    await eventually(lambda: stage.engine.position(BTC).quantity == 0, timeout=60, what="flat after the pause")
    await stage.orders_rest(0)
    await comes_to_rest(stage)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{stage.exchange.url}/fapi/v1/ping")
    assert answer.status_code == 200, "nobody asked on until the exchange banned us"
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_row_29_a_ban_leaves_the_stop_at_the_exchange_and_is_not_hammered(stage: AccountStage) -> None:
    await stage.launch()
    await opened(stage)
    stage.exchange.live.faults.arm(Fault("ip_ban", seconds=6.0))
    await eventually(lambda: stage.exchange.live.faults.struck, what="the ban")

    stage.engine.advance_to(START + timedelta(minutes=5))  # the stop fires by itself
    stage.exchange.live.send_events()

    assert (await stage.told("position.closed"))[0].exit_reason == "STOP_LOSS"
    await stage.orders_rest(0)
    await eventually(stage.is_healthy, timeout=60, what="health after the ban")
    await comes_to_rest(stage)
    await stage.end()
    await stage.assert_sound()


async def test_row_34_without_redis_nothing_opens_the_stop_works_and_every_event_arrives(
    database_url: str, tmp_path: Path, server_folder: Path
) -> None:
    folder = server_folder / "own-redis"
    server = EmbeddedRedis(folder)
    await server.start()
    gate_target = urlsplit(server.url).port or 0
    async with tcp_gate(gate_target) as gate, account_stage(server.url, database_url, tmp_path) as stage:
        through = server.url.replace(f":{gate_target}/", f":{gate.port}/")
        await stage.launch(REDIS_URL=through)
        await opened(stage)
        await gate.shut()

        stage.engine.advance_to(START + timedelta(minutes=5))
        stage.exchange.live.send_events()
        await stage.orders_rest(0)
        await eventually(lambda: _is_stored_flat(stage), timeout=40, what="the exit in the record")
        assert stage.of("position.closed") == []
        await gate.open()

        assert (await stage.told("position.closed"))[0].exit_reason == "STOP_LOSS"
        await comes_to_rest(stage)
        await stage.end()
        await stage.assert_sound()
    await server.stop()


@pytest.mark.parametrize(
    ("break_it", "mend_it"),
    [
        pytest.param(("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"), id="out_of_memory"),
        pytest.param(
            ("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE"), id="read_only", marks=pytest.mark.long
        ),
    ],
)
async def test_row_35_a_redis_that_takes_nothing_is_as_good_as_away(
    database_url: str, tmp_path: Path, server_folder: Path, break_it: tuple[str, ...], mend_it: tuple[str, ...]
) -> None:
    server = EmbeddedRedis(server_folder / f"redis-{break_it[0].lower()}")
    await server.start()
    async with account_stage(server.url, database_url, tmp_path) as stage:
        client: Any = Redis.from_url(server.url)
        await stage.launch()
        await opened(stage)
        await client.execute_command(*break_it)

        stage.engine.advance_to(START + timedelta(minutes=5))
        stage.exchange.live.send_events()
        await stage.orders_rest(0)
        await eventually(lambda: _is_stored_flat(stage), timeout=40, what="the exit in the record")
        await client.execute_command(*mend_it)
        await client.aclose()

        assert (await stage.told("position.closed"))[0].exit_reason == "STOP_LOSS"
        await comes_to_rest(stage)
        await stage.end()
        await stage.assert_sound()
    await server.stop()


@pytest.mark.long
async def test_row_41_without_postgres_nothing_opens_and_the_stop_still_works(
    stage: AccountStage, database_url: str
) -> None:
    parts = urlsplit(database_url)
    async with tcp_gate(parts.port or 0) as gate:
        await stage.launch(POSTGRES_URL=database_url.replace(f":{parts.port}/", f":{gate.port}/"))
        await opened(stage)
        await gate.shut()

        before = len(stage.engine.orders(BTC))
        stage.engine.advance_to(START + timedelta(minutes=5))
        stage.exchange.live.send_events()
        await eventually(lambda: stage.engine.position(BTC).quantity == 0, what="the stop has closed the position")
        await stage.signal("BUY")
        await eventually(lambda: _is_down(stage), timeout=40, what="a service that says so")
        assert len([o for o in stage.engine.orders(BTC) if o.algo_id is None]) == before
        await gate.open()

        assert (await stage.told("position.closed"))[0].exit_reason == "STOP_LOSS"
        await comes_to_rest(stage)
        await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_row_41_a_fill_that_finds_no_postgres_is_not_left_without_a_stop(
    stage: AccountStage, database_url: str
) -> None:
    parts = urlsplit(database_url)
    async with tcp_gate(parts.port or 0) as gate:
        through = database_url.replace(f":{parts.port}/", f":{gate.port}/")
        await stage.launch(POSTGRES_URL=through, MAX_JOURNAL_OUTAGE_SECONDS="2")
        await stage.marked()
        stage.exchange.live.faults.arm(Fault("hold_order_answer", seconds=1.0, hold_events=True))
        await stage.signal("BUY")
        await eventually(lambda: stage.engine.position(BTC).quantity > 0, timeout=40, what="a position")
        await gate.shut()

        await eventually(lambda: stage.engine.position(BTC).quantity == 0, timeout=60, what="flat without a journal")

        assert stage.engine.open_algos(BTC) == []
        await gate.open()
        await eventually(lambda: stage.of("emergency.stop"), timeout=60, what="the stop told once the journal is back")
        await stage.end()


async def _is_stored_flat(stage: AccountStage) -> bool:
    return bool(await stage.database.fetchval("SELECT count(*) FROM exec_risk.position WHERE closed_at IS NOT NULL"))


async def _is_down(stage: AccountStage) -> bool:
    async with httpx.AsyncClient() as client:
        health = (await client.get(f"{stage.url}/health")).json()
    return bool(health["dependencies"]["postgres"]["status"] == "DOWN")


async def _clock_is_right(stage: AccountStage) -> bool:
    async with httpx.AsyncClient() as client:
        told = (await client.get(f"{stage.exchange.url}/fapi/v1/time")).json()["serverTime"]
    return bool(abs(told / 1000 - SystemClock().now().timestamp()) < 1.0)
