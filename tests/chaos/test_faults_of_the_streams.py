"""Rows 18 to 25, 33 and 45 of the fault table: what the exchange's streams tell twice, late, wrongly or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from infrastructure.paper_exchange.faults import Fault
from shared.clock import ClockOrigin, SystemClock
from shared.events.streams import dead_letter_stream, event_stream
from tests.support.account_stage import AccountStage, account_stage
from tests.support.crash_script import comes_to_rest
from tests.support.eventually import eventually
from tests.support.markets import BTC, START

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


async def opened(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)


async def fall_to_the_stop(stage: AccountStage) -> None:
    stage.engine.advance_to(START + timedelta(minutes=5))
    stage.exchange.live.send_events()
    closed = (await stage.told("position.closed"))[0]
    assert closed.exit_reason == "STOP_LOSS"
    await stage.orders_rest(0)
    await comes_to_rest(stage)


async def test_row_18_events_that_come_twice_and_in_another_order_count_once(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    for fault in (Fault("duplicate_user_event", count=0), Fault("reorder_user_event", count=3, seconds=0.3)):
        stage.exchange.live.faults.arm(fault)
    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)

    await fall_to_the_stop(stage)

    assert {"duplicate_user_event", "reorder_user_event"} <= set(stage.exchange.live.faults.struck)
    assert len(stage.of("position.closed")) == 1
    await stage.end()
    await stage.assert_sound()


@pytest.mark.long
async def test_row_20_fills_that_the_stream_never_told_are_read(stage: AccountStage) -> None:
    await opened(stage)
    stage.exchange.live.faults.arm(Fault("drop_user_event", count=0))

    await fall_to_the_stop(stage)

    assert "drop_user_event" in stage.exchange.live.faults.struck
    await stage.end()
    await stage.assert_sound()


async def test_row_21_a_stream_that_went_silent_hides_nothing(stage: AccountStage) -> None:
    await opened(stage)
    assert stage.exchange.live.expire_listen_key()

    await fall_to_the_stop(stage)

    await stage.end()
    await stage.assert_sound()


@pytest.mark.parametrize("kind", ["close_streams", pytest.param("cut_streams", marks=pytest.mark.long)])
async def test_row_22_a_stream_that_ends_is_opened_again_without_a_storm(stage: AccountStage, kind: str) -> None:
    await opened(stage)
    for second in range(3):
        stage.exchange.live.faults.arm(Fault(kind, start=0.2 * second, value="user"))
    await eventually(lambda: stage.exchange.live.faults.struck.count(kind) == 3, what="three ends")

    await fall_to_the_stop(stage)

    await stage.end()
    await stage.assert_sound()


async def test_row_24_a_price_ten_times_too_high_is_not_traded_on(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()

    await stage.signal("BUY", price=500_000.0)
    spiked = (await stage.told("execution.result"))[0]
    await stage.signal("BUY")
    await stage.orders_rest(2)

    assert spiked.status == "REJECTED"
    assert "price" in (spiked.rejection_reason or "").lower()
    await comes_to_rest(stage)
    await stage.end()
    await stage.assert_sound()


async def test_row_25_a_signal_that_is_no_number_is_refused_at_the_boundary(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    good = await stage.signal("HOLD")
    newest: Any = await stage.connection.client.xrevrange(event_stream("signal.generated"), count=1)
    entry = newest[0][1]
    for wrong in (b"NaN", b"Infinity", b"7.5", b'"much"'):
        fields = dict(entry)
        name = b"payload" if b"payload" in fields else "payload"
        text = fields[name] if isinstance(fields[name], bytes) else fields[name].encode()
        fields[name] = text.replace(b'"confidence":0.9', b'"confidence":' + wrong).replace(b'"HOLD"', b'"BUY"')
        assert wrong in fields[name]
        await stage.connection.client.xadd(event_stream("signal.generated"), fields)

    async def four_letters() -> bool:
        return bool(await stage.connection.client.xlen(dead_letter_stream("exec-risk-service")) == 4)

    await eventually(four_letters, timeout=40, what="four dead letters")
    await comes_to_rest(stage)
    assert good.metadata.event_type == "signal.generated"
    assert stage.engine.orders(BTC) == []
    await stage.signal("BUY")
    await stage.orders_rest(2)
    await comes_to_rest(stage)
    await stage.end()
    await stage.assert_sound()


async def test_row_33_an_account_that_is_switched_to_hedge_mode_opens_nothing(stage: AccountStage) -> None:
    await stage.launch()
    await stage.marked()
    stage.exchange.live.faults.arm(Fault("hedge_mode"))

    await eventually(lambda: stage.exchange.live.faults.struck == ["hedge_mode"], what="hedge mode")

    await stage.signal("BUY")
    refused = (await stage.told("execution.result"))[0]

    assert refused.status in ("REJECTED", "FAILED")
    assert stage.engine.fills(BTC) == []
    await stage.end()


async def test_row_45_funding_is_what_the_exchange_booked(stage: AccountStage, tmp_path: Path) -> None:
    # The account's record begins in the market's past, so that the payment is not part of the first balance.
    origin = ClockOrigin(wall=SystemClock().now(), market=START - timedelta(hours=1), rate=1.0)
    origin.save(tmp_path / "clock.json")
    stage.environment["QT_MARKET_CLOCK_FILE"] = str(tmp_path / "clock.json")
    await opened(stage)
    before = stage.engine.account().wallet
    stage.exchange.live.faults.arm(Fault("settle_funding", symbol=BTC, value="0.0025"))

    async def is_booked() -> bool:
        wallet = await stage.database.fetchval("SELECT wallet FROM exec_risk.account")
        return bool(stage.engine.account().wallet < before and wallet == stage.engine.account().wallet)

    await eventually(is_booked, timeout=40, what="funding in the record")
    paid = await stage.database.fetchval("SELECT funding FROM exec_risk.account")

    assert paid == stage.engine.account().wallet - before
    assert [alert.alert_type for alert in stage.of("risk.alert")] == []
    await stage.end()
    await stage.assert_sound()
