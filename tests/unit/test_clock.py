"""Clocks: the stored origin that several processes share, and time that is moved by hand."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.clock import ClockOrigin, ManualClock, ScaledClock
from shared.errors import ConfigurationError

WALL = datetime(2025, 5, 4, 12, tzinfo=UTC)
MARKET = datetime(2024, 1, 1, tzinfo=UTC)


def test_two_processes_with_the_same_file_tell_the_same_market_time(tmp_path: Path) -> None:
    path = tmp_path / "run" / "clock.json"
    ClockOrigin(WALL, MARKET, 60.0).save(path)
    wall = ManualClock(WALL)
    first, second = (ScaledClock(ClockOrigin.load(path), wall) for _ in range(2))
    wall.advance(90)
    assert first.now() == second.now() == MARKET + timedelta(minutes=90)


def test_a_saved_origin_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    ClockOrigin(WALL, MARKET, 60.0).save(path)
    ClockOrigin(WALL, MARKET, 1.5).save(path)
    assert ClockOrigin.load(path).rate == 1.5
    assert list(tmp_path.iterdir()) == [path]


@given(
    wall=st.datetimes(timezones=st.just(UTC)), market=st.datetimes(timezones=st.just(UTC)), rate=st.floats(1e-3, 1e6)
)
def test_what_is_saved_is_loaded(
    tmp_path_factory: pytest.TempPathFactory, wall: datetime, market: datetime, rate: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "origin.json"
    ClockOrigin(wall, market, rate).save(path)
    assert ClockOrigin.load(path) == ClockOrigin(wall, market, rate)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"wall": "2025-01-01T00:00:00+00:00", "market": "2024-01-01T00:00:00+00:00"}',
        '{"wall": "yesterday", "market": "2024-01-01T00:00:00+00:00", "rate": 1}',
        '{"wall": "2025-01-01T00:00:00", "market": "2024-01-01T00:00:00+00:00", "rate": 1}',
        '{"wall": "2025-01-01T00:00:00+00:00", "market": "2024-01-01T00:00:00+00:00", "rate": 0}',
        '{"wall": "2025-01-01T00:00:00+00:00", "market": "2024-01-01T00:00:00+00:00", "rate": NaN}',
    ],
)
def test_a_file_that_is_no_origin_gives_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "clock.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"clock\.json") as raised:
        ClockOrigin.load(path)
    assert "\n" not in str(raised.value)


async def test_sleepers_of_a_scaled_clock_wake_in_market_time() -> None:
    wall = ManualClock(WALL)
    market = ScaledClock(ClockOrigin(WALL, MARKET, 60.0), wall)
    sleeper = asyncio.create_task(market.sleep(120))
    await asyncio.sleep(0)
    wall.advance(1.9)
    await asyncio.sleep(0)
    assert not sleeper.done()
    wall.advance(0.1)
    await sleeper
