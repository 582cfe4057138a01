"""One applied input: the book after it, and everything that must be stored, published and sent because of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from services.exec_risk_service.domain import facts
from services.exec_risk_service.domain.account import AccountState
from services.exec_risk_service.domain.book import Book, Mark, TradeMemory, remember_orders
from services.exec_risk_service.domain.executions import Execution
from services.exec_risk_service.domain.kelly import TradeRecord
from services.exec_risk_service.domain.orders import Order
from services.exec_risk_service.domain.pace import LastClose, Pace
from services.exec_risk_service.domain.positions import Origin, Position
from services.exec_risk_service.domain.price_history import PriceHistories, PriceHistory
from services.exec_risk_service.domain.risk_checks import max_daily_drawdown, max_positions
from services.exec_risk_service.domain.rules import Context
from services.exec_risk_service.domain.slippage import SlippageMemory
from services.exec_risk_service.domain.trading_state import TradingStatus
from shared.events.envelope import EventPayload
from shared.events.v3 import RiskAlertPayload
from shared.ids import derive_id
from shared.trading.candles import Candle
from shared.trading.policy import Fraction, to_percent
from shared.trading.positions import Fill


@dataclass(frozen=True, slots=True)
class Fact:
    """One event to publish, with the id that it keeps however often it is published."""

    event_type: str
    payload: EventPayload
    event_id: str
    trace_id: str
    causation_id: str | None


@dataclass(frozen=True, slots=True)
class SubmitOrder:
    """Send the intent ``client_order_id``; exits have their own lane."""

    client_order_id: str
    is_exit: bool


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """Cancel the resting order ``client_order_id``."""

    client_order_id: str


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Compare ``symbol`` with the exchange: it contradicted what we believe."""

    symbol: str


@dataclass(frozen=True, slots=True)
class EndExposure:
    """Carry out the emergency stop ``stop_id``: cancel and close everything."""

    stop_id: str


Request = SubmitOrder | CancelOrder | Reconcile | EndExposure


@dataclass(frozen=True, slots=True)
class Step:
    """What one input did. Stored in one transaction; then the book is swapped and the requests go out.

    Attributes:
        number: 1, 2, ... per account.
        cause_event_id: Bus event behind the input, to be marked as handled; None for reports of the exchange.
        book: The account after the input.
        orders: Orders that are new or changed.
        fills: Trades booked.
        positions: Positions that are new, changed or closed.
        executions: Executions that are new, changed or done.
        slippage: Memories of slippage that changed.
        cursors: ``(symbol, base, confirmed)`` of the trades that are read, where they moved.
        candles: Closed candles that joined the histories.
        facts: Events in the order of their publication.
        requests: What to send afterwards.
    """

    number: int
    cause_event_id: str | None
    book: Book
    orders: tuple[Order, ...] = ()
    fills: tuple[Fill, ...] = ()
    positions: tuple[Position, ...] = ()
    executions: tuple[Execution, ...] = ()
    slippage: tuple[SlippageMemory, ...] = ()
    cursors: tuple[tuple[str, int, int], ...] = ()
    candles: tuple[Candle, ...] = ()
    facts: tuple[Fact, ...] = ()
    requests: tuple[Request, ...] = ()


