"""What the ai-service needs from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.ai_service.domain.forecasts import Forecast, ModelStage
from services.ai_service.domain.labels import BarrierRule
from services.ai_service.domain.windows import Floats
from shared.trading.candles import Candle


class CandleHistory(Protocol):
    """Closed candles of the past."""

    async def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> list[Candle]:
        """Return the closed candles with ``start <= open_time < end``, oldest first.

        Candles that the exchange does not have, has not closed yet, or gives with impossible values are left out.

        Raises:
            ConnectionLostError: The exchange cannot be reached.
            OverloadedError: The exchange's request limit is reached.
            ExchangeError: The exchange refused the question.
        """
        ...


@dataclass(frozen=True, slots=True)
class Restarted:
    """The live stream (re)connected: what happened before must be asked for from the history."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """The live stream sent a candle that cannot be used.

    Attributes:
        symbol: Venue symbol; None when not even that could be read.
        reason: What was wrong with it, one line.
    """

    symbol: str | None
    reason: str


class CandleStream(Protocol):
    """Candles as they close."""

    def arrivals(self) -> AsyncIterator[Candle | Unusable | Restarted]:
        """Yield what arrives, for ever; reconnects by itself. Candles may be missing, doubled or out of order."""
        ...


class FeedCursor(Protocol):
    """Remembers across restarts which candle of each symbol was published last in this run."""

    def load(self) -> Mapping[str, datetime]:
        """Return the open time of the candle published last, by venue symbol."""
        ...

    def save(self, symbol: str, open_time: datetime) -> None:
        """Note that the candle opened at ``open_time`` was published."""
        ...


@dataclass(frozen=True, slots=True)
class DataWindow:
    """The candles of one symbol that a model was made from.

    Attributes:
        start: Open time of the first.
        end: Close time of the last: nothing later was seen.
        candles: How many.
        last_close: Close of the last, USDT; tells one market from another.
    """

    start: datetime
    end: datetime
    candles: int
    last_close: float


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the service must know of a model besides its forecasts.

    Attributes:
        model_id: Names the model across versions, ``lightgbm-1h``.
        family: ``lightgbm``, ``xgboost``, ``nhits`` or ``patchtst``.
        version: Names this training.
        stage: How far it has come.
        timeframe: Length of the candles it reads.
        feature_names: Features in the order of a row.
        feature_schema: Hash of names, order and window.
        barriers: What ``p_up`` is the probability of.
        data: Training data by venue symbol.
        metrics: Figures of the walk-forward validation by name.
    """

    model_id: str
    family: str
    version: str
    stage: ModelStage
    timeframe: str
    feature_names: tuple[str, ...]
    feature_schema: str
    barriers: BarrierRule
    data: Mapping[str, DataWindow]
    metrics: Mapping[str, float]

    @property
    def data_end(self) -> datetime:
        """Close time of the newest candle that the model has seen, directly or through a label."""
        return max(window.end for window in self.data.values())


class Forecaster(Protocol):
    """One trained model. Every family passes the same conformance suite.

    Attributes:
        card: What is known of it.
    """

    @property
    def card(self) -> ModelCard: ...

    def predict(self, features: Floats) -> Forecast:
        """Return the outlook for one feature row in the order of ``card.feature_names``; same row, same answer.

        Raises:
            InvalidInputError: The row has another length, or a value is not finite.
        """
        ...


class ModelStore(Protocol):
    """Keeps trained models."""

    def candidates(self, timeframe: str, symbols: Sequence[str], now: datetime) -> list[Forecaster]:
        """Return the usable models, newest data first.

        Usable: undamaged, made for these features and this timeframe, trained on all of ``symbols``, and on nothing
        later than ``now``. What is left out is logged with its reason.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a training is.

    Attributes:
        stage: What it is doing, for people.
        progress_pct: 0 to 100.
    """

    stage: str
    progress_pct: float


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training made; the model itself is in the store.

    Attributes:
        version: Version of the new model.
        samples: Rows it was trained on.
        accuracy: Share of held-out directions that were right, 0 to 1.
        seconds: How long it took.
    """

    version: str
    samples: int
    accuracy: float
    seconds: float


class ModelTrainer(Protocol):
    """Makes a model from the exchange's own history, outside this process."""

    async def train(self, until: datetime, report: Callable[[TrainingProgress], Awaitable[None]]) -> TrainingResult:
        """Train on candles that closed at or before ``until`` and put the model into the store.

        Raises:
            TransientError: The exchange could not be reached, or the worker was ended.
            PermanentError: There is too little history, or the settings are wrong.
        """
        ...
