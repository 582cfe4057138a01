"""Gradient-boosted trees by LightGBM, kept as LightGBM's own text and read back without pickle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import lightgbm
import numpy as np

from services.ai_service.domain.features import ATR_PCT_COLUMN
from services.ai_service.domain.forecasts import Forecast
from services.ai_service.domain.windows import Floats
from services.ai_service.models.manifest import ModelManifest
from services.ai_service.ports import ModelCard
from shared.errors import ArtifactError, InvalidInputError

FAMILY = "lightgbm"
MODEL_FILE = "model.txt"


class LightGbmForecaster:
    """A trained LightGBM classifier with its calibration.

    ``Booster.predict`` with one thread takes some 30 microseconds; the scikit-learn wrapper takes a millisecond.
    """

    def __init__(self, booster: lightgbm.Booster, manifest: ModelManifest) -> None:
        self._booster = booster
        self._calibration = manifest.calibration
        self._payoff = manifest.payoff
        self._card = manifest.card

    @property
    def card(self) -> ModelCard:
        return self._card

    def predict(self, features: Floats) -> Forecast:
        """Return the outlook for one feature row; see ``Forecaster.predict``."""
        if features.shape != (len(self._card.feature_names),) or not np.isfinite(features).all():
            raise InvalidInputError(
                f"{self._card.model_id} needs {len(self._card.feature_names)} finite features, was given {features!r}"
            )
        raw = float(self._booster.predict(features.reshape(1, -1), raw_score=True, num_threads=1)[0])
        p_up = self._calibration.probability(raw)
        barrier_pct = self._card.barriers.distance_pct(float(features[ATR_PCT_COLUMN]))
        expected = (p_up * self._payoff.up - (1 - p_up) * self._payoff.down) * barrier_pct
        return Forecast(
            p_up=p_up,
            expected_return_pct=expected,
            strength=self._calibration.strength(raw),
            barrier_pct=barrier_pct,
        )


def load_lightgbm(folder: Path, manifest: ModelManifest) -> LightGbmForecaster:
    """Return the model that ``manifest`` describes.

    Raises:
        ArtifactError: The file is missing, is not the one that was described, or LightGBM cannot read it.
    """
    path = folder / manifest.model_file
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; train a new model") from error
    if (found := hashlib.sha256(text).hexdigest()) != manifest.sha256:
        raise ArtifactError(
            f"{path} has sha256 {found[:12]}.., its manifest says {manifest.sha256[:12]}..: it was changed or damaged; "
            "train a new model"
        )
    try:
        booster = lightgbm.Booster(model_str=text.decode("utf-8"))
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is no LightGBM model: {error}; train a new model") from error
    if booster.num_feature() != len(manifest.feature_names):
        raise ArtifactError(
            f"{path} reads {booster.num_feature()} features, its manifest names {len(manifest.feature_names)}; "
            "train a new model"
        )
    return LightGbmForecaster(booster, manifest)
