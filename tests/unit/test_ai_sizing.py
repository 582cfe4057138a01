"""Kelly against numbers worked out by hand, and every cap."""

from __future__ import annotations

import pytest

from services.ai_service.domain.sizing import Bet, SizingRule, kelly_fraction, size_bet
from shared.errors import InvalidInputError
from shared.trading.policy import DEFAULT_POLICIES, Fraction, RiskMode, RiskPolicy

RULE = SizingRule(
    capital_usd=10_000, kelly_share=0.5, round_trip_cost_pct=0.1, exploration_size_usd=300, max_leverage=5
)
WIDE = RiskPolicy(
    max_leverage=20,
    max_risk_pct_per_trade=Fraction(1.0),
    max_daily_drawdown=Fraction(0.05),
    max_positions=30,
    global_min_confidence=0.5,
    scaling_factor=1.0,
    position_size_cap=10_000_000,
)
NORMAL = DEFAULT_POLICIES[RiskMode.NORMAL]


def bet(p_win: float, barrier_pct: float, policy: RiskPolicy = WIDE, *, exploring: bool = False) -> Bet:
    return size_bet(p_win, barrier_pct, RULE, policy, exploring=exploring)


@pytest.mark.parametrize(
    ("p_win", "gain", "loss", "expected"),
    [
        (0.6, 1.0, 1.0, 0.2),  # even odds: p - q
        (0.5, 2.0, 1.0, 0.25),  # two to one: 0.5 - 0.5 / 2
        (0.5, 1.0, 1.0, 0.0),
        (0.4, 1.0, 1.0, 0.0),
        (0.9, 0.0, 1.0, 0.0),  # costs eat the whole gain
        (0.99, -0.1, 1.0, 0.0),
        (1.0, 1.0, 1.0, 1.0),
    ],
)
def test_kelly_by_hand(p_win: float, gain: float, loss: float, expected: float) -> None:
    assert kelly_fraction(p_win, gain, loss) == pytest.approx(expected)


def test_half_kelly_with_costs_by_hand() -> None:
    """1 % barriers: wins 0.9, loses 1.1. f = 0.7 - 0.3 x 1.1 / 0.9 = 1 / 3; half of it at risk is 1667 USDT."""
    found = bet(0.7, 1.0)

    assert found.kelly_fraction == pytest.approx(1 / 3)
    assert found.size_usd == pytest.approx(10_000 / 6 / 0.011, abs=0.01)
    assert found.limited_by == "kelly"


def test_costs_alone_can_take_the_edge_away() -> None:
    assert kelly_fraction(0.54, 1.0, 1.0) > 0
    assert bet(0.54, 1.0).size_usd == 0


def test_the_policy_caps_the_position() -> None:
    found = bet(0.7, 1.0, NORMAL)

    assert (found.size_usd, found.limited_by) == (1000, "position_size_cap")


def test_the_policy_caps_what_a_stop_may_lose() -> None:
    """1 % of 10,000 USDT at a stop of 20 % plus 0.1 % costs: 497.51 USDT."""
    found = bet(0.9, 20.0, NORMAL)

    assert (found.size_usd, found.limited_by) == (497.51, "risk_per_trade")


def test_the_scaling_factor_of_the_policy_moves_the_size() -> None:
    defensive = DEFAULT_POLICIES[RiskMode.DEFENSIVE]

    assert bet(0.5, 0.3, NORMAL, exploring=True).size_usd == 300
    assert bet(0.5, 0.3, defensive, exploring=True).size_usd == 150


def test_exploring_takes_a_fixed_size_and_still_says_what_kelly_says() -> None:
    found = bet(0.5, 0.3, NORMAL, exploring=True)

    assert (found.size_usd, found.limited_by, found.kelly_fraction) == (300, "exploration", 0)


@pytest.mark.parametrize(("barrier", "expected"), [(0.3, 5), (10.0, 2), (40.0, 1)])
def test_leverage_leaves_liquidation_four_stops_away(barrier: float, expected: float) -> None:
    assert bet(0.6, barrier).leverage == expected
    assert bet(0.6, barrier, DEFAULT_POLICIES[RiskMode.DEFENSIVE]).leverage <= 3


@pytest.mark.parametrize(
    "changes", [{"capital_usd": 0}, {"kelly_share": 1.5}, {"max_leverage": 0.5}, {"round_trip_cost_pct": -0.1}]
)
def test_settings_without_sense_are_refused(changes: dict[str, float]) -> None:
    values = {
        "capital_usd": 10_000.0,
        "kelly_share": 0.5,
        "round_trip_cost_pct": 0.1,
        "exploration_size_usd": 300.0,
        "max_leverage": 5.0,
    }
    with pytest.raises(InvalidInputError):
        SizingRule(**{**values, **changes})
