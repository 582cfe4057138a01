"""A run begins where there is history to learn from and a future to trade."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from infrastructure.supervisor.market_start import ENDLESS_START, market_start
from shared.errors import ConfigurationError
from shared.trading.candles import Candle

DAY = datetime(2025, 5, 4, tzinfo=UTC)


class Files:
    """Candle files of which only the ends matter; ``ends`` gives minutes after ``DAY``."""

    timeframe = "1m"

    def __init__(self, ends: dict[str, tuple[int, int | None]]) -> None:
        self._ends = ends

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self._ends)

    def first_open(self, symbol: str) -> datetime:
        return DAY + timedelta(minutes=self._ends[symbol][0], seconds=7)

    def last_open(self, symbol: str) -> datetime | None:
        minutes = self._ends[symbol][1]
        return None if minutes is None else DAY + timedelta(minutes=minutes, seconds=7)

    def candles(self, symbol: str, start: datetime, end: datetime) -> list[Candle]:
        raise AssertionError("the start follows from the ends alone")

    def funding_rate(self, symbol: str, moment: datetime) -> Decimal | None:
        raise AssertionError("the start follows from the ends alone")


def test_three_quarters_of_the_common_window_are_history_and_the_start_is_aligned() -> None:
    files = Files({"BTCUSDT": (0, 3999), "ETHUSDT": (1000, 9000)})

    start = market_start(files, speed=60.0, run_seconds=None)

    assert start == DAY + timedelta(minutes=1000 + 2250)


@pytest.mark.parametrize("ends", [{"BTCUSDT": (0, 600)}, {"BTCUSDT": (0, 1000), "ETHUSDT": (900, 9000)}])
def test_too_short_files_are_refused(ends: dict[str, tuple[int, int | None]]) -> None:
    with pytest.raises(ConfigurationError, match="slots in common; at least 667 are needed"):
        market_start(Files(ends), speed=1.0, run_seconds=None)


def test_files_that_do_not_overlap_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="have 0 slots in common"):
        market_start(Files({"BTCUSDT": (0, 1000), "ETHUSDT": (5000, 9000)}), speed=1.0, run_seconds=None)


def test_a_run_that_outlasts_its_candles_is_refused() -> None:
    files = Files({"BTCUSDT": (0, 3999)})

    market_start(files, speed=60.0, run_seconds=900.0)
    with pytest.raises(ConfigurationError, match="candles end 1000 s after the start at speed 60"):
        market_start(files, speed=60.0, run_seconds=1200.0)


def test_a_market_without_an_end_starts_at_a_fixed_date() -> None:
    assert market_start(Files({"BTCUSDT": (-(10**6), None)}), speed=1.0, run_seconds=None) == ENDLESS_START
