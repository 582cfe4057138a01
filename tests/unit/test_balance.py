"""The portfolio against its limits, told in the trace of the trade that changed it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from services.analytics_os_service.domain.balance import balance_of
from services.analytics_os_service.domain.portfolio import Entry, Trade
from services.analytics_os_service.handlers.hfos_orchestrator import balance_payload
from shared.trading.policy import DEFAULT_POLICIES, RiskMode

NORMAL = DEFAULT_POLICIES[RiskMode.NORMAL]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def trade(position_id: str, symbol: str, size_usd: str, *, is_long: bool = True) -> Trade:
    entry = Entry(Decimal(100), Decimal(size_usd), 5, is_long, NOON, trace_id="t")
    return Trade(position_id=position_id, symbol=symbol, entry=entry)


def test_long_and_short_add_up_and_nothing_is_asked_for_within_the_limits() -> None:
    balance = balance_of([trade("1", "ETHUSDT", "300"), trade("2", "BTCUSDT", "200", is_long=False)], NORMAL)

    told = balance_payload(balance)
    assert (told.action, told.total_exposure_usd, told.max_allowed_exposure_usd) == ("REBALANCE_COMPLETED", 500, 30_000)
    assert told.asset_allocation == {"BTCUSDT": 200, "ETHUSDT": 300}
    assert told.adjustments == ()


def test_more_than_the_policy_allows_is_a_warning() -> None:
    two = [trade("1", "ETHUSDT", "300"), trade("2", "BTCUSDT", "200")]

    assert balance_payload(balance_of(two, replace(NORMAL, max_positions=1))).action == "EXPOSURE_WARNING"
    assert balance_payload(balance_of(two, replace(NORMAL, position_size_cap=16))).action == "EXPOSURE_WARNING"
