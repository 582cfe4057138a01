"""Candles, and fakes of the ai-service's ports, each of a few lines."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import lightgbm
import numpy as np

from services.ai_service.config import AiServiceSettings
from services.ai_service.domain.features import FEATURE_NAMES, FEATURE_SCHEMA
from services.ai_service.domain.forecasts import Forecast, ModelStage
from services.ai_service.domain.labels import BarrierRule
from services.ai_service.domain.windows import Floats
from services.ai_service.models.lightgbm_forecaster import LightGbmForecaster
from services.ai_service.models.manifest import ModelManifest
from services.ai_service.ports import DataWindow, Forecaster, ModelCard, Restarted, Unusable
from services.ai_service.training.pipeline import TrainingPlan, train_model
from shared.bus.memory import MemoryBroker
from shared.errors import ConnectionLostError
from shared.events.codec import decode
from shared.events.envelope import Event
from shared.events.streams import event_stream
from shared.trading.candles import Candle
from shared.trading.instruments import timeframe_duration

NOON = datetime(2025, 5, 20, 12, 0, tzinfo=UTC)
RULE = BarrierRule(horizon_candles=5, range_multiple=0.5, min_distance_pct=0.3)


def walk(
    count: int,
    *,
    seed: int = 1,
    symbol: str = "BTCUSDT",
    timeframe: str = "1m",
    start: datetime = NOON,
    volatility: float = 0.002,
    memory: float = 0.0,
) -> list[Candle]:
    """Return ``count`` candles of a seeded random walk; ``memory`` above 0 makes each move repeat part of the last."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0, volatility, count)
    for index in range(1, count):
        moves[index] += memory * moves[index - 1]
    closes = 100 * np.exp(np.cumsum(moves))
    opens = np.concatenate([[100.0], closes[:-1]])
    highs = np.maximum(opens, closes) * (1 + np.abs(rng.normal(0, volatility / 2, count)))
    lows = np.minimum(opens, closes) * (1 - np.abs(rng.normal(0, volatility / 2, count)))
    volumes = rng.lognormal(3, 1, count)
    step = timeframe_duration(timeframe)
    columns = np.column_stack([opens, highs, lows, closes, volumes]).tolist()
    return [Candle(symbol, timeframe, start + step * index, *row) for index, row in enumerate(columns)]


def ai_settings(**changes: Any) -> AiServiceSettings:
    """Return settings that no environment variable of the machine changes but by name."""
    values: dict[str, Any] = {
        "redis_url": "redis://127.0.0.1:6379/0",
        "qt_symbols": ("BTCUSDT",),
        "qt_timeframe": "1m",
        "qt_run_id": "test",
        **changes,
    }
    return AiServiceSettings(_env_file=None, **values)


class MemoryHistory:
    """``CandleHistory`` over a list; what is withheld or broken can be chosen."""

    def __init__(self, candles: Sequence[Candle] = ()) -> None:
        self.known = list(candles)
        self.asked: list[tuple[str, datetime, datetime]] = []
        self.outages = 0

    async def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> list[Candle]:
        self.asked.append((symbol, start, end))
        if self.outages > 0:
            self.outages -= 1
            raise ConnectionLostError("the exchange is away")
        return [
            candle
            for candle in self.known
            if candle.symbol == symbol and candle.timeframe == timeframe and start <= candle.open_time < end
        ]


class ScriptedStream:
    """``CandleStream`` fed by the test."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Candle | Unusable | Restarted] = asyncio.Queue()

    def send(self, *arrivals: Candle | Unusable | Restarted) -> None:
        for arrival in arrivals:
            self._queue.put_nowait(arrival)

    async def arrivals(self) -> AsyncIterator[Candle | Unusable | Restarted]:
        while True:
            yield await self._queue.get()


class MemoryCursor:
    """``FeedCursor`` in memory."""

    def __init__(self, published: Mapping[str, datetime] | None = None) -> None:
        self.published = dict(published or {})

    def load(self) -> Mapping[str, datetime]:
        return dict(self.published)

    def save(self, symbol: str, open_time: datetime) -> None:
        self.published[symbol] = open_time


class FixedForecaster:
    """``Forecaster`` that always says the same."""

    def __init__(self, forecast: Forecast, *, stage: ModelStage = ModelStage.BOOTSTRAP, **card: Any) -> None:
        self._forecast = forecast
        self._card = model_card(stage=stage, **card)

    @property
    def card(self) -> ModelCard:
        return self._card

    def predict(self, features: Floats) -> Forecast:
        assert features.shape == (len(FEATURE_NAMES),)
        return self._forecast


class MemoryModelStore:
    """``ModelStore`` over a list."""

    def __init__(self, *models: Forecaster) -> None:
        self.models = list(models)

    def candidates(self, timeframe: str, symbols: Sequence[str], now: datetime) -> list[Forecaster]:
        return [model for model in self.models if model.card.data_end <= now]


def model_card(**changes: Any) -> ModelCard:
    values: dict[str, Any] = {
        "model_id": "lightgbm-1m",
        "family": "lightgbm",
        "version": "v1",
        "stage": ModelStage.BOOTSTRAP,
        "timeframe": "1m",
        "feature_names": FEATURE_NAMES,
        "feature_schema": FEATURE_SCHEMA,
        "barriers": RULE,
        "data": {"BTCUSDT": DataWindow(NOON, NOON, 1, 100.0)},
        "metrics": {},
        **changes,
    }
    return ModelCard(**values)


BULLISH = Forecast(p_up=0.9, expected_return_pct=0.8, strength=0.99, barrier_pct=1.0)


@functools.lru_cache(maxsize=4)
def trained(seed: int = 3, count: int = 700) -> tuple[ModelManifest, bytes]:
    """Return a small real model of two made-up symbols; the same arguments are trained once per test run."""
    plan = TrainingPlan(("BTCUSDT", "ETHUSDT"), "1m", RULE, count, 400, seed)
    candles = {
        symbol: walk(count, seed=number, symbol=symbol, memory=0.5) for number, symbol in enumerate(plan.symbols)
    }
    return train_model(plan, candles, NOON, lambda _: None)


def trained_forecaster() -> LightGbmForecaster:
    manifest, text = trained()
    return LightGbmForecaster(lightgbm.Booster(model_str=text.decode()), manifest)


def published(broker: MemoryBroker, event_type: str) -> list[Event[Any]]:
    """Return every event of a type that was published to ``broker``, repeats included."""
    return [decode(fields) for fields in broker.entries(event_stream(event_type))]
