"""Composition root: the one file that names the concrete parts of the ai-service."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

from fastapi import FastAPI

from services.ai_service.adapters.exchange_candles import ExchangeCandleHistory, ExchangeCandleStream, ExchangeLink
from services.ai_service.adapters.feed_cursor import FileFeedCursor
from services.ai_service.adapters.market_data import CandleFeed
from services.ai_service.adapters.training_process import TrainingProcess
from services.ai_service.config import SERVICE, AiServiceSettings
from services.ai_service.handlers import EVENT_HANDLERS, RPC_HANDLERS, Handlers
from services.ai_service.handlers.candle_windows import CandleWindows
from services.ai_service.handlers.model_keeper import FirstTraining, ModelKeeper
from services.ai_service.handlers.model_shelf import ModelShelf
from services.ai_service.handlers.policy_watcher import PolicyWatcher
from services.ai_service.handlers.rl_position_sizing import RlPositionSizing
from services.ai_service.handlers.signal_generator import SignalGenerator
from services.ai_service.models.lightgbm_forecaster import FAMILY as LIGHTGBM
from services.ai_service.models.model_store import FileModelStore
from services.ai_service.ports import CandleHistory, CandleStream, FeedCursor, ModelStore, ModelTrainer
from shared.bus.event_bus import EventBus
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import Clock, SystemClock
from shared.disk_buffer.buffer import DiskBuffer
from shared.errors import NotRunningError
from shared.exchange.client import create_exchange
from shared.exchange.request_gate import RequestGate, pause_file
from shared.health.checks import DependencyCheck, HealthMonitor
from shared.health.consuming import consumer_check, storage_check
from shared.health.dependencies import http_check, redis_check
from shared.health.event_loop import EventLoopLag, event_loop_check
from shared.health.heartbeat import Heartbeat
from shared.health.resources import Resources, resource_check
from shared.health.routes import create_service_api
from shared.ids import RandomIds
from shared.policy.redis_store import RedisPolicyStore
from shared.policy.snapshot import PolicySnapshot
from shared.policy.store import PolicyStore
from shared.redis_connection import RedisConnection
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.server import RpcServer
from shared.rpc.signing import signer_of
from shared.service import Service
from shared.settings import market_clock as market_clock_of
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import create_spans

#: A symbol that lacks this many closed candles degrades the service; one is missing for a moment at every close.
_CANDLES_BEHIND = 3


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

    async def model_check(self) -> float:
        """Return 0; raise when no model may give signals, with the reason."""
        if self.shelf.trading_model is None:
            raise NotRunningError(self.shelf.state)
        return 0.0

    async def feed_check(self) -> float:
        """Return 0; raise when candles are overdue."""
        behind = self.feed.behind() if self.feed else {}
        late = {symbol: count for symbol, count in behind.items() if count >= _CANDLES_BEHIND}
        if late:
            raise NotRunningError(f"candles behind: {', '.join(f'{name} {count}' for name, count in late.items())}")
        return 0.0


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


def create_app(settings: AiServiceSettings) -> FastAPI:
    """Return the HTTP application of the live service, with every adapter made from ``settings``.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    clock, ids = SystemClock(), RandomIds()
    market_clock = market_clock_of(settings)
    metrics = Metrics(SERVICE, clock)
    instance = f"{socket.gethostname()}-{settings.port}"
    rng = random.Random()  # noqa: S311 - spreads reconnects
    redis = RedisConnection.from_settings(settings, clock=clock, rng=rng, metrics=metrics)
    buffer = DiskBuffer(
        settings.disk_buffer_file(SERVICE),
        clock=clock,
        service=SERVICE,
        limit_bytes=settings.disk_buffer_bytes,
        metrics=metrics,
    )
    spans = create_spans(
        SERVICE,
        instance=instance,
        clock=clock,
        endpoint=settings.otel_exporter_otlp_endpoint,
        headers=settings.otel_exporter_otlp_headers.get_secret_value(),
        sample_ratio=settings.otel_traces_sampler_arg,
    )
    bus = RedisStreamsBus(
        redis,
        service=SERVICE,
        instance=instance,
        clock=clock,
        ids=ids,
        market_clock=market_clock,
        metrics=metrics,
        spans=spans,
        buffer=buffer,
    )
    rpc = RpcServer(
        RedisRpcTransport(redis),
        service=SERVICE,
        instance=instance,
        clock=clock,
        signer=signer_of(settings.qt_rpc_key),
        metrics=metrics,
        spans=spans,
    )
    # One folder per mode: what was tried on paper is nothing to begin with on real money.
    snapshot = PolicySnapshot(settings.state_dir / "policy" / settings.trading_mode / f"{SERVICE}.json")
    policy = RedisPolicyStore(redis, clock=clock, snapshot=snapshot, bus=bus, metrics=metrics)
    client = create_exchange(
        settings.trading_mode.value,
        base_url=settings.exchange_url,
        api_key=settings.binance_api_key,
        secret=settings.binance_api_secret.get_secret_value(),
        metrics=metrics,
    )
    # Candles are paid from the same weight of the minute as the orders of exec-risk, and wait when it runs short.
    gate = client.gate = RequestGate(
        client.rest_host, clock=clock, redis=redis, file=pause_file(settings), metrics=metrics
    )
    exchange = ExchangeLink(client, clock)
    parts = assemble(
        settings=settings,
        bus=bus,
        rpc=rpc,
        policy=policy,
        history=ExchangeCandleHistory(client, market_clock),
        models=FileModelStore(settings.state_dir),
        clock=clock,
        market_clock=market_clock,
        feed=Feed(
            stream=ExchangeCandleStream(client, settings.qt_symbols, settings.qt_timeframe),
            cursor=FileFeedCursor(
                settings.state_dir,
                mode=settings.trading_mode.value,
                run_id=settings.qt_run_id,
                timeframe=settings.qt_timeframe,
            ),
        ),
        trainer=TrainingProcess(settings.worker_environment()),
        metrics=metrics,
    )
    assert parts.feed is not None
    assert parts.first_training is not None
    loop_lag = EventLoopLag(SERVICE, clock=clock, registry=metrics.registry)
    health = HealthMonitor(
        {
            "redis": redis_check(redis),
            "eventbus": consumer_check(bus.progress, explained_by=("redis",)),
            "disk-buffer": storage_check(lambda: buffer.alarm),
            # Without the exchange there are no candles, but a restart would not bring it back.
            "exchange": http_check(exchange),
            "model": DependencyCheck(parts.model_check, is_critical=False),
            "market-data": DependencyCheck(parts.feed_check, is_critical=False, explained_by=("redis", "exchange")),
            "event-loop": event_loop_check(loop_lag),
            "system": resource_check(Resources(settings.state_dir)),
        },
        clock=clock,
        modules=lambda: {"model": parts.shelf.state},
    )
    heartbeat = Heartbeat(
        bus=bus,
        service=lambda: service,
        health=health,
        clock=clock,
        interval_seconds=settings.heartbeat_interval_seconds,
        market_data_age=parts.feed.age_seconds,
    )
    # The model comes before the bus: no candle that waits there may meet a shelf that could be full. The feed comes
    # before the training: candles are news for the other services, too.
    service = Service(
        SERVICE,
        [
            spans,
            buffer,
            redis,
            heartbeat,
            exchange,
            gate,
            policy,
            parts.keeper,
            bus,
            rpc,
            parts.feed,
            parts.first_training,
            loop_lag,
        ],
    )
    return create_service_api("Quantum Trader ai-service", service, health, metrics=metrics, ids=ids)
