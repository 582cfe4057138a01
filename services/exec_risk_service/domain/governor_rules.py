"""Thresholds of the Safety Governor."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class GovernorRules:
    """When the governor narrows or ends trading; the daily drawdown that stops entries is ``Rules.max_daily_drawdown``.

    Attributes:
        is_enabled: It watches; an emergency stop by a person works without it.
        stop_drawdown: Fraction below the day's peak equity at which everything is closed.
        stop_losses: Losing positions in a row at which everything is closed.
        stop_at_daily_drawdown: Everything is closed at the daily drawdown that stops entries already.
        storm_count: Definitive refusals within ``storm_window`` that stop entries.
        storm_window: Wall time.
        storm_pause: Wall time without a refusal after which entries go on.
        unknown_outcomes: Orders of unknown fate at the same time that stop entries.
        mismatch_halt: Difference to the exchange's position, fraction of equity, at which trading halts.
    """

    is_enabled: bool = True
    stop_drawdown: Decimal = Decimal("0.15")
    stop_losses: int = 5
    stop_at_daily_drawdown: bool = False
    storm_count: int = 5
    storm_window: timedelta = timedelta(seconds=60)
    storm_pause: timedelta = timedelta(minutes=5)
    unknown_outcomes: int = 3
    mismatch_halt: Decimal = Decimal("0.25")
