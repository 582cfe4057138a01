"""Composition root: the one file that names the concrete parts of the ai-service."""

from __future__ import annotations

from dataclasses import dataclass

from services.ai_service.adapters.market_data import CandleFeed
from services.ai_service.config import AiServiceSettings
from services.ai_service.handlers import EVENT_HANDLERS, RPC_HANDLERS, Handlers
from services.ai_service.handlers.candle_windows import CandleWindows
from services.ai_service.handlers.model_keeper import FirstTraining, ModelKeeper
from services.ai_service.handlers.model_shelf import ModelShelf
from services.ai_service.handlers.policy_watcher import PolicyWatcher
from services.ai_service.handlers.rl_position_sizing import RlPositionSizing
from services.ai_service.handlers.signal_generator import SignalGenerator
from services.ai_service.models.lightgbm_forecaster import FAMILY as LIGHTGBM
from services.ai_service.ports import CandleHistory, CandleStream, FeedCursor, ModelStore, ModelTrainer
from shared.bus.event_bus import EventBus
from shared.clock import Clock
from shared.policy.store import PolicyStore
from shared.rpc.server import RpcServer
from shared.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Feed:
    """Live market data: where candles come from and which were published.

    Attributes:
        stream: Candles as they close.
        cursor: What an earlier life of this run published.
    """

    stream: CandleStream
    cursor: FeedCursor


@dataclass(frozen=True, slots=True)
class AiService:
    """The wired service, without anything that runs by itself.

    Attributes:
        handlers: What answers events and commands; already subscribed.
        shelf: The model in use.
        keeper: Component; loads the newest usable model. Start it before the bus, so that no candle meets an empty
            shelf that could be full.
        feed: Component that publishes candles; None where somebody else does (replay).
        first_training: Component that has a model trained when there is none; None without a trainer. Start it last.
    """

    handlers: Handlers
    shelf: ModelShelf
    keeper: ModelKeeper
    feed: CandleFeed | None
    first_training: FirstTraining | None


def assemble(
    *,
    settings: AiServiceSettings,
    bus: EventBus,
    rpc: RpcServer | None,
    policy: PolicyStore,
    history: CandleHistory,
    models: ModelStore,
    clock: Clock,
    market_clock: Clock,
    feed: Feed | None = None,
    trainer: ModelTrainer | None = None,
    metrics: Metrics | None = None,
) -> AiService:
    """Wire the service out of ports and subscribe its handlers; nothing is started.

    Args:
        settings: Symbols, timeframe, thresholds, run id, mode.
        bus: Where events come from and go to.
        rpc: Server for the commands; None where nobody asks.
        policy: Policy in force.
        history: Candles of the past.
        models: Trained models.
        clock: Wall clock.
        market_clock: Market time.
        feed: Live market data; None where ``candle.closed`` is published by somebody else.
        trainer: Makes the first model; None where one must exist.
        metrics: Counters of the process.
    """
    shelf = ModelShelf(settings.trading_mode)
    keeper = ModelKeeper(
        symbols=settings.qt_symbols,
        timeframe=settings.qt_timeframe,
        barriers=settings.barriers,
        store=models,
        history=history,
        shelf=shelf,
        clock=clock,
        market_clock=market_clock,
    )
    generator = SignalGenerator(
        symbols=settings.qt_symbols,
        timeframe=settings.qt_timeframe,
        run_id=settings.qt_run_id,
        bus=bus,
        windows=CandleWindows(history, settings.qt_timeframe),
        shelf=shelf,
        sizing=RlPositionSizing(bus, policy, settings.signal_rule, settings.sizing_rule),
        clock=clock,
        market_clock=market_clock,
        timeout_seconds=settings.prediction_timeout_seconds,
        metrics=metrics,
    )
    handlers = Handlers(signal_generator=generator, policy_watcher=PolicyWatcher(policy))
    for pattern, handler_of in EVENT_HANDLERS.items():
        bus.subscribe(pattern, handler_of(handlers))
    if rpc is not None:
        for command, answer_of in RPC_HANDLERS.items():
            rpc.register(command, answer_of(handlers))
    return AiService(
        handlers=handlers,
        shelf=shelf,
        keeper=keeper,
        feed=None
        if feed is None
        else CandleFeed(
            symbols=settings.qt_symbols,
            timeframe=settings.qt_timeframe,
            run_id=settings.qt_run_id,
            stream=feed.stream,
            history=history,
            cursor=feed.cursor,
            bus=bus,
            clock=clock,
            market_clock=market_clock,
            quiet_seconds=settings.stream_quiet_seconds,
            max_backfill_candles=settings.max_backfill_candles,
            metrics=metrics,
        ),
        first_training=None
        if trainer is None
        else FirstTraining(
            model_id=f"{LIGHTGBM}-{settings.qt_timeframe}",
            model_type=LIGHTGBM,
            keeper=keeper,
            shelf=shelf,
            trainer=trainer,
            bus=bus,
            clock=clock,
            market_clock=market_clock,
        ),
    )
