"""The verdict on an order, for every order and every account: what is unknown denies, what passes keeps every limit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.exec_risk_service.domain.denials import Denial
from services.exec_risk_service.domain.inputs import Action, Signal
from services.exec_risk_service.domain.kelly import TradeRecord
from services.exec_risk_service.domain.risk_checks import EntryOrder, RiskView
from services.exec_risk_service.domain.risk_engine import first_reason
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.sizing import size_entry
from shared.trading.instruments import Instrument
from shared.trading.orders import Side
from shared.trading.policy import DEFAULT_POLICIES, PolicyState, RiskMode

BTC = Instrument(
    symbol="BTCUSDT",
    tick_size=Decimal("0.1"),
    lot_step=Decimal("0.001"),
    min_quantity=Decimal("0.001"),
    max_quantity=Decimal(1000),
    max_market_quantity=Decimal(120),
    min_notional=Decimal(5),
    max_leverage=125,
)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ORDER = EntryOrder(
    symbol="BTCUSDT",
    side=Side.BUY,
    size_usd=Decimal(500),
    quantity=Decimal("0.01"),
    price=Decimal(50_000),
    leverage=Decimal(5),
    stop_loss_pct=Decimal(2),
    confidence=Decimal("0.8"),
)
VIEW = RiskView(
    policy=PolicyState(RiskMode.NORMAL, DEFAULT_POLICIES[RiskMode.NORMAL], version=1),
    rules=Rules(),
    instrument=BTC,
    mark=Decimal(50_000),
    equity=Decimal(10_000),
    available=Decimal(10_000),
    drawdown=Decimal(0),
    open_positions=0,
    peak_equity=Decimal(10_000),
    market_time=NOON,
    mark_age=timedelta(0),
    mark_age_wall=timedelta(0),
)
DRAWN_DOWN = (
    "daily drawdown is 5.00 % (equity 10000.00 USD with open profit, peak 10000.00 USD today); entries stop at 5.00 %"
)
NOT_A_NUMBER = [Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity")]

#: Fifty-fifty inside and outside of what the limits allow.
views = st.builds(
    RiskView,
    policy=st.builds(
        PolicyState, st.sampled_from(list(RiskMode)), st.sampled_from(list(DEFAULT_POLICIES.values())), st.just(1)
    ),
    rules=st.just(Rules()),
    instrument=st.just(BTC),
    mark=st.decimals(min_value=45_000, max_value=55_000, places=1),
    equity=st.decimals(min_value=100, max_value=50_000, places=4),
    available=st.decimals(min_value=0, max_value=5_000, places=4),
    drawdown=st.decimals(min_value=0, max_value=Decimal("0.07"), places=4),
    open_positions=st.integers(0, 14),
    peak_equity=st.just(Decimal(50_000)),
    market_time=st.just(NOON),
    mark_age=st.just(timedelta(0)),
    mark_age_wall=st.just(timedelta(0)),
)
signals = st.builds(
    Signal,
    symbol=st.just("BTCUSDT"),
    action=st.sampled_from([Action.BUY, Action.SELL]),
    confidence=st.floats(0.4, 1),
    model=st.just("test"),
    price=st.decimals(min_value=45_000, max_value=55_000, places=1),
    size_usd=st.decimals(min_value=50, max_value=5_000, places=2),
    leverage=st.none() | st.decimals(min_value=1, max_value=125, places=2),
    stop_loss_pct=st.none() | st.decimals(min_value=Decimal("0.01"), max_value=10, places=2),
    take_profit_pct=st.none() | st.decimals(min_value=Decimal("0.01"), max_value=50, places=2),
    at=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
)


def test_an_order_within_every_limit_passes() -> None:
    assert first_reason(ORDER, VIEW) is None


@pytest.mark.parametrize("field", ["instrument", "mark", "equity", "available", "drawdown"])
def test_whatever_is_unknown_denies(field: str) -> None:
    reason = first_reason(ORDER, replace(VIEW, **{field: None}))  # type: ignore[arg-type]  # the field under test

    assert reason is not None


@pytest.mark.parametrize("value", NOT_A_NUMBER)
@pytest.mark.parametrize("field", ["mark", "equity", "available", "drawdown"])
def test_what_is_no_number_in_the_account_denies(field: str, value: Decimal) -> None:
    assert first_reason(ORDER, replace(VIEW, **{field: value})) is not None  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("value", [*NOT_A_NUMBER, Decimal(0), Decimal(-1)])
@pytest.mark.parametrize("field", ["size_usd", "price", "leverage", "stop_loss_pct"])
def test_what_is_no_positive_number_in_the_order_denies(field: str, value: Decimal) -> None:
    assert first_reason(replace(ORDER, **{field: value}), VIEW) is not None  # type: ignore[arg-type]  # as above


def test_events_that_could_get_lost_deny_an_entry_with_their_reason() -> None:
    denial = first_reason(ORDER, replace(VIEW, storage_alarm="the disk is full; make room on it"))

    assert str(denial) == "events cannot be kept on disk: the disk is full; make room on it"


def test_a_stale_policy_denies_whatever_it_says() -> None:
    assert "stale" in str(first_reason(ORDER, replace(VIEW, policy=replace(VIEW.policy, stale=True))))


@pytest.mark.parametrize(
    ("order", "view", "reason"),
    [
        ({"size_usd": Decimal(1001)}, {}, "size 1001.00 USD is above the cap 1000.00 USD"),
        ({"quantity": Decimal(0)}, {}, "size 500.00 USD is below the exchange's smallest order"),
        ({"quantity": Decimal("0.011")}, {}, "quantity 0.011 at 50000 is worth more than the size 500.00 USD"),
        ({"leverage": Decimal("20.5")}, {}, "leverage 20.5 is above the limit 20"),
        ({"confidence": Decimal("0.49")}, {}, "confidence 0.49 is below the policy's minimum 0.5"),
        ({"stop_loss_pct": Decimal(21)}, {}, "loss at the stop would be 105.00 USD; one trade may lose 100.00 USD"),
        (
            {},
            {"available": Decimal(99)},
            "margin of 100.00 USD is needed and 500.00 USD stay in reserve, 99.00 USD are available",
        ),
        ({}, {"open_positions": 10}, "10 positions are open or being opened; limit 10"),
        ({}, {"drawdown": Decimal("0.05")}, DRAWN_DOWN),
        ({}, {"mark": Decimal(40_000)}, "price 50000 is 25.0 % away from the mark price 40000; limit 20.0 %"),
        ({}, {"equity": Decimal(-1)}, "equity -1.00 USD is not above 0"),
    ],
)
def test_each_limit_alone_denies(order: dict[str, Decimal], view: dict[str, Any], reason: str) -> None:
    assert str(first_reason(replace(ORDER, **order), replace(VIEW, **view))) == reason  # type: ignore[arg-type]  # as above


def test_the_first_reason_wins() -> None:
    view = replace(VIEW, equity=None, instrument=None, mark=None)

    assert str(first_reason(ORDER, view)) == "the account is unknown: no balance was read from the exchange yet"


@given(
    order=st.builds(
        EntryOrder, st.just("BTCUSDT"), st.sampled_from(Side), *[st.decimals() | st.sampled_from(NOT_A_NUMBER)] * 6
    ),
    view=views,
)
def test_every_order_gets_an_answer(order: EntryOrder, view: RiskView) -> None:
    reason = first_reason(order, view)

    assert reason is None or reason.text


@settings(max_examples=500)
@given(signal=signals, view=views)
def test_what_passes_keeps_every_limit(signal: Signal, view: RiskView) -> None:
    order = size_entry(signal, view)
    assert isinstance(order, EntryOrder)
    if first_reason(order, view) is not None:
        return  # about half of all
    assert view.equity is not None
    assert view.available is not None
    assert signal.size_usd is not None
    policy = view.policy.policy

    assert order.quantity * order.price <= order.size_usd
    assert order.size_usd <= signal.size_usd * Decimal(str(policy.scaling_factor))
    assert order.size_usd <= min(Decimal(str(policy.position_size_cap)), view.rules.max_position_size_usd)
    assert order.size_usd * order.stop_loss_pct / 100 <= view.equity * Decimal(str(policy.max_risk_pct_per_trade))
    assert order.size_usd / order.leverage <= view.available
    assert 1 <= order.leverage <= min(Decimal(str(policy.max_leverage)), view.rules.max_leverage)
    assert order.leverage <= BTC.max_leverage
    assert order.leverage == int(order.leverage)
    assert order.quantity % BTC.lot_step == 0
    assert order.quantity * order.price >= BTC.min_notional
    assert view.open_positions < min(policy.max_positions, view.rules.max_open_positions)
    assert order.confidence >= Decimal(str(policy.global_min_confidence))


@given(
    signal=signals,
    field=st.sampled_from(["price", "size_usd", "leverage", "stop_loss_pct"]),
    value=st.sampled_from(NOT_A_NUMBER),
)
def test_a_signal_with_something_that_is_no_number_never_passes(signal: Signal, field: str, value: Decimal) -> None:
    order = size_entry(replace(signal, **{field: value}), VIEW)  # type: ignore[arg-type]  # as above

    assert isinstance(order, Denial) or first_reason(order, VIEW) is not None


@given(signal=signals, view=views, results=st.lists(st.floats(-0.05, 0.05), max_size=40))
def test_sizing_only_ever_lowers_and_kelly_is_an_upper_bound(
    signal: Signal, view: RiskView, results: list[float]
) -> None:
    order = size_entry(signal, replace(view, record=TradeRecord(tuple(results))))

    assert isinstance(order, EntryOrder)
    assert signal.size_usd is not None
    assert view.equity is not None
    assert order.size_usd <= signal.size_usd * Decimal(str(view.policy.policy.scaling_factor))
    assert order.size_usd <= Decimal(str(view.policy.policy.position_size_cap))
    assert order.sizing is not None
    assert order.sizing.kelly is not None
    allowed = order.sizing.kelly.at_risk * view.equity
    assert order.size_usd * order.stop_loss_pct / 100 <= allowed * Decimal("1.000001")
