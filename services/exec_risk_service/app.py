"""Composition root: the one file that names the concrete parts of the exec-risk-service."""

from __future__ import annotations

import random
import socket
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog
from fastapi import FastAPI

from services.exec_risk_service.adapters.background import BackgroundLanes, BackgroundTask, RelayTask, every, pump
from services.exec_risk_service.adapters.ccxt_venue import CcxtReportStream, CcxtVenue
from services.exec_risk_service.adapters.crash_points import crash_points, redis_with_points, with_points
from services.exec_risk_service.adapters.exchange_link import ExchangeLink
from services.exec_risk_service.adapters.local_journal import LocalJournal, MemoryStopJournal
from services.exec_risk_service.adapters.postgres_journal import PostgresJournal
from services.exec_risk_service.adapters.postgres_lease import PostgresLeases
from services.exec_risk_service.adapters.stop_latch import FileLatch, MemoryLatch, latch_path
from services.exec_risk_service.adapters.this_process import is_proven_dead, this_process
from services.exec_risk_service.api import positions_router, risk_router, trading_router
from services.exec_risk_service.config import SERVICE, ExecRiskSettings
from services.exec_risk_service.domain.reports import VenueReport
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.step import Request
from services.exec_risk_service.domain.trading_state import TradingCause
from services.exec_risk_service.handlers import EVENT_HANDLERS, RPC_HANDLERS, Handlers
from services.exec_risk_service.handlers.account_lease import AccountLease
from services.exec_risk_service.handlers.account_watch import AccountWatch
from services.exec_risk_service.handlers.countdown import Countdown
from services.exec_risk_service.handlers.cover_watch import CoverWatch
from services.exec_risk_service.handlers.emergency_stop import LATCH_LOOK_SECONDS, EmergencyStop
from services.exec_risk_service.handlers.execution_desk import ExecutionDesk
from services.exec_risk_service.handlers.executor_health import clock_check, lease_check
from services.exec_risk_service.handlers.foreign_orders import ForeignOrders
from services.exec_risk_service.handlers.history_reader import HistoryReader
from services.exec_risk_service.handlers.lanes import CarryOut, carrier
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.maintenance import Maintenance
from services.exec_risk_service.handlers.order_executor import OrderExecutor
from services.exec_risk_service.handlers.order_sender import OrderSender
from services.exec_risk_service.handlers.outage_watch import OutageWatch
from services.exec_risk_service.handlers.outbox_relay import OutboxRelay
from services.exec_risk_service.handlers.policy_watcher import PolicyWatcher
from services.exec_risk_service.handlers.portfolio_manager import PortfolioManager
from services.exec_risk_service.handlers.position_monitor import PositionMonitor
from services.exec_risk_service.handlers.quote_board import QuoteBoard
from services.exec_risk_service.handlers.reconciler import Reconciler
from services.exec_risk_service.handlers.risk_validator import RiskValidator
from services.exec_risk_service.handlers.signal_source import SignalSource
from services.exec_risk_service.handlers.stream_watch import UserStreamWatch
from services.exec_risk_service.handlers.system_mode import SystemMode
from services.exec_risk_service.handlers.trading_desk import CandleWatch, TradingDesk
from services.exec_risk_service.ports import (
    AccountView,
    CandleHistory,
    MarketView,
    OrderGateway,
    OrderJournal,
    StopJournal,
    StopLatch,
    TradingTerms,
)
from shared.access import TokenGate
from shared.backoff import Backoff
from shared.bus.event_bus import EventBus
from shared.bus.redis_streams import RedisStreamsBus
from shared.clock import Clock, SystemClock
from shared.crashpoints import Crashpoints
from shared.disk_buffer.buffer import DiskBuffer
from shared.errors import TransientError
from shared.exchange.client import RECV_WINDOW_MS, create_exchange
from shared.exchange.clock_offset import ClockOffset
from shared.exchange.request_gate import RequestGate, pause_file
from shared.health.checks import HealthMonitor
from shared.health.consuming import consumer_check, storage_check
from shared.health.dependencies import http_check, postgres_check, redis_check
from shared.health.event_loop import EventLoopLag, event_loop_check
from shared.health.heartbeat import Heartbeat
from shared.health.resources import Resources, resource_check
from shared.health.routes import create_service_api
from shared.ids import IdSource, RandomIds
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
from shared.telemetry.spans import NO_SPANS, Spans, create_spans
from shared.trading.instruments import timeframe_duration

