"""Our orders: the intent that is committed before anything is sent, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from shared.trading.money import ZERO
from shared.trading.orders import OrderStatus, OrderType, Side, TimeInForce


class Leg(StrEnum):
    """What an order is for; with the cause and a sequence number it names the intent."""

    ENTRY = "entry"
    STOP = "stop"
    TAKE_PROFIT = "take_profit"
    EXIT = "exit"
    REDUCE = "reduce"

    @property
    def is_protective(self) -> bool:
        """True for the orders that rest on the exchange to close a position."""
        return self in (Leg.STOP, Leg.TAKE_PROFIT)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Whose order it is.

    Attributes:
        trace_id: Trace of the position's entry signal, for the whole life of the position.
        first_event_id: ``order.updated`` that announced the intent: cause of all that follows.
        result_trace_id: Trace in which ``execution.result`` answers (an exit answers the signal that asked for it).
        result_causation_id: Event that ``execution.result`` answers; empty for ``first_event_id``.
    """

    trace_id: str
    first_event_id: str
    result_trace_id: str
    result_causation_id: str = ""


@dataclass(frozen=True, slots=True)
class EntryPlan:
    """What the signal wants for the position it opens.

    Attributes:
        stop_loss_pct: Distance of the stop from the entry price, percent.
        take_profit_pct: Distance of the target, percent; None for no target.
        confidence: Of the signal, 0 to 1; None when no signal was behind it.
        model: Name of the model that spoke; empty likewise.
        sizing: How the size came about, in words; empty when someone named it.
    """

    stop_loss_pct: Decimal
    take_profit_pct: Decimal | None
    confidence: float | None = None
    model: str = ""
    sizing: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """One intent and its fate. The terms never change; the fate follows reports and fills.

    Attributes:
        client_order_id: Derived from (cause, leg, sequence): the key.
        cause_event_id: Event that caused the intent.
        leg: What it is for.
        sequence: 1, 2, ... within cause and leg.
        symbol: Venue symbol.
        side: BUY or SELL.
        order_type: MARKET, LIMIT, STOP_MARKET or TAKE_PROFIT_MARKET.
        quantity: Base asset.
        trigger_price: USDT, for conditional orders.
        leverage: Leverage of the position.
        arrival_price: Price at the decision, USDT: slippage is measured against it.
        position_id: Position that it opens or closes.
        provenance: Trace and causes of its events.
        created_step: Step that made it.
        created_at: Market time of the decision.
        plan: Exits and origin of the position that an entry opens.
        price: Limit, USDT; None for orders without one.
        time_in_force: How long it may rest; None for orders without a limit.
        execution_id: The execution that it is a child of; empty for orders that answer for themselves.
        status: Where it stands.
        reason: Why it was refused or lost.
        exchange_order_id: Id of the regular order, once known.
        algo_id: Id of the conditional order, once known.
        filled_quantity: Base asset in fills that we hold.
        filled_value: Sum of price x quantity of those fills, USDT.
        commission: Fees of those fills, USDT.
        reported_filled: Most that the exchange ever said was executed, base asset.
        pending_status: Last state that the exchange told, held back until the fills behind it are here.
        sent_at: Wall time at which the request was about to go out.
        cancel_requested: A cancel is under way.
        settled: Its last word was published.
    """

    client_order_id: str
    cause_event_id: str
    leg: Leg
    sequence: int
    symbol: str
    side: Side
    order_type: OrderType
    quantity: Decimal
    trigger_price: Decimal | None
    leverage: int
    arrival_price: Decimal
    position_id: str
    provenance: Provenance
    created_step: int
    created_at: datetime
    plan: EntryPlan | None = None
    price: Decimal | None = None
    time_in_force: TimeInForce | None = None
    execution_id: str = ""
    status: OrderStatus = OrderStatus.INITIALIZED
    reason: str = ""
    exchange_order_id: str = ""
    algo_id: str = ""
    filled_quantity: Decimal = ZERO
    filled_value: Decimal = ZERO
    commission: Decimal = ZERO
    reported_filled: Decimal = ZERO
    pending_status: OrderStatus | None = None
    sent_at: datetime | None = None
    cancel_requested: bool = False
    settled: bool = False

    @property
    def is_reduce_only(self) -> bool:
        return self.leg is not Leg.ENTRY

    @property
    def rests(self) -> bool:
        """True when it may stay in the exchange's book of regular orders."""
        return self.time_in_force is not None and self.time_in_force.rests

    @property
    def misses_fills(self) -> bool:
        """The exchange executed more than we hold fills for."""
        return self.reported_filled > self.filled_quantity

    @property
    def is_final(self) -> bool:
        """It has a last state, which is entered only with every fill of it at hand; a fill may still come late."""
        return self.status.is_terminal

    @property
    def is_finished(self) -> bool:
        """Nothing more is expected of the exchange: neither a state nor a fill."""
        return self.is_final and not self.misses_fills

    @property
    def remaining(self) -> Decimal:
        """Quantity that may still execute, or did without a fill at hand."""
        return ZERO if self.status.is_terminal else max(ZERO, self.quantity - self.filled_quantity)

    @property
    def average_price(self) -> Decimal | None:
        """Mean price of the fills, USDT; None before the first."""
        return self.filled_value / self.filled_quantity if self.filled_quantity else None
