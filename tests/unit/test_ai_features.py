"""Feature rows: known values on simple markets, and numbers even where an indicator has none."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from services.ai_service.domain.features import (
    ATR_PCT_COLUMN,
    FEATURE_NAMES,
    FEATURE_SCHEMA,
    WINDOW_CANDLES,
    feature_matrix,
    feature_row,
)
from services.ai_service.domain.windows import CandleColumns, Floats, columns_of
from shared.errors import InvalidInputError
from tests.support.ai_market import walk


def row_by_name(window: CandleColumns) -> dict[str, float]:
    return dict(zip(FEATURE_NAMES, feature_row(window).tolist(), strict=True))


def straight(step: float) -> CandleColumns:
    """A market that goes up by ``step`` percent per candle without ever looking back."""
    closes: Floats = 100.0 * np.float64(1 + step / 100) ** np.arange(1, WINDOW_CANDLES + 1, dtype=np.float64)
    opens: Floats = closes / np.float64(1 + step / 100)
    window = columns_of(walk(WINDOW_CANDLES))
    return dataclasses.replace(
        window, open=opens, high=np.maximum(opens, closes), low=np.minimum(opens, closes), close=closes
    )


def test_a_straight_rise_reads_as_one() -> None:
    row = row_by_name(straight(0.1))

    assert row["rsi_14"] == pytest.approx(1.0)
    assert row["range_position_120"] == pytest.approx(1.0)
    assert row["body_share"] == pytest.approx(1.0)
    assert row["directional_index"] > 0.9
    assert row["atr_pct"] == pytest.approx(0.1, rel=0.05)


def test_a_straight_fall_reads_as_the_opposite() -> None:
    row = row_by_name(straight(-0.1))

    assert row["rsi_14"] == pytest.approx(0.0, abs=1e-9)
    assert row["range_position_30"] == pytest.approx(0.0, abs=1e-9)
    assert row["ema_gap_12"] < 0


def test_a_dead_market_still_gives_numbers() -> None:
    window = columns_of(walk(WINDOW_CANDLES))
    still = np.full(WINDOW_CANDLES, 100.0)

    row = feature_row(
        dataclasses.replace(window, open=still, high=still, low=still, close=still, volume=np.zeros(WINDOW_CANDLES))
    )

    assert np.isfinite(row).all()
    assert row[ATR_PCT_COLUMN] == 0


def test_time_of_day_goes_round() -> None:
    row = row_by_name(columns_of(walk(WINDOW_CANDLES)))

    assert math.hypot(row["hour_sin"], row["hour_cos"]) == pytest.approx(1.0)
    assert math.hypot(row["weekday_sin"], row["weekday_cos"]) == pytest.approx(1.0)


def test_a_window_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="needs 128 candles, was given 127"):
        feature_row(columns_of(walk(WINDOW_CANDLES - 1)))


def test_the_matrix_has_one_row_per_whole_window() -> None:
    assert feature_matrix(columns_of(walk(WINDOW_CANDLES + 4))).shape == (5, len(FEATURE_NAMES))
    assert feature_matrix(columns_of(walk(WINDOW_CANDLES - 1))).shape == (0, len(FEATURE_NAMES))


def test_the_schema_is_the_one_that_stored_models_were_made_for() -> None:
    """Change it only together with what the features mean: every stored model is refused from then on."""
    assert FEATURE_SCHEMA == "1-7c765f731dc3e8c4"