MIGRATIONS = Path(__file__).parent / "adapters" / "migrations"
SCHEMA = "exec_risk"
#: Wall time between two looks at what is due.
_TICK_SECONDS = 0.25
#: How long the start waits for the first stops of naked positions before it listens to signals.
_PROTECTION_SECONDS = 10.0
#: Wall time between two looks at what keeps entries back from outside the book.
_WATCH_SECONDS = 1.0
_TAKEN_OVER = 1
#: Wall time between two looks for what the book does not show.
_LOOK_SECONDS = 1.0
#: The newest price is too old when so many candles should have closed since, and nothing came for so long.
_STALE_CANDLES = 3
_STALE_WALL = timedelta(seconds=30)

log = structlog.get_logger(__name__)


class Lanes(Protocol):
    """How requests leave: one after the other (replay) or in the background (live)."""

    def open(self, carry_out: CarryOut) -> None: ...

    async def dispatch(self, requests: tuple[Request, ...]) -> None: ...


class Venue(OrderGateway, AccountView, MarketView, TradingTerms, CandleHistory, Protocol):
    """An exchange: one object behind all ports."""


@dataclass(frozen=True, slots=True)
class ExecRisk:
    """The wired service, without anything that runs by itself.

    Attributes:
        handlers: What answers events and commands; already subscribed.
        ledger: Single writer and holder of the book.
        reconciler: Recovery and comparison with the exchange.
        history: Reads the candles that closed while nobody listened.
        executions: Goes on with executions; to be called by a timer.
        relay: Outbox to bus.
        stop: The emergency stop; to be ticked by a timer of its own.
        desk: Looks for what the book does not show; to be called by a timer.
        foreign: Recognises orders of another executor.
    """

    handlers: Handlers
    ledger: Ledger
    reconciler: Reconciler
    history: HistoryReader
    executions: ExecutionDesk
    relay: OutboxRelay
    stop: EmergencyStop
    desk: TradingDesk
    foreign: ForeignOrders

    async def recover(self) -> None:
        """Bring journal and exchange together and publish what was left; before this nothing can be applied.

        Raises:
            TransientError: Exchange, journal or bus cannot be reached: recover again.
        """
        try:
            await self.reconciler.recover()
            await self.history.read()
            await self.stop.after_recovery()
        except Exception:
            self.ledger.needs_recovery = True  # an account that is half known is not traded; the timer tries again
            raise
        await self.relay.drain()

    async def on_report(self, report: VenueReport) -> None:
        """Apply one line of the user stream."""
        await self.foreign.see(report)
        await self.handlers.position_monitor.on_report(report)


