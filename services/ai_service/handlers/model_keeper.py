"""Finds a usable model at the start, and has one trained when there is none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog

from services.ai_service.domain.forecasts import ModelStage
from services.ai_service.domain.labels import BarrierRule
from services.ai_service.handlers.model_shelf import ModelShelf
from services.ai_service.ports import (
    CandleHistory,
    DataWindow,
    ModelCard,
    ModelStore,
    ModelTrainer,
    TrainingProgress,
    TrainingResult,
)
from shared.backoff import Backoff
from shared.bus.event_bus import EventBus
from shared.clock import Clock
from shared.errors import PermanentError, QuantumTraderError, TransientError
from shared.events.v3.analytics_os import LearningEventPayload
from shared.ids import derive_id
from shared.telemetry.trading_log import trading_log
from shared.trading.instruments import timeframe_duration

log = structlog.get_logger(__name__)

_RETRY = Backoff(base_seconds=1.0, factor=2.0, cap_seconds=30.0)
#: A training that cannot succeed with this history may succeed with the candles of tomorrow.
_RETRY_HOPELESS = Backoff(base_seconds=15.0, factor=2.0, cap_seconds=300.0)
#: Progress is published in steps of at least this many percent.
_PROGRESS_STEP_PCT = 5.0


class ModelKeeper:
    """Puts the newest usable model on the shelf; a component that starts before events are consumed.

    Attributes:
        name: Component name.
    """

    name = "models"

    def __init__(
        self,
        *,
        symbols: Sequence[str],
        timeframe: str,
        barriers: BarrierRule,
        store: ModelStore,
        history: CandleHistory,
        shelf: ModelShelf,
        clock: Clock,
        market_clock: Clock,
    ) -> None:
        """Prepare.

        Args:
            symbols: Symbols that a model must know.
            timeframe: Candles that it must read.
            barriers: What a bootstrap model must foresee; a champion keeps what it was promoted with.
            store: Where models are.
            history: Tells whether a model comes from this market.
            shelf: Where the model goes.
            clock: Wall clock of retries.
            market_clock: A model that has seen later candles is refused.
        """
        self._symbols = tuple(symbols)
        self._timeframe = timeframe
        self._barriers = barriers
        self._store = store
        self._history = history
        self._shelf = shelf
        self._clock = clock
        self._market_clock = market_clock

    async def start(self) -> None:
        """Load the newest usable model, if there is one; wait for the exchange when it must be asked and is away."""
        failures = 0
        while True:
            try:
                await self.load()
                return
            except TransientError as error:
                failures += 1
                self._shelf.state = f"waiting for the exchange: {error}"
                log.warning("model_check_delayed", error=str(error))
                await self._clock.sleep(_RETRY.delay(failures))

    async def stop(self) -> None:
        """Nothing to release."""

    async def load(self) -> bool:
        """Put the newest usable model on the shelf and return whether there was one.

        Raises:
            TransientError: The exchange cannot be asked whether a model comes from its market.
        """
        for model in self._store.candidates(self._timeframe, self._symbols, self._market_clock.now()):
            reason = await self._misfit(model.card)
            if reason is None:
                self._shelf.put(model)
                _tell(model.card)
                return True
            log.info("model_left_out", model=model.card.model_id, version=model.card.version, reason=reason)
        self._shelf.state = "no usable model yet"
        return False

    async def _misfit(self, card: ModelCard) -> str | None:
        if card.stage is ModelStage.BOOTSTRAP and card.barriers != self._barriers:
            return f"it foresees {card.barriers}, {self._barriers} is configured"
        for symbol in self._symbols:
            if not await self._is_same_market(symbol, card.data[symbol]):
                return f"its candles of {symbol} are not those of this exchange: it comes from another market"
        return None

    async def _is_same_market(self, symbol: str, data: DataWindow) -> bool:
        """Compare the newest close that the model was trained on: synthetic and real markets share their symbols."""
        start = data.end - timeframe_duration(self._timeframe)
        found = await self._history.candles(symbol, self._timeframe, start, data.end)
        return bool(found) and found[-1].close == data.last_close


def _tell(card: ModelCard) -> None:
    trading_log.model_loaded(
        model_id=card.model_id,
        model_type=card.family,
        version=card.version,
        stage=card.stage.value,
        figures=card.metrics,
    )


class FirstTraining:
    """Has a model trained when the shelf is empty; the service is ready when this component has started.

    Attributes:
        name: Component name.
    """

    name = "first-training"

    def __init__(
        self,
        *,
        model_id: str,
        model_type: str,
        keeper: ModelKeeper,
        shelf: ModelShelf,
        trainer: ModelTrainer,
        bus: EventBus,
        clock: Clock,
        market_clock: Clock,
    ) -> None:
        """Prepare.

        Args:
            model_id: Names the model in ``learning.event``.
            model_type: Its family.
            keeper: Loads what was trained.
            shelf: Says whether a model is needed; shows the progress.
            trainer: Does the work.
            bus: Where ``learning.event`` goes.
            clock: Wall clock of retries.
            market_clock: The training sees nothing later than this.
        """
        self._model_id = model_id
        self._model_type = model_type
        self._keeper = keeper
        self._shelf = shelf
        self._trainer = trainer
        self._bus = bus
        self._clock = clock
        self._market_clock = market_clock

    async def start(self) -> None:
        """Train until there is a model; tries again, with growing pauses, for as long as it takes."""
        failures = 0
        while self._shelf.model is None:
            try:
                await self._train()
            except QuantumTraderError as error:
                failures += 1
                self._shelf.state = f"training failed: {error}"
                log.error("training_failed", error=str(error))
                pause = _RETRY_HOPELESS if isinstance(error, PermanentError) else _RETRY
                await self._clock.sleep(pause.delay(failures))

    async def stop(self) -> None:
        """Nothing to release: a training ends with the task that waits for it."""

    async def _train(self) -> None:
        until = self._market_clock.now()
        told = _Telling(self._bus, self._model_id, self._model_type, derive_id("training", self._model_id, str(until)))
        await told.started()

        async def report(progress: TrainingProgress) -> None:
            self._shelf.state = f"training {progress.progress_pct:.0f} %: {progress.stage}"
            await told.progress(progress)

        result = await self._trainer.train(until, report)
        if not await self._keeper.load():
            raise TransientError(f"the model {result.version} that was just trained is not usable")
        await told.completed(result, self._clock.now())


class _Telling:
    """Publishes the story of one training as ``learning.event``."""

    def __init__(self, bus: EventBus, model_id: str, model_type: str, job_id: str) -> None:
        self._bus = bus
        self._common = {"model_id": model_id, "model_type": model_type, "job_id": job_id}
        self._last_pct = -100.0

    async def started(self) -> None:
        await self._publish(event_type="RETRAINING_STARTED", progress_pct=0.0, stage="first training")

    async def progress(self, progress: TrainingProgress) -> None:
        if progress.progress_pct - self._last_pct < _PROGRESS_STEP_PCT:
            return
        self._last_pct = progress.progress_pct
        await self._publish(event_type="RETRAINING_PROGRESS", progress_pct=progress.progress_pct, stage=progress.stage)

    async def completed(self, result: TrainingResult, now: datetime) -> None:
        await self._publish(
            event_type="RETRAINING_COMPLETED",
            progress_pct=100.0,
            stage=ModelStage.BOOTSTRAP.value,
            training_samples=result.samples,
            training_duration_seconds=result.seconds,
            new_model_accuracy=result.accuracy,
            model_version_after=result.version,
            deployment_timestamp=now,
        )

    async def _publish(self, **fields: object) -> None:
        try:
            await self._bus.publish("learning.event", LearningEventPayload.model_validate({**self._common, **fields}))
        except TransientError as error:  # news of the training is not worth failing it
            log.warning("learning_event_lost", error=str(error))
