"""Rolling windows: what repeats changes nothing, a hole is seen, old windows can be had again."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from services.ai_service.domain.windows import Placement, RollingWindow, columns_of, epoch_ms, from_epoch_ms
from shared.errors import InvalidInputError
from tests.support.ai_market import NOON, walk

CANDLES = walk(50)


def filled(count: int, capacity: int = 8) -> RollingWindow:
    window = RollingWindow("1m", capacity)
    for candle in CANDLES[:count]:
        assert window.add(candle) is Placement.APPENDED
    return window


def test_the_newest_window_is_the_last_candles_in_order() -> None:
    found = filled(5).ending_at(CANDLES[4].open_time, 3)

    assert found is not None
    expected = columns_of(CANDLES[2:5])
    for name in ("open_time_ms", "open", "high", "low", "close", "volume"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("count", [8, 15, 16, 17, 31, 50])
def test_the_window_stays_right_while_its_storage_is_moved(count: int) -> None:
    window = filled(count)

    found = window.ending_at(CANDLES[count - 1].open_time, 8)

    assert found is not None
    assert found.close.tolist() == [candle.close for candle in CANDLES[count - 8 : count]]
    assert len(window) == 8


def test_a_repeated_or_older_candle_changes_nothing() -> None:
    window = filled(10)

    assert window.add(CANDLES[9]) is Placement.REPEATED
    assert window.add(CANDLES[3]) is Placement.REPEATED
    assert window.newest_open_ms == epoch_ms(CANDLES[9].open_time)


def test_a_candle_after_a_hole_is_refused() -> None:
    window = filled(10)

    assert window.add(CANDLES[11]) is Placement.GAP
    assert window.newest_open_ms == epoch_ms(CANDLES[9].open_time)


def test_an_earlier_window_can_be_had_while_its_candles_are_here() -> None:
    window = filled(20)

    earlier = window.ending_at(CANDLES[17].open_time, 4)

    assert earlier is not None
    assert earlier.close.tolist() == [candle.close for candle in CANDLES[14:18]]
    assert window.ending_at(CANDLES[15].open_time, 8) is None
    assert window.ending_at(CANDLES[20].open_time, 4) is None


def test_a_window_that_was_handed_out_does_not_change_later() -> None:
    window = filled(10)
    found = window.ending_at(CANDLES[9].open_time, 4)
    assert found is not None
    before = found.close.copy()

    for candle in CANDLES[10:40]:
        window.add(candle)

    assert np.array_equal(found.close, before)


def test_an_empty_window_has_nothing() -> None:
    window = RollingWindow("1m", 4)

    assert window.newest_open_ms is None
    assert window.ending_at(NOON, 1) is None


def test_replacing_with_a_hole_is_refused() -> None:
    window = filled(3)

    with pytest.raises(InvalidInputError, match="not consecutive"):
        window.replace([CANDLES[5], CANDLES[7]])


def test_times_survive_the_way_through_milliseconds() -> None:
    moment = NOON + timedelta(milliseconds=1)

    assert from_epoch_ms(epoch_ms(moment)) == moment
