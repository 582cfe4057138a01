"""Several voices become one."""

from __future__ import annotations

import pytest

from services.ai_service.domain.ensemble import Member, combine
from services.ai_service.domain.forecasts import Forecast
from shared.errors import InvalidInputError


def member(name: str, p_up: float, weight: float = 1.0) -> Member:
    return Member(name, f"{name}-1", Forecast(p_up, 2 * p_up - 1, 0.5, 1.0), weight)


def test_one_member_speaks_for_itself_and_agrees_with_nobody() -> None:
    joint = combine([member("lightgbm", 0.6)])

    assert joint.forecast == member("lightgbm", 0.6).forecast
    assert joint.agreement is None
    assert (joint.source, joint.voters, joint.version) == ("lightgbm", ("lightgbm",), "lightgbm-1")


def test_the_joint_forecast_is_the_weighted_mean() -> None:
    joint = combine([member("a", 0.8, weight=3), member("b", 0.4)])

    assert joint.forecast.p_up == pytest.approx(0.7)
    assert joint.forecast.expected_return_pct == pytest.approx(0.4)
    assert joint.source == "ensemble"
    assert joint.version == "a-1+b-1"


def test_agreement_counts_heads_on_the_side_of_the_whole() -> None:
    assert combine([member("a", 0.9), member("b", 0.6), member("c", 0.4)]).agreement == pytest.approx(2 / 3)
    assert combine([member("a", 0.1), member("b", 0.4)]).agreement == 1.0


@pytest.mark.parametrize("members", [[], [member("a", 0.5, weight=0)], [member("a", 0.5, weight=float("nan"))]])
def test_an_ensemble_of_nobody_is_refused(members: list[Member]) -> None:
    with pytest.raises(InvalidInputError):
        combine(members)
