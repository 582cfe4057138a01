"""One training from start to end: fetch, label, validate, calibrate, fit, save."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import lightgbm

from services.ai_service.domain.features import FEATURE_NAMES, FEATURE_SCHEMA
from services.ai_service.domain.forecasts import ModelStage
from services.ai_service.domain.labels import BarrierRule
from services.ai_service.models.lightgbm_forecaster import FAMILY, MODEL_FILE
from services.ai_service.models.manifest import Barriers, ModelManifest, Payoff, ScoreReading, SymbolData
from services.ai_service.ports import CandleHistory, TrainingProgress
from services.ai_service.training.dataset import build_dataset
from services.ai_service.training.lightgbm_training import TrainedModel, train_lightgbm
from shared.errors import InvalidInputError
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

#: The last candle of a training closes at a multiple of this many candles, so that a run that starts at the same
#: market time a little later asks for the same training, and finds it done.
ALIGNMENT_CANDLES = 60

Report = Callable[[TrainingProgress], None]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Where each stage ends, percent of the whole.
_FETCHED, _FEATURES_DONE, _FITTED = 15.0, 60.0, 98.0


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What to train.

    Attributes:
        symbols: Venue symbols.
        timeframe: Length of the candles.
        barriers: What to foresee.
        candles: Candles per symbol.
        min_candles: Fewest candles per symbol.
        seed: Seed of everything random.
        stage: Stage of the new model.
    """

    symbols: tuple[str, ...]
    timeframe: str
    barriers: BarrierRule
    candles: int
    min_candles: int
    seed: int
    stage: ModelStage = ModelStage.BOOTSTRAP


def training_end(now: datetime, timeframe: str) -> datetime:
    """Return the close time of the last candle that a training at market time ``now`` uses."""
    block = timeframe_duration(timeframe) * ALIGNMENT_CANDLES
    return _EPOCH + block * ((now - _EPOCH) // block)


async def fetch_candles(
    plan: TrainingPlan, history: CandleHistory, until: datetime, report: Report
) -> dict[str, list[Candle]]:
    """Return the candles of every symbol up to ``until``.

    Raises:
        InvalidInputError: The exchange has fewer than ``plan.min_candles`` of a symbol.
        TransientError: The exchange cannot be reached.
    """
    start = until - timeframe_duration(plan.timeframe) * plan.candles
    fetched: dict[str, list[Candle]] = {}
    for number, symbol in enumerate(plan.symbols):
        report(TrainingProgress(f"fetching {symbol}", _FETCHED * number / len(plan.symbols)))
        candles = await history.candles(symbol, plan.timeframe, start, until)
        if len(candles) < plan.min_candles:
            raise InvalidInputError(
                f"the exchange has {len(candles)} {plan.timeframe} candles of {symbol} before {until.isoformat()}, "
                f"a model needs {plan.min_candles}: start later, or lower MIN_TRAINING_CANDLES"
            )
        fetched[symbol] = candles
    return fetched


def train_model(
    plan: TrainingPlan, candles: Mapping[str, Sequence[Candle]], created_at: datetime, report: Report
) -> tuple[ModelManifest, bytes]:
    """Return a trained model: manifest and file; the same plan and candles give the same file.

    Args:
        plan: What to train.
        candles: Candles by symbol, oldest first.
        created_at: Noted in the manifest.
        report: Told about the progress.

    Raises:
        InvalidInputError: There is too little data.
    """

    def features_done(done: int, total: int) -> None:
        report(TrainingProgress("computing features", _FETCHED + (_FEATURES_DONE - _FETCHED) * done / total))

    def fits_done(done: int, total: int) -> None:
        report(TrainingProgress("validating and fitting", _FEATURES_DONE + (_FITTED - _FEATURES_DONE) * done / total))

    data = build_dataset(candles, plan.barriers, features_done)
    report(TrainingProgress("validating and fitting", _FEATURES_DONE))
    trained = train_lightgbm(data, plan.seed, fits_done)
    return _manifest(plan, candles, trained, created_at), trained.text


def _manifest(
    plan: TrainingPlan, candles: Mapping[str, Sequence[Candle]], trained: TrainedModel, created_at: datetime
) -> ModelManifest:
    digest = hashlib.sha256(trained.text).hexdigest()
    data = {
        symbol: SymbolData(
            start=series[0].open_time,
            end=series[-1].close_time,
            candles=len(series),
            last_close=series[-1].close,
        )
        for symbol, series in sorted(candles.items())
    }
    end = max(part.end for part in data.values())
    return ModelManifest(
        model_id=f"{FAMILY}-{plan.timeframe}",
        family=FAMILY,
        version=f"{end:%Y%m%dT%H%M}-{digest[:10]}",
        stage=plan.stage,
        timeframe=plan.timeframe,
        created_at=created_at,
        model_file=MODEL_FILE,
        sha256=digest,
        library=f"lightgbm {lightgbm.__version__}",
        feature_names=FEATURE_NAMES,
        feature_schema=FEATURE_SCHEMA,
        barriers=Barriers(**asdict(plan.barriers)),
        data=data,
        training=dict(trained.parameters),
        samples=trained.samples,
        metrics=dict(trained.metrics),
        scores=ScoreReading(**asdict(trained.calibration)),
        payoff=Payoff(up=trained.payoff_up, down=trained.payoff_down),
    )
