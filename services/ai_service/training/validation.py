"""How well a model does on data that it has not seen, nor its labels: purged walk-forward, and the figures."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.ai_service.domain.windows import Floats
from services.ai_service.training.dataset import Dataset
from shared.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Split:
    """Row numbers of one fold; every label of ``train`` is decided before the first row of ``test`` begins."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def walk_forward(data: Dataset, folds: int) -> list[Split]:
    """Return ``folds`` expanding splits: of ``folds + 1`` equal parts of the time each but the first is tested once.

    Training always lies before the test, so purging the labels that reach into it is all the separation that is
    needed: a feature row looks back, never ahead.

    Raises:
        InvalidInputError: There is too little data for that many folds.
    """
    start, end = int(data.opened_ms[0]), int(data.opened_ms[-1]) + 1
    edges = np.linspace(start, end, folds + 2)[1:]
    splits = []
    for begin, stop in itertools.pairwise(edges):
        test = np.flatnonzero((data.opened_ms >= begin) & (data.opened_ms < stop))
        train = np.flatnonzero((data.opened_ms < begin) & (data.decided_ms < begin))
        if len(test) == 0 or len(train) == 0:
            raise InvalidInputError(f"{len(data)} rows are too few for {folds} folds: give a longer history")
        splits.append(Split(train, test))
    return splits


def area_under_curve(scores: Floats, outcomes: NDArray[np.bool_]) -> float:
    """Return the chance that a random rise scored above a random fall (AUC); 0.5 where one of them is missing."""
    rises = int(outcomes.sum())
    falls = len(outcomes) - rises
    if rises == 0 or falls == 0:
        return 0.5
    ranks = _mean_ranks(scores)
    return float((ranks[outcomes].sum() - rises * (rises + 1) / 2) / (rises * falls))


def _mean_ranks(scores: Floats) -> Floats:
    """Return the ranks 1, 2, ..; equal scores share the mean of theirs."""
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    ranks: Floats = (ends - (sizes - 1) / 2)[group]
    return ranks


def log_loss(probabilities: Floats, outcomes: NDArray[np.bool_]) -> float:
    """Return the mean negative log likelihood; ln 2 = 0.6931 is a coin."""
    safe = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return float(-np.where(outcomes, np.log(safe), np.log(1 - safe)).mean())
