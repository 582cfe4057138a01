"""Value at risk, correlation and effective exposure: known answers."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest

from services.exec_risk_service.domain.price_history import HISTORY_CANDLES, PriceHistories, PriceHistory
from services.exec_risk_service.domain.return_panel import MIN_RETURNS, panel_of
from services.exec_risk_service.domain.value_at_risk import (
    Horizon,
    effective_exposure,
    horizon_of,
    normal_tail,
    tail_risk,
    worst_losses,
)
from shared.trading.candles import Candle
from tests.support.markets import START

ONE = Horizon(candles=1, assumed_volatility=0.1)


def history(symbol: str, returns: list[float], *, skip: frozenset[int] = frozenset()) -> PriceHistory:
    price, candles = 100.0, []
    for number, change in enumerate([0.0, *returns]):
        price *= 1 + change
        if number not in skip:
            opened = START + timedelta(minutes=number)
            candles.append(Candle(symbol, "1m", opened, price, price, price, price, 1.0))
    return PriceHistory(tuple(candles))


def waves(count: int = 100, *, phase: float = 0.0, size: float = 0.01) -> list[float]:
    return [size * math.sin(0.7 * number + phase) for number in range(count)]


def test_the_worst_of_a_hundred_is_the_loss_at_99_percent_and_the_mean_of_five_the_shortfall_at_95() -> None:
    profits = np.array([float(number) for number in range(-10, 90)])

    assert worst_losses(profits, 0.99) == [10.0]
    assert sorted(worst_losses(profits, 0.95)) == [6.0, 7.0, 8.0, 9.0, 10.0]


def test_historical_figures_come_from_the_returns_that_were() -> None:
    returns = [0.001] * 95 + [-0.01, -0.02, -0.03, -0.04, -0.05]
    panel = panel_of({"A": history("A", returns)})

    risk = tail_risk({"A": 1000.0}, panel, ONE, 0.95)

    assert risk.historical == pytest.approx(10.0)
    assert risk.historical_shortfall == pytest.approx(30.0)
    assert tail_risk({"A": -1000.0}, panel, ONE, 0.95).historical == pytest.approx(1.0)  # a short one lost 0.1 %


def test_parametric_figures_are_quantiles_of_the_normal_distribution() -> None:
    panel = panel_of({"A": history("A", waves())})
    deviation = float(np.std(np.array(waves()), ddof=1))

    risk = tail_risk({"A": 1000.0}, panel, ONE, 0.99)

    assert normal_tail(0.99) == pytest.approx((2.3263, 2.6652), abs=1e-4)
    assert risk.parametric == pytest.approx(2.3263 * deviation * 1000, rel=1e-3)
    assert risk.parametric_shortfall == pytest.approx(2.6652 * deviation * 1000, rel=1e-3)
    assert risk.value_at_risk == max(risk.historical, risk.parametric)


def test_losses_grow_with_the_square_root_of_the_horizon() -> None:
    panel = panel_of({"A": history("A", waves())})
    day = horizon_of(timedelta(days=1), timedelta(minutes=15), 0.1)

    assert day.candles == 96
    assert tail_risk({"A": 1.0}, panel, day, 0.99).parametric == pytest.approx(
        math.sqrt(96) * tail_risk({"A": 1.0}, panel, ONE, 0.99).parametric
    )


def test_a_symbol_without_history_is_taken_at_its_worst() -> None:
    panel = panel_of({"A": history("A", waves()), "NEW": history("NEW", waves(MIN_RETURNS - 1))})
    alone = tail_risk({"A": 1000.0}, panel, ONE, 0.99)

    both = tail_risk({"A": 1000.0, "NEW": -500.0}, panel, ONE, 0.99)

    assert "NEW" not in panel.columns
    assert both.parametric - alone.parametric == pytest.approx(2.3263 * 500 * 0.1, rel=1e-3)
    assert both.historical - alone.historical == pytest.approx(2.3263 * 500 * 0.1, rel=1e-3)
    assert panel.correlation_of("A", "NEW") is None
    assert panel.beta_of("NEW", "A") is None


def test_twins_and_opposites_are_recognised() -> None:
    base = waves()
    panel = panel_of(
        {
            "A": history("A", base),
            "TWIN": history("TWIN", [2 * change for change in base]),
            "MIRROR": history("MIRROR", [-change for change in base]),
        }
    )

    assert panel.correlation_of("A", "TWIN") == pytest.approx(1.0)
    assert panel.correlation_of("A", "MIRROR") == pytest.approx(-1.0)
    assert panel.beta_of("TWIN", "A") == pytest.approx(2.0)
    assert effective_exposure({"A": 100.0, "TWIN": 100.0}, panel) == pytest.approx(200.0)
    assert effective_exposure({"A": 100.0, "MIRROR": 100.0}, panel) == pytest.approx(0.0, abs=1e-4)
    assert tail_risk({"A": 100.0, "MIRROR": 100.0}, panel, ONE, 0.99).parametric == pytest.approx(0.0, abs=1e-6)


def test_symbols_are_laid_side_by_side_on_the_candles_that_all_have() -> None:
    panel = panel_of({"A": history("A", waves()), "GAPS": history("GAPS", waves(), skip=frozenset({10, 50}))})

    assert panel.returns.shape == (96, 2)  # each missing candle takes two returns away
    assert panel.correlation_of("A", "GAPS") == pytest.approx(1.0)


def test_a_short_history_does_not_shorten_the_others() -> None:
    panel = panel_of({"A": history("A", waves()), "YOUNG": history("YOUNG", waves(40))})

    assert list(panel.columns) == ["A"]
    assert len(panel.returns) == 100


def test_a_symbol_that_never_moves_is_no_division_by_zero() -> None:
    panel = panel_of({"A": history("A", waves()), "FLAT": history("FLAT", [0.0] * 100)})

    assert panel.correlation_of("A", "FLAT") == 0.0
    assert panel.beta_of("A", "FLAT") is None
    assert tail_risk({"FLAT": 1000.0}, panel, ONE, 0.99).value_at_risk == 0.0


def test_the_panel_of_a_book_is_computed_once_per_candle() -> None:
    known = PriceHistories({"A": history("A", waves(HISTORY_CANDLES))})
    newest = known["A"].candles[-1]
    opened = newest.open_time + timedelta(minutes=1)

    assert known.figure(panel_of) is known.figure(panel_of)
    longer = known.with_candles("A", [Candle("A", "1m", opened, 1.0, 1.0, 1.0, 1.0, 1.0)])
    assert longer.figure(panel_of) is not known.figure(panel_of)
    assert known.with_candles("A", [newest]) is known
