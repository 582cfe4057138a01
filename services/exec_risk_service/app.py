"""Composition root: the one file that names the concrete parts of exec-risk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Protocol

from services.exec_risk_service.domain.reports import VenueReport
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.domain.step import Request
from services.exec_risk_service.handlers import event_handlers, rpc_handlers
from services.exec_risk_service.handlers.ledger import Ledger
from services.exec_risk_service.handlers.order_executor import OrderExecutor
from services.exec_risk_service.handlers.order_sender import OrderSender
from services.exec_risk_service.handlers.outbox_relay import OutboxRelay
from services.exec_risk_service.handlers.position_monitor import PositionMonitor
from services.exec_risk_service.handlers.reconciler import Reconciler
from services.exec_risk_service.handlers.risk_validator import RiskValidator
from services.exec_risk_service.ports import AccountView, OrderGateway, OrderJournal, TradingTerms
from shared.bus.event_bus import EventBus
from shared.clock import Clock
from shared.policy.store import PolicyStore
from shared.rpc.server import RpcServer
from shared.telemetry.metrics import Metrics


class OpenableLanes(Protocol):
    """Lanes that learn from the composition root who does the work."""

    def open(self, sender: OrderSender, reconciler: Reconciler) -> None: ...

    async def dispatch(self, requests: tuple[Request, ...]) -> None: ...


class Venue(OrderGateway, AccountView, TradingTerms, Protocol):
    """An exchange: one object behind three ports."""


@dataclass(frozen=True, slots=True)
class ExecRisk:
    """The wired service, without anything that runs by itself.

    Attributes:
        ledger: Single writer and holder of the book.
        reconciler: Recovery and comparison with the exchange.
        relay: Outbox to bus.
        executor: Handler of signals.
        monitor: Handler of candles, reports and questions about positions.
        validator: Handler of ``validate_risk``.
    """

    ledger: Ledger
    reconciler: Reconciler
    relay: OutboxRelay
    executor: OrderExecutor
    monitor: PositionMonitor
    validator: RiskValidator

    async def recover(self) -> None:
        """Bring journal and exchange together and publish what was left; before this nothing may be applied."""
        await self.reconciler.recover()
        await self.relay.drain()

    async def on_report(self, report: VenueReport) -> None:
        """Apply one line of the user stream."""
        await self.monitor.on_report(report)


def assemble(
    *,
    account: str,
    symbols: Collection[str],
    rules: Rules,
    bus: EventBus,
    rpc: RpcServer | None,
    policy: PolicyStore,
    clock: Clock,
    market_clock: Clock,
    venue: Venue,
    journal: OrderJournal,
    lanes: OpenableLanes,
    wake_relay: Callable[[], Awaitable[None]] | None = None,
    metrics: Metrics | None = None,
) -> ExecRisk:
    """Wire the service out of ports and subscribe its handlers; nothing is started.

    Args:
        account: Name of the account and its run, ``paper:live``: every row of the journal carries it.
        symbols: Venue symbols that are traded.
        rules: Limits of the installation.
        bus: Where events come from and go to.
        rpc: Server for the commands; None where nobody asks.
        policy: Policy in force.
        clock: Wall clock.
        market_clock: Market time.
        venue: The exchange.
        journal: Durable record.
        lanes: How requests leave: one after the other (replay) or in the background (live).
        wake_relay: Tells a background task that events wait; None publishes them before each input returns.
        metrics: Where orders are counted.
    """
    relay = OutboxRelay(journal, bus)

    async def publish_now() -> None:
        await relay.drain()

    ledger = Ledger(
        account=account,
        journal=journal,
        policy=policy,
        rules=rules,
        clock=clock,
        lanes=lanes,
        on_stored=wake_relay or publish_now,
    )
    reconciler = Reconciler(
        ledger,
        gateway=venue,
        view=venue,
        terms=venue,
        clock=clock,
        market_clock=market_clock,
        symbols=symbols,
    )
    lanes.open(OrderSender(ledger, venue, metrics), reconciler)
    executor, monitor = OrderExecutor(ledger), PositionMonitor(ledger, reconciler)
    validator = RiskValidator(ledger)
    for pattern, handler in event_handlers(executor, monitor).items():
        bus.subscribe(pattern, handler)
    if rpc is not None:
        for command, answer in rpc_handlers(validator, monitor).items():
            rpc.register(command, answer)
    return ExecRisk(ledger, reconciler, relay, executor, monitor, validator)
