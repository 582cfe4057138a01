"""What every model family must do; a new family adds one line to ``FAMILIES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from services.ai_service.domain.features import ATR_PCT_COLUMN, FEATURE_NAMES, FEATURE_SCHEMA, feature_matrix
from services.ai_service.domain.windows import columns_of
from services.ai_service.models.model_store import FileModelStore
from services.ai_service.ports import Forecaster
from shared.errors import InvalidInputError
from tests.support.ai_market import trained, walk


def _lightgbm(folder: Path) -> Forecaster:
    manifest, text = trained()
    store = FileModelStore(folder)
    store.save(manifest, text)
    return store.candidates("1m", ["BTCUSDT"], manifest.data_end)[0]


FAMILIES: Mapping[str, Callable[[Path], Forecaster]] = {"lightgbm": _lightgbm}

ROWS = feature_matrix(columns_of(walk(200, seed=9, memory=0.5)))


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Forecaster:
    return FAMILIES[request.param](tmp_path)


def test_the_card_fits_this_code(model: Forecaster) -> None:
    assert model.card.feature_names == FEATURE_NAMES
    assert model.card.feature_schema == FEATURE_SCHEMA
    assert model.card.model_id == f"{model.card.family}-{model.card.timeframe}"


def test_forecasts_lie_in_their_ranges(model: Forecaster) -> None:
    for row in ROWS:
        forecast = model.predict(row)
        assert 0 < forecast.p_up < 1
        assert 0 <= forecast.strength <= 1
        assert forecast.barrier_pct == model.card.barriers.distance_pct(float(row[ATR_PCT_COLUMN]))
        assert abs(forecast.expected_return_pct) <= forecast.barrier_pct


def test_the_same_row_gives_the_same_forecast(model: Forecaster) -> None:
    assert [model.predict(row) for row in ROWS] == [model.predict(row.copy()) for row in ROWS]


def test_predicting_changes_neither_model_nor_row(model: Forecaster) -> None:
    row = ROWS[0].copy()
    first = model.predict(row)

    for other in ROWS[1:]:
        model.predict(other)

    assert np.array_equal(row, ROWS[0])
    assert model.predict(row) == first


def test_different_markets_give_different_forecasts(model: Forecaster) -> None:
    assert len({model.predict(row).p_up for row in ROWS}) > 10


def test_a_second_copy_from_disk_speaks_alike(model: Forecaster, tmp_path: Path) -> None:
    copy = FAMILIES[model.card.family](tmp_path / "again")

    assert [copy.predict(row) for row in ROWS] == [model.predict(row) for row in ROWS]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(model: Forecaster, value: float) -> None:
    row = ROWS[0].copy()
    row[3] = value

    with pytest.raises(InvalidInputError, match="finite features"):
        model.predict(row)


def test_a_row_of_another_length_is_refused(model: Forecaster) -> None:
    with pytest.raises(InvalidInputError, match=f"needs {len(FEATURE_NAMES)} finite features"):
        model.predict(ROWS[0][:-1])
