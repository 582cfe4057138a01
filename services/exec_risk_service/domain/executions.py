"""An execution: one decision to trade a quantity, carried out by one or many child orders, answered once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from services.exec_risk_service.domain.orders import EntryPlan, Leg, Order
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO, round_price
from shared.trading.orders import Side


class Strategy(StrEnum):
    """How an execution is worked."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    TWAP = "TWAP"
    VWAP = "VWAP"
    SMART = "SMART"


class Urgency(StrEnum):
    """How much speed may cost."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the target that may be sent from ``due`` (market time) on; ``quantity`` in base asset."""

    due: datetime
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class Execution:
    """One decision and how far it is carried out. The terms never change; the progress follows the child orders.

    Attributes:
        execution_id: Derived from its cause: the key.
        cause_event_id: What its child intents are derived from: the event, or the event and the symbol where one
            event causes several executions.
        source_event_id: Event on the bus that asked for it; ``execution.result`` answers it.
        trace_id: Trace of that event.
        symbol: Venue symbol.
        side: BUY or SELL.
        leg: ENTRY opens or increases a position, REDUCE makes it smaller.
        quantity: Target, base asset, on the lot grid.
        leverage: Leverage of the position.
        arrival_price: Price at the decision, USDT: slippage is measured against it.
        strategy: How it is worked: never SMART, which only chooses.
        asked: Strategy that was asked for.
        urgency: How much speed may cost.
        tolerance_pct: Most slippage against the arrival price that is accepted, percent.
        started_at: Market time of the decision.
        decided_at: Wall time of the decision.
        expires_at: Market time after which nothing is sent any more.
        position_id: Position that it opens, increases or reduces.
        created_step: Step that made it.
        increases: The position was there before.
        explanation: Why it is worked like this.
        expected_pct: Slippage that the book promised for taking all at once, percent; None when it was not known.
        plan: Exits and origin of the position that an entry opens.
        exit_reason: Why the position ends if a reduction leaves nothing of it.
        schedule: Slices, oldest first; empty where the strategy has none.
        children: Child orders so far.
        chases: Resting orders that were moved after the market so far.
        attempts: Refusals for reasons of the moment in a row.
        retry_at: Wall time before which a refused order is not tried again.
        missed: The last child, which did not rest, ended without all of its quantity.
        filled_quantity: Base asset in fills.
        filled_value: Sum of price x quantity of those fills, USDT.
        commission: Fees of those fills, USDT.
        last_order_id: Client order id of the newest child; likewise ``last_exchange_id``.
        reason: Why it ended early.
        done: Its result was published.
    """

    execution_id: str
    cause_event_id: str
    source_event_id: str
    trace_id: str
    symbol: str
    side: Side
    leg: Leg
    quantity: Decimal
    leverage: int
    arrival_price: Decimal
    strategy: Strategy
    asked: Strategy
    urgency: Urgency
    tolerance_pct: Decimal
    started_at: datetime
    decided_at: datetime
    expires_at: datetime
    position_id: str
    created_step: int
    increases: bool = False
    explanation: str = ""
    expected_pct: Decimal | None = None
    plan: EntryPlan | None = None
    exit_reason: str = ""
    schedule: tuple[Slice, ...] = ()
    children: int = 0
    chases: int = 0
    attempts: int = 0
    retry_at: datetime | None = None
    missed: bool = False
    filled_quantity: Decimal = ZERO
    filled_value: Decimal = ZERO
    commission: Decimal = ZERO
    last_order_id: str = ""
    last_exchange_id: str = ""
    reason: str = ""
    done: bool = False

    @property
    def is_entry(self) -> bool:
        return self.leg is Leg.ENTRY

    @property
    def remaining(self) -> Decimal:
        """Base asset that is still to be traded; what filled too much counts as none."""
        return max(ZERO, self.quantity - self.filled_quantity)

    @property
    def average_price(self) -> Decimal | None:
        """Mean price of the fills, USDT; None before the first."""
        return self.filled_value / self.filled_quantity if self.filled_quantity else None

    @property
    def slippage_pct(self) -> Decimal | None:
        """Cost of the fills against the arrival price, percent; above 0 is worse; None before the first."""
        average = self.average_price
        return None if average is None else (average / self.arrival_price - 1) * 100 * self.side.sign

    def guard_price(self, instrument: Instrument) -> Decimal:
        """Return the worst price that is accepted, on the tick grid, USDT."""
        worst = self.arrival_price * (1 + self.side.sign * self.tolerance_pct / 100)
        return round_price(worst, instrument.tick_size, up=self.side is Side.SELL)

    def with_fill(self, quantity: Decimal, price: Decimal, commission: Decimal) -> Execution:
        """Return the execution with one more trade of its children."""
        return replace(
            self,
            filled_quantity=self.filled_quantity + quantity,
            filled_value=self.filled_value + quantity * price,
            commission=self.commission + commission,
        )

    def with_child(self, order: Order) -> Execution:
        """Return the execution with one more child order."""
        return replace(self, children=order.sequence, last_order_id=order.client_order_id, missed=False, retry_at=None)
