"""Funding: at each symbol's own interval, on every position, told as Binance tells it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from infrastructure.paper_exchange.contracts import contract_for
from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.paper_exchange.modes import MarginType, PositionSide
from infrastructure.paper_exchange.records import IncomeType
from shared.trading.orders import Side
from tests.support.markets import BTC, START, WrittenSource, flat, market

HOUR = timedelta(hours=1)


def engine_with(interval: timedelta, rates: dict[datetime, Decimal] | None = None) -> MatchingEngine:
    contract = replace(contract_for(BTC, 100_000.0), funding_interval=interval)
    source = WrittenSource(flat(100_000.0, 30), timeframe="1h", rates=rates)
    return MatchingEngine(source, start=START, contracts={BTC: contract})


def paid(engine: MatchingEngine) -> list[tuple[datetime, Decimal]]:
    return [(each.time, each.amount) for each in engine.incomes() if each.type is IncomeType.FUNDING_FEE]


@pytest.mark.parametrize("hours", [1, 2, 4, 8])
@pytest.mark.parametrize("cuts", [1, 13])
def test_every_interval_is_settled_at_its_own_hours(hours: int, cuts: int) -> None:
    engine = engine_with(HOUR * hours)
    engine.place_order(market(Side.BUY, "0.1"))
    for cut in range(1, cuts + 1):
        engine.advance_to(START + HOUR * 24 * cut / cuts)
    times = [time for time, _ in paid(engine)]
    midnight = START.replace(hour=0)
    expected = [midnight + HOUR * hour for hour in range(2, 26) if hour % hours == 0]
    assert times == expected
    assert engine.quote(BTC).next_funding == expected[-1] + HOUR * hours


def test_a_rate_beyond_the_cap_is_cut() -> None:
    moment = datetime(2025, 5, 20, 2, tzinfo=UTC)
    engine = engine_with(HOUR, {moment: Decimal("-0.5")})
    engine.place_order(market(Side.BUY, "0.1"))
    engine.advance_to(moment)
    assert paid(engine) == [(moment, Decimal(300))], "a long receives a negative rate, here 3 % at most"


def test_hedge_mode_pays_on_one_side_and_receives_on_the_other() -> None:
    engine = engine_with(HOUR)
    engine.set_position_mode(is_hedged=True)
    engine.place_order(market(Side.BUY, "0.1", position_side=PositionSide.LONG))
    engine.place_order(market(Side.SELL, "0.04", position_side=PositionSide.SHORT))
    engine.advance_to(START + HOUR)
    assert [amount for _, amount in paid(engine)] == [Decimal(-1), Decimal("0.4")]


@pytest.mark.parametrize("margin_type", list(MarginType))
def test_the_event_names_the_position_only_when_it_is_isolated(margin_type: MarginType) -> None:
    engine = engine_with(HOUR)
    if margin_type is MarginType.ISOLATED:
        engine.set_margin_type(BTC, margin_type)
    engine.place_order(market(Side.BUY, "0.1"))
    before = engine.position(BTC).isolated_wallet
    engine.take_events()
    engine.advance_to(START + HOUR)
    (event,) = engine.take_events()
    assert (event["a"]["m"], event["a"]["B"][0]["bc"]) == ("FUNDING_FEE", "-1.00000000")
    assert [row["mt"] for row in event["a"]["P"]] == ([] if margin_type is MarginType.CROSSED else ["isolated"])
    assert engine.position(BTC).isolated_wallet == before - (1 if margin_type is MarginType.ISOLATED else 0)


def test_funding_on_demand_leaves_the_schedule_alone() -> None:
    engine = engine_with(HOUR * 8)
    engine.place_order(market(Side.BUY, "0.1"))
    due = engine.quote(BTC).next_funding
    engine.settle_funding(BTC, Decimal("0.001"))
    engine.settle_funding(BTC)
    assert [amount for _, amount in paid(engine)] == [Decimal(-10), Decimal(-1)]
    assert engine.quote(BTC).next_funding == due


def test_a_changed_interval_counts_from_now_on() -> None:
    engine = engine_with(HOUR * 8)
    engine.replace_contract(replace(engine.contract(BTC), funding_interval=HOUR * 2))
    assert engine.quote(BTC).next_funding == START.replace(hour=2)
