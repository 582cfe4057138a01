from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.clock import ClockOrigin, ManualClock, ScaledClock, SystemClock
from shared.errors import ConfigurationError

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_system_clock_tells_aware_utc_and_never_goes_back() -> None:
    clock = SystemClock()

    first, second = clock.monotonic(), clock.monotonic()

    assert clock.now().utcoffset() == timedelta(0)
    assert second >= first


async def test_the_system_clock_takes_a_negative_wait_as_none() -> None:
    await SystemClock().sleep(-1)


def test_a_scaled_clock_runs_rate_times_as_fast_from_its_origin() -> None:
    wall = ManualClock(START)
    market = ScaledClock(ClockOrigin(wall=START, market=datetime(2020, 5, 1, tzinfo=UTC), rate=60), wall)

    wall.advance(2)

    assert market.now() == datetime(2020, 5, 1, 0, 2, tzinfo=UTC)
    assert market.monotonic() == 120


def test_two_processes_with_one_origin_tell_the_same_market_time() -> None:
    wall = ManualClock(START)
    origin = ClockOrigin(wall=START - timedelta(hours=1), market=START, rate=10)

    assert ScaledClock(origin, wall).now() == ScaledClock(origin, wall).now() == START + timedelta(hours=10)


async def test_a_scaled_clock_sleeps_a_fraction_of_the_wall_time() -> None:
    wall = ManualClock(START)
    market = ScaledClock(ClockOrigin(wall=START, market=START, rate=60), wall)
    sleeping = asyncio.create_task(market.sleep(120))
    await asyncio.sleep(0)

    wall.advance(1.9)
    await asyncio.sleep(0)
    assert not sleeping.done()
    wall.advance(0.1)
    await sleeping


async def test_a_manual_clock_wakes_sleepers_in_the_order_of_their_deadlines() -> None:
    clock = ManualClock(START)
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    tasks = [
        asyncio.create_task(sleeper(*pair)) for pair in (("late", 30), ("early", 10), ("middle", 20), ("never", 99))
    ]
    await asyncio.sleep(0)

    clock.advance(30)
    await asyncio.gather(*tasks[:3])

    assert woken == ["early", "middle", "late"]
    assert not tasks[3].done()
    tasks[3].cancel()


async def test_a_cancelled_sleeper_does_not_hold_up_the_others() -> None:
    clock = ManualClock(START)
    cancelled, other = asyncio.create_task(clock.sleep(5)), asyncio.create_task(clock.sleep(5))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)

    clock.advance(5)
    await other

    assert cancelled.cancelled()


def test_a_manual_clock_never_goes_back() -> None:
    clock = ManualClock(START)
    clock.advance(10)

    clock.advance_to(START)

    assert clock.now() == START + timedelta(seconds=10)
    assert clock.monotonic() == 10


def test_an_origin_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    origin = ClockOrigin(wall=START, market=START - timedelta(days=300, microseconds=1), rate=60.5)

    origin.save(tmp_path / "folder" / "clock.json")

    assert ClockOrigin.load(tmp_path / "folder" / "clock.json") == origin
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["clock.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"wall": 1, "market": 2, "rate": 3}',
        '{"wall": "2026-01-01T00:00:00", "market": "2026-01-01T00:00:00+00:00", "rate": 1}',
        '{"wall": "2026-01-01T00:00:00+00:00", "market": "2026-01-01T00:00:00+00:00", "rate": 0}',
        '{"wall": "2026-01-01T00:00:00+00:00", "market": "2026-01-01T00:00:00+00:00", "rate": NaN}',
        '{"wall": "2026-01-01T00:00:00+00:00", "market": "2026-01-01T00:00:00+00:00", "rate": Infinity}',
    ],
)
def test_a_file_that_is_no_origin_is_a_configuration_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "clock.json"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=r"clock\.json"):
        ClockOrigin.load(path)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"clock\.json"):
        ClockOrigin.load(tmp_path / "clock.json")
