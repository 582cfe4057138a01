"""The file beside every model: what it is, what it saw, how well it did, and how to read its scores."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.ai_service.domain.calibration import Calibration
from services.ai_service.domain.features import FEATURE_NAMES, FEATURE_SCHEMA
from services.ai_service.domain.forecasts import ModelStage
from services.ai_service.domain.labels import BarrierRule
from services.ai_service.ports import DataWindow, ModelCard
from shared.errors import ArtifactError

MANIFEST_FILE = "manifest.json"


def _ascending(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) < 2 or any(later < earlier for earlier, later in itertools.pairwise(values)):
        raise ValueError("must hold at least two numbers in ascending order")
    return values


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class SymbolData(_Part):
    """Training data of one symbol; see ``DataWindow``."""

    start: AwareDatetime
    end: AwareDatetime
    candles: int = Field(ge=1)
    last_close: float = Field(gt=0)


class Barriers(_Part):
    """What was labelled; see ``BarrierRule``."""

    horizon_candles: int = Field(ge=1)
    range_multiple: float = Field(gt=0)
    min_distance_pct: float = Field(gt=0)


class ScoreReading(_Part):
    """How raw scores are read; see ``Calibration``."""

    centre: float
    slope: float = Field(gt=0)
    strengths: Annotated[tuple[float, ...], AfterValidator(_ascending)]


class Payoff(_Part):
    """Mean price change after a rise and after a fall, both above 0, in units of the barrier distance."""

    up: float = Field(gt=0, le=1)
    down: float = Field(gt=0, le=1)


class ModelManifest(_Part):
    """All that is known of one trained model; the model itself is ``model_file``."""

    model_id: str = Field(min_length=1)
    family: str = Field(min_length=1)
    version: str = Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")
    stage: ModelStage
    timeframe: str
    created_at: AwareDatetime
    model_file: str = Field(pattern=r"^[A-Za-z0-9._-]{1,80}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    library: str
    feature_names: tuple[str, ...]
    feature_schema: str
    barriers: Barriers
    data: dict[str, SymbolData] = Field(min_length=1)
    training: dict[str, float | int | str]
    samples: int = Field(ge=1)
    metrics: dict[str, float]
    scores: ScoreReading
    payoff: Payoff

    @property
    def card(self) -> ModelCard:
        """What the service must know of the model."""
        return ModelCard(
            model_id=self.model_id,
            family=self.family,
            version=self.version,
            stage=self.stage,
            timeframe=self.timeframe,
            feature_names=self.feature_names,
            feature_schema=self.feature_schema,
            barriers=BarrierRule(**self.barriers.model_dump()),
            data={symbol: DataWindow(**part.model_dump()) for symbol, part in self.data.items()},
            metrics=dict(self.metrics),
        )

    @property
    def calibration(self) -> Calibration:
        """How the model's raw scores are read."""
        return Calibration(self.scores.centre, self.scores.slope, self.scores.strengths)

    @property
    def data_end(self) -> datetime:
        """Close time of the newest candle that the model has seen."""
        return max(part.end for part in self.data.values())


def read_manifest(folder: Path) -> ModelManifest:
    """Return the manifest in ``folder``.

    Raises:
        ArtifactError: It is missing or malformed, or the model was made for other features than this code computes.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = ModelManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}; train a new model") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{path} is no manifest: {where or 'file'}: {first['msg']}; train a new model") from error
    if manifest.feature_schema != FEATURE_SCHEMA or manifest.feature_names != FEATURE_NAMES:
        raise ArtifactError(
            f"{path} was made for feature schema {manifest.feature_schema}, this code computes {FEATURE_SCHEMA}; "
            "train a new model"
        )
    return manifest
