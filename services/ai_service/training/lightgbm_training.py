"""Trains, validates and calibrates one LightGBM model; the same data gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import lightgbm
import numpy as np

from services.ai_service.domain.calibration import Calibration, fit_calibration
from services.ai_service.domain.features import FEATURE_NAMES
from services.ai_service.domain.windows import Floats
from services.ai_service.training.dataset import Dataset
from services.ai_service.training.validation import area_under_curve, log_loss, walk_forward

FOLDS = 4

#: Small trees, strongly regularised: what these features say about the next minutes is little, and what more leaves
#: find in the training weeks is not there in the next. One thread, because a run must be repeatable bit for bit and
#: must leave the other core to the services.
PARAMETERS: Mapping[str, float | int | str] = MappingProxyType(
    {
        "objective": "binary",
        "learning_rate": 0.03,
        "num_leaves": 8,
        "lambda_l2": 20.0,
        "feature_fraction": 0.4,
        "bagging_fraction": 0.5,
        "bagging_freq": 1,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }
)
ROUNDS = 100
#: A leaf holds at least this share of the rows.
_LEAF_SHARE = 1 / 60
_SMALLEST_LEAF = 20


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a training made.

    Attributes:
        text: LightGBM's own text, UTF-8.
        parameters: What it was trained with.
        calibration: Fitted on all held-out forecasts.
        metrics: Figures on held-out rows; see ``_metrics``.
        payoff_up: Mean rise after a label up, in barrier distances; likewise ``payoff_down`` for falls.
        samples: Rows of the final training.
    """

    text: bytes
    parameters: Mapping[str, float | int | str]
    calibration: Calibration
    metrics: Mapping[str, float]
    payoff_up: float
    payoff_down: float
    samples: int


def train_lightgbm(
    data: Dataset, seed: int, report: Callable[[int, int], None] = lambda done, total: None
) -> TrainedModel:
    """Validate on ``FOLDS`` held-out spans, calibrate on their forecasts, then train on everything.

    Args:
        data: Labelled rows in order of time.
        seed: Seed of bagging and feature choice.
        report: Told after each of the ``FOLDS + 1`` fits.

    Raises:
        InvalidInputError: There is too little data for the folds.
    """
    held_out: list[tuple[Floats, Dataset]] = []
    for number, split in enumerate(walk_forward(data, FOLDS), start=1):
        booster = _fit(data.rows(split.train), seed)
        test = data.rows(split.test)
        held_out.append((_raw_scores(booster, test), test))
        report(number, FOLDS + 1)
    booster = _fit(data, seed)
    report(FOLDS + 1, FOLDS + 1)
    return TrainedModel(
        text=booster.model_to_string().encode("utf-8"),
        parameters=_parameters(data, seed),
        calibration=_calibrate(held_out),
        metrics=_metrics(held_out, data),
        payoff_up=_mean_gain(data.gain[data.went_up]),
        payoff_down=_mean_gain(-data.gain[~data.went_up]),
        samples=len(data),
    )


def _parameters(data: Dataset, seed: int) -> dict[str, float | int | str]:
    leaf = max(_SMALLEST_LEAF, round(len(data) * _LEAF_SHARE))
    return {**PARAMETERS, "min_data_in_leaf": leaf, "seed": seed}


def _fit(data: Dataset, seed: int) -> lightgbm.Booster:
    parameters = _parameters(data, seed)
    rows = lightgbm.Dataset(
        data.features,
        label=data.went_up.astype(np.float64),
        weight=data.weight,
        feature_name=list(FEATURE_NAMES),
        params=parameters,
    )
    return lightgbm.train(parameters, rows, num_boost_round=ROUNDS)


def _raw_scores(booster: lightgbm.Booster, data: Dataset) -> Floats:
    scores: Floats = booster.predict(data.features, raw_score=True, num_threads=1)
    return scores


def _calibrate(held_out: list[tuple[Floats, Dataset]]) -> Calibration:
    return fit_calibration(
        np.concatenate([scores for scores, _ in held_out]), np.concatenate([test.went_up for _, test in held_out])
    )


def _metrics(held_out: list[tuple[Floats, Dataset]], data: Dataset) -> dict[str, float]:
    """Return the figures of the folds.

    ``auc``, ``auc_worst`` and ``accuracy`` are means over the folds (the worst one). The log losses are those of the
    last fold, read with the calibration of the folds before it, beside the loss of always saying the share of rises
    that was seen before. Below the baseline, the model knows something; above, it does not.
    """
    areas = [area_under_curve(scores, test.went_up) for scores, test in held_out]
    earlier = _calibrate(held_out[:-1])
    scores, last = held_out[-1]
    share_up = float(np.concatenate([test.went_up for _, test in held_out[:-1]]).mean())
    calibrated = np.array([earlier.probability(float(score)) for score in scores])
    return {
        "auc": float(np.mean(areas)),
        "auc_worst": min(areas),
        "accuracy": float(np.mean([((part > earlier.centre) == test.went_up).mean() for part, test in held_out])),
        "log_loss": log_loss(calibrated, last.went_up),
        "log_loss_raw": log_loss(1 / (1 + np.exp(-scores)), last.went_up),
        "log_loss_baseline": log_loss(np.full(len(last), share_up), last.went_up),
        "share_up": float(data.went_up.mean()),
        "held_out_rows": float(sum(len(test) for _, test in held_out)),
    }


def _mean_gain(gains: Floats) -> float:
    return min(1.0, max(1e-6, float(gains.mean()))) if len(gains) else 1e-6
