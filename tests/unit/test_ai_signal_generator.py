"""From candle to signal over a real in-memory bus: what is published, under which ids, and when nothing is."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from services.ai_service.app import AiService, assemble
from services.ai_service.domain.candle_events import candle_closed, candle_event_id, candle_trace_id
from services.ai_service.domain.features import FEATURE_NAMES, FEATURE_SCHEMA, WINDOW_CANDLES, feature_matrix
from services.ai_service.domain.forecasts import ModelStage
from services.ai_service.domain.windows import columns_of
from services.ai_service.ports import Forecaster
from shared.bus.memory import MEMORY_OPTIONS, MemoryBroker, MemoryBus
from shared.clock import ManualClock
from shared.errors import RpcError
from shared.events.envelope import Event
from shared.ids import SeededIds
from shared.policy.changes import PolicyChange
from shared.policy.memory_store import MemoryPolicyStore
from shared.rpc.commands import GetSignalRequest
from shared.settings import TradingMode
from shared.telemetry.metrics import Metrics
from shared.trading.candles import Candle
from shared.trading.policy import RiskMode
from tests.support.ai_market import (
    BULLISH,
    FixedForecaster,
    MemoryHistory,
    MemoryModelStore,
    ai_settings,
    published,
    trained_forecaster,
    walk,
)

CANDLES = walk(400, seed=2, memory=0.5)
FIRST = 200


@dataclass
class Desk:
    """The assembled service on a memory bus."""

    service: AiService
    broker: MemoryBroker
    bus: MemoryBus
    history: MemoryHistory
    policy: MemoryPolicyStore
    market: ManualClock
    metrics: Metrics

    async def deliver(self, *candles: Candle) -> None:
        for candle in candles:
            self.market.advance_to(candle.close_time)
            event_id = candle_event_id("test", candle)
            await self.bus.publish(
                "candle.closed", candle_closed(candle, "test"), event_id=event_id, trace_id=candle_trace_id(event_id)
            )
            await self.broker.settled()

    def out(self, event_type: str) -> list[Event[Any]]:
        return published(self.broker, event_type)


@asynccontextmanager
async def desk(model: Forecaster | None = None, **settings: Any) -> AsyncIterator[Desk]:
    broker, wall = MemoryBroker(), ManualClock(CANDLES[0].open_time)
    market = ManualClock(CANDLES[FIRST].open_time)
    bus = MemoryBus(
        broker,
        service="ai-service",
        instance="one",
        clock=wall,
        ids=SeededIds(1),
        market_clock=market,
        # What is tested is that the handlers bear repetition, so the bus must let it through.
        options=replace(MEMORY_OPTIONS, remember_handled=0),
    )
    history, policy, metrics = MemoryHistory(CANDLES), MemoryPolicyStore(wall), Metrics("ai-service", wall)
    service = assemble(
        settings=ai_settings(**settings),
        bus=bus,
        rpc=None,
        policy=policy,
        history=history,
        models=MemoryModelStore(),
        clock=wall,
        market_clock=market,
        metrics=metrics,
    )
    if model is not None:
        service.shelf.put(model)
    await policy.start()
    await bus.start()
    try:
        yield Desk(service, broker, bus, history, policy, market, metrics)
    finally:
        await bus.stop()


async def test_a_candle_becomes_a_prediction_a_reasoning_and_a_signal_in_one_trace() -> None:
    async with desk(FixedForecaster(BULLISH)) as d:
        await d.deliver(CANDLES[FIRST])

        candle_id = candle_event_id("test", CANDLES[FIRST])
        [prediction], [reasoning], [signal] = (
            d.out(name) for name in ("model.prediction", "rl.decision", "signal.generated")
        )
        for event in (prediction, reasoning, signal):
            assert event.metadata.trace_id == candle_trace_id(candle_id)
            assert event.metadata.causation_id == candle_id
            assert event.payload.symbol == "BTCUSDT"
        assert prediction.metadata.sequence < reasoning.metadata.sequence < signal.metadata.sequence
        assert (
            d.metrics.registry.get_sample_value("predictions_total", {"service": "ai-service", "model": "lightgbm-1m"})
            == 1
        )


async def test_the_signal_says_all_that_execution_needs() -> None:
    candle = CANDLES[FIRST]
    async with desk(FixedForecaster(BULLISH)) as d:
        await d.deliver(candle)

        signal = d.out("signal.generated")[0].payload
        reasoning = d.out("rl.decision")[0].payload
        assert (signal.action, signal.confidence, signal.score) == ("BUY", 0.9, 0.99)
        assert (signal.price, signal.volume, signal.timeframe) == (candle.close, candle.volume, "1m")
        assert (signal.suggested_size_usd, signal.suggested_leverage) == (1000, 5)
        assert signal.expires_at == candle.close_time + timedelta(seconds=60)
        assert signal.signal_id == d.out("signal.generated")[0].metadata.event_id == reasoning.signal_id
        assert (signal.model_source, signal.models_voted, signal.ensemble_agreement) == (
            "lightgbm",
            ("lightgbm",),
            None,
        )
        assert signal.metadata["stop_loss_pct"] == signal.metadata["take_profit_pct"] == 1.0
        assert signal.metadata["candle_close_time"] == candle.close_time.isoformat()
        assert (reasoning.recommended_size_usd, reasoning.stop_loss_pct) == (1000, 1.0)
        assert reasoning.decision_type == "position_sizing"


async def test_the_prediction_carries_its_features_for_later_judgement() -> None:
    async with desk(trained_forecaster()) as d:
        await d.deliver(CANDLES[FIRST])

        prediction = d.out("model.prediction")[0].payload
        expected = feature_matrix(columns_of(CANDLES[FIRST - WINDOW_CANDLES + 1 : FIRST + 1]))[0]
        assert prediction.features == tuple(expected)
        assert (prediction.feature_count, prediction.feature_schema) == (len(FEATURE_NAMES), FEATURE_SCHEMA)
        assert prediction.prediction.p_up + prediction.prediction.p_down == pytest.approx(1)
        assert prediction.horizon_candles == 5


async def test_a_hold_is_published_without_size_exits_or_reasoning() -> None:
    async with desk(FixedForecaster(dataclasses.replace(BULLISH, strength=0.1))) as d:
        await d.deliver(CANDLES[FIRST])

        signal = d.out("signal.generated")[0].payload
        assert (signal.action, signal.suggested_size_usd) == ("HOLD", None)
        assert "stop_loss_pct" not in signal.metadata
        assert signal.metadata["reason"] == "strength 0.10 below 0.20"
        assert d.out("rl.decision") == []


async def test_a_candle_that_is_delivered_again_repeats_the_same_events() -> None:
    async with desk(trained_forecaster()) as d:
        await d.deliver(*CANDLES[FIRST : FIRST + 5])
        before = {event.metadata.event_id: event.payload for event in d.out("signal.generated")}
        await d.deliver(CANDLES[FIRST + 1], CANDLES[FIRST + 4])

        again = d.out("signal.generated")[5:]
        assert len(again) == 2
        for event in again:
            assert before[event.metadata.event_id] == event.payload
        assert len({event.metadata.event_id for event in d.out("model.prediction")}) == 5


async def test_a_service_that_starts_in_the_middle_says_the_same() -> None:
    """Windows are fetched, grown, or found in the middle of a longer one: the signals must not show which."""
    async with desk(trained_forecaster()) as whole, desk(trained_forecaster()) as late:
        await whole.deliver(*CANDLES[FIRST : FIRST + 150])
        await late.deliver(*CANDLES[FIRST + 140 : FIRST + 150], CANDLES[FIRST + 5])

        said = {event.metadata.event_id: event.payload for event in whole.out("signal.generated")}
        assert len(said) == 150
        for event in late.out("signal.generated"):
            assert said[event.metadata.event_id] == event.payload


async def test_candles_that_were_missed_are_fetched_for_the_window() -> None:
    async with desk(trained_forecaster()) as d, desk(trained_forecaster()) as other:
        await d.deliver(CANDLES[FIRST], CANDLES[FIRST + 3])
        await other.deliver(*CANDLES[FIRST : FIRST + 4])

        assert len(d.history.asked) == 2
        assert d.out("signal.generated")[1].payload == other.out("signal.generated")[3].payload


async def test_the_history_is_asked_once_and_then_only_listened_for() -> None:
    async with desk(trained_forecaster()) as d:
        await d.deliver(*CANDLES[FIRST : FIRST + 20])

        assert len(d.history.asked) == 1
        assert len(d.out("signal.generated")) == 20


async def test_too_short_a_history_gives_no_signal() -> None:
    async with desk(FixedForecaster(BULLISH)) as d:
        await d.deliver(CANDLES[50])

        assert d.out("signal.generated") == []
        assert d.broker.dead_letters("ai-service") == []


async def test_an_exchange_that_is_away_delays_the_signal_and_loses_nothing() -> None:
    async with desk(FixedForecaster(BULLISH)) as d:
        d.history.outages = 2
        await d.deliver(CANDLES[FIRST])

        assert len(d.out("signal.generated")) == 1
        assert d.broker.dead_letters("ai-service") == []


async def test_without_a_model_the_service_is_silent() -> None:
    async with desk() as d:
        await d.deliver(CANDLES[FIRST])

        assert d.out("signal.generated") == d.out("model.prediction") == []


@pytest.mark.parametrize(
    ("stage", "mode", "speaks"),
    [
        (ModelStage.BOOTSTRAP, TradingMode.PAPER, True),
        (ModelStage.BOOTSTRAP, TradingMode.TESTNET, False),
        (ModelStage.BOOTSTRAP, TradingMode.LIVE, False),
        (ModelStage.CHAMPION, TradingMode.TESTNET, True),
        (ModelStage.CHAMPION, TradingMode.LIVE, True),
    ],
)
async def test_a_bootstrap_model_speaks_on_paper_only(stage: ModelStage, mode: TradingMode, speaks: bool) -> None:
    model = FixedForecaster(BULLISH, stage=stage)
    async with desk(model, trading_mode=mode, qt_live_confirm="I-understand") as d:
        await d.deliver(CANDLES[FIRST])

        assert len(d.out("signal.generated")) == speaks
        assert ("silent" in d.service.shelf.state) is not speaks


async def test_a_champion_does_not_explore() -> None:
    coin = dataclasses.replace(BULLISH, p_up=0.51, expected_return_pct=0.01)
    async with desk(FixedForecaster(coin, stage=ModelStage.CHAMPION)) as d, desk(FixedForecaster(coin)) as trial:
        await d.deliver(CANDLES[FIRST])
        await trial.deliver(CANDLES[FIRST])

        assert d.out("signal.generated")[0].payload.action == "HOLD"
        assert trial.out("signal.generated")[0].payload.suggested_size_usd == 300


async def test_other_symbols_and_timeframes_are_left_alone() -> None:
    async with desk(FixedForecaster(BULLISH)) as d:
        await d.deliver(
            dataclasses.replace(CANDLES[FIRST], symbol="DOGEUSDT"), dataclasses.replace(CANDLES[FIRST], timeframe="1h")
        )

        assert d.out("signal.generated") == []
        assert d.history.asked == []


async def test_a_new_policy_counts_from_the_next_candle() -> None:
    modest = FixedForecaster(dataclasses.replace(BULLISH, p_up=0.55))
    async with desk(modest) as d:
        await d.deliver(CANDLES[FIRST])
        await d.policy.change(PolicyChange(updated_by="test", reason="test", active_mode=RiskMode.DEFENSIVE))
        await d.deliver(CANDLES[FIRST + 1])

        assert [event.payload.action for event in d.out("signal.generated")] == ["BUY", "HOLD"]


async def test_get_signal_answers_what_was_published_and_publishes_nothing() -> None:
    async with desk(trained_forecaster()) as d:
        await d.deliver(*CANDLES[FIRST : FIRST + 3])
        d.history.known = CANDLES[: FIRST + 3]

        answer = await d.service.handlers.signal_generator.get_signal(GetSignalRequest(symbol="BTCUSDT"))

        signal = d.out("signal.generated")[-1].payload
        assert answer.signal_id == signal.signal_id
        assert (answer.action, answer.confidence, answer.price) == (signal.action, signal.confidence, signal.price)
        assert answer.suggested_size_usd == signal.suggested_size_usd
        assert answer.candle_close_time == CANDLES[FIRST + 2].close_time
        assert len(d.out("signal.generated")) == 3


async def test_get_signal_works_before_the_first_candle() -> None:
    async with desk(trained_forecaster()) as d:
        answer = await d.service.handlers.signal_generator.get_signal(GetSignalRequest(symbol="BTCUSDT"))

        assert answer.candle_close_time == CANDLES[FIRST].open_time


@pytest.mark.parametrize(
    ("symbol", "model", "candles", "code"),
    [
        ("DOGEUSDT", True, CANDLES, "UNKNOWN_SYMBOL"),
        ("BTCUSDT", False, CANDLES, "NO_MODEL"),
        ("BTCUSDT", True, [], "NO_CANDLES"),
    ],
)
async def test_get_signal_says_why_there_is_none(symbol: str, model: bool, candles: list[Candle], code: str) -> None:
    async with desk(FixedForecaster(BULLISH) if model else None) as d:
        d.history.known = candles

        with pytest.raises(RpcError) as refusal:
            await d.service.handlers.signal_generator.get_signal(GetSignalRequest(symbol=symbol))

        assert refusal.value.code == code