def assemble(
    *,
    account: str,
    symbols: Collection[str],
    rules: Rules,
    bus: EventBus,
    rpc: RpcServer | None,
    policy: PolicyStore,
    venue: Venue,
    journal: OrderJournal,
    lanes: Lanes,
    clock: Clock,
    market_clock: Clock,
    wake_relay: Callable[[], Awaitable[None]] | None = None,
    storage_alarm: Callable[[], str | None] = lambda: None,
    entry_bar: Callable[[], str | None] = lambda: None,
    opened: Callable[[], Awaitable[None]] | None = None,
    latch: StopLatch | None = None,
    stop_journal: StopJournal | None = None,
    ids: IdSource | None = None,
    metrics: Metrics | None = None,
    spans: Spans = NO_SPANS,
) -> ExecRisk:
    """Wire the service out of ports and subscribe its handlers; nothing is started.

    Args:
        account: Name of the account and its run, ``paper:live``.
        symbols: Venue symbols that are traded.
        rules: Limits of the installation.
        bus: Where events come from and go to.
        rpc: Server for the commands; None where nobody asks.
        policy: Policy in force.
        venue: The exchange.
        journal: Durable record.
        lanes: How requests leave.
        clock: Wall clock.
        market_clock: Market time.
        wake_relay: Tells a background task that events wait; None publishes them before each input returns.
        storage_alarm: Tells why events could get lost; entries wait for that.
        entry_bar: Tells why this process may send no entry now.
        opened: Returns when the exchange takes requests at all; None for an exchange that always does.
        latch: Holds an emergency stop on this machine; None holds it in memory.
        stop_journal: Holds the orders of an emergency stop, likewise.
        ids: Names emergency stops.
        metrics: Counters of the process.
        spans: Shows each order.
    """
    relay = OutboxRelay(journal, bus)

    async def publish_now() -> None:
        await relay.drain()

    def bar() -> str | None:
        return stop.bar() or entry_bar()

    ledger = Ledger(
        account=account,
        journal=journal,
        policy=policy,
        rules=rules,
        clock=clock,
        lanes=lanes,
        on_stored=wake_relay or publish_now,
        storage_alarm=storage_alarm,
        entry_bar=bar,
        observers=() if metrics is None else (CoverWatch(metrics, lambda: ledger.book, clock).on_step,),
    )
    stop = EmergencyStop(
        ledger,
        gateway=venue,
        view=venue,
        terms=venue,
        latch=latch or MemoryLatch(),
        journal=stop_journal or MemoryStopJournal(),
        clock=clock,
        market_clock=market_clock,
        ids=ids or RandomIds(),
    )
    reconciler = Reconciler(
        ledger,
        gateway=venue,
        view=venue,
        terms=venue,
        clock=clock,
        market_clock=market_clock,
        symbols=symbols,
        after_load=stop.note_untold,
    )
    sender = OrderSender(ledger, venue, metrics, spans, entry_bar=bar, opened=opened)
    lanes.open(carrier(sender, reconciler, stop))
    quotes = QuoteBoard(venue, clock)
    handlers = Handlers(
        order_executor=OrderExecutor(ledger, quotes, market_clock),
        position_monitor=PositionMonitor(
            ledger, reconciler, quotes, market_clock=market_clock, note_leverage=sender.note_leverage
        ),
        portfolio_manager=PortfolioManager(ledger, quotes, market_clock),
        risk_validator=RiskValidator(ledger),
        policy_watcher=PolicyWatcher(policy),
        emergency_stop=stop,
        signal_source=SignalSource(clock, market_clock),
        system_mode=SystemMode(ledger, stop.request),
    )
    for pattern, handler_of in EVENT_HANDLERS.items():
        bus.subscribe(pattern, handler_of(handlers))
    if rpc is not None:
        for command, answer_of in RPC_HANDLERS.items():
            rpc.register(command, answer_of(handlers))
    history = HistoryReader(ledger, venue, market_clock=market_clock, symbols=symbols, timeframe=rules.timeframe)
    executions = ExecutionDesk(ledger, quotes, clock=clock, market_clock=market_clock)
    candles = CandleWatch(
        ledger,
        clock=clock,
        market_clock=market_clock,
        market_limit=timeframe_duration(rules.timeframe) * _STALE_CANDLES,
        wall_limit=_STALE_WALL,
    )
    desk = TradingDesk(ledger, {TradingCause.STALE_DATA: candles})
    return ExecRisk(handlers, ledger, reconciler, history, executions, relay, stop, desk, ForeignOrders(ledger))


