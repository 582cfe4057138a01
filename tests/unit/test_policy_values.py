"""Policy values as people write and read them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from infrastructure.cli.policy_values import read_assignments, shown
from shared.errors import InvalidInputError
from shared.trading.policy import DEFAULT_POLICIES, RiskMode


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("max_leverage=5", 5.0),
        ("max_leverage=2.5x", 2.5),
        ("max_risk_pct_per_trade=0.01", 0.01),
        ("max_risk_pct_per_trade=1%", 0.01),
        ("max_daily_drawdown= 7 %", 0.07),
        ("global_min_confidence=55%", 0.55),
        ("max_positions=12", 12),
        ("position_size_cap=1e3", 1000.0),
        ("enable_rl=off", False),
        ("enable_pal=YES", True),
    ],
)
def test_values_are_read_in_the_unit_of_their_field(text: str, value: object) -> None:
    (read,) = read_assignments([text]).values()
    assert (type(read), read) == (type(value), value)


@pytest.mark.parametrize(
    ("assignments", "told"),
    [
        (["max_leverage"], "write FIELD=VALUE, such as max_leverage=5"),
        (["max_levrage=5"], "did you mean max_leverage?"),
        (["=5"], "is no field"),
        (["max_leverage=5", "max_leverage=6"], "max_leverage is named twice"),
        (["max_leverage="], "must be a number"),
        (["max_positions=1.5"], "must be a whole number"),
        (["max_positions=many\x1b[31m"], "'many' is wrong"),
        (["max_risk_pct_per_trade=one%"], "such as 0.01 or 1%"),
        (["position_size_cap=5%"], "an amount in USD"),
        (["enable_rl=maybe"], "must be on or off"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_said_with_what_could(assignments: list[str], told: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        read_assignments(assignments)
    assert told in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("max_leverage", 20, "20x"),
        ("scaling_factor", 0.5, "0.5x"),
        ("max_risk_pct_per_trade", 0.0075, "0.0075 (0.75 %)"),
        ("max_daily_drawdown", 0.07, "0.07 (7 %)"),
        ("max_positions", 30, "30"),
        ("position_size_cap", 1234.5, "1,234.5 USD"),
        ("enable_rl", False, "off"),
        ("field_of_a_newer_version", [1], "[1]"),
    ],
)
def test_values_are_shown_with_their_unit(name: str, value: Any, text: str) -> None:
    assert shown(name, value) == text


@pytest.mark.parametrize("mode", RiskMode)
def test_what_is_shown_of_a_default_can_be_written_again(mode: RiskMode) -> None:
    values = asdict(DEFAULT_POLICIES[mode])
    written = [f"{name}={shown(name, value).partition(' ')[0].replace(',', '')}" for name, value in values.items()]
    assert read_assignments(written) == values
