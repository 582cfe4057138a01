"""The risk policy: values a person may change while the system runs, and the one place where fractions meet percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import NewType

#: 0.01 means 1 %. Policy holds fractions.
Fraction = NewType("Fraction", float)
#: 1.0 means 1 %. Event fields named ``_pct`` hold percent.
Percent = NewType("Percent", float)


def to_percent(fraction: Fraction) -> Percent:
    """Return 5.0 for 0.05."""
    return Percent(float(Decimal(str(fraction)) * 100))


def to_fraction(percent: Percent) -> Fraction:
    """Return 0.05 for 5.0."""
    return Fraction(float(Decimal(str(percent)) / 100))


class RiskMode(StrEnum):
    """Named sets of limits."""

    NORMAL = "NORMAL"
    DEFENSIVE = "DEFENSIVE"
    AGGRESSIVE_SMALL_ACCOUNT = "AGGRESSIVE_SMALL_ACCOUNT"


@dataclass(frozen=True, slots=True)
class RiskPolicy:
    """Limits of one mode (architecture section 6).

    Attributes:
        max_leverage: Highest leverage of a position.
        max_risk_pct_per_trade: Fraction of equity that one trade may lose at its stop.
        max_daily_drawdown: Fraction below the day's peak equity at which entries stop.
        max_positions: Open positions at the same time.
        global_min_confidence: Lowest confidence of a signal that may trade, 0 to 1.
        scaling_factor: Multiplier on suggested sizes.
        position_size_cap: Largest position, USD.
    """

    max_leverage: float
    max_risk_pct_per_trade: Fraction
    max_daily_drawdown: Fraction
    max_positions: int
    global_min_confidence: float
    scaling_factor: float
    position_size_cap: float
    enable_rl: bool = True
    enable_meta_strategy: bool = True
    enable_pal: bool = True
    enable_pba: bool = True
    enable_clm: bool = True
    enable_retraining: bool = True
    enable_dynamic_tpsl: bool = True


class PolicyUnit(StrEnum):
    """What the number of a field counts; how people write it and read it."""

    FRACTION = "fraction"  # 0.01 is 1 %
    TIMES = "x"
    USD = "USD"
    COUNT = "count"
    SWITCH = "on/off"


#: Unit of every field of ``RiskPolicy``, in its order.
POLICY_UNITS: Mapping[str, PolicyUnit] = MappingProxyType(
    {
        "max_leverage": PolicyUnit.TIMES,
        "max_risk_pct_per_trade": PolicyUnit.FRACTION,
        "max_daily_drawdown": PolicyUnit.FRACTION,
        "max_positions": PolicyUnit.COUNT,
        "global_min_confidence": PolicyUnit.FRACTION,
        "scaling_factor": PolicyUnit.TIMES,
        "position_size_cap": PolicyUnit.USD,
        "enable_rl": PolicyUnit.SWITCH,
        "enable_meta_strategy": PolicyUnit.SWITCH,
        "enable_pal": PolicyUnit.SWITCH,
        "enable_pba": PolicyUnit.SWITCH,
        "enable_clm": PolicyUnit.SWITCH,
        "enable_retraining": PolicyUnit.SWITCH,
        "enable_dynamic_tpsl": PolicyUnit.SWITCH,
    }
)


DEFAULT_POLICIES: Mapping[RiskMode, RiskPolicy] = MappingProxyType(
    {
        RiskMode.NORMAL: RiskPolicy(
            max_leverage=20,
            max_risk_pct_per_trade=Fraction(0.01),
            max_daily_drawdown=Fraction(0.05),
            max_positions=30,
            global_min_confidence=0.50,
            scaling_factor=1.0,
            position_size_cap=1000,
        ),
        RiskMode.DEFENSIVE: RiskPolicy(
            max_leverage=3,
            max_risk_pct_per_trade=Fraction(0.0075),
            max_daily_drawdown=Fraction(0.03),
            max_positions=10,
            global_min_confidence=0.60,
            scaling_factor=0.5,
            position_size_cap=500,
            enable_pal=False,
        ),
        RiskMode.AGGRESSIVE_SMALL_ACCOUNT: RiskPolicy(
            max_leverage=7,
            max_risk_pct_per_trade=Fraction(0.03),
            max_daily_drawdown=Fraction(0.06),
            max_positions=15,
            global_min_confidence=0.45,
            scaling_factor=1.5,
            position_size_cap=300,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class PolicyState:
    """What a service reads: the active mode's limits and where they came from.

    Attributes:
        mode: Active mode.
        policy: Its limits.
        version: Counts up with each change; 0 for the built-in fallback.
        stale: True when the store cannot be reached and this is the last known copy or the fallback.
    """

    mode: RiskMode
    policy: RiskPolicy
    version: int
    stale: bool = False


#: Used when nothing is known: the careful mode.
FALLBACK_POLICY_STATE = PolicyState(RiskMode.DEFENSIVE, DEFAULT_POLICIES[RiskMode.DEFENSIVE], version=0, stale=True)
