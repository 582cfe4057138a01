"""What a planner sees and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeAlias

from services.exec_risk_service.domain.executions import Slice, Urgency
from services.exec_risk_service.domain.quotes import Quote
from shared.trading.instruments import Instrument
from shared.trading.money import ZERO, round_down
from shared.trading.orders import OrderType, Side, TimeInForce


@dataclass(frozen=True, slots=True)
class RestingChild:
    """A child order that rests on the exchange.

    Attributes:
        price: Its limit, USDT.
        since: Market time of its decision.
    """

    price: Decimal
    since: datetime


@dataclass(frozen=True, slots=True)
class SliceView:
    """All that a planner may look at. At most one child is under way: a planner is asked when none is, or it rests.

    Attributes:
        side: BUY or SELL.
        instrument: Grids and smallest order.
        target: Base asset to trade in all.
        filled: Base asset traded so far.
        guard_price: Worst price that is accepted, USDT.
        arrival_price: Price at the decision, USDT.
        started_at: Market time of the decision.
        ends_at: Market time after which nothing is sent.
        now: Market time.
        quote: The exchange's book; None while it is not known.
        urgency: How much speed may cost.
        schedule: Slices, oldest first.
        resting: The child that rests; None when none does.
        chases: Children that were moved after the market so far.
        missed: The last child, which did not rest, ended without all of its quantity.
        children: Children so far.
        last_sent: Market time of the last child; None before the first.
        is_reduce_only: May only make a position smaller: the smallest value of an order does not apply.
    """

    side: Side
    instrument: Instrument
    target: Decimal
    filled: Decimal
    guard_price: Decimal
    arrival_price: Decimal
    started_at: datetime
    ends_at: datetime
    now: datetime
    quote: Quote | None
    urgency: Urgency = Urgency.NORMAL
    schedule: tuple[Slice, ...] = ()
    resting: RestingChild | None = None
    chases: int = 0
    missed: bool = False
    children: int = 0
    last_sent: datetime | None = None
    is_reduce_only: bool = False

    @property
    def remaining(self) -> Decimal:
        """Base asset that is still to be traded."""
        return max(ZERO, self.target - self.filled)

    def is_tradable(self, quantity: Decimal) -> bool:
        """Tell whether the exchange takes an order of ``quantity`` at the arrival price."""
        if quantity < self.instrument.min_quantity:
            return False
        return self.is_reduce_only or quantity * self.arrival_price >= self.instrument.min_notional

    def on_grid(self, quantity: Decimal) -> Decimal:
        """Return ``quantity`` rounded down to the lot grid."""
        return round_down(quantity, self.instrument.lot_step)


@dataclass(frozen=True, slots=True)
class ChildOrder:
    """An order to send. ``price`` (USDT) and ``time_in_force`` are None for a market order."""

    quantity: Decimal
    order_type: OrderType
    price: Decimal | None = None
    time_in_force: TimeInForce | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Send this child."""

    child: ChildOrder


@dataclass(frozen=True, slots=True)
class CancelResting:
    """Take the resting child back; what to do instead is asked when it is gone."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before ``until`` (market time); None: before something changes."""

    until: datetime | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing more is sent."""

    reason: str


Plan: TypeAlias = Send | CancelResting | Wait | GiveUp
Planner: TypeAlias = Callable[[SliceView], Plan]
