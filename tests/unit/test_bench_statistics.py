"""The numbers that a series of measurements comes to."""

from __future__ import annotations

import pytest

from infrastructure.bench.statistics import paired_ratio, percentile, spread
from shared.errors import InvalidInputError


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.25, 1.0), (0.5, 2.0), (0.75, 3.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_percentile_is_the_smallest_value_that_the_share_does_not_exceed(share: float, expected: float) -> None:
    assert percentile([4.0, 2.0, 1.0, 3.0], share) == expected


def test_p99_of_a_thousand_is_the_990th() -> None:
    assert percentile([float(number) for number in range(1, 1001)], 0.99) == 990.0


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 1.5), ([1.0], -0.1)])
def test_percentile_that_does_not_exist_is_refused(values: list[float], share: float) -> None:
    with pytest.raises(InvalidInputError):
        percentile(values, share)


def test_rounds_are_compared_with_their_neighbours_in_time() -> None:
    # The machine became three times slower in the last round, for both.
    assert paired_ratio([50.0, 60.0, 20.0], [100.0, 100.0, 33.0]) == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize(("ours", "rivals"), [([], []), ([1.0], []), ([1.0], [0.0])])
def test_there_is_no_ratio_without_both_sides(ours: list[float], rivals: list[float]) -> None:
    assert paired_ratio(ours, rivals) is None


def test_spread_is_relative_to_the_median() -> None:
    assert spread([90.0, 100.0, 120.0]) == pytest.approx(0.3)


@pytest.mark.parametrize("values", [[], [5.0], [0.0, 0.0]])
def test_there_is_no_spread_of_nothing(values: list[float]) -> None:
    assert spread(values) is None
