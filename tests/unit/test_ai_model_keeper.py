"""Which model is used at the start, and how the first one comes to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from services.ai_service.domain.forecasts import ModelStage
from services.ai_service.domain.labels import BarrierRule
from services.ai_service.handlers.model_keeper import FirstTraining, ModelKeeper
from services.ai_service.handlers.model_shelf import ModelShelf
from services.ai_service.ports import DataWindow, TrainingProgress, TrainingResult
from shared.bus.memory import MemoryBroker, MemoryBus
from shared.clock import ManualClock
from shared.errors import InvalidInputError, QuantumTraderError, TransientError
from shared.events.v3.analytics_os import LearningEventPayload
from shared.ids import SeededIds
from shared.settings import TradingMode
from tests.support.ai_market import (
    BULLISH,
    NOON,
    RULE,
    FixedForecaster,
    MemoryHistory,
    MemoryModelStore,
    published,
    walk,
)
from tests.support.eventually import eventually

CANDLES = walk(100)


def model_until(count: int, version: str = "v1", **card: object) -> FixedForecaster:
    """Return a model that was trained on the first ``count`` candles."""
    last = CANDLES[count - 1]
    data = {"BTCUSDT": DataWindow(CANDLES[0].open_time, last.close_time, count, last.close)}
    return FixedForecaster(BULLISH, **{"version": version, "data": data, **card})  # type: ignore[arg-type]  # by name


class ScriptedTrainer:
    """``ModelTrainer`` that plays what it is told: each entry is an error to raise or a model to make."""

    def __init__(self, store: MemoryModelStore, script: Sequence[QuantumTraderError | FixedForecaster]) -> None:
        self._store = store
        self._script = list(script)
        self.asked: list[datetime] = []

    async def train(self, until: datetime, report: Callable[[TrainingProgress], Awaitable[None]]) -> TrainingResult:
        self.asked.append(until)
        for pct in (1, 2, 3, 50, 52, 99):
            await report(TrainingProgress("fitting", pct))
        outcome = self._script.pop(0)
        if isinstance(outcome, QuantumTraderError):
            raise outcome
        self._store.models.append(outcome)
        return TrainingResult(outcome.card.version, samples=900, accuracy=0.52, seconds=3.0)


@dataclass
class Desk:
    """Keeper, training and everything around them."""

    keeper: ModelKeeper
    first: FirstTraining
    shelf: ModelShelf
    store: MemoryModelStore
    history: MemoryHistory
    trainer: ScriptedTrainer
    broker: MemoryBroker
    wall: ManualClock

    def told(self) -> list[LearningEventPayload]:
        return [event.payload for event in published(self.broker, "learning.event")]

    @property
    def version(self) -> str | None:
        return self.shelf.model.card.version if self.shelf.model else None

    async def finish(self, task: asyncio.Task[None]) -> None:
        def step() -> bool:
            self.wall.advance(1.0)
            return task.done()

        await eventually(step, what="the start")
        await task


@asynccontextmanager
async def desk(
    *models: FixedForecaster,
    script: Sequence[QuantumTraderError | FixedForecaster] = (),
    now: datetime = NOON + timedelta(hours=2),
) -> AsyncIterator[Desk]:
    broker, wall, market = MemoryBroker(), ManualClock(NOON), ManualClock(now)
    bus = MemoryBus(broker, service="ai-service", instance="one", clock=wall, ids=SeededIds(1), market_clock=market)
    store, history, shelf = MemoryModelStore(*models), MemoryHistory(CANDLES), ModelShelf(TradingMode.PAPER)
    trainer = ScriptedTrainer(store, script)
    keeper = ModelKeeper(
        symbols=["BTCUSDT"],
        timeframe="1m",
        barriers=RULE,
        store=store,
        history=history,
        shelf=shelf,
        clock=wall,
        market_clock=market,
    )
    first = FirstTraining(
        model_id="lightgbm-1m",
        model_type="lightgbm",
        keeper=keeper,
        shelf=shelf,
        trainer=trainer,
        bus=bus,
        clock=wall,
        market_clock=market,
    )
    yield Desk(keeper, first, shelf, store, history, trainer, broker, wall)


async def test_the_first_candidate_of_this_market_is_used() -> None:
    async with desk(model_until(80, "new"), model_until(40, "old")) as d:
        await d.keeper.start()
        await d.first.start()

        assert d.version == "new"
        assert d.trainer.asked == []
        assert d.shelf.state == "lightgbm-1m new (bootstrap)"


async def test_a_model_of_another_market_is_left_out() -> None:
    """The synthetic market and a folder of real candles have the same symbols."""
    async with desk(model_until(80, "foreign"), model_until(40, "ours")) as d:
        d.history.known = [*CANDLES[:79], *walk(100, seed=9)[79:]]
        await d.keeper.start()

        assert d.version == "ours"


async def test_a_model_whose_market_is_unknown_here_is_left_out() -> None:
    async with desk(model_until(80)) as d:
        d.history.known = []
        await d.keeper.start()

        assert d.version is None


async def test_a_bootstrap_model_for_other_barriers_is_left_out_and_a_champion_is_not() -> None:
    other = BarrierRule(9, 0.5, 0.3)
    async with desk(model_until(80, barriers=other)) as d:
        await d.keeper.start()
        assert d.version is None
    async with desk(model_until(80, barriers=other, stage=ModelStage.CHAMPION)) as d:
        await d.keeper.start()
        assert d.version == "v1"


async def test_an_exchange_that_is_away_is_waited_for() -> None:
    async with desk(model_until(80)) as d:
        d.history.outages = 3
        starting = asyncio.create_task(d.keeper.start())
        await eventually(lambda: "waiting for the exchange" in d.shelf.state, what="the state")
        await d.finish(starting)

        assert d.version == "v1"


async def test_an_empty_shelf_is_filled_by_a_training_that_tells_its_story() -> None:
    async with desk(script=[model_until(60, "fresh")]) as d:
        await d.keeper.start()
        await d.first.start()

        assert d.version == "fresh"
        told = d.told()
        assert [payload.event_type for payload in told] == [
            "RETRAINING_STARTED",
            "RETRAINING_PROGRESS",
            "RETRAINING_PROGRESS",
            "RETRAINING_PROGRESS",
            "RETRAINING_COMPLETED",
        ]
        assert [payload.progress_pct for payload in told] == [0, 1, 50, 99, 100]
        assert len({payload.job_id for payload in told}) == 1
        assert (told[-1].training_samples, told[-1].new_model_accuracy, told[-1].model_version_after) == (
            900,
            0.52,
            "fresh",
        )
        assert told[-1].stage == "bootstrap"


@pytest.mark.parametrize("error", [TransientError("the exchange is away"), InvalidInputError("too few candles")])
async def test_a_failed_training_is_shown_and_tried_again(error: QuantumTraderError) -> None:
    async with desk(script=[error, error, model_until(60, "third")]) as d:
        await d.keeper.start()
        starting = asyncio.create_task(d.first.start())
        await eventually(lambda: "training failed" in d.shelf.state, what="the state")
        await d.finish(starting)

        assert d.version == "third"
        assert len(d.trainer.asked) == 3


async def test_a_training_whose_model_cannot_be_used_is_no_success() -> None:
    async with desk(script=[model_until(60, barriers=BarrierRule(9, 1, 1)), model_until(60, "good")]) as d:
        await d.keeper.start()
        await d.finish(asyncio.create_task(d.first.start()))

        assert d.version == "good"
        assert len(d.trainer.asked) == 2


async def test_the_progress_stands_in_the_state() -> None:
    async with desk(script=[TransientError("stop here")]) as d:
        states: list[str] = []
        train = d.trainer.train

        async def watched(until: datetime, report: Callable[[TrainingProgress], Awaitable[None]]) -> TrainingResult:
            async def and_note(progress: TrainingProgress) -> None:
                await report(progress)
                states.append(d.shelf.state)

            return await train(until, and_note)

        d.trainer.train = watched  # type: ignore[method-assign]  # an observer around the fake
        starting = asyncio.create_task(d.first.start())
        await eventually(lambda: "training failed" in d.shelf.state, what="the failure")
        starting.cancel()

        assert "training 50 %: fitting" in states
