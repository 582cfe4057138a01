"""exec-risk in one process for tests: real handlers and domain, the matching engine, a bus that remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from infrastructure.paper_exchange.matching_engine import MatchingEngine
from infrastructure.replay.engine_venue import EngineVenue
from services.exec_risk_service.adapters.memory_journal import MemoryJournal, MemoryStore
from services.exec_risk_service.app import ExecRisk, assemble
from services.exec_risk_service.domain.account_terms import AccountTerms
from services.exec_risk_service.domain.orders import Leg, Order
from services.exec_risk_service.domain.quotes import Quote
from services.exec_risk_service.domain.reports import CashReport, OrderReport, VenueAccount
from services.exec_risk_service.domain.rules import Rules
from services.exec_risk_service.handlers.lanes import InlineLanes
from services.exec_risk_service.ports import OrderJournal, OrderRef
from shared.bus.event_bus import Handler
from shared.clock import ManualClock
from shared.events.envelope import Event, EventMetadata, EventPayload
from shared.events.v3 import (
    CandleClosedPayload,
    ExecutionRequestPayload,
    PortfolioBalancePayload,
    ProfitAmplificationPayload,
    SignalGeneratedPayload,
)
from shared.exchange.request_costs import Priority, as_it_matters, request_of
from shared.ids import SeededIds, derive_id
from shared.policy.store import PolicyStore
from shared.trading.candles import Candle
from shared.trading.instruments import Instrument
from shared.trading.policy import DEFAULT_POLICIES, PolicyState, RiskMode
from shared.trading.positions import Fill
from tests.support.markets import BTC, START, Prices, WrittenSource

ACCOUNT = "paper:test"
WALL = datetime(2026, 1, 1, tzinfo=UTC)
NORMAL = PolicyState(RiskMode.NORMAL, DEFAULT_POLICIES[RiskMode.NORMAL], version=1)


class FixedPolicy:
    """A policy store that holds one policy."""

    def __init__(self, state: PolicyState = NORMAL) -> None:
        self.state = state

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def current(self) -> PolicyState:
        return self.state

    async def refresh(self) -> PolicyState:
        return self.state


class RecordingBus:
    """An event bus without consumers that keeps what was published; ``broken`` makes publishing fail."""

    def __init__(self) -> None:
        self.events: list[Event[Any]] = []
        self.handlers: dict[str, Handler] = {}
        self.broken: Exception | None = None

    async def publish(
        self,
        event_type: str,
        payload: EventPayload,
        *,
        trace_id: str | None = None,
        causation_id: str | None = None,
        event_id: str | None = None,
    ) -> Event[Any]:
        if self.broken is not None:
            raise self.broken
        metadata = EventMetadata(
            event_id=event_id or "",
            event_type=event_type,
            trace_id=trace_id or "",
            causation_id=causation_id,
            timestamp=WALL,
            source="exec-risk-service",
            sequence=len(self.events) + 1,
        )
        event = Event(metadata, payload)
        self.events.append(event)
        return event

    def subscribe(self, pattern: str, handler: Handler) -> None:
        self.handlers[pattern] = handler

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def of(self, event_type: str) -> list[Any]:
        """Return the payloads of one type in order."""
        return [event.payload for event in self.events if event.metadata.event_type == event_type]

    def types(self) -> list[str]:
        return [event.metadata.event_type for event in self.events]


class FaultyVenue:
    """An engine behind requests that fail as a test asks.

    Attributes:
        before: Errors to raise instead of sending, by kind of request (``submit``, ``cancel``, ``find``,
            ``leverage``), next one first.
        after: Errors to raise although the request was carried out.
        sent: Client order ids in the order in which orders were sent.
        hidden: Client order ids that look-ups do not show yet.
        listings: How often the open orders were asked for.
        priority: With which priority that was the last time.
    """

    def __init__(self, engine: MatchingEngine) -> None:
        self.engine = engine
        self.inner = EngineVenue(engine)
        self.before: dict[str, list[Exception]] = {}
        self.after: dict[str, list[Exception]] = {}
        self.sent: list[str] = []
        self.hidden: set[str] = set()
        self.listings = 0
        self.priority: Priority | None = None
        self.terms = AccountTerms()

    async def submit(self, order: Order) -> OrderReport:
        self._strike(self.before, f"submit:{order.leg.value}")
        self._strike(self.before, "submit")
        self.sent.append(order.client_order_id)
        report = await self.inner.submit(order)
        self._strike(self.after, f"submit:{order.leg.value}")
        self._strike(self.after, "submit")
        return report

    async def cancel(self, ref: OrderRef) -> OrderReport:
        self._strike(self.before, "cancel")
        report = await self.inner.cancel(ref)
        self._strike(self.after, "cancel")
        return report

    async def set_leverage(self, symbol: str, leverage: int) -> None:
        self._strike(self.before, "leverage")
        await self.inner.set_leverage(symbol, leverage)

    async def find_order(self, ref: OrderRef) -> OrderReport | None:
        self._strike(self.before, "find")
        report = await self.inner.find_order(ref)
        return None if report is None or report.client_order_id in self.hidden else report

    async def account(self) -> VenueAccount:
        self._strike(self.before, "account")
        return await self.inner.account()

    async def open_orders(self) -> tuple[OrderReport, ...]:
        self.listings += 1
        self.priority = as_it_matters(request_of("GET", "openOrders", {})).priority
        self._strike(self.before, "open_orders")
        return await self.inner.open_orders()

    async def fills_after(self, symbol: str, trade_id: int | None) -> tuple[Fill, ...]:
        # As on the wire: the list of trades does not tell client ids.
        fills = await self.inner.fills_after(symbol, trade_id)
        return tuple(replace(fill, client_order_id="") for fill in fills)

    async def payments_since(self, moment: datetime) -> tuple[CashReport, ...]:
        return await self.inner.payments_since(moment)

    async def quote(self, symbol: str) -> Quote:
        self._strike(self.before, "quote")
        return await self.inner.quote(symbol)

    async def instruments(self) -> Mapping[str, Instrument]:
        return await self.inner.instruments()

    async def account_terms(self) -> AccountTerms:
        return self.terms

    async def candles(self, symbol: str, timeframe: str, start: datetime, end: datetime) -> Sequence[Candle]:
        self._strike(self.before, "candles")
        return await self.inner.candles(symbol, timeframe, start, end)

    def _strike(self, faults: dict[str, list[Exception]], kind: str) -> None:
        if faults.get(kind):
            raise faults[kind].pop(0)


@dataclass(slots=True)
class Desk:
    """One exchange and one durable journal; ``restart`` builds the service anew over both, as a new process would."""

    venue: FaultyVenue
    journal: OrderJournal
    store: MemoryStore | None
    bus: RecordingBus = field(default_factory=RecordingBus)
    clock: ManualClock = field(default_factory=lambda: ManualClock(WALL))
    market_clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    policy: PolicyStore = field(default_factory=FixedPolicy)
    rules: Rules = field(default_factory=Rules)
    service: ExecRisk = field(init=False)
    entry_bar: Callable[[], str | None] = lambda: None
    ids: SeededIds = field(default_factory=lambda: SeededIds(7))
    count: int = 0
    neighbours: list[Event[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.service = self.assemble()

    def assemble(self) -> ExecRisk:
        return assemble(
            account=ACCOUNT,
            symbols=self.venue.engine.symbols,
            rules=self.rules,
            bus=self.bus,
            rpc=None,
            policy=self.policy,
            clock=self.clock,
            market_clock=self.market_clock,
            venue=self.venue,
            journal=self.journal,
            lanes=InlineLanes(),
            entry_bar=self.entry_bar,
        )

    async def start(self) -> None:
        await self.service.recover()

    async def restart(self, *, journal: OrderJournal | None = None) -> None:
        """Forget everything that is not in the journal, and recover."""
        self.journal = journal or MemoryJournal(self.store)
        self.venue.engine.take_events()  # a user stream that nobody read is gone
        self.service = self.assemble()
        await self.service.recover()
        await self.settle()

    async def settle(self) -> None:
        """Deliver what the user stream has to say."""
        await self.venue.inner.deliver(self.service.on_report)

    async def advance(self, minutes: float) -> None:
        """Let the market run, and deliver what happened on the way."""
        moment = self.market_clock.now() + timedelta(minutes=minutes)
        self.venue.engine.advance_to(moment)
        self.market_clock.advance_to(moment)
        self.clock.advance(minutes * 60)
        await self.settle()

    async def tick(self, seconds: float = 1.0) -> None:
        """Let wall time pass and do what the background loops of the live service do."""
        self.clock.advance(seconds)
        await self.service.executions.work()
        await self.service.reconciler.chase()
        await self.service.reconciler.upkeep()
        await self.settle()

    async def candle(self, *, symbol: str = BTC, **changes: Any) -> Event[Any]:
        """Close a candle at the engine's last price."""
        event = self.candle_event(symbol=symbol, **changes)
        await self.service.handlers.position_monitor.on_candle(event)
        await self.settle()
        return event

    async def candle_later(self, minutes: float = 1.0) -> Event[Any]:
        """Let the market run and close a candle."""
        await self.advance(minutes)
        return await self.candle()

    async def signal(self, action: str = "BUY", **changes: Any) -> Event[Any]:
        """Hand over one signal and let the exchange answer."""
        event = self.signal_event(action, **changes)
        await self.service.handlers.order_executor.on_signal(event)
        await self.settle()
        return event

    async def ask(self, side: str = "BUY", **changes: Any) -> Event[Any]:
        """Hand over one request for a trade and let the exchange answer."""
        fields: dict[str, Any] = {
            "symbol": BTC,
            "side": side,
            "position_size_usd": 500.0,
            "leverage": 5,
            "execution_strategy": "MARKET",
            "signal_confidence": 1.0,
            "signal_source": "a person",
        }
        event = self._event("execution.request", ExecutionRequestPayload(**fields | changes))
        await self.service.handlers.order_executor.on_execution_request(event)
        await self.settle()
        return event

    async def amplify(self, action: str, **changes: Any) -> Event[Any]:
        """Hand over one decision about a winner or a loser and let the exchange answer."""
        fields: dict[str, Any] = {
            "symbol": BTC,
            "action": action,
            "current_pnl_pct": 1.0,
            "amplification_factor": 1.5,
            "additional_size_usd": 250.0,
        }
        event = self._event("profit.amplification", ProfitAmplificationPayload(**fields | changes))
        await self.service.handlers.portfolio_manager.on_amplification(event)
        await self.settle()
        return event

    async def rebalance(self, *adjustments: tuple[str, float], action: str = "REBALANCE_REQUIRED") -> Event[Any]:
        """Hand over one rebalancing and let the exchange answer."""
        fields: dict[str, Any] = {
            "action": action,
            "total_exposure_usd": 1_000.0,
            "max_allowed_exposure_usd": 900.0,
            "position_count": 1,
            "max_positions": 5,
            "adjustments": [{"symbol": symbol, "delta_usd": delta} for symbol, delta in adjustments],
        }
        event = self._event("portfolio.balance", PortfolioBalancePayload(**fields))
        await self.service.handlers.portfolio_manager.on_balance(event)
        await self.settle()
        return event

    def candle_event(self, *, symbol: str = BTC, **changes: Any) -> Event[Any]:
        price = float(self.venue.engine.quote(symbol).last)
        close_time = self.market_clock.now()
        fields: dict[str, Any] = {
            "symbol": symbol,
            "timeframe": "1m",
            "open_time": close_time - timedelta(minutes=1),
            "close_time": close_time,
            "open": price,
            "high": price,
            "low": price,
            "close": price,
            "volume": 1.0,
            "source": "test",
        }
        return self._event("candle.closed", CandleClosedPayload(**fields | changes))

    def signal_event(self, action: str = "BUY", *, symbol: str = BTC, **changes: Any) -> Event[Any]:
        fields: dict[str, Any] = {
            "symbol": symbol,
            "action": action,
            "confidence": 0.9,
            "model_source": "ensemble",
            "score": 0.9,
            "price": float(self.venue.engine.quote(symbol).last),
            "suggested_size_usd": 500.0,
            "suggested_leverage": 5.0,
            "metadata": {
                "stop_loss_pct": 2.0,
                "take_profit_pct": 4.0,
                "candle_close_time": self.market_clock.now().isoformat(),
            },
        }
        return self._event("signal.generated", SignalGeneratedPayload(**fields | changes))

    def _event(self, event_type: str, payload: EventPayload) -> Event[Any]:
        self.count += 1
        metadata = EventMetadata(
            event_id=derive_id("test", event_type, str(self.count)),
            event_type=event_type,
            trace_id=derive_id("trace", str(self.count)),
            causation_id=None,
            timestamp=self.clock.now(),
            source="ai-service",
            sequence=self.count,
        )
        event = Event(metadata, payload)
        self.neighbours.append(event)
        return event

    # -- looking inside --------------------------------------------------------------------------------------------

    @property
    def book(self) -> Any:
        return self.service.ledger.book

    def orders(self, leg: Leg) -> list[Order]:
        return [order for order in self.book.orders.values() if order.leg is leg]

    def agrees_with_exchange(self, symbol: str = BTC) -> bool:
        """Tell whether position, wallet and fills are what the exchange has."""
        engine = self.venue.engine
        position = self.book.positions.get(symbol)
        ours = position.net.quantity if position else Decimal(0)
        return bool(ours == engine.position(symbol).quantity and self.book.cash.wallet == engine.account().wallet)


def desk_on(
    prices: Sequence[Prices],
    *,
    volume: float = 100_000.0,
    wallet: str = "10000",
    rules: Rules | None = None,
    journal: OrderJournal | None = None,
    policy: PolicyStore | None = None,
    rates: Mapping[datetime, Decimal] | None = None,
    start: datetime = START,
    entry_bar: Callable[[], str | None] = lambda: None,
) -> Desk:
    """Return a desk on one-minute candles of BTCUSDT; not started yet."""
    source = WrittenSource(prices, volume=volume, rates=rates, start=start)
    engine = MatchingEngine(source, start=start, wallet=Decimal(wallet))
    store = MemoryStore()
    return Desk(
        FaultyVenue(engine),
        journal or MemoryJournal(store),
        None if journal else store,
        policy=policy or FixedPolicy(),
        rules=rules or Rules(),
        market_clock=ManualClock(start),
        entry_bar=entry_bar,
    )


async def started_desk(prices: Sequence[Prices], **options: Any) -> Desk:
    """Return a desk that recovered and knows a price."""
    desk = desk_on(prices, **options)
    await desk.start()
    await desk.candle()
    return desk