class Turn:
    """Collects what one input does. Lives only inside ``decide``; nothing of it escapes but the finished step."""

    def __init__(self, book: Book, context: Context) -> None:
        self.context = context
        self.number = book.step + 1
        self.cash: AccountState = book.cash
        self.orders: dict[str, Order] = dict(book.orders)
        self.positions: dict[str, Position] = dict(book.positions)
        self.marks: dict[str, Mark] = dict(book.marks)
        self.trades: dict[str, TradeMemory] = dict(book.trades)
        self.history = _histories(book.history)
        self.pace: Pace = book.pace
        self.record: TradeRecord = book.record
        self.trading: TradingStatus = book.trading
        self.executions: dict[str, Execution] = dict(book.executions)
        self.slippage: dict[str, SlippageMemory] = dict(book.slippage)
        self._before = book
        self._touched_orders: dict[str, Order] = {}
        self._touched_positions: dict[str, Position] = {}
        self._touched_executions: dict[str, Execution] = {}
        self._touched_slippage: dict[str, SlippageMemory] = {}
        self._fills: list[Fill] = []
        self._facts: list[Fact] = []
        self._requests: list[Request] = []

    @property
    def account(self) -> str:
        return self._before.account

    @property
    def book(self) -> Book:
        """The account as it stands at this point of the turn; a view, only good until the next change."""
        return Book(
            account=self.account,
            step=self.number,
            cash=self.cash,
            orders=self.orders,
            positions=self.positions,
            marks=self.marks,
            trades=self.trades,
            history=self.history,
            pace=self.pace,
            record=self.record,
            trading=self.trading,
            executions=self.executions,
            slippage=self.slippage,
        )

    # -- what this turn did ----------------------------------------------------------------------------------------

    @property
    def before(self) -> Book:
        """The account before this turn."""
        return self._before

    @property
    def changed_orders(self) -> Collection[Order]:
        """Orders that this turn made or changed."""
        return self._touched_orders.values()

    @property
    def changed_positions(self) -> Collection[Position]:
        """Positions that this turn opened, changed or closed."""
        return self._touched_positions.values()

    @property
    def fills(self) -> Sequence[Fill]:
        """Trades that this turn booked."""
        return self._fills

    # -- state -----------------------------------------------------------------------------------------------------

    def save_order(self, order: Order) -> None:
        """Put a new or changed order into the book."""
        self.orders[order.client_order_id] = order
        self._touched_orders[order.client_order_id] = order

    def save_position(self, position: Position) -> None:
        """Put a new or changed position into the book; a flat one leaves it."""
        self._touched_positions[position.position_id] = position
        if not position.net.is_flat:
            self.positions[position.symbol] = position
        elif self._holds(position):
            del self.positions[position.symbol]

    def touched_positions(self) -> list[Position]:
        """Return the positions that this turn, or a change of one of their orders, may have left without a stop."""
        known = {**{one.position_id: one for one in self.positions.values()}, **self._touched_positions}
        changed = [*self._touched_positions, *(order.position_id for order in self._touched_orders.values())]
        return [known[name] for name in dict.fromkeys(changed) if name in known]

    def _holds(self, position: Position) -> bool:
        held = self.positions.get(position.symbol)
        return held is not None and held.position_id == position.position_id

    def save_execution(self, execution: Execution) -> None:
        """Put a new or changed execution into the book; one that is done leaves it."""
        self._touched_executions[execution.execution_id] = execution
        if execution.done:
            self.executions.pop(execution.execution_id, None)
        else:
            self.executions[execution.execution_id] = execution

    def save_slippage(self, memory: SlippageMemory) -> None:
        """Put what an execution cost into the book."""
        self.slippage[memory.symbol] = self._touched_slippage[memory.symbol] = memory

    def note_fill(self, fill: Fill) -> None:
        """Remember the trade so that it is booked once."""
        self._fills.append(fill)
        known = self.trades.get(fill.symbol) or TradeMemory(base=max(0, fill.trade_id - 1))
        self.trades[fill.symbol] = known.with_trade(fill.trade_id)

    def note_candles(self, symbol: str, candles: Iterable[Candle]) -> bool:
        """Add closed candles to the history of ``symbol``; tell whether any was new."""
        before = self.history
        self.history = before.with_candles(symbol, candles)
        return self.history is not before

    def note_closed(self, position: Position) -> None:
        """Remember how one of our positions ended: its symbol rests, and sizes follow the record."""
        assert position.closed_at is not None
        self.pace = self.pace.closed(position.symbol, LastClose(position.closed_at, position.net_pnl))
        if position.origin is Origin.SIGNAL:
            self.record = self.record.with_result(float(position.net_pnl / position.opened_value))

    def note_entry(self) -> None:
        """Take one entry out of the bucket."""
        now = self.book.market_time
        if now is not None:  # without any price nothing is entered
            self.pace = self.pace.entered(now, self.context.rules.limits.max_entries_per_minute)

    # -- events ----------------------------------------------------------------------------------------------------

    def next_event_id(self) -> str:
        """Return the id that the next published event will have."""
        return derive_id("exec-risk", self.account, str(self.number), str(len(self._facts)))

    def publish(self, event_type: str, payload: EventPayload, *, trace_id: str, causation_id: str | None) -> str:
        """Queue one event; its metadata tells the step. Returns its id."""
        event_id = self.next_event_id()
        numbered = payload.model_copy(update={"metadata": {**payload.metadata, "step": self.number}})
        self._facts.append(Fact(event_type, numbered, event_id, trace_id, causation_id))
        return event_id

    def publish_order(self, order: Order, *, causation_id: str | None = None, fill: Fill | None = None) -> str:
        """Save ``order`` and tell its new state; the cause is the event that announced it unless said otherwise."""
        self.save_order(order)
        return self.publish(
            "order.updated",
            facts.order_updated(order, fill, self.executions.get(order.execution_id)),
            trace_id=order.provenance.trace_id,
            causation_id=causation_id or order.provenance.first_event_id,
        )

    def publish_account(self, *, trace_id: str, causation_id: str | None) -> None:
        """Tell the account's figures, once they are known."""
        if self.cash.wallet is not None:
            payload = facts.account_updated(self.book)
            self.publish("account.updated", payload, trace_id=trace_id, causation_id=causation_id)

    def alert(
        self,
        alert_type: str,
        message: str,
        *,
        severity: Literal["LOW", "MEDIUM", "HIGH", "CRITICAL"],
        symbols: tuple[str, ...] = (),
        action: Literal["BLOCK_TRADES", "REDUCE_LEVERAGE", "CLOSE_POSITIONS", "EMERGENCY_STOP"] | None = None,
        trace_id: str | None = None,
        causation_id: str | None = None,
        metadata: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """Tell a person that risk management acted or found something wrong."""
        book = self.book
        equity = book.equity()
        limit = to_percent(Fraction(float(max_daily_drawdown(self.context))))
        payload = RiskAlertPayload(
            severity=severity,
            alert_type=alert_type,
            message=message,
            current_drawdown_pct=None if equity is None else float(book.cash.drawdown(equity) * 100),
            max_allowed_drawdown_pct=limit,
            open_positions_count=len(book.positions),
            max_positions=max_positions(self.context),
            total_exposure_usd=float(book.gross_exposure()),
            action_taken=action,
            affected_symbols=symbols or None,
            risk_profile=self.context.policy.mode.value,
            metadata=dict(metadata),
        )
        return self.publish("risk.alert", payload, trace_id=trace_id or self.own_trace(), causation_id=causation_id)

    def own_trace(self) -> str:
        """Return a trace id for what no other trace explains."""
        return derive_id("trace", self.account, str(self.number))

    # -- after the commit --------------------------------------------------------------------------------------------

    def request(self, request: Request) -> None:
        """Ask for something to be sent once the step is stored."""
        self._requests.append(request)

    def mark_equity(self, at: datetime) -> None:
        """Note the peaks of equity."""
        equity = self.book.equity()
        if equity is not None:
            self.cash = self.cash.marked(equity, at.date())

    def finish(self, cause_event_id: str | None, recorded_input: dict[str, Any]) -> Step | None:
        """Return the step, or None when nothing changed. Its first event carries the input, for replay."""
        book = self.book
        if not self._facts and not self._requests and _same_state(book, self._before):
            return None
        if self._facts:
            first = self._facts[0]
            payload = first.payload.model_copy(update={"metadata": {**first.payload.metadata, "input": recorded_input}})
            self._facts[0] = replace(first, payload=payload)
        return Step(
            number=self.number,
            cause_event_id=cause_event_id,
            book=replace(
                book,
                orders=self._remembered_orders(),
                positions=MappingProxyType(self.positions),
                marks=MappingProxyType(self.marks),
                trades=MappingProxyType(self.trades),
                executions=MappingProxyType(self.executions),
                slippage=MappingProxyType(self.slippage),
            ),
            orders=tuple(self._touched_orders.values()),
            fills=tuple(self._fills),
            positions=tuple(self._touched_positions.values()),
            executions=tuple(self._touched_executions.values()),
            slippage=tuple(self._touched_slippage.values()),
            cursors=self._moved_cursors(),
            candles=self._new_candles(),
            facts=tuple(self._facts),
            requests=tuple(self._requests),
        )

    def _remembered_orders(self) -> Mapping[str, Order]:
        if not self._touched_orders:
            return self._before.orders
        return MappingProxyType(remember_orders(self.orders))

    def _new_candles(self) -> tuple[Candle, ...]:
        before = self._before.history
        return tuple(
            candle
            for symbol, history in self.history.items()
            if history is not before.get(symbol)
            for candle in history.newer_than(before.get(symbol))
        )

    def _moved_cursors(self) -> tuple[tuple[str, int, int], ...]:
        before = self._before.trades
        return tuple(
            (symbol, memory.base, memory.confirmed)
            for symbol, memory in self.trades.items()
            if symbol not in before or memory.confirmed != before[symbol].confirmed
        )


def _histories(history: Mapping[str, PriceHistory]) -> PriceHistories:
    return history if isinstance(history, PriceHistories) else PriceHistories(history)


def _same_state(one: Book, other: Book) -> bool:
    return replace(one, step=0) == replace(other, step=0)
