"""What every feature must obey: no look-ahead, one value in training and serving, no unit of money."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ai_service.domain.features import WINDOW_CANDLES, feature_matrix, feature_row
from services.ai_service.domain.windows import CandleColumns, RollingWindow, columns_of
from tests.support.ai_market import walk

seeds = st.integers(0, 10_000)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(1, 40), st.floats(0.5, 2.0))
def test_later_candles_change_nothing(seed: int, later: int, factor: float) -> None:
    candles = walk(WINDOW_CANDLES + 40, seed=seed)
    known = len(candles) - later
    other_future = [
        dataclasses.replace(
            candle, **{name: getattr(candle, name) * factor for name in ("open", "high", "low", "close")}
        )
        for candle in candles[known:]
    ]

    before = feature_matrix(columns_of(candles))
    after = feature_matrix(columns_of([*candles[:known], *other_future]))

    rows_known = known - WINDOW_CANDLES + 1
    assert np.array_equal(before[:rows_known], after[:rows_known])


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(0, 60))
def test_training_and_serving_see_the_same_numbers_bit_for_bit(seed: int, candles_before: int) -> None:
    """Training slides over a whole series, serving keeps a ring; a service may have started at any candle."""
    candles = walk(WINDOW_CANDLES + 90, seed=seed)
    in_training = feature_matrix(columns_of(candles))
    ring = RollingWindow("1m", WINDOW_CANDLES + 7)

    for index, candle in enumerate(candles[candles_before:], start=candles_before):
        ring.add(candle)
        window = ring.ending_at(candle.open_time, WINDOW_CANDLES)
        if window is not None:
            assert np.array_equal(feature_row(window), in_training[index - WINDOW_CANDLES + 1])


def scaled(window: CandleColumns, price: float, volume: float) -> CandleColumns:
    columns = {name: getattr(window, name) * price for name in ("open", "high", "low", "close")}
    return dataclasses.replace(window, **columns, volume=window.volume * volume)


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(1e-3, 1e3), st.floats(1e-2, 1e2))
def test_features_know_no_unit(seed: int, price: float, volume: float) -> None:
    window = columns_of(walk(WINDOW_CANDLES, seed=seed))

    assert np.allclose(feature_row(window), feature_row(scaled(window, price, volume)), rtol=1e-6, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.01, 1e6), min_size=WINDOW_CANDLES, max_size=WINDOW_CANDLES),
    st.lists(st.floats(0, 1e9), min_size=WINDOW_CANDLES, max_size=WINDOW_CANDLES),
)
def test_any_market_gives_finite_numbers(closes: list[float], volumes: list[float]) -> None:
    window = columns_of(walk(WINDOW_CANDLES))
    close = np.array(closes)
    opens = np.concatenate([close[:1], close[:-1]])

    row = feature_row(
        dataclasses.replace(
            window,
            open=opens,
            high=np.maximum(opens, close),
            low=np.minimum(opens, close),
            close=close,
            volume=np.array(volumes),
        )
    )

    assert np.isfinite(row).all()
