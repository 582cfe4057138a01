"""A position's life: opened by fills, protected, measured, closed by fills."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from services.exec_risk_service.domain.orders import EntryPlan
from services.exec_risk_service.domain.protection import Cover, Protection
from shared.trading.money import ZERO
from shared.trading.orders import Side
from shared.trading.positions import Fill, NetPosition, PositionChange


class Origin(StrEnum):
    """Who opened a position: one of our signals, or someone else on the same account."""

    SIGNAL = "SIGNAL"
    EXTERNAL = "EXTERNAL"


class ExitReason(StrEnum):
    """Why a position was closed, in the words of ``position.closed``."""

    TAKE_PROFIT = "TAKE_PROFIT"
    STOP_LOSS = "STOP_LOSS"
    MANUAL = "MANUAL"
    SIGNAL_EXIT = "SIGNAL_EXIT"
    LIQUIDATION = "LIQUIDATION"
    TIMEOUT = "TIMEOUT"
    TRAILING_STOP = "TRAILING_STOP"
    REBALANCE = "REBALANCE"


@dataclass(frozen=True, slots=True)
class ExitPlan:
    """A decision to close at market, kept until the position is flat.

    Attributes:
        reason: Why.
        cause_event_id: Event that the exit intents are derived from.
        result_trace_id: Trace in which ``execution.result`` answers.
        result_causation_id: Event that it answers; empty for the order's own first event.
        refused: The last exit order was refused: the next try waits for a timer or a candle.
    """

    reason: ExitReason
    cause_event_id: str
    result_trace_id: str
    result_causation_id: str = ""
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """One position from the first fill to flat.

    Attributes:
        position_id: Derived from the order that opened it.
        symbol: Venue symbol.
        origin: Ours or a stranger's.
        trace_id: Trace of the entry signal.
        cause_event_id: Event that its protective intents are derived from: the entry signal.
        opening_event_id: ``order.updated`` with its first fill: cause of ``position.opened``.
        opened_event_id: ``position.opened``; empty until it was announced.
        is_long: Direction, also when it is flat again.
        net: Signed quantity and average entry price.
        leverage: Leverage applied.
        opened_at: Market time of the first fill.
        plan: Exits and origin; None for strangers without a stop.
        opened_quantity: Base asset that opened or increased it; likewise ``opened_value`` in USDT.
        closed_quantity: Base asset that reduced it; likewise ``closed_value`` in USDT.
        realized_pnl: Booked by the exchange, USDT, fees not included.
        commission: Fees, USDT.
        funding: Received (positive) or paid, USDT.
        stop_price: Trigger of the stop, USDT.
        target_price: Trigger of the take-profit, USDT.
        max_profit_pct: Best open profit so far, percent of the entry price, 0 or more.
        max_drawdown_pct: Worst fall from that best, percentage points, 0 or more.
        exit: Set once the position is to be closed.
        stops_placed: Stop intents so far; likewise ``targets_placed`` and ``exits_placed``.
        closed_at: Market time of the fill that made it flat.
        closed_by: Why it is flat.
        protection: What guards it.
    """

    position_id: str
    symbol: str
    origin: Origin
    trace_id: str
    cause_event_id: str
    is_long: bool
    net: NetPosition
    leverage: int
    opened_at: datetime
    opening_event_id: str
    plan: EntryPlan | None = None
    opened_event_id: str = ""
    opened_quantity: Decimal = ZERO
    opened_value: Decimal = ZERO
    closed_quantity: Decimal = ZERO
    closed_value: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    commission: Decimal = ZERO
    funding: Decimal = ZERO
    stop_price: Decimal | None = None
    target_price: Decimal | None = None
    max_profit_pct: Decimal = ZERO
    max_drawdown_pct: Decimal = ZERO
    exit: ExitPlan | None = None
    stops_placed: int = 0
    targets_placed: int = 0
    exits_placed: int = 0
    closed_at: datetime | None = None
    closed_by: ExitReason | None = None
    protection: Protection = field(default_factory=Protection)

    @property
    def close_side(self) -> Side:
        """Side of the orders that reduce it."""
        return Side.SELL if self.is_long else Side.BUY

    @property
    def size(self) -> Decimal:
        """Open quantity without sign, base asset."""
        return abs(self.net.quantity)

    @property
    def entry_price(self) -> Decimal:
        """Mean price of all that opened it, USDT."""
        return self.opened_value / self.opened_quantity

    @property
    def exit_price(self) -> Decimal:
        """Mean price of all that closed it, USDT; the entry price when nothing was."""
        return self.closed_value / self.closed_quantity if self.closed_quantity else self.entry_price

    @property
    def net_pnl(self) -> Decimal:
        """Profit after fees and funding, USDT."""
        return self.realized_pnl - self.commission + self.funding

    @property
    def cover(self) -> Cover:
        """Its time without a stop."""
        return self.protection.cover

    @property
    def is_announced(self) -> bool:
        return bool(self.opened_event_id)

    def increased(self, change: PositionChange, fill: Fill, commission: Decimal) -> Position:
        """Return the position after the part of ``fill`` that opened or increased it."""
        return replace(
            self,
            net=change.after,
            opened_quantity=self.opened_quantity + change.opened_quantity,
            opened_value=self.opened_value + change.opened_quantity * fill.price,
            commission=self.commission + commission,
        )

    def reduced(self, change: PositionChange, fill: Fill, commission: Decimal) -> Position:
        """Return the position after the part of ``fill`` that reduced it; flat when all of it was closed."""
        left = change.after if change.opened_quantity == 0 else NetPosition(self.symbol)
        return replace(
            self,
            net=left,
            closed_quantity=self.closed_quantity + change.closed_quantity,
            closed_value=self.closed_value + change.closed_quantity * fill.price,
            realized_pnl=self.realized_pnl + fill.realized_pnl,
            commission=self.commission + commission,
        ).seen(fill.price)

    def seen(self, *prices: Decimal) -> Position:
        """Return the position with its best profit and its worst fall from it widened to ``prices``.

        The order of the prices inside a candle is not known: the fall is measured from the best of them.
        """
        direction = 1 if self.is_long else -1
        moves = [(price / self.entry_price - 1) * 100 * direction for price in prices]
        best = max(self.max_profit_pct, *moves)
        return replace(self, max_profit_pct=best, max_drawdown_pct=max(self.max_drawdown_pct, best - min(moves)))
