"""Hedging: off by default, proposed with numbers, carried out only when wanted and only through the checks."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from infrastructure.bench.ours.risk import sample_book, sample_context
from services.exec_risk_service.domain.exposure import Exposures
from services.exec_risk_service.domain.hedging import beta_exposure, hedge_for
from services.exec_risk_service.domain.return_panel import ReturnPanel
from services.exec_risk_service.domain.risk_checks import RiskView
from services.exec_risk_service.domain.risk_engine import risk_view
from services.exec_risk_service.domain.risk_limits import RiskLimits
from services.exec_risk_service.domain.rules import Rules
from shared.trading.orders import Side
from shared.trading.positions import NetPosition
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, flat

VIEW = risk_view(sample_book(), BTC, sample_context())


def view_with(trigger: str | None, exposures: dict[str, Decimal] | None = None) -> RiskView:
    limits = RiskLimits(hedge_trigger=None if trigger is None else Decimal(trigger))
    view = replace(VIEW, rules=replace(VIEW.rules, limits=limits), panel=ReturnPanel())
    return view if exposures is None else replace(view, exposures=Exposures(exposures))


def test_without_a_trigger_or_below_it_nothing_is_proposed() -> None:
    assert hedge_for(view_with(None), BTC) is None
    assert hedge_for(view_with("0.5"), BTC) is None  # 5,000 USD on 10,000 are not above it


def test_half_of_the_net_exposure_is_offset_within_the_limits_of_one_position() -> None:
    large = hedge_for(view_with("0.4"), BTC)
    small = hedge_for(view_with("0.01", {"C1USDT": Decimal(-600)}), BTC)

    assert large is not None
    assert small is not None
    assert (large.side, large.size_usd, large.net_usd) == (Side.SELL, Decimal(1000), Decimal(5000))
    assert (small.side, small.size_usd, small.trigger_usd) == (Side.BUY, Decimal(300), Decimal(100))


def test_a_symbol_that_is_held_already_cannot_be_the_hedge() -> None:
    assert hedge_for(view_with("0.01", {BTC: Decimal(600)}), BTC) is None


def test_exposure_counts_by_its_beta_to_the_hedge() -> None:
    beta = VIEW.panel.beta_of("C1USDT", "C2USDT")
    assert beta is not None
    view = replace(VIEW, exposures=Exposures({"C1USDT": Decimal(1000), "UNKNOWN": Decimal(10)}))

    assert float(beta_exposure(view, "C2USDT")) == pytest.approx(1000 * beta + 10, abs=0.01)


async def desk_with_exposure(**limits: Any) -> Desk:
    """A desk on BTCUSDT whose book also holds 5,000 USD of another symbol."""
    desk = await started_desk(flat(50_000, 10), rules=Rules(limits=RiskLimits(**limits)))
    other = replace(
        sample_book().positions["C1USDT"], net=NetPosition("C1USDT", Decimal(50), Decimal(100)), opened_event_id="told"
    )
    ledger = desk.service.ledger
    ledger._book = replace(ledger.book, positions={"C1USDT": other})
    return desk


def alerts(desk: Desk) -> list[str]:
    return [alert.alert_type for alert in desk.bus.of("risk.alert")]


async def next_candle(desk: Desk) -> None:
    await desk.advance(1)
    await desk.candle()


async def test_a_proposal_is_told_once_with_its_numbers_and_nothing_is_sent() -> None:
    desk = await desk_with_exposure(hedge_trigger=Decimal("0.2"))

    await next_candle(desk)
    await next_candle(desk)

    assert alerts(desk) == ["HEDGE_PROPOSED"]
    told = desk.bus.of("risk.alert")[0]
    assert (told.metadata["symbol"], told.metadata["side"], told.metadata["size_usd"]) == (BTC, "SELL", 1000.0)
    assert (told.metadata["net_exposure_usd"], told.metadata["enabled"]) == (5000.0, False)
    assert not desk.venue.sent


async def test_by_default_there_is_no_proposal() -> None:
    desk = await desk_with_exposure()

    await next_candle(desk)

    assert alerts(desk) == []


async def test_when_enabled_the_hedge_is_an_entry_with_a_stop() -> None:
    desk = await desk_with_exposure(hedge_trigger=Decimal("0.2"), hedging_enabled=True, max_value_at_risk=Decimal(1))

    await next_candle(desk)

    assert desk.venue.engine.position(BTC).quantity < 0
    assert desk.venue.engine.open_algos(BTC)


async def test_a_hedge_that_a_check_refuses_is_not_sent() -> None:
    desk = await desk_with_exposure(
        hedge_trigger=Decimal("0.2"), hedging_enabled=True, max_gross_exposure=Decimal("0.5")
    )

    await next_candle(desk)

    assert alerts(desk) == ["HEDGE_PROPOSED", "TRADE_BLOCKED"]
    assert desk.bus.of("risk.alert")[1].metadata["code"] == "GROSS_EXPOSURE_TOO_LARGE"
    assert not desk.venue.sent
