"""The Risk OS on the whole account: each limit alone denies by name, and what makes a risk smaller passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from infrastructure.bench.ours.risk import sample_book, sample_context
from services.exec_risk_service.api import risk_router
from services.exec_risk_service.domain.denials import DENIALS, DenialCode
from services.exec_risk_service.domain.exposure import Exposures, exposures_of
from services.exec_risk_service.domain.kelly import TradeRecord, kelly_bet, kelly_fraction
from services.exec_risk_service.domain.pace import LastClose, Pace
from services.exec_risk_service.domain.risk_checks import EntryOrder, RiskView
from services.exec_risk_service.domain.risk_engine import CHECKS, first_reason, risk_view
from services.exec_risk_service.domain.risk_limits import RiskLimits
from services.exec_risk_service.domain.rules import Rules
from shared.errors import ConnectionLostError, OutcomeUnknownError
from shared.trading.orders import Side
from tests.support.exec_risk_desk import Desk, started_desk
from tests.support.markets import BTC, flat

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SYMBOL = "C10USDT"
ORDER = EntryOrder(SYMBOL, Side.BUY, Decimal(500), Decimal(5), Decimal(100), Decimal(5), Decimal(2), Decimal("0.8"))
#: Ten long positions of 500 USD on 10,000 USD of equity, histories that ignore each other.
VIEW = risk_view(sample_book(), SYMBOL, sample_context())


def with_limits(view: RiskView = VIEW, **limits: Any) -> RiskView:
    return replace(view, rules=replace(view.rules, limits=replace(view.rules.limits, **limits)))


def code(view: RiskView, order: EntryOrder = ORDER) -> DenialCode | None:
    denial = first_reason(order, view)
    return None if denial is None else denial.code


def test_every_code_has_a_meaning_and_every_check_a_name() -> None:
    assert set(DENIALS) == set(DenialCode)
    assert len(set(CHECKS)) == len(CHECKS)


def test_a_portfolio_within_every_limit_lets_one_more_pass() -> None:
    assert first_reason(ORDER, VIEW) is None


@pytest.mark.parametrize(
    ("limits", "expected", "text"),
    [
        ({"max_gross_exposure": Decimal("0.54")}, "GROSS_EXPOSURE_TOO_LARGE", "5500.00 USD, 0.55 times equity"),
        ({"max_net_exposure": Decimal("0.54")}, "NET_EXPOSURE_TOO_LARGE", "limit 0.54 times"),
        ({"max_correlated_exposure": Decimal("0.04")}, "CORRELATED_EXPOSURE_TOO_LARGE", "500.00 USD, 0.05 times"),
        ({"max_effective_exposure": Decimal("0.1")}, "EFFECTIVE_EXPOSURE_TOO_LARGE", "limit 0.1 times"),
        ({"max_value_at_risk": Decimal("0.0001")}, "VALUE_AT_RISK_TOO_LARGE", "limit 1.00 USD"),
        ({"max_symbol_exposure_usd": Decimal(499)}, "SYMBOL_EXPOSURE_TOO_LARGE", "500.00 USD with what is pending"),
        ({"margin_reserve": Decimal("0.9")}, "MARGIN_TOO_SMALL", "9000.00 USD stay in reserve, 9000.00 USD are"),
        ({"max_maintenance": Decimal("0.001")}, "MAINTENANCE_TOO_HIGH", "limit 10.00 USD"),
        ({"liquidation_buffer": Decimal(10)}, "LIQUIDATION_BEFORE_STOP", "a stop at 2 % needs 20.00 %"),
    ],
)
def test_each_limit_alone_denies_by_name_and_number(limits: dict[str, Any], expected: str, text: str) -> None:
    denial = first_reason(ORDER, with_limits(**limits))

    assert denial is not None
    assert denial.code == expected
    assert text in denial.text


def test_what_makes_a_risk_smaller_passes_above_the_limit() -> None:
    tight = with_limits(
        max_net_exposure=Decimal("0.1"), max_correlated_exposure=Decimal("0.01"), correlation_threshold=0.0001
    )
    short = replace(ORDER, side=Side.SELL)

    assert code(tight) is DenialCode.NET_EXPOSURE_TOO_LARGE
    assert code(replace(tight, panel=VIEW.panel), short) in (None, DenialCode.CORRELATED_EXPOSURE_TOO_LARGE)
    assert code(with_limits(max_net_exposure=Decimal("0.1")), short) is None


def test_what_is_pending_counts() -> None:
    pending = replace(VIEW, exposures=Exposures(VIEW.exposures.held, {SYMBOL: Decimal(600)}))

    assert pending.exposures.gross == 5600
    assert code(pending) is DenialCode.SYMBOL_EXPOSURE_TOO_LARGE


def test_a_correlation_that_is_not_known_counts_as_the_worst() -> None:
    blind = replace(VIEW, panel=type(VIEW.panel)())
    limits: dict[str, Any] = {"max_correlated_exposure": Decimal("0.5"), "max_value_at_risk": Decimal(5)}

    assert code(with_limits(**limits)) is None
    assert code(with_limits(blind, **limits)) is DenialCode.CORRELATED_EXPOSURE_TOO_LARGE
    assert (
        code(with_limits(blind, **limits), replace(ORDER, side=Side.SELL)) is DenialCode.CORRELATED_EXPOSURE_TOO_LARGE
    )


@pytest.mark.parametrize("clock", ["mark_age", "mark_age_wall"])
def test_a_price_that_nobody_renewed_is_stale(clock: str) -> None:
    limit = timedelta(minutes=3)

    assert code(replace(VIEW, **{clock: limit})) is None  # type: ignore[arg-type]  # the field under test
    assert code(replace(VIEW, **{clock: limit + timedelta(seconds=1)})) is DenialCode.MARK_STALE  # type: ignore[arg-type]
    assert code(replace(VIEW, **{clock: None})) is DenialCode.MARK_STALE  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pnl", "minutes", "expected"),
    [
        (-5, 9, DenialCode.COOLDOWN_AFTER_LOSS),
        (-5, 10, None),
        (5, 4, DenialCode.COOLDOWN_AFTER_CLOSE),
        (5, 5, None),
    ],
)
def test_a_symbol_rests_after_a_loss_and_after_any_close(pnl: int, minutes: int, expected: DenialCode | None) -> None:
    view = with_limits(cooldown_after_loss=timedelta(minutes=10), cooldown_after_close=timedelta(minutes=5))
    assert view.market_time is not None
    close = LastClose(view.market_time - timedelta(minutes=minutes), Decimal(pnl))

    assert code(replace(view, pace=Pace().closed(SYMBOL, close))) is expected
    assert code(replace(view, pace=Pace().closed("C1USDT", close))) is None


@pytest.mark.parametrize("pnl", [-5, 5])
def test_without_cooldowns_nothing_rests_even_when_the_price_is_older_than_the_close(pnl: int) -> None:
    view = with_limits(cooldown_after_loss=timedelta(0), cooldown_after_close=timedelta(0))
    assert view.market_time is not None
    close = LastClose(view.market_time + timedelta(milliseconds=30), Decimal(pnl))

    assert code(replace(view, pace=Pace().closed(SYMBOL, close))) is None


def test_the_bucket_of_entries_empties_and_refills_with_market_time() -> None:
    pace = Pace()
    for _ in range(3):
        assert pace.room(NOON, 3) >= 1
        pace = pace.entered(NOON, 3)

    assert pace.room(NOON, 3) == 0
    assert pace.room(NOON + timedelta(seconds=19), 3) < 1
    assert pace.room(NOON + timedelta(seconds=20), 3) == 1
    assert pace.room(NOON + timedelta(hours=1), 3) == 3
    assert pace.entered(NOON - timedelta(hours=1), 3).room(NOON, 3) == -1  # an older time refills nothing
    full = replace(VIEW, pace=replace(pace, spent_at=VIEW.market_time))
    assert code(with_limits(full, max_entries_per_minute=3)) is DenialCode.ENTRIES_TOO_FAST


def test_kelly_is_the_edge_per_payoff() -> None:
    assert kelly_fraction(0.6, 2.0) == pytest.approx(0.4)
    assert kelly_fraction(0.5, 1.0) == 0.0
    assert kelly_fraction(0.3, 1.0) == pytest.approx(-0.4)


def test_a_new_account_believes_the_signal_and_an_old_one_its_record() -> None:
    limits = RiskLimits()
    new = kelly_bet(TradeRecord(), confidence=0.6, payoff=2.0, limits=limits)
    loser = TradeRecord(tuple([-0.01] * 70 + [0.01] * 30))
    old = kelly_bet(loser, confidence=0.6, payoff=2.0, limits=limits)

    assert new.full == pytest.approx(0.4)
    assert new.limited_by == "kelly_cap"
    assert new.at_risk == limits.kelly_cap
    assert old.p_win == pytest.approx((30 + 20 * 0.6) / 120)
    assert old.payoff == pytest.approx((100 * 1.0 + 20 * 2.0) / 120)
    assert (old.at_risk, old.limited_by) == (limits.kelly_floor, "kelly_floor")


def test_half_of_kelly_is_bet_between_floor_and_cap() -> None:
    bet = kelly_bet(TradeRecord(), confidence=0.36, payoff=2.0, limits=RiskLimits())

    assert bet.full == pytest.approx(0.04)
    assert (bet.at_risk, bet.limited_by) == (Decimal("0.02"), "kelly")


def test_only_the_newest_hundred_trades_count() -> None:
    record = TradeRecord()
    for number in range(150):
        record = record.with_result(float(number))

    assert (len(record.results), record.results[0]) == (100, 50.0)
    assert TradeRecord((0.1, 0.2)).payoff is None


async def test_a_losing_record_makes_the_next_entry_smaller_and_says_so() -> None:
    rules = Rules(limits=RiskLimits(kelly_prior_trades=1))
    desk = await started_desk(flat(50_000, 5), rules=rules)
    _remember(desk, TradeRecord(tuple([-0.01] * 40)))

    await desk.signal("BUY", suggested_size_usd=900.0)

    assert desk.book.positions[BTC].size == Decimal("0.01")  # 0.1 % of 10,000 at a stop of 2 %: 500 USD
    first = desk.bus.of("order.updated")[0]
    assert "kelly sets the size" in first.metadata["sizing"]
    assert "kelly_floor" in first.metadata["sizing"]


async def test_a_closed_position_is_remembered_and_its_symbol_rests() -> None:
    desk = await started_desk(
        flat(50_000, 5), rules=Rules(limits=RiskLimits(cooldown_after_loss=timedelta(minutes=30)))
    )
    await desk.signal("BUY")
    await desk.signal("SELL")
    assert BTC not in desk.book.positions

    await desk.signal("BUY")

    assert len(desk.book.record.results) == 1
    assert desk.book.record.results[0] < 0  # spread and fees
    result = desk.bus.of("execution.result")[-1]
    assert result.metadata["code"] == "COOLDOWN_AFTER_LOSS"
    assert [alert.metadata["code"] for alert in desk.bus.of("risk.alert")] == ["COOLDOWN_AFTER_LOSS"]


async def test_the_report_tells_figures_and_where_each_limit_comes_from() -> None:
    desk = await started_desk(flat(50_000, 5))
    await desk.signal("BUY")

    report = desk.service.handlers.risk_validator.report()

    assert report["exposure"]["by_symbol_usd"] == {BTC: 500.0}
    assert report["symbols_without_history"] == [BTC]
    assert [row["level"] for row in report["value_at_risk"]] == [0.95, 0.99]
    assert report["value_at_risk"][1]["parametric_usd"] == pytest.approx(2.3263 * 500 * 0.08, abs=0.01)
    origins = {row["name"]: (row["value"], row["origin"]) for row in report["limits"]}
    assert origins["max_open_positions"] == (10.0, "configuration")
    assert origins["max_position_size_usd"] == (1000.0, "policy")
    assert origins["max_daily_drawdown_pct"] == (5.0, "policy")


def _remember(desk: Desk, record: TradeRecord) -> None:
    ledger = desk.service.ledger
    ledger._book = replace(ledger.book, record=record)


async def test_the_report_is_served_over_http() -> None:
    desk = await started_desk(flat(50_000, 5))
    app = FastAPI()
    app.include_router(risk_router(desk.service.handlers.risk_validator))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/api/v1/risk")

    assert answer.status_code == 200
    assert answer.json()["equity_usd"] == 10_000.0
    assert {"exposure", "value_at_risk", "drawdown", "limits"} <= answer.json().keys()


async def test_a_market_that_stands_still_while_the_wall_clock_runs_buys_nothing() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.clock.advance(181)

    await desk.signal("BUY")

    assert desk.bus.of("execution.result")[-1].metadata["code"] == "MARK_STALE"
    await desk.advance(1)
    await desk.candle()
    await desk.signal("BUY")
    assert BTC in desk.book.positions


async def test_a_burst_of_entries_is_throttled_and_market_time_lets_the_next_one_pass() -> None:
    desk = await started_desk(flat(50_000, 10), rules=Rules(limits=RiskLimits(max_entries_per_minute=1)))
    await desk.signal("BUY")
    await desk.signal("SELL")

    await desk.signal("BUY")
    assert desk.bus.of("execution.result")[-1].metadata["code"] == "ENTRIES_TOO_FAST"
    await desk.advance(1)
    await desk.candle()
    await desk.signal("BUY")

    assert BTC in desk.book.positions


async def test_an_entry_of_unknown_outcome_counts_as_exposure_until_it_is_proven_absent() -> None:
    desk = await started_desk(flat(50_000, 5))
    desk.venue.before["submit:entry"] = [OutcomeUnknownError("no answer")]
    desk.venue.before["find"] = [ConnectionLostError("down")] * 3

    await desk.signal("BUY")

    unknown = exposures_of(desk.book)
    assert not unknown.held
    assert unknown.pending == {BTC: Decimal(500)}
    assert unknown.by_symbol == {BTC: Decimal(500)}
    assert unknown.gross == unknown.net == 500
    desk.venue.before["find"] = []
    for _ in range(30):
        await desk.tick(2.0)
    assert not exposures_of(desk.book).by_symbol
