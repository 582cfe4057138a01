"""Decisions: the first reason against an entry wins, and a model on trial may explore."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from services.ai_service.domain.forecasts import Forecast
from services.ai_service.domain.signals import Action, Decision, SignalRule, decide, expires_at
from services.ai_service.domain.sizing import SizingRule
from shared.trading.policy import DEFAULT_POLICIES, RiskMode
from tests.support.ai_market import BULLISH, NOON

RULE = SignalRule(min_confidence=0.5, min_strength=0.2)
SIZING = SizingRule(10_000, 0.5, 0.1, 300, 5)
COIN = Forecast(p_up=0.51, expected_return_pct=0.006, strength=0.6, barrier_pct=0.3)


def decision(
    forecast: Forecast,
    *,
    rule: SignalRule = RULE,
    sizing: SizingRule = SIZING,
    mode: RiskMode = RiskMode.NORMAL,
    on_trial: bool = False,
) -> Decision:
    return decide(forecast, rule, sizing, DEFAULT_POLICIES[mode], on_trial=on_trial)


def test_a_strong_rise_is_bought_as_far_as_the_policy_allows() -> None:
    found = decision(BULLISH)

    assert found.action is Action.BUY
    assert found.confidence == 0.9
    assert found.net_return_pct == pytest.approx(0.7)
    assert found.bet is not None
    assert (found.bet.size_usd, found.bet.limited_by) == (1000, "position_size_cap")
    assert found.exit_pct == 1.0


def test_a_strong_fall_is_sold() -> None:
    found = decision(dataclasses.replace(BULLISH, p_up=0.1, expected_return_pct=-0.8))

    assert found.action is Action.SELL
    assert found.confidence == 0.9


@pytest.mark.parametrize(
    ("forecast", "changes", "reason"),
    [
        (dataclasses.replace(BULLISH, strength=0.1), {}, "strength 0.10 below 0.20"),
        (BULLISH, {"rule": SignalRule(0.95, 0.2)}, "confidence 0.9000 below 0.9500"),
        (dataclasses.replace(BULLISH, p_up=0.59), {"mode": RiskMode.DEFENSIVE}, "below 0.6000 of the policy"),
        (COIN, {}, "expected return after costs is -0.0940 %, not above 0"),
        (COIN, {"on_trial": True, "sizing": SizingRule(10_000, 0.5, 0.1, 0, 5)}, "no position is worth taking"),
    ],
    ids=["strength", "threshold", "policy", "costs", "no-exploration"],
)
def test_each_obstacle_holds_and_says_so(forecast: Forecast, changes: dict[str, object], reason: str) -> None:
    found = decision(forecast, **changes)  # type: ignore[arg-type]  # parametrised

    assert found.action is Action.HOLD
    assert found.bet is None
    assert reason in found.reason


def test_a_model_on_trial_explores_at_the_small_size_and_hides_no_loss() -> None:
    found = decision(COIN, on_trial=True)

    assert found.action is Action.BUY
    assert found.net_return_pct < 0
    assert found.bet is not None
    assert (found.bet.size_usd, found.bet.limited_by, found.bet.kelly_fraction) == (300, "exploration", 0)


def test_a_model_on_trial_with_an_edge_bets_like_any_other() -> None:
    assert decision(BULLISH, on_trial=True) == decision(BULLISH)


def test_a_signal_lives_one_candle_and_at_most_five_minutes() -> None:
    assert expires_at(NOON, "1m") == NOON + timedelta(minutes=1)
    assert expires_at(NOON, "1h") == NOON + timedelta(minutes=5)
