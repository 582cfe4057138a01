"""exec-risk with a user stream that stands and says nothing: entries wait, a new connection is made, they go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infrastructure.paper_exchange.faults import Fault
from tests.support.account_stage import AccountStage, account_stage
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def stage(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[AccountStage]:
    async with account_stage(redis_url, database_url, tmp_path) as made:
        yield made


@pytest.mark.long
async def test_a_silent_stream_is_noticed_replaced_and_forgiven(stage: AccountStage) -> None:
    await stage.launch(POSITION_CHECK_INTERVAL_SECONDS="1")
    await stage.marked()
    faults = stage.exchange.live.faults
    faults.arm(Fault("drop_user_event", count=0))
    keys_before = stage.exchange.live.listen_keys.current

    await stage.signal("BUY")
    await stage.orders_rest(2)

    alerts = await stage.told("risk.alert")
    assert [alert.alert_type for alert in alerts] == ["USER_STREAM_LOST"]
    faults.clear()
    await eventually(
        lambda: (
            [(c.previous, c.current) for c in stage.of("trading_state.changed")]
            == [("ACTIVE", "REDUCING"), ("REDUCING", "ACTIVE")]
        ),
        timeout=20,
        what="trading that goes on",
    )
    assert stage.exchange.live.listen_keys.current != keys_before
    assert len(stage.of("position.opened")) == 1
    await stage.end()
    await stage.assert_sound()
