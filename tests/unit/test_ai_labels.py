"""Triple barriers on paths drawn by hand."""

from __future__ import annotations

import numpy as np
import pytest

from services.ai_service.domain.labels import BarrierLabels, BarrierRule, label_barriers
from services.ai_service.domain.windows import columns_of
from shared.errors import InvalidInputError
from shared.trading.candles import Candle
from tests.support.ai_market import NOON, walk

#: Barriers stand 1 % away: 0.5 x sqrt(4) x 1 % true range.
RULE = BarrierRule(horizon_candles=4, range_multiple=0.5, min_distance_pct=0.3)
Bar = tuple[float, float, float]


def label(*path: Bar, atr_pct: float = 1.0, rule: BarrierRule = RULE) -> BarrierLabels:
    """Label an entry at 100 followed by candles of (high, low, close)."""
    first = walk(1)[0]
    rows = [(100.0, 100.0, 100.0), *path]
    candles = [
        Candle(
            "BTCUSDT", "1m", first.open_time + (first.close_time - first.open_time) * number, 100, high, low, close, 1
        )
        for number, (high, low, close) in enumerate(rows)
    ]
    return label_barriers(columns_of(candles), np.array([0]), np.array([atr_pct]), rule)


QUIET: Bar = (100.5, 99.5, 100.2)


@pytest.mark.parametrize(
    ("path", "direction", "gain", "last"),
    [
        ([QUIET, (101.0, 99.9, 100.9), QUIET, QUIET], 1, 1.0, 2),
        ([QUIET, QUIET, (100.1, 99.0, 99.1), QUIET], -1, -1.0, 3),
        ([(101.2, 99.9, 101.0), (100, 98, 98), QUIET, QUIET], 1, 1.0, 1),
        ([(100.2, 98.9, 99.0), (103, 99, 103), QUIET, QUIET], -1, -1.0, 1),
        ([QUIET, QUIET, QUIET, (100.5, 99.5, 100.4)], 1, 0.4, 4),
        ([QUIET, QUIET, QUIET, (100.5, 99.5, 99.7)], -1, -0.3, 4),
    ],
    ids=["up-touch", "down-touch", "up-then-down", "down-then-up", "ends-above", "ends-below"],
)
def test_the_first_barrier_decides(path: list[Bar], direction: int, gain: float, last: int) -> None:
    found = label(*path)

    assert found.direction.tolist() == [direction]
    assert found.gain[0] == pytest.approx(gain)
    assert found.last_index.tolist() == [last]


def test_a_candle_that_spans_both_barriers_decides_nothing() -> None:
    assert label(QUIET, (101.5, 98.5, 100), QUIET, QUIET).direction.tolist() == [0]


def test_no_move_at_all_decides_nothing() -> None:
    assert label(*[(100.0, 100.0, 100.0)] * 4).direction.tolist() == [0]


def test_an_entry_without_a_whole_horizon_decides_nothing() -> None:
    assert label(QUIET, (101.5, 100, 101), QUIET).direction.tolist() == [0]


def test_barriers_move_with_the_true_range_and_keep_their_distance_from_costs() -> None:
    assert RULE.distance_pct(2.0) == pytest.approx(2.0)
    assert RULE.distance_pct(0.01) == 0.3
    path = (QUIET, (101.0, 99.9, 100.9), QUIET, QUIET)
    assert label(*path, atr_pct=2.0).gain[0] == pytest.approx(0.1)


@pytest.mark.parametrize("numbers", [(0, 1.0, 1.0), (5, 0.0, 1.0), (5, 1.0, -0.1), (5, float("nan"), 1.0)])
def test_a_rule_without_sense_is_refused(numbers: tuple[int, float, float]) -> None:
    with pytest.raises(InvalidInputError, match="above 0"):
        BarrierRule(*numbers)


def test_labels_do_not_depend_on_what_follows_them() -> None:
    candles = walk(60, start=NOON)
    entries, widths = np.arange(0, 40), np.full(40, 0.4)

    all_known = label_barriers(columns_of(candles), entries, widths, RULE)
    less_known = label_barriers(columns_of(candles[:45]), entries, widths, RULE)

    assert np.array_equal(all_known.direction, less_known.direction)
    assert np.array_equal(all_known.gain, less_known.gain)
