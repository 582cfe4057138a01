"""Value at risk and expected shortfall for every portfolio: scale, sign, and no benefit from splitting."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.exec_risk_service.domain.price_history import PriceHistory
from services.exec_risk_service.domain.return_panel import ReturnPanel, panel_of
from services.exec_risk_service.domain.value_at_risk import (
    Horizon,
    effective_exposure,
    tail_risk,
    value_at_risk_ceiling,
)
from shared.trading.candles import Candle
from tests.support.markets import START

SYMBOLS = ("A", "B", "C", "UNKNOWN")
HORIZON = Horizon(candles=24, assumed_volatility=0.08)


def made_panel() -> ReturnPanel:
    rng = Random(3)
    histories = {}
    for symbol in SYMBOLS[:3]:
        price, candles = 100.0, []
        for number in range(120):
            price *= 1 + rng.gauss(0, 0.01)
            opened = START + timedelta(minutes=number)
            candles.append(Candle(symbol, "1m", opened, price, price, price, price, 1.0))
        histories[symbol] = PriceHistory(tuple(candles))
    return panel_of(histories)


PANEL = made_panel()
portfolios = st.fixed_dictionaries({symbol: st.floats(-10_000, 10_000) for symbol in SYMBOLS})
levels = st.sampled_from([0.95, 0.99])


@given(portfolio=portfolios, level=levels, factor=st.floats(0.01, 100))
def test_a_portfolio_k_times_as_large_loses_k_times_as_much(
    portfolio: dict[str, float], level: float, factor: float
) -> None:
    one = tail_risk(portfolio, PANEL, HORIZON, level)
    many = tail_risk({symbol: value * factor for symbol, value in portfolio.items()}, PANEL, HORIZON, level)

    assert many.historical == pytest.approx(one.historical * factor, rel=1e-6, abs=1e-6)
    assert many.parametric == pytest.approx(one.parametric * factor, rel=1e-6, abs=1e-6)
    assert many.historical_shortfall == pytest.approx(one.historical_shortfall * factor, rel=1e-6, abs=1e-6)


@given(portfolio=portfolios, level=levels)
def test_figures_are_never_negative_and_the_shortfall_is_the_larger(portfolio: dict[str, float], level: float) -> None:
    risk = tail_risk(portfolio, PANEL, HORIZON, level)

    assert 0 <= risk.historical <= risk.historical_shortfall + 1e-6
    assert 0 <= risk.parametric <= risk.parametric_shortfall + 1e-6


@given(portfolio=portfolios, level=levels)
def test_the_normal_model_does_not_know_long_from_short(portfolio: dict[str, float], level: float) -> None:
    turned = {symbol: -value for symbol, value in portfolio.items()}

    assert tail_risk(turned, PANEL, HORIZON, level).parametric == pytest.approx(
        tail_risk(portfolio, PANEL, HORIZON, level).parametric
    )


@given(one=portfolios, other=portfolios, level=levels)
def test_two_portfolios_together_fall_no_shorter_than_each_alone(
    one: dict[str, float], other: dict[str, float], level: float
) -> None:
    together = {symbol: one[symbol] + other[symbol] for symbol in SYMBOLS}
    joint, first, second = (tail_risk(each, PANEL, HORIZON, level) for each in (together, one, other))

    assert joint.historical_shortfall <= first.historical_shortfall + second.historical_shortfall + 1e-6
    assert joint.parametric_shortfall <= first.parametric_shortfall + second.parametric_shortfall + 1e-6
    assert joint.parametric <= first.parametric + second.parametric + 1e-6


@given(portfolio=portfolios, level=levels)
def test_the_quick_ceiling_is_above_the_exact_figure(portfolio: dict[str, float], level: float) -> None:
    exact = {symbol: Decimal(repr(value)) for symbol, value in portfolio.items()}

    assert tail_risk(portfolio, PANEL, HORIZON, level).value_at_risk <= (
        value_at_risk_ceiling(exact, PANEL, HORIZON, level) * (1 + 1e-9) + 1e-6
    )


@given(portfolio=portfolios)
def test_the_effective_exposure_is_at_most_the_gross_one(portfolio: dict[str, float]) -> None:
    assert effective_exposure(portfolio, PANEL) <= sum(map(abs, portfolio.values())) * (1 + 1e-9) + 1e-6


def test_covariance_and_correlation_are_those_of_numpy() -> None:
    assert np.allclose(PANEL.correlation, np.corrcoef(PANEL.returns, rowvar=False))
