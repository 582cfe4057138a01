"""Composition root: the one file that names the concrete parts of analytics-os."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI

from services.analytics_os_service.adapters.postgres_archive import PostgresArchive
from services.analytics_os_service.api import ControlAccess, analytics_router, dead_letters_router, policy_router
from services.analytics_os_service.config import SERVICE, AnalyticsSettings
from services.analytics_os_service.domain.heartbeats import HeartbeatRule
from services.analytics_os_service.handlers import EVENT_HANDLERS, RPC_HANDLERS, Handlers
from services.analytics_os_service.handlers.event_archivist import EventArchivist
from services.analytics_os_service.handlers.health_monitor import HealthMonitor
from services.analytics_os_service.handlers.hfos_orchestrator import HfosOrchestrator
from services.analytics_os_service.handlers.policy_watcher import PolicyWatcher
from services.analytics_os_service.handlers.portfolio_keeper import PortfolioKeeper
from services.analytics_os_service.ports import EventArchive
from shared.access import TokenGate
from shared.bus.consumer import ConsumerOptions
from shared.bus.dead_letters import DeadLetterBox
from shared.bus.event_bus import EventBus
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import Clock, SystemClock
from shared.disk_buffer.buffer import DiskBuffer
from shared.events.registry import AI, ANALYTICS_OS, EXEC_RISK
from shared.health.checks import HealthMonitor as DependencyMonitor
from shared.health.consuming import consumer_check, storage_check
from shared.health.dependencies import postgres_check, redis_check
from shared.health.event_loop import EventLoopLag, event_loop_check
from shared.health.heartbeat import Heartbeat
from shared.health.resources import Resources, resource_check
from shared.health.routes import create_service_api
from shared.ids import RandomIds
from shared.policy.redis_store import RedisPolicyStore
from shared.policy.snapshot import PolicySnapshot
from shared.policy.store import PolicyStore
from shared.postgres.migrate import SchemaMigration
from shared.postgres.pool import PostgresPool
from shared.redis_connection import RedisConnection
from shared.rpc.redis_transport import RedisRpcTransport
from shared.rpc.server import RpcServer
from shared.rpc.signing import signer_of
from shared.service import Service
from shared.settings import market_clock as market_clock_of
from shared.telemetry.metrics import Metrics
from shared.telemetry.spans import create_spans

SCHEMA = "analytics"
MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
#: The services that make up the system.
EXPECTED_SERVICES = (AI, EXEC_RISK, ANALYTICS_OS)


@dataclass(frozen=True, slots=True)
class AnalyticsOs:
    """The wired service, without anything that runs by itself.

    Attributes:
        handlers: What answers events and commands; already subscribed.
        portfolio: Component; folds the archive at its start. Start it before the bus.
        monitor: Component; watches heartbeats in the background. Start it before the bus; leave it out where a
            caller moves time and calls ``check``.
    """

    handlers: Handlers
    portfolio: PortfolioKeeper
    monitor: HealthMonitor


def assemble(
    *,
    run_id: str,
    bus: EventBus,
    rpc: RpcServer | None,
    archive: EventArchive,
    policy: PolicyStore,
    clock: Clock,
    heartbeat_rule: HeartbeatRule | None = None,
    heartbeat_check_interval_seconds: float = 1.0,
    expected_services: tuple[str, ...] = EXPECTED_SERVICES,
) -> AnalyticsOs:
    """Wire the service out of ports and subscribe its handlers; nothing is started.

    Args:
        run_id: The run whose events are kept.
        bus: Where events come from and alerts go to.
        rpc: Server for the commands; None where nobody asks.
        archive: Where events are kept.
        policy: Policy in force.
        clock: Wall clock.
        heartbeat_rule: When silence becomes an outage; 15 s when None.
        heartbeat_check_interval_seconds: Wall time between two looks at the heartbeats.
        expected_services: Services that must be alive.
    """
    portfolio = PortfolioKeeper(run_id=run_id, archive=archive)
    monitor = HealthMonitor(
        run_id=run_id,
        own_name=SERVICE,
        expected=expected_services,
        rule=heartbeat_rule or HeartbeatRule(),
        check_interval_seconds=heartbeat_check_interval_seconds,
        bus=bus,
        archive=archive,
        clock=clock,
    )
    handlers = Handlers(
        archivist=EventArchivist(archive),
        health_monitor=monitor,
        portfolio_keeper=portfolio,
        hfos_orchestrator=HfosOrchestrator(bus=bus, portfolio=portfolio, policy=policy),
        policy_watcher=PolicyWatcher(policy),
    )
    for pattern, handler_of in EVENT_HANDLERS:
        bus.subscribe(pattern, handler_of(handlers))
    if rpc is not None:
        for command, answer_of in RPC_HANDLERS.items():
            rpc.register(command, answer_of(handlers))
    return AnalyticsOs(handlers, portfolio, monitor)


def create_app(settings: AnalyticsSettings) -> FastAPI:
    """Return the HTTP application of the live service, with every adapter made from ``settings``.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    clock, ids = SystemClock(), RandomIds()
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
    postgres = PostgresPool(settings.postgres_url, clock=clock)
    archive = PostgresArchive(postgres, run_id=settings.qt_run_id)
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
        market_clock=market_clock_of(settings),
        # A command that came too late for the one it was meant for still belongs into the archive.
        options=ConsumerOptions(refuse_late_commands=False),
        metrics=metrics,
        spans=spans,
        buffer=buffer,
    )
    policy = RedisPolicyStore(
        redis,
        clock=clock,
        # One folder per mode: what was tried on paper is nothing to begin with on real money.
        snapshot=PolicySnapshot(settings.state_dir / "policy" / settings.trading_mode / f"{SERVICE}.json"),
        bus=bus,
        metrics=metrics,
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
    parts = assemble(
        run_id=settings.qt_run_id,
        bus=bus,
        rpc=rpc,
        archive=archive,
        policy=policy,
        clock=clock,
        heartbeat_rule=settings.heartbeat_rule,
        heartbeat_check_interval_seconds=settings.heartbeat_check_interval_seconds,
    )
    loop_lag = EventLoopLag(SERVICE, clock=clock, registry=metrics.registry)
    health = DependencyMonitor(
        {
            "redis": redis_check(redis),
            "postgres": postgres_check(postgres),
            "eventbus": consumer_check(bus.progress, explained_by=("redis", "postgres")),
            "disk-buffer": storage_check(lambda: buffer.alarm),
            "event-loop": event_loop_check(loop_lag),
            "system": resource_check(Resources(settings.state_dir)),
        },
        clock=clock,
    )
    heartbeat = Heartbeat(
        bus=bus,
        service=lambda: service,
        health=health,
        clock=clock,
        interval_seconds=settings.heartbeat_interval_seconds,
    )
    # What an earlier life knew comes before the bus, so that the first event meets a complete portfolio.
    service = Service(
        SERVICE,
        [
            spans,
            buffer,
            redis,
            heartbeat,
            policy,
            postgres,
            SchemaMigration(settings.postgres_url, SCHEMA, MIGRATIONS, clock=clock),
            archive,
            parts.portfolio,
            parts.monitor,
            bus,
            rpc,
            loop_lag,
        ],
    )
    access = _control_access(settings, clock)
    routers = [
        analytics_router(archive=archive, portfolio=parts.portfolio, monitor=parts.monitor),
        policy_router(policy, access),
        dead_letters_router(DeadLetterBox(redis), access),
    ]
    return create_service_api(
        "Quantum Trader analytics-os-service", service, health, metrics=metrics, ids=ids, routers=routers
    )


def _control_access(settings: AnalyticsSettings, clock: Clock) -> ControlAccess:
    return ControlAccess(
        TokenGate(settings.api_token, variable="QT_API_TOKEN", clock=clock),
        owner=settings.qt_api_token_owner,
        reads_are_open=settings.is_on_loopback,
    )
