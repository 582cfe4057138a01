"""Bounds that no size may leave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.ai_service.domain.sizing import SizingRule, kelly_fraction, size_bet
from shared.trading.policy import DEFAULT_POLICIES, RiskMode

probabilities = st.floats(0, 1)
percents = st.floats(0.01, 50)


@given(probabilities, percents, percents)
def test_kelly_is_a_fraction_and_grows_with_the_chance(p_win: float, gain: float, loss: float) -> None:
    fraction = kelly_fraction(p_win, gain, loss)

    assert 0 <= fraction <= 1
    assert fraction <= kelly_fraction(min(1.0, p_win + 0.1), gain, loss) + 1e-12


@given(probabilities, percents, percents)
def test_kelly_bets_only_on_a_positive_expectation(p_win: float, gain: float, loss: float) -> None:
    if p_win * gain - (1 - p_win) * loss <= 0:
        assert kelly_fraction(p_win, gain, loss) <= 1e-12


@given(probabilities, percents, st.sampled_from(list(RiskMode)), st.floats(0, 2), st.booleans())
def test_no_size_exceeds_the_policy(p_win: float, barrier: float, mode: RiskMode, cost: float, exploring: bool) -> None:
    policy = DEFAULT_POLICIES[mode]
    rule = SizingRule(10_000, 0.5, cost, 300, 5)

    bet = size_bet(p_win, barrier, rule, policy, exploring=exploring)

    assert 0 <= bet.size_usd <= policy.position_size_cap
    assert bet.size_usd * (barrier + cost) / 100 <= policy.max_risk_pct_per_trade * rule.capital_usd + 0.01
    assert 1 <= bet.leverage <= policy.max_leverage