def create_app(settings: ExecRiskSettings) -> FastAPI:
    """Return the HTTP application of the live service, with every adapter made from ``settings``.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    points = Crashpoints(settings.qt_crashpoint, known=crash_points())
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
    pool = PostgresPool(settings.postgres_url, clock=clock)
    spans = create_spans(
        SERVICE,
        instance=instance,
        clock=clock,
        endpoint=settings.otel_exporter_otlp_endpoint,
        headers=settings.otel_exporter_otlp_headers.get_secret_value(),
        sample_ratio=settings.otel_traces_sampler_arg,
    )
    bus = RedisStreamsBus(
        redis_with_points(redis, points),
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
    gate = client.gate = RequestGate(
        client.rest_host,
        clock=clock,
        redis=redis,
        file=pause_file(settings),
        metrics=metrics,
        market_waits=False,
    )
    offset = ClockOffset(client.fapiPublicGetTime, clock=clock, correct=client.correct_time, metrics=metrics)
    client.on_wrong_time = offset.doubt
    exchange, stream = ExchangeLink(client, clock), CcxtReportStream(client)
    lanes, relay_task = BackgroundLanes(), RelayTask(clock)

    def end_process() -> None:
        app.state.exit_code = _TAKEN_OVER
        app.state.stop_server()

    holder = this_process().as_text()
    lease = AccountLease(
        with_points(PostgresLeases(pool), points),
        account=settings.account,
        holder=holder,
        is_proven_dead=is_proven_dead,
        clock=clock,
        seconds=settings.executor_lease_seconds,
        grace_seconds=RECV_WINDOW_MS / 1000 + settings.executor_status_lag_seconds,
        on_lost=end_process,
    )
    gate.entry_bar = lease.bar
    venue = with_points(CcxtVenue(client, market_clock), points)
    parts = assemble(
        account=settings.account,
        symbols=settings.qt_symbols,
        rules=settings.rules,
        bus=bus,
        rpc=rpc,
        policy=policy,
        venue=venue,
        journal=with_points(PostgresJournal(pool, holder=holder), points),
        lanes=lanes,
        clock=clock,
        market_clock=market_clock,
        wake_relay=relay_task.wake,
        storage_alarm=lambda: buffer.alarm,
        latch=with_points(FileLatch(latch_path(*settings.run_place)), points),
        stop_journal=with_points(LocalJournal(latch_path(*settings.run_place).with_name("orders.sqlite")), points),
        ids=ids,
        entry_bar=lambda: lease.bar() or offset.bar() or gate.bar(),
        opened=gate.opened,
        metrics=metrics,
        spans=spans,
    )
    relay_task.open(parts.relay.drain)
    watch = AccountWatch(
        parts.ledger,
        venue,
        clock=clock,
        causes={
            TradingCause.CLOCK_SKEW: offset.bar,
            TradingCause.EXCHANGE_BAN: gate.ban,
            TradingCause.SIGNALS_EXPIRED: parts.handlers.signal_source.bar,
        },
    )
    client.on_bad_account = watch.suspect
    countdown = Countdown(parts.ledger, venue, clock=clock, seconds=settings.entry_countdown_seconds)
    stream_watch = UserStreamWatch(parts.ledger, parts.reconciler, stream, clock)
    parts.ledger.observe(stream_watch.on_step)
    maintenance = Maintenance(
        parts.ledger,
        parts.reconciler,
        parts.executions,
        stream_watch=stream_watch,
        recover=parts.recover,
        on_fenced=end_process,
        clock=clock,
        sweep_seconds=settings.position_check_interval_seconds,
    )
    outage = OutageWatch(
        parts.ledger, parts.stop, venue, clock=clock, patience_seconds=settings.max_journal_outage_seconds
    )
    loop_lag = EventLoopLag(SERVICE, clock=clock, registry=metrics.registry)
    health = HealthMonitor(
        {
            "redis": redis_check(redis),
            "postgres": postgres_check(pool),
            "account-lease": lease_check(lease),
            "eventbus": consumer_check(bus.progress, explained_by=("redis", "postgres")),
            "disk-buffer": storage_check(lambda: buffer.alarm),
            # Positions stay protected by the stops that rest there; a restart would not bring the exchange back.
            "exchange": http_check(exchange),
            "exchange-clock": clock_check(offset),
            "event-loop": event_loop_check(loop_lag),
            "system": resource_check(Resources(settings.state_dir)),
        },
        clock=clock,
        modules=lambda: {
            "account": _account_line(parts.ledger),
            "user-stream": stream_watch.line,
            "signals": parts.handlers.signal_source.line,
        },
        metrics=lambda: _figures(parts.ledger, lanes),
    )
    heartbeat = Heartbeat(
        bus=bus,
        service=lambda: service,
        health=health,
        clock=clock,
        interval_seconds=settings.heartbeat_interval_seconds,
    )
    # Recovery comes before anything that can ask for a trade; the user stream before recovery, so that nothing which
    # happens meanwhile is missed.
    service = Service(
        SERVICE,
        [
            spans,
            exchange,
            # Before everything that may be away: a stop that an earlier life left goes on at once.
            _Stopper(parts.stop, clock),
            buffer,
            redis,
            heartbeat,
            pool,
            SchemaMigration(settings.postgres_url, SCHEMA, MIGRATIONS, clock=clock),
            lease,
            gate,
            offset,
            policy,
            relay_task,
            lanes,
            stream,
            _Recovery(parts, lanes, clock),
            BackgroundTask("user-reports", partial(pump, stream, parts.on_report, maintenance.sweep_soon)),
            countdown,
            BackgroundTask("entry-countdown", partial(every, clock, _WATCH_SECONDS, countdown.tick)),
            BackgroundTask("account-watch", partial(every, clock, _WATCH_SECONDS, watch.tick)),
            BackgroundTask("maintenance", partial(every, clock, _TICK_SECONDS, maintenance.tick)),
            BackgroundTask("outage-watch", partial(every, clock, _WATCH_SECONDS, outage.tick)),
            BackgroundTask("trading-looks", partial(every, clock, _LOOK_SECONDS, parts.desk.look)),
            rpc,
            bus,
            loop_lag,
        ],
    )
    access = TokenGate(settings.api_token, variable="QT_API_TOKEN", clock=clock)
    app = create_service_api(
        "Quantum Trader exec-risk-service",
        service,
        health,
        metrics=metrics,
        ids=ids,
        routers=[
            positions_router(parts.handlers.position_monitor),
            risk_router(parts.handlers.risk_validator),
            trading_router(parts.stop, parts.desk, access),
        ],
    )
    return app


class _Stopper:
    """The life of the emergency stop."""

    name = "emergency-stop"

    def __init__(self, stop: EmergencyStop, clock: Clock) -> None:
        self._stop = stop
        self._task = BackgroundTask(self.name, partial(every, clock, LATCH_LOOK_SECONDS, stop.tick))

    async def start(self) -> None:
        await self._stop.start()
        await self._task.start()

    async def stop(self) -> None:
        await self._task.stop()
        await self._stop.stop()


class _Recovery:
    """Recovers before the service is ready; an exchange or database that is away is waited for."""

    name = "recovery"

    def __init__(self, parts: ExecRisk, lanes: BackgroundLanes, clock: Clock) -> None:
        self._parts = parts
        self._lanes = lanes
        self._clock = clock
        self._backoff = Backoff(base_seconds=0.2, factor=2.0, cap_seconds=5.0)

    async def start(self) -> None:
        failures = 0
        while True:
            try:
                await self._parts.recover()
                break
            except TransientError as error:
                failures += 1
                delay = self._backoff.delay(failures)
                log.warning("recovery_delayed", error=str(error), retry_in_seconds=delay)
                await self._clock.sleep(delay)
        await self._lanes.idle(_PROTECTION_SECONDS)

    async def stop(self) -> None:
        """Nothing to release."""


def _account_line(ledger: Ledger) -> str:
    book = ledger.book
    if ledger.is_fenced:
        return f"{book.account} was taken over by another process"
    if ledger.needs_recovery:
        return f"{book.account} is being recovered"
    return f"{book.account} at step {book.step}"


def _figures(ledger: Ledger, lanes: BackgroundLanes) -> dict[str, int]:
    book = ledger.book
    return {
        "open_positions": len(book.positions),
        "open_orders": len(book.open_orders()),
        "requests_under_way": lanes.under_way,
        "step": book.step,
    }
