"""Probabilities that say what was measured, not what the model believes."""

from __future__ import annotations

import numpy as np
import pytest

from services.ai_service.domain.calibration import MIN_SLOPE, Calibration, fit_calibration
from shared.errors import InvalidInputError


def rng(seed: int) -> np.random.Generator:
    """Return a generator of its own for each draw: tests run in any order."""
    return np.random.default_rng(seed)


def outcomes_of(log_odds: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return rng(1).random(len(log_odds)) < 1 / (1 + np.exp(-log_odds))


def test_an_overconfident_model_is_taken_back_to_what_it_knows() -> None:
    truth = rng(2).normal(0, 0.4, 40_000)

    calibration = fit_calibration(truth * 4, outcomes_of(truth))

    assert calibration.slope == pytest.approx(0.25, abs=0.03)
    assert calibration.probability(4 * 0.4) == pytest.approx(1 / (1 + np.exp(-0.4)), abs=0.02)


def test_a_model_without_skill_says_one_half() -> None:
    scores = rng(3).normal(0, 1, 5_000)

    calibration = fit_calibration(scores, rng(4).random(5_000) < 0.5)

    assert calibration.slope <= MIN_SLOPE + 0.05
    assert calibration.probability(1.0) == pytest.approx(0.5, abs=0.03)


def test_a_model_that_is_wrong_more_often_than_not_is_not_turned_round() -> None:
    truth = rng(5).normal(0, 1, 5_000)

    assert fit_calibration(-truth, outcomes_of(truth)).slope == MIN_SLOPE


def test_a_timid_model_is_not_made_bolder() -> None:
    truth = rng(6).normal(0, 1, 5_000)

    assert fit_calibration(truth / 5, outcomes_of(truth)).slope == 1.0


def test_the_drift_of_the_training_weeks_is_not_foretold() -> None:
    scores = rng(7).normal(0.7, 0.5, 5_000)

    calibration = fit_calibration(scores, outcomes_of(scores))

    assert calibration.probability(calibration.centre) == 0.5
    assert calibration.centre == pytest.approx(0.7, abs=0.05)


def test_strength_is_a_rank_among_held_out_scores() -> None:
    calibration = fit_calibration(np.linspace(-1, 1, 2_001), np.arange(2_001) % 2 == 0)

    assert calibration.strength(0.0) == 0.0
    assert calibration.strength(0.5) == pytest.approx(0.5, abs=0.02)
    assert calibration.strength(-0.9) == pytest.approx(0.9, abs=0.02)
    assert calibration.strength(50.0) == 1.0


def test_extreme_scores_stay_probabilities() -> None:
    calibration = Calibration(centre=0.0, slope=1.0, strengths=(0.0, 1.0))

    assert 0 < calibration.probability(-1e9) < 1e-9
    assert 1 - 1e-9 < calibration.probability(1e9) < 1


@pytest.mark.parametrize("count", [0, 3])
def test_scores_without_outcomes_cannot_be_calibrated(count: int) -> None:
    with pytest.raises(InvalidInputError, match="cannot be calibrated"):
        fit_calibration(np.zeros(count), np.zeros(2 if count else 0, dtype=np.bool_))
